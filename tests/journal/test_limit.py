"""The reports on the rate limit that an account's processes exchange, on both backends."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import anyio
import pytest
from sqlalchemy import event

from journal.lives import opened
from journal.test_sql import execute, rows
from segments_async import JournalError
from segments_async._journal.backends import backend
from segments_async._journal.limit import LEASE, REMEMBERED, WORTH, exchange
from segments_async._journal.sql import SqlJournal
from segments_async._journal.tables import format_time, limit, members, with_checksum
from segments_async._sansio.pace.shared_limit import GroupView, Report

pytestmark = pytest.mark.alternating

SUM = "one sum"
NOTHING = Report(None, None, False, "")


async def known(journal: SqlJournal, member: str = "nobody") -> tuple[float | None, int]:
    """The limit that a process reads, and the number of other waiting processes."""
    found: list[GroupView] = []

    def look(group: GroupView) -> Report:
        found.append(group)
        return NOTHING

    await journal.exchange(member, look)
    return found[0].limit, found[0].others


def age(where: str, by: timedelta) -> None:
    """Make every report so much older."""
    at = format_time(datetime.now(UTC) - by)
    with backend(where).engine.begin() as connection:
        for table, names in ((limit, ("sum_id", "requests")), (members, ("member", "waits"))):
            for row in connection.execute(table.select()).mappings().all():
                values = with_checksum(table, {**row, "at": at})
                key = table.c[names[0]] == values[names[0]]
                connection.execute(table.update().where(key).values(values))


async def test_a_limit_that_was_flipped_is_damage(where: str) -> None:
    """A changed limit is refused: all processes would follow another number."""
    journal = await opened(where)
    await journal.exchange("one", lambda _: Report(20.0, 20.0, True, SUM))
    execute(where, "UPDATE segments_async_limit SET requests = '2000.0'")
    with pytest.raises(JournalError) as caught:
        await journal.exchange("one", lambda _: NOTHING)
    assert caught.value.reason == "damaged"


async def test_who_falls_silent_is_not_counted(where: str) -> None:
    """A killed process is not counted after a while; its limit stays for later processes."""
    journal = await opened(where)
    await journal.exchange("one", lambda _: Report(20.0, 20.0, True, SUM))
    assert await known(journal) == (20.0, 1)
    age(where, 2 * LEASE)
    assert await known(journal) == (20.0, 0)
    age(where, 2 * WORTH)
    assert await known(journal) == (None, 0)
    assert len(rows(where, "SELECT * FROM segments_async_members")) == 1


async def learnt(journal: SqlJournal) -> float | None:
    """The limit that later processes start with."""
    found: list[GroupView] = []

    def look(group: GroupView) -> Report:
        found.append(group)
        return NOTHING

    await journal.exchange("nobody", look)
    return found[0].learnt


async def test_a_limit_is_remembered(where: str) -> None:
    """A day later the sum has ended, and a new process starts at its limit."""
    journal = await opened(where)
    await journal.exchange("one", lambda _: Report(20.0, 20.0, True, SUM))
    assert await learnt(journal) is None
    age(where, timedelta(days=1))
    assert await known(journal) == (None, 0)
    assert await learnt(journal) == 20.0
    age(where, 2 * REMEMBERED)
    assert await learnt(journal) is None


async def test_a_memory_that_nobody_went_by_is_as_old_as_before(where: str) -> None:
    """A process with a given rate only reads, and makes the stored limit no fresher."""
    journal = await opened(where)
    await journal.exchange("one", lambda _: Report(20.0, 20.0, True, SUM))
    age(where, timedelta(days=1))
    before = rows(where, "SELECT * FROM segments_async_limit")
    await learnt(journal)
    assert rows(where, "SELECT * FROM segments_async_limit") == before


async def test_a_journal_knows_nothing_at_first(where: str) -> None:
    """An older journal gets its tables with the first exchange; opening it adds none."""
    await opened(where)
    with backend(where).engine.begin() as connection:
        limit.drop(connection)
    journal = await opened(where)
    with pytest.raises(Exception, match="segments_async_limit"):
        rows(where, "SELECT * FROM segments_async_limit")
    assert await known(journal) == (None, 0)
    assert rows(where, "SELECT * FROM segments_async_limit") == []


async def test_a_forgotten_sum_has_another_name(where: str) -> None:
    """A new sum has another name, so that processes know that it lacks their reports."""
    journal = await opened(where)
    names: list[str] = []

    def tell(group: GroupView) -> Report:
        names.append(group.epoch)
        return Report(20.0, None, True, group.epoch)

    await journal.exchange("one", tell)
    await journal.exchange("two", tell)
    age(where, 2 * WORTH)
    await journal.exchange("one", tell)
    assert names[0] == names[1] != names[2]


async def test_those_that_wait_are_counted(where: str) -> None:
    """Every other process is counted while it waits."""
    journal = await opened(where)
    for name in ("one", "two", "three"):
        await journal.exchange(name, lambda _: Report(30.0, 10.0, True, SUM))
    await journal.exchange("three", lambda _: Report(30.0, None, False, SUM))
    assert await known(journal, "one") == (30.0, 1)
    assert await known(journal, "four") == (30.0, 1)


async def test_nobody_tells_in_between(where: str) -> None:
    """Reading and reporting are one step: the sum has all that twenty processes add at once.

    SQLite lets one process write at a time, and refuses after a second; the report is repeated.
    """
    journals = [await opened(where) for _ in range(4)]

    def add(group: GroupView) -> Report:
        return Report((group.limit or 0.0) + 1.0, None, True, group.epoch)

    async def tell(number: int) -> None:
        while True:
            try:
                await journals[number % 4].exchange(f"member {number}", add)
            except JournalError as exc:
                if exc.reason != "locked":
                    raise
            else:
                return

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(tell, number)
    assert await known(journals[0]) == (20.0, 20)


async def test_an_exchange_is_cheap(where: str) -> None:
    """One statement reads what all processes told, and at most two write what this one tells."""
    await opened(where)
    database, statements = backend(where), list[str]()

    def note(*arguments: Any) -> None:
        statements.append(arguments[2])

    def tell(group: GroupView) -> Report:
        return Report(20.0, 20.0, True, group.epoch)

    with database.engine.begin() as connection:
        exchange(connection, database, "one", tell)
        event.listen(connection, "before_cursor_execute", note)
        exchange(connection, database, "one", tell)
    reads = [one for one in statements if one.startswith("SELECT")]
    assert len(reads) == 1
    assert len(statements) <= 3
