"""Which of the queued requests goes next, when one may go.

An export needs one submit, and polls until it is complete. No export has a timer of its own:
whenever the pacer grants a request, the scheduler takes the best one of all that the client's
callers have queued. The order:

1. Calls (a list, a status) in the order in which they came, but never two in a row while submits
   or polls wait, so that neither side starves.
2. While submits and polls wait, polls get the part `poll_share` of the other grants: at 0.2 every
   fifth. After a refused submit the next few grants go to polls, to tell a cap on running exports
   from a limit on requests (`job_cap`).
3. Submits by their expected seconds, longest first, then in the order in which they came: a long
   export that is submitted last makes the run longer. Polls by the time at which they fall due.

A submit waits for more than its turn: for its retry delay (`QueuedRequest.not_before`), for room
under `max_pending` and under the cap that 429s taught, for the Retry-After of such a 429, and for
`submits_held_until`, which `admission` sets while the results of submits are unknown.
"""

from __future__ import annotations

import heapq
import math
from enum import Enum, auto
from typing import Generic, TypeVar

from segments_async._sansio.pace.hold import Hold
from segments_async._sansio.pace.job_cap import PendingCap
from segments_async.errors import ConfigurationError
from segments_async.results import HeldReason

Target = TypeVar("Target")

#: Between two polls of one export: at least this many seconds, and this part of the seconds since
#: it was submitted. The end of an export of an hour is noticed within 72 s, after about 300 polls
#: rather than 7 200.
SHORTEST_POLL_GAP = 0.5
POLL_GAP_BY_AGE = 0.02


class Kind(Enum):
    """The purpose of a request."""

    CALL = auto()
    SUBMIT = auto()
    POLL = auto()


class QueuedRequest(Generic[Target]):
    """A request that waits for its turn; the permit to send it goes to `target`."""

    __slots__ = ("entry", "key", "kind", "not_before", "shown_at", "suspect", "target")

    def __init__(self, kind: Kind, target: Target, key: float = 0.0) -> None:
        self.kind: Kind = kind
        self.target: Target = target
        #: A call's and a poll's earliest time; a submit's expected seconds, negated.
        self.key: float = key
        #: A submit's earliest time, in seconds.
        self.not_before: float = -math.inf
        #: Whether a submit was refused again and again, perhaps alone: a harmless request goes
        #: first, to see whether that one passes.
        self.suspect: bool = False
        #: When a list showed the segment of a submit that had been answered 404, in seconds.
        self.shown_at: float = math.inf
        #: Number of its entry in the scheduler; 0 while it has none.
        self.entry: int = 0


class PollScheduler(Generic[Target]):
    """Every queued request of one client, and the order among them.

    Args:
        poll_share: part of the grants that polls may take while submits wait, from 0 (the
            shortest run) to 1 (the earliest results).
        max_pending: the most exports at work at the vendor at once; None for no cap of ours.

    Raises:
        ConfigurationError: a share or a cap that makes no sense.
    """

    def __init__(self, *, poll_share: float = 0.2, max_pending: int | None = None) -> None:
        if not 0 <= poll_share <= 1:
            raise ConfigurationError(f"poll_share: from 0 to 1, not {poll_share!r}")
        if max_pending is not None and max_pending < 1:
            raise ConfigurationError(f"max_pending: at least 1, not {max_pending!r}")
        self._share = poll_share
        self._most_pending = math.inf if max_pending is None else max_pending
        #: The cap on running exports, as 429s to submits tell.
        self.cap: PendingCap = PendingCap()
        self._no_room_until = -math.inf
        #: No submit goes before this time, in seconds.
        self.submits_held_until: float = -math.inf
        self._calls: _Queue[Target] = _Queue()
        self._submits: _Queue[Target] = _Queue()
        self._delayed: _Queue[Target] = _Queue()  # submits, by their earliest time
        self._polls: _Queue[Target] = _Queue()
        self._entries = 0
        self._poll_credit = 0.0
        self._called_last = False
        #: Exports submitted, or being submitted, that are not known to have ended.
        self.pending: int = 0

    def add(self, queued: QueuedRequest[Target]) -> None:
        """Queue a request. A submit that comes back after a 429 goes last among its equals."""
        self._entries += 1
        queued.entry = self._entries
        if queued.kind is Kind.POLL:
            self._polls.push(queued.key, queued)
        elif queued.kind is Kind.CALL:
            self._calls.push(queued.key, queued)
        elif queued.not_before > -math.inf:
            self._delayed.push(queued.not_before, queued)
        else:
            self._submits.push(queued.key, queued)

    def cancel(self, queued: QueuedRequest[Target]) -> None:
        """Forget a request, if it is queued; its entry is dropped when it comes up."""
        queued.entry = 0

    def queued(self, kind: Kind) -> int:
        """The number of queued requests of a kind."""
        if kind is Kind.SUBMIT:
            return self._submits.count() + self._delayed.count()
        return (self._calls if kind is Kind.CALL else self._polls).count()

    def submit_is_due(self, now: float) -> bool:
        """Whether a submit would be sent now if submits weren't held (`submits_held_until`)."""
        self._wake_delayed(now)
        return bool(self._submits) and self._has_room() and self._no_room_until <= now

    def submit_hold(self, now: float) -> Hold | None:
        """What delays the submits that are due; None where nothing does, or none is due."""
        if not self._submits:
            return None
        if not self._has_room():
            return Hold(HeldReason.JOB_CAP, math.inf)
        if self._no_room_until > now:
            return Hold(HeldReason.JOB_CAP, self._no_room_until)
        if self.submits_held_until > now:
            return Hold(HeldReason.VENDOR_AWAY, self.submits_held_until)
        return None

    def next_at(self, now: float) -> float:
        """The earliest time of any request: past if one is overdue, inf if none is queued."""
        self._wake_delayed(now)
        at = min(self._polls.first(), self._calls.first())
        if self._has_room():
            if self._submits:
                at = min(at, self._held_until())
            if self._delayed:
                at = min(at, max(self._delayed.first(), self._held_until()))
        return at

    def pop(self, now: float, *, harmless: bool = False) -> QueuedRequest[Target] | None:
        """Take the next request, or None where none is due.

        Args:
            now: seconds.
            harmless: prefer calls and polls to submits (for a probe).
        """
        self._wake_delayed(now)
        queue = self._turn(now, harmless=harmless)
        if queue is None:
            return None
        self.pending += queue is self._submits
        self._called_last = queue is self._calls
        queued = queue.pop()
        queued.entry = 0
        return queued

    def _turn(self, now: float, *, harmless: bool) -> _Queue[Target] | None:
        """The queue whose turn it is; None where no request is due."""
        call, poll = self._calls.first() <= now, self._polls.first() <= now
        submit = self._is_submit_due(now)
        others = poll if harmless else self._called_last and (poll or submit)
        if call and not others:
            return self._calls
        if poll and (harmless or not submit or self.cap.suspected or self._is_polls_turn()):
            return self._polls
        return self._submits if submit else None

    def ended(self) -> None:
        """A pending export has ended, or no caller is interested in it any more."""
        self.pending -= 1
        self.cap.on_job_ended()

    def not_started(self) -> None:
        """A submit that was popped began no export: it was refused, or never sent."""
        self.pending -= 1

    def on_granted(self, kind: Kind) -> None:
        """A request got an answer that isn't 429."""
        if kind is Kind.POLL:
            self.cap.on_poll_granted()
        elif kind is Kind.SUBMIT:
            self.cap.on_submit_granted()

    def on_refused(
        self, now: float, kind: Kind, *, retry_after: float | None, rate: float | None
    ) -> bool:
        """A request got a 429. Returns whether the vendor caps running exports.

        Then the 429 says nothing about the rate: polls go on, and submits wait until an export
        ends, and for `retry_after` seconds.
        """
        if kind is Kind.POLL:
            self.cap.on_poll_refused()
        if kind is not Kind.SUBMIT or not self.cap.on_submit_refused(self.pending - 1, rate):
            return False
        if retry_after is not None:
            self._no_room_until = max(self._no_room_until, now + retry_after)
        return True

    def _held_until(self) -> float:
        return max(self._no_room_until, self.submits_held_until)

    def _wake_delayed(self, now: float) -> None:
        """Queue the submits whose delay is over among the others, at their own place."""
        while self._delayed.first() <= now:
            queued = self._delayed.pop()
            self._submits.push(queued.key, queued)

    def _has_room(self) -> bool:
        return self.pending < self._most_pending and self.pending < self.cap.jobs

    def _is_submit_due(self, now: float) -> bool:
        return bool(self._submits) and self._held_until() <= now and self._has_room()

    def _is_polls_turn(self) -> bool:
        """Submits and polls both wait: whether this grant is a poll's."""
        self._poll_credit += self._share
        # Tenths don't add up to one in binary; a share of 0.2 is every fifth grant all the same.
        if self._poll_credit < 1.0 - 1e-9:
            return False
        self._poll_credit -= 1.0
        return True


class _Queue(Generic[Target]):
    """Requests by a key, smallest first, then in the order in which they came.

    A heap of (key, entry, request). An entry counts while its request still has its number.
    """

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, QueuedRequest[Target]]] = []

    def push(self, key: float, queued: QueuedRequest[Target]) -> None:
        heapq.heappush(self._entries, (key, queued.entry, queued))

    def __bool__(self) -> bool:
        """Whether a request is queued."""
        return self.first() < math.inf

    def first(self) -> float:
        """The smallest key; inf in an empty queue. Cancelled requests are dropped from the head."""
        entries = self._entries
        while entries:
            key, entry, queued = entries[0]
            if entry == queued.entry:
                return key
            heapq.heappop(entries)
        return math.inf

    def pop(self) -> QueuedRequest[Target]:
        """Take the first request; the queue is not empty."""
        return heapq.heappop(self._entries)[2]

    def count(self) -> int:
        return sum(entry == queued.entry for _, entry, queued in self._entries)


def next_poll_at(now: float, submitted_at: float) -> float:
    """When to poll an export again whose status has just come."""
    return now + max(SHORTEST_POLL_GAP, POLL_GAP_BY_AGE * (now - submitted_at))
