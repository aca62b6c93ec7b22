"""The limit that the processes of an account have found together, and who of them waits.

For worker threads. The limit's row stays after the processes are gone: it is the journal's memory
of the limit, and of when it was found, for later processes. No column is added for it.
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

#: A process that said nothing for so long is gone, or asleep.
LEASE = timedelta(seconds=5)

#: A minute after the last process said anything, the sum is nobody's any more: a process that comes
#: now begins another one.
WORTH = timedelta(minutes=1)

#: For so long the limit that was found is remembered, and a process that comes now starts near it.
#: A limit is part of a contract and rarely changes. A memory that is wrong costs no more than the
#: search that it saves, so that runs of once a month are to have it.
REMEMBERED = timedelta(days=35)


def exchange(
    connection: Connection, now: datetime, member: str, tell: Callable[[GroupView], Report]
) -> Report:
    """Look at what all know, and tell them. Nobody else does so meanwhile.

    Args:
        connection: in a transaction that excludes all others.
        now: by a clock that all have in common.
        member: this process's name.
        tell: what to tell.
    """
    report = tell(_group_view(connection, now, member))
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
    # A clock that jumped back makes it no fresher.
    age = None if row is None else abs(now - parse_time(row["at"]))
    if row is None or age is None or age > REMEMBERED:
        return GroupView(None, alive, uuid.uuid4().hex)
    if age > WORTH:
        return GroupView(None, alive, uuid.uuid4().hex, learnt=float(row["requests"]))
    return GroupView(float(row["requests"]), alive, row["sum_id"])
