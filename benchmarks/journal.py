"""The journal: commits a second, a large one, an absence, and a prune beside a live run.

    python benchmarks/journal.py                     # everything, with 200 000 segments
    python benchmarks/journal.py --only commits
    python benchmarks/journal.py --only large --segments 20000
    python benchmarks/journal.py --only away         # needs PostgreSQL's server
    python benchmarks/journal.py --only prune

Files are made in the system's temporary directory: set TMPDIR to a disk of the kind in question.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import resource
import sqlite3
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from journal.lives import ACCOUNT, GOES_WELL, export_of, payload_for
from journal.server import PostgresServer
from sqlalchemy import insert

from segments_async import JournalError, NotExported, Pacer, SegmentsClient
from segments_async._journal.database import Database
from segments_async._journal.opening import open_run
from segments_async._journal.sql import SqlJournal
from segments_async._journal.tables import events, format_time, with_checksum
from segments_async._run.resources import account_of
from segments_async._sansio.jobs.lifecycle import Event
from segments_async._sansio.jobs.payload import payload_to_json
from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY, Durations, Sandbox
from segments_async.sandbox.server import SandboxServer

LOGGED = tuple(event for event in GOES_WELL if event is not Event.FETCH)


def memory() -> int:
    """The peak of resident MiB so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


@contextlib.contextmanager
def timed(what: str) -> Iterator[None]:
    began, work = time.perf_counter(), time.process_time()
    yield
    seconds, work = time.perf_counter() - began, time.process_time() - work
    print(f"{what:<56} {seconds:7.2f} s, processor {work:6.2f} s, {memory():4} MiB", flush=True)


# ---------------------------------------------------------------------- commits


def commits(directory: Path) -> None:
    print("SQLite itself: commits/s of so many rows each, WAL and TRUNCATE")
    for rows in (1, 16, 64, 500):
        found = {mode: raw_commits(directory, mode, rows) for mode in ("WAL", "TRUNCATE")}
        print(f"  {rows:4} rows: " + ", ".join(f"{m} {n:6.0f}/s" for m, n in found.items()))
    print("RunLog.record: events/s")
    for writers in (1, 64):
        asyncio.run(recorded(directory / f"{writers}.db", writers))


def raw_commits(directory: Path, mode: str, rows: int, seconds: float = 2.0) -> float:
    path = directory / f"raw-{mode}-{rows}.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("CREATE TABLE t (id INTEGER PRIMARY KEY, run, n, text, UNIQUE (run, n))")
        number, done, began = 0, 0, time.perf_counter()
        while time.perf_counter() - began < seconds:
            connection.execute("BEGIN IMMEDIATE")
            for _ in range(rows):
                number += 1
                connection.execute("INSERT INTO t (run, n, text) VALUES (1, ?, ?)",
                                   (number, "x" * 450))  # fmt: skip
            connection.execute("COMMIT")
            done += 1
        return done / (time.perf_counter() - began)


async def recorded(path: Path, writers: int, seconds: float = 4.0) -> None:
    journal = await SqlJournal.open(path, account=ACCOUNT)
    log = await journal.open_run(destination=None, name="n", now_name="n")
    number, batches = 0, Counter[int]()
    append = log.opened.append

    def counted(rows: Any) -> None:
        batches[len(rows)] += 1
        append(rows)

    log.opened.append = counted  # type: ignore[method-assign]
    until = anyio.current_time() + seconds

    async def write(writer: int) -> None:
        nonlocal number
        while anyio.current_time() < until:
            segment_id = f"s{number}-{writer}"
            log.run_state.add(segment_id)
            for event in LOGGED:
                await log.record(segment_id, event, payload_for(event, export_of(segment_id)))
                number += 1

    async with anyio.create_task_group() as tasks:
        for writer in range(writers):
            tasks.start_soon(write, writer)
    await log.aclose()
    print(
        f"  {writers:3} writers: {number / seconds:7.0f} in "
        f"{batches.total() / seconds:.0f} commits/s"
    )


# ---------------------------------------------------------------------- a large journal


def fill(
    path: Path, run: str, segments: int, account: str = ACCOUNT, *, ends: bool = False
) -> None:
    """A run's log, as a run would have written it."""
    opened = open_run(Database.open(path, account), "/exports", run, run)
    rows: list[dict[str, Any]] = []
    number = 0
    at = format_time(datetime.now(UTC) - timedelta(days=400 if ends else 0))
    for n in range(segments):
        export = export_of(f"segment-{run}-{n:07}")
        for event in LOGGED:
            number += 1
            values = {
                "run_id": opened._row["id"],
                "number": number,
                "segment_id": export.segment.segment_id,
                "event": event.value,
                "at": at,
                "facts": payload_to_json(payload_for(event, export)),
            }
            rows.append(with_checksum(events, values))
        if len(rows) > 20_000 or n == segments - 1:
            connection: Any = opened.link.connection
            with connection.begin():
                connection.execute(insert(events), rows)
            rows = []
    opened.close()


def large(directory: Path, segments: int) -> None:
    path = directory / "large.db"
    fill(path, "n", segments)
    size = path.stat().st_size / 2**20
    print(f"a run of {segments} segments, {segments * len(LOGGED)} events, {size:.0f} MiB")
    in_a_process("opening", lambda: Database.open(path, ACCOUNT))
    in_a_process("runs", lambda: Database.open(path, ACCOUNT).runs())
    in_a_process("taking the run up again", lambda: take_up(path))
    (directory / "large.db.run-1.lock").touch()
    in_a_process("taking it up after a kill (the whole file is checked)", lambda: take_up(path))
    ids = [f"segment-n-{n:07}" for n in range(segments)]
    in_a_process("durations of each", lambda: Database.open(path, ACCOUNT).durations(ids))
    in_a_process(
        "last files of each", lambda: Database.open(path, ACCOUNT).last_files(ids, "/exports")
    )


def take_up(path: Path) -> None:
    open_run(Database.open(path, ACCOUNT), "/exports", "n", "n").close()


def in_a_process(what: str, call: Any) -> None:
    """Run in a process of its own, so that its memory can be measured."""
    pid = os.fork()
    if not pid:
        with timed(f"  {what}"):
            call()
        os._exit(0)
    os.waitpid(pid, 0)


# ---------------------------------------------------------------------- away


async def run(server: SandboxServer, sandbox: Sandbox, to: Path, journal: Any, rate: float) -> None:
    """A run, with the figures of the sandbox's record."""
    outcomes: list[Any] = []
    async with SegmentsClient(
        PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=server.base_url, pacer=Pacer(rate=rate)
    ) as client:
        try:
            segments = await client.list_segments()
            async with client.open_bulk_export(segments, to, journal=journal, run="n") as bulk:
                outcomes.extend([outcome async for outcome in bulk])
        except JournalError as exc:
            print(f"  {exc.reason}: {exc}")
    kinds = Counter(o.submitted if isinstance(o, NotExported) else "exported" for o in outcomes)
    print(
        f"  {dict(kinds)}; {len(sandbox.record.submits())} POSTs, "
        f"{len(sandbox.record.duplicates())} segments exported twice"
    )


def away(directory: Path) -> None:
    segments = 1000
    print(
        "PostgreSQL restarted, ended at once, or its sessions ended, five times; "
        f"{segments} segments"
    )
    for ways in (["fast"] * 5, ["immediate"] * 5, ["terminate"] * 5):
        with PostgresServer() as postgres:
            calls = {
                "terminate": postgres.terminate,
                "fast": partial(postgres.restart, "fast"),
                "immediate": partial(postgres.restart, "immediate"),
            }
            with timed(f"  {ways[0]}"):
                asyncio.run(disturbed(directory / ways[0], segments, postgres.schema(),
                                      [calls[way] for way in ways], 3.0))  # fmt: skip
    for seconds in (35, 70):
        print(f"SQLite locked by another process for {seconds} s")
        path = directory / f"{seconds}.db"
        call = partial(locked, path, seconds)
        with timed(f"  {seconds} s"):
            asyncio.run(disturbed(directory / str(seconds), 200, path, [call], 2.0))


async def disturbed(to: Path, segments: int, journal: Any, calls: list[Any], every: float) -> None:
    sandbox = Sandbox(
        segments=segments, rows=10, latency=0.3, durations=Durations(median=2, sigma=0.2)
    )
    with SandboxServer(sandbox) as server:
        async with anyio.create_task_group() as tasks:

            async def disturb() -> None:
                for call in calls:
                    await anyio.sleep(every)
                    await anyio.to_thread.run_sync(call)

            tasks.start_soon(disturb)
            await run(server, sandbox, to, journal, 50.0)


def locked(path: Path, seconds: float) -> None:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, timeout=10)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        time.sleep(seconds)
        connection.execute("ROLLBACK")


# ---------------------------------------------------------------------- prune


def prune(directory: Path, segments: int) -> None:
    path = directory / "prune.db"
    sandbox = Sandbox(segments=300, rows=10, durations=Durations(median=2, sigma=0.2), latency=0.1)
    with SandboxServer(sandbox) as server:
        account = account_of(server.base_url, PAGE_API_KEY)
        fill(path, "old", segments, account, ends=True)
        print(f"a prune of {segments * len(LOGGED)} events beside a run of 300 segments")
        before = path.stat().st_size / 2**20
        pid = os.fork()
        if not pid:
            with timed("  prune"):
                asyncio.run(prune_all(path, account))
            os._exit(0)
        with timed("  the run beside it"):
            asyncio.run(run(server, sandbox, directory / "to", path, 50.0))
        os.waitpid(pid, 0)
        print(f"  the file: {before:.0f} MiB before, {path.stat().st_size / 2**20:.0f} afterwards")


async def prune_all(path: Path, account: str) -> None:
    journal = await SqlJournal.open(path, account=account)
    await journal.prune(datetime.now(UTC) - timedelta(days=30))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=["commits", "large", "away", "prune"])
    parser.add_argument("--segments", type=int, default=200_000)
    options = parser.parse_args()
    parts = {
        "commits": commits,
        "large": partial(large, segments=options.segments),
        "away": away,
        "prune": partial(prune, segments=options.segments),
    }
    for name, part in parts.items():
        if options.only in (None, name):
            with tempfile.TemporaryDirectory() as directory:
                part(Path(directory))


if __name__ == "__main__":
    main()
