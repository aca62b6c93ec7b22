"""While the vendor can't be reached, everybody waits; nobody's patience is spent.

Name resolution or connecting fails for the whole client, not for one export. So one backoff holds
all, and the first answer of any kind ends it.
"""

from __future__ import annotations

import math

from segments_async._sansio.retry import full_jitter

#: After this many seconds without any answer, what was not submitted yet is given back to the
#: caller, who may know that the network is down or the host's name wrong.
LONGEST_OUTAGE = 600.0


class Outage:
    """Consecutive failures to reach the vendor at all."""

    def __init__(self) -> None:
        self._failures = 0
        self._since = math.inf
        self._until = -math.inf

    def next_at(self) -> float:
        """When the next request may go."""
        return self._until

    def on_unsent(self, now: float, chance: float) -> None:
        """A request provably never arrived. Those that fail together count as one failure."""
        if now < self._until:
            return
        self._since = min(self._since, now)
        # At least half the pause: a streak of lucky draws would be a busy loop on a dead link.
        self._until = now + full_jitter(self._failures, 0.5 + chance / 2)
        self._failures += 1

    def on_answer(self) -> None:
        """The vendor answered, whatever it said."""
        self._failures = 0
        self._since = math.inf
        self._until = -math.inf

    def hopeless(self, now: float) -> bool:
        """Whether it has lasted longer than waiting in silence is a service to the caller."""
        return now - self._since > LONGEST_OUTAGE
