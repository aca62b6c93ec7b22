"""Deleting old runs, in small transactions beside processes that write. For worker threads.

A run that is being deleted gets a name that no caller can give (`PRUNED`). So no session goes on
with the run, no list shows it, and its missing events are not taken for damage. The next prune
deletes the rest of a run whose pruning process died.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, func, select

from segments_async._journal.at_work import parts_by_run
from segments_async._journal.database import Database
from segments_async._journal.high_water import remove_mark
from segments_async._journal.specs import remove_spec_file
from segments_async._journal.tables import PRUNED, checked, events, format_time, runs, update_row

#: Events deleted in one transaction: some 20 ms during which SQLite's other writers wait.
_EVENTS_AT_ONCE = 2000


def old_runs(database: Database, before: datetime) -> list[int]:
    """The ids of the runs to which nothing has happened since `before`."""
    last = (
        select(events.c.at)
        .where(events.c.run_id == runs.c.id)
        .order_by(events.c.number.desc())
        .limit(1)
        .scalar_subquery()
    )
    since = func.coalesce(runs.c.ended_at, last, runs.c.started_at)
    old = (since < format_time(before)) & ~runs.c.name.startswith(PRUNED)
    with database.reading() as connection:
        ids = list(connection.execute(select(runs.c.id).where(old).order_by(runs.c.id)).scalars())
        of_shared = parts_by_run(connection)
    part_ids, found = {part for some in of_shared.values() for part in some}, set(ids)
    # A shared run is as old as its youngest part.
    return [i for i in ids if i not in part_ids and found.issuperset(of_shared.get(i, ()))]


def hide(database: Database, run_id: int) -> bool:
    """Hide the run, and the parts of a shared one, from every later session.

    False: a live process has the run, or it is gone.
    """
    with database.writing() as connection:
        ids = [run_id, *parts_by_run(connection).get(run_id, ())]
        found = connection.execute(select(runs).where(runs.c.id.in_(ids))).all()
        rows = [checked(runs, row) for row in found]
        if run_id not in [row["id"] for row in rows]:
            return False
        # While other processes are excluded, none takes a run that is free now.
        unended = [row["id"] for row in rows if row["ended_at"] is None]
        if database.backend.locked(connection, unended):
            return False
        for row in rows:
            name = f"{PRUNED}{row['id']}"
            update_row(connection, runs, {**row, "name": name, "named": True, "destination": None})
        journal = database.backend.identity(connection)
    for row in rows:
        remove_mark(row["destination"], journal, row["name"], row["started_at"])
        remove_spec_file(row["destination"], row["name"])
    return True


def hidden_runs(database: Database) -> list[int]:
    """The ids of the hidden runs, also of those that another process has hidden."""
    with database.reading() as connection:
        query = select(runs.c.id).where(runs.c.name.startswith(PRUNED))
        return list(connection.execute(query).scalars())


def delete_some(database: Database, run_id: int) -> bool:
    """Delete some events of the run, and with the last ones the run. Whether any are left."""
    with database.errors(), database.backend.engine.begin() as connection:
        some = select(events.c.id).where(events.c.run_id == run_id).limit(_EVENTS_AT_ONCE)
        deleted = connection.execute(delete(events).where(events.c.id.in_(some))).rowcount
        if deleted < _EVENTS_AT_ONCE:
            connection.execute(delete(runs).where(runs.c.id == run_id))
    with database.errors():
        database.backend.shrink()
    return deleted == _EVENTS_AT_ONCE
