"""Reading the log of a run. For worker threads."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

from sqlalchemy import Connection, Executable, Row, Select, func, select

from segments_async._journal.tables import (
    Malformed,
    check_event,
    events,
)
from segments_async._sansio.jobs.lifecycle import Event, State, advance
from segments_async._sansio.jobs.replay import StoredEntry

#: Events read in one transaction: SQLite's writers wait for the end of a reading transaction.
_PAGE = 5000
#: The same, where only three columns are read.
_SHORT_PAGE = 20_000

Reading = Callable[[], AbstractContextManager[Connection]]


class Log:
    """The events of a run, in order; a missing event is an error.

    Attributes:
        number: of the last event that was read.
        last_checksum: of that event.
    """

    def __init__(self, reading: Reading, run_id: int) -> None:
        self._reading = reading
        self._run_id = run_id
        self.number: int = 0
        self.last_checksum: str | None = None

    def __iter__(self) -> Iterator[StoredEntry]:
        """Read every event, once.

        Raises:
            ChecksumError, Malformed: an event was changed, or is missing.
        """
        last_id, unfound = 0, False
        while True:
            with self._reading() as connection:
                page = connection.execute(_page(self._run_id, self.number)).all()
                last_id = page[-1][0] if page else last_id
                later = len(page) == _PAGE or self.count_after(connection, last_id)
            for row in page:
                yield self._read(row)
            if not later:
                return
            if unfound and not page:
                raise Malformed(f"the index lacks the last {later} events of run {self._run_id}")
            # Another process may have written the first of them after the page was read.
            unfound = not page

    def later(self) -> Iterator[StoredEntry]:
        """Read the events that were appended since the last one that was read, if there are any.

        Raises:
            ChecksumError, Malformed: an event was changed, or is missing in between.
        """
        page: Sequence[Row[Any]] = ()
        while not page or len(page) == _PAGE:
            with self._reading() as connection:
                page = connection.execute(_page(self._run_id, self.number)).all()
            if not page:
                return
            for row in page:
                yield self._read(row)

    def _read(self, row: Row[Any]) -> StoredEntry:
        _, run_id, number, segment_id, event, at, facts, checksum = tuple(row)
        check_event(run_id, number, segment_id, event, at, facts, checksum)
        if number != self.number + 1:
            raise Malformed(f"event {self.number + 1} of run {self._run_id} is missing")
        self.number, self.last_checksum = number, checksum
        known = _EVENTS.get(event)
        if known is None:
            raise Malformed(f"event {number} of run {self._run_id}: unknown event {event!r:.40}")
        return segment_id, known, at, facts

    def count_after(self, connection: Connection, last_id: int) -> int:
        """How many events the table has after the last one of its index.

        An index that lost its end would yield a shorter log without an error. Events that another
        process has just written are found by the index with the next page.
        """
        # "+ 0" keeps the database from using the index for this query.
        of_run = events.c.run_id + 0 == self._run_id
        query = select(func.count()).select_from(events).where(events.c.id > last_id, of_run)
        return int(connection.execute(query).scalar_one())


_EVENTS = {event.value: event for event in Event}


def _page(run_id: int, after: int) -> Select[Any]:
    query = select(*events.c).where(events.c.run_id == run_id, events.c.number > after)
    return query.order_by(events.c.number).limit(_PAGE)


def counted_states(reading: Reading, run_id: int) -> Mapping[State, int]:
    """The number of a run's exports in each state, by its events alone, without their payloads.

    Raises:
        IllegalTransition, Malformed: no run can have these events.
    """
    states: dict[str, State] = {}
    moves: dict[State, dict[str, State]] = {state: {} for state in State}
    number = 0
    while True:
        with reading() as connection:
            columns = events.c.number, events.c.segment_id, events.c.event
            query = select(*columns).where(events.c.run_id == run_id, events.c.number > number)
            page = _tuples(connection, query.order_by(events.c.number).limit(_SHORT_PAGE))
        for found, segment_id, event in page:
            number += 1
            if found != number:
                raise Malformed(f"event {number} of run {run_id} is missing")
            before = states.get(segment_id, State.NEW)
            after = moves[before].get(event)
            if after is None:
                if event not in _EVENTS:
                    raise Malformed(f"event {number} of run {run_id}: unknown event {event!r:.40}")
                after = moves[before][event] = advance(before, _EVENTS[event])
            states[segment_id] = after
        if len(page) < _SHORT_PAGE:
            return Counter(states.values())


def _tuples(connection: Connection, query: Executable) -> Sequence[Sequence[Any]]:
    """The rows as the driver makes them. For a million rows, SQLAlchemy's take twice as long."""
    with connection.execute(query) as result:
        cursor: Any = result.cursor
        found: Sequence[Sequence[Any]] = cursor.fetchall()
        return found
