"""One bulk run: many segments, one set of workers, outcomes as they end."""

from __future__ import annotations

import heapq
import json
import logging
import math
from collections import deque
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from types import TracebackType
from typing import Any, Generic, cast

import anyio
import anyio.lowlevel
import anyio.to_thread
import attrs
from anyio.abc import TaskGroup

from segments_async._files.destination import Destination, append_lines
from segments_async._files.fetch import fetch_file
from segments_async._flight import POST_GRACE, Flight, Flights, fatal
from segments_async._gate import Gate, Inbox, Ticket
from segments_async._journal.memory import MemoryJournal
from segments_async._sansio.eta import eta_seconds
from segments_async._sansio.lifecycle import Event, State
from segments_async._sansio.retry import MOST_INTERNAL_ERRORS
from segments_async._sansio.schedule import Kind
from segments_async._storage import Storage
from segments_async.errors import (
    ConfigurationError,
    DownloadError,
    ExportExpiredError,
    ExportTimeoutError,
    NotSubmittedError,
    SegmentsError,
    SubmitUnknownError,
)
from segments_async.models import Completed, Export, Exported, NotExported
from segments_async.report import BulkReport, OutcomeT, Progress, outcome_line

logger: logging.Logger = logging.getLogger("segments_async")

#: Of the exports that ended last, so many durations tell how long the next ones may take.
_DURATIONS_KEPT = 500

_ACTIVE = frozenset({State.INTENT, State.SUBMITTED, State.COMPLETE, State.FETCHING})

#: How many segments are queued before other tasks get a turn.
_STARTED_AT_ONCE = 500


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


@attrs.frozen
class RunOptions:
    """What the caller asked of a run."""

    name: str
    timeout: float | None
    export_timeout: float
    expected_seconds: Mapping[str, float]
    downloads: int


class _Item:
    """One segment of the run."""

    __slots__ = ("bytes", "flight", "name", "segment_id")

    def __init__(self, segment_id: str, name: str | None) -> None:
        self.segment_id = segment_id
        self.name = name
        self.flight: Flight | None = None
        self.bytes = 0


class BulkRun(Generic[OutcomeT]):
    """A bulk export under way: an async context manager, and an async iterable of outcomes.

    ``async for outcome in run`` yields each outcome as it ends, from the first on however late the
    loop starts. The run goes on whether or not anybody iterates. Leaving the block cancels what is
    unfinished. Errors of one export are outcomes; an error about the account (401, 403) ends the
    iteration as itself.
    """

    def __init__(
        self,
        gate: Gate,
        flights: Flights,
        storage: Storage,
        download_slots: anyio.Semaphore,
        segments: Sequence[tuple[str, str | None]],
        destination: Destination | None,
        options: RunOptions,
    ) -> None:
        self._gate = gate
        self._flights = flights
        self._storage = storage
        self._download_slots = download_slots
        self._destination = destination
        self._options = options
        self._items = {segment_id: _Item(segment_id, name) for segment_id, name in segments}
        self._open = len(self._items)
        self._journal = MemoryJournal()
        for segment_id in self._items:
            self._journal.open(segment_id)

        self._outcomes: list[OutcomeT | NotExported] = []
        self._news = anyio.Event()
        self._over = False
        self._fatal: BaseException | None = None

        self._inbox: Inbox | None = None
        self._tasks: TaskGroup | None = None
        self._scope = anyio.CancelScope()
        self._patience = anyio.CancelScope()
        self._why = f"no time left after {options.timeout} s"
        self._workers: TaskGroup | None = None
        self._posts: set[anyio.CancelScope] = set()
        self._to_fetch: list[tuple[datetime, int, _Item]] = []
        self._queued = 0
        self._fetchers = 0
        self._active: dict[str, _Item] = {}
        self._unwritten: list[str] = []
        self._writing = False

        self._bytes = 0
        self._durations: deque[float] = deque(maxlen=_DURATIONS_KEPT)
        self._fetching: set[_Item] = set()
        self._fetched = 0
        self._fetch_time = 0.0
        self._started_at = self._ended_at = datetime.now(UTC)
        self._submitted_at = self._ended = 0.0
        self._requests_before = self._throttled_before = self._internal_errors_before = 0

    # ----------------------------------------------------------------- what callers use

    @property
    def name(self) -> str:
        """The run's name."""
        return self._options.name

    @property
    def progress(self) -> Progress:
        """How far the run is, now."""
        count = self._journal.count
        exported = count(State.DONE)
        fetching = count(State.COMPLETE, State.FETCHING)
        waiting, pending = count(State.NEW, State.INTENT), count(State.SUBMITTED)
        total = len(self._items)
        now = self._now()
        requests = self._gate.requests - self._requests_before
        return Progress(
            total=total,
            waiting=waiting,
            pending=pending,
            fetching=fetching,
            exported=exported,
            unchanged=0,
            not_exported=total - waiting - pending - fetching - exported,
            bytes=self._bytes,
            requests=requests,
            throttled=self._gate.throttled - self._throttled_before,
            rate=self._gate.rate,
            oldest_link_age=self._oldest_link_age(),
            eta_seconds=eta_seconds(
                waiting=waiting,
                pending=pending,
                fetching=fetching,
                rate=self._gate.rate,
                requests=requests,
                durations=self._durations,
                oldest=self._oldest_pending(now),
                newest=now - self._submitted_at,
                fetch_seconds=self._fetch_seconds(),
            ),
        )

    def activity(self, limit: int = 20) -> list[Activity]:
        """The exports under way, the one that something happened to last first."""
        now = anyio.current_time()
        latest = list(self._active.values())[: -limit - 1 : -1]
        return [
            Activity(
                item.segment_id,
                item.flight.export_id if item.flight else None,
                item.name,
                self._journal.state(item.segment_id).value,
                _age(item, now),
                item.bytes,
            )
            for item in latest
        ]

    def __aiter__(self) -> AsyncIterator[OutcomeT | NotExported]:
        return _Outcomes(self)

    async def outcome(self, index: int) -> OutcomeT | NotExported | None:
        """The outcome number `index`, counted from 0 as they ended; None after the last.

        Raises:
            AuthenticationError, PermissionDeniedError: the account ended the run before it.
        """
        while index >= len(self._outcomes):
            if self._over:
                self._raise_fatal()
                return None
            await self._wait()
        return self._outcomes[index]

    async def report(self) -> BulkReport[OutcomeT]:
        """Wait for the run's end, and return what it came to.

        Raises:
            AuthenticationError, PermissionDeniedError: the account ended the run.
        """
        while not self._over:
            await self._wait()
        self._raise_fatal()
        missing = [o for o in self._outcomes if isinstance(o, NotExported)]
        exported = [o for o in self._outcomes if not isinstance(o, NotExported)]
        return BulkReport(
            name=self.name,
            exported=tuple(exported),
            not_exported=tuple(missing),
            started_at=self._started_at,
            ended_at=self._ended_at,
            progress=self.progress,
        )

    async def _wait(self) -> None:
        if self._tasks is None:
            raise ConfigurationError("a bulk run is entered first: async with ... as run")
        await self._news.wait()

    async def __aenter__(self) -> BulkRun[OutcomeT]:
        obstacles: Mapping[str, SegmentsError] = {}
        if self._destination is not None:
            obstacles = await anyio.to_thread.run_sync(self._destination.prepare)
        self._started_at = datetime.now(UTC)
        self._requests_before = self._gate.requests
        self._throttled_before = self._gate.throttled
        self._internal_errors_before = self._gate.guard.internal_errors
        # The task group's own scope is never cancelled: the caller's block is inside it, and a
        # failing run must not cancel what the caller is doing.
        self._tasks = anyio.create_task_group()
        await self._tasks.__aenter__()
        self._tasks.start_soon(self._engine, obstacles, name=f"bulk export {self.name}")
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._tasks is None:
            return
        self._scope.cancel()
        if isinstance(exc, anyio.get_cancelled_exc_class()):
            await self._tasks.__aexit__(exc_type, exc, traceback)
        else:
            # The caller's exception is not the task group's business: given to it, it would come
            # out inside an ExceptionGroup.
            await self._tasks.__aexit__(None, None, None)

    # ----------------------------------------------------------------- Party: what flights tell

    @property
    def inbox(self) -> Inbox:
        """Where the gate puts the run's tickets."""
        if self._inbox is None:
            raise AssertionError("the run has no inbox before it starts")
        return self._inbox

    async def record(self, flight: Flight, event: Event) -> None:
        """A flight of this run moved on."""
        if flight.segment_id is None:
            raise AssertionError("a run's flights have segments")
        if event is Event.ACCEPTED:
            self._submitted_at = flight.submitted_at
        await self._record(self._items[flight.segment_id], event)

    async def unfinished(self, flight: Flight) -> None:
        """A poll brought no end; `export_timeout` is looked at here, and needs no timer."""
        item = self._items[flight.segment_id or ""]
        patience = self._options.export_timeout
        if anyio.current_time() - flight.submitted_at > patience and item.flight is flight:
            error = ExportTimeoutError(
                f"segment {item.segment_id}: not finished within {patience:g} s; the export goes "
                "on at the vendor",
                segment_id=item.segment_id,
                export=flight.export,
            )
            await self._give_up(item, error)

    async def ended(self, flight: Flight) -> None:
        """A flight of this run ended, perhaps in another caller's task."""
        item = self._items[flight.segment_id or ""]
        if item.flight is not flight:
            return
        if flight.error is not None:
            error = flight.fresh_error()
            outcome = NotExported(
                item.segment_id, flight.export, error, flight.submitted, flight.resumable
            )
            self._settle(item, outcome)
            if fatal(error):
                self._fatal = self._fatal or error
                self._patience.cancel()
            return
        export = _export_of(item)
        if export.end_time is not None:
            self._durations.append((export.end_time - export.start_time).total_seconds())
        if self._destination is None:
            await self._record(item, Event.FETCHED)
            completed = Completed(item.segment_id, _export_of(item))
            self._settle(item, cast(OutcomeT, completed))
        else:
            self._queue_fetch(item)

    # ----------------------------------------------------------------- the engine

    async def _engine(self, obstacles: Mapping[str, SegmentsError]) -> None:
        """Run to the end, and keep what ends it for whoever iterates."""
        with self._gate.inbox() as self._inbox:
            try:
                with self._scope:
                    with anyio.move_on_after(self._options.timeout) as self._patience:
                        await self._work(obstacles)
                    if self._patience.cancelled_caught and self._fatal is None:
                        await self._give_up_rest()
                if self._scope.cancelled_caught and self._fatal is None:
                    self._why = "the run was left before its end"
                    with anyio.CancelScope(shield=True):
                        await self._give_up_rest()
            except BaseExceptionGroup as group:
                self._fatal = _sole(group)
                if not isinstance(self._fatal, SegmentsError):
                    logger.error("bulk export %s broke off", self.name, exc_info=self._fatal)
            finally:
                await self._finish()

    async def _work(self, obstacles: Mapping[str, SegmentsError]) -> None:
        try:
            async with anyio.create_task_group() as self._workers:
                await self._dispatch(obstacles)
        finally:
            self._workers = None

    async def _dispatch(self, obstacles: Mapping[str, SegmentsError]) -> None:
        try:
            await self._start_all(obstacles)
            while self._open:
                ticket = await self._gate.next(self.inbox)
                if ticket is not None:  # None wakes: the last outcome came from a worker
                    self._spawn(self._perform, ticket)
        except anyio.get_cancelled_exc_class():
            # POSTs on the wire are shielded: what they bring is an id that must not be lost.
            until = anyio.current_time() + POST_GRACE
            for scope in self._posts:
                scope.deadline = min(scope.deadline, until)
            raise

    async def _finish(self) -> None:
        """Whatever ended the run: leave the flights, write the last lines, tell who waits."""
        for item in self._items.values():
            self._leave(item)
        self._flights.hand_back(self.inbox)
        self._over = True
        self._ended = anyio.current_time()
        self._ended_at = datetime.now(UTC)
        with anyio.CancelScope(shield=True):
            await self._write_manifest()
        self._tell()

    async def _start_all(self, obstacles: Mapping[str, SegmentsError]) -> None:
        for number, item in enumerate(self._items.values(), 1):
            if problem := obstacles.get(item.segment_id):
                await self._give_up(item, problem)
            else:
                await self._start(item)
            if number % _STARTED_AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()

    async def _start(self, item: _Item) -> None:
        expected = self._options.expected_seconds.get(item.segment_id, 0.0)
        flight = self._flights.join_segment(self, item.segment_id, expected_seconds=expected)
        item.flight = flight
        if flight.state is State.INTENT:
            await self._record(item, Event.INTENT)
        elif flight.state is State.SUBMITTED:
            await self._record(item, Event.ADOPTED)

    def _spawn(self, function: Callable[..., Coroutine[Any, Any, None]], *args: object) -> None:
        """Start a worker. None is started any more once the run's time is up."""
        if self._workers is not None:
            self._workers.start_soon(function, *args)

    async def _perform(self, ticket: Ticket) -> None:
        """Send one granted request. At most as many at once as the gate has slots."""
        try:
            await anyio.lowlevel.checkpoint_if_cancelled()
        except anyio.get_cancelled_exc_class():
            self.inbox.items.append(ticket)  # `_finish` hands it back
            raise
        if ticket.want.kind is Kind.SUBMIT:
            await self._perform_post(ticket)
        else:
            await self._flights.perform(ticket)
        count = self._gate.guard.internal_errors - self._internal_errors_before
        if count >= MOST_INTERNAL_ERRORS:
            # Each 500 raises a ticket with the vendor: six of them are enough for one run.
            self._why = f"the vendor answered {count} requests with 500"
            self._patience.cancel()

    async def _perform_post(self, ticket: Ticket) -> None:
        with anyio.CancelScope(shield=True) as scope:
            self._posts.add(scope)
            try:
                await self._flights.perform(ticket)
            finally:
                self._posts.discard(scope)

    # ----------------------------------------------------------------- fetching

    def _queue_fetch(self, item: _Item) -> None:
        """Oldest first: files stay for 48 hours."""
        export = _export_of(item)
        self._queued += 1
        since = export.end_time or export.start_time
        heapq.heappush(self._to_fetch, (since, self._queued, item))
        if self._fetchers < self._options.downloads:
            self._fetchers += 1
            self._spawn(self._fetch_all)

    async def _fetch_all(self) -> None:
        """Fetch until nothing waits to be fetched."""
        try:
            while self._to_fetch:
                async with self._download_slots:
                    if self._to_fetch:
                        await self._fetch(heapq.heappop(self._to_fetch)[2])
        finally:
            self._fetchers -= 1

    async def _fetch(self, item: _Item) -> None:
        if self._destination is None:
            raise AssertionError("nowhere to put the file")
        export = _export_of(item)
        target = self._destination.path(item.segment_id)
        await self._record(item, Event.FETCH)
        began = anyio.current_time()
        self._fetching.add(item)
        try:
            file = await fetch_file(
                self._storage, export, target, progress=partial(self._on_bytes, item)
            )
        except ExportExpiredError as exc:
            await self._record(item, Event.EXPIRED)
            outcome = NotExported(item.segment_id, export, exc, "yes", resumable=False)
            self._settle(item, outcome)
        except DownloadError as exc:
            await self._give_up(item, exc)
            if exc.reason == "link_refused":
                await self._stop_submits(exc)
        except Exception as exc:
            # Nobody else is harmed by what one file's link or storage's answer can still hold.
            logger.exception("fetching the file of export %s", export.export_id)
            text = f"file of export {export.export_id}: {type(exc).__name__}"
            await self._give_up(item, DownloadError(text, reason="broken", export=export))
        else:
            self._fetched += 1
            self._fetch_time += anyio.current_time() - began
            await self._record(item, Event.FETCHED)
            self._settle(item, cast(OutcomeT, Exported(item.segment_id, export, file)))
        finally:
            self._fetching.discard(item)

    def _on_bytes(self, item: _Item, size: int) -> None:
        self._bytes += size - item.bytes
        item.bytes = size

    # ----------------------------------------------------------------- ends

    async def _stop_submits(self, because: SegmentsError) -> None:
        """What would be refused for every export is asked for no more."""
        for item in self._items.values():
            if item.flight is not None and item.flight.state is State.NEW:
                error = NotSubmittedError(
                    f"segment {item.segment_id}: not submitted, after: {because}",
                    segment_id=item.segment_id,
                )
                await self._give_up(item, error)

    async def _give_up_rest(self) -> None:
        """Time is up: what is unfinished ends, as resumable as it is."""
        for item in self._items.values():
            if item.flight is None:
                continue
            if item.flight.state is State.INTENT:
                await self._leave_post(item)
                continue
            kind = NotSubmittedError if item.flight.submitted == "no" else ExportTimeoutError
            state = "not submitted" if kind is NotSubmittedError else "the export is not lost"
            error = kind(
                f"segment {item.segment_id}: {self._why}; {state}",
                segment_id=item.segment_id,
                export=item.flight.export,
            )
            await self._give_up(item, error)

    async def _leave_post(self, item: _Item) -> None:
        """Time is up in mid-POST of another caller, who shares the export: no grace is ours."""
        error = SubmitUnknownError(
            f"segment {item.segment_id}: {self._why}; the export may be running at the vendor",
            segment_id=item.segment_id,
        )
        await self._record(item, Event.LOST)
        self._settle(item, NotExported(item.segment_id, None, error, "maybe", resumable=False))

    async def _give_up(self, item: _Item, error: SegmentsError) -> None:
        """End an export of which nothing is lost."""
        flight = item.flight
        await self._record(item, Event.GAVE_UP)
        self._leave(item)
        outcome = NotExported(
            item.segment_id,
            flight.export if flight else None,
            error,
            flight.submitted if flight else "no",
            resumable=True,
        )
        self._settle(item, outcome)

    def _leave(self, item: _Item) -> None:
        if item.flight is not None:
            self._flights.leave(self, item.flight)
            item.flight = None

    def _settle(self, item: _Item, outcome: OutcomeT | NotExported) -> None:
        """The segment's outcome is known."""
        self._leave(item)
        self._outcomes.append(outcome)
        if self._destination is not None:
            line = outcome_line(outcome, run=self.name, name=item.name)
            self._unwritten.append(json.dumps(line))
            if not self._writing:
                self._spawn(self._write_manifest)
        self._open -= 1
        if not self._open:
            self.inbox.deliver(None)
        self._tell()

    async def _write_manifest(self) -> None:
        """Append the outcomes' lines: one writer at a time, as many lines as have gathered."""
        if self._destination is None or self._writing:
            return
        self._writing = True
        try:
            while self._unwritten:
                lines, self._unwritten = self._unwritten, []
                # Cancelled before it starts, the thread would never write these lines.
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(append_lines, self._destination.manifest, lines)
        except OSError as exc:
            logger.error("can't write %s: %s", self._destination.manifest, exc)
        finally:
            self._writing = False

    def _tell(self) -> None:
        """Wake whoever iterates or waits for the report."""
        self._news.set()
        self._news = anyio.Event()

    async def _record(self, item: _Item, event: Event) -> None:
        await self._journal.record(item.segment_id, event)
        self._active.pop(item.segment_id, None)
        if self._journal.state(item.segment_id) in _ACTIVE:
            self._active[item.segment_id] = item

    # ----------------------------------------------------------------- figures

    def _oldest_link_age(self) -> float | None:
        """Of the exports that are complete and not fetched; those being fetched are a few."""
        waiting = [self._to_fetch[0][0]] if self._to_fetch else []
        fetching = [_export_of(item).end_time for item in self._fetching if item.flight]
        since = min((moment for moment in waiting + fetching if moment), default=None)
        if since is None:
            return None
        return max(0.0, (datetime.now(UTC) - since).total_seconds())

    def _oldest_pending(self, now: float) -> float:
        """How long the first of the pending exports is known to have taken; 0 without one."""
        # In the order in which something happened to them last, and to pending ones that was
        # their submit: only the few that are being submitted or fetched stand before the oldest.
        for item in self._active.values():
            if item.flight and item.flight.state is State.SUBMITTED:
                # When it was last asked about, its next poll was put a little later than that.
                known = item.flight.want.key - item.flight.submitted_at
                return min(known, _age(item, now))
        return 0.0

    def _now(self) -> float:
        """Seconds; of the run's end once it is over, when no event loop need be running."""
        return self._ended if self._over else anyio.current_time()

    def _fetch_seconds(self) -> float:
        """Seconds for one file on average, several being fetched at once."""
        if not self._fetched:
            return 0.0
        return self._fetch_time / self._fetched / self._options.downloads

    def _raise_fatal(self) -> None:
        if self._fatal is not None:
            raise self._fatal


class _Outcomes(Generic[OutcomeT]):
    """Iterates over a run's outcomes, from the first, waiting for those to come.

    A class and not an async generator: a generator that is left early is closed whenever, in
    whatever task (PEP 789).
    """

    def __init__(self, run: BulkRun[OutcomeT]) -> None:
        self._run = run
        self._index = 0

    def __aiter__(self) -> _Outcomes[OutcomeT]:
        return self

    async def __anext__(self) -> OutcomeT | NotExported:
        outcome = await self._run.outcome(self._index)
        if outcome is None:
            raise StopAsyncIteration
        self._index += 1
        return outcome


def _sole(exc: BaseException) -> BaseException:
    """The first exception in a group that is no group itself."""
    while isinstance(exc, BaseExceptionGroup):
        exc = cast(BaseException, exc.exceptions[0])
    return exc


def _export_of(item: _Item) -> Export:
    if item.flight is None or item.flight.export is None:
        raise AssertionError("an export that is complete has an answer")
    return item.flight.export


def _age(item: _Item, now: float) -> float:
    """Seconds since the POST was accepted; 0 before."""
    since = item.flight.submitted_at if item.flight else math.nan
    return 0.0 if math.isnan(since) else now - since
