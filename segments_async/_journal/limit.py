"""The rate limit that the processes of an account have found together. For worker threads.

The limit's row stays after the processes have ended: later processes start with it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, select

from segments_async._journal.tables import (
    checked,
    format_time,
    limit,
    members,
    parse_time,
    with_checksum,
)
from segments_async._sansio.pace.shared_limit import GroupView, Report

#: A process without a report for so long has ended, or stands still.
LEASE = timedelta(seconds=5)

#: A minute after the last report of any process, the next process starts another sum.
WORTH = timedelta(minutes=1)

#: For so long a new process starts near the limit that was found. A limit is part of a contract and
#: rarely changes. A wrong start costs no more than the search that a right start saves, so the time
#: is long enough for monthly runs.
REMEMBERED = timedelta(days=35)


def exchange(
    connection: Connection, now: datetime, member: str, make_report: Callable[[GroupView], Report]
) -> Report:
    """Read the reports of all processes, and store this process's report.

    Args:
        connection: in a transaction that excludes the other processes.
        now: by a clock that all processes share.
        member: this process's name.
        make_report: makes this process's report from those of the others.
    """
    report = make_report(_group_view(connection, now, member))
    if report.limit is not None:
        group = {"sum_id": report.epoch, "requests": repr(report.limit), "at": format_time(now)}
        connection.execute(delete(limit))
        connection.execute(insert(limit).values(with_checksum(limit, group)))
    connection.execute(
        delete(members).where(
            (members.c.member == member) | (members.c.at < format_time(now - WORTH))
        )
    )
    own = {"member": member, "waits": report.waits, "at": format_time(now)}
    connection.execute(insert(members).values(with_checksum(members, own)))
    return report


def _group_view(connection: Connection, now: datetime, member: str) -> GroupView:
    rows = [checked(members, row) for row in connection.execute(select(members)).all()]
    others = [row for row in rows if row["member"] != member and row["waits"]]
    alive = sum(abs(now - parse_time(row["at"])) <= LEASE for row in others)
    found = connection.execute(select(limit)).one_or_none()
    row = None if found is None else checked(limit, found)
    # abs(): after a clock has jumped back, a row from the future is not fresh.
    age = None if row is None else abs(now - parse_time(row["at"]))
    if row is None or age is None or age > REMEMBERED:
        return GroupView(None, alive, uuid.uuid4().hex)
    if age > WORTH:
        return GroupView(None, alive, uuid.uuid4().hex, learnt=float(row["requests"]))
    return GroupView(float(row["requests"]), alive, row["sum_id"])
