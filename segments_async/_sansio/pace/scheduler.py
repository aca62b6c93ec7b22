"""Which request goes next, when one may go.

There is no timer per export: a grant of the pacer pulls the next best request among all that this
client wants. Order among them:

1. Calls (a list, a status) in the order they came, but never two in a row while
   submits or polls wait, so that neither side starves.
2. While submits wait, polls get every 1/`poll_share`-th of the other grants; after a refused
   submit the next few, to tell a cap on running jobs from a limit on requests.
3. Submits by expected duration, longest first, then in the order they came; polls by due time.
"""

from __future__ import annotations

import heapq
import math
from enum import Enum, auto
from typing import Generic, TypeVar

from segments_async._sansio.pace.job_cap import PendingCap
from segments_async.errors import ConfigurationError

Target = TypeVar("Target")

#: Between two polls of one export: at least this many seconds, and this part of its age. So an
#: export of an hour is noticed within 72 s, and costs about 300 polls rather than 7 200.
SHORTEST_POLL_GAP = 0.5
POLL_GAP_BY_AGE = 0.02


class Kind(Enum):
    """What a request is for."""

    CALL = auto()
    SUBMIT = auto()
    POLL = auto()


class QueuedRequest(Generic[Target]):
    """A request that somebody waits for; `target` says who and what."""

    __slots__ = ("entry", "key", "kind", "not_before", "suspect", "target")

    def __init__(self, kind: Kind, target: Target, key: float = 0.0) -> None:
        self.kind: Kind = kind
        self.target: Target = target
        #: A call's and a poll's earliest time; a submit's expected seconds, negated.
        self.key: float = key
        #: Of a submit, when it may go at the earliest, in seconds.
        self.not_before: float = -math.inf
        #: Of a submit, whether it was refused again and again, perhaps it alone: something harmless
        #: goes first, to see.
        self.suspect: bool = False
        #: Number of its entry in the scheduler; 0 while it has none.
        self.entry: int = 0


class PollScheduler(Generic[Target]):
    """Every request that one client wants, and the order among them.

    Args:
        poll_share: share of the grants that polls may take while submits wait, from 0 (the
            shortest run) to 1 (the earliest results).
        max_pending: exports at work at the vendor at once; None for no cap of ours.
    """

    def __init__(self, *, poll_share: float = 0.2, max_pending: int | None = None) -> None:
        if not 0 <= poll_share <= 1:
            raise ConfigurationError(f"poll_share: from 0 to 1, not {poll_share!r}")
        if max_pending is not None and max_pending < 1:
            raise ConfigurationError(f"max_pending: at least 1, not {max_pending!r}")
        self._share = poll_share
        self._most_pending = math.inf if max_pending is None else max_pending
        self._cap = PendingCap()
        self._no_room_until = -math.inf
        #: Until when no submit goes, in seconds: set by the gate.
        self.submits_held_until: float = -math.inf
        self._delayed: _Queue[Target] = []
        self._calls: _Queue[Target] = []
        self._submits: _Queue[Target] = []
        self._polls: _Queue[Target] = []
        self._entries = 0
        self._poll_credit = 0.0
        self._called_last = False
        #: Exports submitted, or being submitted, and not known to have ended.
        self.pending: int = 0

    def add(self, queued: QueuedRequest[Target]) -> None:
        """Queue a want. A submit that comes back after a 429 goes last among its equals."""
        self._entries += 1
        queued.entry = self._entries
        if queued.kind is Kind.POLL:
            heapq.heappush(self._polls, (queued.key, queued.entry, queued))
        elif queued.kind is Kind.CALL:
            heapq.heappush(self._calls, (queued.key, queued.entry, queued))
        elif queued.not_before > -math.inf:
            heapq.heappush(self._delayed, (queued.not_before, queued.entry, queued))
        else:
            heapq.heappush(self._submits, (queued.key, queued.entry, queued))

    def cancel(self, queued: QueuedRequest[Target]) -> None:
        """Forget a want, if it is queued; its entry is dropped when it comes up."""
        queued.entry = 0

    def queued(self, kind: Kind) -> int:
        """The queued requests of a kind."""
        queues = {
            Kind.CALL: (self._calls,),
            Kind.SUBMIT: (self._submits, self._delayed),
            Kind.POLL: (self._polls,),
        }
        return sum(entry == q.entry for queue in queues[kind] for _, entry, q in queue)

    def next_at(self, now: float) -> float:
        """When the next request wants to go: the past if one is overdue, inf if there is none."""
        at = math.inf
        self._wake_delayed(now)
        if _has_head(self._submits) and self._has_room():
            held = self._held_until()
            if held <= now:
                return now
            at = held
        if _has_head(self._delayed) and self._has_room():
            at = min(at, max(self._delayed[0][0], self._held_until()))
        if _has_head(self._polls):
            at = min(at, self._polls[0][0])
        if _has_head(self._calls):
            at = min(at, self._calls[0][0])
        return at

    def pop(self, now: float, *, harmless: bool = False) -> QueuedRequest[Target] | None:
        """Take the next request, or None where none is due.

        Args:
            now: seconds.
            harmless: prefer whatever isn't a submit (for the ticket guard's probe).
        """
        self._wake_delayed(now)
        call, poll = _is_due(self._calls, now), _is_due(self._polls, now)
        submit = self._held_until() <= now and self._has_room() and _has_head(self._submits)
        calls_turn = not poll if harmless else not self._called_last or not (poll or submit)
        if call and calls_turn:
            queue = self._calls
        elif poll and (harmless or not submit or self._cap.suspected or self._polls_turn()):
            queue = self._polls
        elif submit:
            queue = self._submits
            self.pending += 1
        else:
            return None
        self._called_last = queue is self._calls
        queued = heapq.heappop(queue)[2]
        queued.entry = 0
        return queued

    def ended(self) -> None:
        """An export that was at work has ended, or is nobody's any more."""
        self.pending -= 1
        self._cap.on_job_ended()

    def not_started(self) -> None:
        """A submit that was popped came to nothing: refused, or never sent."""
        self.pending -= 1

    def on_granted(self, kind: Kind) -> None:
        """A request got an answer that isn't 429."""
        if kind is Kind.POLL:
            self._cap.on_poll_granted()
        elif kind is Kind.SUBMIT:
            self._cap.on_submit_granted()

    @property
    def rate_before_cap(self) -> float | None:
        """Requests/s before 429s were first met that turned out to be a cap's."""
        return self._cap.rate_before

    def on_refused(
        self, now: float, kind: Kind, *, retry_after: float | None, rate: float | None
    ) -> bool:
        """A request got a 429. Whether it was a cap on running jobs, and no word on the rate.

        Then submits wait for a job to end, and as long as the answer asks; polls go on.
        """
        if kind is Kind.POLL:
            self._cap.on_poll_refused()
        if kind is not Kind.SUBMIT or not self._cap.on_submit_refused(self.pending - 1, rate):
            return False
        if retry_after is not None:
            self._no_room_until = max(self._no_room_until, now + retry_after)
        return True

    def _held_until(self) -> float:
        return max(self._no_room_until, self.submits_held_until)

    def _wake_delayed(self, now: float) -> None:
        """Queue the submits whose delay is over among the others, at their own place."""
        while _is_due(self._delayed, now):
            _, entry, queued = heapq.heappop(self._delayed)
            heapq.heappush(self._submits, (queued.key, entry, queued))

    def _has_room(self) -> bool:
        return self.pending < self._most_pending and self.pending < self._cap.jobs

    def _polls_turn(self) -> bool:
        """Submits and polls both wait: whether this grant is a poll's."""
        self._poll_credit += self._share
        # Tenths don't add up to one in binary; a share of 0.2 is every fifth grant all the same.
        if self._poll_credit < 1.0 - 1e-9:
            return False
        self._poll_credit -= 1.0
        return True


#: Entries (key, number, want), as a heap; an entry counts while its want still has its number.
_Queue = list[tuple[float, int, QueuedRequest[Target]]]


def _has_head(queue: _Queue[Target]) -> bool:
    """Whether the queue holds a want, once what was discarded is dropped from its head."""
    while queue:
        _, entry, queued = queue[0]
        if entry == queued.entry:
            return True
        heapq.heappop(queue)
    return False


def _is_due(queue: _Queue[Target], now: float) -> bool:
    return _has_head(queue) and queue[0][0] <= now


def next_poll_at(now: float, submitted_at: float) -> float:
    """When an export whose answer has just come is worth asking about again."""
    return now + max(SHORTEST_POLL_GAP, POLL_GAP_BY_AGE * (now - submitted_at))
