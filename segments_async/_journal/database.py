"""The database of a journal: opened and checked, and asked across runs. For worker threads."""

from __future__ import annotations

import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any, Self

import attrs
from sqlalchemy import Connection, Engine, Row, Select, delete, func, inspect, select

from segments_async._journal.at_work import AtWork, look, parts_by_run
from segments_async._journal.backends import Backend, backend
from segments_async._journal.errors import mapped_errors
from segments_async._journal.limit import exchange
from segments_async._journal.log import Log, counted_states
from segments_async._journal.moves import former_directories, moves
from segments_async._journal.outages import read_guard, read_news
from segments_async._journal.place import hidden
from segments_async._journal.records import GuardRecord, RunSpec, RunStatus, StoredRun, counts
from segments_async._journal.refusals import journal_error
from segments_async._journal.specs import load_spec, load_spec_file, spec_sizes
from segments_async._journal.tables import (
    LASTING_ONLY,
    PART,
    PRUNED,
    SCHEMA,
    Malformed,
    checked,
    events,
    format_time,
    guard,
    in_queries,
    insert_row,
    journal,
    metadata,
    parse_time,
    runs,
)
from segments_async._journal.traces import load_trace
from segments_async._sansio.api.credentials import Secret
from segments_async._sansio.files.naming import moved_path
from segments_async._sansio.jobs.exports import seconds_taken
from segments_async._sansio.jobs.lifecycle import Event, State
from segments_async._sansio.jobs.payload import Payload, payload_from_json
from segments_async._sansio.jobs.record import ExportRecord
from segments_async._sansio.jobs.replay import records
from segments_async._sansio.pace.shared_limit import GroupView, Report
from segments_async._sansio.pace.shared_outage import News
from segments_async.models import Segment
from segments_async.results import ExportedFile


class Database:
    """A journal whose header and small tables have been checked."""

    def __init__(self, backend: Backend) -> None:
        self.backend: Backend = backend
        self.location: str = backend.location
        #: Whether the journal is known to have every table of this version.
        self._complete = False

    @classmethod
    def open(
        cls, where: str | os.PathLike[str] | Secret, account: str, *, create: bool = True
    ) -> Self:
        """Open the journal; where there is none, create one.

        Args:
            where: a path or URL.
            create: False raises JournalError (``missing``) in place of creating a journal.

        Raises:
            ConfigurationError: no journal can be there.
            JournalError: the journal can't be used; its `reason` says why.
        """
        where = hidden(where)
        found = backend(where)
        opened = cls(found)
        with opened.errors():
            new = partial(_initialize, found, account)
            found.prepare(new if create else None)
            with opened.reading() as connection:
                opened._check_header(connection, account)
        return opened

    def errors(self) -> contextlib.AbstractContextManager[None]:
        """Map the errors of the database to ours."""
        return mapped_errors(self.location, self.backend.secrets)

    @contextlib.contextmanager
    def reading(self) -> Generator[Connection]:
        """A connection that only reads."""
        engine, options = self.backend.engine, self.backend.reading
        with self.errors(), engine.connect().execution_options(**options) as connection:
            yield connection

    @contextlib.contextmanager
    def writing(self, *, every_table: bool = False) -> Generator[Connection]:
        """As `transaction`, on a connection of its own."""
        with (
            self.errors(),
            self.backend.engine.connect() as connection,
            self.transaction(connection, every_table=every_table),
        ):
            yield connection

    @contextlib.contextmanager
    def transaction(self, connection: Connection, *, every_table: bool = False) -> Generator[None]:
        """A transaction in which no other process opens a run or changes the account's rows.

        Args:
            connection: without a transaction.
            every_table: first add the tables that a journal of an earlier version lacks.
        """
        with connection.begin():
            self.backend.exclude_others(connection)
            if every_table and not self._complete:
                metadata.create_all(connection)
            yield
        self._complete = self._complete or every_table

    def _check_header(self, connection: Connection, account: str) -> None:
        rows = connection.execute(select(journal)).all()
        if len(rows) != 1:
            raise Malformed(f"{len(rows)} headers in place of one")
        version = rows[0].version
        if isinstance(version, int) and version > SCHEMA:
            raise journal_error(
                self.location,
                "newer",
                f"written by a later version of segments-async (schema {version}; this version "
                f"knows schema {SCHEMA}). Nothing was changed or sent",
            )
        if checked(journal, rows[0])["account"] != account:
            text = (
                "the journal of another account (base URL or API key differ); each account needs "
                "its own directory, or its own journal. Nothing was changed or sent"
            )
            raise journal_error(self.location, "foreign", text)

    # ----------------------------------------------------------------- runs

    def runs(self) -> list[RunStatus]:
        """Every run, the latest first."""
        with self.reading() as connection:
            query = select(runs).where(~runs.c.name.startswith(PRUNED))
            found = connection.execute(query.order_by(runs.c.id.desc())).all()
            sizes = spec_sizes(connection)
            moved = moves(connection, self.backend.file)
            of_shared = parts_by_run(connection)
        with self.errors():
            rows = {row.id: _in_place(checked(runs, row), moved) for row in found}
            return [
                self._status(row, [rows[i] for i in of_shared.get(row["id"], ())], sizes)
                for row in rows.values()
                if not row["name"].startswith(PART)
            ]

    def _status(
        self,
        row: Mapping[str, Any],
        of_shared: Sequence[Mapping[str, Any]],
        sizes: Mapping[int, int],
    ) -> RunStatus:
        """The status of a run; `of_shared`: the parts of a shared one, in its place."""
        size, ended = sizes.get(row["id"]), row["ended_at"]
        at_work = AtWork()
        states = self._states(row)
        for part in of_shared if ended is None else ():
            states.update(self._states(part))
        if ended is None:
            ids = [row["id"], *(part["id"] for part in of_shared if part["ended_at"] is None)]
            with self.reading() as connection:
                at_work = look(connection, self.backend, ids)
            if size is None and (spec := load_spec_file(row["destination"], row["name"])):
                size = len(spec.segments)
        return RunStatus(
            name=row["name"],
            destination=row["destination"],
            started_at=parse_time(row["started_at"]),
            ended_at=parse_time(ended) if ended else None,
            live=at_work.processes > 0,
            processes=at_work.processes,
            held=at_work.held,
            **counts(states, ended=bool(ended), specified=size),
        )

    def _states(self, row: Mapping[str, Any]) -> Counter[State]:
        if row["states"] is None:
            return Counter(counted_states(self.reading, row["id"]))
        return Counter({State(name): n for name, n in json.loads(row["states"]).items()})

    def spec(self, name: str) -> RunSpec | None:
        """The spec of an unfinished run; None where the journal has none."""
        with self.reading() as connection:
            row = self._run(connection, name)
            if row is None or row["ended_at"] is not None:
                return None
            return load_spec(connection, row["id"]) or load_spec_file(row["destination"], name)

    def segments(self, name: str) -> dict[str, Segment | None]:
        """The segments of a run, by id: those of its spec, and those with events.

        The value is the segment as an export of the run described it. Without an export, it has
        the name alone, and is None where the log doesn't have the name either.
        """
        spec = self.spec(name)
        segments: dict[str, Segment | None] = dict.fromkeys(() if spec is None else spec.segments)
        with self.reading() as connection:
            row = self._run(connection, name)
            ids = [] if row is None else [row["id"], *parts_by_run(connection).get(row["id"], ())]
        for segment_id, record in _records(self, ids).items():
            segments[segment_id] = _segment(segment_id, record)
        return segments

    def stored_run(self, name: str) -> StoredRun | None:
        """Everything about a run; None where there is no run of this name.

        A shared run has no pace: each of its processes had one of its own.
        """
        with self.reading() as connection:
            row = self._run(connection, name)
            if row is None:
                return None
            sizes, pace = spec_sizes(connection), load_trace(connection, row["id"])
            ids = parts_by_run(connection).get(row["id"], ())
            query = select(runs).where(runs.c.id.in_(ids))
            found = connection.execute(query.order_by(runs.c.id)).all() if ids else ()
        spec = self.spec(name)
        known = _records(self, [row["id"], *ids])
        with self.errors():
            status = self._status(row, [checked(runs, one) for one in found], sizes)
        segments = None if spec is None else spec.segments
        return StoredRun(status=status, segments=segments, records=known, pace=pace)

    def _run(self, connection: Connection, name: str) -> Mapping[str, Any] | None:
        if "\0" in name or not _is_unicode(name):
            return None  # no run has such a name, and the driver can't ask for one
        row = connection.execute(select(runs).where(runs.c.name == name)).one_or_none()
        if row is None:
            return None
        return _in_place(checked(runs, row), moves(connection, self.backend.file))

    # ----------------------------------------------------------------- across runs

    def durations(self, segment_ids: Sequence[str]) -> dict[str, float]:
        """Seconds that each segment's last COMPLETE export took at the vendor."""
        with self.reading() as connection:
            found = _last(connection, segment_ids, (Event.COMPLETED,))
        return {
            segment_id: seconds
            for segment_id, payload in _payloads(self, found)
            if payload.export is not None and (seconds := seconds_taken(payload.export)) is not None
        }

    def last_files(
        self, segment_ids: Sequence[str], destination: str | None
    ) -> dict[str, ExportedFile]:
        """Each segment's last file in this destination, with the export of the file.

        `only_changed` compares ``file.export.segment.last_run``.
        """
        if destination is None:
            return {}
        with self.reading() as connection:
            moved = moves(connection, self.backend.file)
            recorded = [before for before, now in moved.items() if now == destination]
            former = former_directories(connection, destination).union(recorded)
            of_files = (Event.FETCHED, Event.UNCHANGED)
            found = _last(connection, segment_ids, of_files, [destination, *recorded])
        return {
            segment_id: attrs.evolve(
                payload.file, location=moved_path(payload.file.location, destination, former)
            )
            for segment_id, payload in _payloads(self, found)
            if payload.file is not None
        }

    # ----------------------------------------------------------------- across processes

    def guard(self) -> GuardRecord | None:
        """The stored ticket guard; None where the guard holds nothing."""
        with self.reading() as connection:
            return read_guard(connection)

    def news(self) -> News:
        """What the account's processes tell each other: the ticket guard, the vendor's outages."""
        with self.reading() as connection:
            return read_news(connection, self.backend)

    def set_guard(self, record: GuardRecord | None) -> None:
        """Store the ticket guard in place of the stored one."""
        with self.writing() as connection:
            connection.execute(delete(guard))
            if record is not None:
                values = {
                    "until": format_time(record.until),
                    "pause": repr(record.pause),
                    "internal_errors": record.internal_errors,
                }
                insert_row(connection, guard, values)

    def exchange(self, member: str, make_report: Callable[[GroupView], Report]) -> Report:
        """Read the rate limit that the account's processes found, and add this process's report."""
        with self.writing(every_table=True) as connection:
            return exchange(connection, self.backend, member, make_report)


def _records(database: Database, run_ids: Iterable[int]) -> dict[str, ExportRecord]:
    """Where the exports of these runs stand, by segment id."""
    known: dict[str, ExportRecord] = {}
    with database.errors():
        for run_id in run_ids:
            known |= records(Log(database.reading, run_id))
    return known


def _segment(segment_id: str, record: ExportRecord) -> Segment | None:
    export = record.export or (record.file and record.file.export)
    if export:
        return export.segment
    name = record.failure and record.failure.name
    return Segment(segment_id, name) if name else None


def _payloads(database: Database, rows: Sequence[Row[Any]]) -> Iterator[tuple[str, Payload]]:
    """The payloads of events, by segment id. Decoded after the transaction that read them."""
    with database.errors():
        for row in rows:
            facts = json.loads(checked(events, row)["facts"])
            yield row.segment_id, payload_from_json(row.segment_id, facts)


def _in_place(row: Mapping[str, Any], moved: Mapping[str, str]) -> Mapping[str, Any]:
    """The row of a run, with the present path of the run's directory."""
    return {**row, "destination": moved.get(row["destination"], row["destination"])}


def _initialize(backend: Backend, account: str, engine: Engine) -> None:
    with engine.begin() as connection:
        backend.exclude_others(connection)
        if inspect(connection).has_table(journal.name):
            return
        metadata.create_all(connection)
        insert_row(connection, journal, {"version": SCHEMA, "account": account})


def _last(
    connection: Connection,
    segment_ids: Sequence[str],
    kinds: Sequence[Event],
    destinations: Sequence[str] = (),
) -> list[Row[Any]]:
    """Each segment's last event of these kinds, in runs to these directories, or in any run."""
    found: list[Row[Any]] = []
    for ids in in_queries(segment_ids):
        found += connection.execute(_last_of(ids, kinds, destinations))
    return found


def _last_of(
    segment_ids: Sequence[str], kinds: Sequence[Event], destinations: Sequence[str]
) -> Select[Any]:
    latest = (
        select(func.max(events.c.id))
        .where(
            events.c.segment_id.in_(segment_ids),
            LASTING_ONLY,
            events.c.event.in_([kind.value for kind in kinds]),
        )
        .group_by(events.c.segment_id)
    )
    if destinations:
        latest = latest.join(runs).where(runs.c.destination.in_(destinations))
    return select(events).where(events.c.id.in_(latest))


def _is_unicode(text: str) -> bool:
    """Whether the text has no lone surrogate, as an argument of the command line may have."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
