"""When the next request may go: finding the limit that the vendor doesn't tell.

The page says 429 and no number. So the pacer sends evenly, a little faster with every accepted
request, until a 429 says that it was too fast; then it holds everybody, asks with single probes
until one passes, and goes on at the rate that was evidently granted. docs/design.md has the
reasoning, docs/pacing.md the measurements.

Words: a *block* is the time from a 429 to the first success after it. An *interval* is the time
between the end of one block and the next 429. The limit is *sought* until it is *granted*, which is
what the pacer calls its estimate. A block is *short* where a limiter that refills continuously
explains it, and *long* otherwise.

n is the number of requests accepted in an interval while somebody waited, s the seconds between
them, L the block after it, R the estimate, K the plateau. In an interval the rate is
``R (1 + 0.03 x^3)`` with ``x = (n - K) / K``, up to x = 1.5; from there on it grows by 1/K with
each request. What an interval and its block say:

* Nothing is known yet, and the interval is the first: nothing. It drank the burst that the limiter
  had saved up, or what somebody else had left of it.
* Nothing is known yet, the block is short: R = max((n + 1) / (s + L), n / s), from 8 requests on.
* The limit is known, the block is short: R = max(n / s, recent), where recent is the same with the
  blocks in it, over the last intervals. Well before the plateau: R falls by CUTS.
* The block is long: somebody else on the account may have used the limit up, and then neither n nor
  L is evidence. Fewer than 40 requests are no limit, the search goes on. Once a limit is known, the
  estimate stays.
* Two intervals before long blocks ended at the same n, though at different rates: a window's
  budget ended them, or a bucket that was full: where R would be less than a quarter of the rate, a
  third interval at a rate between the two has to end at n too. R = n over the time from closing to
  closing.
* Retry-After made the block long, and the interval was short: a bucket was full at its beginning.
  Two such intervals give the burst and R, as two points give a line.

An estimate is kept for no more requests than it was made from, twice: K. Until it is made from as
many as a plateau has, the search goes on after it: the rate doubles as in the beginning.
"""

from __future__ import annotations

import math
from typing import Protocol
from weakref import WeakSet

from segments_async._sansio.pace.limit_headers import Hint
from segments_async._sansio.pace.shared_limit import LOWEST_RATE, Share
from segments_async.errors import ConfigurationError

#: Where the rate had grown far beyond the estimate before a 429, this part of it is believed.
RISEN = 0.75

#: While the limit is sought, this part of the rate at a 429 is believed at least.
LEAST_OF_CUT_RATE = 0.25

#: Requests/s before anything is known, and how often it may double in a second while nothing is
#: refused: 2.2 s to reach 100/s. Twice a second found the limit no better, at more 429s.
FIRST_RATE = 10.0
DOUBLINGS = 1.5
HIGHEST_RATE = 2000.0

#: Seconds of lateness that may be caught up at once: timers and answers jitter by about as much.
CATCH_UP = 0.03

#: How far below the estimate an interval starts; so far above it the rate has grown when twice the
#: plateau's requests have been accepted.
PROBING = 0.03

#: Accepted requests from the start of an interval to the plateau's end, and bounds. At low rates
#: a cut costs few 429s, since few requests are on their way, and 200 requests are a long time.
FEWEST_AT_LOW_RATES = 80.0
FEWEST_MORE_PER_RATE = 5.0
SHORTEST_PLATEAU = 200.0
LONGEST_PLATEAU = 5000.0

#: Gaps between the probes of a block, in seconds; in a long block, this part of it: an hour's
#: window is worth a hundred probes, not five hundred. The first gap is one and a half spaces
#: between two requests; at low rates at most 3 s, or the gap itself would make the block so
#: long that a low rate would confirm itself.
SHORTEST_GAP = 0.02
LONGEST_GAP = 7.0
LONGEST_GAP_AT_FIRST = 3.0
GAP_BY_BLOCK = 0.1

#: A block shorter than this says that the limiter refills continuously; a longer one is a window,
#: a Retry-After, or somebody else's use. In seconds; and in requests at the rate that was refused,
#: since at 0.5/s two seconds are one request's worth.
SHORT_BLOCK = 2.0
REQUESTS_IN_SHORT_BLOCK = 4.0

#: A plateau lasts at least this many times as long as the block before it, so that finding the
#: limit again costs a bounded part of the time. A Retry-After of a second wastes whatever the
#: limiter can't save up in it, so it must be rarer still.
BLOCK_WEIGHT = 5.0
TOLD_BLOCK_WEIGHT = 8.0

#: After a 429 early in an interval, the estimate falls to this part of itself, or to what was
#: accepted; further after each one more in a row, since then the limit itself has fallen.
CUTS = (0.85, 0.8, 0.7, 0.6)

#: Accepted requests below which an interval before a long block says nothing at all.
FEW = 3

#: A plateau that blocks end early again and again shrinks to so few requests: somebody else on the
#: account may cause them, and the rate has to come back up between two.
SHORTEST_UNSURE = 20.0

#: The same after a long block. Somebody else on the account may have used the limit up, and then
#: the block says nothing about the rate: one such block alone changes nothing.
CUTS_AFTER_LONG_BLOCKS = (1.0, 0.85, 0.8, 0.7, 0.6)

#: Accepted requests below which the mean rate of an interval is not measured, and below which an
#: interval that a long block ended doesn't even slow the search down.
ENOUGH_FOR_A_MEAN = 20
ENOUGH_TO_SLOW_DOWN = 8

#: The same, in the last few intervals before short blocks, for a first guess.
ENOUGH_FOR_A_GUESS = 4.0

#: Accepted requests, in at least two intervals, after which long blocks are taken for the limit's
#: own. Fewer are no evidence of a limit: the search goes on.
ENOUGH_FOR_A_LIMIT = 40

#: Two intervals at different rates that ended at the same count, but for this part of it, ended at
#: the end of a window's budget. Rates count as different from this part on.
SAME_COUNT = 0.07
ANOTHER_SPAN = 0.1

#: A window that makes the rate so many times lower is believed after a third interval only.
WORTH_A_TRIAL = 4.0

#: Plateaus in windows: a cut costs no requests there, and three or four 429s each time.
SHORTEST_IN_WINDOWS = 400.0
WINDOW_IN_PLATEAU = 0.8

#: A plateau is no longer than this many times the accepted requests that its estimate comes from,
#: or than so many requests: an estimate from twenty requests is not believed for two hundred.
#: Where every 429 costs a long Retry-After it may be more of them: finding out is dear.
PLATEAU_BY_EVIDENCE = 2.0
TOLD_PLATEAU_BY_EVIDENCE = 16.0
SHORTEST_BY_EVIDENCE = 40.0

#: A rate that an earlier process found is kept to for 6 s at 1/s, 19 s at 10/s, 60 s from 100/s on:
#: where it was right, finding that it still is would cost more 429s the more requests are on their
#: way. After that the rate grows as after a short plateau, in case the limit has risen.
SECONDS_OF_MEMORY = 6.0
MOST_SECONDS_OF_MEMORY = 60.0

#: So many blocks after few requests say nothing against it: the bucket may have been empty when the
#: process began. After one more the limit is sought.
MEMORY_HOLDS = 2

#: Accepted requests that the others' word on one's part counts for.
EVIDENCE_OF_A_SHARE = 100

#: In windows, as much more than was granted in the last ones is tried: what a window has is used up
#: before its end then.
WINDOW_MARGIN = 1.1

#: While the limit is sought, an interval that a long block ended is followed by one at this many
#: times what was granted with the block included: of a window, that is half of it.
TIMES_GRANTED = 2.0

#: Where the last block was long, the next one's first gap is this part of it, at most so long.
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
        told = rate is not None and rate < math.inf
        #: Whether it learns the limit, and not only what the caller told of it.
        self.learns: bool = rate is None
        #: One for each client of the pacer: all look again at what may go when the pace changes.
        self.leaders: WeakSet[Leader] = WeakSet()
        #: The part of the limit that this pacer has among the account's processes.
        self.share: Share = Share()
        self._ceiling: float = rate if rate is not None and told else HIGHEST_RATE
        self._rate: float = FIRST_RATE if rate is None else rate
        # What the vendor is believed to grant; None while the limit is sought.
        self._granted: float | None = rate if told else None
        self._next = self._hold = -math.inf
        self._epoch = 0
        #: Answers of 429 so far.
        self.throttled: int = 0

        # The interval: accepted requests and the seconds between them, while somebody waited.
        self._accepted = 0
        self._span = 0.0
        self._last_accepted: float | None = None
        self._waiting = False
        self._waited = False
        self._first_sent: float | None = None
        # All that was accepted in the interval, whether anybody waited or not, and its beginning.
        self._passed = 0
        self._began: float | None = None
        self._plateau = SHORTEST_PLATEAU

        # The block.
        self._blocked = False
        self._block_began = 0.0
        self._probe_sent: float | None = None
        self._probe_before: float | None = None
        self._gap = 0.0
        self._cut_rate = self._rate
        self._told_to_wait = False
        self._told_for = 0.0

        self._last_probe = 0.0
        # Of the block that ends: its seconds, and how long before its end the limit may have been
        # free again; whether it says nothing of the rate; whether it ends a window's budget.
        self._blocked_for = self._late = 0.0
        self._inconclusive = self._is_window = False

        # The last interval, if a long block ended it: all its requests, and its seconds; and the
        # seconds of the last block, in windows.
        self._last_count = 0
        self._last_span = self._last_block = 0.0
        # Accepted requests that the estimate is made from.
        self._evidence = 0
        # A window's budget, 0 for none; what windows granted since it was found.
        self._window = 0
        self._window_requests = self._window_seconds = 0.0
        # While the limit is sought: two intervals ended as a window ends them.
        self._window_suspected = False
        # The estimate before another rate was tried, to tell a window from other people's use.
        self._before_trial: float | None = None
        # Of the search: intervals between long blocks, and what they granted, blocks included.
        self._framed = 0
        self._framed_requests, self._framed_seconds, self._framed_best = 0, 0.0, 0.0
        # What an earlier process found: blocks until it isn't believed any more, and accepted
        # requests during which no higher rate is tried.
        self._memory = 0
        self._kept_for = 0.0

        # Goodput of the last few intervals, blocks included: requests and seconds, decaying.
        self._blocks = 0
        self._recent_requests = self._recent_seconds = 0.0
        # The same of the intervals in a row that were cut early.
        self._early_cuts = 0
        self._early_requests = self._early_seconds = 0.0

    @property
    def blocked(self) -> bool:
        """Whether a 429 holds everybody, and no probe has passed yet."""
        return self._blocked

    @property
    def rate(self) -> float | None:
        """Requests/s that are being sent at most now; None while nothing limits them."""
        return None if self._rate == math.inf else self._rate

    @property
    def granted(self) -> float | None:
        """Requests/s that the vendor is believed to grant; None while the limit is sought."""
        if self._granted is None or self._rate == math.inf:
            return self._granted
        # Where the rate has grown far beyond it, this is what a 429 would make of it.
        return max(self._granted, RISEN * self._rate)

    def next_at(self) -> float:
        """The earliest time at which the next request may go."""
        if self._blocked and self._probe_sent is not None:
            # One probe at a time; let it lapse, or one hung request would stop the account.
            lapse = self._probe_sent + max(LONGEST_GAP, self._gap)
            return max(self._next, self._hold, lapse)
        return max(self._next, self._hold)

    def take(self, now: float) -> int:
        """Send one request now. Returns the epoch to hand back with its answer."""
        self._next = max(self._next, now - CATCH_UP) + 1 / self._rate
        if self._blocked:
            self._next = now  # the gaps between probes are the block's
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
        """Somebody waits for the pacer, and for nothing else: what is accepted now is evidence."""
        self._waiting = self._waited = True

    @property
    def waited(self) -> bool:
        """Whether anybody has waited for the pacer since `take_waited`."""
        return self._waited

    def take_waited(self) -> bool:
        """Whether anybody has waited for the pacer since this was asked last, or does so now."""
        waited, self._waited = self._waited, self._waiting
        return waited

    def on_share(self, granted: float, *, remembered: bool = False) -> None:
        """Processes divide the limit between them: from now on this is one's part, in requests/s.

        Not while a 429 holds everybody: what comes of that is an estimate of the old part.

        Args:
            granted: the part.
            remembered: it is part of what an earlier process found, and nobody has tried since.
        """
        if self._blocked:
            raise AssertionError("a part of the limit in the middle of a block")
        before = self._rate
        self._granted = min(self._ceiling, max(LOWEST_RATE, granted))
        self._rate = self._granted * (1 - PROBING)
        self._next -= max(0.0, 1 / before - 1 / self._rate)
        # Of the others' word. What was found here, windows and all, was of another rate.
        self._evidence = max(self._evidence, EVIDENCE_OF_A_SHARE)
        self._inconclusive = self._is_window = False
        self._window = self._last_count = 0
        self._memory, self._kept_for = (MEMORY_HOLDS, 0.0) if remembered else (0, 0.0)
        self._plateau = self._next_plateau(self._granted, 0.0)
        if remembered:
            seconds = min(MOST_SECONDS_OF_MEMORY, SECONDS_OF_MEMORY * math.sqrt(self._granted))
            self._kept_for = seconds * self._granted
        # An interval at the old rate says nothing of the new one, nor do 429s to its requests.
        self._epoch += 1
        self._blocks = 0 if remembered else max(1, self._blocks)
        self._accepted, self._span, self._last_accepted = 0, 0.0, None
        self._passed, self._began = 0, None
        self._recent_requests = self._recent_seconds = 0.0
        self._early_cuts, self._early_requests, self._early_seconds = 0, 0.0, 0.0

    def on_idle(self) -> None:
        """Nobody waits, or not for the pacer: the clock of the interval stops.

        An estimate that spans idle time would take the callers' pauses for the vendor's limit.
        """
        self._waiting = False
        self._last_accepted = None

    def on_accepted(self, now: float, epoch: int, hint: Hint | None = None) -> None:
        """An answer that isn't 429: the request was granted, whatever else came of it.

        Args:
            now: seconds.
            epoch: what `take` returned for the request.
            hint: what the answer's headers advise, if they do.
        """
        if hint is not None:
            self._hold = max(self._hold, now + hint.wait)
        self._passed += 1
        if self._blocked:
            if epoch == self._epoch:
                self._close_block(now)
        elif self._rate == math.inf:
            self._accepted += 1  # nobody ever waits for it, so `_waiting` says nothing
        elif self._waiting:
            self._count(now)
            if hint is None or not hint.steady:
                self._grow()
        else:
            self._last_accepted = None

    def on_mistaken(self, now: float, rate: float | None) -> None:
        """A 429 was no word on the rate, and those before it weren't either: start again there.

        Args:
            now: seconds.
            rate: requests/s before the first of them; None for no pacing.
        """
        before = math.inf if rate is None else rate
        if self._blocked or self._rate < before:
            self._epoch += 1
            self._blocked, self._probe_sent, self._granted, self._blocks = False, None, None, 0
            self._rate = min(self._ceiling, before)
            self._accepted, self._span, self._last_accepted = 0, 0.0, None
            self._passed, self._began = 0, None
            self._evidence = self._window = self._last_count = self._framed = 0
            self._framed_requests, self._framed_seconds, self._framed_best = 0, 0.0, 0.0
            self._memory, self._kept_for, self._before_trial = 0, 0.0, None
            self._hold = now

    def on_lost(self, now: float, epoch: int, chance: float) -> None:
        """No answer came. A lost probe is no evidence; the next one goes after a longer gap."""
        if self._blocked and epoch == self._epoch:
            self._widen_gap(now, LONGEST_GAP, chance)

    def on_throttled(
        self, now: float, epoch: int, *, retry_after: float | None, chance: float
    ) -> None:
        """A 429: hold everybody.

        Those of requests sent before the last cut only extend the pause: a burst cuts once.

        Args:
            now: seconds.
            epoch: what `take` returned for the request.
            retry_after: seconds that the vendor asks to wait, if it does.
            chance: a random number from [0, 1), so that processes don't come back together.
        """
        self.throttled += 1
        if retry_after is not None:
            self._told_to_wait = True
            self._told_for = max(self._told_for, retry_after)
            self._hold = max(self._hold, now + retry_after + min(1.0, retry_after) * 0.02 * chance)
        if epoch != self._epoch:
            return
        if self._blocked:
            longest = max(LONGEST_GAP, GAP_BY_BLOCK * (now - self._block_began))
            self._widen_gap(now, longest, chance)
        else:
            self._open_block(now, chance)
        self._epoch += 1

    def _count(self, now: float) -> None:
        if self._last_accepted is not None:
            self._span += now - self._last_accepted
        self._last_accepted = now
        self._accepted += 1

    def _grow(self) -> None:
        """A little faster: doubling at first, then CUBIC in the number of requests.

        In the count and not in time, so that it is as careful at 1/s as at 1 000/s.
        """
        if self._granted is None:
            if self._passed <= (1 + SAME_COUNT) * self._last_count:
                return  # at this count the last interval ended: if this one does, it is a window's
            rate = self._rate * 2 ** (DOUBLINGS / max(10.0, self._rate))
        else:
            x = (self._accepted - max(self._plateau, self._kept_for)) / self._plateau
            x = max(-1.0, x)
            if x > 0 and self._is_doubtful:
                rate = self._rate * 2 ** (DOUBLINGS / max(10.0, self._rate))
            elif x <= 1.5:
                rate = self._granted * (1 + PROBING * x**3)
            else:
                rate = self._rate * (1 + 1 / max(self._plateau, 2 * self._rate))
        self._rate = min(self._ceiling, rate)

    @property
    def _is_doubtful(self) -> bool:
        """Whether the estimate is made from so few requests that the search goes on after it."""
        return (
            self._granted is not None
            and not self._memory
            and not self._window
            and self._evidence < min(EVIDENCE_OF_A_SHARE, _shortest_plateau(self._granted))
        )

    def _open_block(self, now: float, chance: float) -> None:
        if self._rate == math.inf:
            seconds = now - (now if self._first_sent is None else self._first_sent)
            self._rate = max(FIRST_RATE, self._accepted / max(seconds, 0.1))
        self._blocked = True
        self._block_began = self._next = now
        self._cut_rate = self._rate
        self._probe_sent = self._probe_before = None
        again = min(LONGEST_FIRST_GAP, FIRST_GAP_BY_LAST_BLOCK * self._last_block)
        self._gap = max(min(1.5 / self._rate, LONGEST_GAP_AT_FIRST), SHORTEST_GAP, again)
        self._hold = max(self._hold, now + self._gap * (1 + 0.1 * chance))

    def _widen_gap(self, now: float, longest: float, chance: float) -> None:
        """A refused or lost probe says nothing about the rate; it only doubles the gap."""
        self._probe_sent = None
        self._gap = max(self._gap, min(longest, max(0.05, 2 * self._gap)))
        self._hold = max(self._hold, now + self._gap * (1 + 0.1 * chance))

    def _close_block(self, now: float) -> None:
        """A probe passed: an interval starts, at what the last one and its block taught."""
        blocked_for = self._blocked_for = now - self._block_began
        self._inconclusive = self._is_window = False
        if self._told_for < blocked_for / 2:
            self._told_to_wait = False  # that is not what made the block long
        late = (self._probe_before or now) - self._last_probe
        self._late = min(blocked_for, max(0.0, late))
        if self._blocks:
            self._evidence += self._accepted
        estimate = self._estimate(blocked_for)
        if estimate is not None:
            self._granted = min(self._ceiling, max(LOWEST_RATE, estimate))
            self._plateau = self._next_plateau(self._granted, blocked_for)
            self._rate = self._granted * (1 - PROBING)
        self._blocks += 1
        self._epoch += 1
        long = self._is_long(blocked_for)
        self._last_count = self._passed if long else 0
        self._last_span = self._block_began - (self._began or 0.0)
        self._last_block = blocked_for if self._window and not self._told_to_wait else 0.0
        self._blocked, self._probe_sent = False, None
        self._told_to_wait, self._told_for = False, 0.0
        self._accepted, self._span, self._last_accepted = 0, 0.0, now
        self._passed, self._began = 0, now
        # Never at once: the bucket is empty right now, and sending the moment a block closes is
        # a death spiral (3.6 times slower in simulation).
        self._next = now + 1 / self._rate

    def _next_plateau(self, granted: float, blocked_for: float) -> float:
        """Accepted requests until a higher rate than the estimate is tried."""
        shortest = _shortest_plateau(granted)
        if self._memory:
            return min(max(20.0, 13.0 * granted), 70.0 + 6.0 * granted)
        if self._inconclusive:
            return min(shortest, max(SHORTEST_UNSURE, 2 * granted))
        if self._is_window:
            return max(SHORTEST_BY_EVIDENCE, float(self._passed))
        if self._window:
            shortest = max(SHORTEST_IN_WINDOWS, WINDOW_IN_PLATEAU * self._window)
        elif self._evidence >= shortest:
            shortest = min(shortest, max(SHORTEST_UNSURE, 2 * self._plateau))
            if self._accepted < self._plateau:
                shortest = min(shortest, SHORTEST_UNSURE)
        elif self._plateau <= SHORTEST_UNSURE:
            return SHORTEST_BY_EVIDENCE  # the last estimate was doubtful, and so is this one
        borne = max(SHORTEST_BY_EVIDENCE, 2 * granted, PLATEAU_BY_EVIDENCE * self._evidence)
        if self._told_to_wait and blocked_for >= SHORT_BLOCK:
            # However long the vendor makes one wait: a 429 must be as rare.
            longest = max(shortest, 0.8 * self._plateau, TOLD_BLOCK_WEIGHT * granted * blocked_for)
            return min(longest, max(shortest, TOLD_PLATEAU_BY_EVIDENCE * self._evidence))
        weight = TOLD_BLOCK_WEIGHT if self._told_to_wait else BLOCK_WEIGHT
        longest = max(shortest, 2 * granted, 0.8 * self._plateau, weight * granted * blocked_for)
        return min(LONGEST_PLATEAU, longest, borne)

    def _estimate(self, blocked_for: float) -> float | None:
        """What the vendor grants, in requests/s, from the interval that the block ended.

        The mean is taken from closing to cut: the bucket was empty, or the window fresh, at the
        interval's beginning. `recent` is from closing to closing over the last few intervals.
        """
        n, span, short = self._accepted, self._span, not self._is_long(blocked_for)
        mean = n / span if n >= ENOUGH_FOR_A_MEAN and span > 0 else 0.0
        self._recent_requests = 0.7 * self._recent_requests + n + 1
        self._recent_seconds = 0.7 * self._recent_seconds + span + blocked_for
        recent = self._recent_requests / max(self._recent_seconds, 1e-3)
        if self._memory:
            if short and n < self._kept_for / 4:
                self._memory -= 1
                if self._memory:
                    return self._granted
                # It was wrong.
                self._granted, self._evidence, self._kept_for = None, 0, 0.0
            elif n >= ENOUGH_FOR_A_MEAN:
                self._memory, self._kept_for = 0, 0.0
        if self._granted is None:
            if short:
                return self._first_estimate(blocked_for, mean, recent)
            self._recent_requests = self._recent_seconds = 0.0
            return self._first_estimate_after_long_block(blocked_for, mean)
        if not short and n < self._plateau:
            return self._estimate_after_long_block(self._granted, blocked_for, max(mean, recent))
        usual = _shortest_plateau(self._granted)
        early = max(self._plateau, usual if self._evidence < usual else 0.0) / 4
        if n < early and short:
            return self._cut_early(CUTS, self._granted, n, span + blocked_for, recent)
        self._early_cuts, self._early_requests, self._early_seconds = 0, 0.0, 0.0
        estimate = max(mean, recent, self._before_trial or 0.0)
        self._before_trial = None
        if short and estimate < RISEN * self._cut_rate:
            # The rate had grown far beyond the estimate before it was refused: the limit rose.
            self._recent_requests = self._recent_seconds = 0.0
            return RISEN * self._cut_rate
        return estimate

    def _estimate_after_long_block(
        self, granted: float, blocked_for: float, estimate: float
    ) -> float:
        """Somebody else may have used the limit up: then the block says nothing about the rate.

        An interval that a window's budget ended has the same count at another rate. Where the
        rate may be too high for a window, another rate is tried once for that.
        """
        n, seconds = self._accepted, self._span + blocked_for
        self._recent_requests = self._recent_seconds = 0.0
        if n < FEW:
            self._inconclusive = not self._told_to_wait
            return self._cut_early(CUTS_AFTER_LONG_BLOCKS, granted, n, seconds, 0.0)
        self._early_cuts, self._early_requests, self._early_seconds = 0, 0.0, 0.0
        windows = self._passed / self._window if self._window else 0.0
        known = windows > 0.5 and abs(windows - round(windows)) <= SAME_COUNT
        if self._told_to_wait:
            return self._estimate_when_told_to_wait(granted, blocked_for, estimate)
        window = self._window_estimate(blocked_for)
        if window is not None:
            # Another interval has to confirm it, or this one's end was chance.
            self._before_trial = max(granted, self._before_trial or 0.0)
            return window
        if known:
            self._before_trial = None
            # From closing to closing: over several windows the probes' lateness counts once.
            self._window_requests += n + 1
            self._window_seconds += seconds
            return min(estimate, WINDOW_MARGIN * self._window_requests / self._window_seconds)
        self._inconclusive, self._window = True, 0
        if self._before_trial is not None:
            return max(granted, self._before_trial)
        if n >= ENOUGH_FOR_A_MEAN and (n + 1) / seconds < RISEN * granted:
            self._before_trial = granted
            return CUTS[0] * granted
        return granted

    def _estimate_when_told_to_wait(
        self, granted: float, blocked_for: float, estimate: float
    ) -> float:
        """The vendor made everybody wait, perhaps for much longer than its limiter asks.

        Then a bucket was full when the interval began. The requests accepted in the interval are
        the burst and what was refilled; two intervals tell the two apart.
        """
        n, took = self._passed, self._block_began - (self._began or 0.0)
        if self._accepted < ENOUGH_FOR_A_MEAN:
            return granted
        if took > blocked_for / 4 or abs(n - self._last_count) <= SAME_COUNT * n:
            return estimate
        refilled = RISEN * granted
        if self._last_count and took > (1 + ANOTHER_SPAN) * self._last_span:
            refilled = (n - self._last_count) / (took - self._last_span)
        return min(estimate, max(CUTS[-1] * granted, refilled))

    def _is_long(self, blocked_for: float) -> bool:
        """Whether a limiter that refills continuously would have let the probes through before."""
        return blocked_for >= max(SHORT_BLOCK, REQUESTS_IN_SHORT_BLOCK / self._cut_rate)

    def _window_estimate(self, blocked_for: float) -> float | None:
        """Whether this interval ended at the count of the last one, though at another rate."""
        n, took = self._passed, self._block_began - (self._began or 0.0)
        least = ENOUGH_FOR_A_LIMIT if self._granted is None else ENOUGH_FOR_A_MEAN
        if n < least or abs(n - self._last_count) > SAME_COUNT * n:
            return None
        if abs(took - self._last_span) <= ANOTHER_SPAN * took or self._span < 0.5 * took:
            return None
        self._is_window, self._window = True, n
        self._window_requests, self._window_seconds = n + 1.0, took + blocked_for
        return (n + 1) / (took + blocked_for - self._late)

    def _first_estimate_of_window(self, estimate: float) -> float | None:
        """Two intervals ended at one count, by a window's budget or by chance: a third tells.

        A full bucket ends intervals at nearly one count too, if the rates are far above its own.
        At a much lower rate it doesn't, and a window does.
        """
        if self._window_suspected or self._cut_rate <= WORTH_A_TRIAL * estimate:
            return min(self._cut_rate, estimate)
        self._window_suspected, self._is_window, self._window = True, False, 0
        self._rate = math.sqrt(min(self._cut_rate, estimate) * self._cut_rate)
        return None

    def _cut_early(
        self, cuts: tuple[float, ...], granted: float, n: int, seconds: float, recent: float
    ) -> float:
        """Refused before the plateau: by jitter once, and again and again by a limit that fell."""
        self._early_requests += n + 1
        self._early_seconds += seconds
        if self._early_cuts:
            recent = self._early_requests / max(self._early_seconds, 1e-3)
        cut = cuts[min(self._early_cuts, len(cuts) - 1)]
        self._early_cuts += 1
        least = 1 / max(self._blocked_for, 1e-3) if n < FEW else 0.0
        return max(cut * granted, min(granted, max(recent, least)))

    def _first_estimate(self, blocked_for: float, mean: float, recent: float) -> float | None:
        """After a short block. The first interval proves nothing: it drank the burst."""
        n, seconds = self._accepted, self._span + blocked_for
        if self._blocks and n >= ENOUGH_TO_SLOW_DOWN:
            # Of an interval that began far too slowly, the mean says little.
            grown = LEAST_OF_CUT_RATE * self._cut_rate
            return min(self._cut_rate, max((n + 1) / seconds, mean, grown))
        if self._blocks >= 3 and self._recent_requests >= ENOUGH_FOR_A_GUESS:
            self._inconclusive = True
            return 1.2 * recent
        if not self._blocks:
            self._recent_requests = self._recent_seconds = 0.0
        slower = 0.5 * self._cut_rate
        if not self._told_to_wait:
            slower = max(0.2, min(1.0, 1 / blocked_for), min(slower, 4 / blocked_for))
        self._rate = slower
        return None

    def _first_estimate_after_long_block(self, blocked_for: float, mean: float) -> float | None:
        """A window, or a Retry-After, or somebody else who has used the limit up."""
        n, seconds = self._accepted, self._span + blocked_for
        if self._blocks:
            if not self._told_to_wait:
                self._framed += 1
                self._framed_requests += n + 1
                self._framed_best = max(self._framed_best, (n + 1) / seconds)
                self._framed_seconds += seconds
                window = self._window_estimate(blocked_for)
                if window is not None:
                    return self._first_estimate_of_window(window)
                self._window_suspected = False
            if mean:
                # Of an interval that began far too slowly, the mean says little. In a window of
                # unknown length that can't be told from a budget that is used up.
                grown = LEAST_OF_CUT_RATE * self._cut_rate if self._told_to_wait else 0.0
                return min(self._cut_rate, max(mean, grown))
            if self._framed_requests >= ENOUGH_FOR_A_LIMIT and self._framed >= 2:
                mean = self._framed_requests / self._framed_seconds
                # Where they are few or unlike, somebody else may have used some of the limit.
                self._inconclusive = self._framed < 3 or self._framed_best > 1.25 * mean
                return min(self._cut_rate, self._framed_best)
        if n < (1 if self._blocks else ENOUGH_TO_SLOW_DOWN):
            self._rate = self._cut_rate
        elif self._told_to_wait:
            self._rate = 0.5 * self._cut_rate
        else:
            self._rate = min(
                0.5 * self._cut_rate, max(FIRST_RATE, TIMES_GRANTED * self._passed / seconds)
            )
        return None


def _shortest_plateau(granted: float) -> float:
    return min(SHORTEST_PLATEAU, FEWEST_AT_LOW_RATES + FEWEST_MORE_PER_RATE * granted)
