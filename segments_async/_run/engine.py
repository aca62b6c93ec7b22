"""A bulk run at work: which of its exports stand where, and what is done about it."""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Literal, cast

import anyio
import anyio.lowlevel
import attrs
from anyio.abc import TaskGroup

from segments_async._exports.registry import POST_GRACE, Flight, Flights, last_setback
from segments_async._files.destination import Destination
from segments_async._files.fetch import Renew, fetch_file
from segments_async._files.under_way import FilesUnderWay
from segments_async._http.storage import Storage
from segments_async._pace.gate import Gate, Inbox, Ticket
from segments_async._pace.sharing import sharing_of
from segments_async._pace.watch import RequestWatch
from segments_async._run.downloads import Fetches
from segments_async._run.ledger import Ledger
from segments_async._run.manifest import Manifest
from segments_async._run.retry_delay import Cooling
from segments_async._run.stats import Figures
from segments_async._run.workers import Desk
from segments_async._sansio.api.wire import is_id
from segments_async._sansio.jobs.exports import seconds_taken
from segments_async._sansio.jobs.lifecycle import Event, IllegalTransition, State
from segments_async._sansio.jobs.payload import facts_of
from segments_async._sansio.jobs.record import IfLost, Standing, resumption, untold
from segments_async._sansio.jobs.verdict import Submitted, fatal, unusable_outcome
from segments_async._sansio.pace.backoff import MOST_INTERNAL_ERRORS
from segments_async._sansio.pace.scheduler import Kind
from segments_async.errors import (
    DownloadError,
    ExportExpiredError,
    ExportTimeoutError,
    JournalError,
    NotSubmittedError,
    SegmentsError,
    SubmitUnknownError,
)
from segments_async.models import Export
from segments_async.results import (
    Completed,
    Exported,
    ExportedFile,
    NotExported,
    OutcomeT,
    Progress,
    leaves_all_as_it_was,
    outcome_line,
)

if TYPE_CHECKING:
    from segments_async._journal.sql import SqlJournal

logger: logging.Logger = logging.getLogger("segments_async")

#: Seconds before a FAILED export is asked for again, where `retry_failed` says so.
RETRY_FAILED_AFTER = 60.0

#: Seconds without a word to the journal after which a run sees whether it is still held.
CHECK_JOURNAL = 30.0

#: With `on_unknown="resubmit"`, a segment is submitted again this often at most: each time risks
#: one export more.
MOST_RESUBMITS = 3

Source = Literal["exported", "resumed", "unchanged"]

#: Where an export stands that a later session goes on with.
_GOES_ON = frozenset(
    {
        State.NEW,
        State.SUBMITTED,
        State.COMPLETE,
        State.FETCHING,
        State.UNASKED,
        State.REFUSED,
        State.BROKEN_OFF,
    }
)

_ACTIVE = frozenset({State.INTENT, State.SUBMITTED, State.COMPLETE, State.FETCHING})

#: Links that the policy refuses, and none that it admits, are no oddity of one export.
REFUSED_LINKS = 2

#: How many segments are queued before other tasks get a turn.
_STARTED_AT_ONCE = 500


@attrs.frozen
class RunOptions:
    """What the caller asked of a run."""

    timeout: float | None
    export_timeout: float
    retry_failed: int
    on_unknown: IfLost
    on_expired: IfLost
    expected_seconds: Mapping[str, float]
    downloads: int


@attrs.frozen
class Beginning:
    """What a run begins with.

    Attributes:
        name: the run's.
        ledger: where earlier sessions left its exports.
        obstacles: why a segment can't be exported, by its id.
        unchanged: files of earlier runs that are still right, by segment id.
        there: segments whose files, as far as the ledger speaks of them, are in their place.
        durations: seconds that the segments' last exports took, by segment id.
        journal: by which the account's processes divide its limit; None where there is none.
    """

    name: str
    ledger: Ledger
    obstacles: Mapping[str, SegmentsError]
    unchanged: Mapping[str, ExportedFile]
    there: Collection[str]
    durations: Mapping[str, float]
    journal: SqlJournal | None = None


class Item:
    """One segment of the run."""

    __slots__ = (
        "bytes",
        "decided",
        "failures",
        "flight",
        "name",
        "opened",
        "replaced",
        "resubmits",
        "segment_id",
        "settled",
    )

    def __init__(self, segment_id: str, name: str | None) -> None:
        self.segment_id: str = segment_id
        self.name: str | None = name
        self.flight: Flight | None = None
        self.bytes: int = 0
        #: Whether the run has come to it, and whether its outcome is known.
        self.opened: bool = False
        self.settled: bool = False
        #: Its outcome, while that is being recorded.
        self.decided: NotExported | None = None
        #: How often the vendor said FAILED in this run; how often a lost POST was repeated, and
        #: whether a file that was gone was replaced by another export, in this session.
        self.failures: int = 0
        self.resubmits: int = 0
        self.replaced: bool = False

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
        files_under_way: FilesUnderWay,
        download_slots: anyio.Semaphore,
        segments: Sequence[tuple[str, str | None]],
        destination: Destination | None,
        options: RunOptions,
        renew: Renew,
    ) -> None:
        self._gate = gate
        self._flights = flights
        self._storage = storage
        self._files_under_way = files_under_way
        self._download_slots = download_slots
        self._destination = destination
        self._manifest = None if destination is None else Manifest(destination.manifest)
        self._renew = renew
        self._options = options
        self._items = {segment_id: Item(segment_id, name) for segment_id, name in segments}
        self._open = len(self._items)
        #: The run's name, once it has begun.
        self.name: str = ""
        self._ledger = Ledger()
        self._there: Collection[str] = ()
        #: Whether a retry was promised that this session didn't come to.
        self._promised = False
        self._cooling: Cooling[tuple[Item, NotExported]] = Cooling(
            RETRY_FAILED_AFTER, self._on_cooled
        )

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
        self._watch: RequestWatch = RequestWatch()
        self._fetches: Fetches[Item] = Fetches(self._fetch, download_slots, options.downloads)
        self._active: dict[str, Item] = {}
        #: Granted while the journal was away, and asked for when it is back.
        self._held: list[Item] = []
        #: Links that the policy refused, in this session.
        self._refused_links = 0
        self._watching = False
        self._guard_untold = False

        self.figures: Figures = Figures(gate, len(self._items))
        self._began = self._ended = 0.0

    # ----------------------------------------------------------------- Party: what flights tell

    @property
    def inbox(self) -> Inbox:
        """Where the gate puts the run's tickets."""
        return self._desk

    async def record(self, flight: Flight, event: Event) -> None:
        """A flight of this run moved on.

        Never raises for the journal: the task may be another caller's, whose export this is, too.
        The run leaves the flight, and a POST that it alone wanted isn't sent.
        """
        if event is Event.ACCEPTED:
            self.figures.submitted_at = flight.submitted_at
        item = self._item_of(flight)
        facts = _facts(flight, event) if self._ledger.durable else None
        try:
            state = await self._record(item, event, facts)
        except JournalError as exc:
            self._break_off(exc)
            self._leave_unrecorded(item, flight, exc)
        else:
            if event is Event.INTENT and state is State.NEW:
                self._hold(item)

    async def unfinished(self, flight: Flight, now: float, *, answered: bool) -> None:
        """A poll brought no end; `export_timeout` is looked at here, and needs no timer."""
        patience = self._options.export_timeout
        # A 429 says nothing of the export. One that an earlier session left days ago may be
        # complete, and isn't given up before anybody has heard of it, or waited as long again.
        since = flight.submitted_at if answered else max(flight.submitted_at, self._began)
        if now - since <= patience:
            return
        item = self._item_of(flight)
        if item.flight is flight:
            error = ExportTimeoutError(
                f"segment {item.segment_id}: not finished within {patience:g} s; the export goes "
                f"on at the vendor{last_setback(flight)}",
                segment_id=item.segment_id,
                export=flight.export,
            )
            error.__cause__ = flight.setback
            await self._give_up(item, error)

    async def ended(self, flight: Flight) -> None:
        """A flight of this run ended, perhaps in another caller's task."""
        item = self._item_of(flight)
        if item.flight is not flight:
            return
        if flight.error is not None:
            await self._ended_without_file(item, flight)
            return
        export = _export_of(flight)
        seconds = seconds_taken(export)
        if seconds is not None:
            self.figures.took(seconds)
        if self._destination is not None:
            self._fetches.add(item, export, self._tasks)
        elif await self._recorded(item, Event.FETCHED):
            self._settle(item, cast(OutcomeT, Completed(item.segment_id, export)))

    def _item_of(self, flight: Flight) -> Item:
        if flight.segment_id is None:
            raise AssertionError("a run's flights have segments")
        return self._items[flight.segment_id]

    # ----------------------------------------------------------------- from beginning to end

    async def wait_for_news(self) -> None:
        """Wait for the next outcome, or for the end."""
        self._news = self._news or anyio.Event()
        await self._news.wait()

    def begin(self, beginning: Beginning) -> None:
        """The run was entered."""
        self.name = beginning.name
        self._ledger = beginning.ledger
        self._began = anyio.current_time()
        self._there = beginning.there
        self.figures.begin()

    async def run(self, beginning: Beginning) -> None:
        """Run to the end, and keep what ends it for whoever iterates."""
        with self._gate.inbox(self._desk):
            try:
                with self.scope:
                    with anyio.move_on_after(self._options.timeout) as self._patience:
                        await self._work(beginning)
                        await self._finish_ledger()
                    if self._patience.cancelled_caught and self._tells_the_rest():
                        await self._give_up_rest()
                if self.scope.cancelled_caught and self._tells_the_rest():
                    self._why = "the run was left before its end"
                    with anyio.CancelScope(shield=True):
                        await self._give_up_rest()
            except (BaseExceptionGroup, Exception) as exc:
                # In the caller's task group it would come out of his block in a group.
                self.fatal = _sole(exc)
                if not isinstance(self.fatal, SegmentsError):
                    logger.error("bulk export %s broke off", self.name, exc_info=self.fatal)
            finally:
                await self._finish()

    async def _work(self, beginning: Beginning) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                self._desk.open(tasks)
                self._watch.open(tasks)
                done = anyio.Event()
                try:
                    if beginning.journal is not None and not self._ledger.finished:
                        sharing = sharing_of(self._gate.pacer)
                        await sharing.join(self._gate, beginning.journal)
                        tasks.start_soon(sharing.keep, self._gate, beginning.journal, done)
                    if self._ledger.can_be_lost and not self._ledger.finished:
                        tasks.start_soon(self._look_after_journal, done)
                    await self._start_all(beginning)
                    if self._open:
                        # Leads the gate when nobody else does, until there is nothing to wait for.
                        await self._gate.next(self._desk)
                except anyio.get_cancelled_exc_class():
                    self._bound_posts()
                    raise
                finally:
                    self._watch.close()
                    self._desk.close()
                    done.set()
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
        self.figures.ended_at = datetime.now(UTC)
        with anyio.CancelScope(shield=True):
            if self._manifest is not None:
                await self._manifest.write()
            await self._close_ledger()
        self.over.set()
        self._tell()

    def _tells_the_rest(self) -> bool:
        """Whether what is unfinished is told as outcomes: not where the account ended the run."""
        return self.fatal is None or isinstance(self.fatal, JournalError)

    def _may_be_unwritten(self) -> bool:
        return self._ledger.away or isinstance(self.fatal, JournalError)

    def _is_finished(self) -> bool:
        """Whether nothing is left that a later session could do."""
        left = any(o.resumable for o in self.outcomes if isinstance(o, NotExported))
        return not (self._open or left or self._promised) and self.fatal is None

    async def _finish_ledger(self) -> None:
        """Every outcome is known: write what the journal waits for, and the run's end."""
        try:
            await self._ledger.returned()
            if self._is_finished():
                await self._ledger.finish()
        except JournalError as exc:
            self.fatal = self.fatal or exc

    async def _close_ledger(self) -> None:
        try:
            await self._ledger.close(finished=self._is_finished())
        except JournalError as exc:
            self.fatal = self.fatal or exc

    # ----------------------------------------------------------------- where exports begin

    async def _start_all(self, beginning: Beginning) -> None:
        """Take up each export where it stands; many at once, since each may take a commit."""
        items = iter(self._items.values())
        while chunk := list(itertools.islice(items, _STARTED_AT_ONCE)):
            if self._ledger.durable:
                async with anyio.create_task_group() as tasks:
                    for item in chunk:
                        tasks.start_soon(self._take_up, item, beginning)
            else:
                for item in chunk:
                    await self._take_up(item, beginning)
                await anyio.lowlevel.checkpoint()

    async def _take_up(self, item: Item, beginning: Beginning) -> None:
        try:
            await self._begin(item, beginning)
        except JournalError as exc:
            self._break_off(exc)

    async def _begin(self, item: Item, beginning: Beginning) -> None:
        standing = self._opened(item)
        item.failures = standing.failures
        there = item.segment_id in self._there
        if not self._ledger.finished:
            await self._resume(item, standing, there=there)
        match self._ledger.state(item.segment_id):
            case State.NEW if not self._ledger.finished:
                await self._begin_new(item, beginning)
            case State.SUBMITTED if not self._ledger.finished:
                # Its place was free before its POST. A file that is there now is taken for its own,
                # renamed into place by a process that died before it could log that.
                await self._go_on(item, standing)
            case _:
                self._settle(item, self._told_before(item, standing, there=there))

    def _opened(self, item: Item) -> Standing:
        item.opened = True
        return self._ledger.open(item.segment_id)

    async def _resume(self, item: Item, standing: Standing, *, there: bool) -> None:
        events = resumption(
            standing,
            file_there=there,
            on_unknown=self._options.on_unknown,
            on_expired=self._options.on_expired,
            retry_failed=self._options.retry_failed,
        )
        for event in events:
            await self._record(item, event)

    async def _begin_new(self, item: Item, beginning: Beginning) -> None:
        if problem := beginning.obstacles.get(item.segment_id):
            # A segment whose id is none will not have another one later.
            await self._give_up(item, problem, resumable=is_id(item.segment_id))
        elif file := beginning.unchanged.get(item.segment_id):
            await self._record(item, Event.UNCHANGED, facts_of(file=file))
            self._settle(item, self._exported(item, file, "unchanged"))
        else:
            expected = self._options.expected_seconds.get(item.segment_id)
            known = beginning.durations.get(item.segment_id, 0.0)
            await self._start(item, known if expected is None else expected)

    async def _start(self, item: Item, expected: float = 0.0) -> None:
        flight = self._flights.join_segment(self, item.segment_id, expected_seconds=expected)
        item.flight = flight
        if flight.state is State.INTENT:
            if await self._record(item, Event.INTENT) is State.NEW:
                self._hold(item)
        elif flight.state is State.SUBMITTED:
            await self._record(item, Event.ADOPTED, facts_of(export=flight.export))

    async def _go_on(self, item: Item, standing: Standing) -> None:
        """An export that an earlier session asked for."""
        if standing.export is None:
            raise AssertionError("the journal refuses what is submitted without an export")
        if not is_id(standing.export.export_id):
            # The session that got it died before it could say so.
            outcome = unusable_outcome(item.segment_id, standing.export)
            if await self._recorded(item, Event.GAVE_UP, facts_of(outcome=outcome)):
                self._settle(item, outcome)
            return
        now = datetime.now(UTC)
        since = standing.submitted_at or standing.export.start_time or now
        item.flight = self._flights.join_export(
            self,
            standing.export.export_id,
            standing.export,
            age=max(0.0, (now - since).total_seconds()),
        )
        self._flights.share(item.flight)

    def _told_before(
        self, item: Item, standing: Standing, *, there: bool
    ) -> OutcomeT | NotExported:
        """How an export ended in an earlier session."""
        if standing.file is not None and there:
            source: Source = "unchanged" if standing.state is State.UNCHANGED else "resumed"
            return self._exported(item, standing.file, source)
        if standing.state is State.DONE and standing.export is not None and not standing.file:
            return cast(OutcomeT, Completed(item.segment_id, standing.export))
        if standing.ending is None:
            return untold(item.segment_id, standing, run=self.name)
        return NotExported(
            item.segment_id,
            standing.export,
            standing.ending.error(standing.export),
            standing.ending.submitted,
            standing.ending.resumable,
        )

    def _exported(self, item: Item, file: ExportedFile, source: Source) -> OutcomeT:
        return cast(OutcomeT, Exported(item.segment_id, file.export, file, source))

    async def _ask_again(self, item: Item) -> None:
        """One more export of the segment: the caller opted in to that."""
        self._leave(item)
        if await self._recorded(item, Event.OPTED_IN):
            try:
                await self._start(item)
            except JournalError as exc:
                self._break_off(exc)

    async def _on_cooled(self, cooled: tuple[Item, NotExported]) -> None:
        await self._ask_again(cooled[0])

    # ----------------------------------------------------------------- a journal that is away

    def _hold(self, item: Item) -> None:
        """The journal is away: the segment is asked for when it is back. No slot waits for that."""
        self._leave(item)
        self._held.append(item)
        self._watch_journal()

    def _watch_journal(self) -> None:
        if self._tasks is not None and not self._watching:
            self._watching = True
            self._tasks.start_soon(self._wait_for_journal)

    async def _wait_for_journal(self) -> None:
        try:
            await self._ledger.returned()
        except JournalError as exc:
            self._break_off(exc)
            return
        finally:
            self._watching = False
        await self._remember_guard()
        held, self._held = self._held, []
        for item in held:
            if item.flight is None and not item.settled and item.decided is None:
                try:
                    await self._start(item)
                except JournalError as exc:
                    self._break_off(exc)
        if self._ledger.away:
            self._watch_journal()

    async def _look_after_journal(self, done: anyio.Event) -> None:
        """See now and then that the run is still this process's, while nothing is written."""
        while not done.is_set():
            with anyio.move_on_after(CHECK_JOURNAL):
                await done.wait()
                return
            try:
                await self._ledger.check(CHECK_JOURNAL)
            except JournalError as exc:
                self._break_off(exc)
                return
            if self._ledger.away:
                self._watch_journal()

    def _leave_unrecorded(self, item: Item, flight: Flight, exc: JournalError) -> None:
        """The journal can't be written any more: what the vendor said is told as an outcome."""
        if flight.export is None or flight.segment_id is None:
            self._leave(item)
            return
        error = JournalError(
            f"segment {item.segment_id}: export {flight.export.export_id} is at the vendor, and "
            f"the journal could not keep what became of it: {exc}",
            reason=exc.reason,
            location=exc.location,
        )
        known = self._ledger.knows_export(item.segment_id)
        self._settle(
            item, NotExported(item.segment_id, flight.export, error, "yes", resumable=known)
        )

    async def _perform(self, ticket: Ticket) -> None:
        """Send one granted request, in a worker: at most as many at once as the gate has slots."""
        post = ticket.want.kind is Kind.SUBMIT
        if post:
            self._posts.add(ticket)
        self._watch.add(ticket)
        try:
            await self._flights.perform(ticket)
        finally:
            self._watch.discard(ticket)
            if post:
                self._posts.discard(ticket)
        await self._remember_guard()
        count = self.figures.internal_errors
        if count >= MOST_INTERNAL_ERRORS:
            # Each 500 raises a ticket with the vendor: six of them are enough for one run.
            self._why = f"the vendor answered {count} requests with 500"
            self._patience.cancel()

    # ----------------------------------------------------------------- fetching

    async def _fetch(self, item: Item, export: Export) -> None:
        if self._destination is None:
            raise AssertionError("nowhere to put the file")
        target = self._destination.path(item.segment_id)
        if not await self._recorded(item, Event.FETCH):
            return
        try:
            fetch = partial(
                fetch_file,
                self._storage,
                export,
                target,
                progress=partial(self._on_bytes, item),
                slots=self._download_slots,
                renew=self._renew,
            )
            file = await self._files_under_way.fetch(target, export.export_id, fetch)
            self._on_bytes(item, file.size)
        except ExportExpiredError as exc:
            await self._expired(item, export, exc)
        except DownloadError as exc:
            await self._give_up(item, exc)
            self._refused_links += exc.by_policy
            if self._refused_links >= REFUSED_LINKS and not self._is_link_admitted():
                # It would meet every export.
                await self._stop_submits(exc)
        except Exception as exc:
            # Nobody else is harmed by what one file's link or storage's answer can still hold.
            logger.exception("fetching the file of export %s", export.export_id)
            text = f"file of export {export.export_id}: {type(exc).__name__}"
            await self._give_up(item, DownloadError(text, reason="broken", export=export))
        else:
            # The file is in its place, whether or not the journal can say so.
            await self._recorded(item, Event.FETCHED, facts_of(file=file))
            self._settle(item, self._exported(item, file, "exported"))

    def _is_link_admitted(self) -> bool:
        """Whether another export's link was: its file is in place, or bytes of it have come."""
        return bool(self._ledger.count(State.DONE) or self.figures.bytes)

    async def _expired(self, item: Item, export: Export, error: ExportExpiredError) -> None:
        outcome = NotExported(item.segment_id, export, error, "yes", resumable=False)
        if not await self._recorded(item, Event.EXPIRED, facts_of(outcome=outcome)):
            return
        if self._options.on_expired == "resubmit" and not item.replaced:
            item.replaced = True
            await self._ask_again(item)
        else:
            self._settle(item, outcome)

    def _on_bytes(self, item: Item, size: int) -> None:
        self.figures.bytes += size - item.bytes
        item.bytes = size

    # ----------------------------------------------------------------- ends

    async def _ended_without_file(self, item: Item, flight: Flight) -> None:
        outcome = _ended(item.segment_id, flight)
        state = self._ledger.state(item.segment_id)
        item.failures += state is State.FAILED
        if state is State.FAILED and item.failures <= self._options.retry_failed:
            # Not at once: what failed a moment ago is likely to fail again.
            self._leave(item)
            self._cooling.add((item, outcome), self._tasks)
        elif state is State.UNKNOWN and self._resubmits(item, outcome.error):
            item.resubmits += 1
            await self._ask_again(item)
        else:
            self._settle(item, outcome)
        if fatal(outcome.error):
            self._break_off(outcome.error)

    def _resubmits(self, item: Item, error: SegmentsError) -> bool:
        """A lost answer is one thing; a 500 raised a ticket, and is never asked for another."""
        return (
            self._options.on_unknown == "resubmit"
            and isinstance(error, SubmitUnknownError)
            and item.resubmits < MOST_RESUBMITS
        )

    def _break_off(self, error: SegmentsError) -> None:
        """What concerns the account, or the journal, ends the run as itself."""
        if self.fatal is None and isinstance(error, JournalError):
            self._why = f"the journal ended the run: {error}"
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
        for cooling, outcome in self._cooling.clear():
            self._promised = True
            self._settle(cooling, outcome)
        for item in self._items.values():
            if item.flight is None:
                if item.decided is not None:
                    self._settle(item, item.decided)
                elif not item.settled:
                    self._leave_unstarted(item)
                continue
            if item.flight.state is State.INTENT:
                await self._leave_post(item)
                continue
            kind = NotSubmittedError if item.flight.submitted == "no" else ExportTimeoutError
            state = "not submitted" if kind is NotSubmittedError else "the export is not lost"
            error = kind(
                f"segment {item.segment_id}: {self._why}; {state}{last_setback(item.flight)}",
                segment_id=item.segment_id,
                export=item.flight.export,
            )
            error.__cause__ = item.flight.setback
            await self._give_up(item, error, durably=False)

    def _leave_unstarted(self, item: Item) -> None:
        """The run hadn't come to it: it is as the session before left it."""
        standing = self._ledger.standing(item.segment_id) if item.opened else self._opened(item)
        state = self._ledger.state(item.segment_id)
        if state not in _GOES_ON:
            there = item.segment_id in self._there
            self._settle(item, self._told_before(item, standing, there=there))
            return
        if state in (State.NEW, State.SUBMITTED):
            self._note(item, Event.GAVE_UP)
        kind = NotSubmittedError if standing.export is None else ExportTimeoutError
        error = kind(
            f"segment {item.segment_id}: {self._why}",
            segment_id=item.segment_id,
            export=standing.export,
        )
        submitted: Submitted = "no" if standing.export is None else "yes"
        resumable = standing.export is None or self._ledger.knows_export(item.segment_id)
        self._settle(
            item,
            NotExported(item.segment_id, standing.export, error, submitted, resumable=resumable),
        )

    async def _leave_post(self, item: Item) -> None:
        """Time is up in mid-POST of another caller, who shares the export: no grace is ours."""
        error = SubmitUnknownError(
            f"segment {item.segment_id}: {self._why}; the export may be running at the vendor",
            segment_id=item.segment_id,
        )
        self._note(item, Event.LOST)
        self._settle(item, NotExported(item.segment_id, None, error, "maybe", resumable=False))

    async def _give_up(
        self, item: Item, error: SegmentsError, *, durably: bool = True, resumable: bool = True
    ) -> None:
        """End an export of which nothing is lost.

        Not `durably`: the run is being left, perhaps with 100 000 of them, and to the journal
        their exports stand where they stood.
        """
        flight = item.flight
        if flight is not None and flight.export is not None and self._may_be_unwritten():
            # To a later session it is an export whose answer was lost, unless the id was written.
            resumable = self._ledger.knows_export(item.segment_id)
        outcome = NotExported(
            item.segment_id,
            flight.export if flight else None,
            error,
            flight.submitted if flight else "no",
            resumable=resumable,
        )
        # Before anything is awaited: from here on nobody tells it anything, or gives it a grant.
        item.decided = outcome
        self._leave(item)
        if not durably:
            # Illegal where another caller's task is just recording how it ended.
            with contextlib.suppress(IllegalTransition):
                self._note(item, Event.GAVE_UP)
        elif not await self._recorded(item, Event.GAVE_UP, facts_of(outcome=outcome)):
            return
        self._settle(item, outcome)

    def _leave(self, item: Item) -> None:
        if item.flight is not None:
            self._flights.leave(self, item.flight)
            item.flight = None

    def _settle(self, item: Item, outcome: OutcomeT | NotExported) -> None:
        """The segment's outcome is known."""
        if item.settled:
            return  # the run was left while it was being recorded
        self._leave(item)
        item.settled = True
        self.outcomes.append(outcome)
        if self._manifest is not None and not leaves_all_as_it_was(outcome):
            line = outcome_line(outcome, run=self.name, name=item.name)
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

    # ----------------------------------------------------------------- the ledger

    async def _record(
        self, item: Item, event: Event, facts: Mapping[str, Any] | None = None
    ) -> State:
        state = await self._ledger.record(item.segment_id, event, facts)
        self._moved(item, state)
        if self._ledger.away:
            self._watch_journal()
        return state

    async def _recorded(
        self, item: Item, event: Event, facts: Mapping[str, Any] | None = None
    ) -> bool:
        """Record in a task that may be another caller's. Whether that went well."""
        try:
            await self._record(item, event, facts)
        except JournalError as exc:
            self._break_off(exc)
            return False
        return True

    def _note(self, item: Item, event: Event) -> None:
        self._moved(item, self._ledger.note(item.segment_id, event))

    async def _remember_guard(self) -> None:
        try:
            await self._ledger.remember(self._gate.guard, anyio.current_time())
        except JournalError as exc:
            if exc.reason not in ("locked", "unavailable"):
                self._break_off(exc)
            elif not self._guard_untold:
                # Told again after the next request. This process goes by its guard all the same.
                self._guard_untold = True
                logger.warning("other processes are not told of the vendor's 500: %s", exc)
        else:
            self._guard_untold = False

    def _moved(self, item: Item, state: State) -> None:
        self._active.pop(item.segment_id, None)
        if state in _ACTIVE:
            self._active[item.segment_id] = item

    # ----------------------------------------------------------------- figures

    def progress(self) -> Progress:
        """How far the run is, now."""
        now = self._now()
        return self.figures.progress(
            self._ledger,
            now=now,
            oldest_pending=self._oldest_pending(now),
            oldest_link_age=self._fetches.oldest_link_age,
            fetch_seconds=self._fetches.seconds_each,
        )

    def latest(self, limit: int) -> list[tuple[Item, State]]:
        """The exports under way, the one that something happened to last first."""
        items = list(self._active.values())[: -limit - 1 : -1]
        return [(item, self._ledger.state(item.segment_id)) for item in items]

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


def _ended(segment_id: str, flight: Flight) -> NotExported:
    error = flight.fresh_error()
    return NotExported(segment_id, flight.export, error, flight.submitted, flight.resumable)


def _facts(flight: Flight, event: Event) -> dict[str, Any]:
    """What a later session has to know, beside that it happened."""
    if flight.error is not None and flight.segment_id is not None:
        return facts_of(outcome=_ended(flight.segment_id, flight))
    if event in (Event.ACCEPTED, Event.COMPLETED, Event.FAILED):
        return facts_of(export=flight.export)
    return {}


def _export_of(flight: Flight) -> Export:
    if flight.export is None:
        raise AssertionError("an export that is complete has an answer")
    return flight.export
