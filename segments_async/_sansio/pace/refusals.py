"""A submit that alone is refused with "not now", again and again, while other requests pass.

A 429 is about everybody as long as nothing else passes; then only waiting helps, however long. But
vendors have answered 429 for good to one job and to no other: such a job would keep its run from
ending, and nobody would know why.
"""

from __future__ import annotations

import math

import attrs

#: After so many refusals in a row, over so many seconds, something harmless is sent before the next
#: try, to see whether it passes. Sooner, it would take what a low limit has left.
SUSPICIOUS = 5
SUSPICIOUS_AFTER = 30.0

#: So many refusals, each after something else had passed, and so many seconds since the first, are
#: enough to give it up.
ENOUGH = 8
LASTING = 300.0

#: Pause between two tries of a submit that was passed over so many times: 1 s, doubling up to the
#: longest, in seconds. While it isn't suspicious, a cap on jobs may be what refuses it.
PASSED_OVER = 3
LONGEST_PAUSE_AT_FIRST = 4.0
LONGEST_PAUSE = 60.0


@attrs.frozen
class Refusals:
    """The refusals in a row of one submit.

    Attributes:
        count: how many.
        passed_over: how many of them came although something else had passed since the one before.
        alone: how many of those came while no job of this client was at work, once suspicious.
        since: when the first came, in seconds.
        last: when the last came.
        granted: requests of this client that had been granted at the last one.
        pause: seconds until the next try. 0 where nothing else passes: the pacer delays every
            request then.
    """

    count: int = 0
    passed_over: int = 0
    alone: int = 0
    since: float = math.inf
    last: float = -math.inf
    granted: int = -1
    pause: float = 0.0

    def refused(self, now: float, *, granted: int, others: int) -> Refusals:
        """One more.

        Args:
            now: seconds.
            granted: requests of this client that were granted so far.
            others: jobs of this client at work at the vendor; with some, what refuses it may be a
                cap on those.
        """
        passed = bool(self.count) and granted > self.granted
        passed_over = self.passed_over + passed
        pause = 0.0
        if passed and passed_over >= PASSED_OVER:
            longest = LONGEST_PAUSE if self.suspicious else LONGEST_PAUSE_AT_FIRST
            pause = min(longest, 2.0 ** min(passed_over - PASSED_OVER, 10))
        return Refusals(
            count=self.count + 1,
            passed_over=passed_over,
            alone=self.alone + (passed and self.suspicious and not others),
            since=min(self.since, now),
            last=now,
            granted=granted,
            pause=pause,
        )

    @property
    def suspicious(self) -> bool:
        """Whether to see first that something else passes."""
        return self.count >= SUSPICIOUS and self.last - self.since >= SUSPICIOUS_AFTER

    def lasting(self, now: float) -> bool:
        """Whether waiting longer is no service to the caller."""
        return self.alone >= ENOUGH and now - self.since >= LASTING
