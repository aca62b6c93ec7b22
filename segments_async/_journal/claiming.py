"""Claims of a shared run's segments, and take-overs of its parts. For worker threads.

A part is locked before it can be seen, and its segments are claimed in the same transaction. So no
segment is in two parts, and no process takes a new part for one whose process has died.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
from sqlalchemy import Connection, func, insert, select

from segments_async._journal.database import Database
from segments_async._journal.opening import check_lock, new_run, read_run
from segments_async._journal.refusals import Locked
from segments_async._journal.run_log import RunLog
from segments_async._journal.shared_rows import files_of, part_row, run_row, view_of
from segments_async._journal.tables import (
    PART,
    claims,
    in_queries,
    insert_row,
    parts,
    specs,
    update_row,
    with_checksum,
)
from segments_async._sansio.files.naming import alike, free_name
from segments_async._sansio.jobs.parts import claim_size


@attrs.frozen
class PartLog:
    """A part that this process has locked.

    Attributes:
        files: the name of each of its segments' files, by segment id; None without files.
    """

    run_id: int
    log: RunLog
    files: Mapping[str, str | None]


@attrs.frozen
class Claimed:
    """The result of a claim.

    Attributes:
        part: the new part; None where no segment was free.
        looked_at: how many of the wanted segments, from the first on, have a part now.
    """

    part: PartLog | None
    looked_at: int

    def close(self) -> None:
        """Release the part."""
        if self.part is not None:
            self.part.log.opened.close()


def claim(
    database: Database,
    run_id: int,
    member: str,
    wanted: Sequence[tuple[str, str | None]],
    most: int | None,
) -> Claimed:
    """Make a part of some of the wanted segments that have none, and open the part.

    The part is locked before it can be seen: no other process takes it for one whose process died.

    Args:
        run_id: of the shared run.
        wanted: segments, each with the name of its file if there is one, in the order in which they
            are claimed.
        most: the most segments to claim, by this process's pace; None for all of them: the process
            was given no others.
    """
    backend = database.backend
    skipped = 0 if most is None else _taken_at_first(database, run_id, wanted)
    with database.errors(), contextlib.ExitStack() as undo:
        connection = backend.engine.connect()
        undo.callback(connection.close)
        with database.transaction(connection):
            view = view_of(database, connection, run_id)
            if view.ended:
                return Claimed(None, len(wanted))
            size = len(wanted)
            if most is not None:
                unclaimed = _unclaimed(connection, run_id)
                size = claim_size(unclaimed, view.processes(member), most)
            found, looked_at = _free(connection, run_id, wanted[skipped:], size)
            looked_at += skipped
            if not found:
                return Claimed(None, looked_at)
            row = _new_part(connection, run_id, view.round, member)
            files = _insert_claims(connection, run_id, row["id"], found)
            lock = backend.try_lock(connection, row["id"])
            if lock is None:
                raise Locked("a new part of the run is held by another process")
            undo.callback(lock.release)
        check_lock(database, connection, lock)
        opened = read_run(database, connection, row, lock)
        undo.pop_all()
    return Claimed(PartLog(row["id"], RunLog(opened), files), looked_at)


def take_over(database: Database, run_id: int, part_id: int, member: str) -> Claimed:
    """Open a part whose process is gone, if no other process has been quicker."""
    backend = database.backend
    with database.errors(), contextlib.ExitStack() as undo:
        connection = backend.engine.connect()
        undo.callback(connection.close)
        with database.transaction(connection):
            row = run_row(connection, part_id)
            part = part_row(connection, part_id)
            if row["ended_at"] is not None or part["left_over"]:
                return Claimed(None, 0)
            lock = backend.try_lock(connection, part_id)
            if lock is None:
                return Claimed(None, 0)
            undo.callback(lock.release)
            update_row(connection, parts, {**part, "member": member})
            files = files_of(connection, run_id, part_id)
        check_lock(database, connection, lock)
        opened = read_run(database, connection, row, lock)
        undo.pop_all()
    return Claimed(PartLog(part_id, RunLog(opened), files), 0)


def leave_over(database: Database, part_id: int, member: str) -> None:
    """Write that the part was worked through in this round, and has exports left for the next one.

    Nothing is written where another process has opened the part since.
    """
    with database.writing() as connection:
        part = part_row(connection, part_id)
        if part["member"] == member:
            update_row(connection, parts, {**part, "left_over": True})


def _unclaimed(connection: Connection, run_id: int) -> int:
    """About how many segments no part has: ids that can't be sent are in claims alone."""
    of_spec = select(specs.c.segments).where(specs.c.run_id == run_id)
    claimed = select(func.count()).select_from(claims).where(claims.c.shared_id == run_id)
    total = connection.execute(of_spec).scalar() or 0
    return max(1, int(total) - int(connection.execute(claimed).scalar_one()))


def _taken_at_first(
    database: Database, run_id: int, wanted: Sequence[tuple[str, str | None]]
) -> int:
    """How many of the wanted segments, from the first on, have a part. No claim is taken back.

    Looked up before the transaction that excludes the other processes: of a million segments, a
    process that joins late finds most of them claimed, and the others would wait for seconds.
    """
    taken_first = 0
    with database.reading() as connection:
        for some in in_queries(wanted):
            taken = _taken(connection, run_id, some)
            connection.rollback()  # in SQLite, commits wait for the end of a reader's transaction
            for segment_id, _ in some:
                if segment_id not in taken:
                    return taken_first
                taken_first += 1
    return taken_first


def _taken(connection: Connection, run_id: int, some: Sequence[tuple[str, str | None]]) -> set[str]:
    """Which of these segments have a part."""
    ids = [segment_id for segment_id, _ in some]
    query = select(claims.c.segment_id).where(claims.c.shared_id == run_id)
    return set(connection.execute(query.where(claims.c.segment_id.in_(ids))).scalars())


def _free(
    connection: Connection, run_id: int, wanted: Sequence[tuple[str, str | None]], size: int
) -> tuple[list[tuple[str, str | None]], int]:
    """The first segments without a part, and how many were looked at to find them."""
    found: list[tuple[str, str | None]] = []
    looked_at = 0
    for some in in_queries(wanted):
        taken = _taken(connection, run_id, some)
        for one in some:
            if len(found) == size:
                return found, looked_at
            looked_at += 1
            if one[0] not in taken:
                found.append(one)
    return found, looked_at


def _new_part(connection: Connection, run_id: int, round_: int, member: str) -> Mapping[str, Any]:
    shared = run_row(connection, run_id)
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
    insert_row(connection, parts, values)
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
    taken: set[str] = set()
    for keys in in_queries([alike(name) for name in names]):
        query = select(claims.c.file_key).where(claims.c.shared_id == run_id)
        taken.update(connection.execute(query.where(claims.c.file_key.in_(keys))).scalars())
    return taken
