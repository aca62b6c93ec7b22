"""One bulk run, as its caller sees it: entered, iterated over, asked how far it is, left."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Generic

import anyio
import attrs
from anyio.abc import TaskGroup

from segments_async._run.engine import Engine
from segments_async._run.start import Opening
from segments_async._sansio.files import naming
from segments_async.errors import ConfigurationError
from segments_async.models import Segment
from segments_async.results import BulkReport, NotExported, OutcomeT, Progress


@attrs.frozen
class Activity:
    """One export under way, for people who watch.

    Attributes:
        segment_id: the segment.
        export_id: the vendor's id; None before its POST is accepted.
        name: the segment's, where known.
        state: ``"intent"``, ``"submitted"``, ``"complete"`` (waiting to be fetched) or
            ``"fetching"``.
        age: seconds since its POST was accepted; 0 before.
        bytes: of its file, fetched so far.
    """

    segment_id: str
    export_id: str | None
    name: str | None
    state: str
    age: float
    bytes: int


class BulkRun(Generic[OutcomeT]):
    """A bulk export under way: an async context manager, and an async iterable of outcomes.

    ``async for outcome in run`` yields each outcome as it ends, from the first on however late the
    loop starts, and again in each further loop. The run goes on whether or not anybody iterates.
    Leaving the block cancels what is unfinished; its outcomes can be iterated over afterwards.
    Errors of one export are outcomes; an error about the account (401, 403) ends the iteration as
    itself.
    """

    def __init__(self, engine: Engine[OutcomeT], opening: Opening) -> None:
        self._engine = engine
        self._opening = opening
        self._tasks: TaskGroup | None = None

    @property
    def name(self) -> str:
        """The run's name; empty before the run is entered, where the journal may know it."""
        return self._engine.name or self._opening.run or ""

    @property
    def progress(self) -> Progress:
        """How far the run is, now."""
        return self._engine.progress()

    def activity(self, limit: int = 20) -> list[Activity]:
        """The exports under way, the one that something happened to last first."""
        now = anyio.current_time()
        return [
            Activity(
                item.segment_id,
                item.shared.export_id if item.shared else None,
                item.name,
                state.value,
                0.0 if item.submitted_at is None else now - item.submitted_at,
                item.bytes,
            )
            for item, state in self._engine.latest(limit)
        ]

    def __aiter__(self) -> AsyncIterator[OutcomeT | NotExported]:
        if self._tasks is None:
            raise ConfigurationError(_NOT_ENTERED)
        return _Outcomes(self._engine)

    async def report(self) -> BulkReport[OutcomeT]:
        """Wait for the run's end, and return what it came to.

        Raises:
            AuthenticationError, PermissionDeniedError: the account ended the run.
        """
        if self._tasks is None:
            raise ConfigurationError(_NOT_ENTERED)
        engine = self._engine
        await engine.over.wait()
        if engine.fatal is not None:
            raise engine.fatal
        missing = [o for o in engine.outcomes if isinstance(o, NotExported)]
        exported = [o for o in engine.outcomes if not isinstance(o, NotExported)]
        return BulkReport(
            name=self.name,
            exported=tuple(exported),
            not_exported=tuple(missing),
            started_at=engine.stats.started_at,
            ended_at=engine.stats.ended_at,
            progress=self.progress,
        )

    async def __aenter__(self) -> BulkRun[OutcomeT]:
        beginning = await self._opening.begin()
        self._engine.begin(beginning)
        # The task group's own scope is never cancelled: the caller's block is inside it, and a
        # failing run must not cancel what the caller is doing.
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._engine.run, beginning, name=f"bulk export {self.name}")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._tasks is None:
            return
        self._engine.scope.cancel()
        if isinstance(exc, anyio.get_cancelled_exc_class()):
            await self._tasks.__aexit__(exc_type, exc, traceback)
        else:
            # The caller's exception is not the task group's business: given to it, it would come
            # out inside an ExceptionGroup.
            await self._tasks.__aexit__(None, None, None)


_NOT_ENTERED = "a bulk run is entered first: async with ... as run"


def file_names(segments: Iterable[Segment | str]) -> dict[str, str]:
    """The name of the file that a bulk run gives each segment, by segment id.

    A readable name for a :class:`Segment` with a name, otherwise the id. No two are alike. A name
    depends on the other segments only where two would be alike without the whole id.
    """
    return naming.file_names(
        (one.segment_id, one.name) if isinstance(one, Segment) else (one, None) for one in segments
    )


class _Outcomes(Generic[OutcomeT]):
    """Iterates over a run's outcomes, from the first, waiting for those to come.

    A class and not an async generator: a generator that is left early is closed whenever, in
    whatever task (PEP 789).
    """

    def __init__(self, engine: Engine[OutcomeT]) -> None:
        self._engine = engine
        self._index = 0

    def __aiter__(self) -> _Outcomes[OutcomeT]:
        return self

    async def __anext__(self) -> OutcomeT | NotExported:
        engine = self._engine
        while self._index >= len(engine.outcomes):
            if engine.over.is_set():
                if engine.fatal is not None:
                    raise engine.fatal
                raise StopAsyncIteration
            await engine.wait_for_outcome()
        self._index += 1
        return engine.outcomes[self._index - 1]
