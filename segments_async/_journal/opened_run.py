"""Appending to the log of an opened run, over connections that may be lost. For worker threads.

An attempt that takes too long is abandoned: its thread goes on with its connection, and the next
attempt makes a new connection and finds in the log what the abandoned thread has written. Rows are
numbered within their run. So no row is written twice, and a row of another process is recognised.
"""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Generator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select
from sqlalchemy.exc import IntegrityError

from segments_async._journal.backends import Backend, RunLock
from segments_async._journal.errors import mapped_errors
from segments_async._journal.high_water import HighWaterFile
from segments_async._journal.log import Log
from segments_async._journal.refusals import Locked, journal_error
from segments_async._journal.set_aside import SetAside
from segments_async._journal.specs import drop_spec
from segments_async._journal.tables import (
    checked,
    events,
    format_time,
    label,
    runs,
    update_row,
    with_checksum,
)
from segments_async._journal.traces import store_trace
from segments_async._sansio.jobs.lifecycle import State
from segments_async._sansio.jobs.record import ExportRecord, LogEntry
from segments_async._sansio.pace.trace import PacePoint
from segments_async.errors import JournalError

#: Seconds to wait for a lock that another session has after our connection was lost: it may be the
#: lock of our own lost session, or the short one by which a process tests whether a run is locked.
_HELD_SECONDS = 5.0


class _OwnedConnection:
    """A connection that one thread at a time uses.

    Attributes:
        lock: held by the thread that uses the connection.
        abandoned: whether that thread has to close the connection at its end.
    """

    def __init__(self, connection: Connection | None) -> None:
        self.connection = connection
        self.lock = threading.Lock()
        self.abandoned = False

    def drop(self) -> None:
        """Close the connection. Errors are ignored: a lost connection may fail to close."""
        if self.connection is not None:
            with contextlib.suppress(Exception):
                self.connection.invalidate()
            with contextlib.suppress(Exception):
                self.connection.close()
            self.connection = None


class OpenedRun:
    """A run that this process has locked, or a finished run.

    Args:
        connection: to the database, for this run alone.
        lock: excludes other processes from the run; None for a finished run.
        known: records of its exports, by segment id.
        log: of the run, which has been read.
        high_water: the file for the number of durable events.
        set_aside: the file for unwritten events; None for a run without a directory.
        trace: the run's pace, as earlier sessions stored it.
    """

    def __init__(
        self,
        backend: Backend,
        connection: Connection,
        lock: RunLock | None,
        row: Mapping[str, Any],
        known: dict[str, ExportRecord],
        log: Log,
        high_water: HighWaterFile,
        set_aside: SetAside | None,
        trace: Sequence[PacePoint] = (),
    ) -> None:
        self._backend = backend
        self.link = _OwnedConnection(connection)
        self._lock = lock
        self._row = dict(row)
        self._number = self._durable = log.number
        self._last_checksum = log.last_checksum
        #: Checksums, by number, of rows that an attempt may have written.
        self._in_doubt: dict[int, str] = {}
        self._finished_row: dict[str, Any] | None = None
        self._held_since: float | None = None
        self._high_water = high_water
        self._set_aside = set_aside
        self._closed = False
        #: An abandoned thread may end while another thread makes an attempt.
        self._counting = threading.Lock()
        self.known: dict[str, ExportRecord] = known
        self.trace: Sequence[PacePoint] = trace
        #: The run's pace as JSON, until it is stored.
        self.unstored_trace: str | None = None
        self.name: str = label(row["name"])
        self.location: str = backend.location
        self.has_sessions: bool = backend.has_sessions

    @property
    def ended(self) -> bool:
        """Whether the run had ended before it was opened here, or has ended since."""
        return self._row["ended_at"] is not None

    def row(self, entry: LogEntry, payload: str) -> dict[str, Any]:
        """The row of the event, with the next number of the run's log."""
        self._number += 1
        return with_checksum(
            events,
            {
                "run_id": self._row["id"],
                "number": self._number,
                "segment_id": entry.segment_id,
                "event": entry.event.value,
                "at": format_time(entry.at),
                "facts": payload,
            },
        )

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Make the rows durable, all or none; without rows, test whether the database can be used.

        Rows that are durable already are skipped: a cancelled task may hand its rows over twice.

        Raises:
            Locked: no row was written; another attempt may succeed.
            JournalError: ``unavailable``: the rows may have been written; the next attempt
                reconnects and finds out. ``locked``: another process has the run now.
                ``damaged``: the log has lost events that were durable.
        """
        with self._attempt() as link:
            connection = self._connected(link)
            rows = [row for row in rows if row["number"] > self._durable]
            with self._counting:
                self._in_doubt.update((row["number"], row["seal"]) for row in rows)
            try:
                with connection.begin():
                    if rows:
                        connection.execute(insert(events), rows)
                    else:
                        last_number(connection, self._row["id"])
                    trace = self._store_trace(connection)
            except IntegrityError as exc:
                # Rows with these numbers exist: an abandoned attempt or another process wrote them.
                with connection.begin():
                    self._verify(connection)
                raise Locked("its own last transaction has only just ended") from exc
            self._stored(trace)
            if rows:
                self._wrote(rows[-1]["number"], rows[-1]["seal"])

    def finish(self, at: datetime, states: Mapping[State, int]) -> None:
        """Write that the run has ended. Raises as :meth:`append` does."""
        counts = {state.value: count for state, count in states.items() if count}
        row = with_checksum(
            runs, {**self._row, "ended_at": format_time(at), "states": json.dumps(counts)}
        )
        with self._attempt() as link:
            connection = self._connected(link)
            if self._row["ended_at"] is not None:
                return
            self._finished_row = row
            with connection.begin():
                update_row(connection, runs, row)
                drop_spec(connection, row["id"])
                trace = self._store_trace(connection)
            self._stored(trace)
            self._ended(row)

    @property
    def sets_aside(self) -> bool:
        """Whether unwritten events can be stored in the run's directory."""
        return self._set_aside is not None and self._set_aside.has_place()

    def set_aside(self, rows: Sequence[dict[str, Any]]) -> bool:
        """Store unwritten events for the next session. Whether they were stored."""
        return self._set_aside is not None and self._set_aside.save(rows)

    def abandon(self) -> None:
        """Leave the present attempt to its thread. The next attempt makes a new connection."""
        self.link.abandoned = True
        self.link = _OwnedConnection(None)

    def close(self) -> None:
        """Release the run. May be called twice."""
        link = self.link
        with link.lock:
            if self._closed:
                return
            self._closed = True
            try:
                link.drop()
            finally:
                if self._lock is not None:
                    self._lock.release()
                self._high_water.close()

    # ----------------------------------------------------------------- connections

    @contextlib.contextmanager
    def _attempt(self) -> Generator[_OwnedConnection]:
        """One attempt of one thread. After an error other than Locked the connection is closed."""
        link = self.link
        with link.lock, mapped_errors(self.location, self._backend.secrets):
            if self._closed:
                raise journal_error(self.location, "unavailable", "the run is closed")
            try:
                yield link
            except BaseException as exc:
                if not isinstance(exc, Locked):
                    link.drop()
                raise
            finally:
                if link.abandoned:
                    link.drop()

    def _connected(self, link: _OwnedConnection) -> Connection:
        """The connection. After a loss: a new one, after the run was locked and checked again."""
        if link.connection is not None:
            return link.connection
        connection = self._backend.engine.connect()
        link.connection = connection
        try:
            regained = self._lock is None or self._lock.reacquire(connection)
            with connection.begin():
                self._verify(connection)
            if not regained:
                raise self._still_locked()
        except BaseException:
            link.drop()
            raise
        self._held_since = None
        return connection

    def _still_locked(self) -> Locked | JournalError:
        """The error for a run that another session has locked: after some seconds a final one."""
        now = time.monotonic()
        if self._held_since is None:
            self._held_since = now
        if now - self._held_since > _HELD_SECONDS:
            return _taken(self)
        return Locked(f"run {self.name} is held by another session")

    def _verify(self, connection: Connection) -> None:
        """Check that the run's row and the end of its log are as this process left them.

        Raises:
            JournalError: another process went on with the run, or the log lost durable events.
        """
        run_id, number = self._row["id"], self._durable
        found = connection.execute(select(runs).where(runs.c.id == run_id)).one_or_none()
        row = None if found is None else checked(runs, found)
        if row is not None and row == self._finished_row:
            self._ended(row)
        if row != self._row:
            raise _taken(self)
        query = select(events).where(events.c.run_id == run_id, events.c.number >= number)
        rows = [checked(events, r) for r in connection.execute(query.order_by(events.c.number))]
        checksums = {row["number"]: row["seal"] for row in rows}
        if number and checksums.pop(number, None) != self._last_checksum:
            raise _lost(self, self._durable, last_number(connection, run_id))
        if not checksums.items() <= self._in_doubt.items():
            raise _taken(self)
        if checksums:
            self._wrote(max(checksums), checksums[max(checksums)])

    def _wrote(self, number: int, checksum: str) -> None:
        with self._counting:
            if number <= self._durable:
                return
            for known in [n for n in self._in_doubt if n <= number]:
                del self._in_doubt[known]
            self._durable, self._last_checksum = number, checksum
            self._high_water.write(number, finished=False)

    def _store_trace(self, connection: Connection) -> str | None:
        """Store the run's pace, in a transaction, if there is a newer one. Returns it."""
        trace = self.unstored_trace
        if trace is not None:
            store_trace(connection, self._row["id"], trace)
        return trace

    def _stored(self, trace: str | None) -> None:
        """The transaction that stored this trace is durable."""
        if trace is self.unstored_trace:
            self.unstored_trace = None

    def _ended(self, row: dict[str, Any]) -> None:
        self._row = row
        self._high_water.write(self._durable, finished=True)
        if self._set_aside is not None:
            self._set_aside.remove()


def _taken(run: OpenedRun) -> JournalError:
    """The error for a run that another process has now."""
    return journal_error(
        run.location,
        "locked",
        f"another process has gone on with run {run.name}, or deleted it, while this process "
        "had lost the database. Nothing of the other process was overwritten; this process "
        "sends nothing more for the run",
    )


def _lost(run: OpenedRun, had: int, has: int) -> JournalError:
    """The error for a log in which the event with the number `had` is another one, or is gone."""
    if has >= had:
        return _taken(run)
    return journal_error(
        run.location,
        "damaged",
        f"damaged: run {run.name} had {had} events here, and has {has} now. The database lost its "
        "last commits (a failover to a server that lacked them, or a backup that was put back). "
        "The run was ended, and nothing more was sent",
    )


def last_number(connection: Connection, run_id: int) -> int:
    """How many events the run's log has."""
    query = select(func.max(events.c.number)).where(events.c.run_id == run_id)
    return connection.execute(query).scalar() or 0
