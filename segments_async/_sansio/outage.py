"""While the vendor can't be reached, or has fallen silent, everybody waits; no patience is spent.

Name resolution or connecting fails for the whole client, not for one export. So one backoff holds
all; then a single request goes first, a harmless one where there is one, and the first answer of
any kind ends it.

A vendor that takes requests and answers none is worse: each POST that goes there ends as unknown.
So when answers stop coming, sending stops, long before the first request has run out of time.
"""

from __future__ import annotations

import math

from segments_async._sansio.retry import full_jitter

#: After this many seconds without any answer, what was not submitted yet is given back to the
#: caller, who may know that the network is down or the host's name wrong.
LONGEST_OUTAGE = 600.0

#: Answers lost in a row, with none between them, that are no accident of one connection.
LOST_IN_A_ROW = 3

#: With so many requests on their way and no answer for so long, no more are sent: this many times
#: as long as the slowest of the latest answers took, and a quarter of a second at least. The next
#: answer lets all go on, so a vendor that only hesitates costs nothing.
SILENT_ABOVE = 4
SILENT_FACTOR = 3.0
SILENT_SECONDS = 0.25

#: How much of the slowest answer's time is left after each one that took less.
_FADING = 0.98


class Outage:
    """Consecutive failures to reach the vendor, or to hear from it."""

    def __init__(self) -> None:
        self._failures = 0
        self._lost = 0
        self._since = math.inf
        self._until = -math.inf
        self._probing = False
        self._quiet_since = -math.inf
        self._slowest = 0.0
        #: Whether the next request goes alone.
        self.armed: bool = False

    def next_at(self) -> float:
        """When the next request may go; never, while the first one after a pause is under way."""
        return math.inf if self._probing else self._until

    def is_silent(self, now: float, under_way: int) -> bool:
        """Whether so many requests are on their way, and answers have stopped coming."""
        if under_way < SILENT_ABOVE:
            return False
        return now - self._quiet_since > max(SILENT_SECONDS, SILENT_FACTOR * self._slowest)

    def on_sent(self, now: float, under_way: int) -> None:
        """A request goes, beside so many others."""
        if not under_way:
            self._quiet_since = now
        self._probing = self.armed

    def on_unsent(self, now: float, chance: float) -> None:
        """A request provably never arrived. Those that fail together count as one failure."""
        self._probing = False
        if now < self._until:
            return
        self._since = min(self._since, now)
        # At least half the pause: a streak of lucky draws would be a busy loop on a dead link.
        self._until = now + full_jitter(self._failures, 0.5 + chance / 2)
        self._failures += 1
        self.armed = True

    def on_lost(self, now: float, chance: float) -> None:
        """A request went, and no answer came."""
        self._lost += 1
        if self._lost >= LOST_IN_A_ROW or self.armed:
            self.on_unsent(now, chance)

    def on_no_word(self) -> None:
        """A request came to nothing for a reason of our own: the next one is the probe."""
        self._probing = False

    def on_answer(self, now: float, seconds: float) -> None:
        """The vendor answered, whatever it said, after so many seconds."""
        self._quiet_since = now
        self._slowest = max(seconds, _FADING * self._slowest)
        if self._lost or self.armed:
            self._failures = self._lost = 0
            self._since = math.inf
            self._until = -math.inf
            self._probing = self.armed = False

    def hopeless(self, now: float) -> bool:
        """Whether it has lasted longer than waiting in silence is a service to the caller."""
        return now - self._since > LONGEST_OUTAGE
