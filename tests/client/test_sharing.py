"""Claims about runs that divide the account's limit by their journal."""

from __future__ import annotations

import gc
import logging
import sqlite3
import weakref
from contextlib import closing
from pathlib import Path

import anyio
import pytest

from client.vendor import STEADY, connected
from segments_async import Pacer
from segments_async._journal.sql import SqlJournal
from segments_async._opening import account_of
from segments_async._sansio.sharing import Told
from segments_async._sharing import BUSY, IDLE, sharing_of
from segments_async.sandbox import API_ORIGIN, PAGE_API_KEY, Durations, Sandbox


@pytest.fixture
def database(tmp_path: Path) -> Path:
    return tmp_path / "runs.db"


async def journal_at(database: Path) -> SqlJournal:
    return await SqlJournal.open(database, account=account_of(API_ORIGIN, PAGE_API_KEY))


def waiting(database: Path) -> list[int]:
    """Of each process but "another", whether it waits for its part."""
    query = "SELECT waits FROM segments_async_members WHERE member <> 'another'"
    with closing(sqlite3.connect(database)) as connection:
        return [row[0] for row in connection.execute(query)]


async def test_a_shared_limit_that_is_damaged_ends_no_run(
    database: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The run is told of once, and finds the limit alone."""
    journal = await journal_at(database)
    await journal.exchange("another", lambda common: Told(20.0, None, True, common.sum_id))
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


async def test_a_locked_journal_holds_no_first_request(database: Path) -> None:
    """A part that isn't known within a second is learnt later."""
    await journal_at(database)
    pacer = Pacer()
    sandbox = Sandbox(segments=1, durations=STEADY)
    async with connected(sandbox, pacer=pacer) as client:
        journal = await journal_at(database)
        with closing(sqlite3.connect(database, isolation_level=None)) as holder:
            holder.execute("BEGIN IMMEDIATE")
            began = anyio.current_time()
            await sharing_of(pacer).join(client._gate, journal)
            assert anyio.current_time() - began <= 1.0
            holder.execute("ROLLBACK")
    assert pacer.granted is None


async def test_a_run_begins_with_its_part(database: Path) -> None:
    """Of 90/s that others have found, and one of them waits for: before its first request."""
    journal = await journal_at(database)
    await journal.exchange("another", lambda common: Told(90.0, None, True, common.sum_id))
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
    """And not while another run of the same pacer goes on, in which somebody waits."""
    sandbox = Sandbox(segments=20, durations=Durations(20.0, 0.8))
    short, long = short_and_long(sandbox)
    journal = await journal_at(database)
    await journal.exchange("another", lambda common: Told(90.0, None, True, common.sum_id))
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
    """The run that began first ends first; what others find is heard of all the same."""
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
        await journal.exchange("another", lambda common: Told(8.0, None, True, common.sum_id))
        await anyio.sleep(IDLE + 2 * BUSY)
        assert pacer.granted == 4.0
        assert (await second.report()).ok


async def test_a_pacer_is_not_kept(database: Path) -> None:
    """A service that makes a client for each request has no more of them after a week."""
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
