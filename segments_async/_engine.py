"""A bulk run at work: which of its exports stand where, and what is done about it."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Generic, cast

import anyio
import anyio.lowlevel
import attrs
from anyio.abc import TaskGroup

from segments_async._fetches import Fetches
from segments_async._files.destination import Destination
from segments_async._files.fetch import fetch_file
from segments_async._flight import POST_GRACE, Flight, Flights, fatal
from segments_async._gate import Gate, Inbox, Ticket
from segments_async._manifest import Manifest
from segments_async._sansio.eta import eta_seconds
from segments_async._sansio.lifecycle import Event, State
from segments_async._sansio.retry import MOST_INTERNAL_ERRORS
from segments_async._sansio.schedule import Kind
from segments_async._sansio.tally import Tally
from segments_async._storage import Storage
from segments_async._workers import Desk
from segments_async.errors import (
    DownloadError,
    ExportExpiredError,
    ExportTimeoutError,
    NotSubmittedError,
    SegmentsError,
    SubmitUnknownError,
)
from segments_async.models import Completed, Export, Exported, NotExported
from segments_async.report import OutcomeT, Progress, outcome_line

logger: logging.Logger = logging.getLogger("segments_async")

#: Of the exports that ended last, so many durations tell how long the next ones may take.
_DURATIONS_KEPT = 500

_ACTIVE = frozenset({State.INTENT, State.SUBMITTED, State.COMPLETE, State.FETCHING})

#: How many segments are queued before other tasks get a turn.
_STARTED_AT_ONCE = 500


@attrs.frozen
class RunOptions:
    """What the caller asked of a run."""

    name: str
    timeout: float | None
    export_timeout: float
    expected_seconds: Mapping[str, float]
    downloads: int


class Item:
    """One segment of the run."""

    __slots__ = ("bytes", "flight", "name", "segment_id")

    def __init__(self, segment_id: str, name: str | None) -> None:
        self.segment_id: str = segment_id
        self.name: str | None = name
        self.flight: Flight | None = None
        self.bytes: int = 0

    @property
    def submitted_at(self) -> float | None:
        """When its POST was accepted; None before."""
        at = self.flight.submitted_at if self.flight else math.nan
        return None if math.isnan(at) else at


class Engine(Generic[OutcomeT]):
    """A party to the flights of its segments; keeps their outcomes for whoever iterates."""

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
        self._manifest = None if destination is None else Manifest(destination.manifest)
        self.options: RunOptions = options
        self._items = {segment_id: Item(segment_id, name) for segment_id, name in segments}
        self._open = len(self._items)
        self._tally = Tally()
        for segment_id in self._items:
            self._tally.open(segment_id)

        #: As they ended.
        self.outcomes: list[OutcomeT | NotExported] = []
        self._news: anyio.Event | None = None
        #: Set when there will be no more of them.
        self.over: anyio.Event = anyio.Event()
        #: What ended the run before its end, other than its caller.
        self.fatal: BaseException | None = None

        self._desk = Desk(self._perform)
        #: Cancelled when the caller leaves the run.
        self.scope: anyio.CancelScope = anyio.CancelScope()
        self._patience = anyio.CancelScope()
        self._why = f"no time left after {options.timeout} s"
        self._tasks: TaskGroup | None = None
        self._posts: set[Ticket] = set()
        self._fetches: Fetches[Item] = Fetches(self._fetch, download_slots, options.downloads)
        self._active: dict[str, Item] = {}

        self._bytes = 0
        self._durations: deque[float] = deque(maxlen=_DURATIONS_KEPT)
        self.started_at: datetime = datetime.now(UTC)
        self.ended_at: datetime = self.started_at
        self._submitted_at = self._ended = 0.0
        self._requests_before = self._throttled_before = self._internal_errors_before = 0

    # ----------------------------------------------------------------- Party: what flights tell

    @property
    def inbox(self) -> Inbox:
        """Where the gate puts the run's tickets."""
        return self._desk

    async def record(self, flight: Flight, event: Event) -> None:
        """A flight of this run moved on."""
        if event is Event.ACCEPTED:
            self._submitted_at = flight.submitted_at
        await self._record(self._item_of(flight), event)

    async def unfinished(self, flight: Flight, now: float) -> None:
        """A poll brought no end; `export_timeout` is looked at here, and needs no timer."""
        patience = self.options.export_timeout
        if now - flight.submitted_at <= patience:
            return
        item = self._item_of(flight)
        if item.flight is flight:
            error = ExportTimeoutError(
                f"segment {item.segment_id}: not finished within {patience:g} s; the export goes "
                "on at the vendor",
                segment_id=item.segment_id,
                export=flight.export,
            )
            await self._give_up(item, error)

    async def ended(self, flight: Flight) -> None:
        """A flight of this run ended, perhaps in another caller's task."""
        item = self._item_of(flight)
        if item.flight is not flight:
            return
        if flight.error is not None:
            self._settle_failed(item, flight)
            return
        export = _export_of(flight)
        if export.end_time is not None:
            self._durations.append((export.end_time - export.start_time).total_seconds())
        if self._destination is None:
            await self._record(item, Event.FETCHED)
            self._settle(item, cast(OutcomeT, Completed(item.segment_id, export)))
        else:
            self._fetches.add(item, export, self._tasks)

    def _item_of(self, flight: Flight) -> Item:
        if flight.segment_id is None:
            raise AssertionError("a run's flights have segments")
        return self._items[flight.segment_id]

    # ----------------------------------------------------------------- from beginning to end

    async def wait_for_news(self) -> None:
        """Wait for the next outcome, or for the end."""
        self._news = self._news or anyio.Event()
        await self._news.wait()

    def begin(self) -> None:
        """The run was entered."""
        self.started_at = datetime.now(UTC)
        self._requests_before = self._gate.requests
        self._throttled_before = self._gate.throttled
        self._internal_errors_before = self._gate.guard.internal_errors

    async def run(self, obstacles: Mapping[str, SegmentsError]) -> None:
        """Run to the end, and keep what ends it for whoever iterates."""
        with self._gate.inbox(self._desk):
            try:
                with self.scope:
                    with anyio.move_on_after(self.options.timeout) as self._patience:
                        await self._work(obstacles)
                    if self._patience.cancelled_caught and self.fatal is None:
                        await self._give_up_rest()
                if self.scope.cancelled_caught and self.fatal is None:
                    self._why = "the run was left before its end"
                    with anyio.CancelScope(shield=True):
                        await self._give_up_rest()
            except BaseExceptionGroup as group:
                self.fatal = _sole(group)
                if not isinstance(self.fatal, SegmentsError):
                    logger.error("bulk export %s broke off", self.options.name, exc_info=self.fatal)
            finally:
                await self._finish()

    async def _work(self, obstacles: Mapping[str, SegmentsError]) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                self._desk.open(tasks)
                try:
                    await self._start_all(obstacles)
                    if self._open:
                        # Leads the gate when nobody else does, until there is nothing to wait for.
                        await self._gate.next(self._desk)
                except anyio.get_cancelled_exc_class():
                    self._bound_posts()
                    raise
                finally:
                    self._desk.close()
        finally:
            self._tasks = None

    def _bound_posts(self) -> None:
        """POSTs on the wire are shielded: what they bring is an id that must not be lost."""
        until = anyio.current_time() + POST_GRACE
        for ticket in self._posts:
            ticket.bound(until)

    async def _finish(self) -> None:
        """Whatever ended the run: leave the flights, write the last lines, tell who waits."""
        for item in self._items.values():
            self._leave(item)
        self._flights.hand_back(self._desk)
        self._ended = anyio.current_time()
        self.ended_at = datetime.now(UTC)
        if self._manifest is not None:
            with anyio.CancelScope(shield=True):
                await self._manifest.write()
        self.over.set()
        self._tell()

    async def _start_all(self, obstacles: Mapping[str, SegmentsError]) -> None:
        for number, item in enumerate(self._items.values(), 1):
            if problem := obstacles.get(item.segment_id):
                await self._give_up(item, problem)
            else:
                await self._start(item)
            if number % _STARTED_AT_ONCE == 0:
                await anyio.lowlevel.checkpoint()

    async def _start(self, item: Item) -> None:
        expected = self.options.expected_seconds.get(item.segment_id, 0.0)
        flight = self._flights.join_segment(self, item.segment_id, expected_seconds=expected)
        item.flight = flight
        if flight.state is State.INTENT:
            await self._record(item, Event.INTENT)
        elif flight.state is State.SUBMITTED:
            await self._record(item, Event.ADOPTED)

    async def _perform(self, ticket: Ticket) -> None:
        """Send one granted request, in a worker: at most as many at once as the gate has slots."""
        post = ticket.want.kind is Kind.SUBMIT
        if post:
            self._posts.add(ticket)
        try:
            await self._flights.perform(ticket)
        finally:
            if post:
                self._posts.discard(ticket)
        count = self._gate.guard.internal_errors - self._internal_errors_before
        if count >= MOST_INTERNAL_ERRORS:
            # Each 500 raises a ticket with the vendor: six of them are enough for one run.
            self._why = f"the vendor answered {count} requests with 500"
            self._patience.cancel()

    # ----------------------------------------------------------------- fetching

    async def _fetch(self, item: Item, export: Export) -> None:
        if self._destination is None:
            raise AssertionError("nowhere to put the file")
        target = self._destination.path(item.segment_id)
        await self._record(item, Event.FETCH)
        try:
            file = await fetch_file(
                self._storage,
                export,
                target,
                progress=partial(self._on_bytes, item),
                slots=self._download_slots,
            )
        except ExportExpiredError as exc:
            await self._record(item, Event.EXPIRED)
            self._settle(item, NotExported(item.segment_id, export, exc, "yes", resumable=False))
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
            await self._record(item, Event.FETCHED)
            self._settle(item, cast(OutcomeT, Exported(item.segment_id, export, file)))

    def _on_bytes(self, item: Item, size: int) -> None:
        self._bytes += size - item.bytes
        item.bytes = size

    # ----------------------------------------------------------------- ends

    def _settle_failed(self, item: Item, flight: Flight) -> None:
        error = flight.fresh_error()
        outcome = NotExported(
            item.segment_id, flight.export, error, flight.submitted, flight.resumable
        )
        self._settle(item, outcome)
        if fatal(error):
            self.fatal = self.fatal or error
            self._patience.cancel()

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

    async def _leave_post(self, item: Item) -> None:
        """Time is up in mid-POST of another caller, who shares the export: no grace is ours."""
        error = SubmitUnknownError(
            f"segment {item.segment_id}: {self._why}; the export may be running at the vendor",
            segment_id=item.segment_id,
        )
        await self._record(item, Event.LOST)
        self._settle(item, NotExported(item.segment_id, None, error, "maybe", resumable=False))

    async def _give_up(self, item: Item, error: SegmentsError) -> None:
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

    def _leave(self, item: Item) -> None:
        if item.flight is not None:
            self._flights.leave(self, item.flight)
            item.flight = None

    def _settle(self, item: Item, outcome: OutcomeT | NotExported) -> None:
        """The segment's outcome is known."""
        self._leave(item)
        self.outcomes.append(outcome)
        if self._manifest is not None:
            line = outcome_line(outcome, run=self.options.name, name=item.name)
            if self._manifest.add(line) and self._tasks is not None:
                self._tasks.start_soon(self._manifest.write)
        self._open -= 1
        if not self._open:
            self._desk.deliver(None)
        self._tell()

    def _tell(self) -> None:
        """Wake whoever iterates."""
        if self._news is not None:
            self._news.set()
            self._news = None

    async def _record(self, item: Item, event: Event) -> None:
        state = self._tally.record(item.segment_id, event)
        self._active.pop(item.segment_id, None)
        if state in _ACTIVE:
            self._active[item.segment_id] = item

    # ----------------------------------------------------------------- figures

    def progress(self) -> Progress:
        """How far the run is, now."""
        count = self._tally.count
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
            oldest_link_age=self._fetches.oldest_link_age,
            eta_seconds=eta_seconds(
                waiting=waiting,
                pending=pending,
                fetching=fetching,
                rate=self._gate.rate,
                requests=requests,
                durations=self._durations,
                oldest=self._oldest_pending(now),
                newest=now - self._submitted_at,
                fetch_seconds=self._fetches.seconds_each,
            ),
        )

    def latest(self, limit: int) -> list[tuple[Item, State]]:
        """The exports under way, the one that something happened to last first."""
        items = list(self._active.values())[: -limit - 1 : -1]
        return [(item, self._tally.state(item.segment_id)) for item in items]

    def _oldest_pending(self, now: float) -> float:
        """How long the first of the pending exports is known to have taken; 0 without one."""
        # In the order in which something happened to them last, and to pending ones that was
        # their submit: only the few that are being submitted or fetched stand before the oldest.
        for item in self._active.values():
            if item.flight and item.flight.state is State.SUBMITTED:
                # When it was last asked about, its next poll was put a little later than that.
                since = item.flight.submitted_at
                return min(item.flight.want.key, now) - since
        return 0.0

    def _now(self) -> float:
        """Seconds; of the run's end once it is over, when no event loop need be running."""
        return self._ended if self.over.is_set() else anyio.current_time()


def _sole(exc: BaseException) -> BaseException:
    """The first exception in a group that is no group itself."""
    while isinstance(exc, BaseExceptionGroup):
        exc = cast(BaseException, exc.exceptions[0])
    return exc


def _export_of(flight: Flight) -> Export:
    if flight.export is None:
        raise AssertionError("an export that is complete has an answer")
    return flight.export
