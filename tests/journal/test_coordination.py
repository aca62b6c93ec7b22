"""The lock of a coordinator, and what it reads of a run while others write, in PostgreSQL.

Of SQLite, both hold by themselves: its sessions can't be lost, and a reader sees one moment.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest

from journal.lives import DESTINATION, live, opened
from journal.server import PostgresServer
from segments_async import JournalError
from segments_async._journal import coordination
from segments_async._journal.claiming import claim
from segments_async._journal.coordinated_log import CoordinatedRun
from segments_async._journal.records import RunSpec
from segments_async._journal.refusals import Locked
from segments_async._journal.sql import SqlJournal
from segments_async._sansio.jobs.lifecycle import Event, State

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


async def test_a_look_that_is_made_again_misses_nothing(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table is locked in the middle of a look: the next attempt has what the first one read."""
    journal = await opened(postgres.schema())
    run = await coordinated(journal)
    await run.news()
    take = partial(
        claim, run_id=run.joined.run_id, member="worker", wanted=[("a", None)], most=None
    )
    claimed = await journal.hand_over(take)
    assert claimed.part is not None
    await live(claimed.part.log, "a", (Event.INTENT, Event.ACCEPTED))
    present, attempts = coordination.in_present_directory, []

    def locked_at_first(*arguments: Any) -> Any:
        attempts.append(arguments)
        if len(attempts) == 1:
            raise Locked("a table is locked")
        return present(*arguments)

    monkeypatch.setattr(coordination, "in_present_directory", locked_at_first)
    news = await run.news()
    assert len(attempts) == 2
    assert news.claimed == {"a": claimed.part.run_id}
    assert news.records["a"].state is State.SUBMITTED
    await claimed.part.log.aclose()
    await run.release()
