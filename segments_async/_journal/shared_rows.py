"""The rows of a shared run in the journal: its own, its parts', its claims'.

For worker threads.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import attrs
from sqlalchemy import Connection, Select, and_, select

from segments_async._journal.database import Database
from segments_async._journal.log import Log
from segments_async._journal.moves import former_directories, in_present_directory
from segments_async._journal.refusals import journal_error
from segments_async._journal.specs import load_spec
from segments_async._journal.tables import checked, checked_of, claims, parts, runs, shared_runs
from segments_async._sansio.jobs.parts import PartView, SharedView
from segments_async._sansio.jobs.record import ExportRecord
from segments_async._sansio.jobs.replay import records


def run_row(connection: Connection, run_id: int) -> dict[str, Any]:
    """The row of `runs`, of the shared run or of a part."""
    return checked(runs, connection.execute(select(runs).where(runs.c.id == run_id)).one())


def part_row(connection: Connection, part_id: int) -> dict[str, Any]:
    """The part's row of `parts`."""
    return checked(parts, connection.execute(select(parts).where(parts.c.run_id == part_id)).one())


def view_of(database: Database, connection: Connection, run_id: int) -> SharedView:
    """How the run stands, in one statement: its round, and the parts that have not ended.

    Each process of the run asks this once a second.

    Raises:
        JournalError: the run was deleted.
    """
    found = connection.execute(_VIEW.where(shared_runs.c.run_id == run_id)).all()
    if not found:
        text = "another process has deleted the shared run. This process sends nothing more for it"
        raise journal_error(database.location, "missing", text)
    shared = checked_of(shared_runs, found[0][_OF_SHARED]) or {}
    of_run = [part for row in found if (part := checked_of(parts, row[_OF_PART])) is not None]
    locked = database.backend.locked(connection, [part["run_id"] for part in of_run])
    views = [
        PartView(
            part["run_id"],
            part["round"],
            part["left_over"],
            part["run_id"] in locked,
            part["member"],
        )
        for part in of_run
    ]
    ended = found[0].ended_at is not None
    return SharedView(ended, shared["round"], shared["internal_errors"], views)


def _view() -> Select[Any]:
    """The query of `view_of`: a row for each part, or one without any."""
    part_run = runs.alias("part_run")
    unended = parts.join(
        part_run, and_(part_run.c.id == parts.c.run_id, part_run.c.ended_at.is_(None))
    )
    tables = shared_runs.join(runs, runs.c.id == shared_runs.c.run_id).outerjoin(
        unended, parts.c.shared_id == shared_runs.c.run_id
    )
    columns = (*shared_runs.c, *parts.c, runs.c.ended_at)
    return select(*columns).select_from(tables).order_by(parts.c.run_id)


_VIEW = _view()
_OF_SHARED = slice(0, len(shared_runs.c))
_OF_PART = slice(len(shared_runs.c), len(shared_runs.c) + len(parts.c))


def missing_segments(connection: Connection, run_id: int) -> list[str]:
    """The segments of all processes that no part has."""
    spec = load_spec(connection, run_id)
    if spec is None:
        return []
    query = select(claims.c.segment_id).where(claims.c.shared_id == run_id)
    taken = set(connection.execute(query).scalars())
    return [segment_id for segment_id in spec.segments if segment_id not in taken]


def files_of(connection: Connection, run_id: int, part_id: int) -> dict[str, str | None]:
    """The part's segments, each with the name of its file if there is one."""
    return files_by_part(connection, run_id, part_id).get(part_id, {})


def files_by_part(
    connection: Connection, run_id: int, part_id: int | None = None
) -> dict[int, dict[str, str | None]]:
    """The segments of each part, or of one, each with the name of its file if there is one."""
    query = select(claims).where(claims.c.shared_id == run_id).order_by(claims.c.segment_id)
    if part_id is not None:
        query = query.where(claims.c.part_id == part_id)
    found: dict[int, dict[str, str | None]] = {}
    for one in connection.execute(query):
        row = checked(claims, one)
        found.setdefault(row["part_id"], {})[row["segment_id"]] = row["file"]
    return found


@attrs.frozen
class Recorded:
    """One segment of the shared run, as the journal has it.

    Attributes:
        settled: whether its part was worked through.
    """

    segment_id: str
    record: ExportRecord
    settled: bool


def whole(database: Database, run_id: int) -> Iterator[Recorded]:
    """Every segment of the shared run, those without a part last."""
    with database.reading() as connection:
        row = run_row(connection, run_id)
        rows = connection.execute(
            select(runs.c.ended_at, *parts.c)
            .join(parts, parts.c.run_id == runs.c.id)
            .where(parts.c.shared_id == run_id)
            .order_by(runs.c.id)
        ).all()
        missing = missing_segments(connection, run_id)
        former = former_directories(connection, row["destination"])
    with database.reading() as connection:
        files = files_by_part(connection, run_id)
    for part in rows:
        with database.errors():
            known = records(Log(database.reading, part.run_id))
            known = in_present_directory(known, row["destination"], former)
        settled = part.ended_at is not None or part.left_over
        for segment_id in files.get(part.run_id, ()):
            yield Recorded(segment_id, known.get(segment_id, ExportRecord()), settled)
    for segment_id in missing:
        yield Recorded(segment_id, ExportRecord(), row["ended_at"] is not None)
