"""Bulk runs: their outcomes, their progress, their ends, and the files they leave."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import anyio
import pytest

from client.vendor import (
    STEADY,
    adds_up,
    all_whole,
    assert_at_rest,
    connected,
    gaps,
    names_in,
    turns,
)
from segments_async import (
    AuthenticationError,
    BulkExportError,
    Completed,
    ConfigurationError,
    Exported,
    ExportFailedError,
    ExportTimeoutError,
    NotExported,
    NotSubmittedError,
    Pacer,
    ServerError,
    SubmitUnknownError,
)
from segments_async._files import directory
from segments_async.sandbox import Durations, Fault, Sandbox, TokenBucket


def manifest(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / "manifest.jsonl").read_text().splitlines()]


# --------------------------------------------------------------------- what comes out


async def test_each_segment_has_one_outcome(tmp_path: Path) -> None:
    """Each segment has one outcome; files are whole, and no other file is in the directory."""
    sandbox = Sandbox(
        segments=60, rows=5, failed=0.1, lost_after=0.02, gateway_errors=0.02, latency=0.1
    )
    sandbox.inject(Fault.status(404), origin="files", skip=7)
    outcomes: list[Exported | NotExported] = []
    async with connected(sandbox) as client:
        segments = await client.list_segments()
        async with client.open_bulk_export(segments, tmp_path) as run:
            async for outcome in run:
                outcomes.append(outcome)
                assert adds_up(run.progress)
            report = await run.report()
    assert sorted(o.segment_id for o in outcomes) == sorted(sandbox.segment_ids)
    assert [*report.exported, *report.not_exported] != []
    assert {*report.exported} | {*report.not_exported} == {*outcomes}
    assert all_whole(sandbox, report.exported)
    files = {o.file.path.name for o in report.exported}
    assert names_in(tmp_path) == sorted(files | {"manifest.jsonl"})
    assert sandbox.record.duplicates() == {}
    progress = report.progress
    assert (progress.exported, progress.not_exported) == (
        len(report.exported),
        len(report.not_exported),
    )
    assert progress.bytes >= sum(o.file.size for o in report.exported)
    assert progress.requests >= len(sandbox.record.api()) - 1  # UNREACHABLE ones aren't there


async def test_the_manifest_has_a_line_for_each_outcome(tmp_path: Path) -> None:
    """Each line of the manifest has the same keys, and the outcome's values."""
    sandbox = Sandbox(segments=20, rows=5, failed=0.3)
    async with connected(sandbox) as client:
        segments = await client.list_segments()
        report = await client.bulk_export(segments, tmp_path)
    lines = manifest(tmp_path)
    assert len({tuple(line) for line in lines}) == 1
    by_segment = {line["segment_id"]: line for line in lines}
    assert len(by_segment) == len(lines) == 20
    for done in report.exported:
        line = by_segment[done.segment_id]
        assert (line["outcome"], line["file"], line["sha256"]) == (
            "exported",
            done.file.location,
            sandbox.sha256(done.segment_id),
        )
    for missing in report.not_exported:
        line = by_segment[missing.segment_id]
        assert (line["outcome"], line["submitted"]) == ("not_exported", "yes")
        assert line["error"]["type"] == "ExportFailedError"
    assert {line["run"] for line in lines} == {report.name}


async def test_a_line_that_could_not_be_written_is_written_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A moment without a free descriptor costs the manifest no line."""
    failing = [OSError(24, "Too many open files") for _ in range(3)]
    append = directory.append_lines

    def append_or_fail(path: Path, lines: Sequence[str]) -> None:
        if failing:
            raise failing.pop()
        append(path, lines)

    monkeypatch.setattr(directory, "append_lines", append_or_fail)
    async with connected(Sandbox(segments=6, rows=5)) as client:
        report = await client.bulk_export(await client.list_segments(), tmp_path)
    assert report.ok
    lines = [line["segment_id"] for line in manifest(tmp_path)]
    assert sorted(lines) == sorted(one.segment_id for one in report.exported)


async def test_links_alone_fetch_nothing(tmp_path: Path) -> None:
    """`to=None` yields Completed with the link, and nothing is requested from the file host."""
    sandbox = Sandbox(segments=10)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
    assert all(type(o) is Completed and o.export.filename for o in report.exported)
    assert len(report.exported) == 10
    assert sandbox.record.files() == []
    assert names_in(tmp_path) == []


async def test_a_failed_export_is_an_outcome(tmp_path: Path) -> None:
    """FAILED is not resumable, and the others go on."""
    sandbox = Sandbox(segments=20, rows=5, failed=0.3)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path)
    failed = {s for s in sandbox.segment_ids if sandbox.fails(s)}
    assert {o.segment_id for o in report.not_exported} == failed
    assert all(isinstance(o.error, ExportFailedError) for o in report.not_exported)
    assert {(o.submitted, o.resumable) for o in report.not_exported} == {("yes", False)}
    with pytest.raises(BulkExportError) as caught:
        report.raise_for_errors()
    assert caught.value.report is report
    assert not report.ok


async def test_a_run_may_be_iterated_twice(tmp_path: Path) -> None:
    """Each loop has all outcomes from the first on, during the run and after it."""
    sandbox = Sandbox(segments=8, rows=5)
    seen: list[list[str]] = [[], []]
    async with (
        connected(sandbox) as client,
        client.open_bulk_export(sandbox.segment_ids, tmp_path) as run,
    ):

        async def iterate(into: list[str]) -> None:
            into.extend([outcome.segment_id async for outcome in run])

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(iterate, seen[0])
            tasks.start_soon(iterate, seen[1])
        third = [outcome.segment_id async for outcome in run]
    assert seen[0] == seen[1] == third
    assert len(third) == 8


async def test_a_run_goes_on_while_nobody_iterates(tmp_path: Path) -> None:
    """Inside its block the run continues without an iterating caller."""
    sandbox = Sandbox(segments=8, rows=5, durations=STEADY)
    async with (
        connected(sandbox) as client,
        client.open_bulk_export(sandbox.segment_ids, tmp_path) as run,
    ):
        await anyio.sleep(60)
        assert run.progress.exported == 8
        assert len([outcome async for outcome in run]) == 8


async def test_a_run_needs_its_block() -> None:
    """To iterate without entering the run is an error, and no endless wait."""
    async with connected(Sandbox()) as client:
        run = client.open_bulk_export(["a"], None)
        with pytest.raises(ConfigurationError):
            async for _ in run:
                pass
        with pytest.raises(ConfigurationError):
            await run.report()


async def test_the_longest_are_submitted_first() -> None:
    """Submits go by `expected_seconds`; segments without a guess last, in the given order."""
    sandbox = Sandbox(segments=6)
    a, b, c, d, e, f = sandbox.segment_ids
    guesses = {c: 10.0, e: 3600.0, a: 60.0}
    async with connected(sandbox, pacer=Pacer(rate=5)) as client:
        await client.bulk_export(sandbox.segment_ids, None, expected_seconds=guesses)
    assert [entry.segment_id for entry in sandbox.record.submits()] == [e, a, c, b, d, f]


@pytest.mark.parametrize("most", [1, 5])
async def test_max_pending_is_kept(most: int) -> None:
    """The vendor never has more than max_pending exports at work, and gets one as one ends."""
    sandbox = Sandbox(segments=25, max_pending=most, failed=0.2)
    async with connected(sandbox, max_pending=most) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
    assert len(report.exported) + len(report.not_exported) == 25
    assert sandbox.record.throttled() == []
    spans = [(e.at, e.at + sandbox.duration(e.segment_id or "")) for e in sandbox.record.submits()]
    assert max(sum(1 for s, t in spans if s <= at < t) for at, _ in spans) == most


# --------------------------------------------------------------------- ends


class Mine(Exception):
    """An exception of the user's own."""


async def test_leaving_early_ends_everything(tmp_path: Path) -> None:
    """After the block no request is sent, no task is left, and no half file."""
    sandbox = Sandbox(segments=30, rows=5, latency=0.3)
    async with connected(sandbox) as client:
        before = {task.id for task in anyio.get_running_tasks()}
        async with client.open_bulk_export(sandbox.segment_ids, tmp_path) as run:
            async for _ in run:
                break
        assert {task.id for task in anyio.get_running_tasks()} == before
        sent = len(sandbox.record)
        assert_at_rest(client, sandbox)
        await anyio.sleep(1000)
        assert len(sandbox.record) == sent
        assert all(name.endswith((".csv", ".jsonl")) for name in names_in(tmp_path))
        done = [o async for o in run]
        assert all_whole(sandbox, [o for o in done if isinstance(o, Exported)])
        assert len(manifest(tmp_path)) == len(done)
        # What was left running is joined, not asked for again.
        report = await client.bulk_export(
            [s for s in sandbox.segment_ids if s not in {o.segment_id for o in done}], None
        )
    assert report.ok
    assert sandbox.record.duplicates() == {}


@pytest.mark.parametrize("moment", [0.0, 0.05, 1.0, 4.2, 30.0])
async def test_the_callers_exception_arrives_bare(moment: float, tmp_path: Path) -> None:
    """An exception raised in the block comes out as it is, at any time of the run."""
    sandbox = Sandbox(segments=10, rows=5, durations=STEADY, latency=0.1)
    error = Mine()
    async with connected(sandbox) as client:
        with pytest.raises(Mine) as caught:  # noqa: PT012 (what a user's block is like)
            async with client.open_bulk_export(sandbox.segment_ids, tmp_path):
                await anyio.sleep(moment)
                raise error
        assert caught.value is error
        sent = len(sandbox.record)
        await anyio.sleep(100)
        assert len(sandbox.record) == sent


@pytest.mark.parametrize("steps", range(8))
async def test_it_is_bare_when_the_run_breaks_off_too(steps: int) -> None:
    """The caller's exception is bare, too, if a 401 ends the run at nearly the same time."""
    sandbox = Sandbox(segments=10)
    sandbox.inject(Fault(delay=1.0, reply=Fault.status(401).reply, acts=False))
    async with connected(sandbox) as client:
        with pytest.raises(Mine) as caught:  # noqa: PT012 (what a user's block is like)
            async with client.open_bulk_export(sandbox.segment_ids, None):
                await anyio.sleep(1.0)
                await turns(steps)
                raise Mine
    assert type(caught.value) is Mine


async def test_a_fatal_error_leaves_the_callers_block_alone() -> None:
    """A caller that doesn't iterate isn't cancelled; its next call raises the error."""
    sandbox = Sandbox(segments=10)
    sandbox.inject(Fault.status(401), method="POST", skip=3)
    async with connected(sandbox) as client:
        async with client.open_bulk_export(sandbox.segment_ids, None) as run:
            await anyio.sleep(50)
            with pytest.raises(AuthenticationError):
                await run.report()
            with pytest.raises(AuthenticationError):
                await run.report()
        assert anyio.current_time() >= 50


@pytest.mark.parametrize("moment", [0.0, 0.3, 2.0, 4.3])
async def test_a_cancelled_caller_leaves_nothing(moment: float, tmp_path: Path) -> None:
    """After a cancel scope, no request is sent; running exports can be joined later."""
    sandbox = Sandbox(segments=10, rows=5, durations=STEADY, latency=0.2)
    async with connected(sandbox) as client:
        with anyio.move_on_after(moment) as scope:
            await client.bulk_export(sandbox.segment_ids, tmp_path / "first")
        assert scope.cancelled_caught
        assert_at_rest(client, sandbox)
        sent = len(sandbox.record)
        await anyio.sleep(100)
        assert len(sandbox.record) == sent
        report = await client.bulk_export(sandbox.segment_ids, tmp_path / "second")
    assert report.ok
    assert sandbox.record.duplicates() == {}
    assert not any(name.endswith(".part") for name in names_in(tmp_path / "first"))


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize("moment", [0.0, 0.3, 2.0, 4.3])
async def test_asyncios_own_cancellation_is_as_good(moment: float, tmp_path: Path) -> None:
    """After `Task.cancel()`, in a run and in `export`: no duplicate, no half file."""
    sandbox = Sandbox(segments=10, rows=5, durations=STEADY, latency=0.2)
    async with connected(sandbox) as client:
        calls: list[Any] = [client.bulk_export(sandbox.segment_ids[:5], tmp_path / "run")]
        calls += [client.export(s, tmp_path / f"{s}.csv") for s in sandbox.segment_ids[5:]]
        tasks = [asyncio.ensure_future(call) for call in calls]
        await anyio.sleep(moment)
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
        assert {type(end) for end in ends} == {asyncio.CancelledError}
        assert_at_rest(client, sandbox)
        sent = len(sandbox.record)
        await anyio.sleep(100)
        assert len(sandbox.record) == sent
        report = await client.bulk_export(sandbox.segment_ids, None)
    assert report.ok
    assert sandbox.record.duplicates() == {}
    assert not any(name.endswith(".part") for name in names_in(tmp_path / "run"))


async def test_out_of_time_is_resumable(tmp_path: Path) -> None:
    """Unfinished segments end as ExportTimeoutError or NotSubmittedError, without a second POST."""
    sandbox = Sandbox(segments=40, rows=5, durations=Durations(median=8.0, sigma=1.0))
    async with connected(sandbox, pacer=Pacer(rate=4)) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path, timeout=12)
        assert anyio.current_time() == pytest.approx(12, abs=1.1)
        kinds = {type(o.error): o for o in report.not_exported}
        assert set(kinds) == {ExportTimeoutError, NotSubmittedError}
        assert all(o.resumable for o in report.not_exported)
        for outcome in report.not_exported:
            asked = bool(sandbox.record.submits(outcome.segment_id))
            assert outcome.submitted == ("yes" if asked else "no")
            assert isinstance(outcome.error, ExportTimeoutError) == asked
            assert (outcome.export is not None) == asked
        assert len(manifest(tmp_path)) == 40
        rest = [o.segment_id for o in report.not_exported]
        again = await client.bulk_export(rest, tmp_path)
    assert again.ok
    assert all_whole(sandbox, [*report.exported, *again.exported])
    assert sandbox.record.duplicates() == {}
    assert adds_up(report.progress)


async def test_out_of_time_in_mid_post_is_unknown() -> None:
    """POSTs on the wire have a second more; one without an answer by then is unknown."""
    sandbox = Sandbox(segments=2)
    sandbox.inject(Fault.slow(1.5), method="POST", segment_id=sandbox.segment_ids[0])
    sandbox.inject(Fault.slow(20), method="POST", segment_id=sandbox.segment_ids[1])
    async with connected(sandbox, pacer=Pacer(rate=math.inf)) as client:
        report = await client.bulk_export(sandbox.segment_ids, None, timeout=1)
        assert anyio.current_time() == pytest.approx(2.0, abs=0.1)
    by_segment = {o.segment_id: o for o in report.not_exported}
    timed_out, unknown = (by_segment[s] for s in sandbox.segment_ids)
    assert isinstance(timed_out.error, ExportTimeoutError)
    assert (timed_out.submitted, timed_out.resumable) == ("yes", True)
    assert timed_out.export is not None
    assert isinstance(unknown.error, SubmitUnknownError)
    assert (unknown.submitted, unknown.resumable) == ("maybe", False)


async def test_a_refusal_within_the_grace_ends_the_iteration() -> None:
    """A 401 to a POST after the timeout is raised bare, and not in a group."""
    sandbox = Sandbox(segments=2)
    sandbox.inject(Fault(delay=1.5, reply=Fault.status(401).reply, acts=False), method="POST")
    async with connected(sandbox, pacer=Pacer(rate=math.inf)) as client:
        with pytest.raises(AuthenticationError):
            await client.bulk_export(sandbox.segment_ids, None, timeout=1)


async def test_out_of_time_while_another_posts(tmp_path: Path) -> None:
    """A run whose time is up while another caller's POST is on the wire ends its own wait alone."""
    sandbox = Sandbox(segments=1, rows=5, durations=STEADY)
    (segment_id,) = sandbox.segment_ids
    sandbox.inject(Fault.slow(5.0), method="POST")
    reports: list[Any] = []
    async with connected(sandbox) as client:

        async def run() -> None:
            reports.append(await client.bulk_export([segment_id], None, timeout=2))

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(client.export, segment_id, tmp_path / "a.csv")
            await anyio.sleep(1)
            tasks.start_soon(run)
    (missing,) = reports[0].not_exported
    assert missing.submitted == "maybe"
    assert names_in(tmp_path) == ["a.csv"]
    assert len(sandbox.record.submits()) == 1


async def test_an_export_has_its_own_time(tmp_path: Path) -> None:
    """`export_timeout` ends the slow export alone, and the error has the export."""
    sandbox = Sandbox(segments=12, rows=5, durations=Durations(median=8.0, sigma=1.0))
    slow = [s for s in sandbox.segment_ids if sandbox.duration(s) > 16]
    assert 0 < len(slow) < 12
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path, export_timeout=15)
        assert {o.segment_id for o in report.not_exported} == set(slow)
        for outcome in report.not_exported:
            assert isinstance(outcome.error, ExportTimeoutError)
            assert outcome.error.export is not None
            assert (outcome.submitted, outcome.resumable) == ("yes", True)
            await client.wait_for_export(outcome.error.export)
    assert sandbox.record.duplicates() == {}


async def test_six_500s_stop_a_run() -> None:
    """Six 500s end the run: the rest is resumable, and no more requests are sent."""
    sandbox = Sandbox(segments=30, internal_errors=1.0)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
        await anyio.sleep(10_000)
    assert [e.status for e in sandbox.record] == [500] * 6
    met = [o for o in report.not_exported if isinstance(o.error, ServerError)]
    rest = [o for o in report.not_exported if isinstance(o.error, NotSubmittedError)]
    assert (len(met), len(rest)) == (6, 24)
    assert all((o.submitted, o.resumable) == ("maybe", False) for o in met)
    assert all((o.submitted, o.resumable) == ("no", True) for o in rest)
    assert min(gaps(list(sandbox.record))) >= 60


async def test_a_500_ends_its_segment_and_pauses_the_rest() -> None:
    """The POST that got a 500 isn't repeated, and the others go on after a minute."""
    sandbox = Sandbox(segments=10)
    sandbox.inject(Fault.status(500), method="POST", skip=4)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
    (missing,) = report.not_exported
    assert isinstance(missing.error, ServerError)
    assert missing.submitted == "maybe"
    assert len(sandbox.record.submits(missing.segment_id)) == 1
    assert len(report.exported) == 9
    assert max(gaps(sandbox.record.api())) >= 60


# --------------------------------------------------------------------- the limit, and each other


async def test_a_limit_is_found_and_kept() -> None:
    """Without knowledge of the limit, few requests are refused, and the run is nearly as short."""
    sandbox = Sandbox(
        segments=300, limit=TokenBucket(20, 20), durations=STEADY, latency=0.1, seed=1
    )
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None)
        took = anyio.current_time()
    assert report.ok
    assert len(sandbox.record.throttled()) < 0.06 * len(sandbox.record)
    assert took < 1.5 * len(sandbox.record) / 20


async def test_one_429_slows_all() -> None:
    """While a Retry-After lasts, the client sends no request."""
    sandbox = Sandbox(segments=20, latency=0.1)
    sandbox.inject(Fault.status(429, headers={"retry-after": "30"}), skip=10)
    async with connected(sandbox) as client, anyio.create_task_group() as tasks:
        tasks.start_soon(client.bulk_export, sandbox.segment_ids[:10], None)
        for segment_id in sandbox.segment_ids[10:]:
            tasks.start_soon(client.request_export, segment_id)
        tasks.start_soon(client.list_segments)
    refused = next(e for e in sandbox.record if e.status == 429)
    assert refused.ended_at is not None
    held = [e for e in sandbox.record if refused.ended_at < e.at < refused.ended_at + 30]
    assert held == []


async def test_two_runs_share_their_exports(tmp_path: Path) -> None:
    """Two runs with the same segments: one POST and one series of polls, two files."""
    polls: list[int] = []
    for runs in (1, 2):
        sandbox = Sandbox(segments=20, rows=5, latency=0.05)
        async with connected(sandbox) as client, anyio.create_task_group() as tasks:
            for number in range(runs):
                to = tmp_path / f"{runs} {number}"
                tasks.start_soon(client.bulk_export, sandbox.segment_ids, to)
        assert len(sandbox.record.submits()) == 20
        assert len(sandbox.record.files()) == 20 * runs
        polls.append(len(sandbox.record.polls()))
    assert polls[1] <= polls[0] * 1.05 + 1
    for name in ("1 0", "2 0", "2 1"):
        assert len(names_in(tmp_path / name)) == 21


async def test_one_of_two_runs_may_be_left(tmp_path: Path) -> None:
    """The other run has all its outcomes, though the first one sent the requests of both."""
    sandbox = Sandbox(segments=20, rows=5, latency=0.2)
    async with (
        connected(sandbox) as client,
        client.open_bulk_export(sandbox.segment_ids, tmp_path / "all") as run,
    ):
        async with client.open_bulk_export(sandbox.segment_ids[::2], tmp_path / "some"):
            await anyio.sleep(2.5)
        report = await run.report()
    assert report.ok
    assert len(report.exported) == 20
    assert sandbox.record.duplicates() == {}


async def test_a_run_left_early_still_says_what_became_of_each(tmp_path: Path) -> None:
    """In a run that is left, every segment has a manifest line; running exports have their ids."""
    sandbox = Sandbox(segments=20, durations=STEADY, limit=TokenBucket(5, 5))
    async with connected(sandbox) as client:
        async with client.open_bulk_export(sandbox.segment_ids, tmp_path) as run:
            await anyio.sleep(2)
        outcomes = [outcome async for outcome in run]
    made = {entry.export_id for entry in sandbox.record.submits() if entry.acted}
    named = {outcome.export.export_id for outcome in outcomes if outcome.export}
    assert len(outcomes) == 20
    assert named == made
    lines = (tmp_path / "manifest.jsonl").read_text().splitlines()
    assert {json.loads(line)["export_id"] for line in lines} - {None} == made


@pytest.mark.parametrize(("age", "warned"), [(40, False), (43, True)])
async def test_a_file_that_will_soon_be_gone_is_warned_of(
    age: int, warned: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A file with less than six of its 48 hours left gets a warning."""
    epoch = datetime.now(UTC) - timedelta(hours=age)
    sandbox = Sandbox(segments=1, durations=STEADY, epoch=epoch)
    async with connected(sandbox) as client:
        await client.bulk_export(sandbox.segment_ids, tmp_path)
    told = [r.getMessage() for r in caplog.records if "deletes its file in" in r.getMessage()]
    assert len(told) == warned
