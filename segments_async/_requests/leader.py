"""Which of the waiting callers sleeps until the next request may go.

There is no background task: a task group in the client would wrap its users' exceptions in groups.
Instead, the callers that wait for the gate lead each other. One of them is the *leader*: it sleeps
until the next request may go, and then grants requests to whichever callers queued them. When the
leader gets an item of its own, or is cancelled, the caller that has waited longest becomes the
leader. All others sleep until an item is delivered to them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import anyio.lowlevel

from segments_async._requests.permits import Mailbox
from segments_async._sansio.pace.grant import Wait
from segments_async._sansio.pace.pacer import Pacer

#: Seconds before its time at which a request counts as due. A timer may fire a rounding error too
#: early; the leader would then sleep for no time, again and again.
TICK = 1e-6

#: The longest sleep, in seconds, from which nothing wakes the leader, where it waits for the pacer
#: alone. Hardly anything lets the next request go earlier, and a sleep that others can end costs a
#: tenth of a request's processor time.
NAP = 0.05

#: The shortest sleep for the pacer, in seconds. A shorter one costs more processor time than even
#: gaps between requests are worth. The requests that become due during the sleep go together: two
#: at a time at 100 requests/s. Below 66 requests/s nothing changes.
SHORTEST_NAP = 0.015


class Leader:
    """Elects a leader among the callers that wait, and wakes it when its plan has changed.

    Args:
        pacer: says when the next request may go, so far as the rate is concerned.
        dispatch: grants every request that may go now, and says when to dispatch again. It is
            synchronous: with an await between check and grant, two tasks could take one grant.
    """

    def __init__(self, pacer: Pacer, dispatch: Callable[[float], Wait]) -> None:
        self._pacer = pacer
        self._dispatch = dispatch
        self._waiting: dict[Mailbox, None] = {}
        self._leader: Mailbox | None = None
        #: Until when the leader sleeps; None while it is awake.
        self._asleep_until: float | None = None
        #: When the next request may go, where the pacer alone delays it; else None.
        self._paced_until: float | None = None
        # An answer to one client may let the next request of another client of this pacer go.
        pacer.leaders.add(self)

    @property
    def leads(self) -> bool:
        """Whether a caller leads now."""
        return self._leader is not None

    @property
    def waiting(self) -> int:
        """The callers that wait without leading."""
        return len(self._waiting)

    async def next(self, mailbox: Mailbox) -> Any:
        """Wait for the next item in the mailbox, and lead meanwhile if no other caller does."""
        while not mailbox.items:
            if self._leader is None:
                await self._lead(mailbox)
            else:
                self._waiting[mailbox] = None
                try:
                    await mailbox.wait()
                finally:
                    del self._waiting[mailbox]
                    self._elect()
        # A caller that was cancelled meanwhile must not send. Its permit stays in the mailbox, and
        # the mailbox's owner releases it.
        await anyio.lowlevel.checkpoint_if_cancelled()
        return mailbox.items.popleft()

    def reschedule(self) -> None:
        """Something changed while the leader sleeps: grant every request that may go now.

        The leader is woken only if it was granted a request, or has to wake up earlier.
        """
        if self._leader is None or self._asleep_until is None:
            return
        if self._paced_until is not None and self._paced_until <= self._pacer.next_at():
            # Whatever changed, no request can go before the leader wakes up anyway.
            return
        if self._look(anyio.current_time()) < self._asleep_until - TICK:
            self._leader.wake()

    def _look(self, now: float) -> float:
        self._paced_until = None
        wait = self._dispatch(now + TICK)
        self._paced_until = wait.at if wait.paced else None
        return wait.at

    async def _lead(self, mailbox: Mailbox) -> None:
        self._leader = mailbox
        try:
            while True:
                now = anyio.current_time()
                at = self._look(now)
                if mailbox.items:
                    return
                self._asleep_until = at
                if self._paced_until is not None and at - now <= NAP:
                    await anyio.sleep(max(at - now, SHORTEST_NAP))
                else:
                    await mailbox.sleep(at - now)
                self._asleep_until = None
        finally:
            self._leader = self._asleep_until = None
            self._elect()

    def _elect(self) -> None:
        """If no caller leads, wake the one that has waited longest: it becomes the leader."""
        if self._leader is None and self._waiting:
            next(iter(self._waiting)).wake()
