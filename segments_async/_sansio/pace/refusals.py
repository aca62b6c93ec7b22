"""A submit that is refused with "not now" again and again, while other requests are granted.

A 429 concerns all requests as long as no other request passes; then only waiting helps. But vendors
have answered 429 for ever to one export and to no other. Such an export would keep its run from
ending, and no log line would say why.
"""

from __future__ import annotations

import math

import attrs

#: After this many refusals in a row, over this many seconds, a harmless request is sent before the
#: next try, to see whether that one passes. Earlier, it would use up the rest of a low limit.
SUSPICIOUS = 5
SUSPICIOUS_AFTER = 30.0

#: A submit is given up after this many refusals, each after another request had passed, and this
#: many seconds after the first one.
ENOUGH = 8
LASTING = 300.0

#: Pause between two tries of a submit that was refused this often while other requests passed: 1 s,
#: doubling up to the longest, in seconds. Before the refusals are suspicious, the pause is short:
#: the reason may be a cap on running exports.
PASSED_OVER = 3
LONGEST_PAUSE_AT_FIRST = 4.0
LONGEST_PAUSE = 60.0


@attrs.frozen
class Refusals:
    """The refusals in a row of one submit.

    Attributes:
        count: the number of refusals.
        passed_over: refusals before which another request had passed since the refusal before.
        alone: such refusals once `suspicious`, while no other export of this client ran.
        since: when the first came, in seconds.
        last: when the last came, in seconds.
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
        """The refusals with one more.

        Args:
            now: seconds.
            granted: requests of this client that were granted so far.
            others: exports of this client that run at the vendor; a cap on those may be the reason
                of the refusal.
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
        """Whether a harmless request has to go before the next try."""
        return self.count >= SUSPICIOUS and self.last - self.since >= SUSPICIOUS_AFTER

    def lasting(self, now: float) -> bool:
        """Whether the submit has to be given up."""
        return self.alone >= ENOUGH and now - self.since >= LASTING
