"""What is asked of a journal's database. Synchronous, for worker threads."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Self

from sqlalchemy import Connection, Engine, Select, delete, func, insert, inspect, select

from segments_async._journal.backends import Backend, LetGo, backend
from segments_async._journal.faults import mapped_errors
from segments_async._journal.limit import exchange
from segments_async._journal.locked import Locked
from segments_async._journal.opened_run import (
    OpenedRun,
    find_run,
    last_number,
    logged_events,
    new_run,
)
from segments_async._journal.records import GuardRecord, RunSummary
from segments_async._journal.tables import (
    FROM_THE_BEGINNING,
    SCHEMA,
    SHARED,
    Malformed,
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
from segments_async._sansio.exports import seconds_taken
from segments_async._sansio.facts import Facts, read_facts
from segments_async._sansio.lifecycle import Event, State
from segments_async._sansio.sharing import Common, Told
from segments_async._sansio.standing import Standing, standings
from segments_async.errors import ConfigurationError, JournalError
from segments_async.models import ExportedFile

#: Ids in one query: SQLite takes 999 parameters at the least.
_AT_ONCE = 500


class Database:
    """A journal that has been looked at and found in order."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        #: Whether it is known to have the tables for what processes share.
        self._shares = False
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
        with mapped_errors(found.location):
            found.prepare(lambda engine: _initialize(engine, found, account))
            with opened.reading() as connection:
                opened._check_header(connection, account)
        return opened

    @contextlib.contextmanager
    def reading(self) -> Generator[Connection]:
        with self._backend.engine.connect().execution_options(**self._backend.reading) as found:
            yield found

    def _check_header(self, connection: Connection, account: str) -> None:
        rows = connection.execute(select(journal)).all()
        if len(rows) != 1:
            raise Malformed(f"{len(rows)} headers")
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
            with mapped_errors(self.location):
                with connection.begin():
                    self._backend.exclusively(connection)
                    row = find_run(connection, destination, name)
                    if row is None:
                        row = new_run(connection, destination, name, now_name)
                    self._check_destination(row, destination)
                    if row["ended_at"] is None:
                        let_go = self._hold(connection, row)
                # It is held: nobody adds to its log, which may be long, while it is read.
                with self.reading() as reader:
                    known = standings(logged_events(reader, row["id"]))
                    number = last_number(reader, row["id"])
        except BaseException:
            if let_go is not None:
                let_go()
            connection.close()
            raise
        return OpenedRun(self.location, connection, let_go, row, known, number)

    def _hold(self, connection: Connection, row: Mapping[str, Any]) -> LetGo:
        let_go = self._backend.hold(connection, row["id"])
        if let_go is None:
            raise Locked(f"run {row['name']} is held by a live process")
        return let_go

    def _check_destination(self, row: Mapping[str, Any], destination: str | None) -> None:
        if row["destination"] != destination:
            raise ConfigurationError(
                f"run {row['name']} goes to {row['destination'] or 'no file'}, "
                f"not to {destination or 'no file'}"
            )

    def runs(self) -> list[RunSummary]:
        """Every run, the latest first."""
        with mapped_errors(self.location), self.reading() as connection:
            rows = connection.execute(select(runs).order_by(runs.c.id.desc())).all()
            return [_summary(connection, checked(runs, row)) for row in rows]

    def prune(self, before: datetime) -> int:
        """Forget the runs to which nothing happened since; how many. A live process's run stays."""
        last = select(func.max(events.c.at)).where(events.c.run_id == runs.c.id).scalar_subquery()
        since = func.coalesce(runs.c.ended_at, last, runs.c.started_at)
        pruned = 0
        with mapped_errors(self.location), self._backend.engine.begin() as connection:
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
            segment_id: seconds
            for segment_id, facts in ended.items()
            if (export := facts.export) is not None
            and (seconds := seconds_taken(export)) is not None
        }

    def last_files(self, segment_ids: Sequence[str], destination: str) -> dict[str, ExportedFile]:
        """Each segment's last file in this destination, with the export that it came from."""
        fetched = self._last(segment_ids, (Event.FETCHED, Event.UNCHANGED), destination)
        return {segment_id: f.file for segment_id, f in fetched.items() if f.file is not None}

    def _last(
        self, segment_ids: Sequence[str], kinds: Sequence[Event], destination: str | None
    ) -> dict[str, Facts]:
        found: dict[str, Facts] = {}
        with mapped_errors(self.location), self.reading() as connection:
            for start in range(0, len(segment_ids), _AT_ONCE):
                query = _last_of(segment_ids[start : start + _AT_ONCE], kinds, destination)
                for row in connection.execute(query):
                    segment_id, facts = row.segment_id, checked(events, row)["facts"]
                    found[segment_id] = read_facts(segment_id, json.loads(facts))
        return found

    def guard(self) -> GuardRecord | None:
        """What the guard was last told; None where it is closed."""
        with mapped_errors(self.location), self.reading() as connection:
            found = connection.execute(select(guard)).one_or_none()
            if found is None:
                return None
            row = checked(guard, found)
            return GuardRecord(moment(row["until"]), float(row["pause"]), row["internal_errors"])

    def set_guard(self, record: GuardRecord | None) -> None:
        with mapped_errors(self.location), self._backend.engine.begin() as connection:
            self._backend.exclusively(connection)
            connection.execute(delete(guard))
            if record is not None:
                values = {
                    "until": stamp(record.until),
                    "pause": repr(record.pause),
                    "internal_errors": record.internal_errors,
                }
                connection.execute(insert(guard).values(sealed(guard, values)))

    def exchange(self, member: str, tell: Callable[[Common], Told]) -> Told:
        """Tell the other processes of the account how fast the vendor lets this one go."""
        with mapped_errors(self.location), self._backend.engine.begin() as connection:
            self._backend.exclusively(connection)
            if not self._shares:
                # Not made with the journal: a newer one, or another account's, stays as it is.
                metadata.create_all(connection, SHARED)
            told = exchange(connection, self._backend.now(connection), member, tell)
        self._shares = True
        return told


def _initialize(engine: Engine, backend: Backend, account: str) -> None:
    with engine.begin() as connection:
        backend.exclusively(connection)
        if inspect(connection).has_table(journal.name):
            return
        metadata.create_all(connection, FROM_THE_BEGINNING)
        values = sealed(journal, {"version": SCHEMA, "account": account})
        connection.execute(insert(journal).values(values))


def _summary(connection: Connection, row: Mapping[str, Any]) -> RunSummary:
    if row["states"] is None:
        known: Iterable[Standing] = standings(logged_events(connection, row["id"])).values()
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
