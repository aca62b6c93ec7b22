"""Why nothing moves: a run, and a client, name the reason and the time of the next try."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import anyio
import pytest

from client.test_journal_away import Server
from client.vendor import STEADY, connected
from segments_async import (
    ConfigurationError,
    Held,
    HeldReason,
    Pacer,
    Progress,
    SegmentsClient,
)
from segments_async.sandbox import Fault, FixedWindow, Sandbox

pytestmark = pytest.mark.alternating

R = HeldReason


@pytest.fixture
def database(monkeypatch: pytest.MonkeyPatch) -> Server:
    return Server(monkeypatch)


class Watched:
    """What a caller sees of a run that is looked at every tenth of a second."""

    def __init__(self) -> None:
        self.seen: list[tuple[float, Progress]] = []

    @property
    def reasons(self) -> list[HeldReason]:
        """The reasons in the order in which they first showed."""
        held = (progress.held for _, progress in self.seen)
        return list(dict.fromkeys(one.reason for one in held if one is not None))

    def helds(self, reason: HeldReason) -> Iterator[tuple[float, Held]]:
        for at, progress in self.seen:
            if progress.held is not None and progress.held.reason is reason:
                yield at, progress.held

    async def run(self, client: SegmentsClient, segments: Any, to: Path, **options: Any) -> None:
        async with client.open_bulk_export(segments, to, **options) as run:
            while not (ended := run.progress.waiting + run.progress.pending == 0):
                self.seen.append((anyio.current_time(), run.progress))
                await anyio.sleep(0.1)
            assert ended
            await run.report()
            self.seen.append((anyio.current_time(), run.progress))


async def watched(sandbox: Sandbox, to: Path, **options: Any) -> Watched:
    watch = Watched()
    async with connected(sandbox, **options) as client:
        await watch.run(client, sandbox.segment_ids, to)
    assert watch.seen[-1][1].held is None, "a run that has ended is held by nothing"
    return watch


async def test_nothing_holds_a_run_that_moves(tmp_path: Path) -> None:
    """Where the vendor answers everything, nothing is told."""
    watch = await watched(Sandbox(segments=20, rows=1, durations=STEADY), tmp_path)
    assert watch.reasons == []


async def test_a_process_with_nothing_left_of_a_shared_run(tmp_path: Path) -> None:
    """It waits for the other processes, and says so; while it has work, it doesn't."""
    sandbox = Sandbox(segments=40, rows=1, durations=STEADY)
    shared = {"journal": tmp_path / "runs.db", "run": "ours", "shared": True}
    seen: list[HeldReason | None] = []
    async with (
        connected(sandbox) as one,
        connected(sandbox) as other,
        one.open_bulk_export(sandbox.segment_ids, tmp_path / "out", **shared) as first,
        anyio.create_task_group() as tasks,
    ):
        await anyio.sleep(0.5)
        async with other.open_bulk_export([], tmp_path / "out", **shared) as second:
            tasks.start_soon(second.report)
            while first.progress.exported + first.progress.not_exported < 40:
                seen.append(second.progress.held and second.progress.held.reason)
                assert first.progress.held is None
                await anyio.sleep(0.1)
    assert set(seen) == {None, R.OTHER_PROCESSES}


async def test_the_minute_after_a_500(tmp_path: Path) -> None:
    """After a 500 the reason is the ticket guard, with the seconds that are left."""
    sandbox = Sandbox(segments=20, rows=1, durations=STEADY)
    sandbox.inject(Fault.status(500), method="GET", path="/export/", skip=3)
    watch = await watched(sandbox, tmp_path)
    assert watch.reasons == [R.TICKET_GUARD]
    told = list(watch.helds(R.TICKET_GUARD))
    ends = {round(at + held.seconds, 3) for at, held in told if held.seconds is not None}
    sent = [entry.at for entry in sandbox.record.api()]
    (end,) = ends
    assert min(at for at in sent if at >= told[0][0]) == pytest.approx(end, abs=0.01)


async def test_a_list_is_held_before_any_run() -> None:
    """The client names the reason while a list waits; it is nothing before and after."""
    sandbox = Sandbox()
    sandbox.inject(Fault.status(500), path="/list")
    found: list[Held | None] = []
    async with connected(sandbox) as client:
        found.append(client.held)
        run = client.open_bulk_export(sandbox.segment_ids, None)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.list_segments)
            await anyio.sleep(20)
            found += [client.held, run.progress.held]
        found.append(client.held)
    assert (found[0], found[3]) == (None, None)
    for held in found[1:3]:
        assert held is not None
        assert (held.reason, held.seconds) == (R.TICKET_GUARD, pytest.approx(40, abs=0.1))
        assert held.until is not None
        assert (held.until - datetime.now(UTC)).total_seconds() <= 60


@pytest.mark.parametrize("fault", [Fault.status(503), Fault.UNREACHABLE], ids=["503", "refused"])
async def test_the_vendor_is_away(fault: Fault, tmp_path: Path) -> None:
    """While a gateway answers, or nothing does, the reason is the vendor."""
    sandbox = Sandbox(segments=20, rows=1, durations=STEADY)
    sandbox.inject(fault, since=3, until=63)
    watch = await watched(sandbox, tmp_path)
    assert watch.reasons == [R.VENDOR_AWAY]
    times = [at for at, _ in watch.helds(R.VENDOR_AWAY)]
    assert times[-1] - times[0] > 45


async def test_a_limit_of_the_vendor(tmp_path: Path) -> None:
    """A used-up window is told as the rate limit, with the time of the next try."""
    sandbox = Sandbox(segments=40, rows=1, durations=STEADY, limit=FixedWindow(20, 60.0))
    watch = await watched(sandbox, tmp_path)
    assert watch.reasons == [R.RATE_LIMIT]
    assert all(held.seconds is not None for _, held in watch.helds(R.RATE_LIMIT))


async def test_a_cap_on_running_exports(tmp_path: Path) -> None:
    """With `max_pending`, submits wait for the end of an export; that has no time."""
    sandbox = Sandbox(segments=6, rows=1, durations=STEADY)
    watch = await watched(sandbox, tmp_path, max_pending=2)
    assert watch.reasons == [R.JOB_CAP]
    assert {held.seconds for _, held in watch.helds(R.JOB_CAP)} == {None}
    assert [p.held for _, p in watch.seen if p.waiting == 0 and p.held] == []


async def test_storage_is_away(tmp_path: Path) -> None:
    """While storage is away the reason is storage, though exports are complete."""
    sandbox = Sandbox(segments=6, rows=1, durations=STEADY)
    sandbox.inject(Fault.status(503), origin="files", since=0, until=60)
    async with connected(sandbox) as client:
        async with client.open_bulk_export(sandbox.segment_ids, tmp_path) as run:
            await anyio.sleep(30)
            assert run.progress.fetching == 6
            held = run.progress.held
            assert held is not None
            assert held.reason is R.STORAGE_AWAY
            assert held == client.held or client.held is not None
            await run.report()
            assert run.progress.held is None
        assert client.held is None


async def test_credentials_of_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While AWS credentials can't be read, the reason is those credentials."""
    monkeypatch.setenv("AWS_ROLE_ARN", "arn:aws:iam::123456789012:role/reader")
    monkeypatch.setenv("AWS_WEB_IDENTITY_TOKEN_FILE", str(tmp_path / "no-token-yet"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    sandbox = Sandbox(rows=1, durations=STEADY)
    link = Fault.fields(filename="s3://a-bucket/a-file.csv")
    sandbox.inject(link, method="GET", path="/export/", skip=3, times=99)
    async with (
        connected(sandbox) as client,
        client.open_bulk_export(sandbox.segment_ids, tmp_path / "to") as run,
    ):
        reasons = {p.held.reason async for p in run.changes(0.1) if p.held is not None}
    assert reasons == {R.STORAGE_CREDENTIALS}


async def test_the_journal_is_away(tmp_path: Path, database: Server) -> None:
    """While the journal can't be written, submits wait, and the reason is the journal."""
    sandbox = Sandbox(segments=100, rows=1, durations=STEADY)
    database.away = (3.0, 30.0)
    watch = Watched()
    async with (
        connected(sandbox, pacer=Pacer(rate=20)) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(database.tick)
        await watch.run(client, sandbox.segment_ids, tmp_path, journal=tmp_path / "runs.db")
        tasks.cancel_scope.cancel()
    assert watch.reasons == [R.JOURNAL_AWAY]


# --------------------------------------------------------------------- a run's changes


async def test_changes_begin_at_once_and_end_with_the_run(tmp_path: Path) -> None:
    """The first progress comes at once, the last is the report's, and none comes too early."""
    sandbox = Sandbox(segments=20, rows=1, durations=STEADY)
    async with (
        connected(sandbox) as client,
        client.open_bulk_export(sandbox.segment_ids, tmp_path) as run,
    ):
        seen = [(anyio.current_time(), progress) async for progress in run.changes(0.5)]
        report = await run.report()
    assert seen[-1][1] == report.progress
    assert report.progress.exported == 20
    between = [later[0] - earlier[0] for earlier, later in itertools.pairwise(seen[:-1])]
    assert len(between) > 5
    assert min(between) >= 0.5


async def test_nothing_comes_while_nothing_changes(tmp_path: Path) -> None:
    """In the minute after a 500 two changes come: the reason appears, and goes."""
    sandbox = Sandbox(rows=1, durations=STEADY)
    sandbox.inject(Fault.status(500), method="GET", path="/export/")
    async with (
        connected(sandbox) as client,
        client.open_bulk_export(sandbox.segment_ids, tmp_path) as run,
    ):
        times = [anyio.current_time() async for _ in run.changes(1.0)]
    assert len([at for at in times if 5 < at - times[0] < 55]) <= 1


async def test_a_run_that_the_account_ends_has_a_last_change(tmp_path: Path) -> None:
    """Changes end with a refused account, too, and don't raise its error."""
    sandbox = Sandbox(segments=3)
    async with (
        connected(sandbox, access_token="wrong") as client,
        client.open_bulk_export(sandbox.segment_ids, tmp_path) as run,
    ):
        assert [p.total async for p in run.changes()] == [3, 3]


async def test_changes_that_make_no_sense() -> None:
    """A run that isn't entered, and an interval of zero, are refused."""
    async with connected(Sandbox()) as client:
        run = client.open_bulk_export(["a"], None)
        with pytest.raises(ConfigurationError, match="entered"):
            run.changes()
        with pytest.raises(ConfigurationError, match="interval"):
            run.changes(0)
