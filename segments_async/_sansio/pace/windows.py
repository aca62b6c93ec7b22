"""Whether the limit is a budget for each window of time, such as 600 requests in each minute.

A window's budget ends an interval at the same count of requests whatever the rate was. So two
intervals before long blocks that ended at nearly the same count, though their rates differed, are
evidence of a window. A bucket that was full at the beginning of both ends them at nearly one count
too, if the rates are far above the bucket's own: then `search` asks for a third interval.
"""

from __future__ import annotations

from segments_async._sansio.pace.interval import Interval

#: Two counts are the same where they differ by at most this part. Two rates are different where
#: the intervals' seconds differ by more than this part.
SAME_COUNT = 0.07
ANOTHER_SPAN = 0.1

#: Where the limit has windows, the rate is what the last windows granted, times this. So the budget
#: of a window is used up shortly before the window's end.
WINDOW_MARGIN = 1.1


class Windows:
    """The last interval before a long block, and the budget that two such intervals showed."""

    def __init__(self) -> None:
        #: Requests that one window grants; 0 while there is no evidence of windows.
        self.budget: int = 0
        #: Whether the interval that has just ended showed the budget.
        self.found: bool = False
        #: The last interval, if a long block ended it: all its requests, and its seconds.
        self.last_count: int = 0
        self.last_span: float = 0.0
        #: Seconds of the last block, if a window's end explains it; else 0.
        self.last_block: float = 0.0
        # Requests that the windows since the first granted, and the seconds of these windows.
        self._requests = self._seconds = 0.0

    def forget(self) -> None:
        """Intervals so far say nothing about those that follow."""
        self.budget = self.last_count = 0

    def on_interval(self, interval: Interval) -> None:
        """An interval has been judged: the next one is compared with it."""
        self.last_count = interval.passed if interval.is_long else 0
        self.last_span = interval.took
        by_window = self.budget and not interval.asked_to_wait
        self.last_block = interval.blocked_for if by_window else 0.0

    def estimate(self, interval: Interval, fewest: int) -> float | None:
        """The rate of windows, if this interval ended at the last one's count at another rate.

        Args:
            interval: one that a long block ended.
            fewest: accepted requests that it takes.
        """
        n, took = interval.passed, interval.took
        if n < fewest or abs(n - self.last_count) > SAME_COUNT * n:
            return None
        if abs(took - self.last_span) <= ANOTHER_SPAN * took or interval.span < 0.5 * took:
            return None
        self.found, self.budget = True, n
        self._requests, self._seconds = n + 1.0, took + interval.blocked_for
        return (n + 1) / (took + interval.blocked_for - interval.late)

    def explain(self, interval: Interval) -> bool:
        """Whether the interval's requests are one known budget, or a whole number of them."""
        count = interval.passed / self.budget if self.budget else 0.0
        return count > 0.5 and abs(count - round(count)) <= SAME_COUNT

    def granted(self, interval: Interval) -> float:
        """The rate that all windows since the first granted, with a margin.

        From closing to closing: over several windows, the probes' lateness counts once.
        """
        self._requests += interval.counted + 1
        self._seconds += interval.span + interval.blocked_for
        return WINDOW_MARGIN * self._requests / self._seconds
