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

from segments_async._exports.registry import POST_GRACE, ExportRegistry, SharedExport, last_setback
from segments_async._files.destination import Destination
from segments_async._files.fetch import fetch_file
from segments_async._files.in_progress import InProgressDownloads
from segments_async._files.refusals import Renew
from segments_async._http.storage import Storage
from segments_async._pace.gate import Gate, Mailbox, Permit
from segments_async._pace.sharing import sharing_of
from segments_async._pace.watch import RequestWatch
from segments_async._run.downloads import DownloadQueue
from segments_async._run.ledger import Ledger
from segments_async._run.manifest import Manifest
from segments_async._run.retry_delay import Cooling
from segments_async._run.stats import RunStats
from segments_async._run.workers import WorkerPool
from segments_async._sansio.api.wire import is_id
from segments_async._sansio.jobs.exports import seconds_taken
from segments_async._sansio.jobs.lifecycle import Event, IllegalTransition, State
from segments_async._sansio.jobs.payload import payload_of
from segments_async._sansio.jobs.record import (
    ExportRecord,
    IfLost,
    interrupted_outcome,
    resume_events,
)
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
class RunStart:
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
        "name",
        "opened",
        "replaced",
        "resubmits",
        "segment_id",
        "settled",
        "shared",
    )

    def __init__(self, segment_id: str, name: str | None) -> None:
        self.segment_id: str = segment_id
        self.name: str | None = name
        self.shared: SharedExport | None = None
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
        at = self.shared.submitted_at if self.shared else math.nan
        return None if math.isnan(at) else at


class Engine(Generic[OutcomeT]):
    """A party to the flights of its segments; keeps their outcomes for whoever iterates."""

    def __init__(
        self,
        gate: Gate,
        registry: ExportRegistry,
        storage: Storage,
        files_under_way: InProgressDownloads,
        download_slots: anyio.Semaphore,
        segments: Sequence[tuple[str, str | None]],
        destination: Destination | None,
        options: RunOptions,
        renew: Renew,
    ) -> None:
        self._gate = gate
        self._registry = registry
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
        self._files_present: Collection[str] = ()
        #: Whether a retry was promised that this session didn't come to.
        self._retry_pending = False
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

        self._workers = WorkerPool(self._perform)
        #: Cancelled when the caller leaves the run.
        self.scope: anyio.CancelScope = anyio.CancelScope()
        self._patience = anyio.CancelScope()
        self._stop_reason = f"no time left after {options.timeout} s"
        self._tasks: TaskGroup | None = None
        self._posts: set[Permit] = set()
        self._watch: RequestWatch = RequestWatch()
        self._downloads: DownloadQueue[Item] = DownloadQueue(
            self._fetch, download_slots, options.downloads
        )
        self._active: dict[str, Item] = {}
        #: Granted while the journal was away, and asked for when it is back.
        self._held: list[Item] = []
        #: Links that the policy refused, in this session.
        self._refused_links = 0
        self._watching = False
        self._guard_untold = False

        self.stats: RunStats = RunStats(gate, len(self._items))
        self._began = self._ended = 0.0

    # ----------------------------------------------------------------- Follower: what flights tell

    @property
    def mailbox(self) -> Mailbox:
        """Where the gate puts the run's tickets."""
        return self._workers

    async def record(self, shared: SharedExport, event: Event) -> None:
        """A flight of this run moved on.

        Never raises for the journal: the task may be another caller's, whose export this is, too.
        The run leaves the flight, and a POST that it alone wanted isn't sent.
        """
        if event is Event.ACCEPTED:
            self.stats.submitted_at = shared.submitted_at
        item = self._item_of(shared)
        payload = _payload(shared, event) if self._ledger.durable else None
        try:
            state = await self._record(item, event, payload)
        except JournalError as exc:
            self._break_off(exc)
            self._leave_unrecorded(item, shared, exc)
        else:
            if event is Event.INTENT and state is State.NEW:
                self._hold(item)

    async def unfinished(self, shared: SharedExport, now: float, *, answered: bool) -> None:
        """A poll brought no end; `export_timeout` is looked at here, and needs no timer."""
        patience = self._options.export_timeout
        # A 429 says nothing of the export. One that an earlier session left days ago may be
        # complete, and isn't given up before anybody has heard of it, or waited as long again.
        since = shared.submitted_at if answered else max(shared.submitted_at, self._began)
        if now - since <= patience:
            return
        item = self._item_of(shared)
        if item.shared is shared:
            error = ExportTimeoutError(
                f"segment {item.segment_id}: not finished within {patience:g} s; the export goes "
                f"on at the vendor{last_setback(shared)}",
                segment_id=item.segment_id,
                export=shared.export,
            )
            error.__cause__ = shared.setback
            await self._give_up(item, error)

    async def ended(self, shared: SharedExport) -> None:
        """A flight of this run ended, perhaps in another caller's task."""
        item = self._item_of(shared)
        if item.shared is not shared:
            return
        if shared.error is not None:
            await self._ended_without_file(item, shared)
            return
        export = _export_of(shared)
        seconds = seconds_taken(export)
        if seconds is not None:
            self.stats.took(seconds)
        if self._destination is not None:
            self._downloads.add(item, export, self._tasks)
        elif await self._recorded(item, Event.FETCHED):
            self._settle(item, cast(OutcomeT, Completed(item.segment_id, export)))

    def _item_of(self, shared: SharedExport) -> Item:
        if shared.segment_id is None:
            raise AssertionError("a run's flights have segments")
        return self._items[shared.segment_id]

    # ----------------------------------------------------------------- from beginning to end

    async def wait_for_outcome(self) -> None:
        """Wait for the next outcome, or for the end."""
        self._news = self._news or anyio.Event()
        await self._news.wait()

    def begin(self, beginning: RunStart) -> None:
        """The run was entered."""
        self.name = beginning.name
        self._ledger = beginning.ledger
        self._began = anyio.current_time()
        self._files_present = beginning.there
        self.stats.begin()

    async def run(self, beginning: RunStart) -> None:
        """Run to the end, and keep what ends it for whoever iterates."""
        with self._gate.mailbox(self._workers):
            try:
                with self.scope:
                    with anyio.move_on_after(self._options.timeout) as self._patience:
                        await self._work(beginning)
                        await self._finish_ledger()
                    if self._patience.cancelled_caught and self._tells_the_rest():
                        await self._give_up_rest()
                if self.scope.cancelled_caught and self._tells_the_rest():
                    self._stop_reason = "the run was left before its end"
                    with anyio.CancelScope(shield=True):
                        await self._give_up_rest()
            except (BaseExceptionGroup, Exception) as exc:
                # In the caller's task group it would come out of his block in a group.
                self.fatal = _sole(exc)
                if not isinstance(self.fatal, SegmentsError):
                    logger.error("bulk export %s broke off", self.name, exc_info=self.fatal)
            finally:
                await self._finish()

    async def _work(self, beginning: RunStart) -> None:
        try:
            async with anyio.create_task_group() as tasks:
                self._tasks = tasks
                self._workers.open(tasks)
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
                        await self._gate.next(self._workers)
                except anyio.get_cancelled_exc_class():
                    self._bound_posts()
                    raise
                finally:
                    self._watch.close()
                    self._workers.close()
                    done.set()
        finally:
            self._tasks = None

    def _bound_posts(self) -> None:
        """POSTs on the wire are shielded: what they bring is an id that must not be lost."""
        until = anyio.current_time() + POST_GRACE
        for permit in self._posts:
            permit.bound(until)

    async def _finish(self) -> None:
        """Whatever ended the run: leave the flights, write the last lines, tell who waits."""
        for item in self._items.values():
            self._leave(item)
        self._registry.release(self._workers)
        self._ended = anyio.current_time()
        self.stats.ended_at = datetime.now(UTC)
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
        return not (self._open or left or self._retry_pending) and self.fatal is None

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

    async def _start_all(self, beginning: RunStart) -> None:
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

    async def _take_up(self, item: Item, beginning: RunStart) -> None:
        try:
            await self._begin(item, beginning)
        except JournalError as exc:
            self._break_off(exc)

    async def _begin(self, item: Item, beginning: RunStart) -> None:
        record = self._opened(item)
        item.failures = record.failures
        there = item.segment_id in self._files_present
        if not self._ledger.finished:
            await self._resume(item, record, there=there)
        match self._ledger.state(item.segment_id):
            case State.NEW if not self._ledger.finished:
                await self._begin_new(item, beginning)
            case State.SUBMITTED if not self._ledger.finished:
                # Its place was free before its POST. A file that is there now is taken for its own,
                # renamed into place by a process that died before it could log that.
                await self._go_on(item, record)
            case _:
                self._settle(item, self._told_before(item, record, there=there))

    def _opened(self, item: Item) -> ExportRecord:
        item.opened = True
        return self._ledger.open(item.segment_id)

    async def _resume(self, item: Item, record: ExportRecord, *, there: bool) -> None:
        events = resume_events(
            record,
            file_there=there,
            on_unknown=self._options.on_unknown,
            on_expired=self._options.on_expired,
            retry_failed=self._options.retry_failed,
        )
        for event in events:
            await self._record(item, event)

    async def _begin_new(self, item: Item, beginning: RunStart) -> None:
        if problem := beginning.obstacles.get(item.segment_id):
            # A segment whose id is none will not have another one later.
            await self._give_up(item, problem, resumable=is_id(item.segment_id))
        elif file := beginning.unchanged.get(item.segment_id):
            await self._record(item, Event.UNCHANGED, payload_of(file=file))
            self._settle(item, self._exported(item, file, "unchanged"))
        else:
            expected = self._options.expected_seconds.get(item.segment_id)
            known = beginning.durations.get(item.segment_id, 0.0)
            await self._start(item, known if expected is None else expected)

    async def _start(self, item: Item, expected: float = 0.0) -> None:
        shared = self._registry.join_segment(self, item.segment_id, expected_seconds=expected)
        item.shared = shared
        if shared.state is State.INTENT:
            if await self._record(item, Event.INTENT) is State.NEW:
                self._hold(item)
        elif shared.state is State.SUBMITTED:
            await self._record(item, Event.ADOPTED, payload_of(export=shared.export))

    async def _go_on(self, item: Item, record: ExportRecord) -> None:
        """An export that an earlier session asked for."""
        if record.export is None:
            raise AssertionError("the journal refuses what is submitted without an export")
        if not is_id(record.export.export_id):
            # The session that got it died before it could say so.
            outcome = unusable_outcome(item.segment_id, record.export)
            if await self._recorded(item, Event.GAVE_UP, payload_of(outcome=outcome)):
                self._settle(item, outcome)
            return
        now = datetime.now(UTC)
        since = record.submitted_at or record.export.start_time or now
        item.shared = self._registry.join_export(
            self,
            record.export.export_id,
            record.export,
            age=max(0.0, (now - since).total_seconds()),
        )
        self._registry.share(item.shared)

    def _told_before(
        self, item: Item, record: ExportRecord, *, there: bool
    ) -> OutcomeT | NotExported:
        """How an export ended in an earlier session."""
        if record.file is not None and there:
            source: Source = "unchanged" if record.state is State.UNCHANGED else "resumed"
            return self._exported(item, record.file, source)
        if record.state is State.DONE and record.export is not None and not record.file:
            return cast(OutcomeT, Completed(item.segment_id, record.export))
        if record.failure is None:
            return interrupted_outcome(item.segment_id, record, run=self.name)
        return NotExported(
            item.segment_id,
            record.export,
            record.failure.error(record.export),
            record.failure.submitted,
            record.failure.resumable,
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
            if item.shared is None and not item.settled and item.decided is None:
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

    def _leave_unrecorded(self, item: Item, shared: SharedExport, exc: JournalError) -> None:
        """The journal can't be written any more: what the vendor said is told as an outcome."""
        if shared.export is None or shared.segment_id is None:
            self._leave(item)
            return
        error = JournalError(
            f"segment {item.segment_id}: export {shared.export.export_id} is at the vendor, and "
            f"the journal could not keep what became of it: {exc}",
            reason=exc.reason,
            location=exc.location,
        )
        known = self._ledger.knows_export(item.segment_id)
        self._settle(
            item, NotExported(item.segment_id, shared.export, error, "yes", resumable=known)
        )

    async def _perform(self, permit: Permit) -> None:
        """Send one granted request, in a worker: at most as many at once as the gate has slots."""
        post = permit.queued.kind is Kind.SUBMIT
        if post:
            self._posts.add(permit)
        self._watch.add(permit)
        try:
            await self._registry.perform(permit)
        finally:
            self._watch.discard(permit)
            if post:
                self._posts.discard(permit)
        await self._remember_guard()
        count = self.stats.internal_errors
        if count >= MOST_INTERNAL_ERRORS:
            # Each 500 raises a ticket with the vendor: six of them are enough for one run.
            self._stop_reason = f"the vendor answered {count} requests with 500"
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
            await self._recorded(item, Event.FETCHED, payload_of(file=file))
            self._settle(item, self._exported(item, file, "exported"))

    def _is_link_admitted(self) -> bool:
        """Whether another export's link was: its file is in place, or bytes of it have come."""
        return bool(self._ledger.count(State.DONE) or self.stats.bytes)

    async def _expired(self, item: Item, export: Export, error: ExportExpiredError) -> None:
        outcome = NotExported(item.segment_id, export, error, "yes", resumable=False)
        if not await self._recorded(item, Event.EXPIRED, payload_of(outcome=outcome)):
            return
        if self._options.on_expired == "resubmit" and not item.replaced:
            item.replaced = True
            await self._ask_again(item)
        else:
            self._settle(item, outcome)

    def _on_bytes(self, item: Item, size: int) -> None:
        self.stats.bytes += size - item.bytes
        item.bytes = size

    # ----------------------------------------------------------------- ends

    async def _ended_without_file(self, item: Item, shared: SharedExport) -> None:
        outcome = _ended(item.segment_id, shared)
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
            self._stop_reason = f"the journal ended the run: {error}"
        self.fatal = self.fatal or error
        self._patience.cancel()

    async def _stop_submits(self, because: SegmentsError) -> None:
        """What would be refused for every export is asked for no more."""
        for item in self._items.values():
            if item.shared is not None and item.shared.state is State.NEW:
                error = NotSubmittedError(
                    f"segment {item.segment_id}: not submitted, after: {because}",
                    segment_id=item.segment_id,
                )
                await self._give_up(item, error)

    async def _give_up_rest(self) -> None:
        """Time is up: what is unfinished ends, as resumable as it is."""
        for cooling, outcome in self._cooling.clear():
            self._retry_pending = True
            self._settle(cooling, outcome)
        for item in self._items.values():
            if item.shared is None:
                if item.decided is not None:
                    self._settle(item, item.decided)
                elif not item.settled:
                    self._leave_unstarted(item)
                continue
            if item.shared.state is State.INTENT:
                await self._leave_post(item)
                continue
            kind = NotSubmittedError if item.shared.submitted == "no" else ExportTimeoutError
            state = "not submitted" if kind is NotSubmittedError else "the export is not lost"
            error = kind(
                f"segment {item.segment_id}: {self._stop_reason}; {state}"
                f"{last_setback(item.shared)}",
                segment_id=item.segment_id,
                export=item.shared.export,
            )
            error.__cause__ = item.shared.setback
            await self._give_up(item, error, durably=False)

    def _leave_unstarted(self, item: Item) -> None:
        """The run hadn't come to it: it is as the session before left it."""
        record = self._ledger.known(item.segment_id) if item.opened else self._opened(item)
        state = self._ledger.state(item.segment_id)
        if state not in _GOES_ON:
            there = item.segment_id in self._files_present
            self._settle(item, self._told_before(item, record, there=there))
            return
        if state in (State.NEW, State.SUBMITTED):
            self._note(item, Event.GAVE_UP)
        kind = NotSubmittedError if record.export is None else ExportTimeoutError
        error = kind(
            f"segment {item.segment_id}: {self._stop_reason}",
            segment_id=item.segment_id,
            export=record.export,
        )
        submitted: Submitted = "no" if record.export is None else "yes"
        resumable = record.export is None or self._ledger.knows_export(item.segment_id)
        self._settle(
            item,
            NotExported(item.segment_id, record.export, error, submitted, resumable=resumable),
        )

    async def _leave_post(self, item: Item) -> None:
        """Time is up in mid-POST of another caller, who shares the export: no grace is ours."""
        error = SubmitUnknownError(
            f"segment {item.segment_id}: {self._stop_reason}; the export may be running at the "
            "vendor",
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
        shared = item.shared
        if shared is not None and shared.export is not None and self._may_be_unwritten():
            # To a later session it is an export whose answer was lost, unless the id was written.
            resumable = self._ledger.knows_export(item.segment_id)
        outcome = NotExported(
            item.segment_id,
            shared.export if shared else None,
            error,
            shared.submitted if shared else "no",
            resumable=resumable,
        )
        # Before anything is awaited: from here on nobody tells it anything, or gives it a grant.
        item.decided = outcome
        self._leave(item)
        if not durably:
            # Illegal where another caller's task is just recording how it ended.
            with contextlib.suppress(IllegalTransition):
                self._note(item, Event.GAVE_UP)
        elif not await self._recorded(item, Event.GAVE_UP, payload_of(outcome=outcome)):
            return
        self._settle(item, outcome)

    def _leave(self, item: Item) -> None:
        if item.shared is not None:
            self._registry.unfollow(self, item.shared)
            item.shared = None

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
            self._workers.deliver(None)
        self._tell()

    def _tell(self) -> None:
        """Wake whoever iterates."""
        if self._news is not None:
            self._news.set()
            self._news = None

    # ----------------------------------------------------------------- the ledger

    async def _record(
        self, item: Item, event: Event, payload: Mapping[str, Any] | None = None
    ) -> State:
        state = await self._ledger.record(item.segment_id, event, payload)
        self._moved(item, state)
        if self._ledger.away:
            self._watch_journal()
        return state

    async def _recorded(
        self, item: Item, event: Event, payload: Mapping[str, Any] | None = None
    ) -> bool:
        """Record in a task that may be another caller's. Whether that went well."""
        try:
            await self._record(item, event, payload)
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
        return self.stats.progress(
            self._ledger,
            now=now,
            oldest_pending=self._oldest_pending(now),
            oldest_link_age=self._downloads.oldest_link_age,
            fetch_seconds=self._downloads.seconds_each,
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
            if item.shared and item.shared.state is State.SUBMITTED:
                # When it was last asked about, its next poll was put a little later than that.
                since = item.shared.submitted_at
                return min(item.shared.queued.key, now) - since
        return 0.0

    def _now(self) -> float:
        """Seconds; of the run's end once it is over, when no event loop need be running."""
        return self._ended if self.over.is_set() else anyio.current_time()


def _sole(exc: BaseException) -> BaseException:
    """The first exception in a group that is no group itself."""
    while isinstance(exc, BaseExceptionGroup):
        exc = cast(BaseException, exc.exceptions[0])
    return exc


def _ended(segment_id: str, shared: SharedExport) -> NotExported:
    error = shared.fresh_error()
    return NotExported(segment_id, shared.export, error, shared.submitted, shared.resumable)


def _payload(shared: SharedExport, event: Event) -> dict[str, Any]:
    """What a later session has to know, beside that it happened."""
    if shared.error is not None and shared.segment_id is not None:
        return payload_of(outcome=_ended(shared.segment_id, shared))
    if event in (Event.ACCEPTED, Event.COMPLETED, Event.FAILED):
        return payload_of(export=shared.export)
    return {}


def _export_of(shared: SharedExport) -> Export:
    if shared.export is None:
        raise AssertionError("an export that is complete has an answer")
    return shared.export
