"""One run in the database: finding it, reading its log, and appending to it. For worker threads."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, func, insert, select, update

from segments_async._journal.backends import LetGo
from segments_async._journal.faults import mapped_errors
from segments_async._journal.tables import (
    Malformed,
    checked,
    events,
    moment,
    runs,
    sealed,
    stamp,
)
from segments_async._sansio.lifecycle import Event, State
from segments_async._sansio.standing import Logged, Standing


class OpenedRun:
    """A run that this process holds (or a finished one), and its connection."""

    def __init__(
        self,
        location: str,
        connection: Connection,
        let_go: LetGo | None,
        row: Mapping[str, Any],
        known: dict[str, Standing],
        number: int,
    ) -> None:
        self._connection = connection
        self._let_go = let_go
        self._row = dict(row)
        self._number = self._durable = number
        # An asyncio task can be cancelled while its thread goes on: the next one waits here.
        self._alone = threading.Lock()
        self._closed = False
        self.known: dict[str, Standing] = known
        self.location: str = location

    @property
    def name(self) -> str:
        return str(self._row["name"])

    @property
    def started_at(self) -> datetime:
        return moment(self._row["started_at"])

    @property
    def ended_at(self) -> datetime | None:
        return moment(ended) if (ended := self._row["ended_at"]) else None

    def row(self, logged: Logged, facts: str) -> dict[str, Any]:
        """The event's row, at the next place in the run's log."""
        self._number += 1
        return sealed(
            events,
            {
                "run_id": self._row["id"],
                "number": self._number,
                "segment_id": logged.segment_id,
                "event": logged.event.value,
                "at": stamp(logged.at),
                "facts": facts,
            },
        )

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Make the rows durable, all or none. Locked where none is, for now.

        Rows that were given before, by a task that didn't live to see them written, are no harm.
        """
        with self._alone, mapped_errors(self.location):
            rows = [row for row in rows if row["number"] > self._durable]
            if not rows:
                return
            with self._connection.begin():
                self._connection.execute(insert(events), rows)
            self._durable = rows[-1]["number"]

    def finish(self, at: datetime, states: Mapping[State, int]) -> None:
        """Nothing more will happen in this run."""
        row = {name: value for name, value in self._row.items() if name != "seal"}
        counts = {state.value: count for state, count in states.items() if count}
        row = sealed(runs, {**row, "ended_at": stamp(at), "states": json.dumps(counts)})
        with self._alone, mapped_errors(self.location):
            with self._connection.begin():
                self._connection.execute(update(runs).where(runs.c.id == row["id"]).values(row))
            self._row = row

    def close(self) -> None:
        """Let go of the run; again is no harm."""
        with self._alone:
            if self._closed:
                return
            self._closed = True
            try:
                self._connection.close()
            finally:
                if self._let_go is not None:
                    self._let_go()


def find_run(
    connection: Connection, destination: str | None, name: str | None
) -> Mapping[str, Any] | None:
    """The run of that name, or the unfinished one without a name of the caller's; None: none."""
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
    """Make a run. Nobody else opens one meanwhile."""
    last = connection.execute(select(func.max(runs.c.id))).scalar() or 0
    values = {
        "id": last + 1,
        "name": _unique(connection, now_name) if name is None else name,
        "named": name is not None,
        "destination": destination,
        "started_at": stamp(datetime.now().astimezone()),
        "ended_at": None,
        "states": None,
    }
    row = sealed(runs, values)
    connection.execute(insert(runs).values(row))
    return row


def _unique(connection: Connection, name: str) -> str:
    taken = set(
        connection.execute(select(runs.c.name).where(runs.c.name.startswith(name))).scalars()
    )
    number, candidate = 1, name
    while candidate in taken:
        number += 1
        candidate = f"{name}-{number}"
    return candidate


def logged_events(connection: Connection, run_id: int) -> Iterator[Logged]:
    """The run's events, in order, none missing."""
    query = select(events).where(events.c.run_id == run_id).order_by(events.c.number)
    with connection.execute(query.execution_options(yield_per=1000)) as rows:
        for number, row in enumerate(rows, 1):
            yield _read(number, checked(events, row))


def _read(number: int, row: Mapping[str, Any]) -> Logged:
    if row["number"] != number:
        raise Malformed(f"event {number} of run {row['run_id']} is missing")
    try:
        event, at, facts = Event(row["event"]), moment(row["at"]), json.loads(row["facts"])
    except ValueError as exc:
        raise Malformed(f"event {number} of run {row['run_id']}: {exc}") from exc
    return Logged(row["segment_id"], event, at, facts)


def last_number(connection: Connection, run_id: int) -> int:
    """How many events the run's log has."""
    query = select(func.max(events.c.number)).where(events.c.run_id == run_id)
    return connection.execute(query).scalar() or 0
