"""When the next request may be sent: the search for a limit that the vendor doesn't name.

The vendor's page has a 429 and names no rate. So the pacer sends evenly, a little faster with every
accepted request, until a 429 says that the rate was too high. Then it holds all requests, sends
single probes until one is accepted, and goes on at the rate that was evidently granted.
docs/decisions.md has the reasoning, docs/measurements.md the measurements.

Words: a *block* is the time from a 429 to the first accepted probe after it. An *interval* is the
time from the end of one block to the next 429. The limit is *sought* until it is *granted*, which
is what the pacer calls its estimate. A block is *short* where a limiter that refills continuously
explains it, and *long* otherwise: L >= max(2 s, 4 / rate).

n is the number of requests accepted in an interval while a caller waited for the pacer, s the
seconds between them, L the block after the interval, R the estimate, K the plateau.

The rate in an interval (`estimate.Estimate.grown`):

* The limit is sought: the rate doubles 1.5 times a second.
* R is known: the rate is R (1 + 0.03 x^3) with x = (n - K) / K, up to x = 1.5. From there on it
  grows by 1/K of itself with each request.

What an interval and its block say about R (`search` up to the first R, then `estimate`):

* The first interval says nothing. Its requests include the burst that the limiter had saved up, so
  their rate is above the limit, or the rest of a burst that another user of the account had left.
* The limit is sought, the block is short: R = max((n + 1) / (s + L), n / s), from 8 requests on.
* R is known, the block is short: R = max(n / s, recent), where recent is (n + 1) / (s + L) over the
  last few intervals. Long before the plateau, R falls by CUTS instead.
* The block is long: another user may have used the limit up, and then neither n nor L is evidence.
  Fewer than 40 requests are no limit, and the search goes on. Once R is known, it stays.
* Two intervals before long blocks ended at the same n, though at different rates: a window's
  budget ended them, or a bucket that was full. R = n over the time from one block's end to the next
  block's end. Where that is less than a quarter of the rate, a third interval at a rate between the
  two has to end at n too (`windows`).
* A Retry-After made the block long, and the interval was short: a bucket was full at its beginning.
  Two such intervals give the burst and R, as two points give a line.

R is kept for K requests, which are at most twice the requests that R was made from. Until R is made
from as many requests as a plateau has, the search goes on after K: the rate doubles.
"""

from __future__ import annotations

import math
from typing import Protocol
from weakref import WeakSet

from segments_async._sansio.pace.estimate import RISEN, Estimate
from segments_async._sansio.pace.interval import Interval
from segments_async._sansio.pace.limit_headers import Hint, HintedWaits
from segments_async._sansio.pace.search import FIRST_RATE
from segments_async._sansio.pace.shared_limit import Share
from segments_async.errors import ConfigurationError

HIGHEST_RATE = 2000.0

#: Seconds of lateness that may be caught up at once: timers and answers jitter by about as much.
CATCH_UP = 0.03

#: Gaps between the probes of a block, in seconds. In a long block, the gap is this part of the
#: block: an hour's window is worth a hundred probes, not five hundred. The first gap is one and a
#: half spaces between two requests. At low rates it is at most 3 s, or the gap itself would make
#: the block so long that a low rate would confirm itself.
SHORTEST_GAP = 0.02
LONGEST_GAP = 7.0
LONGEST_GAP_AT_FIRST = 3.0
GAP_BY_BLOCK = 0.1

#: Where a window's end made the last block long, the next block's first gap is this part of the
#: last block, at most this many seconds.
FIRST_GAP_BY_LAST_BLOCK = 0.25
LONGEST_FIRST_GAP = 1.0


class Leader(Protocol):
    """Grants the requests of one client."""

    def reschedule(self) -> None: ...


class Pacer:
    """Paces every request of one account, and learns how fast that may be.

    One pacer may be given to several clients of one account in one event loop. Processes that keep
    their runs in one journal divide the limit between their pacers.

    Args:
        rate: requests/s. None: learn it. A number: start there and never exceed it; 429s still
            lower it. ``math.inf``: no pacing until the first 429.

    Raises:
        ConfigurationError: a rate that is zero, negative or NaN.
    """

    def __init__(self, *, rate: float | None = None) -> None:
        if rate is not None and not rate > 0:
            raise ConfigurationError(f"rate: requests/s above zero, not {rate!r}")
        known = rate if rate is not None and rate < math.inf else None
        #: Whether the limit is learnt. False where the caller gave a rate.
        self.learns: bool = rate is None
        #: The clients of this pacer. Each looks again at what may go when the pace changes.
        self.leaders: WeakSet[Leader] = WeakSet()
        #: The part of the limit that this pacer has among the account's processes.
        self.share: Share = Share()
        #: Answers of 429 so far.
        self.throttled: int = 0
        #: Whether a request has waited for the pacer since `take_waited`.
        self.waited: bool = False
        self._ceiling: float = HIGHEST_RATE if known is None else known
        self._estimate = Estimate(known, self._ceiling)
        self._rate: float = FIRST_RATE if rate is None else rate
        self._next = self._hold = -math.inf
        self._hinted_waits = HintedWaits()
        # Requests are told apart by epochs: a new one begins with each cut, and with each interval.
        self._epoch = 0

        # The interval: accepted requests and the seconds between them, while a caller waited.
        self._accepted = 0
        self._span = 0.0
        self._last_accepted: float | None = None
        self._waiting = False
        self._first_sent: float | None = None
        # All that was accepted in the interval, whether a caller waited or not, and its beginning.
        self._passed = 0
        self._began: float | None = None

        # The block.
        self._blocked = False
        self._block_began = 0.0
        self._probe_sent: float | None = None
        self._probe_before: float | None = None
        self._last_probe = 0.0
        self._gap = 0.0
        self._cut_rate = self._rate
        self._asked_to_wait = False
        self._asked_for = 0.0

    def __repr__(self) -> str:
        rate = "no limit" if self.rate is None else f"at most {self.rate:.3g} requests/s"
        block = ", held by a 429" if self._blocked else ""
        return f"<Pacer: {rate}, {self.throttled} answers of 429{block}>"

    @property
    def blocked(self) -> bool:
        """Whether a 429 holds all requests, and no probe has been accepted yet."""
        return self._blocked

    @property
    def rate(self) -> float | None:
        """Requests/s that are being sent at most now; None while nothing limits them."""
        return None if self._rate == math.inf else self._rate

    @property
    def granted(self) -> float | None:
        """Requests/s that the vendor is believed to grant; None while the limit is sought."""
        granted = self._estimate.granted
        if granted is None or self._rate == math.inf:
            return granted
        # Where the rate has grown far beyond the estimate, a 429 would raise the estimate to this.
        return max(granted, RISEN * self._rate)

    @property
    def passing(self) -> float | None:
        """Requests/s accepted so far, while the limit is sought without any 429; None otherwise."""
        if self._estimate.granted is not None or self.throttled or not self._span:
            return None
        return (self._accepted - 1) / self._span

    def next_at(self) -> float:
        """The earliest time at which the next request may go."""
        if self._blocked and self._probe_sent is not None:
            # One probe at a time. A probe lapses: one hung request would stop the account.
            lapse = self._probe_sent + max(LONGEST_GAP, self._gap)
            return max(self._next, self._hold, lapse)
        return max(self._next, self._hold)

    def take(self, now: float) -> int:
        """Send one request now. Returns the epoch, which has to come back with its answer."""
        self._next = max(self._next, now - CATCH_UP) + 1 / self._rate
        if self._blocked:
            self._next = now  # the block has its own gaps between probes
            self._last_probe = (
                self._block_began if self._probe_before is None else self._probe_before
            )
            self._probe_sent = self._probe_before = now
        if self._first_sent is None:
            self._first_sent = now
        if self._began is None:
            self._began = now
        return self._epoch

    def on_waiting(self) -> None:
        """A request waits for the pacer alone: from now on accepted requests are evidence."""
        self._waiting = self.waited = True

    def take_waited(self) -> bool:
        """Whether a request has waited for the pacer since the last call, or waits now."""
        waited, self.waited = self.waited, self._waiting
        return waited

    def on_idle(self) -> None:
        """No request waits, or something else than the pacer delays it: the interval's clock stops.

        An estimate that spans idle time would take the callers' pauses for the vendor's limit.
        """
        self._waiting = False
        self._last_accepted = None

    def on_share(self, granted: float, *, remembered: bool = False, processes: int = 1) -> None:
        """Processes divide the limit between them: from now on `granted` is this one's part.

        Not in a block: the estimate at the block's end is one of the old part.

        Args:
            granted: the part, in requests/s.
            remembered: the part is of a limit that an earlier process found, and that no process
                has tried since.
            processes: those that divide it, this one included.
        """
        if self._blocked:
            raise AssertionError("a part of the limit in the middle of a block")
        before = self._rate
        self._rate = self._estimate.adopt(
            granted, self._accepted, remembered=remembered, processes=processes
        )
        self._next -= max(0.0, 1 / before - 1 / self._rate)
        # An interval at the old rate says nothing of the new one, nor do 429s to its requests.
        self._begin_interval(None)

    def on_accepted(self, now: float, epoch: int, hint: Hint | None = None) -> None:
        """An answer that isn't 429: the request was granted, with any other status.

        Args:
            now: seconds.
            epoch: the epoch that `take` returned for the request.
            hint: the advice of the answer's headers; None where there is none.
        """
        self._hold = max(self._hold, self._hinted_waits.on_granted(now, hint))
        self._passed += 1
        if self._blocked:
            if epoch == self._epoch:
                self._close_block(now)
        elif self._rate == math.inf:
            self._accepted += 1  # no request ever waits for it, so `_waiting` says nothing
        elif self._waiting:
            if self._last_accepted is not None:
                self._span += now - self._last_accepted
            self._last_accepted = now
            self._accepted += 1
            if hint is None or not hint.steady:
                rate = self._estimate.grown(self._rate, self._accepted, self._passed)
                self._rate = min(self._ceiling, rate)
        else:
            self._last_accepted = None

    def on_mistaken(self, now: float, rate: float | None) -> None:
        """The last 429s had another cause than the rate: start again at the rate before them.

        Args:
            now: seconds.
            rate: requests/s before the first of them; None for no pacing.
        """
        before = math.inf if rate is None else rate
        if self._blocked or self._rate < before:
            self._blocked, self._probe_sent = False, None
            self._rate = min(self._ceiling, before)
            self._estimate.forget()
            self._begin_interval(None)
            self._hold = now

    def on_lost(self, now: float, epoch: int, chance: float) -> None:
        """No answer came. A lost probe is no evidence; the next one goes after a longer gap."""
        if self._blocked and epoch == self._epoch:
            self._widen_gap(now, LONGEST_GAP, chance)

    def on_throttled(
        self, now: float, epoch: int, *, retry_after: float | None, chance: float
    ) -> None:
        """A 429: hold all requests.

        A 429 to a request that was sent before the last cut only extends the pause: a burst of
        429s cuts the rate once.

        Args:
            now: seconds.
            epoch: the epoch that `take` returned for the request.
            retry_after: seconds that the vendor asks to wait; None where it doesn't ask.
            chance: a random number from [0, 1), so that processes don't come back together.
        """
        self.throttled += 1
        self._hinted_waits.on_throttled()
        if retry_after is not None:
            self._asked_to_wait = True
            self._asked_for = max(self._asked_for, retry_after)
            self._hold = max(self._hold, now + retry_after + min(1.0, retry_after) * 0.02 * chance)
        if epoch != self._epoch:
            return
        if self._blocked:
            longest = max(LONGEST_GAP, GAP_BY_BLOCK * (now - self._block_began))
            self._widen_gap(now, longest, chance)
        else:
            self._open_block(now, chance)
        self._epoch += 1

    def _begin_interval(self, now: float | None) -> None:
        """Count from here; None: from the next request on."""
        self._epoch += 1
        self._accepted, self._span, self._last_accepted = 0, 0.0, now
        self._passed, self._began = 0, now

    def _open_block(self, now: float, chance: float) -> None:
        if self._rate == math.inf:
            seconds = now - (now if self._first_sent is None else self._first_sent)
            self._rate = max(FIRST_RATE, self._accepted / max(seconds, 0.1))
        self._blocked = True
        self._block_began = self._next = now
        self._cut_rate = self._rate
        self._probe_sent = self._probe_before = None
        last_block = self._estimate.windows.last_block
        again = min(LONGEST_FIRST_GAP, FIRST_GAP_BY_LAST_BLOCK * last_block)
        self._gap = max(min(1.5 / self._rate, LONGEST_GAP_AT_FIRST), SHORTEST_GAP, again)
        self._hold = max(self._hold, now + self._gap * (1 + 0.1 * chance))

    def _widen_gap(self, now: float, longest: float, chance: float) -> None:
        """A refused or lost probe says nothing about the rate; it only doubles the gap."""
        self._probe_sent = None
        self._gap = max(self._gap, min(longest, max(0.05, 2 * self._gap)))
        self._hold = max(self._hold, now + self._gap * (1 + 0.1 * chance))

    def _close_block(self, now: float) -> None:
        """A probe was accepted: measure the interval that has ended, and begin the next one."""
        blocked_for = now - self._block_began
        late = (self._probe_before or now) - self._last_probe
        interval = Interval(
            counted=self._accepted,
            span=self._span,
            passed=self._passed,
            took=self._block_began - (self._began or 0.0),
            blocked_for=blocked_for,
            late=min(blocked_for, max(0.0, late)),
            cut_rate=self._cut_rate,
            # A much shorter Retry-After is not what made the block long.
            asked_to_wait=self._asked_to_wait and self._asked_for >= blocked_for / 2,
        )
        self._rate = self._estimate.on_interval(interval)
        self._blocked, self._probe_sent = False, None
        self._asked_to_wait, self._asked_for = False, 0.0
        self._begin_interval(now)
        # Never at once: the bucket is empty right now. A client that sends the moment a block
        # closes needed 3.6 times as long in simulation.
        self._next = now + 1 / self._rate
