"""Runs with a journal: the requests of a later session, by the sandbox's record."""

from __future__ import annotations

import itertools
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import anyio
import pytest

from client.vendor import STEADY, adds_up, all_whole, connected, is_whole, names_in, turns
from segments_async import (
    BulkReport,
    Completed,
    ConfigurationError,
    Exported,
    ExportExpiredError,
    ExportFailedError,
    ExportTimeoutError,
    JournalError,
    NotExported,
    Pacer,
    ServerError,
    SubmitUnknownError,
    TargetExistsError,
)
from segments_async._journal.database import Database
from segments_async._journal.run_log import RunLog
from segments_async._journal.sql import SqlJournal
from segments_async._run.recorder import GuardWriter
from segments_async._run.resources import account_of
from segments_async._sansio.jobs.lifecycle import Event
from segments_async._sansio.pace.backoff import TicketGuard
from segments_async.sandbox import Durations, Fault, Sandbox

pytestmark = pytest.mark.alternating

POST: dict[str, Any] = {"method": "POST", "path": "export/"}


def sandbox_of(segments: int = 8, **options: Any) -> Sandbox:
    return Sandbox(segments=segments, rows=5, durations=STEADY, **options)


async def session(
    sandbox: Sandbox, folder: Path, *, to: str | None = "out", client: Any = None, **options: Any
) -> BulkReport[Any]:
    """One session of a run, with a client of its own, as a process would have."""
    destination: Any = None if to is None else folder / to
    async with connected(sandbox, **(client or {})) as segments_client:
        segments = await segments_client.list_segments()
        return await segments_client.bulk_export(
            segments, destination, journal=folder / "runs.db", **options
        )


def kept(folder: Path) -> list[tuple[bytes, int]]:
    """The contents of the journal's files, and their modes."""
    return [(path.read_bytes(), path.stat().st_mode) for path in folder.glob("runs.db*")]


def sources(report: BulkReport[Any]) -> Counter[str]:
    return Counter(outcome.source for outcome in report.exported)


def errors(report: BulkReport[Any]) -> set[type]:
    return {type(outcome.error) for outcome in report.not_exported}


# What is refused.


@pytest.mark.parametrize(
    "options",
    [
        {"only_changed": True},
        {"run": "a"},
        {"retry_failed": -1},
        {"on_unknown": "again"},
        {"on_expired": "never"},
    ],
    ids=str,
)
async def test_options_that_make_no_sense(options: dict[str, Any], tmp_path: Path) -> None:
    """Impossible options are refused before any request."""
    sandbox = sandbox_of()
    async with connected(sandbox) as client:
        with pytest.raises(ConfigurationError):
            client.open_bulk_export(sandbox.segment_ids, tmp_path, **options)
    assert len(sandbox.record) == 0


async def test_a_run_of_a_live_process_is_locked(tmp_path: Path) -> None:
    """A second session of a run at work is refused, and sends nothing."""
    sandbox = sandbox_of()
    async with (
        connected(sandbox) as client,
        client.open_bulk_export(
            sandbox.segment_ids, tmp_path / "out", journal=tmp_path / "runs.db"
        ),
    ):
        await anyio.sleep(1)
        before = len(sandbox.record)
        async with connected(sandbox) as other:
            with pytest.raises(JournalError) as caught:
                await other.bulk_export(
                    sandbox.segment_ids, tmp_path / "out", journal=tmp_path / "runs.db"
                )
    assert caught.value.reason == "locked"
    assert {e.kind for e in list(sandbox.record)[before:]} <= {"submit", "poll", "file"}
    assert sandbox.record.duplicates() == {}


async def test_the_journal_of_another_account_is_refused(tmp_path: Path) -> None:
    """An account is its base URL and API key: with another key, nothing is sent."""
    sandbox = sandbox_of()
    await session(sandbox, tmp_path)
    before = len(sandbox.record)
    async with connected(sandbox, api_key="another-key") as client:
        with pytest.raises(JournalError) as caught:
            await client.bulk_export(
                sandbox.segment_ids, tmp_path / "out", journal=tmp_path / "runs.db"
            )
    assert caught.value.reason == "foreign"
    assert len(sandbox.record) == before


def test_an_account_is_a_place_and_a_key() -> None:
    """An account is its address, however written, and its key."""
    known = account_of("https://vendor.example", "key")
    for same in ("https://vendor.example/", "https://VENDOR.example:443"):
        assert account_of(same, "key") == known
    for other in (
        "http://vendor.example",
        "https://vendor.example/v2",
        "https://vendor.example:8443",
    ):
        assert account_of(other, "key") != known
    assert account_of("https://vendor.example", "another") != known
    assert "key" not in known


async def test_a_damaged_journal_is_refused(tmp_path: Path) -> None:
    """A damaged journal is an error, and nothing is sent."""
    sandbox = sandbox_of()
    await session(sandbox, tmp_path, timeout=2.0)
    before = len(sandbox.record)
    with closing(sqlite3.connect(tmp_path / "runs.db")) as database, database:
        database.execute("UPDATE segments_async_events SET facts = '{}'")
    async with connected(sandbox) as client:
        with pytest.raises(JournalError) as caught:
            await client.bulk_export(
                sandbox.segment_ids, tmp_path / "out", journal=tmp_path / "runs.db"
            )
    assert caught.value.reason == "damaged"
    assert len(sandbox.record) == before


def fail_at(event: Event, patch: pytest.MonkeyPatch) -> None:
    """From now on the journal fails to take this event."""
    record, add = RunLog.record, RunLog.add

    def check(what: Event) -> None:
        if what is event:
            raise JournalError("the disk is full", reason="unavailable", location="here")

    async def recording(log: RunLog, segment_id: str, what: Event, facts: Any = None) -> None:
        check(what)
        await record(log, segment_id, what, facts)

    def adding(log: RunLog, segment_id: str, what: Event, facts: Any = None) -> None:
        check(what)
        add(log, segment_id, what, facts)

    patch.setattr(RunLog, "record", recording)
    patch.setattr(RunLog, "add", adding)


@pytest.mark.parametrize("event", [Event.INTENT, Event.ACCEPTED, Event.COMPLETED, Event.FETCHED])
async def test_a_journal_that_fails_ends_the_run(
    event: Event, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error ends the run; no POST goes without a durable INTENT; a later session goes on."""
    sandbox = sandbox_of()
    with monkeypatch.context() as patch:
        fail_at(event, patch)
        with pytest.raises(JournalError, match="the disk is full"):
            await session(sandbox, tmp_path)
    if event is Event.INTENT:
        assert sandbox.record.submits() == []
    report = await session(sandbox, tmp_path)
    known_lost = {o.segment_id for o in report.not_exported}
    assert errors(report) <= {SubmitUnknownError}
    assert len(report.exported) + len(known_lost) == 8
    assert event is Event.ACCEPTED or not known_lost
    assert sandbox.record.duplicates() == {}


async def test_a_failing_journal_harms_no_other_caller(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another caller that shares an export with the run gets its file."""
    sandbox = sandbox_of(1)
    fail_at(Event.COMPLETED, monkeypatch)
    async with connected(sandbox) as client, anyio.create_task_group() as tasks:

        async def single() -> None:
            file = await client.export(sandbox.segment_ids[0], tmp_path / "single.csv")
            assert is_whole(sandbox, file.path, sandbox.segment_ids[0])

        tasks.start_soon(single)
        with pytest.raises(JournalError):
            await client.bulk_export(
                sandbox.segment_ids, tmp_path / "out", journal=tmp_path / "runs.db"
            )
    assert len(sandbox.record.submits()) == 1


# Going on.


@pytest.mark.parametrize("seconds", [0.05, 0.5, 2.0, 4.5])
async def test_the_next_session_goes_on(seconds: float, tmp_path: Path) -> None:
    """Wherever a session ended, the next one ends the run, with no second export."""
    sandbox = sandbox_of(20, latency=0.1)
    first = await session(sandbox, tmp_path, timeout=seconds)
    second = await session(sandbox, tmp_path)
    assert second.name == first.name
    assert second.ok
    assert all_whole(sandbox, second.exported)
    assert sandbox.record.duplicates() == {}
    assert sources(second)["resumed"] == len(first.exported)
    assert adds_up(second.progress)


@pytest.mark.parametrize("journal", [False, True])
async def test_a_run_left_at_once_has_an_outcome_for_each(journal: bool, tmp_path: Path) -> None:
    """A run that is left at once has an outcome per segment, and has requested nothing."""
    sandbox = sandbox_of(1500)
    options: dict[str, Any] = {"journal": tmp_path / "runs.db"} if journal else {}
    async with connected(sandbox) as client:
        async with client.open_bulk_export(sandbox.segment_ids, tmp_path / "out", **options) as run:
            pass
        outcomes = [outcome async for outcome in run]
        assert len(outcomes) == 1500
        assert all(isinstance(o, NotExported) and o.resumable for o in outcomes)
        assert adds_up(run.progress)
    assert len(sandbox.record.submits()) <= 1


async def test_a_resumed_run_left_at_once_knows_what_is_done(tmp_path: Path) -> None:
    """Files of an earlier session are outcomes of a resumed run, whenever it is left."""
    sandbox = sandbox_of(6)
    first = await session(sandbox, tmp_path, timeout=4.3)
    assert first.exported
    async with connected(sandbox) as client:
        async with client.open_bulk_export(
            sandbox.segment_ids, tmp_path / "out", journal=tmp_path / "runs.db"
        ) as run:
            pass
        outcomes = [outcome async for outcome in run]
    done = {o.segment_id for o in outcomes if isinstance(o, Exported)}
    assert done == {o.segment_id for o in first.exported}
    assert len(outcomes) == 6
    assert (await session(sandbox, tmp_path)).ok
    assert sandbox.record.duplicates() == {}


async def test_a_complete_export_is_fetched_and_never_asked_for_again(tmp_path: Path) -> None:
    """A session that could fetch no file leaves exports that the next one fetches."""
    sandbox = sandbox_of()
    sandbox.inject(Fault.cut(0), origin="files", times=5 * 8)
    first = await session(sandbox, tmp_path)
    assert (len(first.exported), len(first.not_exported)) == (0, 8)
    assert all(outcome.resumable for outcome in first.not_exported)
    submits = len(sandbox.record.submits())
    second = await session(sandbox, tmp_path)
    assert second.ok
    assert len(sandbox.record.submits()) == submits == 8


async def test_another_process_waits_by_the_id(tmp_path: Path) -> None:
    """Another process can wait for an export of the run, and fetch it, by its id."""
    sandbox = sandbox_of(1)
    first = await session(sandbox, tmp_path, timeout=1.0)
    [left] = first.not_exported
    assert left.export is not None
    async with connected(sandbox) as client:
        export = await client.wait_for_export(left.export.export_id)
        file = await client.download_export(export, tmp_path / "a.csv")
    assert is_whole(sandbox, file.path, left.segment_id)
    assert len(sandbox.record.submits()) == 1


async def test_the_segments_given_now_decide(tmp_path: Path) -> None:
    """Segments that are no longer given have no outcome; new ones are exported."""
    sandbox = sandbox_of(6)
    ids = sandbox.segment_ids
    async with connected(sandbox) as client:
        await client.bulk_export(
            ids[:4], tmp_path / "out", journal=tmp_path / "runs.db", timeout=1.0
        )
        report = await client.bulk_export(ids[2:], tmp_path / "out", journal=tmp_path / "runs.db")
    assert {o.segment_id for o in report.exported} == set(ids[2:])
    assert report.ok
    assert sandbox.record.duplicates() == {}


async def test_links_alone_go_on_too(tmp_path: Path) -> None:
    """With `to=None`, a later session brings the links of complete exports, by a poll each."""
    sandbox = sandbox_of(4)
    await session(sandbox, tmp_path, to=None, timeout=2.0)
    report = await session(sandbox, tmp_path, to=None)
    assert len(report.exported) == 4
    assert all(isinstance(o, Completed) and o.export.filename for o in report.exported)
    assert sandbox.record.duplicates() == {}


async def test_a_file_that_is_gone_is_fetched_again(tmp_path: Path) -> None:
    """A deleted file of an unfinished run costs a poll, and no export."""
    sandbox = sandbox_of(6)
    first = await session(sandbox, tmp_path, timeout=4.3)
    assert 0 < len(first.exported) < 6
    lost = first.exported[0]
    lost.file.path.unlink()
    second = await session(sandbox, tmp_path)
    assert second.ok
    assert all_whole(sandbox, second.exported)
    assert sandbox.record.duplicates() == {}


async def test_patience_counts_from_the_accepted_post(tmp_path: Path) -> None:
    """`export_timeout` counts from the accepted POST, over all sessions."""
    slow = Durations(median=300.0, sigma=0, longest=300.0)
    sandbox = Sandbox(segments=1, rows=5, durations=slow)
    first = await session(sandbox, tmp_path, timeout=100.0)
    assert errors(first) == {ExportTimeoutError}
    with closing(sqlite3.connect(tmp_path / "runs.db")) as database:
        assert database.execute("SELECT count(*) FROM segments_async_events").fetchone() == (2,)
    second = await session(sandbox, tmp_path, export_timeout=1e-6)
    assert errors(second) == {ExportTimeoutError}
    assert all(outcome.resumable for outcome in second.not_exported)
    assert (await session(sandbox, tmp_path)).ok
    assert len(sandbox.record.submits()) == 1


# Runs with names.


async def test_a_finished_run_is_told_again(tmp_path: Path) -> None:
    """A finished run, given again, has the same outcomes, and sends only its list."""
    sandbox = sandbox_of()
    first = await session(sandbox, tmp_path, run="2026-11-23")
    before = len(sandbox.record)
    second = await session(sandbox, tmp_path, run="2026-11-23")
    assert [e.kind for e in list(sandbox.record)[before:]] == ["list"]
    assert {(o.file.location, o.file.sha256, o.export.export_id) for o in second.exported} == {
        (o.file.location, o.file.sha256, o.export.export_id) for o in first.exported
    }
    assert sources(second) == {"resumed": 8}


async def test_the_next_night_exports_again(tmp_path: Path) -> None:
    """A new run replaces the files of the last run without `overwrite`, and no other file."""
    sandbox = sandbox_of(3)
    first = await session(sandbox, tmp_path, run="one")
    foreign = first.exported[0].file.path
    second = await session(sandbox, tmp_path, run="two")
    assert second.ok
    assert all(is_whole(sandbox, o.file.path, o.segment_id, attempt=1) for o in second.exported)
    assert sandbox.record.exports_per_segment() == dict.fromkeys(sandbox.segment_ids, 2)

    (tmp_path / "runs.db").rename(tmp_path / "elsewhere.db")
    third = await session(sandbox, tmp_path)
    assert errors(third) == {TargetExistsError}, f"{foreign} is nobody's now"


async def test_without_a_name_a_finished_run_is_followed_by_a_new_one(tmp_path: Path) -> None:
    """Without a name, only an unfinished run is resumed."""
    sandbox = sandbox_of(2)
    first, second = await session(sandbox, tmp_path), await session(sandbox, tmp_path)
    assert first.name != second.name
    assert sources(second) == {"exported": 2}


async def test_a_run_is_bound_to_its_directory(tmp_path: Path) -> None:
    """The name of a run with files in another directory is refused."""
    sandbox = sandbox_of(1)
    await session(sandbox, tmp_path, run="one", to="here")
    with pytest.raises(ConfigurationError):
        await session(sandbox, tmp_path, run="one", to="there")


# Lost answers, failures, expiry.


async def test_a_lost_answer_stays_in_the_open(tmp_path: Path) -> None:
    """The next session doesn't repeat a POST whose answer was lost, and reports it as unknown."""
    sandbox = sandbox_of(3)
    sandbox.inject(Fault.LOST_AFTER, **POST, segment_id=sandbox.segment_ids[1])
    sandbox.inject(Fault.cut(0), origin="files", times=10)
    first = await session(sandbox, tmp_path)
    assert SubmitUnknownError in errors(first)
    second = await session(sandbox, tmp_path)
    assert errors(second) == {SubmitUnknownError}
    assert [o.submitted for o in second.not_exported] == ["maybe"]
    assert sandbox.record.duplicates() == {}


@pytest.mark.parametrize("later", [False, True])
async def test_a_lost_answer_is_submitted_again_on_request(later: bool, tmp_path: Path) -> None:
    """`on_unknown="resubmit"` takes the risk, in the same session or in a later one."""
    sandbox = sandbox_of(2)
    sandbox.inject(Fault.LOST_AFTER, **POST, segment_id=sandbox.segment_ids[1])
    if later:
        sandbox.inject(Fault.cut(0), origin="files", times=5)
        await session(sandbox, tmp_path)
    report = await session(sandbox, tmp_path, on_unknown="resubmit")
    assert report.ok
    assert sandbox.record.duplicates() == {sandbox.segment_ids[1]: 2}


async def test_resubmitting_ends(tmp_path: Path) -> None:
    """With every answer lost, a segment is submitted four times, and no more."""
    sandbox = sandbox_of(1)
    sandbox.inject(Fault.LOST_BEFORE, **POST, times=99)
    report = await session(sandbox, tmp_path, on_unknown="resubmit")
    assert errors(report) == {SubmitUnknownError}
    assert len(sandbox.record.submits()) == 4


async def test_a_500_to_a_post_is_not_asked_again_by_the_way(tmp_path: Path) -> None:
    """A POST that got a 500 is not repeated, by `on_unknown` or by a later session."""
    sandbox = sandbox_of(2)
    sandbox.inject(Fault.status(500), **POST, segment_id=sandbox.segment_ids[0])
    sandbox.inject(Fault.cut(0), origin="files", times=5)
    first = await session(sandbox, tmp_path, on_unknown="resubmit")
    assert ServerError in errors(first)
    second = await session(sandbox, tmp_path)
    assert errors(second) == {ServerError}
    assert len(sandbox.record.submits(sandbox.segment_ids[0])) == 1


async def test_failed_exports_are_asked_for_again_after_a_minute(tmp_path: Path) -> None:
    """`retry_failed=2` makes three exports, a minute apart, and then reports the failure."""
    sandbox = sandbox_of(2, failed=1.0)
    report = await session(sandbox, tmp_path, retry_failed=2)
    assert errors(report) == {ExportFailedError}
    for segment_id in sandbox.segment_ids:
        at = [entry.at for entry in sandbox.record.submits(segment_id)]
        assert len(at) == 3
        assert all(later - earlier >= 60 for earlier, later in itertools.pairwise(at))
    again = await session(sandbox, tmp_path, run=report.name, retry_failed=2)
    assert errors(again) == {ExportFailedError}
    assert len(sandbox.record.submits()) == 6


async def test_a_cooldown_that_time_ends_is_reported(tmp_path: Path) -> None:
    """A run whose time is up during a retry delay reports that the export failed."""
    sandbox = sandbox_of(2, failed=1.0)
    report = await session(sandbox, tmp_path, retry_failed=5, timeout=30.0)
    assert errors(report) == {ExportFailedError}
    assert len(report.not_exported) == 2
    assert adds_up(report.progress)


@pytest.mark.parametrize("on_expired", ["report", "resubmit"])
async def test_a_file_that_is_gone_before_it_was_fetched(on_expired: str, tmp_path: Path) -> None:
    """A file past its 48 hours is an ExportExpiredError, or is exported once more on request."""
    sandbox = sandbox_of(1)
    await session(sandbox, tmp_path, timeout=2.0)
    async with connected(sandbox) as client:
        await client.list_segments()
        await anyio.sleep(49 * 3600)
        report = await client.bulk_export(
            sandbox.segment_ids,
            tmp_path / "out",
            journal=tmp_path / "runs.db",
            on_expired=on_expired,  # type: ignore[arg-type]
        )
    if on_expired == "report":
        assert errors(report) == {ExportExpiredError}
        assert len(sandbox.record.submits()) == 1
    else:
        assert is_whole(sandbox, report.exported[0].file.path, sandbox.segment_ids[0], attempt=1)
        assert len(sandbox.record.submits()) == 2


async def test_a_second_export_has_no_reason_of_the_first_ones_download(tmp_path: Path) -> None:
    """Where time runs out for the export that replaces one, no reason of the first one is told."""
    sandbox = sandbox_of(1)
    await session(sandbox, tmp_path, timeout=2.0)
    async with connected(sandbox) as client:
        await anyio.sleep(49 * 3600)
        page = Fault.status(200, headers={"Content-Type": "text/html"}, body=b"<html>")
        sandbox.inject(page, origin="files", times=1)
        report = await client.bulk_export(
            sandbox.segment_ids,
            tmp_path / "out",
            journal=tmp_path / "runs.db",
            on_expired="resubmit",
            timeout=3.0,
        )
    assert [entry.status for entry in sandbox.record.files()] == [200, 404]
    assert len(sandbox.record.submits()) == 2
    (outcome,) = report.not_exported
    assert isinstance(outcome.error, ExportTimeoutError)
    assert "broke off" not in str(outcome.error)


async def test_an_expired_link_is_renewed_once(tmp_path: Path) -> None:
    """An expired link is renewed by a poll, without a new export."""
    sandbox = sandbox_of(1, link_lifetime=60)
    async with connected(sandbox) as client:
        export = await client.request_export(sandbox.segment_ids[0])
        export = await client.wait_for_export(export)
        await anyio.sleep(120)
        polls = len(sandbox.record.polls())
        file = await client.download_export(export, tmp_path / "a.csv")
        await anyio.sleep(120)
        async with client.open_export(export) as body:
            streamed = b"".join([chunk async for chunk in body.iter_bytes()])
    assert is_whole(sandbox, file.path, sandbox.segment_ids[0])
    assert streamed == sandbox.content(sandbox.segment_ids[0])
    assert len(sandbox.record.polls()) == polls + 2
    assert len(sandbox.record.submits()) == 1


# The ticket guard.


async def test_the_guard_outlives_the_process(tmp_path: Path) -> None:
    """After a 500, the next process sends nothing before the pause is over."""
    sandbox = sandbox_of(4)
    sandbox.inject(Fault.status(500), **POST)
    await session(sandbox, tmp_path, timeout=1.0)
    [refused] = [e for e in sandbox.record.api() if e.status == 500]
    before = len(sandbox.record)
    async with connected(sandbox) as client:
        await client.bulk_export(
            sandbox.segment_ids, tmp_path / "out", journal=tmp_path / "runs.db"
        )
    later = list(sandbox.record)[before:]
    # Virtual time runs in the loops alone, and the guard is kept by the wall clock, which stood.
    assert later[0].at - refused.at >= 59


async def test_the_last_state_of_the_guard_is_the_one_that_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A probe passed between two 500s: though its write is slow, it is not the last one."""
    written: list[bool] = []
    slow = iter([0.0, 0.2, 0.0])
    set_guard = Database.set_guard

    def slowly(self: Database, record: Any) -> None:
        time.sleep(next(slow, 0.0))
        set_guard(self, record)
        written.append(record is not None)

    monkeypatch.setattr(Database, "set_guard", slowly)
    journal = await SqlJournal.open(tmp_path / "runs.db", account="0" * 64)
    guard, writer = TicketGuard(), GuardWriter(journal)
    guard.on_internal_error(0.0)
    await writer.record(guard)
    async with anyio.create_task_group() as tasks:
        guard.on_sent()
        guard.on_probe_answer(1.0, passed=True)
        tasks.start_soon(writer.record, guard)
        await turns(5)
        guard.on_internal_error(2.0)
        tasks.start_soon(writer.record, guard)
    assert written[-1] is True
    assert await journal.ask(Database.guard) is not None


async def test_a_guard_that_closed_is_forgotten(tmp_path: Path) -> None:
    """After a probe that passed, a later process sends at once."""
    sandbox = sandbox_of(2)
    sandbox.inject(Fault.status(500), method="GET", path="export/")
    assert (await session(sandbox, tmp_path)).ok
    before = len(sandbox.record)
    async with connected(sandbox) as client:
        began = anyio.current_time()
        report = await client.bulk_export(
            sandbox.segment_ids, tmp_path / "out", journal=tmp_path / "runs.db"
        )
        assert anyio.current_time() - began < 30
    assert report.ok
    assert len(sandbox.record) > before


# What hasn't changed.


async def test_what_has_not_changed_is_not_asked_for(tmp_path: Path) -> None:
    """The second night exports the refreshed segments alone."""
    sandbox = sandbox_of(6)
    await session(sandbox, tmp_path)
    changed = sandbox.segment_ids[2:4]
    for segment_id in changed:
        sandbox.refresh(segment_id, 86_400.0)
    report = await session(sandbox, tmp_path, only_changed=True)
    assert report.ok
    assert sources(report) == {"unchanged": 4, "exported": 2}
    assert sandbox.record.duplicates() == dict.fromkeys(changed, 2)
    assert report.progress.unchanged == 4
    assert adds_up(report.progress)
    assert all(outcome.file.path.exists() for outcome in report.exported)
    # And a third night knows the files of the first.
    assert sources(await session(sandbox, tmp_path, only_changed=True)) == {"unchanged": 6}


LOSSES: dict[str, Callable[[Path], None]] = {
    "gone": os.unlink,
    "cut": lambda path: os.truncate(path, 3),
}


@pytest.mark.parametrize("lose", LOSSES.values(), ids=LOSSES)
async def test_a_file_that_is_not_there_is_exported_again(
    lose: Callable[[Path], None], tmp_path: Path
) -> None:
    """Only a file that is still in its place, unchanged, counts as unchanged."""
    sandbox = sandbox_of(2)
    first = await session(sandbox, tmp_path)
    lose(first.exported[0].file.path)
    second = await session(sandbox, tmp_path, only_changed=True)
    assert sources(second) == {"unchanged": 1, "exported": 1}


async def test_a_file_elsewhere_is_no_reason_to_skip(tmp_path: Path) -> None:
    """A file in another destination doesn't count as unchanged."""
    sandbox = sandbox_of(2)
    await session(sandbox, tmp_path, to="here")
    report = await session(sandbox, tmp_path, to="there", only_changed=True)
    assert sources(report) == {"exported": 2}


# What is on the disk.


async def test_no_secret_is_in_the_journal(tmp_path: Path) -> None:
    """The journal has no token and no signed link, and other users can't read it."""
    sandbox = sandbox_of(3)
    sandbox.inject(Fault.status(403, body="https://x.example/?X-Amz-Signature=abc"), origin="files")
    await session(sandbox, tmp_path)
    for text, mode in kept(tmp_path):
        assert b"X-Amz-Signature" not in text
        assert b"nux06hkn870v0ni4fhtd81kf" not in text
        assert mode & 0o077 == 0


async def test_durations_order_the_next_run(tmp_path: Path) -> None:
    """The exports that took longest are submitted first, in another process too.

    The vendor tells times in whole milliseconds, so two that differ by less may change places.
    """
    sandbox = Sandbox(segments=12, rows=5, durations=Durations(median=5.0, sigma=1.0))
    await session(sandbox, tmp_path)
    before = len(sandbox.record.submits())
    await session(sandbox, tmp_path, client={"pacer": Pacer(rate=2)})
    order = [entry.segment_id for entry in sandbox.record.submits()[before:]]
    took = [sandbox.duration(segment_id) for segment_id in order if segment_id]
    assert len(took) == 12
    assert all(first > then - 0.001 for first, then in itertools.pairwise(took))


async def test_a_manifest_has_a_line_for_every_outcome_of_a_session(tmp_path: Path) -> None:
    """Resumed outcomes have lines too: the last process may have died before it wrote them."""
    sandbox = sandbox_of(4)
    first = await session(sandbox, tmp_path, timeout=4.3)
    await session(sandbox, tmp_path)
    lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
    assert len(lines) == 8
    assert sum('"source": "resumed"' in line for line in lines) == len(first.exported)


async def test_an_outcome_is_what_it_was(tmp_path: Path) -> None:
    """A finished run given again has equal outcomes, without the links."""
    sandbox = sandbox_of(3)
    sandbox.inject(Fault.status(404, body="no"), **POST, segment_id=sandbox.segment_ids[0])
    first = await session(sandbox, tmp_path, run="one")
    second = await session(sandbox, tmp_path, run="one")
    [was], [told] = first.not_exported, second.not_exported
    assert isinstance(told, NotExported)
    assert (type(told.error), str(told.error)) == (type(was.error), str(was.error))
    assert all(isinstance(outcome, Exported) for outcome in second.exported)
    assert names_in(tmp_path / "out") == sorted(
        [".segments-async", "manifest.jsonl", *(o.file.path.name for o in first.exported)]
    )


async def test_a_directory_with_two_slashes(tmp_path: Path) -> None:
    """A directory written with two slashes is the same one, with the same run."""
    sandbox = sandbox_of(6)
    await session(sandbox, tmp_path, timeout=2.0)
    async with connected(sandbox) as client:
        report = await client.bulk_export(
            sandbox.segment_ids, f"/{tmp_path}/out", journal=f"/{tmp_path}/runs.db"
        )
    assert report.ok
    assert all_whole(sandbox, report.exported)
    assert sandbox.record.duplicates() == {}
