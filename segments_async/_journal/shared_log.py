"""The shared run as its process sees it: the journal's questions, asked in worker threads."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from segments_async._journal import claiming, shared, shared_marks
from segments_async._journal.claiming import Claimed, PartLog
from segments_async._journal.shared_rows import Recorded, whole
from segments_async._sansio.jobs.parts import SharedView
from segments_async._sansio.pace.shared_outage import News

if TYPE_CHECKING:
    from segments_async._journal.sql import SqlJournal


class SharedRunLog:
    """A shared run that this process has joined."""

    def __init__(self, journal: SqlJournal, joined: shared.Joined) -> None:
        self.journal: SqlJournal = journal
        self.joined: shared.Joined = joined
        #: This process's name in the run: another one for each session.
        self.member: str = uuid.uuid4().hex

    async def look(self) -> tuple[SharedView, News]:
        """How the run stands, and what the account's processes tell each other.

        Raises:
            JournalError: the journal can't be read, or the run was deleted.
        """
        return await self.journal.ask(partial(shared.look, run_id=self.joined.run_id))

    async def claim(self, wanted: Sequence[tuple[str, str | None]], most: int | None) -> Claimed:
        """Claim some segments; see `claiming.claim`."""
        run_id, member = self.joined.run_id, self.member
        claim = partial(claiming.claim, run_id=run_id, member=member, wanted=wanted, most=most)
        return await self.journal.hand_over(claim)

    async def take_over(self, part_id: int) -> PartLog | None:
        """Open a part whose process is gone; None where another process has been quicker."""
        take = partial(
            claiming.take_over, run_id=self.joined.run_id, part_id=part_id, member=self.member
        )
        return (await self.journal.hand_over(take)).part

    async def leave_over(self, part_id: int) -> None:
        """Leave what a part has left to the next round."""
        leave = partial(claiming.leave_over, part_id=part_id, member=self.member)
        await self.journal.ask(leave)

    async def add_internal_errors(self, count: int) -> None:
        """Count answers of 500 for the whole run."""
        run_id, round_ = self.joined.run_id, self.joined.round
        add = partial(shared.add_internal_errors, run_id=run_id, round_=round_, count=count)
        await self.journal.ask(add)

    async def finish(self) -> tuple[bool, list[str]]:
        """Write the run's end, if it has come; see `shared.finish`."""
        return await self.journal.ask(partial(shared.finish, run_id=self.joined.run_id))

    async def tidy(self, destination: str | None) -> None:
        """Replace the marks of ended runs' parts in this directory; see `shared_marks.tidy`."""
        await self.journal.ask(partial(shared_marks.tidy, destination=destination))

    async def whole(self) -> list[Recorded]:
        """Every segment of the run, as the journal has it."""
        run_id = self.joined.run_id
        return await self.journal.ask(lambda database: list(whole(database, run_id)))
