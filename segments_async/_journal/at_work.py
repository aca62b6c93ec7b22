"""Who works at a run at present, and what holds all of them. For worker threads."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime, timedelta

import attrs
from sqlalchemy import Connection, inspect, select

from segments_async._journal.backends import Backend
from segments_async._journal.outages import machine_time, news_of, read_together
from segments_async._journal.tables import checked, guard, outages, parts
from segments_async._sansio.pace.shared_outage import HEEDED, REQUESTS, News
from segments_async.results import Held, HeldReason


@attrs.frozen
class AtWork:
    """Who works at a run.

    Attributes:
        processes: how many processes.
        held: what the journal knows to hold all of them; None where no process works.
    """

    processes: int = 0
    held: Held | None = None


def look(connection: Connection, backend: Backend, run_ids: Collection[int]) -> AtWork:
    """Who works at an ordinary run, or at the parts of a shared one."""
    processes = _count(connection, backend.locked(connection, run_ids))
    if not processes:
        return AtWork()
    # A journal that an earlier version works with has no table of outages.
    tables = (guard, outages) if inspect(connection).has_table(outages.name) else (guard,)
    now, rows = read_together(connection, backend, tables)
    news = news_of(now, {outages.name: [], **rows})
    return AtWork(processes, held_by(news, machine_time()))


def _count(connection: Connection, locked: Collection[int]) -> int:
    """The number of processes that have these runs. One may have several parts of a shared run."""
    if not locked or not inspect(connection).has_table(parts.name):
        return len(locked)
    query = select(parts).where(parts.c.run_id.in_(locked))
    found = [checked(parts, row) for row in connection.execute(query)]
    members = {row["run_id"]: row["member"] for row in found}
    return len({*members.values()}) + sum(run_id not in members for run_id in locked)


def held_by(news: News, now: datetime) -> Held | None:
    """What the journal knows to hold every request of the account.

    Args:
        now: by this machine's clock.
    """
    away = news.outages.get(REQUESTS)
    if news.guard is not None and news.guard.left > 0:
        reason, seconds = HeldReason.TICKET_GUARD, news.guard.left
    elif away is not None and away.age <= HEEDED:
        reason, seconds = HeldReason.VENDOR_AWAY, max(0.0, away.due)
    else:
        return None
    return Held(reason=reason, seconds=seconds, until=now + timedelta(seconds=seconds))


def parts_by_run(connection: Connection) -> dict[int, list[int]]:
    """The run ids of the parts of each shared run, by its run id."""
    if not inspect(connection).has_table(parts.name):
        return {}
    found: dict[int, list[int]] = {}
    for row in connection.execute(select(parts).order_by(parts.c.run_id)):
        part = checked(parts, row)
        found.setdefault(part["shared_id"], []).append(part["run_id"])
    return found
