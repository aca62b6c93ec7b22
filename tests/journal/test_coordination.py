"""The lock of a coordinator, and what it reads of a run while others write, in PostgreSQL.

Of SQLite, both hold by themselves: its sessions can't be lost, and a reader sees one moment.
"""

from __future__ import annotations

from typing import Any

import pytest

from journal.lives import DESTINATION, opened
from journal.server import PostgresServer
from segments_async import JournalError
from segments_async._journal import coordination
from segments_async._journal.claiming import claim
from segments_async._journal.coordinated_log import CoordinatedRun
from segments_async._journal.records import RunSpec
from segments_async._journal.sql import SqlJournal

pytestmark = [pytest.mark.needs("PostgreSQL"), pytest.mark.alternating]

SPEC = RunSpec(segments=["a", "b"], options={})


async def coordinated(journal: SqlJournal) -> CoordinatedRun:
    return await journal.coordinate(destination=DESTINATION, name="nightly", spec=SPEC)


async def test_a_coordinator_that_lost_its_lock_to_another_one_is_told_so_each_time(
    postgres: PostgresServer,
) -> None:
    """The lock that the journal shows is the other one's: it is no proof of its own."""
    where = postgres.schema()
    first = await coordinated(await opened(where))
    await first.news()
    postgres.terminate()
    second = await coordinated(await opened(where))
    for _ in range(2):
        with pytest.raises(JournalError, match="another process gives out") as caught:
            await first.news()
        assert caught.value.reason == "locked"
    await second.news()
    await second.release()
    await first.news()  # free again
    await first.release()


async def test_a_part_that_is_claimed_during_a_look_is_not_worked_through(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its segments would be told as ended, while its process works at them."""
    journal = await opened(postgres.schema())
    run = await coordinated(journal)
    view_of, claimed = coordination.view_of, []

    def claims_then(database: Any, connection: Any, run_id: int) -> Any:
        view = view_of(database, connection, run_id)
        if not claimed:
            claimed.append(claim(database, run_id, "worker", [("a", "a.csv")], most=None))
        return view

    monkeypatch.setattr(coordination, "view_of", claims_then)
    news = await run.news()
    assert claimed[0].part is not None
    assert not news.settled
    news = await run.news()
    assert news.claimed == {"a": claimed[0].part.run_id}
    assert not news.settled
    assert news.locked == {claimed[0].part.run_id}
    claimed[0].close()
    await run.release()
