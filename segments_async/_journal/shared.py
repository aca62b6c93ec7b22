"""A run that several processes share: joined, divided into parts, and brought to its end.

A part is an ordinary run of the journal: it has a log, whose events are numbered under a constraint
of the database, and a lock, which ends with its process. So what makes one process's run safe makes
a part safe. That a segment is in one part alone is a primary key. No clock and no lease decides
who may send a POST; a lock decides only who tries. For worker threads.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import attrs
from sqlalchemy import Connection, func, insert, select, update

from segments_async._journal.database import Database, read_guard
from segments_async._journal.high_water import HighWaterFile, marks, remove_mark
from segments_async._journal.log import Log
from segments_async._journal.moves import (
    follow_moves,
    former_directories,
    in_present_directory,
    remove_files,
)
from segments_async._journal.opened_run import OpenedRun
from segments_async._journal.opening import (
    check_destination,
    check_lock,
    check_missing,
    check_seen,
    find_run,
    is_part_of,
    is_shared,
    mark_of,
    new_run,
    older_copy,
    read_run,
)
from segments_async._journal.records import GuardRecord, RunSpec
from segments_async._journal.refusals import Locked, journal_error
from segments_async._journal.specs import drop_spec, load_spec, store_spec
from segments_async._journal.tables import (
    PART,
    checked,
    claims,
    format_time,
    parse_time,
    parts,
    runs,
    shared_runs,
    specs,
    with_checksum,
)
from segments_async._sansio.files.naming import alike, free_name
from segments_async._sansio.jobs.parts import PartView, SharedView, claim_size, starts_round
from segments_async._sansio.jobs.record import ExportRecord
from segments_async._sansio.jobs.replay import records
from segments_async.errors import ConfigurationError

#: Ids in one query. SQLite accepts at least 999 parameters.
_IDS_AT_ONCE = 500


@attrs.frozen
class Joined:
    """The shared run that a process has joined.

    Attributes:
        run_id: of the shared run.
        name: of the run.
        started_at: when its first process joined; aware, UTC.
        round: in which this process works.
        ended: whether the run had ended before: then there is nothing to do.
    """

    run_id: int
    name: str
    started_at: datetime
    round: int
    ended: bool


@attrs.frozen
class OpenedPart:
    """A part that this process has locked.

    Attributes:
        run_id: of the part.
        run: the part in the database.
        files: the name of each of its segments' files, by segment id; None without files.
    """

    run_id: int
    run: OpenedRun
    files: Mapping[str, str | None]


@attrs.frozen
class Claimed:
    """The result of a claim.

    Attributes:
        part: the new part; None where no segment was free.
        looked_at: how many of the wanted segments, from the first on, have a part now.
    """

    part: OpenedPart | None
    looked_at: int

    def close(self) -> None:
        """Release the part."""
        if self.part is not None:
            self.part.run.close()


def join(database: Database, destination: str | None, name: str, spec: RunSpec) -> Joined:
    """Find the shared run of this name, or make it.

    Args:
        database: of the journal.
        destination: the directory of the run's files; None for a run without files.
        name: of the run.
        spec: its segments are added to those that other processes gave.

    Raises:
        ConfigurationError: the run has another destination, or isn't a shared one.
        JournalError: the journal is an older copy.
    """
    backend = database.backend
    with database.writing() as connection:
        database.add_missing_tables(connection)
        old_files = follow_moves(connection, backend)
        journal = backend.identity(connection)
        row = find_run(connection, destination, name)
        if row is None:
            check_missing(database, connection, journal, destination, name)
            row = new_run(connection, destination, name, name)
            values = {"run_id": row["id"], "round": 1, "internal_errors": 0}
            connection.execute(insert(shared_runs).values(with_checksum(shared_runs, values)))
        check_destination(row, destination)
        if not is_shared(connection, row["id"]):
            raise ConfigurationError(
                f"run {name} is a run of one process at a time, and can't be joined. Nothing was "
                "sent; another name starts a shared run"
            )
        check_seen(database, mark_of(journal, row), row, 0)
        _check_parts_seen(database, connection, journal, row)
        round_ = 0
        if row["ended_at"] is None:
            round_ = _round(database, connection, row["id"])
            _add_to_spec(connection, row["id"], spec)
    database.on_tables_committed()
    remove_files(old_files)
    tidy(database, destination)
    ended = row["ended_at"] is not None
    return Joined(row["id"], name, parse_time(row["started_at"]), round_, ended)


def look(database: Database, run_id: int) -> tuple[SharedView, GuardRecord | None]:
    """How the shared run stands, and the account's ticket guard.

    Raises:
        JournalError: the run was deleted.
    """
    with database.reading() as connection:
        return _view(database, connection, run_id), read_guard(connection)


def claim(
    database: Database, run_id: int, member: str, wanted: Sequence[tuple[str, str | None]]
) -> Claimed:
    """Make a part of some of the wanted segments that have none, and open the part.

    The part is locked before it can be seen: no other process takes it for one whose process died.

    Args:
        database: of the journal.
        run_id: of the shared run.
        member: this process's name.
        wanted: segments, each with the name of its file if there is one, in the order in which they
            are claimed.
    """
    backend = database.backend
    with database.errors(), contextlib.ExitStack() as undo:
        connection = backend.engine.connect()
        undo.callback(connection.close)
        with connection.begin():
            backend.exclude_others(connection)
            view = _view(database, connection, run_id)
            if view.ended:
                return Claimed(None, len(wanted))
            size = claim_size(_unclaimed(connection, run_id), view.processes(member))
            found, looked_at = _free(connection, run_id, wanted, size)
            if not found:
                return Claimed(None, looked_at)
            row = _new_part(connection, run_id, view.round, member)
            files = _insert_claims(connection, run_id, row["id"], found)
            lock = backend.try_lock(connection, row["id"])
            if lock is None:
                raise Locked("a new part of the run is held by another process")
            undo.callback(lock.release)
            journal = backend.identity(connection)
            former = former_directories(connection, row["destination"])
        check_lock(database, connection, lock)
        opened = read_run(database, connection, journal, row, lock, former)
        undo.pop_all()
    return Claimed(OpenedPart(row["id"], opened, files), looked_at)


def take_over(database: Database, run_id: int, part_id: int, member: str) -> Claimed:
    """Open a part whose process is gone, if no other process has been quicker."""
    backend = database.backend
    with database.errors(), contextlib.ExitStack() as undo:
        connection = backend.engine.connect()
        undo.callback(connection.close)
        with connection.begin():
            backend.exclude_others(connection)
            row = checked(runs, connection.execute(select(runs).where(runs.c.id == part_id)).one())
            part = _part(connection, part_id)
            if row["ended_at"] is not None or part["left_over"]:
                return Claimed(None, 0)
            lock = backend.try_lock(connection, part_id)
            if lock is None:
                return Claimed(None, 0)
            undo.callback(lock.release)
            _update_part(connection, {**part, "member": member})
            files = _files(connection, run_id, part_id)
            journal = backend.identity(connection)
            former = former_directories(connection, row["destination"])
        check_lock(database, connection, lock)
        opened = read_run(database, connection, journal, row, lock, former)
        undo.pop_all()
    return Claimed(OpenedPart(part_id, opened, files), 0)


def leave_over(database: Database, part_id: int, member: str) -> None:
    """Write that the part was worked through in this round, and has exports left for the next one.

    Nothing is written where another process has opened the part since.
    """
    with database.writing() as connection:
        part = _part(connection, part_id)
        if part["member"] == member:
            _update_part(connection, {**part, "left_over": True})


def add_internal_errors(database: Database, run_id: int, round_: int, count: int) -> None:
    """Count answers of 500 for the whole run."""
    with database.writing() as connection:
        row = _shared_row(database, connection, run_id)
        if row["round"] == round_:
            _update_shared(connection, {**row, "internal_errors": row["internal_errors"] + count})


def finish(database: Database, run_id: int) -> tuple[bool, list[str]]:
    """Write the run's end, if every part has ended.

    Returns: whether the round is over, and the segments that no part has, if there are any: the
    process that brought them is gone.

    Raises:
        JournalError: the run was deleted...
    """
    with database.writing() as connection:
        view = _view(database, connection, run_id)
        if view.ended or view.open_parts:
            return view.ended, []
        missing = _missing(connection, run_id)
        if missing or view.parts:  # parts that are left over are gone on with by another start
            return not missing, missing
        query = select(runs).join(parts, parts.c.run_id == runs.c.id)
        found = connection.execute(query.where(parts.c.shared_id == run_id)).all()
        states: Counter[str] = Counter()
        for part in found:
            states.update(json.loads(checked(runs, part)["states"]))
        row = checked(runs, connection.execute(select(runs).where(runs.c.id == run_id)).one())
        ended = {
            **row, "ended_at": format_time(datetime.now(UTC)), "states": json.dumps(dict(states)),
        }  # fmt: skip
        ended = with_checksum(runs, ended)
        connection.execute(update(runs).where(runs.c.id == run_id).values(ended))
        drop_spec(connection, run_id)
    return True, []


def tidy(database: Database, destination: str | None) -> None:
    """Replace the marks of an ended shared run's parts in this directory by one of the run itself.

    Otherwise a directory would have a hundred more after each night. And a part that went on in the
    same directory of another machine has left a mark here that says it is unfinished for ever.
    """
    if destination is None:
        return
    with database.reading() as connection:
        journal = database.backend.identity(connection)
        found = [seen for seen in marks(destination, journal) if seen.run.startswith(PART)]
        ended = _ended_runs(connection, {seen.run for seen in found})
    for seen in found:
        whole_run = ended.get((seen.run, seen.started_at))
        if whole_run is not None:
            mark = HighWaterFile(destination, journal, *whole_run)
            mark.write(0, finished=True)
            mark.close()
            remove_mark(destination, journal, seen.run, seen.started_at)


def _ended_runs(
    connection: Connection, names: Collection[str]
) -> Mapping[tuple[str, str], tuple[str, str]]:
    """Name and start of the ended shared run of each of these parts, by the part's own."""
    part, run = runs.alias(), runs.alias()
    query = (
        select(part.c.name, part.c.started_at, run.c.name, run.c.started_at)
        .select_from(parts)
        .join(part, parts.c.run_id == part.c.id)
        .join(run, parts.c.shared_id == run.c.id)
        .where(run.c.ended_at.is_not(None))
    )
    rows = [tuple(row) for row in connection.execute(query)] if names else []
    return {(row[0], row[1]): (row[2], row[3]) for row in rows if row[0] in names}


@attrs.frozen
class Recorded:
    """One segment of the shared run, as the journal has it.

    Attributes:
        segment_id: the segment.
        record: of its export.
        settled: whether its part was worked through.
    """

    segment_id: str
    record: ExportRecord
    settled: bool


def whole(database: Database, run_id: int) -> Iterator[Recorded]:
    """Every segment of the shared run, those without a part last."""
    with database.reading() as connection:
        row = checked(runs, connection.execute(select(runs).where(runs.c.id == run_id)).one())
        rows = connection.execute(
            select(runs.c.ended_at, *parts.c)
            .join(parts, parts.c.run_id == runs.c.id)
            .where(parts.c.shared_id == run_id)
            .order_by(runs.c.id)
        ).all()
        missing = _missing(connection, run_id)
        former = former_directories(connection, row["destination"])
    for part in rows:
        with database.reading() as connection:
            files = _files(connection, run_id, part.run_id)
        with database.errors():
            known = records(Log(database.reading, part.run_id))
            known = in_present_directory(known, row["destination"], former)
        settled = part.ended_at is not None or part.left_over
        for segment_id in files:
            yield Recorded(segment_id, known.get(segment_id, ExportRecord()), settled)
    for segment_id in missing:
        yield Recorded(segment_id, ExportRecord(), row["ended_at"] is not None)


# --------------------------------------------------------------------- rows


def _shared_row(database: Database, connection: Connection, run_id: int) -> dict[str, Any]:
    query = select(shared_runs).where(shared_runs.c.run_id == run_id)
    found = connection.execute(query).one_or_none()
    if found is None:
        text = "another process has deleted the shared run. This process sends nothing more for it"
        raise journal_error(database.location, "missing", text)
    return checked(shared_runs, found)


def _update_shared(connection: Connection, row: Mapping[str, Any]) -> None:
    values = with_checksum(shared_runs, row)
    query = update(shared_runs).where(shared_runs.c.run_id == row["run_id"])
    connection.execute(query.values(values))


def _part(connection: Connection, part_id: int) -> dict[str, Any]:
    return checked(parts, connection.execute(select(parts).where(parts.c.run_id == part_id)).one())


def _update_part(connection: Connection, row: Mapping[str, Any]) -> None:
    values = with_checksum(parts, row)
    connection.execute(update(parts).where(parts.c.run_id == row["run_id"]).values(values))


def _view(database: Database, connection: Connection, run_id: int) -> SharedView:
    row = _shared_row(database, connection, run_id)
    of_run = select(runs.c.ended_at).where(runs.c.id == run_id)
    ended = connection.execute(of_run).scalar_one() is not None
    query = select(parts).join(runs, parts.c.run_id == runs.c.id)
    unended = query.where(parts.c.shared_id == run_id, runs.c.ended_at.is_(None))
    found = [checked(parts, part) for part in connection.execute(unended.order_by(runs.c.id))]
    locked = database.backend.locked(connection, [part["run_id"] for part in found])
    views = [
        PartView(
            part["run_id"],
            part["round"],
            part["left_over"],
            part["run_id"] in locked,
            part["member"],
        )
        for part in found
    ]
    return SharedView(ended, row["round"], row["internal_errors"], views)


def _round(database: Database, connection: Connection, run_id: int) -> int:
    """The round in which a process that joins now works: the present one, or another one."""
    view = _view(database, connection, run_id)
    row = _shared_row(database, connection, run_id)
    if not starts_round(view, unclaimed=len(_missing(connection, run_id))):
        return view.round
    number = view.round + 1
    _update_shared(connection, {**row, "round": number, "internal_errors": 0})
    for one in view.parts:
        part = _part(connection, one.run_id)
        _update_part(connection, {**part, "round": number, "left_over": False})
    return number


def _add_to_spec(connection: Connection, run_id: int, spec: RunSpec) -> None:
    """Store the segments of all processes, and the options of the last one."""
    known = load_spec(connection, run_id)
    before = () if known is None else known.segments
    segments = list(dict.fromkeys((*before, *spec.segments)))
    if known is None or len(segments) > len(before) or known.options != spec.options:
        store_spec(connection, run_id, attrs.evolve(spec, segments=segments))


def _missing(connection: Connection, run_id: int) -> list[str]:
    """The segments of all processes that no part has."""
    spec = load_spec(connection, run_id)
    if spec is None:
        return []
    query = select(claims.c.segment_id).where(claims.c.shared_id == run_id)
    taken = set(connection.execute(query).scalars())
    return [segment_id for segment_id in spec.segments if segment_id not in taken]


def _unclaimed(connection: Connection, run_id: int) -> int:
    """About how many segments no part has: ids that can't be sent are in claims alone."""
    of_spec = select(specs.c.segments).where(specs.c.run_id == run_id)
    claimed = select(func.count()).select_from(claims).where(claims.c.shared_id == run_id)
    total = connection.execute(of_spec).scalar() or 0
    return max(1, int(total) - int(connection.execute(claimed).scalar_one()))


def _free(
    connection: Connection, run_id: int, wanted: Sequence[tuple[str, str | None]], size: int
) -> tuple[list[tuple[str, str | None]], int]:
    """The first segments without a part, and how many were looked at to find them."""
    found: list[tuple[str, str | None]] = []
    for start in range(0, len(wanted), _IDS_AT_ONCE):
        chunk = wanted[start : start + _IDS_AT_ONCE]
        ids = [segment_id for segment_id, _ in chunk]
        query = select(claims.c.segment_id).where(claims.c.shared_id == run_id)
        taken = set(connection.execute(query.where(claims.c.segment_id.in_(ids))).scalars())
        for index, one in enumerate(chunk, start):
            if len(found) == size:
                return found, index
            if one[0] not in taken:
                found.append(one)
    return found, len(wanted)


def _new_part(connection: Connection, run_id: int, round_: int, member: str) -> Mapping[str, Any]:
    shared = checked(runs, connection.execute(select(runs).where(runs.c.id == run_id)).one())
    count = select(func.count()).select_from(parts).where(parts.c.shared_id == run_id)
    number = 1 + int(connection.execute(count).scalar_one())
    name = f"{PART}{shared['name']}, part {number}"
    row = new_run(connection, shared["destination"], name, name)
    values = {
        "run_id": row["id"],
        "shared_id": run_id,
        "round": round_,
        "left_over": False,
        "member": member,
    }
    connection.execute(insert(parts).values(with_checksum(parts, values)))
    return row


def _insert_claims(
    connection: Connection, run_id: int, part_id: int, found: Sequence[tuple[str, str | None]]
) -> dict[str, str | None]:
    """Claim the segments. Returns the name of each one's file: no two of the run are alike."""
    taken = _taken_names(connection, run_id, [name for _, name in found if name is not None])
    files: dict[str, str | None] = {}
    rows: list[dict[str, Any]] = []
    for segment_id, wanted in found:
        name = wanted
        if wanted is not None:
            name = free_name(wanted, segment_id, taken)
            if name != wanted:
                taken |= _taken_names(connection, run_id, [name])
                name = free_name(wanted, segment_id, taken)
            taken.add(alike(name))
        files[segment_id] = name
        values = {
            "shared_id": run_id,
            "segment_id": segment_id,
            "part_id": part_id,
            "file": name,
            "file_key": None if name is None else alike(name),
        }
        rows.append(with_checksum(claims, values))
    connection.execute(insert(claims), rows)
    return files


def _taken_names(connection: Connection, run_id: int, names: Iterable[str]) -> set[str]:
    keys = [alike(name) for name in names]
    taken: set[str] = set()
    for start in range(0, len(keys), _IDS_AT_ONCE):
        query = select(claims.c.file_key).where(claims.c.shared_id == run_id)
        some = claims.c.file_key.in_(keys[start : start + _IDS_AT_ONCE])
        taken.update(connection.execute(query.where(some)).scalars())
    return taken


def _files(connection: Connection, run_id: int, part_id: int) -> dict[str, str | None]:
    query = select(claims).where(claims.c.part_id == part_id).order_by(claims.c.segment_id)
    rows = [checked(claims, row) for row in connection.execute(query)]
    return {row["segment_id"]: row["file"] for row in rows if row["shared_id"] == run_id}


def _check_parts_seen(
    database: Database, connection: Connection, journal: str, row: Mapping[str, Any]
) -> None:
    """Refuse a journal that lacks a part of which the directory has a mark."""
    for seen in () if row["destination"] is None else marks(row["destination"], journal):
        if is_part_of(seen.run, row["name"]) and parse_time(seen.started_at) >= parse_time(
            row["started_at"]
        ):
            found = connection.execute(select(runs).where(runs.c.name == seen.run)).one_or_none()
            if found is None or found.started_at != seen.started_at:
                was = f"{seen.events} events of it were"
                raise older_copy(database, seen, was, "does not have it")
