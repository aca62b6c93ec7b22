"""What is asked of a journal's database. Synchronous, for worker threads."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NoReturn, Self

from sqlalchemy import Connection, Engine, Select, delete, func, insert, inspect, select, update

from segments_async._journal.backends import Backend, RunLock, backend
from segments_async._journal.errors import mapped_errors
from segments_async._journal.high_water import HighWaterFile, HighWaterMark, marks, remove_mark
from segments_async._journal.limit import exchange
from segments_async._journal.locked import Locked
from segments_async._journal.opened_run import OpenedRun
from segments_async._journal.records import GuardRecord, RunSpec, RunStatus, counts
from segments_async._journal.run_rows import PRUNED, Log, counted_states, find_run, new_run
from segments_async._journal.set_aside import SetAside
from segments_async._journal.specs import (
    load_spec,
    load_spec_file,
    remove_spec_file,
    spec_sizes,
    store_spec,
)
from segments_async._journal.tables import (
    LASTING_ONLY,
    SCHEMA,
    Malformed,
    checked,
    events,
    format_time,
    guard,
    journal,
    metadata,
    parse_time,
    runs,
    with_checksum,
)
from segments_async._sansio.jobs.exports import seconds_taken
from segments_async._sansio.jobs.lifecycle import Event, State
from segments_async._sansio.jobs.payload import Payload, read_payload
from segments_async._sansio.jobs.record import records
from segments_async._sansio.pace.shared_limit import GroupView, Report
from segments_async.errors import ConfigurationError, JournalError
from segments_async.models import Segment
from segments_async.results import ExportedFile

#: Ids in one query: SQLite takes 999 parameters at the least.
_AT_ONCE = 500

#: Events deleted in one transaction of a prune: some 20 ms for SQLite's other writers.
_PRUNED_AT_ONCE = 2000


class Database:
    """A journal that has been looked at and found in order."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        #: Whether the journal is known to have every table of this version.
        self._complete = False
        self.location: str = backend.location

    @classmethod
    def open(cls, where: str | os.PathLike[str], account: str, *, create: bool = True) -> Self:
        """The journal there; where there is none, a new one.

        Args:
            where: a path or URL.
            account: the account's digest.
            create: False raises JournalError (``missing``) in place of creating a journal.

        Raises:
            ConfigurationError: no journal can be there.
            JournalError: it is locked, damaged, newer, another account's...
        """
        found = backend(where)
        opened = cls(found)
        with opened.errors():
            new = partial(_initialize, found, account)
            found.prepare(new if create else None)
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

    def errors(self) -> contextlib.AbstractContextManager[None]:
        """Maps the errors of the database."""
        return mapped_errors(self.location, self._backend.secrets)

    # ----------------------------------------------------------------- runs

    def open_run(
        self,
        destination: str | None,
        name: str | None,
        now_name: str,
        spec: RunSpec | None = None,
    ) -> OpenedRun:
        """The run to go on with, or a new one; Locked where a live process has it."""
        with self.errors(), contextlib.ExitStack() as undo:
            connection = self._backend.engine.connect()
            undo.callback(connection.close)
            lock: RunLock | None = None
            with connection.begin():
                self._backend.exclude_others(connection)
                self._add_missing_tables(connection)
                journal = self._backend.identity(connection)
                row = find_run(connection, destination, name)
                if row is None:
                    self._check_missing(connection, journal, destination, name)
                    row = new_run(connection, destination, name, now_name)
                self._check_destination(row, destination)
                if row["ended_at"] is None:
                    lock = self._lock(connection, row)
                    undo.callback(lock.release)
                    if spec is not None:
                        store_spec(connection, row["id"], spec)
            self._complete = True
            if spec is not None:
                remove_spec_file(destination, row["name"])
            if lock is not None:
                lock.confirm(connection)
                if lock.unclean:
                    with self.reading() as reader:
                        self._backend.check_integrity(reader)
            # It is held: nobody adds to its log while it is read.
            log = Log(self.reading, row["id"])
            known = records(log)
            self._check_seen(journal, row, log.number)
            set_aside = SetAside.of(journal, row)
            if lock is not None and self._take_back(connection, set_aside, log, row["id"]):
                log = Log(self.reading, row["id"])
                known = records(log)
            undo.pop_all()
        return OpenedRun(
            self._backend,
            connection,
            lock,
            row,
            known,
            number=log.number,
            last_checksum=log.last_checksum,
            high_water=_high_water(journal, row),
            set_aside=set_aside,
        )

    def _take_back(
        self, connection: Connection, set_aside: SetAside | None, log: Log, run_id: int
    ) -> bool:
        """Write the events that the last session could not. Whether there were any."""
        if set_aside is None:
            return False
        rows = set_aside.load(run_id, log.number, log.last_checksum)
        if not rows:
            return False
        with connection.begin():
            connection.execute(insert(events), rows)
        set_aside.remove()
        return True

    def _lock(self, connection: Connection, row: Mapping[str, Any]) -> RunLock:
        lock = self._backend.try_lock(connection, row["id"])
        if lock is None:
            process = self._backend.holder(row["id"])
            which = "" if process is None else f" (process {process})"
            raise Locked(f"run {row['name']} is held by a live process{which}")
        return lock

    def _check_destination(self, row: Mapping[str, Any], destination: str | None) -> None:
        if row["destination"] != destination:
            raise ConfigurationError(
                f"run {row['name']} goes to {row['destination'] or 'no file'}, "
                f"not to {destination or 'no file'}"
            )

    def _check_missing(
        self, connection: Connection, journal: str, destination: str | None, name: str | None
    ) -> None:
        """Refuse to start a run where one is missing that would have been gone on with."""
        if destination is None:
            return
        for seen in marks(destination, journal):
            if seen.finished and seen.run != name:
                continue
            query = select(runs.c.started_at).where(runs.c.name == seen.run)
            if connection.execute(query).scalar() != seen.started_at:
                self._refuse_older(seen, f"{seen.events} events of it were", "knows nothing of it")

    def _check_seen(self, journal: str, row: Mapping[str, Any], number: int) -> None:
        """Refuse a log that ends before events which are known to have been durable."""
        if row["destination"] is None:
            return
        for seen in marks(row["destination"], journal):
            if (seen.run, seen.started_at) != (row["name"], row["started_at"]):
                continue
            if seen.events > number:
                self._refuse_older(seen, f"{seen.events} events of it were", f"has {number}")
            elif seen.finished and row["ended_at"] is None:
                self._refuse_older(seen, "its end was", "takes it for unfinished")

    def _refuse_older(self, seen: HighWaterMark, was: str, now: str) -> NoReturn:
        raise JournalError(
            f"{self.location}: damaged: the journal lost commits of run {seen.run}: {was} durable, "
            f"and the journal {now}. It is an older copy: a backup that was put back, or a "
            "database that failed over without its last commits. Nothing was sent, since exports "
            f"would be asked for twice. Put the newest copy back; or remove {str(seen.path)!r} to "
            "go on with this one all the same",
            reason="damaged",
            location=self.location,
        )

    def runs(self) -> list[RunStatus]:
        """Every run, the latest first."""
        with self.errors():
            with self.reading() as connection:
                query = select(runs).where(~runs.c.name.startswith(PRUNED))
                rows = connection.execute(query.order_by(runs.c.id.desc())).all()
                sizes = spec_sizes(connection)
            return [self._status(checked(runs, row), sizes) for row in rows]

    def _status(self, row: Mapping[str, Any], sizes: Mapping[int, int]) -> RunStatus:
        live, size, ended = False, sizes.get(row["id"]), row["ended_at"]
        if row["states"] is None:
            states = counted_states(self.reading, row["id"])
        else:
            states = {State(name): count for name, count in json.loads(row["states"]).items()}
        if ended is None:
            with self.reading() as connection:
                live = self._backend.is_locked(connection, row["id"])
            if size is None and (spec := load_spec_file(row["destination"], row["name"])):
                size = len(spec.segments)
        return RunStatus(
            name=row["name"],
            destination=row["destination"],
            started_at=parse_time(row["started_at"]),
            ended_at=parse_time(ended) if ended else None,
            live=live,
            **counts(states, ended=bool(ended), specified=size),
        )

    def spec(self, name: str) -> RunSpec | None:
        """What the last session of an unfinished run was started with; None where unknown."""
        with self.errors(), self.reading() as connection:
            row = find_run(connection, None, name)
            if row is None:
                return None
            found = load_spec(connection, row["id"])
            return found or load_spec_file(row["destination"], name)

    def segments(self, name: str) -> dict[str, Segment | None]:
        """The segments of a run, by id: those with events, and those of its spec.

        The value is the segment as an export of the run described it; None without an export.
        """
        spec = self.spec(name)
        segments: dict[str, Segment | None] = dict.fromkeys(() if spec is None else spec.segments)
        with self.errors():
            with self.reading() as connection:
                row = find_run(connection, None, name)
            for segment_id, record in records(Log(self.reading, row["id"])).items() if row else ():
                export = record.export or (record.file and record.file.export)
                segments[segment_id] = export.segment if export else None
        return segments

    # ----------------------------------------------------------------- forgetting runs

    def old_runs(self, before: datetime) -> list[int]:
        """The runs to which nothing happened since, by id."""
        last = (
            select(events.c.at)
            .where(events.c.run_id == runs.c.id)
            .order_by(events.c.number.desc())
            .limit(1)
            .scalar_subquery()
        )
        since = func.coalesce(runs.c.ended_at, last, runs.c.started_at)
        old = (since < format_time(before)) & ~runs.c.name.startswith(PRUNED)
        with self.errors(), self.reading() as connection:
            query = select(runs.c.id).where(old).order_by(runs.c.id)
            return list(connection.execute(query).scalars())

    def begin_pruning(self, run_id: int) -> bool:
        """Take the run out of every later session's sight. False: a live process has it."""
        with self.errors(), self._backend.engine.begin() as connection:
            self._backend.exclude_others(connection)
            found = connection.execute(select(runs).where(runs.c.id == run_id)).one_or_none()
            if found is None:
                return False
            row = checked(runs, found)
            # While others are excluded, no process takes a run that is free now.
            if row["ended_at"] is None and self._backend.is_locked(connection, run_id):
                return False
            # By the name alone: one that is half forgotten is gone on with by nobody, told to
            # nobody, and not taken for damage.
            hidden = {**row, "name": f"{PRUNED}{run_id}", "named": True, "destination": None}
            hidden = with_checksum(runs, {name: v for name, v in hidden.items() if name != "seal"})
            connection.execute(update(runs).where(runs.c.id == run_id).values(hidden))
            journal = self._backend.identity(connection)
        if row["destination"] is not None:
            remove_mark(row["destination"], journal, row["name"], row["started_at"])
            remove_spec_file(row["destination"], row["name"])
        return True

    def pruning(self) -> list[int]:
        """The runs whose pruning has begun, by id: also by a process that died over it."""
        with self.errors(), self.reading() as connection:
            query = select(runs.c.id).where(runs.c.name.startswith(PRUNED))
            return list(connection.execute(query).scalars())

    def prune_some(self, run_id: int) -> bool:
        """Delete some of the run's events; with the last of them, the run. Whether any are left."""
        with self.errors(), self._backend.engine.begin() as connection:
            of_run = select(events.c.id).where(events.c.run_id == run_id).limit(_PRUNED_AT_ONCE)
            deleted = connection.execute(delete(events).where(events.c.id.in_(of_run))).rowcount
            if deleted < _PRUNED_AT_ONCE:
                connection.execute(delete(runs).where(runs.c.id == run_id))
        with self.errors():
            self._backend.shrink()
        return deleted == _PRUNED_AT_ONCE

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
    ) -> dict[str, Payload]:
        found: dict[str, Payload] = {}
        with self.errors(), self.reading() as connection:
            for start in range(0, len(segment_ids), _AT_ONCE):
                query = _last_of(segment_ids[start : start + _AT_ONCE], kinds, destination)
                for row in connection.execute(query):
                    segment_id, facts = row.segment_id, checked(events, row)["facts"]
                    found[segment_id] = read_payload(segment_id, json.loads(facts))
        return found

    def guard(self) -> GuardRecord | None:
        """What the guard was last told; None where it is closed."""
        with self.errors(), self.reading() as connection:
            found = connection.execute(select(guard)).one_or_none()
            if found is None:
                return None
            row = checked(guard, found)
            return GuardRecord(
                parse_time(row["until"]), float(row["pause"]), row["internal_errors"]
            )

    def set_guard(self, record: GuardRecord | None) -> None:
        with self.errors(), self._backend.engine.begin() as connection:
            self._backend.exclude_others(connection)
            connection.execute(delete(guard))
            if record is not None:
                values = {
                    "until": format_time(record.until),
                    "pause": repr(record.pause),
                    "internal_errors": record.internal_errors,
                }
                connection.execute(insert(guard).values(with_checksum(guard, values)))

    def exchange(self, member: str, tell: Callable[[GroupView], Report]) -> Report:
        """Tell the other processes of the account how fast the vendor lets this one go."""
        with self.errors(), self._backend.engine.begin() as connection:
            self._backend.exclude_others(connection)
            self._add_missing_tables(connection)
            report = exchange(connection, self._backend.now(connection), member, tell)
        self._complete = True
        return report

    def _add_missing_tables(self, connection: Connection) -> None:
        """Extend a journal of an earlier version. Called where no other process does so."""
        if not self._complete:
            metadata.create_all(connection)


def _initialize(backend: Backend, account: str, engine: Engine) -> None:
    with engine.begin() as connection:
        backend.exclude_others(connection)
        if inspect(connection).has_table(journal.name):
            return
        metadata.create_all(connection)
        values = with_checksum(journal, {"version": SCHEMA, "account": account})
        connection.execute(insert(journal).values(values))


def _high_water(journal: str, row: Mapping[str, Any]) -> HighWaterFile | None:
    if row["destination"] is None or row["ended_at"] is not None:
        return None
    return HighWaterFile(row["destination"], journal, row["name"], row["started_at"])


def _last_of(
    segment_ids: Sequence[str], kinds: Sequence[Event], destination: str | None
) -> Select[Any]:
    """Each segment's last event of these kinds, in any run or in those to one destination."""
    latest = (
        select(func.max(events.c.id))
        .where(
            events.c.segment_id.in_(segment_ids),
            LASTING_ONLY,
            events.c.event.in_([kind.value for kind in kinds]),
        )
        .group_by(events.c.segment_id)
    )
    if destination is not None:
        latest = latest.join(runs).where(runs.c.destination == destination)
    return select(events).where(events.c.id.in_(latest))
