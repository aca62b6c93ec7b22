"""A shared run as its coordinator sees it, and as the process of one batch does. For coroutines."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from segments_async._journal import coordination, shared
from segments_async._journal.claiming import Claimed
from segments_async._journal.shared_log import SharedRunLog
from segments_async._sansio.jobs.parts import SharedView
from segments_async._sansio.pace.shared_outage import News

if TYPE_CHECKING:
    from segments_async._journal.database import Database
    from segments_async._journal.sql import SqlJournal


class BatchLog(SharedRunLog):
    """The shared run as a worker sees it: only the parts of one batch.

    Args:
        member: the beginning of this process's name in the run, by which the coordinator
            recognises its own workers.

    Attributes:
        coordinated: whether the coordinator was there at the last look.
    """

    def __init__(
        self, journal: SqlJournal, joined: shared.Joined, segment_ids: Sequence[str], member: str
    ) -> None:
        super().__init__(journal, joined)
        self.member = f"{member}{self.member}"[: len(self.member)]
        self._ids = segment_ids
        self.coordinated: bool = True

    async def look(self) -> tuple[SharedView, News]:
        """How the batch's parts of the run stand, and what the account's processes tell each other.

        Raises:
            JournalError: the journal can't be read, or the run was deleted.
        """
        look = partial(coordination.look_at_batch, run_id=self.joined.run_id, segment_ids=self._ids)
        view, news, self.coordinated = await self.journal.ask(look)
        return view, news

    async def claim(
        self,
        wanted: Sequence[tuple[str, str | None]],
        most: int | None,  # noqa: ARG002 - all of them are this process's, however fast it is
    ) -> Claimed:
        """Claim all of these segments that have no part."""
        return await super().claim(wanted, None)


class CoordinatedRun(SharedRunLog):
    """The shared run whose segments this process gives out.

    Args:
        lock: of the run's row.
    """

    def __init__(
        self, journal: SqlJournal, joined: shared.Joined, lock: coordination.CoordinatorLock
    ) -> None:
        super().__init__(journal, joined)
        self._lock = lock
        self._following: coordination.Following | None = None

    async def news(self) -> coordination.News:
        """What the journal has that it had not at the last look.

        Raises:
            JournalError: the journal can't be read, or another process gives out the segments now.
        """
        await self.journal.ask(lambda _: self._lock.renew())
        return await self.last_news()

    async def last_news(self) -> coordination.News:
        """As `news`, after :meth:`release`.

        Raises:
            JournalError: the journal can't be read.
        """
        kept, self._following = self._following, None

        def look(database: Database) -> tuple[coordination.Following, coordination.News]:
            nonlocal kept
            # After an error, the next look reads all events again: some may have been read in vain.
            following, kept = kept or coordination.Following(database, self.joined.run_id), None
            return following, following.look()

        self._following, news = await self.journal.ask(look)
        return news

    async def release(self) -> None:
        """Release the run: its workers leave it within a second or two."""
        await self.journal.ask(lambda _: self._lock.close())
