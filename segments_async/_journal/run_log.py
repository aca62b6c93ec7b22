"""The log of one run: an event is told only once it is durable, and many are made so at once.

*Group commit.* Whoever has an event puts it at the end of the queue. If nobody leads, it leads: in
one hop to a worker thread it writes all that has gathered, wakes those whose events these were,
and hands on the lead. No task belongs to the log.

A cancelled caller stays for the moment that it takes to write an event that it handed over. Rows
are numbered, and written at most once, so that a task which doesn't live to see its thread's end
(asyncio's own `Task.cancel()` respects no shield) leaves nothing in doubt.
"""

from __future__ import annotations

import itertools
import json
from collections import deque
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from functools import partial
from typing import Any, cast

import anyio
import anyio.lowlevel
import anyio.to_thread

from segments_async._journal.locked import Locked
from segments_async._journal.opened_run import OpenedRun
from segments_async._sansio.facts import check_secrets
from segments_async._sansio.lifecycle import Event, State
from segments_async._sansio.standing import Logged, Standing, step
from segments_async._sansio.tally import Tally
from segments_async.errors import JournalError

#: Events in one transaction.
_MOST_AT_ONCE = 1000

#: Seconds until another process is taken to hold the database for good, and between attempts.
_PATIENCE = 30.0
_BETWEEN = 0.05

#: Seconds for which a cancelled caller sees to it that an event is written that he handed over.
_GRACE = 0.5

_NEW = Standing()


class _Entry:
    """A place in the queue. Without a row, it waits for those before it."""

    __slots__ = ("row", "settled", "wakeup")

    def __init__(self, row: dict[str, Any] | None) -> None:
        self.row = row
        self.settled = False
        self.wakeup: anyio.Event | None = None


class RunLog:
    """One run's log, and where it says that each export stands.

    A :class:`Tally` with a past: `open` says which segments are the run's now, and `count`
    counts those.
    """

    def __init__(self, run: OpenedRun) -> None:
        self._run = run
        self._standings = run.known
        self._now = Tally()
        self._queue: deque[_Entry] = deque()
        self._leading = False
        self._busy_since: float | None = None
        self._broken: JournalError | None = None
        self._closed = False
        #: Whether the run had ended before it was opened here. Nothing can be recorded in it then.
        self.finished: bool = run.ended_at is not None

    @property
    def name(self) -> str:
        return self._run.name

    @property
    def started_at(self) -> datetime:
        """When the run's first session started."""
        return self._run.started_at

    @property
    def ended_at(self) -> datetime | None:
        return self._run.ended_at

    @property
    def standings(self) -> Mapping[str, Standing]:
        """Where each export stands that something is logged of, whether or not it was opened."""
        return self._standings

    def open(self, segment_id: str) -> Standing:
        """A segment of the run; where its export stands. A NEW one takes no place in the log."""
        standing = self._standings.get(segment_id, _NEW)
        self._now.open(segment_id, standing.state)
        return standing

    def state(self, segment_id: str) -> State:
        return self._now.state(segment_id)

    def count(self, *states: State) -> int:
        """How many of the opened exports are in one of these states."""
        return self._now.count(*states)

    async def record(
        self, segment_id: str, event: Event, facts: Mapping[str, Any] | None = None
    ) -> None:
        """Log the event. Returns once it is durable, and never before.

        Events are logged in the order of the calls. Under cancellation: before the event is handed
        over, nothing was logged; afterwards it is, unless the database can't be written.

        Args:
            segment_id: an opened segment.
            event: what happened.
            facts: as :func:`facts_of` makes them.

        Raises:
            IllegalTransition: it can't happen there; nothing changes.
            UnreadableFacts, SecretInFacts: the facts can't be logged; nothing changes.
            JournalError: the database can't be written. Nothing can be recorded any more.
        """
        await anyio.lowlevel.checkpoint_if_cancelled()
        self._raise_broken()
        if self.finished or self._closed:
            raise AssertionError(f"run {self.name} is over: nothing happens in it")
        before = self._now.state(segment_id)  # KeyError: not opened
        logged = Logged(segment_id, event, datetime.now(UTC), dict(facts or {}))
        text = _text(logged.facts)
        after = step(self._standings.get(segment_id, _NEW), logged)
        if after.state is not before:
            self._now.move(segment_id, after.state)
        self._standings[segment_id] = after
        await self._written(_Entry(self._run.row(logged, text)))

    async def finish(self) -> None:
        """The run is over: opened again by its name, it tells how everything ended.

        Raises:
            JournalError: the database can't be written.
        """
        await self._written(_Entry(None))
        ended = partial(
            self._run.finish, datetime.now(UTC), {state: self.count(state) for state in State}
        )
        until = anyio.current_time() + _PATIENCE
        while not self.finished:
            try:
                with anyio.CancelScope(shield=True):
                    await anyio.to_thread.run_sync(ended)
                self.finished = True
            except Locked as exc:
                if anyio.current_time() > until:
                    raise self._too_busy() from exc
                await anyio.sleep(_BETWEEN)

    async def aclose(self) -> None:
        """Write what was handed over, and let go of the run. Never raises for the journal."""
        if self._closed:
            return
        self._closed = True
        try:
            if self._broken is None and self._queue:
                with anyio.move_on_after(_GRACE, shield=True):
                    await self._settle(_Entry(None))
        except JournalError:
            pass  # who waited for the event has been told
        finally:
            await self._let_go()

    async def _let_go(self) -> None:
        try:
            with anyio.CancelScope(shield=True):
                await anyio.to_thread.run_sync(self._run.close)
        except BaseException:
            self._run.close()  # cancelled by asyncio itself before the thread started
            raise

    # ----------------------------------------------------------------- group commit

    async def _written(self, entry: _Entry) -> None:
        try:
            await self._settle(entry)
        except anyio.get_cancelled_exc_class():
            if not entry.settled:
                with anyio.move_on_after(_GRACE, shield=True):
                    await self._settle(entry, queued=True)
            raise

    async def _settle(self, entry: _Entry, *, queued: bool = False) -> None:
        """Wait for the entry to be written, by whoever leads."""
        if not queued:
            self._queue.append(entry)
        try:
            while not entry.settled:
                if self._leading:
                    entry.wakeup = anyio.Event()
                    await entry.wakeup.wait()
                else:
                    await self._lead()
        finally:
            entry.wakeup = None
            self._hand_on()
        self._raise_broken()

    async def _lead(self) -> None:
        """Write what has gathered, once. At the end nobody leads."""
        self._leading = True
        try:
            if self._busy_since is not None:
                await anyio.sleep(_BETWEEN)
            await self._write_batch()
        finally:
            self._leading = False

    async def _write_batch(self) -> None:
        batch = list(itertools.islice(self._queue, _MOST_AT_ONCE))
        rows = [entry.row for entry in batch if entry.row is not None]
        try:
            with anyio.CancelScope(shield=True):
                if rows:
                    await anyio.to_thread.run_sync(self._run.append, rows)
        except Locked as exc:
            now = anyio.current_time()
            if self._busy_since is None:
                self._busy_since = now
            if now - self._busy_since > _PATIENCE:
                self._break(self._too_busy(), exc)
        except Exception as exc:  # noqa: BLE001 - whatever it is, what follows can't be logged
            self._break(exc if isinstance(exc, JournalError) else self._unwritable(exc), exc)
        else:
            self._busy_since = None
            for entry in batch:
                self._queue.popleft()
                _tell(entry)

    def _hand_on(self) -> None:
        """If nobody leads, whoever waits first does."""
        if self._leading:
            return
        waiting = (entry.wakeup for entry in self._queue if entry.wakeup is not None)
        if (wakeup := next(waiting, None)) is not None:
            wakeup.set()

    def _break(self, error: JournalError, cause: Exception) -> None:
        error.__cause__ = cause.__cause__ if cause is error else cause
        self._broken = error
        while self._queue:
            _tell(self._queue.popleft())

    def _raise_broken(self) -> None:
        if self._broken is not None:
            error = JournalError(
                str(self._broken), reason=self._broken.reason, location=self._broken.location
            )
            raise error from self._broken.__cause__

    def _too_busy(self) -> JournalError:
        return JournalError(
            f"{self._run.location}: another process is writing without end",
            reason="locked",
            location=self._run.location,
        )

    def _unwritable(self, exc: Exception) -> JournalError:
        return JournalError(
            f"{self._run.location}: can't be written: {type(exc).__name__}",
            reason="unavailable",
            location=self._run.location,
        )


def _tell(entry: _Entry) -> None:
    entry.settled = True
    if entry.wakeup is not None:
        entry.wakeup.set()


def _text(facts: Mapping[str, Any]) -> str:
    """The facts as JSON; SecretInFacts where a link or a signature is among them."""
    _check(facts)
    return json.dumps(facts, separators=(",", ":"), allow_nan=False)


def _check(value: Any) -> None:
    inner: Iterable[Any] = ()
    if isinstance(value, str):
        check_secrets(value)
    elif isinstance(value, Mapping):
        inner = cast(Mapping[str, Any], value).values()
    elif isinstance(value, list | tuple):
        inner = cast(Iterable[Any], value)
    for each in inner:
        _check(each)
