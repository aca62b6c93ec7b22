"""Submits wait while their results are unknown, and a list is their probe in an outage."""

from __future__ import annotations

import math

import attrs

from segments_async._sansio.pace.outage import LONGEST_OUTAGE, Cause

#: Submits in a row without a known result (no answer, or none with a readable id) that are taken
#: for an outage and not for chance.
UNKNOWN_IN_A_ROW = 3

#: Seconds that submits are held then. They double with each probe whose result is unknown too, up
#: to the longest: each such probe may be an export that can't be fetched.
FIRST_HOLD = 2.0
LONGEST_HOLD = 300.0

#: The longest where submits are held because their path takes none. Such a probe begins no export.
LONGEST_UNROUTED = 30.0


class SubmitHold:
    """Submits wait while the results of submits are unknown, though polls may pass.

    A POST whose answer is lost, is a gateway's, or has no id in it, may have begun an export that
    runs and can't be fetched. After a few of them in a row, one submit at a time goes as a probe.

    Submits wait in the same way where their path takes none (`submit_route`).
    """

    def __init__(self) -> None:
        self._in_a_row = 0
        self._until = -math.inf
        self._probe: float | None = None
        #: Whether submits are held, but for probes.
        self.armed: bool = False
        #: Pauses so far: each is twice as long as the one before.
        self.failures: int = 0
        #: As in `Outage`.
        self.cause: Cause | None = None
        self.setbacks: int = 0
        self.refuted: bool = False
        #: Whether an outage of all requests has ended, so that a submit may be tried at once.
        self.hurried: bool = False
        #: Since when submits are held because their path takes none, in seconds; inf while it does.
        self._unrouted_since = math.inf

    @property
    def unrouted(self) -> bool:
        """Whether submits are held because their path takes none."""
        return self._unrouted_since < math.inf

    def hopeless(self, now: float) -> bool:
        """Whether that has lasted so long that the caller has to hear of it."""
        return now - self._unrouted_since > LONGEST_OUTAGE

    def next_at(self) -> float:
        """When the next submit may go, in seconds; inf while a probe is on the wire."""
        return math.inf if self._probe is not None else self._until

    def on_sent(self, now: float) -> None:
        """A submit goes."""
        if not self.armed:
            return
        if self.unrouted and now - self._until > LONGEST_OUTAGE:
            # No submit waited meanwhile: that time shows nothing.
            self._unrouted_since = now
        self._probe, self.hurried = now, False

    def on_unknown(
        self,
        now: float,
        sent_at: float,
        *,
        enough: int = UNKNOWN_IN_A_ROW,
        pause: float = 0.0,
        cause: Cause = Cause.ANSWERED,
    ) -> None:
        """It is unknown whether a submit began an export.

        Args:
            now: seconds.
            sent_at: when the submit was sent.
            enough: the number of such submits in a row that holds the others.
            pause: seconds to hold the others at least.
            cause: whether an answer came, and whether it would come to other processes, too.
        """
        self._in_a_row += 1
        if self.armed and sent_at != self._probe:
            # Sent before submits were held.
            if pause and now + pause > self._until:
                self._until = now + pause
                self._on_setback(cause)
            return
        if not self.armed and self._in_a_row < enough:
            return
        self._arm(now, LONGEST_HOLD, pause, cause)

    def on_unrouted(self, now: float, sent_at: float, *, enough: int) -> bool:
        """A submit was answered that its path takes none. Returns whether submits are held now.

        `enough`: the number of such answers in a row that holds the others. One to a probe is
        enough: other processes may have found the rest.
        """
        self._in_a_row += 1
        probe = self.armed and sent_at == self._probe
        if self._in_a_row < enough and not probe:
            return False
        self._unrouted_since = min(self._unrouted_since, now)
        if self.armed and not probe:
            return False  # sent before submits were held
        self._arm(now, LONGEST_UNROUTED, 0.0, Cause.ANSWERED)
        return True

    def _arm(self, now: float, longest: float, pause: float, cause: Cause) -> None:
        self._probe = None
        self.armed = True
        self._until = now + max(pause, min(longest, FIRST_HOLD * 2.0 ** min(self.failures, 30)))
        self.failures += 1
        self._on_setback(cause)

    def on_known(self, sent_at: float) -> None:
        """A submit's answer has an export's id, or refuses the export."""
        if self.armed and sent_at != self._probe:
            return  # sent before submits were held
        self._end()
        self.refuted = False

    def on_no_word(self, sent_at: float) -> None:
        """A granted submit was not acted on, or ended without a word about other submits."""
        if sent_at == self._probe:
            self._probe = None

    def on_vendor_back(self, now: float) -> None:
        """An outage is over: a submit may go as a probe now."""
        if self.armed and self._probe is None:
            self._until, self.failures = now, 0
            self.hurried = True

    def on_told(self, now: float, until: float, failures: int) -> None:  # noqa: ARG002
        """Another process's submits are in vain, or this process is to probe; as in `Outage`."""
        if not self.armed:
            self.armed, self.cause = True, Cause.TOLD
        self.failures = max(self.failures, failures)
        self._until, self.hurried = until, False

    def on_told_back(self) -> None:
        """Another process's submit has an export's id."""
        if self.armed:
            self.refuted = self.cause is Cause.ANSWERED
            self._end()

    def _end(self) -> None:
        self._in_a_row = self.failures = 0
        self.armed = self.hurried = False
        self._probe = self.cause = None
        self._until = -math.inf
        self._unrouted_since = math.inf

    def _on_setback(self, cause: Cause) -> None:
        self.cause = cause
        self.setbacks += 1


#: In an outage a list goes in the place of a submit. After this many failed lists in a row, a
#: submit goes as itself: an account's list may be too long for a gateway, or be another service's,
#: and then it fails though submits would pass. A list that fails in another way than a submit did
#: counts for `UNLIKE_LISTS`, one without an answer for `LOST_LISTS`. Where no submit has failed in
#: this outage, the list may fail as submits would, and counts once. The submit may be an export
#: that is lost, so it takes twice as many failed lists each time.
FAILED_LISTS = 12
UNLIKE_LISTS = 6
LOST_LISTS = 2


@attrs.frozen
class ListCounts:
    """How lists in the place of submits have failed in an outage.

    Attributes:
        failed: lists that failed, as they count.
        enough: the number that lets a submit go as itself.
        submit_status: the status of a gateway's answer to a submit; None where there was none.
    """

    failed: int = 0
    enough: int = 0
    submit_status: int | None = None

    def merged(self, other: ListCounts) -> ListCounts:
        """The counts of two processes together."""
        status = other.submit_status if self.submit_status is None else self.submit_status
        return ListCounts(max(self.failed, other.failed), max(self.enough, other.enough), status)


_NONE_FAILED = ListCounts(enough=FAILED_LISTS)


class ListProbes:
    """Whether a list in the place of a submit still shows that the vendor is away."""

    def __init__(self) -> None:
        #: The failed lists; the process that probes next gets them, too.
        self.counts: ListCounts = _NONE_FAILED

    @property
    def in_vain(self) -> bool:
        """Whether enough lists have failed to make a submit the better probe."""
        return self.counts.failed >= self.counts.enough

    def on_told(self, counts: ListCounts) -> None:
        """Lists of other processes failed, too."""
        self.counts = self.counts.merged(counts)

    def on_submit_failed(self, status: int) -> None:
        """A gateway answered a submit."""
        self.counts = attrs.evolve(self.counts, submit_status=status)

    def on_list_failed(self, status: int | None) -> None:
        """A list in the place of a submit failed; None: without an answer."""
        failed = UNLIKE_LISTS
        if status is None:
            failed = LOST_LISTS
        elif self.counts.submit_status in (None, status):
            failed = 1
        self.counts = attrs.evolve(self.counts, failed=self.counts.failed + failed)

    def on_submit_sent(self) -> None:
        """A submit is sent, not a list in its place."""
        self.counts = attrs.evolve(self.counts, failed=0, enough=2 * self.counts.enough)

    def on_answer(self) -> None:
        """The vendor itself answered a request of any kind."""
        self.counts = _NONE_FAILED
