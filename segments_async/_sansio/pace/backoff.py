"""Pauses after failures: jitter, the quota of retries, the ticket guard.

These are pauses of one call or one export, except for the ticket guard's. How fast requests go at
all is the pacer's question.
"""

from __future__ import annotations

import math

#: Full jitter, from 1 s doubling to 30 s, for gateways' errors and broken connections.
FIRST_BACKOFF = 1.0
LONGEST_BACKOFF = 30.0

#: The ticket guard's first and longest pause, in seconds; and the answers of 500 that end a run.
FIRST_GUARD = 60.0
LONGEST_GUARD = 900.0
#: Seconds by which processes that were told of a 500 wait longer than the one that received it. So
#: its probe goes alone, and the others learn what was answered: each 500 raises a ticket.
GUARD_TOLD = 5.0
MOST_INTERNAL_ERRORS = 6


def full_jitter(attempt: int, chance: float) -> float:
    """Seconds to wait before attempt number `attempt` + 1 (0: the first has just failed).

    With full jitter, callers that failed together don't come back together.
    """
    return chance * min(LONGEST_BACKOFF, FIRST_BACKOFF * 2.0 ** min(attempt, 30))


class RetryQuota:
    """A bucket of retries that successes refill: retries can't multiply the load of an outage.

    A retry takes one; a success gives back a tenth. Ten calls that fail for ever send at most
    `size` requests besides their own ten, however often each may be tried.
    """

    def __init__(self, size: float = 50.0, refill: float = 0.1) -> None:
        self._size = size
        self._refill = refill
        self._left = size

    def take(self) -> bool:
        """Take one retry, if there is one."""
        if self._left < 1.0 - 1e-9:  # ten tenths don't add up to one in binary
            return False
        self._left -= 1.0
        return True

    def on_success(self) -> None:
        self._left = min(self._size, self._left + self._refill)


class TicketGuard:
    """After a 500 nothing is sent: each 500 "will automatically raise a ticket".

    Any 500 delays all requests of the account for 60 s, doubling up to 15 minutes while more come.
    Then one request goes as a probe. If the probe succeeds, the guard is disarmed.
    """

    def __init__(self) -> None:
        #: Until when all requests are delayed, where the guard is armed.
        self.until: float = -math.inf
        #: Seconds that the next 500 would delay all requests.
        self.pause: float = FIRST_GUARD
        self._probing = False
        self.armed: bool = False
        #: Whether the guard is armed by what another process said, and by that alone.
        self.told: bool = False
        #: Answers of 500 since the client was made.
        self.internal_errors: int = 0

    def next_at(self) -> float:
        """When the next request may go, in seconds; inf while the probe is on the wire."""
        return math.inf if self._probing else self.until

    def restore(self, until: float, pause: float) -> None:
        """An earlier process had armed the guard: hold until `until` at least, then probe."""
        self.until = max(self.until, until)
        self.pause = max(self.pause, min(pause, LONGEST_GUARD))
        self.armed = True

    def on_told(self, now: float, until: float, pause: float) -> bool:
        """Another process received a 500. Returns whether this one waits longer because of that.

        Args:
            now: seconds.
            until: when the other process sends its probe.
            pause: seconds that the next 500 would delay all requests.
        """
        # Less than a second later is the same 500, by two clocks. Another machine's may be wrong.
        if until <= max(now, self.until + 1.0):
            return False
        self.told = self.told or not self.armed
        self.restore(min(until, now + LONGEST_GUARD) + (GUARD_TOLD if self.told else 0.0), pause)
        return True

    def on_told_passed(self) -> bool:
        """The probe of another process passed. Returns whether requests go on because of that."""
        if not self.told or self._probing:
            return False
        self._disarm()
        return True

    def on_internal_error(self, now: float) -> None:
        """A 500. The pause is not doubled if the request was sent before the first 500 came."""
        self.internal_errors += 1
        if self.armed and not self._probing:
            return
        self.until = now + self.pause
        self.pause = min(LONGEST_GUARD, 2 * self.pause)
        self.armed, self._probing, self.told = True, False, False

    def on_sent(self) -> bool:
        """A request goes. Returns whether it is the guard's probe."""
        self._probing = self.armed
        return self._probing

    def on_probe_answer(self, now: float, *, passed: bool) -> None:
        """The probe's answer came, or was lost; for a 500 see :meth:`on_internal_error`.

        After a probe that didn't pass, the next one goes later; the pause isn't doubled.
        """
        if not self._probing:
            return
        self._probing = False
        if passed:
            self._disarm()
        else:
            self.until = now + LONGEST_BACKOFF
            self.told = False

    def _disarm(self) -> None:
        self.armed, self.until, self.pause = False, -math.inf, FIRST_GUARD
        self.told = False

    def on_probe_unsent(self) -> None:
        """The probe was not sent: the next request is the probe."""
        self._probing = False
