"""The log: a sentence for each change, fields for programs, no flood, and no secret."""

from __future__ import annotations

import logging
import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from frames import BASIC

from client import httpx2_client
from client.test_credentials import _troubled
from client.vendor import STEADY, connected
from segments_async import (
    AuthenticationError,
    ExportFailedError,
    ExportTimeoutError,
    Pacer,
    Segment,
)
from segments_async._sansio.jobs.lifecycle import Event
from segments_async._sansio.pace.notice import PaceEvent
from segments_async.sandbox import (
    API_ORIGIN,
    PAGE_ACCESS_TOKEN,
    Fault,
    FixedWindow,
    Sandbox,
    SandboxTransport,
)

pytestmark = pytest.mark.alternating

ROOT = Path(__file__).parents[2]
SECRETS = (PAGE_ACCESS_TOKEN, BASIC, "X-Amz-Signature", "X-Amz-Credential", "0badc0de")

#: The packages whose clients a caller may pass, by the name of their logger.
CLIENTS: dict[str, Callable[[SandboxTransport], Any]] = {
    "httpx": lambda transport: httpx.AsyncClient(transport=transport),
    "httpx2": httpx2_client.client_of,
}

#: What a LogRecord has by itself.
PLAIN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class Records(logging.Handler):
    """Keeps all records."""

    def __init__(self) -> None:
        super().__init__()
        self.all: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.all.append(record)

    def of(self, *events: str) -> list[logging.LogRecord]:
        return [r for r in self.all if getattr(r, "segments_event", None) in events]

    @property
    def ours(self) -> list[logging.LogRecord]:
        return [r for r in self.all if r.name == "segments_async"]


@pytest.fixture
def records(caplog: pytest.LogCaptureFixture) -> Iterator[Records]:
    """All records of all loggers, from INFO on."""
    kept, root = Records(), logging.getLogger()
    for name in ("", "segments_async", "httpx", "httpcore", "httpx2", "httpcore2"):
        caplog.set_level(logging.INFO, logger=name or None)
    root.addHandler(kept)
    yield kept
    root.removeHandler(kept)


def fields(record: logging.LogRecord) -> dict[str, Any]:
    return {name: value for name, value in vars(record).items() if name not in PLAIN}


def dumped(value: object, depth: int = 0) -> str:
    """All that an inquisitive handler finds in a value: its texts, and its attributes'."""
    shown = f"{value} {value!r} "
    if isinstance(value, dict):
        shown += "".join(dumped(v, depth) for item in value.items() for v in item)
    elif isinstance(value, list | tuple | set):
        shown += "".join(dumped(one, depth) for one in value)
    elif depth < 6 and not isinstance(value, type):
        inner = getattr(value, "__dict__", None) or {
            name: getattr(value, name, None) for name in getattr(type(value), "__slots__", ())
        }
        shown += "".join(dumped(one, depth + 1) for one in dict(inner).values())
    return shown


# --------------------------------------------------------------------- events


async def test_info_has_a_line_for_each_export(records: Records, tmp_path: Path) -> None:
    """At INFO each export of a run has one line when it ends, with its ids and its file."""
    sandbox = Sandbox(segments=20, rows=2, durations=STEADY)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path)
    lines = {fields(r)["segments_segment_id"]: fields(r) for r in records.of("exported")}
    assert lines == {
        o.segment_id: {
            "segments_event": "exported",
            "segments_run": report.name,
            "segments_segment_id": o.segment_id,
            "segments_export_id": o.export.export_id,
            "segments_file": o.file.location,
            "segments_bytes": o.file.size,
        }
        for o in report.exported
    }
    events = Counter(fields(r)["segments_event"] for r in records.ours)
    assert events == {"run_began": 1, "exported": 20, "run_ended": 1}
    assert records.ours[-1].getMessage().endswith("20 exported, 0 unchanged, 0 not exported.")


async def test_a_line_says_why_there_is_no_file(records: Records, tmp_path: Path) -> None:
    """An export without a file has the error's class and message, and what it means for later."""
    sandbox = Sandbox(segments=3, rows=2, durations=STEADY)
    sandbox.inject(Fault.LOST_AFTER, method="POST", segment_id=sandbox.segment_ids[1])
    sandbox.inject(Fault.status(410), origin="files", segment_id=sandbox.segment_ids[2], times=9)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path)
    lines = records.of("not_exported")
    assert [line.getMessage() for line in lines] == [
        f"Not exported: {told if o.segment_id in told else f'Segment {o.segment_id}: {told}'}"
        for o in report.not_exported
        for told in [str(o.error)]
    ]
    assert {fields(line)["segments_error"] for line in lines} == {
        type(o.error).__name__ for o in report.not_exported
    }
    assert all(isinstance(fields(line)["segments_resumable"], bool) for line in lines)


async def test_debug_has_a_line_for_each_change(records: Records, tmp_path: Path) -> None:
    """At DEBUG each change of an export's state has one line, in order, with both states."""
    logging.getLogger("segments_async").setLevel(logging.DEBUG)
    sandbox = Sandbox(segments=1, rows=2, durations=STEADY)
    async with connected(sandbox) as client:
        await client.bulk_export(sandbox.segment_ids, tmp_path)
    changes = [fields(r) for r in records.ours if hasattr(r, "segments_state")]
    names = ("segments_event", "segments_state_before", "segments_state")
    assert [tuple(change[name] for name in names) for change in changes] == [
        ("intent", "new", "intent"),
        ("accepted", "intent", "submitted"),
        ("completed", "submitted", "complete"),
        ("fetch", "complete", "fetching"),
        ("fetched", "fetching", "done"),
    ]
    assert {c["segments_segment_id"] for c in changes} == set(sandbox.segment_ids)
    assert len({c.get("segments_export_id") for c in changes[1:]}) == 1


async def test_single_calls_are_heard_too(records: Records, tmp_path: Path) -> None:
    """`export()`, and the three steps by themselves, have the same events, without a run."""
    logging.getLogger("segments_async").setLevel(logging.DEBUG)
    sandbox = Sandbox(segments=2, rows=2, durations=STEADY)
    async with connected(sandbox) as client:
        await client.export(sandbox.segment_ids[0], tmp_path / "a.csv")
        whole = [fields(r)["segments_event"] for r in records.ours]
        records.all.clear()
        export = await client.request_export(sandbox.segment_ids[1])
        export = await client.wait_for_export(export.export_id)
        await client.download_export(export, tmp_path / "b.csv")
    steps = [fields(r)["segments_event"] for r in records.ours]
    assert whole == ["intent", "accepted", "completed", "fetch", "fetched", "exported"]
    assert steps == [
        *("intent", "accepted"),
        *("adopted", "completed", "completed"),
        *("fetch", "fetched", "exported"),
    ]
    assert not any(hasattr(r, "segments_run") for r in records.ours)
    assert {fields(r)["segments_segment_id"] for r in records.ours} == {sandbox.segment_ids[1]}


async def test_a_shared_export_is_heard_for_each_caller(records: Records, tmp_path: Path) -> None:
    """A run and a call that share an export have a line each; one POST goes."""
    runs: list[str] = []
    sandbox = Sandbox(segments=1, rows=2, durations=STEADY)
    async with connected(sandbox) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.export, sandbox.segment_ids[0], tmp_path / "a.csv")
        await anyio.sleep(1)
        runs.append((await client.bulk_export(sandbox.segment_ids, tmp_path / "out")).name)
    assert len(sandbox.record.submits()) == 1
    ended = records.of("exported")
    assert {getattr(r, "segments_run", None) for r in ended} == {None, *runs}
    assert len({fields(r)["segments_export_id"] for r in ended}) == 1


async def test_a_call_that_fails_or_is_left_says_so(records: Records, tmp_path: Path) -> None:
    """A timeout is an export without a file; a cancelled call says that the export may go on."""
    sandbox = Sandbox(segments=2, rows=2, durations=STEADY)
    async with connected(sandbox) as client:
        with pytest.raises(ExportTimeoutError):
            await client.export(sandbox.segment_ids[0], tmp_path / "a.csv", timeout=1)
        with anyio.move_on_after(1):
            await client.export(sandbox.segment_ids[1], tmp_path / "b.csv")
    timeout, cancelled = records.ours
    assert fields(timeout)["segments_error"] == "ExportTimeoutError"
    assert fields(cancelled)["segments_event"] == "cancelled"
    assert "may go on" in cancelled.getMessage()


async def test_a_run_that_the_account_ends_says_so(records: Records) -> None:
    """The line of a run's end names the error's class, and not its text."""
    sandbox = Sandbox(segments=3)
    async with connected(sandbox, access_token="wrong") as client:
        with pytest.raises(AuthenticationError):
            await client.bulk_export(sandbox.segment_ids, None)
    (ended,) = records.of("run_ended")
    assert fields(ended)["segments_error"] == "AuthenticationError"


async def test_what_an_earlier_session_told_is_not_told_again(
    records: Records, tmp_path: Path
) -> None:
    """Opened again, a finished run has no line for an export at INFO."""
    sandbox = Sandbox(segments=5, rows=2, durations=STEADY)
    sandbox.inject(Fault.LOST_AFTER, method="POST", segment_id=sandbox.segment_ids[1])
    options: dict[str, Any] = {"journal": tmp_path / "runs.db", "run": "nightly"}
    async with connected(sandbox) as client:
        await client.bulk_export(sandbox.segment_ids, tmp_path / "out", **options)
        records.all.clear()
        report = await client.bulk_export(sandbox.segment_ids, tmp_path / "out", **options)
    assert (len(report.exported), len(report.not_exported)) == (4, 1)
    assert [fields(r)["segments_event"] for r in records.ours] == ["run_began", "run_ended"]


# --------------------------------------------------------------------- the pace


async def test_each_change_of_the_pace_has_a_line(records: Records) -> None:
    """A limit of one minute: one line when it is used up, and one when requests are granted."""
    sandbox = Sandbox(segments=150, limit=FixedWindow(100, 60), durations=STEADY, latency=0.2)
    async with connected(sandbox, pacer=Pacer(rate=50)) as client:
        await client.bulk_export(sandbox.segment_ids, None)
    events = [fields(r)["segments_event"] for r in records.of("throttled", "granted")]
    refused = sum(entry.status == 429 for entry in sandbox.record)
    assert events == ["throttled", "granted"] * (len(events) // 2)
    assert 2 <= len(events) < refused
    assert all(fields(r)["segments_rate"] > 0 for r in records.of("granted"))
    assert all(fields(r)["segments_delay"] >= 0 for r in records.of("throttled"))


async def test_the_ticket_guard_and_an_outage_have_a_beginning_and_an_end(
    records: Records,
) -> None:
    """A 500, and a vendor that is away, are warnings; that requests go on is an information."""
    sandbox = Sandbox(segments=5, durations=STEADY)
    sandbox.inject(Fault.status(500), method="GET", path="export/")
    sandbox.inject(Fault.status(503), method="GET", path="export/", skip=3, times=4)
    async with connected(sandbox) as client:
        await client.bulk_export(sandbox.segment_ids, None)
    told = [
        (r.levelname, fields(r)["segments_event"])
        for r in records.ours
        if hasattr(r, "segments_event")
    ]
    assert told.count(("WARNING", "ticket_raised")) == 1
    assert told.count(("INFO", "guard_passed")) == 1
    assert ("WARNING", "vendor_away") in told
    assert told.count(("INFO", "vendor_back")) == 1
    assert told.index(("INFO", "guard_passed")) > told.index(("WARNING", "ticket_raised"))


# --------------------------------------------------------------------- no flood


async def test_a_large_run_does_not_flood_the_log(records: Records) -> None:
    """1 000 exports have a quarter of the lines; lines and counts add up to all of them."""
    sandbox = Sandbox(segments=1000, durations=STEADY)
    async with connected(sandbox, pacer=Pacer(rate=20)) as client:
        await client.bulk_export(sandbox.segment_ids, None)
    own, summaries = records.of("completed"), records.of("summary")
    assert len(own) < 250
    assert len(own) + sum(fields(r)["segments_ended"] for r in summaries) == 1000
    assert all("completed" in r.getMessage() for r in summaries)


async def test_the_counts_of_single_calls_come_with_the_next_call(records: Records) -> None:
    """150 calls fail in three seconds: a day later the next call tells of 50 in three seconds."""
    sandbox = Sandbox(segments=2, durations=STEADY)
    async with connected(sandbox) as client:
        export = await client.request_export(sandbox.segment_ids[0])
        for number in range(150):
            with pytest.raises(ExportTimeoutError):
                await client.wait_for_export(export, timeout=3 if number == 149 else 0.001)
        assert (len(records.of("not_exported")), records.of("summary")) == (100, [])
        await anyio.sleep(86_400)
        await client.request_export(sandbox.segment_ids[1])
        (summary,) = records.of("summary")
    assert "50 more exports have ended in 3 s" in summary.getMessage()


async def test_cancelled_calls_hide_no_other_ends(records: Records) -> None:
    """After 150 cancelled calls an export that is complete has a line, and so has a failed one."""
    sandbox = Sandbox(segments=2, durations=STEADY)
    sandbox.fail_next(sandbox.segment_ids[1])
    async with connected(sandbox) as client:
        first, second = [await client.request_export(one) for one in sandbox.segment_ids]
        for _ in range(150):
            with anyio.move_on_after(0):
                await client.wait_for_export(first)
        await client.wait_for_export(first)
        with pytest.raises(ExportFailedError):
            await client.wait_for_export(second)
    assert len(records.of("cancelled")) == 100
    assert (len(records.of("completed")), len(records.of("not_exported"))) == (1, 1)


async def test_a_log_at_warning_is_asked_once_for_each_change(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where no level is on, a change costs one `isEnabledFor` and makes no record."""
    asked: Counter[str] = Counter()
    log = logging.getLogger("segments_async")
    log.setLevel(logging.WARNING)
    enabled = log.isEnabledFor

    def counted(level: int) -> bool:
        asked[logging.getLevelName(level)] += 1
        return enabled(level)

    monkeypatch.setattr(log, "isEnabledFor", counted)
    monkeypatch.setattr(log, "makeRecord", lambda *_, **__: pytest.fail("a record"))
    sandbox = Sandbox(segments=10, durations=STEADY)
    async with connected(sandbox) as client:
        await client.bulk_export(sandbox.segment_ids, None)
    changes, ends = 4 * 10, 10
    assert asked["DEBUG"] == changes
    assert asked["INFO"] <= ends + 4  # the run's beginning and end, the counts, the client's end


# --------------------------------------------------------------------- a handler with a fault


async def test_a_handler_that_raises_ends_nothing(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """A run and a call end as without the handler, and stderr says what was raised."""

    class Raising(logging.Handler):
        def handle(self, record: logging.LogRecord) -> bool:
            raised[getattr(record, "segments_event", "")] += 1
            raise RuntimeError("a fault of the handler")

    raised: Counter[str] = Counter()
    caplog.set_level(logging.INFO, logger="segments_async")
    sandbox = Sandbox(segments=4, rows=2, durations=STEADY)
    sandbox.inject(Fault.status(429), method="POST", times=2)
    sandbox.inject(Fault.status(404), method="GET", path="export/")
    sandbox.inject(Fault.LOST_AFTER, method="POST", segment_id=sandbox.segment_ids[2])
    log, handler = logging.getLogger("segments_async"), Raising()
    log.addHandler(handler)
    try:
        async with connected(sandbox) as client:
            report = await client.bulk_export(sandbox.segment_ids[:3], tmp_path)
            await client.export(sandbox.segment_ids[3], tmp_path / "a.csv")
    finally:
        log.removeHandler(handler)
    assert [type(o.error).__name__ for o in report.not_exported] == ["SubmitUnknownError"]
    assert (raised["exported"], raised["lost"]) == (3, 1)
    assert set(raised) >= {"run_began", "throttled", "granted", "run_ended"}
    assert "a fault of the handler" in capsys.readouterr().err


# --------------------------------------------------------------------- no secret, no clash


@pytest.mark.parametrize("level", [logging.DEBUG, logging.INFO])
async def test_no_record_holds_a_secret(records: Records, level: int, tmp_path: Path) -> None:
    """A troubled run with signed links, walked record by record: text, arguments and fields."""
    for name in (None, "segments_async", "httpx", "httpcore"):
        logging.getLogger(name).setLevel(level)
    sandbox = _troubled(Sandbox(segments=12, rows=5))
    async with connected(sandbox) as client:
        segments = await client.list_segments()
        await client.bulk_export(segments[:10], tmp_path)
        await client.export(segments[10], tmp_path / "a.csv")
        export = await client.wait_for_export(await client.request_export(segments[11]))
        await client.download_export(export, tmp_path / "b.csv")
    assert export.filename is not None
    assert "X-Amz-Signature" in export.filename
    shown = "".join(
        r.getMessage()
        + dumped(r.args)
        + dumped(fields(r))
        + "".join(traceback.format_exception(r.exc_info[1]) if r.exc_info else ())
        for r in records.all
    )
    assert len(records.ours) > 12
    assert [secret for secret in SECRETS if secret in shown] == []


async def test_fields_are_plain_and_clash_with_nothing(records: Records, tmp_path: Path) -> None:
    """Each field begins with `segments_`; each is a text, a number or a boolean, never None."""
    logging.getLogger("segments_async").setLevel(logging.DEBUG)
    sandbox = _troubled(Sandbox(segments=10, rows=5))
    async with connected(sandbox) as client:
        await client.bulk_export(await client.list_segments(), tmp_path)
    found = [item for r in records.ours for item in fields(r).items()]
    assert found != []
    assert {name for name, _ in found if not name.startswith("segments_")} == set()
    assert {type(value) for _, value in found} <= {str, int, float, bool}
    assert all(isinstance(arg, str | int | float) for r in records.ours for arg in r.args or ())


async def test_an_odd_id_gives_the_log_no_orders(records: Records) -> None:
    """A segment id that is a signed link, or has line ends, is shown harmless."""
    odd = ["https://a.example/x?X-Amz-Signature=0badc0de", "a\nERROR forged \x1b[31m"]
    async with connected(Sandbox(segments=1)) as client:
        await client.bulk_export([Segment(one) for one in odd], None)
    ended = records.of("not_exported")
    shown = "".join(r.getMessage() + str(fields(r)["segments_segment_id"]) for r in ended)
    assert len(ended) == 2
    assert [part for part in ("0badc0de", "\n", "\x1b") if part in shown] == []


async def test_failed_exports_that_are_asked_for_again(records: Records) -> None:
    """With `retry_failed` each segment has one line, of its last export."""
    sandbox = Sandbox(segments=3, durations=STEADY, failed=1.0)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None, retry_failed=1)
    assert all(isinstance(o.error, ExportFailedError) for o in report.not_exported)
    assert len(records.of("not_exported")) == 3


# --------------------------------------------------------------------- httpx's own lines


@pytest.mark.parametrize("package", CLIENTS)
async def test_the_http_client_is_quiet_about_our_requests_at_info(
    records: Records, package: str
) -> None:
    """At INFO httpx says nothing of this library's requests, and all of the caller's own."""
    sandbox = Sandbox(segments=1)
    async with (
        CLIENTS[package](SandboxTransport(sandbox)) as own,
        connected(sandbox, http_client=own) as client,
    ):
        await client.list_segments()
        assert [r for r in records.all if r.name == package] == []
        await own.get(f"{API_ORIGIN}/elsewhere")
    (line,) = [r for r in records.all if r.name == package]
    assert (line.levelname, "/elsewhere" in line.getMessage()) == ("INFO", True)


@pytest.mark.parametrize("package", CLIENTS)
async def test_the_http_client_tells_of_our_requests_at_debug(
    records: Records, package: str
) -> None:
    """With httpx's logger at DEBUG each request has its line, at that level."""
    logging.getLogger(package).setLevel(logging.DEBUG)
    sandbox = Sandbox(segments=1)
    async with (
        CLIENTS[package](SandboxTransport(sandbox)) as own,
        connected(sandbox, http_client=own) as client,
    ):
        await client.list_segments()
    (line,) = [r for r in records.all if r.name == package]
    assert (line.levelno, line.levelname) == (logging.DEBUG, "DEBUG")
    assert line.getMessage().startswith("HTTP Request: GET https://")


def test_the_documents_have_each_field() -> None:
    """Each field of the log, and each event of the pace, is in docs/observability.md."""
    docs = (ROOT / "docs/observability.md").read_text()
    package = ROOT / "segments_async"
    texts = [
        p.read_text() for p in (*package.glob("_telemetry/*.py"), package / "_run/telemetry.py")
    ]
    used = {name for text in texts for name in re.findall(r'"(segments_(?!async)\w+)"', text)}
    assert len(used) > 15
    assert {name for name in used if f"`{name}`" not in docs} == set()
    named = {event.value for event in (*PaceEvent, *Event)}
    assert {name for name in named if f"`{name}`" not in docs} == set()
