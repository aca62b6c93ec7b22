"""Opening a run: found or created, locked, its log read, and refused in an older journal.

For worker threads.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Connection, Row, func, insert, select

from segments_async._journal.backends import RunLock
from segments_async._journal.database import Database
from segments_async._journal.high_water import (
    HighWaterFile,
    HighWaterMark,
    is_local,
    mark_path,
    marks,
)
from segments_async._journal.log import Log
from segments_async._journal.moves import (
    follow_moves,
    former_directories,
    in_present_directory,
    remove_files,
)
from segments_async._journal.opened_run import OpenedRun
from segments_async._journal.records import RunSpec
from segments_async._journal.refusals import Locked, journal_error
from segments_async._journal.set_aside import SetAside
from segments_async._journal.specs import remove_spec_file, store_spec
from segments_async._journal.tables import (
    PART,
    checked,
    events,
    format_time,
    insert_row,
    label,
    runs,
    shared_runs,
)
from segments_async._journal.traces import load_trace
from segments_async._sansio.jobs.replay import records
from segments_async.errors import ConfigurationError, JournalError


def open_run(
    database: Database,
    destination: str | None,
    name: str | None,
    now_name: str,
    spec: RunSpec | None = None,
) -> OpenedRun:
    """Open the run to go on with, or a new one; the arguments are those of `SqlJournal.open_run`.

    Raises:
        Locked: a live process has the run.
        ConfigurationError: the run has another destination.
        JournalError: the log is damaged, or the journal is an older copy.
    """
    backend = database.backend
    with database.errors(), contextlib.ExitStack() as undo:
        connection = backend.engine.connect()
        undo.callback(connection.close)
        lock: RunLock | None = None
        with database.transaction(connection, every_table=True):
            old_files = follow_moves(connection, backend)
            journal = backend.identity(connection)
            row = _found_or_new(database, connection, journal, destination, name, now_name)
            if row["ended_at"] is None:
                lock = _lock(database, connection, row)
                undo.callback(lock.release)
                if spec is not None:
                    store_spec(connection, row["id"], spec)
        remove_files(old_files)
        if lock is not None:
            check_lock(database, connection, lock)
        if spec is not None:
            remove_spec_file(destination, row["name"])
        opened = read_run(database, connection, row, lock)
        undo.pop_all()
    return opened


def read_run(
    database: Database, connection: Connection, row: Mapping[str, Any], lock: RunLock | None
) -> OpenedRun:
    """Read the log of a run that this process has locked, or that has ended.

    Args:
        connection: for this run alone, without a transaction.
        lock: None for a run that has ended.

    Raises:
        Locked: the run's end was written after `row` was read.
        JournalError: the log is damaged, or the journal is an older copy.
    """
    with database.reading() as reader:
        journal = database.backend.identity(reader)
        former = former_directories(reader, row["destination"])
        trace = load_trace(reader, row["id"])
    # The run is locked: no other process appends to its log while the log is read. Should a lock
    # ever lie, the mark is no newer than the log, since it is read first.
    seen = mark_of(journal, row)
    log = Log(database.reading, row["id"])
    known = records(log)
    if seen is not None and seen.finished and row["ended_at"] is None:
        _check_unended(database, row["id"])
    check_seen(database, seen, row, log.number)
    set_aside = SetAside.of(journal, row)
    if lock is not None and _take_back(connection, set_aside, log, row["id"]):
        log = Log(database.reading, row["id"])
        known = records(log)
    known = in_present_directory(known, row["destination"], former)
    high_water = HighWaterFile(row["destination"], journal, row["name"], row["started_at"])
    return OpenedRun(
        database.backend, connection, lock, row, known, log, high_water, set_aside, trace
    )


def _found_or_new(
    database: Database,
    connection: Connection,
    journal: str,
    destination: str | None,
    name: str | None,
    now_name: str,
) -> Mapping[str, Any]:
    row = find_run(connection, destination, name)
    if row is None:
        check_missing(database, connection, journal, destination, name)
        return new_run(connection, destination, name, now_name)
    check_destination(row, destination)
    if name is not None and is_shared(connection, row["id"]):
        raise ConfigurationError(
            f"run {name} is shared by several processes, and can't be opened for one alone. "
            "Nothing was sent; shared=True joins the run, and another name starts a new one"
        )
    return row


def check_destination(row: Mapping[str, Any], destination: str | None) -> None:
    """Refuse another directory than the run's.

    Raises:
        ConfigurationError: the run has another destination.
    """
    if row["destination"] != destination:
        raise ConfigurationError(
            f"the files of run {row['name']} go to {row['destination'] or 'no directory'}, not to "
            f"{destination or 'no directory'}. Nothing was sent; give the run's own directory, or "
            "another name for a new run"
        )


def is_shared(connection: Connection, run_id: int) -> bool:
    """Whether several processes share the run. The journal has every table."""
    query = select(shared_runs.c.run_id).where(shared_runs.c.run_id == run_id)
    return connection.execute(query).first() is not None


def find_run(
    connection: Connection, destination: str | None, name: str | None
) -> Mapping[str, Any] | None:
    """The run of that name; without a name, the unfinished run that no caller named."""
    if name is None:
        unfinished = runs.c.ended_at.is_(None) & runs.c.named.is_(False)
        query = select(runs).where(unfinished, runs.c.destination.is_not_distinct_from(destination))
    else:
        query = select(runs).where(runs.c.name == name)
    row = connection.execute(query.order_by(runs.c.id.desc())).first()
    return None if row is None else checked(runs, row)


def new_run(
    connection: Connection, destination: str | None, name: str | None, now_name: str
) -> Mapping[str, Any]:
    """Insert a run. No other process opens a run meanwhile."""
    last = connection.execute(select(func.max(runs.c.id))).scalar() or 0
    values = {
        "id": last + 1,
        "name": _unique(connection, now_name) if name is None else name,
        "named": name is not None,
        "destination": destination,
        "started_at": format_time(datetime.now(UTC)),
        "ended_at": None,
        "states": None,
    }
    return insert_row(connection, runs, values)


def _unique(connection: Connection, name: str) -> str:
    """The name, with a number where another run has the name."""
    query = select(runs.c.name).where(runs.c.name.startswith(name))
    taken = set(connection.execute(query).scalars())
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name}-{number}"
    return candidate


def _lock(database: Database, connection: Connection, row: Mapping[str, Any]) -> RunLock:
    lock = database.backend.try_lock(connection, row["id"])
    if lock is None:
        process = database.backend.holder(row["id"])
        which = "" if process is None else f" (process {process})"
        raise Locked(f"run {label(row['name'])} is held by a live process{which}")
    return lock


def _take_back(connection: Connection, set_aside: SetAside | None, log: Log, run_id: int) -> bool:
    """Insert the events that the last session could not write. Returns whether there were any."""
    rows = () if set_aside is None else set_aside.load(run_id, log.number, log.last_checksum)
    if set_aside is None or not rows:
        return False
    with connection.begin():
        connection.execute(insert(events), rows)
    set_aside.remove()
    return True


def check_lock(database: Database, connection: Connection, lock: RunLock) -> None:
    """Check that a lock holds after its commit, and the database after a process's death."""
    lock.confirm(connection)
    if lock.unclean:
        with database.reading() as reader:
            database.backend.check_integrity(reader)


def check_missing(
    database: Database,
    connection: Connection,
    journal: str,
    destination: str | None,
    name: str | None,
) -> None:
    """Refuse a new run in a directory that has a mark of an unfinished run.

    Either the journal lacks the run, or the run is in another directory by the journal: then this
    directory was moved.
    """
    for seen in marks(destination, journal):
        if seen.finished and seen.run != name and not is_part_of(seen.run, name):
            continue
        found = marked_run(database, connection, seen)
        if name is None and destination is not None and _was_moved(found, destination, journal):
            raise ConfigurationError(
                f"{destination}: run {seen.run} began in {found.destination}, and the run's files "
                "are here: the directory was moved without its journal. Nothing was sent, since "
                "exports would be requested twice. Move the directory back to go on with the "
                "run; or give a name (run=..., --run) to start a new run"
            )


def marked_run(database: Database, connection: Connection, seen: HighWaterMark) -> Row[Any]:
    """The row of the run that a mark is of.

    Raises:
        JournalError: the journal is an older copy, which lacks the run.
    """
    found = connection.execute(select(runs).where(runs.c.name == seen.run)).one_or_none()
    if found is None or found.started_at != seen.started_at:
        raise _older_copy(database, seen, f"{seen.events} events of it were", "does not have it")
    return found


def is_part_of(part: str, run: str | None) -> bool:
    """Whether a name is that of a part of the shared run."""
    return run is not None and part.startswith(f"{PART}{run}, part ")


def _was_moved(run: Row[Any], destination: str, journal: str) -> bool:
    """Whether an unfinished run without a caller's name has its files here, by its mark alone."""
    if run.named or run.ended_at is not None or run.destination in (None, destination):
        return False
    return all(mark.run != run.name for mark in marks(run.destination, journal))


def mark_of(journal: str, row: Mapping[str, Any]) -> HighWaterMark | None:
    """The run's own mark; None where there is none."""
    if not is_local(row["destination"]):
        return None
    # The mark is opened by its name. A search would read a directory that may have thousands.
    return HighWaterMark.read(
        mark_path(row["destination"], journal, row["name"], row["started_at"])
    )


def check_seen(
    database: Database, seen: HighWaterMark | None, row: Mapping[str, Any], number: int
) -> None:
    """Refuse a log with fewer events than are known to have been durable."""
    if seen is None:
        return
    if seen.events > number:
        raise _older_copy(database, seen, f"{seen.events} events of it were", f"has {number}")
    if seen.finished and row["ended_at"] is None:
        raise _older_copy(database, seen, "its end was", "has the run as unfinished")


def _check_unended(database: Database, run_id: int) -> None:
    """Refuse, for now, a run that has ended since its row was read.

    The mark is read after the row. In PostgreSQL the process that had the lock may write the run's
    end, and the mark, and release the lock, between the two. Then the mark is newer than the row,
    and the journal is no older copy.

    Raises:
        Locked: the run has ended.
    """
    with database.reading() as connection:
        query = select(runs.c.ended_at).where(runs.c.id == run_id)
        if connection.execute(query).scalar() is not None:
            raise Locked("another process has only just ended the run")


def _older_copy(database: Database, seen: HighWaterMark, was: str, now: str) -> JournalError:
    return journal_error(
        database.location,
        "damaged",
        f"damaged: the journal lost commits of run {label(seen.run)}: {was} durable, and "
        f"the journal {now}. The journal is an older copy: a backup that was put back, or a "
        "database that failed over without its last commits. Nothing was sent, since exports would "
        "be requested "
        "twice. Put the newest copy back; or, to go on with this copy all the same, remove "
        f"{str(seen.path)!r}",
    )
