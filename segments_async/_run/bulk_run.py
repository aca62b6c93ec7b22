"""A bulk run, as its caller uses it: entered, iterated over, asked for its progress, left."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic

import anyio
import attrs
from anyio.abc import TaskGroup

from segments_async._run.report import BulkReport
from segments_async._run.request import RunRequest
from segments_async._run.resources import Resources, progress_before_start
from segments_async._sansio.arguments import check_positive
from segments_async._sansio.files import naming
from segments_async.errors import ConfigurationError
from segments_async.models import Segment
from segments_async.results import Activity, NotExported, OutcomeT, Progress

if TYPE_CHECKING:
    from segments_async._run.run_session import RunSession


class BulkRun(Generic[OutcomeT]):
    """A bulk export under way: an async context manager, and an async iterable of outcomes.

    ``async for outcome in run`` yields each outcome as it ends, from the first on however late the
    loop starts, and again in each further loop. The run goes on whether or not anybody iterates.
    Leaving the block cancels what is unfinished; its outcomes can be iterated over afterwards.
    Errors of one export are outcomes; an error about the account (401, 403) ends the iteration as
    itself.
    """

    def __init__(self, resources: Resources, request: RunRequest) -> None:
        self._resources = resources
        self._request = request
        self._session: RunSession[OutcomeT] | None = None
        self._tasks: TaskGroup | None = None

    def __repr__(self) -> str:
        total = len(self._request.segments)
        if self._session is None:
            return f"<BulkRun of {total} segments, not entered>"
        told = len(self._session.outcomes.told)
        state = "ended" if self._session.outcomes.finished.is_set() else "under way"
        return f"<BulkRun {self.name:.80}: {told} of {total} segments have ended, {state}>"

    @property
    def name(self) -> str:
        """The run's name; empty before the run is entered, where the journal may know it."""
        return self._request.run or "" if self._session is None else self._session.name

    @property
    def progress(self) -> Progress:
        """How far the run is, now; of a shared run, with what this process has claimed."""
        if self._session is None:
            held = self._resources.held({"waiting": 1})
            total = len(self._request.segments)
            return progress_before_start(total, self._resources.gate.rate, held)
        return self._session.view.progress()

    def changes(self, interval: float = 1.0) -> AsyncIterator[Progress]:
        """Progress whenever the run moves: for server-sent events, and for bars.

        The first comes at once, the others as something changes besides the passing of time, and
        the last when the run has ended. An error that ends the run isn't raised here:
        :meth:`report` and the iteration over outcomes raise it.

        ::

            async for progress in run.changes():
                await send(progress.to_dict())

        Args:
            interval: seconds between two of them, at least.

        Raises:
            ConfigurationError: the run wasn't entered, or an interval that isn't above zero.
        """
        check_positive("interval", interval)
        return _Changes(self._entered(), interval)

    def activity(self, limit: int = 20) -> list[Activity]:
        """The exports under way, the one with the latest event first.

        Args:
            limit: how many at most.
        """
        return [] if self._session is None else self._session.view.activity(limit)

    def __aiter__(self) -> AsyncIterator[OutcomeT | NotExported]:
        return _Iterator(self._entered())

    async def report(self) -> BulkReport[OutcomeT]:
        """Wait for the run's end, and return its report.

        Of a shared run: for the end in all processes, with the outcomes of all.

        Raises:
            AuthenticationError: the account ended the run.
            PermissionDeniedError: the account ended the run.
            JournalError: of a shared run: the outcomes of the other processes can't be read.
        """
        session = self._entered()
        outcomes = session.outcomes
        await outcomes.finished.wait()
        if outcomes.error is not None:
            raise outcomes.error
        told, progress = await session.view.whole()
        missing = [o for o in told if isinstance(o, NotExported)]
        exported = [o for o in told if not isinstance(o, NotExported)]
        return BulkReport(
            name=session.name,
            exported=tuple(exported),
            not_exported=tuple(missing),
            started_at=session.started_at,
            ended_at=session.ended_at,
            progress=progress,
            history=session.view.history(),
        )

    async def __aenter__(self) -> BulkRun[OutcomeT]:
        if self._session is not None:
            raise ConfigurationError("a bulk run is entered once: open another one")
        from segments_async._run.telemetry import run_logged  # with the engine: see `_opened`

        self._session = session = await self._opened()
        # The task group's own scope is never cancelled: the caller's block is inside it, and a
        # failing run must not cancel what the caller is doing.
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        total, name = len(self._request.segments), f"bulk export {session.name}"
        self._tasks.start_soon(run_logged, session, total, name=name)
        return self

    async def _opened(self) -> RunSession[OutcomeT]:
        """The session; a run on an executor has one of its own."""
        from segments_async._run.open_session import open_session  # not at the top: see its head

        return await open_session(self._resources, self._request)

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._tasks is None or self._session is None:
            return
        self._session.scope.cancel()
        if isinstance(exc, anyio.get_cancelled_exc_class()):
            await self._tasks.__aexit__(exc_type, exc, traceback)
        else:
            # The caller's exception is not the task group's business: given to it, it would come
            # out inside an ExceptionGroup.
            await self._tasks.__aexit__(None, None, None)

    def _entered(self) -> RunSession[OutcomeT]:
        if self._session is None:
            raise ConfigurationError("a bulk run is entered first: async with ... as run")
        return self._session


def file_names(segments: Iterable[Segment | str]) -> dict[str, str]:
    """The name of the file that a bulk run gives each segment, by segment id.

    A readable name for a :class:`Segment` with a name, otherwise the id. No two are alike. A name
    depends on the other segments only where two would be alike without the whole id.
    """
    pairs = (
        (one.segment_id, one.name) if isinstance(one, Segment) else (one, None) for one in segments
    )
    return naming.file_names(pairs, encoding=sys.getfilesystemencoding())


class _Iterator(Generic[OutcomeT]):
    """Iterates over a run's outcomes, from the first, waiting for those to come.

    A class and not an async generator: a generator that is left early is closed whenever, in
    whatever task (PEP 789).
    """

    def __init__(self, session: RunSession[OutcomeT]) -> None:
        self._outcomes = session.outcomes
        self._index = 0

    def __aiter__(self) -> _Iterator[OutcomeT]:
        return self

    async def __anext__(self) -> OutcomeT | NotExported:
        outcome = await self._outcomes.get(self._index)
        if outcome is None:
            raise StopAsyncIteration
        self._index += 1
        return outcome


class _Changes:
    """Iterates over a run's progress, as it changes."""

    def __init__(self, session: RunSession[Any], interval: float) -> None:
        self._session = session
        self._interval = interval
        self._last: tuple[object, ...] | None = None
        self._ended = False

    def __aiter__(self) -> _Changes:
        return self

    async def __anext__(self) -> Progress:
        while not self._ended:
            if self._last is not None:
                with anyio.move_on_after(self._interval):
                    await self._session.outcomes.finished.wait()
            self._ended = self._session.outcomes.finished.is_set()
            progress = self._session.view.progress()
            moving = _moving(progress)
            if self._ended or moving != self._last:
                self._last = moving
                return progress
        raise StopAsyncIteration


def _moving(progress: Progress) -> tuple[object, ...]:
    """The parts of a progress that don't change by the passing of time alone."""
    held = progress.held and progress.held.reason
    still = attrs.evolve(progress, oldest_link_age=None, eta_seconds=None, held=None)
    return still, held
