"""The mailbox of a caller whose request is queued, and the permit that the caller receives."""

from __future__ import annotations

import math
from collections import deque
from typing import Any, Protocol

import anyio
import attrs

from segments_async._sansio.pace.grant import Grant
from segments_async._sansio.pace.scheduler import QueuedRequest


class Target(Protocol):
    """The receiver of a queued request's permit."""

    def deliver(self, permit: Permit, /) -> None: ...


class Watch(Protocol):
    """Ends requests whose time is over, in place of their cancel scopes; see `RequestWatch`."""

    def on_due(self, due: float, /) -> None: ...


@attrs.define(eq=False)
class Permit:
    """A slot and a grant, for one request. Spend it with `Gate.send`, or `Gate.release` it."""

    grant: Grant[Target]
    #: Whether the request may have left this process. False means that it provably didn't.
    may_have_left: bool = False
    #: When the request's time is over; inf before the request is sent.
    due: float = math.inf
    _until: float = math.inf
    _scope: anyio.CancelScope | None = None
    _watch: Watch | None = None

    @property
    def queued(self) -> QueuedRequest[Target]:
        return self.grant.queued

    def bound(self, until: float) -> None:
        """End the request at `until` at the latest: the caller that sends it was cancelled."""
        self._until = min(self._until, until)
        self._set_deadline()

    def scope(self, deadline: float, *, shield: bool) -> anyio.CancelScope:
        """Make the cancel scope for the request, which ends it at `deadline`."""
        self.due = deadline
        self._scope = anyio.CancelScope(shield=shield)
        self._set_deadline()
        return self._scope

    def put_off(self, deadline: float) -> None:
        """Move the request's deadline: its time began later than its scope was made."""
        self.due = deadline
        self._set_deadline()

    def watched_by(self, watch: Watch | None) -> None:
        """Let the watch end the request in time. None: the deadline of its cancel scope does."""
        self._watch = watch
        self._set_deadline()

    def end(self) -> None:
        """End the request: its time is over."""
        self.due = math.inf
        if self._scope is not None:
            self._scope.cancel()

    def _set_deadline(self) -> None:
        if self._scope is None:
            return
        # The watch of a cancelled caller may have stopped already.
        if self._watch is None or self._until < math.inf:
            self._scope.deadline = min(self.due, self._until)
        else:
            if self._scope.deadline < math.inf:
                self._scope.deadline = math.inf
            self._watch.on_due(self.due)


class Mailbox:
    """The items that a waiting task is given: permits to spend, and other news."""

    __slots__ = ("_alarm", "_woken", "items")

    def __init__(self) -> None:
        self.items: deque[Any] = deque()
        self._woken: anyio.Event | None = None
        self._alarm: anyio.CancelScope | None = None

    def deliver(self, item: object, /) -> None:
        self.items.append(item)
        self.wake()

    def wake(self) -> None:
        """Wake the task that waits or sleeps here, if there is one."""
        if self._woken is not None:
            self._woken.set()
        if self._alarm is not None:
            self._alarm.cancel()

    async def wait(self) -> None:
        """Wait until woken, with or without an item."""
        self._woken = anyio.Event()
        try:
            await self._woken.wait()
        finally:
            self._woken = None

    async def sleep(self, seconds: float) -> None:
        """Sleep for `seconds`, or until woken.

        A timer that is rarely cancelled, not an event with a timeout: the timeout would raise a
        cancellation for every request that goes at its planned time.
        """
        try:
            with anyio.CancelScope() as self._alarm:
                if seconds == math.inf:
                    await anyio.sleep_forever()
                await anyio.sleep(seconds)
        finally:
            self._alarm = None
