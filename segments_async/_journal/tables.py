"""The journal's tables, the same for SQLite and PostgreSQL, and the checksums of their rows.

Every row has a checksum of its other columns, in the column `seal`. SQLite checks the structure of
its pages, not their content, so that a flipped byte in a value would be read as another value.
Events are numbered within their run from 1 on, so that a missing row is found, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    Connection,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Row,
    Table,
    Text,
    UniqueConstraint,
    insert,
    literal_column,
    update,
)
from sqlalchemy.schema import SchemaItem

from segments_async._sansio.jobs.batches import batches
from segments_async._sansio.jobs.lifecycle import Event

#: Version of the tables. A journal with a higher version is refused; see docs/journal.md.
SCHEMA = 1

#: Begins the names of runs that are being pruned. No caller's name has a control character.
PRUNED = "\x1f"

#: Begins the names of the parts of shared runs, which no list shows and no caller can open.
PART = "\x1e"

#: Events about an export's end at the vendor, or about its file: looked up across runs.
LASTING = (Event.COMPLETED, Event.FETCHED, Event.UNCHANGED)

#: Values in one query.
_AT_ONCE = 500

T = TypeVar("T")

metadata = MetaData()

# SQLite numbers rows by itself only in a column of type INTEGER.
_RowId = BigInteger().with_variant(Integer, "sqlite")


def _table(name: str, *columns: SchemaItem) -> Table:
    """A table with a column for the checksum of the others."""
    return Table(name, metadata, *columns, Column("seal", Text, nullable=False))


journal = _table(
    "segments_async_journal",
    Column("version", Integer, primary_key=True, autoincrement=False),
    Column("account", Text, nullable=False),
)

runs = _table(
    "segments_async_runs",
    Column("id", _RowId, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False, unique=True),
    Column("named", Boolean, nullable=False),  # whether the caller gave the name
    Column("destination", Text),
    Column("started_at", Text, nullable=False),
    Column("ended_at", Text),
    Column("states", Text),  # of an ended run: the number of exports in each state, as JSON
)


def _run_key(name: str) -> Column[int]:
    """A column of a table's primary key with a run's id. The row goes when the run is deleted."""
    to_run = ForeignKey(runs.c.id, ondelete="CASCADE")
    return Column(name, _RowId, to_run, primary_key=True, autoincrement=False)


events = _table(
    "segments_async_events",
    Column("id", _RowId, primary_key=True),
    Column("run_id", _RowId, ForeignKey(runs.c.id, ondelete="CASCADE"), nullable=False),
    Column("number", Integer, nullable=False),
    Column("segment_id", Text, nullable=False),
    Column("event", Text, nullable=False),
    Column("at", Text, nullable=False),
    Column("facts", Text, nullable=False),
    UniqueConstraint("run_id", "number"),
)

#: Written out: SQLite uses a partial index only for a query that repeats the index's condition.
LASTING_ONLY = events.c.event.in_([literal_column(f"'{event.value}'") for event in LASTING])
Index(
    "segments_async_lasting",
    events.c.segment_id,
    events.c.event,
    sqlite_where=LASTING_ONLY,
    postgresql_where=LASTING_ONLY,
)

guard = _table(
    "segments_async_guard",
    Column("until", Text, primary_key=True),
    Column("pause", Text, nullable=False),
    Column("internal_errors", Integer, nullable=False),
)

limit = _table(
    "segments_async_limit",
    Column("sum_id", Text, primary_key=True),
    Column("requests", Text, nullable=False),  # per second, of the whole account
    Column("at", Text, nullable=False),
)

members = _table(
    "segments_async_members",
    Column("member", Text, primary_key=True),
    Column("waits", Boolean, nullable=False),
    Column("at", Text, nullable=False),
)

#: That the vendor is away, for all processes of the account. Earlier versions ignore this table.
outages = _table(
    "segments_async_outages",
    Column("what", Text, primary_key=True),  # all requests, or submits alone
    Column("name", Text, nullable=False),
    Column("version", Text, nullable=False),
    Column("since", Text, nullable=False),
    Column("until", Text, nullable=False),  # when the next process may probe
    Column("at", Text, nullable=False),
    Column("member", Text, nullable=False),  # answered last, or to probe
    Column("facts", Text, nullable=False),  # JSON: whether it is to probe, and the counts
)

#: What a run was started with. Earlier versions ignore this table.
specs = _table(
    "segments_async_specs",
    _run_key("run_id"),
    Column("segments", Integer, nullable=False),  # how many
    Column("spec", Text, nullable=False),  # a `RunSpec`, as JSON
)

#: The pace of a run over time, as JSON. Earlier versions ignore this table.
traces = _table(
    "segments_async_traces",
    _run_key("run_id"),
    Column("points", Text, nullable=False),
)

#: Paths that a directory of runs had before it was moved. Earlier versions ignore this table.
directories = _table(
    "segments_async_directories",
    Column("former", Text, primary_key=True),
    Column("present", Text, primary_key=True),
)


#: Runs that several processes share. The row in `runs` is never locked and has no events: its parts
#: have the events. Earlier versions ignore this table, and the two that follow.
shared_runs = _table(
    "segments_async_shared_runs",
    _run_key("run_id"),
    Column("round", Integer, nullable=False),
    Column("internal_errors", Integer, nullable=False),  # answers of 500 in this round
)

#: Parts of shared runs: each is a run of its own, with a log and a lock.
parts = _table(
    "segments_async_parts",
    _run_key("run_id"),
    Column("shared_id", _RowId, ForeignKey(runs.c.id, ondelete="CASCADE"), nullable=False),
    Column("round", Integer, nullable=False),
    Column("left_over", Boolean, nullable=False),  # worked through in this round, and not ended
    Column("member", Text, nullable=False),  # the process that opened it last
    Index("segments_async_parts_of_run", "shared_id"),
)

#: Which part has a segment. The primary key decides between two processes.
claims = _table(
    "segments_async_claims",
    _run_key("shared_id"),
    Column("segment_id", Text, primary_key=True),
    Column("part_id", _RowId, ForeignKey(runs.c.id, ondelete="CASCADE"), nullable=False),
    Column("file", Text),  # its name; None for a run without files
    Column("file_key", Text),  # equal for names that a file system may take for one
    UniqueConstraint("shared_id", "file_key"),
    Index("segments_async_claims_of_part", "part_id"),
)


def in_queries(values: Sequence[T]) -> Iterator[Sequence[T]]:
    """The values in slices that fit one query each: SQLite accepts at least 999 parameters."""
    return batches(values, _AT_ONCE)


def label(name: str) -> str:
    """The name of a run for people: a part's has a control character."""
    return name.removeprefix(PART)


class ChecksumError(Exception):
    """A row was changed after it was written."""


class Malformed(Exception):
    """A row has its checksum, but this library doesn't write such a row."""


def with_checksum(table: Table, values: Mapping[str, Any]) -> dict[str, Any]:
    """The row with its checksum, in place of the one that `values` may have."""
    return {**values, "seal": _checksum(table, values)}


def insert_row(connection: Connection, table: Table, values: Mapping[str, Any]) -> dict[str, Any]:
    """Insert a row with its checksum. Returns the row."""
    row = with_checksum(table, values)
    connection.execute(insert(table).values(row))
    return row


def update_row(connection: Connection, table: Table, values: Mapping[str, Any]) -> None:
    """Write a whole row again, by its primary key."""
    row = with_checksum(table, values)
    own = [column == row[column.name] for column in table.primary_key]
    connection.execute(update(table).where(*own).values(row))


def checked(table: Table, row: Row[Any]) -> dict[str, Any]:
    """The row by its columns' names; ChecksumError if it was changed."""
    # Public in spite of its name, as the fields of a namedtuple are.
    return checked_values(table, dict(row._mapping))  # pyright: ignore[reportPrivateUsage]


def checked_of(table: Table, values: Sequence[Any]) -> dict[str, Any] | None:
    """As :func:`checked`, for a part of a joined row: all columns of the table, in their order.

    None where the join found no row of the table.
    """
    if all(value is None for value in values):
        return None
    return checked_values(table, dict(zip(table.columns.keys(), values, strict=True)))


def checked_values(table: Table, values: dict[str, Any]) -> dict[str, Any]:
    """The columns of a row by their names; ChecksumError if the row was changed."""
    try:
        whole = _checksum(table, values) == values["seal"]
    except TypeError:  # SQLite stores a type with each value: JSON has no bytes
        whole = False
    if not whole:
        raise ChecksumError(f"a row of {table.name} is not as it was written")
    return values


def check_event(
    run_id: object,
    number: object,
    segment_id: object,
    event: object,
    at: object,
    facts: object,
    checksum: object,
) -> None:
    """As :func:`checked`, for one of very many events: ChecksumError if it was changed."""
    try:
        text = json.dumps([events.name, run_id, number, segment_id, event, at, facts])
    except TypeError:
        text = ""
    if hashlib.blake2b(text.encode(), digest_size=8).hexdigest() != checksum:
        raise ChecksumError(f"a row of {events.name} is not as it was written")


def _checksum(table: Table, values: Mapping[str, Any]) -> str:
    # The database gives an event its id, after the checksum was made.
    names = [
        c.name
        for c in table.columns
        if c.name != "seal" and not (table is events and c.name == "id")
    ]
    text = json.dumps([table.name, *(values.get(name) for name in names)])
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def format_time(at: datetime) -> str:
    """The time as text in UTC, of one length: such texts sort in the order of their times."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def parse_time(text: str) -> datetime:
    """Read a text of :func:`format_time`."""
    return datetime.fromisoformat(text)
