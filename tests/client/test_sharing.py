"""Runs that divide the account's limit by their journal."""

from __future__ import annotations

import gc
import logging
import sqlite3
import weakref
from collections.abc import Callable
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from client.vendor import STEADY, connected
from segments_async import JournalError, Pacer
from segments_async._journal.backends import backend
from segments_async._journal.sql import SqlJournal
from segments_async._journal.tables import format_time, with_checksum
from segments_async._journal.tables import limit as limits
from segments_async._requests.gate import Gate
from segments_async._requests.sharing import BUSY, IDLE, Sharing
from segments_async._run.resources import account_of
from segments_async._sansio.pace.scheduler import PollScheduler
from segments_async._sansio.pace.shared_limit import GroupView, Report
from segments_async._sansio.pace.shared_outage import GuardNews
from segments_async.sandbox import API_ORIGIN, PAGE_API_KEY, Durations, Sandbox, TokenBucket

pytestmark = pytest.mark.alternating


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


async def journal_at(database: Path) -> SqlJournal:
    return await SqlJournal.open(database, account=account_of(API_ORIGIN, PAGE_API_KEY))


def age_limit(database: Path, by: timedelta) -> None:
    """Make the limit's row so much older: virtual time moves no wall clock."""
    with backend(database).engine.begin() as connection:
        row = connection.execute(limits.select()).one()
        at = format_time(datetime.now(UTC) - by)
        values = with_checksum(limits, {"sum_id": row.sum_id, "requests": row.requests, "at": at})
        connection.execute(limits.update().values(values))


def waiting(database: Path) -> list[int]:
    """For each process but "another", whether it waits for its part."""
    query = "SELECT waits FROM segments_async_members WHERE member <> 'another'"
    with closing(sqlite3.connect(database)) as connection:
        return [row[0] for row in connection.execute(query)]


async def test_a_shared_limit_that_is_damaged_ends_no_run(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A damaged limit is warned of once, and the run finds the limit alone."""
    journal = await journal_at(database)
    await journal.exchange("another", lambda group: Report(20.0, None, True, group.epoch))
    with closing(sqlite3.connect(database)) as connection, connection:
        connection.execute("UPDATE segments_async_limit SET requests = '2000.0'")
    sandbox = Sandbox(segments=3, durations=STEADY)
    async with (
        connected(sandbox) as client,
        client.open_bulk_export(sandbox.segment_ids, None, journal=database) as run,
    ):
        with caplog.at_level(logging.WARNING, "segments_async"):
            assert (await run.report()).ok
    assert [r.message for r in caplog.records if "isn't shared" in r.message] != []


async def test_an_error_that_passes_does_not_end_the_sharing(
    database: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One warning when exchanges fail, one log line when they work again, and then the part."""
    exchange, refuses = SqlJournal.exchange, False

    async def refused(self: SqlJournal, member: str, tell: Callable[[GroupView], Report]) -> Report:
        if refuses and member != "another":
            raise JournalError("too many connections", reason="unavailable", location="there")
        return await exchange(self, member, tell)

    monkeypatch.setattr(SqlJournal, "exchange", refused)
    pacer = Pacer()
    sandbox = Sandbox(segments=20, durations=Durations(60.0, 0.0))
    async with (
        connected(sandbox, pacer=pacer) as client,
        client.open_bulk_export(sandbox.segment_ids[:1], None, journal=database) as run,
    ):
        with caplog.at_level(logging.INFO, "segments_async"):
            refuses = True
            await anyio.sleep(3 * IDLE)
            refuses = False
            journal = await journal_at(database)
            await journal.exchange("another", lambda c: Report(8.0, None, True, c.epoch))
            await anyio.sleep(IDLE + 2 * BUSY)
        assert pacer.granted == 4.0
        assert (await run.report()).ok
    said = [r.message for r in caplog.records if "limit is" in r.message]
    assert [r.partition(":")[0] for r in said] == [
        "the limit isn't shared with other processes for now",
        "the limit is shared with other processes again",
    ]


async def test_the_next_run_begins_at_the_limit_that_the_last_one_found(database: Path) -> None:
    """A restart ten minutes later has hardly a 429, and takes about the least time."""
    limit = TokenBucket(20, 40)
    nights = [
        Sandbox(segments=200, limit=limit, durations=Durations(2.0, 0.0), latency=0.05)
        for _ in range(2)
    ]
    for number, sandbox in enumerate(nights):
        async with (
            connected(sandbox) as client,
            client.open_bulk_export(
                sandbox.segment_ids, None, journal=database, run=f"night {number}"
            ) as run,
        ):
            assert (await run.report()).ok
        age_limit(database, timedelta(minutes=10))
    first, second = (len(sandbox.record.throttled()) for sandbox in nights)
    assert first > 5 >= second
    api = nights[1].record.api()
    # The last export runs for 2 s after its submit.
    assert api[-1].at - api[0].at <= 1.05 * 2 * 200 / limit.rate + 2.0


async def test_a_locked_journal_holds_no_first_request(database: Path) -> None:
    """A part that isn't known within a second is learnt later."""
    await journal_at(database)
    pacer = Pacer()
    api: Any = SimpleNamespace(timeout=30.0)
    gate = Gate(api, pacer, PollScheduler())
    journal = await journal_at(database)
    with closing(sqlite3.connect(database, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        began = anyio.current_time()
        await Sharing(gate, journal, lambda _: None).join()
        assert anyio.current_time() - began <= 1.0
        holder.execute("ROLLBACK")
    assert pacer.granted is None


async def test_a_500_elsewhere_while_the_own_probe_is_on_the_wire(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A process whose probe is on the wire hears of another one's 500, and says how long it waits.

    Until the probe's answer has come, the next request has no time. The log line has one.
    """
    api: Any = SimpleNamespace(timeout=30.0)
    gate, now = Gate(api, Pacer(), PollScheduler()), anyio.current_time()
    gate.guard.restore(now, 60.0)
    assert gate.guard.on_sent()
    sharing = Sharing(gate, await journal_at(database), lambda _: None)
    sharing.took_guard(GuardNews(left=120.0, pause=240.0, version="1"))
    [line] = [one for one in caplog.records if "answered 500" in one.getMessage()]
    assert vars(line)["segments_delay"] == pytest.approx(120.0)


async def test_a_run_begins_with_its_part(database: Path) -> None:
    """With 90/s and one other waiting process, a run has 45/s before its first request."""
    journal = await journal_at(database)
    await journal.exchange("another", lambda group: Report(90.0, None, True, group.epoch))
    pacer = Pacer()
    sandbox = Sandbox(segments=3, durations=STEADY)
    async with (
        connected(sandbox, pacer=pacer) as client,
        client.open_bulk_export(sandbox.segment_ids, None, journal=database) as run,
    ):
        rates = [pacer.granted async for _ in run]
    assert rates == [45.0] * 3


def short_and_long(sandbox: Sandbox) -> tuple[str, str]:
    """The segments whose exports take the least time and the most."""
    ids = sorted(sandbox.segment_ids, key=sandbox.duration)
    assert sandbox.duration(ids[-1]) > sandbox.duration(ids[0]) + 20 * BUSY
    return ids[0], ids[-1]


async def test_a_run_says_when_it_is_over(database: Path) -> None:
    """A run's end is reported, but not while another run of the same pacer waits."""
    sandbox = Sandbox(segments=20, durations=Durations(20.0, 0.8))
    short, long = short_and_long(sandbox)
    journal = await journal_at(database)
    await journal.exchange("another", lambda group: Report(90.0, None, True, group.epoch))
    pacer = Pacer()
    async with (
        connected(sandbox, pacer=pacer) as client,
        client.open_bulk_export([long], None, journal=database, run="long") as other,
    ):
        async with client.open_bulk_export([short], None, journal=database, run="short") as run:
            pacer.on_waiting()
            await anyio.sleep(1.5 * BUSY)
            assert waiting(database) == [1]
            assert (await run.report()).ok
        assert waiting(database) == [1]
        assert (await other.report()).ok
    assert waiting(database) == [0]


async def test_who_keeps_the_sharing_hands_it_on(database: Path) -> None:
    """If the run that makes the exchanges ends first, the other run continues the exchanges."""
    sandbox = Sandbox(segments=20, durations=Durations(20.0, 0.8))
    short, long = short_and_long(sandbox)
    pacer = Pacer()
    async with (
        connected(sandbox, pacer=pacer) as client,
        client.open_bulk_export([short], None, journal=database, run="first") as first,
        client.open_bulk_export([long], None, journal=database, run="second") as second,
    ):
        assert (await first.report()).ok
        journal = await journal_at(database)
        await journal.exchange("another", lambda group: Report(8.0, None, True, group.epoch))
        await anyio.sleep(IDLE + 2 * BUSY)
        assert pacer.granted == 4.0
        assert (await second.report()).ok


async def test_a_pacer_is_not_kept(database: Path) -> None:
    """A pacer that isn't used any more is garbage."""
    pacer = Pacer()
    gone = weakref.ref(pacer)
    sandbox = Sandbox(segments=1, durations=STEADY)
    async with (
        connected(sandbox, pacer=pacer) as client,
        client.open_bulk_export(sandbox.segment_ids, None, journal=database) as run,
    ):
        assert (await run.report()).ok
    del pacer, client, run
    gc.collect()
    assert gone() is None
