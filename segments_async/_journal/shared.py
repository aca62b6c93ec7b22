"""A run that several processes share: joined, looked at, and brought to its end.

A part is an ordinary run of the journal: it has a log, whose events are numbered under a constraint
of the database, and a lock, which ends with its process. So a part is as safe as a run of one
process. A primary key keeps each segment in one part. No clock and no lease decides who may send a
POST; a lock decides only which process tries. For worker threads.
"""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime

import attrs
from sqlalchemy import Connection, select

from segments_async._journal import shared_marks
from segments_async._journal.database import Database
from segments_async._journal.moves import follow_moves, remove_files
from segments_async._journal.opening import (
    check_destination,
    check_missing,
    check_seen,
    find_run,
    is_shared,
    mark_of,
    new_run,
)
from segments_async._journal.outages import read_news
from segments_async._journal.records import RunSpec
from segments_async._journal.refusals import journal_error
from segments_async._journal.shared_marks import check_parts_seen
from segments_async._journal.shared_rows import (
    missing_segments,
    part_row,
    run_row,
    view_of,
)
from segments_async._journal.specs import drop_spec, load_spec, store_spec
from segments_async._journal.tables import (
    checked,
    format_time,
    insert_row,
    parse_time,
    parts,
    runs,
    shared_runs,
    update_row,
)
from segments_async._sansio.jobs.parts import SharedView, starts_round
from segments_async._sansio.pace.shared_outage import News
from segments_async.errors import ConfigurationError


@attrs.frozen
class Joined:
    """The shared run that a process has joined.

    Attributes:
        started_at: when its first process joined; aware, UTC.
        round: the round that this process works in.
        ended: whether the run had ended before: then there is nothing to do.
    """

    run_id: int
    name: str
    started_at: datetime
    round: int
    ended: bool


def join(database: Database, destination: str | None, name: str, spec: RunSpec | None) -> Joined:
    """Find the shared run of this name, or make it.

    Args:
        destination: the directory of the run's files; None for a run without files.
        spec: its segments are added to those that other processes gave; None for a worker of a
            coordinator, which brings no segments, and begins no round.

    Raises:
        ConfigurationError: the run has another destination, or isn't a shared one.
        JournalError: the journal is an older copy, or (``missing``) lacks the coordinator's run.
    """
    backend = database.backend
    with database.writing(every_table=True) as connection:
        old_files = follow_moves(connection, backend)
        journal = backend.identity(connection)
        row = find_run(connection, destination, name)
        if row is None:
            if spec is None:
                raise journal_error(database.location, "missing", f"there is no run {name}")
            check_missing(database, connection, journal, destination, name)
            row = new_run(connection, destination, name, name)
            values = {"run_id": row["id"], "round": 1, "internal_errors": 0}
            insert_row(connection, shared_runs, values)
        check_destination(row, destination)
        if not is_shared(connection, row["id"]):
            raise ConfigurationError(
                f"run {name} is a run of one process at a time, and can't be joined. Nothing was "
                "sent; another name starts a shared run"
            )
        check_seen(database, mark_of(journal, row), row, 0)
        check_parts_seen(database, connection, journal, row)
        round_ = 0
        if row["ended_at"] is None and spec is not None:
            round_ = _round(database, connection, row["id"])
            _add_to_spec(connection, row["id"], spec)
    remove_files(old_files)
    shared_marks.tidy(database, destination)
    ended = row["ended_at"] is not None
    return Joined(row["id"], name, parse_time(row["started_at"]), round_, ended)


def look(database: Database, run_id: int) -> tuple[SharedView, News]:
    """How the shared run stands, and what the account's processes tell each other.

    Raises:
        JournalError: the run was deleted.
    """
    with database.reading() as connection:
        view = view_of(database, connection, run_id)
        return view, read_news(connection, database.backend)


def add_internal_errors(database: Database, run_id: int, round_: int, count: int) -> None:
    """Count answers of 500 for the whole run."""
    with database.writing() as connection:
        view = view_of(database, connection, run_id)
        if view.round == round_:
            _write_round(connection, run_id, round_, view.internal_errors + count)


def finish(database: Database, run_id: int) -> tuple[bool, list[str]]:
    """Write the run's end, if every part has ended.

    Returns: whether the round is over, and the segments that no part has, if there are any: the
    process that brought them is gone.

    Raises:
        JournalError: the run was deleted.
    """
    with database.writing() as connection:
        view = view_of(database, connection, run_id)
        if view.ended or view.open_parts:
            return view.ended, []
        missing = missing_segments(connection, run_id)
        if missing or view.parts:  # parts that are left over are gone on with by another start
            return not missing, missing
        query = select(runs).join(parts, parts.c.run_id == runs.c.id)
        found = connection.execute(query.where(parts.c.shared_id == run_id)).all()
        states: Counter[str] = Counter()
        for part in found:
            states.update(json.loads(checked(runs, part)["states"]))
        now, counts = format_time(datetime.now(UTC)), json.dumps(dict(states))
        row = run_row(connection, run_id)
        update_row(connection, runs, {**row, "ended_at": now, "states": counts})
        drop_spec(connection, run_id)
    return True, []


def _round(database: Database, connection: Connection, run_id: int) -> int:
    """The round in which a process that joins now works: the present one, or another one."""
    view = view_of(database, connection, run_id)
    if not starts_round(view, unclaimed=lambda: len(missing_segments(connection, run_id))):
        return view.round
    number = view.round + 1
    _write_round(connection, run_id, number, 0)
    for one in view.parts:
        part = part_row(connection, one.run_id)
        update_row(connection, parts, {**part, "round": number, "left_over": False})
    return number


def _write_round(connection: Connection, run_id: int, round_: int, internal_errors: int) -> None:
    values = {"run_id": run_id, "round": round_, "internal_errors": internal_errors}
    update_row(connection, shared_runs, values)


def _add_to_spec(connection: Connection, run_id: int, spec: RunSpec) -> None:
    """Store the segments of all processes, and the options of the last one."""
    known = load_spec(connection, run_id)
    before = () if known is None else known.segments
    segments = list(dict.fromkeys((*before, *spec.segments)))
    if known is None or len(segments) > len(before) or known.options != spec.options:
        store_spec(connection, run_id, attrs.evolve(spec, segments=segments))
