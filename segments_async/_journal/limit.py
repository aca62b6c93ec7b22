"""The limit that the processes of an account have found together, and who of them waits.

For worker threads. Of use for minutes, and to live processes alone: nothing is lost with it.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import datetime, timedelta

from sqlalchemy import Connection, delete, insert, select

from segments_async._journal.tables import checked, limit, members, moment, sealed, stamp
from segments_async._sansio.sharing import Common, Told

#: A process that said nothing for so long is gone, or asleep.
LEASE = timedelta(seconds=5)

#: What was found is worth so long after the last process said anything: then it is sought anew,
#: which takes seconds, and is no more than was ever granted to one that was alone.
WORTH = timedelta(minutes=1)


def exchange(
    connection: Connection, now: datetime, member: str, tell: Callable[[Common], Told]
) -> Told:
    """Look at what all know, and tell them. Nobody else does so meanwhile.

    Args:
        connection: in a transaction that excludes all others.
        now: by a clock that all have in common.
        member: this process's name.
        tell: what to tell.
    """
    told = tell(_common(connection, now, member))
    if told.limit is not None:
        common = {"sum_id": told.sum_id, "requests": repr(told.limit), "at": stamp(now)}
        connection.execute(delete(limit))
        connection.execute(insert(limit).values(sealed(limit, common)))
    connection.execute(
        delete(members).where((members.c.member == member) | (members.c.at < stamp(now - WORTH)))
    )
    mine = {"member": member, "waits": told.waits, "at": stamp(now)}
    connection.execute(insert(members).values(sealed(members, mine)))
    return told


def _common(connection: Connection, now: datetime, member: str) -> Common:
    rows = [checked(members, row) for row in connection.execute(select(members)).all()]
    others = [row for row in rows if row["member"] != member and row["waits"]]
    alive = sum(abs(now - moment(row["at"])) <= LEASE for row in others)
    found = connection.execute(select(limit)).one_or_none()
    row = None if found is None else checked(limit, found)
    # A clock that jumped back makes it no fresher.
    if row is None or abs(now - moment(row["at"])) > WORTH:
        return Common(None, alive, uuid.uuid4().hex)
    return Common(float(row["requests"]), alive, row["sum_id"])
