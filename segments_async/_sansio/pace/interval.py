"""The measurement between two blocks: the evidence of the pacer's estimate."""

from __future__ import annotations

import attrs

#: Requests/s that a pacer never falls below.
LOWEST_RATE = 0.05

#: Accepted requests below which the mean rate of an interval is not measured.
ENOUGH_FOR_A_MEAN = 20

#: A block shorter than this says that the limiter refills continuously. A longer block is the end
#: of a window, a Retry-After, or another user of the account. In seconds, and in requests at the
#: rate that was refused: at 0.5/s, two seconds are one request's worth.
SHORT_BLOCK = 2.0
REQUESTS_IN_SHORT_BLOCK = 4.0


@attrs.frozen(kw_only=True)
class Interval:
    """The time from the end of one block to the next 429, with the block that followed.

    Attributes:
        counted: n, requests accepted while a caller waited for the pacer.
        span: s, seconds between those.
        passed: all accepted requests, whether a caller waited or not.
        took: seconds from the interval's beginning to the 429.
        blocked_for: L, seconds of the block.
        late: seconds between the last two probes. The vendor may have granted requests again at
            most this long before the block's end.
        cut_rate: requests/s at the 429.
        asked_to_wait: whether a Retry-After made the block as long as it was.
    """

    counted: int = 0
    span: float = 0.0
    passed: int = 0
    took: float = 0.0
    blocked_for: float = 0.0
    late: float = 0.0
    cut_rate: float = LOWEST_RATE
    asked_to_wait: bool = False

    @property
    def is_long(self) -> bool:
        """Whether a limiter that refills continuously would have granted a probe earlier."""
        return self.blocked_for >= max(SHORT_BLOCK, REQUESTS_IN_SHORT_BLOCK / self.cut_rate)

    @property
    def mean(self) -> float:
        """Requests/s: n / s; 0 where n is too small to measure a rate.

        The limiter's bucket was empty, or its window fresh, at the interval's beginning.
        """
        measured = self.counted >= ENOUGH_FOR_A_MEAN and self.span > 0
        return self.counted / self.span if measured else 0.0

    @property
    def closed_mean(self) -> float:
        """Requests/s: (n + 1) / (s + L), with the block, and with the probe that ended it."""
        return (self.counted + 1) / (self.span + self.blocked_for)


class Goodput:
    """Requests/s that were granted in several intervals, their blocks included.

    Args:
        decay: the weight of an interval against the one after it.
    """

    def __init__(self, decay: float) -> None:
        self._decay = decay
        self.requests: float = 0.0
        self._seconds = 0.0

    def add(self, interval: Interval) -> float:
        """Count an interval. Returns the mean of all."""
        self.requests = self._decay * self.requests + interval.counted + 1
        self._seconds = self._decay * self._seconds + interval.span + interval.blocked_for
        return self.requests / max(self._seconds, 1e-3)

    def clear(self) -> None:
        self.requests = self._seconds = 0.0
