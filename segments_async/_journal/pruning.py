"""Deleting old runs, in small transactions beside processes that write. For worker threads.

A run that is being deleted gets a name that no caller can give (`PRUNED`). So no session goes on
with the run, no list shows it, and its missing events are not taken for damage. The next prune
deletes the rest of a run whose pruning process died.
"""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import delete, func, select, update

from segments_async._journal.database import Database
from segments_async._journal.high_water import remove_mark
from segments_async._journal.specs import remove_spec_file
from segments_async._journal.tables import (
    PRUNED,
    checked,
    events,
    format_time,
    runs,
    with_checksum,
)

#: Events deleted in one transaction: some 20 ms during which SQLite's other writers wait.
_EVENTS_AT_ONCE = 2000


def old_runs(database: Database, before: datetime) -> list[int]:
    """The ids of the runs to which nothing has happened since."""
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
        return list(connection.execute(select(runs.c.id).where(old).order_by(runs.c.id)).scalars())


def hide(database: Database, run_id: int) -> bool:
    """Hide the run from every later session. False: a live process has the run, or it is gone."""
    with database.writing() as connection:
        found = connection.execute(select(runs).where(runs.c.id == run_id)).one_or_none()
        if found is None:
            return False
        row = checked(runs, found)
        # While other processes are excluded, none takes a run that is free now.
        if row["ended_at"] is None and database.backend.is_locked(connection, run_id):
            return False
        hidden = {**row, "name": f"{PRUNED}{run_id}", "named": True, "destination": None}
        hidden = with_checksum(runs, hidden)
        connection.execute(update(runs).where(runs.c.id == run_id).values(hidden))
        journal = database.backend.identity(connection)
    if row["destination"] is not None:
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
