"""The search for the limit, before the first estimate: what an interval says about the next one.

An estimate needs an interval that began with an empty bucket or a fresh window. The first interval
did not: its requests include the burst that the limiter had saved up, or the rest of it that
another user of the account had left. So the first interval only lowers the rate. See the head of
`pacer` for the equations.
"""

from __future__ import annotations

import math

import attrs

from segments_async._sansio.pace.interval import Goodput, Interval
from segments_async._sansio.pace.windows import Windows

#: Requests/s before anything is known.
FIRST_RATE = 10.0

#: The first estimate of the limit is at least this part of the rate at which the 429 came.
LEAST_OF_CUT_RATE = 0.25

#: Accepted requests below which an interval that a long block ended doesn't even lower the rate.
ENOUGH_TO_SLOW_DOWN = 8

#: The same, in the last few intervals before short blocks, for a first guess.
ENOUGH_FOR_A_GUESS = 4.0

#: Accepted requests, in at least two intervals, after which long blocks are taken for the limit's
#: own. Fewer are no evidence of a limit: the search goes on.
ENOUGH_FOR_A_LIMIT = 40

#: A window that makes the rate this many times lower is believed after a third interval only.
WORTH_A_TRIAL = 4.0

#: An interval that a long block ended is followed by one at this many times the rate that was
#: granted with the block included. Of a window, that is half of what the window grants.
TIMES_GRANTED = 2.0


@attrs.frozen(kw_only=True)
class Finding:
    """The result of an interval: the rate that the vendor grants, or the next rate of the search.

    Attributes:
        granted: requests/s; None while the search goes on.
        rate: requests/s of the next interval, where `granted` is None.
        doubtful: another user of the account may have caused the 429.
    """

    granted: float | None = None
    rate: float = 0.0
    doubtful: bool = False


class Search:
    """The intervals since the limit is sought."""

    def __init__(self, windows: Windows) -> None:
        self._windows = windows
        # Whether two intervals have ended as a window's budget ends them.
        self._window_suspected = False
        # Intervals between two long blocks; their requests, their seconds, the highest rate.
        self._framed = 0
        self._requests, self._seconds, self._best = 0, 0.0, 0.0

    def forget(self) -> None:
        """Intervals so far say nothing about the limit."""
        self._framed = 0
        self._requests, self._seconds, self._best = 0, 0.0, 0.0

    def after_short_block(
        self, interval: Interval, blocks: int, recent: float, goodput: Goodput
    ) -> Finding:
        """A limiter that refills continuously ended the interval.

        Args:
            interval: the interval and its block.
            blocks: the number of blocks before it.
            recent: requests/s of the last few intervals, blocks included.
            goodput: where those are counted.
        """
        cut_rate, blocked_for = interval.cut_rate, interval.blocked_for
        if blocks and interval.counted >= ENOUGH_TO_SLOW_DOWN:
            # The mean says little where the interval began far too slowly.
            grown = LEAST_OF_CUT_RATE * cut_rate
            estimate = max(interval.closed_mean, interval.mean, grown)
            return Finding(granted=min(cut_rate, estimate))
        if blocks >= 3 and goodput.requests >= ENOUGH_FOR_A_GUESS:
            return Finding(granted=1.2 * recent, doubtful=True)
        slower = 0.5 * cut_rate
        if not interval.asked_to_wait:
            slower = max(0.2, min(1.0, 1 / blocked_for), min(slower, 4 / blocked_for))
        return Finding(rate=slower)

    def after_long_block(self, interval: Interval, blocks: int) -> Finding:
        """Decide after a long block: a window, a Retry-After, or another user caused it."""
        if blocks and (finding := self._framed_by_blocks(interval)) is not None:
            return finding
        cut_rate = interval.cut_rate
        if interval.counted < (1 if blocks else ENOUGH_TO_SLOW_DOWN):
            return Finding(rate=cut_rate)
        if interval.asked_to_wait:
            return Finding(rate=0.5 * cut_rate)
        granted = interval.passed / (interval.span + interval.blocked_for)
        return Finding(rate=min(0.5 * cut_rate, max(FIRST_RATE, TIMES_GRANTED * granted)))

    def _framed_by_blocks(self, interval: Interval) -> Finding | None:
        """The interval lies between two blocks. None: it is no evidence of a limit yet."""
        if not interval.asked_to_wait:
            self._framed += 1
            self._requests += interval.counted + 1
            self._best = max(self._best, interval.closed_mean)
            self._seconds += interval.span + interval.blocked_for
            window = self._windows.estimate(interval, ENOUGH_FOR_A_LIMIT)
            if window is not None:
                return self._window(interval.cut_rate, window)
            self._window_suspected = False
        if interval.mean:
            # The mean says little where the interval began far too slowly. In a window of unknown
            # length, that can't be told from a budget that is used up.
            grown = LEAST_OF_CUT_RATE * interval.cut_rate if interval.asked_to_wait else 0.0
            return Finding(granted=min(interval.cut_rate, max(interval.mean, grown)))
        if self._requests >= ENOUGH_FOR_A_LIMIT and self._framed >= 2:
            mean = self._requests / self._seconds
            # Few or unlike intervals: another user may have used a part of the limit.
            doubtful = self._framed < 3 or self._best > 1.25 * mean
            return Finding(granted=min(interval.cut_rate, self._best), doubtful=doubtful)
        return None

    def _window(self, cut_rate: float, estimate: float) -> Finding:
        """Two intervals ended at one count, by a window's budget or by chance: a third one tells.

        A full bucket ends intervals at nearly one count too, if the rates are far above its own.
        At a much lower rate a full bucket ends the interval at another count, and a window doesn't.
        """
        if self._window_suspected or cut_rate <= WORTH_A_TRIAL * estimate:
            return Finding(granted=min(cut_rate, estimate))
        self._window_suspected = True
        self._windows.found, self._windows.budget = False, 0
        return Finding(rate=math.sqrt(min(cut_rate, estimate) * cut_rate))
