"""A process that forks sessions of a run over real sockets. The sessions are killed, or die.

Each order, a :class:`Job` as JSON, forks a session. The answers are the session's pid, and "gone
STATUS" once it has ended. A session that comes to its end writes its outcomes to the job's `told`.
"""

from __future__ import annotations

import itertools
import json
import logging
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import anyio
import attrs
from sqlalchemy import Engine, event

from reliability.judge import Told, dump
from reliability.lies import of_locks, shift_clock
from segments_async import SegmentsClient
from segments_async._journal import claiming, opening, shared, shared_marks
from segments_async._journal.database import Database
from segments_async._journal.opened_run import OpenedRun
from segments_async._sansio.pace import backoff, scheduler
from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY

#: The exit status of a session that died at its moment, and of one that SIGTERM ended.
DIED = 9
TERMINATED = 143


@attrs.frozen
class Job:
    """One session.

    Attributes:
        base_url: of the vendor.
        segments: ids of the segments.
        to: the directory of the files.
        journal: a path or URL.
        told: the file for the outcomes.
        run: the run's name.
        shared: whether other processes work at the same run. Then `told` has the outcomes of all
            processes, and a second file, `told` with `.own` at its end, those of this session.
        log: a file for the library's lines of INFO, each with its time; empty for none. Beside it,
            with `.sql` at the end of its name, a character is written for each statement (`r`, `w`)
            and for each commit of something (`c`).
        lies: whether the session gets every lock, and sees none of other processes.
        clock: seconds by which its wall clock is fast.
        dies_at: the moment at which the session dies, counted from 1; 0: it doesn't. Moments are
            before, after and in the middle of each journal write and file operation.
    """

    base_url: str
    segments: list[str]
    to: str
    journal: str
    told: str
    run: str = "nightly"
    shared: bool = False
    log: str = ""
    lies: bool = False
    clock: float = 0.0
    dies_at: int = 0


async def session(job: Job) -> bool:
    """Run one session, as a user's program would. False: SIGTERM ended it before the run's end."""
    with anyio.open_signal_receiver(signal.SIGTERM) as signals, anyio.CancelScope() as scope:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(_cancel_on, signals, scope)
            await _session(job)
            tasks.cancel_scope.cancel()
    return not scope.cancelled_caught


async def _cancel_on(signals: AsyncIterator[object], scope: anyio.CancelScope) -> None:
    async for _ in signals:
        scope.cancel()


async def _session(job: Job) -> None:
    async with (
        SegmentsClient(
            PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=job.base_url, file_hosts=["127.0.0.1"]
        ) as client,
        client.open_bulk_export(
            job.segments, job.to, journal=job.journal, run=job.run, shared=job.shared
        ) as run,
    ):
        outcomes = [Told.of(outcome) async for outcome in run]
        own = outcomes
        if job.shared:
            report = await run.report()
            outcomes = [Told.of(outcome) for outcome in (*report.exported, *report.not_exported)]
    _store(own, Path(f"{job.told}.own"))
    _store(outcomes, Path(job.told))


def _store(outcomes: Sequence[Told], path: Path) -> None:
    new = path.with_suffix(f"{path.suffix}.new")
    new.write_text(dump(outcomes))
    new.rename(path)


class Death:
    """Ends the process at the n-th moment of its durable operations."""

    def __init__(self, moment: int) -> None:
        self._moment = moment
        self._moments = itertools.count(1)
        self._lock = threading.Lock()

    def pass_by(self) -> None:
        with self._lock:
            if next(self._moments) == self._moment:
                os._exit(DIED)

    def lie_in_wait(self) -> None:
        """Patch the operations: each has a moment before, after, and perhaps in the middle."""
        for owner, name in (
            (OpenedRun, "append"),
            (OpenedRun, "finish"),
            (Database, "set_guard"),
            (opening, "open_run"),
            (shared, "join"),
            (claiming, "claim"),
            (claiming, "take_over"),
            (claiming, "leave_over"),
            (shared, "finish"),
            (shared_marks, "tidy"),
            (Database, "exchange"),
            (os, "fsync"),
            (os, "ftruncate"),
            (os, "replace"),
            (os, "unlink"),
            (os, "link"),
            (os, "mkdir"),
        ):
            self._replace(owner, name, self._around)
        for name in ("pwrite", "write"):
            self._replace(os, name, self._amid)

    def _replace(self, owner: Any, name: str, how: Callable[..., Any]) -> None:
        setattr(owner, name, partialmethod_of(how, getattr(owner, name)))

    def _around(self, operation: Callable[..., Any], *arguments: Any, **keywords: Any) -> Any:
        self.pass_by()
        result = operation(*arguments, **keywords)
        self.pass_by()
        return result

    def _amid(
        self, operation: Callable[..., Any], descriptor: int, data: bytes, *offset: int
    ) -> Any:
        self.pass_by()
        half = len(data) // 2
        written = operation(descriptor, data[:half], *offset) if half else 0
        self.pass_by()
        rest = operation(descriptor, data[written:], *(at + written for at in offset))
        self.pass_by()
        return written + rest


def partialmethod_of(how: Callable[..., Any], operation: Callable[..., Any]) -> Callable[..., Any]:
    """A partial that binds to an instance, as a method does."""

    def call(*arguments: Any, **keywords: Any) -> Any:
        return how(operation, *arguments, **keywords)

    return call


def _count_statements(path: str) -> None:
    """Write a character for each statement: what was written outlives a kill."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def on_statement(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        writes = statement.split(None, 1)[0] in ("INSERT", "UPDATE", "DELETE")
        connection.info["wrote"] = writes or connection.info.get("wrote", False)
        os.write(descriptor, b"w" if writes else b"r")

    def on_commit(connection: Any) -> None:
        if connection.info.pop("wrote", False):
            os.write(descriptor, b"c")

    event.listen(Engine, "before_cursor_execute", on_statement)
    event.listen(Engine, "commit", on_commit)


def _live(job: Job) -> None:
    logging.getLogger("segments_async").setLevel(logging.INFO if job.log else logging.CRITICAL)
    if job.log:
        logging.basicConfig(filename=job.log, format="%(created)f %(process)d %(message)s")
        _count_statements(f"{job.log}.sql")
    if job.dies_at:
        # A short run, since it is repeated many times.
        scheduler.SHORTEST_POLL_GAP = backoff.FIRST_BACKOFF = 0.02
        Death(job.dies_at).lie_in_wait()
    for owner, name, lie in of_locks() if job.lies else ():
        setattr(owner, name, lie)
    if job.clock:
        shift_clock(job.clock)
    if not anyio.run(partial(session, job)):
        os._exit(TERMINATED)


def serve(orders: TextIO, answers: TextIO) -> None:
    """Fork a session for each line."""
    for line in orders:
        job = Job(**json.loads(line))
        pid = os.fork()
        if pid == 0:
            try:
                _live(job)
            except BaseException as exc:  # noqa: BLE001 - told to the test
                sys.stderr.write(f"session: {exc!r}\n")
                os._exit(1)
            os._exit(0)
        print(pid, file=answers, flush=True)
        _, status = os.waitpid(pid, 0)
        print("gone", os.waitstatus_to_exitcode(status), file=answers, flush=True)
