"""A cap on exports running at the vendor, told apart from a limit on requests.

Both answer 429. But a cap refuses submits only: polls pass, and only the end of an export makes
room. If such a 429 were taken for a rate, polls would slow down, and the ends that make room would
be noticed later.
"""

from __future__ import annotations

import math

#: After a refused submit, this many polls go first. If a limit on requests grants those polls, it
#: grants the next submit at the same pace too: a submit refused again is evidence of a cap.
POLLS_BETWEEN = 3

#: So much evidence is enough. A submit that passes although no export was seen to end refutes the
#: cap. A submit that passes after an end says little, and only lets the evidence fade.
ENOUGH = 1.0
FADING = 0.8

#: After this many submits accepted at the cap, one more export is tried: caps move, and the first
#: guess counts exports that had ended unnoticed.
PATIENCE = 20


class PendingCap:
    """The most exports that the vendor lets run at once, as far as 429s to submits tell."""

    def __init__(self) -> None:
        #: Exports running at once; inf while nothing suggests a cap.
        self.jobs: float = math.inf
        #: Requests/s at the first of the refusals that were taken for a cap; None for no pacing.
        self.rate_before: float | None = None
        self._evidence = 0.0
        self._asking = False  # a submit was refused, and the reason is open
        self._ends = 0  # exports seen to end since then
        self._polls = 0  # granted since then
        self._accepted = 0

    @property
    def suspected(self) -> bool:
        """Whether a submit was refused, and too few polls have passed since to tell why."""
        return self._asking and self._polls < POLLS_BETWEEN

    def on_poll_granted(self) -> None:
        """A poll got an answer that isn't 429."""
        self._polls += 1

    def on_poll_refused(self) -> None:
        """A poll got a 429 too: the limit is one on requests."""
        self._evidence, self._asking = 0.0, False
        self.jobs = math.inf

    def on_job_ended(self) -> None:
        """An export was seen to end."""
        self._ends += 1

    def on_submit_granted(self) -> None:
        """A submit got an answer that isn't 429."""
        if self._asking:
            self._evidence = self._evidence * FADING if self._ends else 0.0
            self._asking = False
        if self.jobs < math.inf:
            self._accepted += 1
            if self._accepted >= PATIENCE:
                self._accepted = 0
                self.jobs += 1

    def on_submit_refused(self, others: int, rate: float | None) -> bool:
        """A submit got a 429. Returns whether the cap refused it, which says nothing of the rate.

        Args:
            others: exports known to run at the vendor besides this one.
            rate: requests/s that are being sent at most; None while nothing limits them.
        """
        if not others:
            # No export of this client's could make room by its end. A cap that stayed at one export
            # would make a run of hours out of a minute in which submits alone were refused.
            self._evidence, self._asking = 0.0, False
            self.jobs = math.inf
            return False
        if self.jobs < math.inf and others >= self.jobs - 1:
            return self._lower(others)
        if self._asking and self._polls >= POLLS_BETWEEN:
            self._evidence += 1.0
        elif self._evidence == 0.0:
            self.rate_before = rate
        self._asking, self._ends, self._polls = True, 0, 0
        return self._evidence >= ENOUGH and self._lower(others)

    def _lower(self, jobs: int) -> bool:
        self.jobs = max(1, jobs)
        self._accepted, self._evidence, self._asking = 0, 0.0, False
        return True
