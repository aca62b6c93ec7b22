"""The session of one batch of a shared run, in a worker: it ends when the batch is worked through.

The session claims the segments of the batch that no part has, and takes over a part that a dead
process of the same batch has left. Segments that a live process has are left to that process: a
batch that runs twice at the same time does no harm. The session leaves the run when the coordinator
is gone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import attrs

from segments_async._requests.sharing import read_news
from segments_async._run.request import RunRequest
from segments_async._run.resources import Resources
from segments_async._run.shared_session import SharedSession
from segments_async._sansio.jobs.parts import SharedView
from segments_async.results import OutcomeT

if TYPE_CHECKING:
    from segments_async._journal.coordinated_log import BatchLog


async def enter_batch(
    resources: Resources, request: RunRequest, round_: int, *, member: str
) -> BatchLog:
    """Enter the run of a coordinator, for the segments of this request.

    Args:
        request: the batch's segments.
        round_: the round that the coordinator works in.
        member: the beginning of this process's name in the run.

    Raises:
        JournalError: the journal can't be used, or lacks the run.
    """
    resources.check()
    if request.journal is None or request.run is None or request.destination is None:
        raise AssertionError("a batch without a journal, a run's name or a directory")
    from segments_async._journal.sql import SqlJournal

    journal = await SqlJournal.open(request.journal, account=resources.account, create=False)
    # Only now: without SQLAlchemy, an extra, `open` says what to install.
    from segments_async._journal.coordinated_log import BatchLog
    from segments_async._journal.shared import join

    find = partial(join, destination=request.directory, name=request.run, spec=None)
    joined = attrs.evolve(await journal.ask(find), round=round_)
    await read_news(resources.gate, journal)
    return BatchLog(journal, joined, list(request.segments), member)


class BatchSession(SharedSession[OutcomeT]):
    """A worker's session of one batch.

    Args:
        request: the batch's segments, in the order in which they are claimed.
        stopped: whether the worker's process is to end.

    Attributes:
        left: whether the session has left the run before the end of the batch.
    """

    def __init__(
        self,
        resources: Resources,
        request: RunRequest,
        entered: BatchLog,
        stopped: Callable[[], bool],
    ) -> None:
        super().__init__(resources, request, entered, list(request.segments))
        self._entered = entered
        self._stopped = stopped
        self.left: bool = False

    async def _look(self) -> SharedView:
        if not self._stopped():  # a process that is to end doesn't wait for the journal
            view = await super()._look()
            if self._entered.coordinated and view.round == self._entered.joined.round:
                return view
        self.left = True
        self._wanted.clear()
        self._parts.leave("this process was told to end, or the coordinator is gone")
        return SharedView(ended=False, round=0, internal_errors=0, parts=())

    async def _is_over(self, view: SharedView) -> bool:  # noqa: ARG002 - the batch's, not the run's
        return not self._parts.live and not self._wanted
