"""While the vendor can't be reached, or isn't there, every request waits; no patience is spent.

Three things tell of it: name resolution or connecting fails; requests go and no answer comes; a
gateway answers in the vendor's place (`verdict.is_away`). Each concerns the whole client, not one
export. So one backoff holds all; then a single harmless request goes (a poll, or the list), and
the first answer of the vendor's own ends it.

A vendor that takes requests and answers none is worse: each POST that goes there ends as unknown.
So when answers stop coming, sending stops, long before the first request has run out of time.
"""

from __future__ import annotations

import math

from segments_async._sansio.pace.backoff import full_jitter

#: After this many seconds without any answer, what was not submitted yet is given back to the
#: caller, who may know that the network is down or the host's name wrong.
LONGEST_OUTAGE = 600.0

#: Answers lost in a row, with none between them, that are no accident of one connection; and
#: answers of a gateway, which says so itself.
LOST_IN_A_ROW = 3
AWAY_IN_A_ROW = 2

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
        self._in_a_row = 0
        self._since = math.inf
        self._until = -math.inf
        self._probing = False
        self._quiet_since = -math.inf
        self._slowest = 0.0
        #: Requests sent before this say nothing of how things are now: when the request was sent
        #: that failed first.
        self._first_failed = math.inf
        #: Whether the next request goes alone.
        self.armed: bool = False
        #: Whether it has outlasted a probe, so that it was no accident.
        self.lasted: bool = False

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
            retry_after: seconds that the answer asks to wait; None where it asks for none. Where
                it does, one such answer is enough.
        """
        self._quiet_since = now
        enough = AWAY_IN_A_ROW if retry_after is None else 1
        self._failed(now, sent_at, chance, enough, retry_after or 0.0)

    def on_no_word(self) -> None:
        """A request came to nothing for a reason of our own: the next one is the probe."""
        self._probing = False

    def on_answer(self, now: float, sent_at: float, seconds: float) -> bool:
        """The vendor itself answered, whatever it said. Returns whether that ended an outage.

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
            # On its way since before the first failure: it says how things were.
            return False
        ended = self.armed
        self._failures = self._in_a_row = 0
        self._since = self._first_failed = math.inf
        self._until = -math.inf
        self._probing = self.armed = False
        return ended

    def hopeless(self, now: float) -> bool:
        """Whether it has lasted longer than waiting in silence is a service to the caller."""
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
        # At least half the pause: a streak of lucky draws would be a busy loop on a dead link.
        self._until = now + max(pause, full_jitter(self._failures, 0.5 + chance / 2))
        self._failures += 1
        self.armed = True


#: Submits in a row of which nobody knows what became of them that are no accident: where no answer
#: came, or none that could be read; and where a gateway said so.
UNKNOWN_IN_A_ROW = 3

#: Seconds that submits are held then, doubling with each probe that comes to the same, up to the
#: longest. Each probe may be an export that nobody can fetch.
FIRST_HOLD = 2.0
LONGEST_HOLD = 300.0


class SubmitHold:
    """Submits wait while what becomes of them can't be known, though polls may pass.

    Each POST whose answer is lost, is a gateway's, or has no id in it, may be an export that runs
    and that nobody can fetch. After a few in a row, one at a time is enough.
    """

    def __init__(self) -> None:
        self._in_a_row = 0
        self._armed = False
        self._until = -math.inf
        self._pause = FIRST_HOLD
        self._probe: float | None = None

    def next_at(self) -> float:
        """When the next submit may go; never, while the one that shows it is under way."""
        return math.inf if self._probe is not None else self._until

    def on_sent(self, now: float) -> None:
        """A submit goes."""
        if self._armed:
            self._probe = now

    def on_unknown(
        self, now: float, sent_at: float, *, enough: int = UNKNOWN_IN_A_ROW, pause: float = 0.0
    ) -> None:
        """Nobody knows what became of a submit that was sent at `sent_at`.

        Args:
            now: seconds.
            sent_at: when it was sent.
            enough: so many in a row hold the others.
            pause: seconds to hold them at least.
        """
        self._in_a_row += 1
        if self._armed and sent_at != self._probe:
            # Sent before the others were held.
            self._until = max(self._until, now + pause)
            return
        if self._in_a_row < enough:
            return
        self._probe = None
        self._armed = True
        self._until = now + max(pause, self._pause)
        self._pause = min(LONGEST_HOLD, 2 * self._pause)

    def on_known(self, sent_at: float) -> None:
        """A submit's answer says what became of it."""
        if self._armed and sent_at != self._probe:
            return  # sent before the others were held
        self._in_a_row = 0
        self._armed, self._probe = False, None
        self._until, self._pause = -math.inf, FIRST_HOLD

    def on_no_word(self, sent_at: float) -> None:
        """A submit that was granted came to nothing for a reason that says nothing of others."""
        if sent_at == self._probe:
            self._probe = None

    def on_vendor_back(self, now: float) -> None:
        """The vendor was away altogether, and answers again: one submit shows whether all may."""
        if self._armed and self._probe is None:
            self._until, self._pause = now, FIRST_HOLD


#: So many lists that fail in a row, asked for in the place of a submit, say less and less of the
#: submit: an account's list may be too long for a gateway, or another service's. A list that fails
#: in another way than the submit did counts for more of them, and so does one without an answer.
#: The submit that goes then may be an export that is lost, so each time it takes twice as many.
FAILED_LISTS = 12
UNLIKE_LISTS = 6
LOST_LISTS = 2


class ListProbes:
    """Whether a list in the place of a submit still shows whether the vendor is there."""

    def __init__(self) -> None:
        self._enough = FAILED_LISTS
        self._failed = 0
        self._submit_status: int | None = None

    @property
    def in_vain(self) -> bool:
        """Whether a submit is the better probe by now."""
        return self._failed >= self._enough

    def on_submit_failed(self, status: int) -> None:
        """A gateway answered a submit with this status."""
        self._submit_status = status

    def on_list_failed(self, status: int | None) -> None:
        """A list failed: with this status, or without an answer."""
        if status is None:
            self._failed += LOST_LISTS
        else:
            self._failed += 1 if status == self._submit_status else UNLIKE_LISTS

    def on_submit_sent(self) -> None:
        """A submit goes in spite of it."""
        self._failed = 0
        self._enough *= 2

    def on_answer(self) -> None:
        """The vendor itself answered, whatever was asked."""
        self._enough, self._failed = FAILED_LISTS, 0
