"""While the vendor can't be reached, every request waits, and no export fails because of it.

An outage shows in three ways: name resolution or connecting fails; requests go and no answer comes;
a gateway answers in the vendor's place (`wire.is_away`). Each concerns the whole client, not one
export. So one backoff delays all requests. Then a single harmless request goes (a poll, or a list)
as a probe, and the first answer of the vendor's own ends the outage.

A vendor that takes requests and answers none is worse: each POST that goes there ends as unknown.
So when answers stop coming, sending stops, long before the first request's time is over.

The processes of an account tell each other what they were answered: see `shared_outage`. `Outage`
and `SubmitHold` are both told, and both remember the `Cause` of their state.
"""

from __future__ import annotations

import math
from enum import Enum

from segments_async._sansio.pace.backoff import full_jitter

#: After this many seconds of an outage, the exports that are not submitted yet end as resumable:
#: the caller may know that the network is down, or that the host's name is wrong.
LONGEST_OUTAGE = 600.0

#: How many failures in a row make an outage. A lost answer may be an accident of one connection. A
#: gateway says itself that the vendor is away, so fewer of its answers are enough.
LOST_IN_A_ROW = 3
AWAY_IN_A_ROW = 2

#: When answers have stopped coming, no more requests are sent. That is so with at least
#: `SILENT_ABOVE` requests on the wire, and no answer for `SILENT_SECONDS` and for `SILENT_FACTOR`
#: times the slowest of the latest answers. The next answer lets all requests go on, so a vendor
#: that only hesitates costs nothing.
SILENT_ABOVE = 4
SILENT_FACTOR = 3.0
SILENT_SECONDS = 0.25

#: The slowest answer's time is forgotten by this factor with each answer that took less.
_FADING = 0.98


class Cause(Enum):
    """How a process knows that the vendor is away, or that submits are in vain."""

    #: A gateway answered this process in the vendor's place, or no answer had a readable id: the
    #: other processes would be answered the same.
    ANSWERED = "answered"
    #: This process was not answered, or has no connection: the reason may be its own network.
    UNREACHED = "unreached"
    #: Another process of the account said so.
    TOLD = "told"


class Outage:
    """Consecutive failures to reach the vendor, or to hear from it."""

    def __init__(self) -> None:
        #: The cause of the present outage; None while there is none.
        self.cause: Cause | None = None
        #: Outages and longer pauses so far that this process found by itself.
        self.setbacks: int = 0
        #: Whether other processes found the vendor there while this one was answered by a gateway,
        #: and the vendor hasn't answered this process since.
        self.refuted: bool = False
        #: Pauses of this outage so far, by which the next one grows.
        self.failures: int = 0
        self._in_a_row = 0
        self._since = math.inf
        self._until = -math.inf
        self._probing = False
        self._quiet_since = -math.inf
        self._slowest = 0.0
        #: When the request that failed first was sent. Answers to requests sent earlier don't show
        #: that the outage is over.
        self._first_failed = math.inf
        #: Whether there is an outage: the next request goes alone.
        self.armed: bool = False
        #: Whether a probe failed too, so that the outage was no accident.
        self.lasted: bool = False

    def next_at(self) -> float:
        """When the next request may go, in seconds; inf while a probe is on the wire."""
        return math.inf if self._probing else self._until

    def is_silent(self, now: float, in_flight: int) -> bool:
        """Whether answers have stopped coming to the requests on the wire."""
        if in_flight < SILENT_ABOVE:
            return False
        return now - self._quiet_since > max(SILENT_SECONDS, SILENT_FACTOR * self._slowest)

    def on_sent(self, now: float, in_flight: int) -> None:
        """A request is sent, beside those on the wire."""
        if not in_flight:
            self._quiet_since = now
        self._probing = self.armed

    def on_unsent(self, now: float, chance: float) -> None:
        """A request provably never arrived."""
        self._hold(now, now, chance, 0.0, Cause.UNREACHED)

    def on_lost(self, now: float, sent_at: float, chance: float) -> None:
        """A request went, and no answer came."""
        self._failed(now, sent_at, chance, LOST_IN_A_ROW, 0.0, Cause.UNREACHED)

    def on_away(
        self, now: float, sent_at: float, chance: float, *, retry_after: float | None
    ) -> None:
        """A gateway answered in the vendor's place.

        Args:
            now: seconds.
            sent_at: when the request was sent.
            chance: a number from [0, 1), by which clients don't come back together.
            retry_after: seconds that the answer asks to wait; None where it doesn't. One answer
                that asks is enough for an outage.
        """
        self._quiet_since = now
        enough = AWAY_IN_A_ROW if retry_after is None else 1
        self._failed(now, sent_at, chance, enough, retry_after or 0.0, Cause.ANSWERED)

    def on_heard(self, now: float) -> None:
        """An answer came that says neither that the vendor is there, nor that it is away."""
        self._quiet_since = now

    def on_no_word(self) -> None:
        """A request ended without a word about the vendor: the next one is the probe."""
        self._probing = False

    def on_answer(self, now: float, sent_at: float, seconds: float) -> bool:
        """The vendor itself answered, with any status. Returns whether that ended an outage.

        Args:
            now: seconds.
            sent_at: when the request was sent.
            seconds: how long the answer took.
        """
        self._quiet_since = now
        self._slowest = max(seconds, _FADING * self._slowest)
        if not self._in_a_row and not self.armed:
            self.refuted = False
            return False
        if sent_at < self._first_failed:
            # The request was sent before the first failure, so its answer doesn't end the outage.
            return False
        ended = self.armed
        self._end()
        self.refuted = False
        return ended

    def on_told(self, now: float, until: float, failures: int) -> None:
        """Another process was answered in the vendor's place, or this one is to probe for all.

        Args:
            now: seconds.
            until: when a probe may go; `now` where this process is to probe.
            failures: pauses of the common outage so far.
        """
        if not self.armed:
            self.cause = Cause.TOLD
            self._since = min(self._since, now)
            self._first_failed = min(self._first_failed, now)
        self.lasted = self.lasted or failures > 1
        self.failures = max(self.failures, failures)
        self._until, self.armed = until, True

    def on_told_back(self) -> None:
        """The vendor answered another process. This one's own next request shows the rest."""
        if self.armed:
            self.refuted = self.cause is Cause.ANSWERED
            self._end()

    def _end(self) -> None:
        self.failures = self._in_a_row = 0
        self._since = self._first_failed = math.inf
        self._until = -math.inf
        self._probing = self.armed = False
        self.cause = None

    def hopeless(self, now: float) -> bool:
        """Whether the outage has lasted so long that the caller has to hear of it."""
        return now - self._since > LONGEST_OUTAGE

    def _failed(
        self, now: float, sent_at: float, chance: float, enough: int, pause: float, cause: Cause
    ) -> None:
        self._in_a_row += 1
        self._first_failed = min(self._first_failed, sent_at)
        if self._in_a_row >= enough or self.armed:
            self._hold(now, sent_at, chance, pause, cause)

    def _hold(self, now: float, sent_at: float, chance: float, pause: float, cause: Cause) -> None:
        """Requests that fail together count as one failure."""
        self._probing = False
        self._first_failed = min(self._first_failed, sent_at)
        if now < self._until:
            if now + pause > self._until:
                self._until = now + pause
                self._on_setback(cause)
            return
        self.lasted = self.armed
        self._since = min(self._since, now)
        # At least half the pause: a few small draws in a row would be a busy loop on a dead link.
        self._until = now + max(pause, full_jitter(self.failures, 0.5 + chance / 2))
        self.failures += 1
        self.armed = True
        self._on_setback(cause)

    def _on_setback(self, cause: Cause) -> None:
        self.cause = cause
        self.setbacks += 1
