"""Every segment of a shared run, as the journal has it. For worker threads."""

from __future__ import annotations

from collections.abc import Iterator

import attrs
from sqlalchemy import select

from segments_async._journal.database import Database
from segments_async._journal.log import Log
from segments_async._journal.moves import former_directories, in_present_directory
from segments_async._journal.shared_rows import files_by_part, missing_segments, run_row
from segments_async._journal.tables import parts, runs
from segments_async._sansio.jobs.record import ExportRecord
from segments_async._sansio.jobs.replay import records


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
