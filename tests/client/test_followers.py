"""Followers that come and go while another one records, or while a probe is out."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import attrs
import pytest

from client.vendor import STEADY, connected, is_whole
from segments_async import (
    AuthenticationError,
    DownloadError,
    Exported,
    ExportExpiredError,
    ExportFailedError,
    ExportTimeoutError,
    NotExported,
    Pacer,
    SegmentsClient,
)
from segments_async._journal.records import GuardRecord
from segments_async._journal.sql import SqlJournal
from segments_async._run.recorder import MemoryLog
from segments_async._run.resources import account_of
from segments_async._sansio.jobs.lifecycle import Event, State
from segments_async.sandbox import API_ORIGIN, PAGE_API_KEY, Durations, Fault, Sandbox

POST: dict[str, Any] = {"method": "POST", "path": "export/"}
POLL: dict[str, Any] = {"method": "GET", "path": "export/"}
SLOW = Durations(median=60.0, sigma=0)


def slow_commits(
    monkeypatch: pytest.MonkeyPatch, event: Event, seconds: float, *, first_run_only: bool = False
) -> None:
    """Recording the event takes so long, as on a busy disk; in every run, or in the first one."""
    record = MemoryLog.on_event
    runs: list[MemoryLog] = []

    async def slow(recorder: MemoryLog, segment_id: str, what: Event, *payload: Any) -> State:
        runs.append(recorder)
        state = await record(recorder, segment_id, what, *payload)
        if what is event and (recorder is runs[0] or not first_run_only):
            await anyio.sleep(seconds)
        return state

    monkeypatch.setattr(MemoryLog, "on_event", slow)


async def test_a_run_left_during_a_silence_takes_nobody_with_it(tmp_path: Path) -> None:
    """A run is left while its probe is on the wire: the client's other callers go on."""
    sandbox = Sandbox(segments=40, rows=2, durations=SLOW, latency=0.2)
    async with connected(sandbox, pacer=Pacer(rate=200), request_timeout=20) as client:
        async with client.open_bulk_export(sandbox.segment_ids, tmp_path):
            await anyio.sleep(3.0)
            sandbox.inject(Fault(lost="after", delay=1e6), times=math.inf)
            await anyio.sleep(30.0)
        sandbox.clear_faults()
        with anyio.fail_after(100):
            assert await client.list_segments()


async def test_a_resumed_run_shares_with_whoever_waits_by_the_id(tmp_path: Path) -> None:
    """A 401 to the shared poll is raised to both waiting callers."""
    sandbox = Sandbox(segments=1, rows=2, durations=SLOW)
    journal = tmp_path / "runs.db"
    async with connected(sandbox) as client:
        report = await client.bulk_export(
            sandbox.segment_ids, tmp_path / "out", journal=journal, timeout=1.5
        )
    [left] = report.not_exported
    assert left.export is not None
    export_id = left.export.export_id
    refused = attrs.evolve(Fault.status(401, body=b"{}"), delay=3.0)
    sandbox.inject(refused, **POLL)
    raised: list[Exception] = []

    async with connected(sandbox) as client, anyio.create_task_group() as tasks:

        async def wait() -> None:
            with pytest.raises(AuthenticationError) as caught:
                await client.wait_for_export(export_id)
            raised.append(caught.value)

        tasks.start_soon(wait)
        await anyio.sleep(1.0)
        with anyio.fail_after(3600), pytest.raises(AuthenticationError):
            await client.bulk_export(sandbox.segment_ids, tmp_path / "out", journal=journal)
    assert len(raised) == 1


async def test_a_follower_that_left_is_told_no_more(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One run's time is up while the journal of the other run is written: both end well."""
    sandbox = Sandbox(segments=1, rows=2, durations=STEADY)
    slow_commits(monkeypatch, Event.COMPLETED, 1.0, first_run_only=True)
    async with (
        connected(sandbox) as client,
        client.open_bulk_export(sandbox.segment_ids, tmp_path / "a") as first,
    ):
        await anyio.sleep(0.3)
        second = await client.bulk_export(sandbox.segment_ids, tmp_path / "b", timeout=4.2)
        report = await first.report()
    assert report.ok
    assert [type(o.error) for o in second.not_exported] == [ExportTimeoutError]


@pytest.mark.parametrize("stay", [3.0, 20.0])
async def test_an_export_is_given_up_once(
    stay: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Giving up takes a commit of two seconds; it happens once, whether the run is left or not."""
    sandbox = Sandbox(segments=1, rows=2, durations=SLOW)
    slow_commits(monkeypatch, Event.GAVE_UP, 2.0)
    async with (
        connected(sandbox) as client,
        client.open_bulk_export(sandbox.segment_ids, tmp_path / "a") as first,
    ):
        await anyio.sleep(0.3)
        async with client.open_bulk_export(
            sandbox.segment_ids, tmp_path / "b", export_timeout=2.5
        ) as second:
            await anyio.sleep(stay)
        outcomes = [outcome async for outcome in second]
        assert (await first.report()).ok
    assert [type(o.error) for o in outcomes if isinstance(o, NotExported)] == [ExportTimeoutError]
    assert len(outcomes) == 1


async def test_patience_ends_under_429s_too(tmp_path: Path) -> None:
    """`export_timeout` is checked after any answer to a poll."""
    sandbox = Sandbox(segments=2, rows=2, durations=STEADY)
    sandbox.inject(Fault.status(429), **POLL, times=math.inf)
    async with connected(sandbox) as client:
        with anyio.fail_after(3600):
            report = await client.bulk_export(sandbox.segment_ids, tmp_path, export_timeout=60)
        sandbox.clear_faults()
    assert {type(o.error) for o in report.not_exported} == {ExportTimeoutError}


async def test_a_guard_of_a_clock_that_jumped_is_bounded(tmp_path: Path) -> None:
    """A guard of a month in the journal delays requests for a quarter of an hour."""
    account = account_of(API_ORIGIN, PAGE_API_KEY)
    journal = await SqlJournal.open(tmp_path / "runs.db", account=account)
    await journal.ask(
        lambda database: database.set_guard(
            GuardRecord(datetime.now(UTC) + timedelta(days=30), 120.0, 1)
        )
    )
    sandbox = Sandbox(segments=2, rows=2, durations=STEADY)
    async with connected(sandbox) as client:
        began = anyio.current_time()
        report = await client.bulk_export(
            sandbox.segment_ids, tmp_path / "out", journal=tmp_path / "runs.db"
        )
        assert 890 <= anyio.current_time() - began <= 930
    assert report.ok


async def test_retries_are_counted_over_sessions(tmp_path: Path) -> None:
    """`retry_failed=1` is one more export in the run, over any number of processes."""
    sandbox = Sandbox(segments=2, rows=2, durations=STEADY, failed=1.0)
    for seconds in (20.0, None, None):
        async with connected(sandbox) as client:
            report = await client.bulk_export(
                sandbox.segment_ids,
                tmp_path / "out",
                journal=tmp_path / "runs.db",
                run="one",
                retry_failed=1,
                timeout=seconds,
            )
        assert len(report.not_exported) == 2
    assert sandbox.record.exports_per_segment() == dict.fromkeys(sandbox.segment_ids, 2)


async def test_what_is_opted_in_to_is_counted_by_its_reason(tmp_path: Path) -> None:
    """A repeated POST doesn't use up the retries of an export that then failed."""
    sandbox = Sandbox(segments=1, rows=2, durations=STEADY, failed=1.0)
    sandbox.inject(Fault.LOST_BEFORE, **POST)
    async with connected(sandbox) as client:
        await client.bulk_export(
            sandbox.segment_ids, tmp_path, on_unknown="resubmit", retry_failed=1
        )
    assert len(sandbox.record.submits()) == 3


async def test_a_renewed_export_without_a_link_stops_nobody_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A renewed export without a link is that export's error alone."""
    sandbox = Sandbox(segments=6, rows=2, durations=STEADY)
    sandbox.inject(
        Fault.status(403, body="<Code>AccessDenied</Code><Message>Request has expired</Message>"),
        origin="files",
    )
    get_export = SegmentsClient.get_export

    async def without_a_link(client: SegmentsClient, export: Any) -> Any:
        return attrs.evolve(await get_export(client, export), filename=None)

    monkeypatch.setattr(SegmentsClient, "get_export", without_a_link)
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path)
    assert len(report.exported) == 5
    [failed] = report.not_exported
    assert isinstance(failed.error, DownloadError)
    assert not isinstance(failed.error, ExportExpiredError)
    assert failed.error.reason == "expired_link"


async def test_a_resumed_export_is_joined(tmp_path: Path) -> None:
    """`export()` joins an export that a resumed run waits for."""
    sandbox = Sandbox(segments=1, rows=2, durations=SLOW)
    [segment_id] = sandbox.segment_ids
    options: dict[str, Any] = {"journal": tmp_path / "runs.db"}
    async with connected(sandbox) as client:
        await client.bulk_export([segment_id], tmp_path / "out", timeout=2.0, **options)
    async with (
        connected(sandbox) as client,
        client.open_bulk_export([segment_id], tmp_path / "out", **options) as run,
    ):
        await anyio.sleep(1.0)
        file = await client.export(segment_id, tmp_path / "single.csv")
        report = await run.report()
    assert is_whole(sandbox, file.path, segment_id)
    assert all(isinstance(outcome, Exported) for outcome in report.exported)
    assert len(sandbox.record.submits()) == 1


async def test_what_was_left_long_ago_is_asked_about_first(tmp_path: Path) -> None:
    """An export of an earlier session is polled before a 429 can make it time out."""
    sandbox = Sandbox(segments=2, rows=2, durations=STEADY)
    options: dict[str, Any] = {"journal": tmp_path / "runs.db", "export_timeout": 20.0}
    async with connected(sandbox) as client:
        await client.bulk_export(sandbox.segment_ids, tmp_path / "out", timeout=2.0, **options)
        await anyio.sleep(100.0)
        sandbox.inject(Fault.status(429), **POLL, times=2)
        report = await client.bulk_export(sandbox.segment_ids, tmp_path / "out", **options)
    assert report.ok
    assert len(sandbox.record.submits()) == 2


async def test_a_retry_does_not_make_another_caller_wait(tmp_path: Path) -> None:
    """A run asks for a FAILED export again after a minute; a call for it before that goes at once.

    The run follows that export, and asks for no other one.
    """
    sandbox = Sandbox(segments=1, rows=2, durations=STEADY, failed=1.0)
    async with connected(sandbox) as client, anyio.create_task_group() as tasks:
        bulk = partial(client.bulk_export, sandbox.segment_ids, tmp_path, retry_failed=1)
        tasks.start_soon(bulk)
        await anyio.sleep(20.0)
        with pytest.raises(ExportFailedError):
            await client.export(sandbox.segment_ids[0], tmp_path / "single.csv")
    first, second = sandbox.record.submits()
    assert 15.0 < second.at - first.at < 25.0
