"""The rate limit that the processes of an account have found together. For worker threads.

The limit's row stays after the processes have ended: later processes start with it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete

from segments_async._journal.backends import Backend
from segments_async._journal.outages import (
    NEWS,
    news_of,
    only_row,
    read_together,
    write_outages,
)
from segments_async._journal.tables import (
    format_time,
    insert_row,
    limit,
    members,
    parse_time,
    update_row,
)
from segments_async._sansio.pace.shared_limit import GroupView, Report
from segments_async._sansio.pace.shared_outage import News

#: A process without a report for so long has ended, or stands still.
LEASE = timedelta(seconds=5)

#: A minute after the last report of any process, the next process starts another sum.
WORTH = timedelta(minutes=1)

#: How long a new process starts near the limit that was found. A limit is part of a contract and
#: rarely changes. A wrong start costs no more than the search that a right start saves, so the time
#: is long enough for monthly runs.
REMEMBERED = timedelta(days=35)


#: A process that reported within this many seconds may take the turn to probe for all; see
#: `shared_outage`. Twice the longest time between two reports.
ALIVE = timedelta(seconds=20)

_EXCHANGED = (members, limit, *NEWS)

#: A limit that stays the same is written again once it is so old.
FRESH = timedelta(seconds=10)


def exchange(
    connection: Connection,
    backend: Backend,
    member: str,
    make_report: Callable[[GroupView], Report],
) -> Report:
    """Read the reports of all processes, and store this process's report.

    Args:
        connection: in a transaction that excludes the other processes.
        make_report: makes this process's report from those of the others.
    """
    now, rows = read_together(connection, backend, _EXCHANGED)
    found = only_row(limit.name, rows)
    report = make_report(_group_view(now, member, rows[members.name], found, news_of(now, rows)))
    _write_limit(connection, now, report, found)
    own = {"member": member, "waits": report.waits, "at": format_time(now)}
    of_members = [(row["member"], parse_time(row["at"])) for row in rows[members.name]]
    if any(at < now - WORTH for _, at in of_members):
        old = members.c.at < format_time(now - WORTH)
        connection.execute(delete(members).where(old, members.c.member != member))
    if any(name == member for name, _ in of_members):
        update_row(connection, members, own)
    else:
        insert_row(connection, members, own)
    write_outages(connection, now, report.outages)
    return report


def _write_limit(
    connection: Connection, now: datetime, report: Report, found: Mapping[str, Any] | None
) -> None:
    if report.limit is None:
        return
    row = {"sum_id": report.epoch, "requests": repr(report.limit), "at": format_time(now)}
    if found is not None and found["sum_id"] == report.epoch:
        if found["requests"] == row["requests"] and _age(now, found) <= FRESH:
            return
        update_row(connection, limit, row)
        return
    connection.execute(delete(limit))
    insert_row(connection, limit, row)


def _group_view(
    now: datetime,
    member: str,
    of_members: Sequence[Mapping[str, Any]],
    found: Mapping[str, Any] | None,
    news: News,
) -> GroupView:
    others = [row for row in of_members if row["member"] != member]
    waiting = sum(row["waits"] and _age(now, row) <= LEASE for row in others)
    alive = sum(_age(now, row) <= ALIVE for row in others)
    epoch, learnt, requests = uuid.uuid4().hex, None, None
    if found is not None and _age(now, found) <= WORTH:
        epoch, requests = found["sum_id"], float(found["requests"])
    elif found is not None and _age(now, found) <= REMEMBERED:
        learnt = float(found["requests"])
    return GroupView(requests, waiting, epoch, learnt=learnt, alive=alive, news=news)


def _age(now: datetime, row: Mapping[str, Any]) -> timedelta:
    """After a clock has jumped back, a row from the future is not fresh."""
    return abs(now - parse_time(row["at"]))
