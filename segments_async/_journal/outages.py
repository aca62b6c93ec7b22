"""The vendor's outages and the ticket guard, as the account's processes tell each other.

For worker threads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import attrs
from sqlalchemy import (
    Boolean,
    Column,
    ColumnElement,
    CompoundSelect,
    Connection,
    Select,
    Table,
    Text,
    cast,
    delete,
    literal,
    null,
    select,
    union_all,
)

from segments_async._journal.backends import Backend
from segments_async._journal.records import GuardRecord
from segments_async._journal.tables import (
    Malformed,
    checked,
    checked_values,
    format_time,
    guard,
    insert_row,
    outages,
    parse_time,
)
from segments_async._sansio.pace.shared_outage import CommonOutage, GuardNews, News
from segments_async._sansio.pace.submit_hold import ListCounts

#: The tables that `news_of` reads.
NEWS = (guard, outages)

#: The statements that `read_together` has used: to make one takes as long as to execute it.
_queries: dict[tuple[type[Backend], tuple[Table, ...]], CompoundSelect[Any]] = {}


def read_together(
    connection: Connection, backend: Backend, tables: tuple[Table, ...]
) -> tuple[datetime, dict[str, list[dict[str, Any]]]]:
    """All rows of some small tables, in one statement.

    The columns are read as texts, since the rows of a union have one type. A join would be planned
    for tables of a thousand rows each, and PostgreSQL would compile the query for half a second.

    Returns: the time by a clock that all processes share, and the rows by the table's name.
    """
    query = _queries.get((type(backend), tables))
    if query is None:
        query = _queries[type(backend), tables] = _query(backend, tables)
    now = machine_time()
    rows: dict[str, list[dict[str, Any]]] = {table.name: [] for table in tables}
    of_name = {table.name: table for table in tables}
    for name, *values in connection.execute(query).all():
        if name == "clock":
            now = parse_time(values[0])
        else:
            own = zip(of_name[name].c, values, strict=False)
            row = {column.name: _value(column, value) for column, value in own}
            rows[name].append(checked_values(of_name[name], row))
    return now, rows


def machine_time() -> datetime:
    """The time by this machine's clock; aware, UTC."""
    return datetime.now(UTC)


def _query(backend: Backend, tables: Sequence[Table]) -> CompoundSelect[Any]:
    width = max(len(table.c) for table in tables)
    queries = [_as_texts(table, width) for table in tables]
    if backend.clock is not None:
        queries.append(_padded([literal("clock"), backend.clock], width))
    return union_all(*queries)


def _as_texts(table: Table, width: int) -> Select[Any]:
    return _padded([literal(table.name), *(cast(column, Text) for column in table.c)], width)


def _padded(columns: list[ColumnElement[Any]], width: int) -> Select[Any]:
    missing = width + 1 - len(columns)
    padded = [*columns, *(cast(null(), Text) for _ in range(missing))]
    return select(*(column.label(f"c{number}") for number, column in enumerate(padded)))


def _value(column: Column[Any], text: str | None) -> object:
    """The value of a column that was read as a text."""
    if text is None or isinstance(column.type, Text):
        return text
    if isinstance(column.type, Boolean):
        return {"true": True, "false": False, "1": True, "0": False}.get(text, text)
    try:
        return int(text)
    except ValueError:
        return text


def only_row(name: str, rows: Mapping[str, list[dict[str, Any]]]) -> dict[str, Any] | None:
    """The row of a table that has one at most."""
    found = rows[name]
    if len(found) > 1:
        raise Malformed(f"{len(found)} rows in {name}, which has one at most")
    return found[0] if found else None


def news_of(now: datetime, rows: Mapping[str, list[dict[str, Any]]]) -> News:
    """What the rows say at `now`."""
    row = only_row(guard.name, rows)
    return News(
        {one["what"]: _outage(now, one) for one in rows[outages.name]},
        None if row is None else _guard_news(guard_record(row)),
    )


def read_guard(connection: Connection) -> GuardRecord | None:
    """The stored ticket guard; None where the guard holds nothing."""
    found = connection.execute(select(guard)).one_or_none()
    return None if found is None else guard_record(checked(guard, found))


def read_news(connection: Connection, backend: Backend) -> News:
    """The ticket guard and the vendor's outages, in one statement."""
    return news_of(*read_together(connection, backend, NEWS))


def guard_record(row: Mapping[str, Any]) -> GuardRecord:
    """The stored ticket guard."""
    return GuardRecord(parse_time(row["until"]), float(row["pause"]), row["internal_errors"])


def _guard_news(record: GuardRecord) -> GuardNews:
    # By this machine's clock, since the process that received the 500 stored the time by its own.
    left = (record.until - datetime.now(UTC)).total_seconds()
    version = f"{format_time(record.until)} {record.pause!r}"
    return GuardNews(left, record.pause, version)


def _outage(now: datetime, row: Mapping[str, Any]) -> CommonOutage:
    facts = json.loads(row["facts"])
    failed, enough, submit_status = facts["lists"]
    return CommonOutage(
        name=row["name"],
        version=row["version"],
        due=(parse_time(row["until"]) - now).total_seconds(),
        age=(now - parse_time(row["at"])).total_seconds(),
        lasts=(now - parse_time(row["since"])).total_seconds(),
        member=row["member"],
        turn=bool(facts["turn"]),
        failures=int(facts["failures"]),
        lists=ListCounts(int(failed), int(enough), submit_status),
    )


def write_outages(
    connection: Connection, now: datetime, changed: Mapping[str, CommonOutage | None]
) -> None:
    """Store the outages that changed; None: the outage is over."""
    for what, row in changed.items():
        connection.execute(delete(outages).where(outages.c.what == what))
        if row is not None:
            facts = {"turn": row.turn, "failures": row.failures, "lists": attrs.astuple(row.lists)}
            values = {
                "what": what,
                "name": row.name,
                "version": row.version,
                "since": format_time(now - timedelta(seconds=row.lasts)),
                "until": format_time(now + timedelta(seconds=row.due)),
                "at": format_time(now),
                "member": row.member,
                "facts": json.dumps(facts),
            }
            insert_row(connection, outages, values)
