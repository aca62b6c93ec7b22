"""The marks that a shared run's parts leave in the directory of its files. For worker threads.

A mark has the count of a part's events, by which an older copy of the journal is recognised; see
`high_water.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from sqlalchemy import Connection, select

from segments_async._journal.database import Database
from segments_async._journal.high_water import HighWaterFile, is_local, marks, remove_mark
from segments_async._journal.opening import is_part_of, marked_run
from segments_async._journal.tables import PART, parse_time, parts, runs


def check_parts_seen(
    database: Database, connection: Connection, journal: str, row: Mapping[str, Any]
) -> None:
    """Refuse a journal that lacks a part whose mark is in the directory."""
    for seen in marks(row["destination"], journal):
        later = parse_time(seen.started_at) >= parse_time(row["started_at"])
        if later and is_part_of(seen.run, row["name"]):
            marked_run(database, connection, seen)


def tidy(database: Database, destination: str | None) -> None:
    """Replace the marks of an ended shared run's parts in this directory by one of the run itself.

    Otherwise a directory would have a hundred more after each night. And a part that went on in the
    same directory of another machine has left a mark here that says it is unfinished for ever.
    """
    if not is_local(destination):
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
