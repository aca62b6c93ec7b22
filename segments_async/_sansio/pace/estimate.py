"""The estimate of the vendor's limit, made from intervals between blocks.

The equations are at the head of `pacer`. This module has R (the estimate) and K (the plateau, for
how many requests R is kept), and the growth of the rate after the plateau. `search` has the way to
the first R, `windows` the case of a budget for each window of time.
"""

from __future__ import annotations

import math

from segments_async._sansio.pace.interval import (
    ENOUGH_FOR_A_MEAN,
    LOWEST_RATE,
    SHORT_BLOCK,
    Goodput,
    Interval,
)
from segments_async._sansio.pace.search import WORTH_A_TRIAL, Finding, Search
from segments_async._sansio.pace.windows import ANOTHER_SPAN, SAME_COUNT, Windows

#: Where the rate had grown far beyond the estimate before a 429, this part of the rate is believed.
RISEN = 0.75

#: How often the rate may double in a second while the limit is sought: 2.2 s from 10/s to 100/s.
#: Twice a second found the limit no better, at more 429s.
DOUBLINGS = 1.5

#: An interval starts so far below the estimate. The rate has grown to so far above the estimate
#: when twice the plateau's requests have been accepted.
PROBING = 0.03

#: Accepted requests from the start of an interval to the plateau's end, and bounds. At low rates
#: a cut costs few 429s, since few requests are on the wire, and 200 requests are a long time.
FEWEST_AT_LOW_RATES = 80.0
FEWEST_MORE_PER_RATE = 5.0
SHORTEST_PLATEAU = 200.0
LONGEST_PLATEAU = 5000.0

#: A plateau lasts at least this many times as long as the block before it, so that finding the
#: limit again costs a bounded part of the time. A limiter can't save up all requests of a
#: Retry-After, so blocks that one caused have to be rarer still.
BLOCK_WEIGHT = 5.0
ASKED_BLOCK_WEIGHT = 8.0

#: After a 429 early in an interval, the estimate falls to this part of itself, or to the rate that
#: was accepted. It falls further with each early 429 in a row: then the limit itself has fallen.
CUTS = (0.85, 0.8, 0.7, 0.6)

#: The same after a long block. Another user of the account may have used the limit up, and then the
#: block says nothing about the rate: the first such block changes nothing.
CUTS_AFTER_LONG_BLOCKS = (1.0, 0.85, 0.8, 0.7, 0.6)

#: Accepted requests below which an interval before a long block says nothing at all.
FEW = 3

#: The requests of the shortest plateau. A plateau shrinks when blocks end it early again and again:
#: another user of the account may cause them, and the rate has to come back up between two.
SHORTEST_UNSURE = 20.0

#: A trial's rate is lower than the estimate. Where the limit is no window, a trial of 30 requests
#: costs nothing (0.99 of the limit is used in the two minutes after another user's twenty seconds),
#: one of 60 requests 2 %. Windows of more requests are recognised without a trial.
LONGEST_TRIAL = 30.0

#: Plateaus in windows: a cut costs no requests there, and three or four 429s each time.
SHORTEST_IN_WINDOWS = 400.0
WINDOW_IN_PLATEAU = 0.8

#: A plateau is no longer than this many times the accepted requests of its estimate, or than this
#: many requests: an estimate from twenty requests is not kept for two hundred. Where each 429 costs
#: a long Retry-After, finding out is dear, and the estimate is kept for more requests.
PLATEAU_BY_EVIDENCE = 2.0
ASKED_PLATEAU_BY_EVIDENCE = 16.0
SHORTEST_BY_EVIDENCE = 40.0

#: A rate that an earlier process found is kept for 6 s at 1/s, 19 s at 10/s, 60 s from 100/s on.
#: A higher rate, tried earlier, would cost as many 429s as requests are on the wire. After that
#: time the rate grows as after a short plateau, in case the limit has risen.
SECONDS_OF_MEMORY = 6.0
MOST_SECONDS_OF_MEMORY = 60.0

#: This many blocks after few requests don't refute a remembered rate: the bucket may have been
#: empty when the process began. After one more, the limit is sought.
MEMORY_HOLDS = 2

#: Accepted requests that a part of the limit, as divided with other processes, counts for.
EVIDENCE_OF_A_SHARE = 100

#: Before its first 429, a process that shares the limit waits for its part of a plateau alone, and
#: for this many requests at least. In simulation, eight processes with a sum of 0.07 of the limit
#: otherwise took 1 100 s to find the limit, where one process takes 100 s.
FEWEST_OF_A_SHARE = 20.0


class Estimate:
    """The estimate of the rate that the vendor grants, and for how long it is kept.

    Args:
        granted: requests/s that the caller knows of; None: to be found.
        ceiling: requests/s that no estimate exceeds.
    """

    def __init__(self, granted: float | None, ceiling: float) -> None:
        #: Requests/s; None while the limit is sought.
        self.granted: float | None = granted
        self._ceiling = ceiling
        # Accepted requests of an interval until a higher rate than the estimate is tried.
        self._plateau = SHORTEST_PLATEAU
        self._processes = 1
        # Whether a 429 has come. Before one, the sum that this share is a part of may be too low.
        self._confirmed = False
        self._blocks = 0
        # Accepted requests that the estimate is made from.
        self._evidence = 0
        # Whether another user of the account may have caused the last 429.
        self._doubtful = False
        self.windows: Windows = Windows()
        self._search = Search(self.windows)
        # The estimate before another rate was tried, to tell a window from another user. Whether
        # the present interval tries that rate. Whether the last two intervals ended as a window
        # ends them, so that a third one has to confirm a much lower rate.
        self._before_trial: float | None = None
        self._on_trial = self._window_suspected = False
        # A remembered estimate: blocks until it is refuted; accepted requests until a higher rate
        # is tried.
        self._memory = 0
        self._kept_for = 0.0
        # The last few intervals, and those in a row that were cut early.
        self._recent = Goodput(decay=0.7)
        self._early = Goodput(decay=1.0)
        self._early_cuts = 0

    def adopt(
        self, granted: float, accepted: int, *, remembered: bool, processes: int = 1
    ) -> float:
        """Take over a part of the limit that processes divide. Returns the rate to start at.

        Args:
            granted: the part, in requests/s.
            accepted: requests counted in the interval that ends by it.
            remembered: whether an earlier process found the limit that is divided.
            processes: those that share the limit.
        """
        self._processes = processes
        self.granted = min(self._ceiling, max(LOWEST_RATE, granted))
        # Windows and cuts were found at another rate.
        self._evidence = max(self._evidence, EVIDENCE_OF_A_SHARE)
        self._doubtful = self.windows.found = False
        self._before_trial, self._window_suspected = None, False
        self.windows.forget()
        self._memory, self._kept_for = (MEMORY_HOLDS, 0.0) if remembered else (0, 0.0)
        self._plateau = self._next_plateau(self.granted, Interval(counted=accepted))
        if remembered:
            seconds = min(MOST_SECONDS_OF_MEMORY, SECONDS_OF_MEMORY * math.sqrt(self.granted))
            self._kept_for = seconds * self.granted
        self._blocks = 0 if remembered else max(1, self._blocks)
        self._recent.clear()
        self._clear_early_cuts()
        return self.granted * (1 - PROBING)

    def forget(self) -> None:
        """All 429s so far had another cause than the rate: search anew."""
        self.granted, self._before_trial, self._window_suspected = None, None, False
        self._blocks = self._evidence = self._memory = 0
        self._kept_for = 0.0
        self.windows.forget()
        self._search.forget()

    def on_interval(self, interval: Interval) -> float:
        """A block has ended: learn from it and its interval. Returns the next interval's rate."""
        self._doubtful = self._on_trial = self.windows.found = False
        suspected, self._window_suspected = self._window_suspected, False
        self._confirmed = True
        if self._blocks:
            self._evidence += interval.counted
        finding = self._find(interval, suspected=suspected)
        rate = finding.rate
        if finding.granted is not None:
            self._doubtful = self._doubtful or finding.doubtful
            self.granted = min(self._ceiling, max(LOWEST_RATE, finding.granted))
            self._plateau = self._next_plateau(self.granted, interval)
            rate = self.granted * (1 - PROBING)
        self._blocks += 1
        self.windows.on_interval(interval)
        return rate

    def grown(self, rate: float, accepted: int, passed: int) -> float:
        """The rate after one more accepted request: doubling at first, then CUBIC.

        The growth is by requests, not by time, so that it is as careful at 1/s as at 1 000/s.

        Args:
            rate: requests/s before it.
            accepted: requests counted in this interval.
            passed: all accepted requests of this interval.
        """
        doubled = rate * 2 ** (DOUBLINGS / max(10.0, rate))
        if self.granted is None:
            # Up to the count at which the last interval ended, the rate stays: if this interval, at
            # another rate than the last one, ends at that count too, a window ends both.
            return rate if passed <= (1 + SAME_COUNT) * self.windows.last_count else doubled
        plateau = self._own_plateau
        x = max(-1.0, (accepted - max(plateau, self._kept_for)) / plateau)
        if x > 0 and self._is_from_few:
            return doubled
        if x <= 1.5:
            return self.granted * (1 + PROBING * x**3)
        return rate * (1 + 1 / max(plateau, 2 * rate))

    @property
    def _own_plateau(self) -> float:
        """The plateau; of a share before its first 429, this process's part of the plateau."""
        if self._confirmed:
            return self._plateau
        return max(min(self._plateau, FEWEST_OF_A_SHARE), self._plateau / self._processes)

    @property
    def _is_from_few(self) -> bool:
        """Whether the estimate is made from so few requests that the search goes on after it."""
        return (
            self.granted is not None
            and not self._memory
            and not self.windows.budget
            and self._evidence < min(EVIDENCE_OF_A_SHARE, _shortest_plateau(self.granted))
        )

    def _next_plateau(self, granted: float, interval: Interval) -> float:
        """Accepted requests until a higher rate than the estimate is tried."""
        shortest, blocked_for = _shortest_plateau(granted), interval.blocked_for
        if self._memory:
            return min(max(20.0, 13.0 * granted), 70.0 + 6.0 * granted)
        if self._doubtful:
            # A growing rate would use a budget up in the same time again, and the trial would be
            # in vain: so a trial has as many requests as the interval before it.
            tried = (1 + SAME_COUNT) * interval.passed if self._on_trial else 0.0
            unsure = min(shortest, max(SHORTEST_UNSURE, 2 * granted))
            return max(unsure, min(LONGEST_TRIAL, tried))
        if self.windows.found:
            return max(SHORTEST_BY_EVIDENCE, float(interval.passed))
        if self.windows.budget:
            shortest = max(SHORTEST_IN_WINDOWS, WINDOW_IN_PLATEAU * self.windows.budget)
        elif self._evidence >= shortest:
            shortest = min(shortest, max(SHORTEST_UNSURE, 2 * self._plateau))
            if interval.counted < self._plateau:
                shortest = min(shortest, SHORTEST_UNSURE)
        elif self._plateau <= SHORTEST_UNSURE:
            return SHORTEST_BY_EVIDENCE  # the last estimate was doubtful, and so is this one
        if interval.asked_to_wait and blocked_for >= SHORT_BLOCK:
            # The longer the vendor asks to wait, the rarer a 429 has to be.
            by_block = ASKED_BLOCK_WEIGHT * granted * blocked_for
            longest = max(shortest, 0.8 * self._plateau, by_block)
            return min(longest, max(shortest, ASKED_PLATEAU_BY_EVIDENCE * self._evidence))
        weight = ASKED_BLOCK_WEIGHT if interval.asked_to_wait else BLOCK_WEIGHT
        longest = max(shortest, 2 * granted, 0.8 * self._plateau, weight * granted * blocked_for)
        borne = max(SHORTEST_BY_EVIDENCE, 2 * granted, PLATEAU_BY_EVIDENCE * self._evidence)
        return min(LONGEST_PLATEAU, longest, borne)

    def _find(self, interval: Interval, *, suspected: bool) -> Finding:
        """The rate that the vendor grants, in requests/s, from the interval before the block.

        Args:
            interval: the one that the block ended.
            suspected: whether a window ended the interval before it, as it seems.
        """
        recent = self._recent.add(interval)
        if self._memory and self._still_remembers(interval):
            return Finding(granted=self.granted)
        if self.granted is None:
            return self._search_on(interval, recent)
        granted = self._update(self.granted, interval, recent, suspected=suspected)
        return Finding(granted=granted)

    def _still_remembers(self, interval: Interval) -> bool:
        """Whether a block leaves the remembered estimate as it is."""
        if not interval.is_long and interval.counted < self._kept_for / 4:
            self._memory -= 1
            if self._memory:
                return True
            # The remembered rate was too high.
            self.granted, self._evidence, self._kept_for = None, 0, 0.0
        elif interval.counted >= ENOUGH_FOR_A_MEAN:
            self._memory, self._kept_for = 0, 0.0
        return False

    def _search_on(self, interval: Interval, recent: float) -> Finding:
        if interval.is_long:
            self._recent.clear()
            return self._search.after_long_block(interval, self._blocks)
        if not self._blocks:
            self._recent.clear()  # the first interval includes the burst
        return self._search.after_short_block(interval, self._blocks, recent, self._recent)

    def _update(
        self, granted: float, interval: Interval, recent: float, *, suspected: bool
    ) -> float:
        """A new estimate in the place of the last one."""
        n, short = interval.counted, not interval.is_long
        mean = interval.mean
        by_window = not interval.asked_to_wait and self.windows.explain(interval)
        if not short and (n < self._plateau or by_window):
            estimate = max(mean, recent)
            return self._after_long_block(granted, interval, estimate, suspected=suspected)
        usual = _shortest_plateau(granted)
        early = max(self._plateau, usual if self._evidence < usual else 0.0) / 4
        if n < early and short:
            return self._cut_early(CUTS, granted, interval, recent)
        self._clear_early_cuts()
        estimate = max(mean, recent, self._before_trial or 0.0)
        self._before_trial = None
        if short and estimate < RISEN * interval.cut_rate:
            # The rate had grown far beyond the estimate before a 429 came: the limit has risen.
            self._recent.clear()
            return RISEN * interval.cut_rate
        return estimate

    def _after_long_block(
        self, granted: float, interval: Interval, estimate: float, *, suspected: bool
    ) -> float:
        """Another user may have used the limit up: then the block says nothing about the rate.

        An interval that a window's budget ended has the same count at another rate. Where the
        rate may be too high for a window, another rate is tried once, to find that out.
        """
        n = interval.counted
        self._recent.clear()
        if n < FEW:
            self._doubtful = not interval.asked_to_wait
            return self._cut_early(CUTS_AFTER_LONG_BLOCKS, granted, interval, 0.0)
        self._clear_early_cuts()
        known = self.windows.explain(interval)
        if interval.asked_to_wait:
            return self._after_retry_after(granted, interval, estimate)
        window = self.windows.estimate(interval, ENOUGH_FOR_A_MEAN)
        if window is not None:
            # The next interval has to confirm it, or this one's end was chance.
            self._before_trial = max(granted, self._before_trial or 0.0)
            if granted > WORTH_A_TRIAL * window and not suspected:
                self._window_suspected = self._doubtful = self._on_trial = True
                self.windows.found, self.windows.budget = False, 0
                return math.sqrt(window * granted)
            return window
        if known:
            self._before_trial = None
            return min(estimate, self.windows.granted(interval))
        self._doubtful, self.windows.budget = True, 0
        if self._before_trial is not None:
            return max(granted, self._before_trial)
        if interval.passed >= ENOUGH_FOR_A_MEAN and interval.closed_mean < RISEN * granted:
            self._before_trial, self._on_trial = granted, True
            return CUTS[0] * granted
        return granted

    def _after_retry_after(self, granted: float, interval: Interval, estimate: float) -> float:
        """The vendor asked to wait, perhaps for much longer than its limiter needs.

        Then a bucket was full when the interval began. The requests accepted in the interval are
        the burst and the requests refilled; two intervals give both, as two points give a line.
        """
        n, took, last = interval.passed, interval.took, self.windows
        if interval.counted < ENOUGH_FOR_A_MEAN:
            return granted
        if took > interval.blocked_for / 4 or abs(n - last.last_count) <= SAME_COUNT * n:
            return estimate
        refilled = RISEN * granted
        if last.last_count and took > (1 + ANOTHER_SPAN) * last.last_span:
            refilled = (n - last.last_count) / (took - last.last_span)
        return min(estimate, max(CUTS[-1] * granted, refilled))

    def _cut_early(
        self, cuts: tuple[float, ...], granted: float, interval: Interval, recent: float
    ) -> float:
        """A 429 before the plateau: once by jitter, again and again by a limit that fell."""
        early = self._early.add(interval)
        if self._early_cuts:
            recent = early
        cut = cuts[min(self._early_cuts, len(cuts) - 1)]
        self._early_cuts += 1
        least = 1 / max(interval.blocked_for, 1e-3) if interval.counted < FEW else 0.0
        return max(cut * granted, min(granted, max(recent, least)))

    def _clear_early_cuts(self) -> None:
        self._early_cuts = 0
        self._early.clear()


def _shortest_plateau(granted: float) -> float:
    return min(SHORTEST_PLATEAU, FEWEST_AT_LOW_RATES + FEWEST_MORE_PER_RATE * granted)
