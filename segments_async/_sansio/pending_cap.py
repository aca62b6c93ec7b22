"""A cap on jobs running at the vendor, told apart from a limit on requests.

Both answer 429. But a cap refuses submits only: polls pass all the while, and nothing but a job's
end makes room. Taken for a rate, such a 429 would slow every poll down, and with them the
noticing of the ends that make room.
"""

from __future__ import annotations

import math

#: Submits refused in a row, with polls granted in between each time, before it is taken for a cap.
#: Under a limit on requests that has just refused one submit and then granted polls, the next
#: submit passes too.
_REFUSALS = 3
_POLLS_BETWEEN = 2

#: After so many submits accepted at the cap, one more job is tried: caps move, and the first guess
#: counts jobs that had ended unnoticed.
_PATIENCE = 20


class PendingCap:
    """The most jobs that the vendor lets run at once, as far as 429s to submits tell."""

    def __init__(self) -> None:
        #: Jobs at work at once; infinite while nothing suggests a cap.
        self.jobs = math.inf
        self._refusals = 0
        self._polls = 0
        self._accepted = 0

    def on_poll_granted(self) -> None:
        """A poll got an answer that isn't 429."""
        self._polls += 1

    def on_submit_granted(self) -> None:
        """A submit got an answer that isn't 429."""
        self._refusals = 0
        self._polls = 0
        if self.jobs < math.inf:
            self._accepted += 1
            if self._accepted >= _PATIENCE:
                self._accepted = 0
                self.jobs += 1

    def on_submit_refused(self, others: int) -> bool:
        """A submit got a 429. Whether that was the cap, and so no word on the rate.

        Args:
            others: jobs that were at work at the vendor, as far as was known, besides this one.
        """
        between, self._polls = self._polls, 0
        if self.jobs < math.inf and others >= self.jobs - 1:
            self.jobs = max(1, others)
            self._accepted = 0
            return True
        self._refusals = self._refusals + 1 if between >= _POLLS_BETWEEN else 1
        if self._refusals < _REFUSALS or others < 1:
            return False
        self.jobs = others
        self._accepted = 0
        return True
