"""A shared run whose segments one process, the coordinator, gives out in batches. For threads.

The coordinator locks the row of the shared run, and no part. By this lock each worker sees whether
the coordinator is there, on every machine, and however the coordinator ended. The coordinator
follows the logs of all parts, so that it learns of each end from the journal, whatever becomes of
the process that recorded the end.
"""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Mapping, Sequence

import attrs
from sqlalchemy import Connection, select
from sqlalchemy.exc import DBAPIError

from segments_async._journal.backends import RunLock
from segments_async._journal.database import Database
from segments_async._journal.log import Log
from segments_async._journal.moves import former_directories, in_present_directory
from segments_async._journal.opening import check_lock
from segments_async._journal.outages import read_guard, read_news
from segments_async._journal.records import GuardRecord
from segments_async._journal.refusals import Locked
from segments_async._journal.shared_rows import files_of, run_row, view_of
from segments_async._journal.tables import claims, in_queries, parts, runs
from segments_async._sansio.jobs.parts import SharedView
from segments_async._sansio.jobs.record import ExportRecord
from segments_async._sansio.jobs.replay import Replay
from segments_async._sansio.pace import shared_outage


class CoordinatorLock:
    """The lock of a shared run's row, which its coordinator has for as long as it lives."""

    def __init__(self, database: Database, connection: Connection, lock: RunLock) -> None:
        self._database = database
        self._connection = connection
        self._lock = lock

    def renew(self) -> None:
        """Lock the row again where the database server has lost the session that had the lock.

        Raises:
            Locked: another coordinator has been quicker.
            JournalError: the database is away.
        """
        backend = self._database.backend
        if not backend.has_sessions:
            return
        with self._database.errors():
            with contextlib.suppress(DBAPIError), self._connection.begin():
                # By this connection, that is: another coordinator's lock doesn't count.
                if self._lock.is_held(self._connection):
                    return
            self._connection.close()
            self._connection = backend.engine.connect()
            if not self._lock.reacquire(self._connection):
                raise Locked("another process gives out this run's segments")

    def close(self) -> None:
        """Release the lock: the workers leave the run."""
        self._lock.release()
        self._connection.close()


def coordinate(database: Database, run_id: int) -> CoordinatorLock:
    """Lock the row of a shared run.

    Raises:
        Locked: another process gives out the run's segments.
    """
    backend = database.backend
    with database.errors(), contextlib.ExitStack() as undo:
        connection = backend.engine.connect()
        undo.callback(connection.close)
        with database.transaction(connection):
            lock = backend.try_lock(connection, run_id)
            if lock is None:
                raise Locked("another process gives out this run's segments to its workers")
            undo.callback(lock.release)
        check_lock(database, connection, lock)
        undo.pop_all()
    return CoordinatorLock(database, connection, lock)


def look_at_batch(
    database: Database, run_id: int, segment_ids: Sequence[str]
) -> tuple[SharedView, shared_outage.News, bool]:
    """A shared run, as the process of one batch sees it.

    Returns: the view of the run, with the parts that have segments of the batch, and no others;
        what the account's processes tell each other; and whether the coordinator is there.

    Raises:
        JournalError: the run was deleted.
    """
    with database.reading() as connection:
        of_batch = _parts_of(connection, run_id, segment_ids)
        view = view_of(database, connection, run_id)
        own = [part for part in view.parts if part.run_id in of_batch]
        news = read_news(connection, database.backend)
        there = bool(database.backend.locked(connection, [run_id]))
        return attrs.evolve(view, parts=own), news, there


def _parts_of(connection: Connection, run_id: int, segment_ids: Sequence[str]) -> set[int]:
    found: set[int] = set()
    for ids in in_queries(segment_ids):
        query = select(claims.c.part_id).where(claims.c.shared_id == run_id).distinct()
        found.update(connection.execute(query.where(claims.c.segment_id.in_(ids))).scalars())
    return found


@attrs.frozen
class News:
    """What the journal has of a shared run that it had not at the last look.

    Attributes:
        claimed: the part of each segment that has a part now.
        records: of the segments with new events.
        settled: all parts that were worked through.
        owners: the process that opened each other part last.
        locked: all parts that live processes have.
    """

    view: SharedView
    guard: GuardRecord | None
    claimed: Mapping[str, int]
    records: Mapping[str, ExportRecord]
    settled: Collection[int]
    owners: Mapping[int, str]
    locked: Collection[int]


class Following:
    """Reads the logs of a shared run's parts, each event once. One thread at a time.

    Args:
        run_id: of the shared run.
    """

    def __init__(self, database: Database, run_id: int) -> None:
        self._database = database
        self._run_id = run_id
        self._logs: dict[int, tuple[Log, Replay]] = {}
        self._settled: set[int] = set()

    def look(self) -> News:
        """Read what is new.

        Raises:
            JournalError: the journal can't be read, is damaged, or the run was deleted.
        """
        database, run_id = self._database, self._run_id
        with database.reading() as connection:
            # Before the view: PostgreSQL shows each statement what was committed before it, and a
            # part that is claimed between the two would count as one that was worked through.
            query = select(parts.c.run_id).where(parts.c.shared_id == run_id)
            every = list(connection.execute(query.order_by(parts.c.run_id)).scalars())
            view = view_of(database, connection, run_id)
            guard = read_guard(connection)
            new = [one for one in every if one not in self._logs]
            claimed = {i: one for one in new for i in files_of(connection, run_id, one)}
            directory = run_row(connection, run_id)["destination"]
            former = former_directories(connection, directory)
        for part_id in new:
            self._logs[part_id] = Log(database.reading, part_id), Replay()
        found: dict[str, ExportRecord] = {}
        with database.errors():
            for part_id in every:
                if part_id not in self._settled:
                    found |= self._read(part_id)
            found = dict(in_present_directory(found, directory, former))
        owners = {part.run_id: part.member for part in view.open_parts}
        self._settled = {one for one in every if one not in owners}
        locked = {part.run_id for part in view.parts if part.locked}
        return News(view, guard, claimed, found, frozenset(self._settled), owners, locked)

    def _read(self, part_id: int) -> dict[str, ExportRecord]:
        log, replay = self._logs[part_id]
        changed = dict.fromkeys(replay.step(entry) for entry in log.later())
        return {segment_id: replay.record(segment_id) for segment_id in changed}


def is_coordinated(database: Database, name: str) -> bool:
    """Whether a live process gives out the segments of the run of this name."""
    with database.reading() as connection:
        run_id = connection.execute(select(runs.c.id).where(runs.c.name == name)).scalar()
        return run_id is not None and bool(database.backend.locked(connection, [run_id]))
