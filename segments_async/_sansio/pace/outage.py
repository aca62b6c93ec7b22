"""While the vendor can't be reached, every request waits, and no export fails because of it.

An outage shows in three ways: name resolution or connecting fails; requests go and no answer comes;
a gateway answers in the vendor's place (`wire.is_away`). Each concerns the whole client, not one
export. So one backoff delays all requests. Then a single harmless request goes (a poll, or a list)
as a probe, and the first answer of the vendor's own ends the outage.

A vendor that takes requests and answers none is worse: each POST that goes there ends as unknown.
So when answers stop coming, sending stops, long before the first request's time is over.
"""

from __future__ import annotations

import math

from segments_async._sansio.pace.backoff import full_jitter

#: After so many seconds of an outage, the exports that are not submitted yet end as resumable: the
#: caller may know that the network is down, or that the host's name is wrong.
LONGEST_OUTAGE = 600.0

#: So many lost answers in a row are no accident of one connection; fewer of a gateway's answers
#: are, since a gateway says itself that the vendor is away.
LOST_IN_A_ROW = 3
AWAY_IN_A_ROW = 2

#: With so many requests on the wire, and no answer for `SILENT_FACTOR` times the slowest of the
#: latest answers and at least `SILENT_SECONDS`, no more requests are sent. The next answer lets all
#: go on, so a vendor that only hesitates costs nothing.
SILENT_ABOVE = 4
SILENT_FACTOR = 3.0
SILENT_SECONDS = 0.25

#: The slowest answer's time is forgotten by this factor with each answer that took less.
_FADING = 0.98


class Outage:
    """Consecutive failures to reach the vendor, or to hear from it."""

    def __init__(self) -> None:
        self._failures = 0
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
        """A request goes, besides those on the wire."""
        if not in_flight:
            self._quiet_since = now
        self._probing = self.armed

    def on_unsent(self, now: float, chance: float) -> None:
        """A request provably never arrived."""
        self._hold(now, now, chance, 0.0)

    def on_lost(self, now: float, sent_at: float, chance: float) -> None:
        """A request went, and no answer came."""
        self._failed(now, sent_at, chance, LOST_IN_A_ROW, 0.0)

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
        self._failed(now, sent_at, chance, enough, retry_after or 0.0)

    def on_no_word(self) -> None:
        """A request ended without a word about the vendor: the next one is the probe."""
        self._probing = False

    def on_answer(self, now: float, sent_at: float, seconds: float) -> bool:
        """The vendor itself answered, with any status. Returns whether that ended an outage.

        Args:
            now: seconds.
            sent_at: when the request was sent.
            seconds: that the answer took.
        """
        self._quiet_since = now
        self._slowest = max(seconds, _FADING * self._slowest)
        if not self._in_a_row and not self.armed:
            return False
        if sent_at < self._first_failed:
            # Sent before the first failure: the answer says how things were then.
            return False
        ended = self.armed
        self._failures = self._in_a_row = 0
        self._since = self._first_failed = math.inf
        self._until = -math.inf
        self._probing = self.armed = False
        return ended

    def hopeless(self, now: float) -> bool:
        """Whether the outage has lasted so long that the caller has to hear of it."""
        return now - self._since > LONGEST_OUTAGE

    def _failed(self, now: float, sent_at: float, chance: float, enough: int, pause: float) -> None:
        self._in_a_row += 1
        self._first_failed = min(self._first_failed, sent_at)
        if self._in_a_row >= enough or self.armed:
            self._hold(now, sent_at, chance, pause)

    def _hold(self, now: float, sent_at: float, chance: float, pause: float) -> None:
        """Requests that fail together count as one failure."""
        self._probing = False
        self._first_failed = min(self._first_failed, sent_at)
        if now < self._until:
            self._until = max(self._until, now + pause)
            return
        self.lasted = self.armed
        self._since = min(self._since, now)
        # At least half the pause: a few small draws in a row would be a busy loop on a dead link.
        self._until = now + max(pause, full_jitter(self._failures, 0.5 + chance / 2))
        self._failures += 1
        self.armed = True


#: So many submits in a row without a known result are no accident: no answer came, or none with a
#: readable id.
UNKNOWN_IN_A_ROW = 3

#: Seconds that submits are held then. They double with each probe whose result is unknown too, up
#: to the longest: each such probe may be an export that can't be fetched.
FIRST_HOLD = 2.0
LONGEST_HOLD = 300.0


class SubmitHold:
    """Submits wait while the results of submits are unknown, though polls may pass.

    A POST whose answer is lost, is a gateway's, or has no id in it, may have begun an export that
    runs and can't be fetched. After a few of them in a row, one submit at a time goes as a probe.
    """

    def __init__(self) -> None:
        self._in_a_row = 0
        self._armed = False
        self._until = -math.inf
        self._pause = FIRST_HOLD
        self._probe: float | None = None

    def next_at(self) -> float:
        """When the next submit may go, in seconds; inf while a probe is on the wire."""
        return math.inf if self._probe is not None else self._until

    def on_sent(self, now: float) -> None:
        """A submit goes."""
        if self._armed:
            self._probe = now

    def on_unknown(
        self, now: float, sent_at: float, *, enough: int = UNKNOWN_IN_A_ROW, pause: float = 0.0
    ) -> None:
        """It is unknown whether a submit began an export.

        Args:
            now: seconds.
            sent_at: when the submit was sent.
            enough: so many such submits in a row hold the others.
            pause: seconds to hold the others at least.
        """
        self._in_a_row += 1
        if self._armed and sent_at != self._probe:
            # Sent before submits were held.
            self._until = max(self._until, now + pause)
            return
        if self._in_a_row < enough:
            return
        self._probe = None
        self._armed = True
        self._until = now + max(pause, self._pause)
        self._pause = min(LONGEST_HOLD, 2 * self._pause)

    def on_known(self, sent_at: float) -> None:
        """A submit's answer has an export's id, or refuses the export."""
        if self._armed and sent_at != self._probe:
            return  # sent before submits were held
        self._in_a_row = 0
        self._armed, self._probe = False, None
        self._until, self._pause = -math.inf, FIRST_HOLD

    def on_no_word(self, sent_at: float) -> None:
        """A granted submit was not acted on, or ended without a word about other submits."""
        if sent_at == self._probe:
            self._probe = None

    def on_vendor_back(self, now: float) -> None:
        """An outage is over: a submit may go as a probe now."""
        if self._armed and self._probe is None:
            self._until, self._pause = now, FIRST_HOLD


#: In an outage a list goes in the place of a submit. After so many failed lists in a row, a submit
#: goes as itself: an account's list may be too long for a gateway, or be another service's, and
#: then it fails though submits would pass. A list that fails in another way than the submit did
#: counts for `UNLIKE_LISTS`, one without an answer for `LOST_LISTS`. The submit may be an export
#: that is lost, so it takes twice as many failed lists each time.
FAILED_LISTS = 12
UNLIKE_LISTS = 6
LOST_LISTS = 2


class ListProbes:
    """Whether a list in the place of a submit still shows that the vendor is away."""

    def __init__(self) -> None:
        self._enough = FAILED_LISTS
        self._failed = 0
        self._submit_status: int | None = None

    @property
    def in_vain(self) -> bool:
        """Whether so many lists failed that a submit is the better probe."""
        return self._failed >= self._enough

    def on_submit_failed(self, status: int) -> None:
        """A gateway answered a submit."""
        self._submit_status = status

    def on_list_failed(self, status: int | None) -> None:
        """A list in the place of a submit failed; None: without an answer."""
        if status is None:
            self._failed += LOST_LISTS
        else:
            self._failed += 1 if status == self._submit_status else UNLIKE_LISTS

    def on_submit_sent(self) -> None:
        """A submit, and no list in its place, is sent."""
        self._failed = 0
        self._enough *= 2

    def on_answer(self) -> None:
        """The vendor itself answered a request of any kind."""
        self._enough, self._failed = FAILED_LISTS, 0
