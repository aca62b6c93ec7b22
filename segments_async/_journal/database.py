"""What is asked of a journal's database. Synchronous, for worker threads."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Self

import attrs
from sqlalchemy import Connection, Engine, Select, delete, func, insert, inspect, select, update
from sqlalchemy.exc import SQLAlchemyError

from segments_async._journal.backends import Backend, LetGo, backend, is_busy, journal_error
from segments_async._journal.locked import Locked
from segments_async._journal.tables import (
    SCHEMA,
    BrokenSeal,
    checked,
    events,
    guard,
    journal,
    metadata,
    moment,
    runs,
    sealed,
    stamp,
)
from segments_async._sansio.facts import Facts, UnreadableFacts, read_facts
from segments_async._sansio.lifecycle import Event, IllegalTransition, State
from segments_async._sansio.standing import Logged, Standing, standings
from segments_async.errors import ConfigurationError, JournalError
from segments_async.models import ExportedFile

#: Ids in one query: SQLite takes 999 parameters at the least.
_AT_ONCE = 500


@attrs.frozen
class RunSummary:
    """One run, as the journal knows it.

    Attributes:
        name: the run's.
        destination: where its files go; None where it wants only links.
        started_at: aware, UTC.
        ended_at: aware, UTC; None where it is unfinished.
        states: how many exports stand where. Of an unfinished run, those that are NEW are not
            counted: nothing is logged of them.
    """

    name: str
    destination: str | None
    started_at: datetime
    ended_at: datetime | None
    states: Mapping[State, int]


@attrs.frozen
class GuardRecord:
    """The ticket guard, as it was last told to the journal.

    Attributes:
        until: nothing is sent before (wall time; aware, UTC).
        pause: the next pause, in seconds.
        internal_errors: answers of 500 since the guard was armed.
    """

    until: datetime
    pause: float
    internal_errors: int


class Database:
    """A journal that has been looked at and found in order."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.location: str = backend.location

    @classmethod
    def open(cls, where: str | os.PathLike[str], account: str) -> Self:
        """The journal there, made if there is none.

        Raises:
            ConfigurationError: no journal can be there.
            JournalError: it is locked, damaged, newer, another account's...
        """
        found = backend(where)
        opened = cls(found)
        with opened.errors():
            found.prepare(lambda engine: _initialize(engine, found, account))
            with opened.reading() as connection:
                opened._check_header(connection, account)
        return opened

    @contextlib.contextmanager
    def errors(self) -> Generator[None]:
        """Foreign errors become this library's, in this one place."""
        try:
            yield
        except SQLAlchemyError as exc:
            if is_busy(exc):
                raise Locked("another process is writing without end") from exc
            raise journal_error(exc, self.location) from exc
        except (BrokenSeal, IllegalTransition, UnreadableFacts, _Malformed) as exc:
            raise self.error(f"{exc}") from exc
        except UnicodeDecodeError as exc:
            raise self.error("a text that is none") from exc

    def error(self, what: str) -> JournalError:
        return JournalError(
            f"{self.location}: damaged: {what}", reason="damaged", location=self.location
        )

    @contextlib.contextmanager
    def reading(self) -> Generator[Connection]:
        with self._backend.engine.connect().execution_options(**self._backend.reading) as found:
            yield found

    def _check_header(self, connection: Connection, account: str) -> None:
        rows = connection.execute(select(journal)).all()
        if len(rows) != 1:
            raise _Malformed(f"{len(rows)} headers")
        version = rows[0].version
        if isinstance(version, int) and version > SCHEMA:
            raise JournalError(
                f"{self.location}: written by a later version of segments-async (schema {version},"
                f" known is {SCHEMA}); nothing was changed",
                reason="newer",
                location=self.location,
            )
        if checked(journal, rows[0])["account"] != account:
            raise JournalError(
                f"{self.location}: the journal of another account (base URL or API key differ)",
                reason="foreign",
                location=self.location,
            )

    # ----------------------------------------------------------------- runs

    def open_run(self, destination: str | None, name: str | None, now_name: str) -> OpenedRun:
        """The run to go on with, or a new one; Locked where a live process has it."""
        connection = self._backend.engine.connect()
        let_go: LetGo | None = None
        try:
            with self.errors(), connection.begin():
                self._backend.exclusively(connection)
                row = _find_run(connection, destination, name)
                if row is None:
                    row = _new_run(connection, destination, name, now_name)
                self._check_destination(row, destination)
                if row["ended_at"] is None:
                    let_go = self._backend.hold(connection, row["id"])
                    if let_go is None:
                        raise Locked(f"run {row['name']} is held by a live process")
                logged = list(_logged(connection, row["id"]))
                known = standings(logged)
        except BaseException:
            if let_go is not None:
                let_go()
            connection.close()
            raise
        return OpenedRun(self, connection, let_go, row, known, len(logged))

    def _check_destination(self, row: Mapping[str, Any], destination: str | None) -> None:
        if row["destination"] != destination:
            raise ConfigurationError(
                f"run {row['name']} goes to {row['destination'] or 'no file'}, "
                f"not to {destination or 'no file'}"
            )

    def runs(self) -> list[RunSummary]:
        """Every run, the latest first."""
        with self.errors(), self.reading() as connection:
            rows = connection.execute(select(runs).order_by(runs.c.id.desc())).all()
            return [_summary(connection, checked(runs, row)) for row in rows]

    def prune(self, before: datetime) -> int:
        """Forget the runs to which nothing happened since; how many. A live process's run stays."""
        last = select(func.max(events.c.at)).where(events.c.run_id == runs.c.id).scalar_subquery()
        since = func.coalesce(runs.c.ended_at, last, runs.c.started_at)
        pruned = 0
        with self.errors(), self._backend.engine.begin() as connection:
            self._backend.exclusively(connection)
            old = select(runs.c.id, runs.c.ended_at).where(since < stamp(before))
            for run_id, ended_at in connection.execute(old).all():
                if ended_at is None and not self._is_abandoned(run_id):
                    continue
                connection.execute(delete(runs).where(runs.c.id == run_id))
                pruned += 1
        return pruned

    def _is_abandoned(self, run_id: int) -> bool:
        # While runs are opened exclusively here, nobody takes it after it was let go.
        with self.reading() as connection:
            let_go = self._backend.hold(connection, run_id)
            if let_go is not None:
                let_go()
            return let_go is not None

    # ----------------------------------------------------------------- across runs

    def durations(self, segment_ids: Sequence[str]) -> dict[str, float]:
        """Seconds that each segment's last COMPLETE export took at the vendor."""
        ended = self._last(segment_ids, (Event.COMPLETED,), None)
        return {
            segment_id: (export.end_time - export.start_time).total_seconds()
            for segment_id, facts in ended.items()
            if (export := facts.export) is not None and export.end_time is not None
        }

    def last_files(self, segment_ids: Sequence[str], destination: str) -> dict[str, ExportedFile]:
        """Each segment's last file in this destination, with the export that it came from."""
        fetched = self._last(segment_ids, (Event.FETCHED, Event.UNCHANGED), destination)
        return {segment_id: f.file for segment_id, f in fetched.items() if f.file is not None}

    def _last(
        self, segment_ids: Sequence[str], kinds: Sequence[Event], destination: str | None
    ) -> dict[str, Facts]:
        found: dict[str, Facts] = {}
        with self.errors(), self.reading() as connection:
            for start in range(0, len(segment_ids), _AT_ONCE):
                query = _last_of(segment_ids[start : start + _AT_ONCE], kinds, destination)
                for row in connection.execute(query):
                    segment_id, facts = row.segment_id, checked(events, row)["facts"]
                    found[segment_id] = read_facts(segment_id, json.loads(facts))
        return found

    def guard(self) -> GuardRecord | None:
        """What the guard was last told; None where it is closed."""
        with self.errors(), self.reading() as connection:
            found = connection.execute(select(guard)).one_or_none()
            if found is None:
                return None
            row = checked(guard, found)
            return GuardRecord(moment(row["until"]), float(row["pause"]), row["internal_errors"])

    def set_guard(self, record: GuardRecord | None) -> None:
        with self.errors(), self._backend.engine.begin() as connection:
            self._backend.exclusively(connection)
            connection.execute(delete(guard))
            if record is not None:
                values = {
                    "until": stamp(record.until),
                    "pause": repr(record.pause),
                    "internal_errors": record.internal_errors,
                }
                connection.execute(insert(guard).values(sealed(guard, values)))


class OpenedRun:
    """A run that this process holds (or a finished one), and its connection."""

    def __init__(
        self,
        database: Database,
        connection: Connection,
        let_go: LetGo | None,
        row: Mapping[str, Any],
        known: dict[str, Standing],
        number: int,
    ) -> None:
        self._database = database
        self._connection = connection
        self._let_go = let_go
        self._row = dict(row)
        self._number = self._durable = number
        # An asyncio task can be cancelled while its thread goes on: the next one waits here.
        self._alone = threading.Lock()
        self._closed = False
        self.known: dict[str, Standing] = known
        self.location: str = database.location

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
        with self._alone, self._database.errors():
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
        with self._alone, self._database.errors():
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


class _Malformed(Exception):
    """What stands in the tables is sealed, and still nothing that this library writes."""


def _initialize(engine: Engine, backend: Backend, account: str) -> None:
    with engine.begin() as connection:
        backend.exclusively(connection)
        if inspect(connection).has_table(journal.name):
            return
        metadata.create_all(connection)
        values = sealed(journal, {"version": SCHEMA, "account": account})
        connection.execute(insert(journal).values(values))


def _find_run(
    connection: Connection, destination: str | None, name: str | None
) -> Mapping[str, Any] | None:
    if name is None:
        unfinished = runs.c.ended_at.is_(None) & runs.c.named.is_(False)
        query = select(runs).where(unfinished, runs.c.destination.is_not_distinct_from(destination))
    else:
        query = select(runs).where(runs.c.name == name)
    row = connection.execute(query.order_by(runs.c.id.desc())).first()
    return None if row is None else checked(runs, row)


def _new_run(
    connection: Connection, destination: str | None, name: str | None, now_name: str
) -> Mapping[str, Any]:
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


def _logged(connection: Connection, run_id: int) -> Iterator[Logged]:
    """The run's events, in order, none missing."""
    query = select(events).where(events.c.run_id == run_id).order_by(events.c.number)
    for number, found in enumerate(connection.execute(query), 1):
        row = checked(events, found)
        if row["number"] != number:
            raise _Malformed(f"event {number} of run {run_id} is missing")
        try:
            event, at, facts = Event(row["event"]), moment(row["at"]), json.loads(row["facts"])
        except ValueError as exc:
            raise _Malformed(f"event {number} of run {run_id}: {exc}") from exc
        yield Logged(row["segment_id"], event, at, facts)


def _summary(connection: Connection, row: Mapping[str, Any]) -> RunSummary:
    if row["states"] is None:
        known: Iterable[Standing] = standings(_logged(connection, row["id"])).values()
        states: Mapping[State, int] = Counter(standing.state for standing in known)
    else:
        states = {State(name): count for name, count in json.loads(row["states"]).items()}
    ended = row["ended_at"]
    return RunSummary(
        row["name"],
        row["destination"],
        moment(row["started_at"]),
        moment(ended) if ended else None,
        states,
    )


def _last_of(
    segment_ids: Sequence[str], kinds: Sequence[Event], destination: str | None
) -> Select[Any]:
    """Each segment's last event of these kinds, in any run or in those to one destination."""
    latest = (
        select(func.max(events.c.id))
        .where(events.c.segment_id.in_(segment_ids), events.c.event.in_([k.value for k in kinds]))
        .group_by(events.c.segment_id)
    )
    if destination is not None:
        latest = latest.join(runs).where(runs.c.destination == destination)
    return select(events).where(events.c.id.in_(latest))
