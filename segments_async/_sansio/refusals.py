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

#: Longest pause between two tries of a suspicious submit, in seconds; from 1 s doubling.
LONGEST_PAUSE = 60.0


@attrs.frozen
class Refusals:
    """The refusals in a row of one submit.

    Attributes:
        count: how many.
        alone: how many of them came although something else had passed since the one before.
        since: when the first came, in seconds.
        last: when the last came.
        granted: requests of this client that had been granted at the last one.
    """

    count: int = 0
    alone: int = 0
    since: float = math.inf
    last: float = -math.inf
    granted: int = -1

    def refused(self, now: float, *, granted: int, others: int) -> Refusals:
        """One more.

        Args:
            now: seconds.
            granted: requests of this client that were granted so far.
            others: jobs of this client at work at the vendor; with some, what refuses it may be a
                cap on those.
        """
        alone = self.suspicious and granted > self.granted and not others
        since = min(self.since, now)
        return Refusals(self.count + 1, self.alone + alone, since, now, granted)

    @property
    def suspicious(self) -> bool:
        """Whether to see first that something else passes."""
        return self.count >= SUSPICIOUS and self.last - self.since >= SUSPICIOUS_AFTER

    @property
    def pause(self) -> float:
        """Seconds until the next try. 0 for the first few: the pacer delays every request then."""
        if not self.suspicious:
            return 0.0
        return min(LONGEST_PAUSE, 2.0 ** min(self.count - SUSPICIOUS, 10))

    def lasting(self, now: float) -> bool:
        """Whether waiting longer is no service to the caller."""
        return self.alone >= ENOUGH and now - self.since >= LASTING
