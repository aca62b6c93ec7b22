"""Whether a request may be sent now, and the effect of its result on later requests.

Five parts may delay a request. `Admission` asks all of them before each request:

* `PollScheduler`: which of the queued requests is next, and its earliest time;
* `SubmitHold`: submits wait while the results of the last ones are unknown;
* `TicketGuard`: after a 500 nothing is sent for a minute or more;
* `Outage`: while the vendor can't be reached, one request at a time goes as a probe;
* `Pacer`: the account's rate.

The result of every request goes to the same parts:

==========================  =========  ==============  =============  =================
the result                  pacer      outage          guard's probe  hold of submits
==========================  =========  ==============  =============  =================
2xx or 4xx of the vendor    accepted   over            passed         by `on_judged`
202, 204 to a poll, empty   accepted   no word         passed         no word
429                         throttled  over            not passed     no word: not done
429, taken for a cap        no word    over            not passed     no word: not done
500                         accepted   over            armed again    by `on_judged`
a gateway's (`is_away`)     no answer  one failure     not passed     unknown
no answer, may have left    no answer  one failure     not passed     unknown
no answer, never left       no answer  begins at once  not passed     no word: not done
unreadable: size, coding    no answer  over            not passed     by `on_judged`
cut off by its caller       no answer  no word         not passed     no word
not sent (`on_released`)    no answer  no word         the next one   no word: not done
==========================  =========  ==============  =============  =================

*No word*: the result is no evidence for this part. *Not done*: the vendor did not act on a submit.

408, 421 and 425 to a submit are no word about submits either: the vendor did nothing. Nor is 404: a
gateway without a route to the API answers 404, too. So a 404 to a list, and in an outage a 404 to
any request, counts as a gateway's answer. `submit_route` has 404 and 405 to submits.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Generic

from segments_async._sansio.api.retry_after import retry_after_seconds
from segments_async._sansio.api.wire import (
    ABSENT,
    LIST_PATH,
    NOT_NOW,
    UNROUTED,
    ApiAnswer,
    ApiRequest,
    is_away,
    is_not_yet,
)
from segments_async._sansio.pace.absence import Absence
from segments_async._sansio.pace.backoff import TicketGuard
from segments_async._sansio.pace.grant import Grant, Wait
from segments_async._sansio.pace.hold import NOTABLE, Hold
from segments_async._sansio.pace.limit_headers import read_hint
from segments_async._sansio.pace.notice import (
    GRANTED,
    GUARD_PASSED,
    JOB_CAP_FOUND,
    THROTTLED,
    TICKET_RAISED,
    VENDOR_BACK,
    Level,
    Notice,
    PaceEvent,
)
from segments_async._sansio.pace.outage import AWAY_IN_A_ROW, Cause, Outage
from segments_async._sansio.pace.outage_news import OutageNews
from segments_async._sansio.pace.pacer import Pacer
from segments_async._sansio.pace.scheduler import Kind, PollScheduler, QueuedRequest, Target
from segments_async._sansio.pace.shared_outage import OwnOutage
from segments_async._sansio.pace.submit_hold import ListProbes, SubmitHold
from segments_async._sansio.pace.submit_route import SubmitRoute
from segments_async.errors import APIConnectionError
from segments_async.results import HeldReason

#: A client takes the turn to probe for all processes if it has a request within this many seconds.
PROBE_SOON = 1.0


class Admission(Generic[Target]):
    """One client's slots, queued requests, and everything that may delay them.

    Args:
        pacer: the account's, which several clients may share.
        slots: requests on the wire at once, at most.
        timeout: seconds that one request may take.
    """

    def __init__(
        self, pacer: Pacer, scheduler: PollScheduler[Target], *, slots: int, timeout: float
    ) -> None:
        self._pacer = pacer
        self.scheduler: PollScheduler[Target] = scheduler
        self._slots = slots
        self._timeout = timeout
        self.guard: TicketGuard = TicketGuard()
        self.outage: Outage = Outage()
        self._submit_hold = SubmitHold()
        self._list_probes = ListProbes()
        #: What the account's other processes are told, and tell.
        self.news: OutageNews = OutageNews(
            self.outage, self._submit_hold, self._list_probes, self.guard
        )
        #: This client's name among the processes of its account.
        self.member: str = ""
        #: Submits sent so far.
        self.submits: int = 0
        #: Slots that no request has now.
        self.free: int = slots
        #: Answers of 429, and answers that granted the request, whatever else they said.
        self.throttled: int = 0
        self.granted: int = 0
        #: Answers to polls of 404, and with success.
        self.absent_polls: Absence = Absence()
        #: What the answers to submits say about their path.
        self.submit_route: SubmitRoute = SubmitRoute(self._submit_hold)
        self._cap_told = math.inf
        self._poll_told_nothing = False

    def next(self, now: float) -> Grant[Target] | Wait:
        """Grant the next request, or say when one may go."""
        self.scheduler.submits_held_until = self._submits_held_until()
        wanted = self.scheduler.next_at(now)
        if wanted > now or self.free == 0:
            # Nothing is due, or the pacer isn't what delays it. A freed slot asks again.
            self._pacer.on_idle()
            return Wait(wanted if self.free else math.inf)
        if self.guard.armed or self.outage.armed:
            held = max(self.guard.next_at(), self.outage.next_at())
            if held > now:
                self._pacer.on_idle()
                return Wait(held)
        if self.outage.is_silent(now, self._slots - self.free):
            # The next answer, or the next request whose time is over, asks again.
            self._pacer.on_idle()
            return Wait(math.inf)
        at = self._pacer.next_at()
        if at > now:
            self._pacer.on_waiting()
            return Wait(at, paced=True)
        polls_first = self.outage.armed and not self._poll_told_nothing
        queued = self.scheduler.pop(now, harmless=self.guard.armed or polls_first)
        if queued is None:
            raise AssertionError("the scheduler said that a request is due")
        return self._grant(queued, now)

    def own_outages(self, now: float) -> Mapping[str, OwnOutage]:
        """What this client knows of the vendor's outages."""
        submits = self.scheduler.submit_is_due(now)
        others = self.scheduler.next_at(now) <= now + PROBE_SOON
        return self.news.own(now, self.member, submits=submits, others=others)

    def hold(self, now: float) -> Hold | None:
        """What delays requests, queued or not, by more than their turn; None where nothing does."""
        if (at := self.guard.next_at()) > now:
            return Hold(HeldReason.TICKET_GUARD, at)
        if (at := self.outage.next_at()) > now:
            return Hold(HeldReason.VENDOR_AWAY, at)
        if self.outage.is_silent(now, self._slots - self.free):
            return Hold(HeldReason.VENDOR_AWAY, math.inf)
        at, blocked = self._pacer.next_at(), self._pacer.blocked
        if blocked or at - now >= NOTABLE:
            shared = self._pacer.share.divided and not blocked
            return Hold(HeldReason.SHARED_LIMIT if shared else HeldReason.RATE_LIMIT, at)
        return self.scheduler.submit_hold(now)

    def _grant(self, queued: QueuedRequest[Target], now: float) -> Grant[Target]:
        in_flight = self._slots - self.free
        self.free -= 1
        submit = queued.kind is Kind.SUBMIT
        instead = submit and (
            queued.suspect or (self.outage.armed and not self._submit_probes(now))
        )
        if submit and not instead:
            self.submits += 1
            self._submit_hold.on_sent(now)
            if self.outage.armed:
                self._list_probes.on_submit_sent()
        self.outage.on_sent(now, in_flight)
        epoch, guard_probe = self._pacer.take(now), self.guard.on_sent()
        return Grant(queued, now, epoch, guard_probe, instead)

    def _submit_probes(self, now: float) -> bool:
        """Whether a submit, not a list in its place, is sent though the vendor seems away."""
        return self._list_probes.in_vain and self._submit_hold.next_at() <= now

    def _submits_held_until(self) -> float:
        """When the hold of submits ends; -inf in an outage, when lists go in their place."""
        return -math.inf if self.outage.armed else self._submit_hold.next_at()

    def on_answer(
        self, grant: Grant[Target], request: ApiRequest, answer: ApiAnswer, chance: float
    ) -> Notice | None:
        """A whole answer came, at `answer.at`. `chance` is a number from [0, 1)."""
        self.free += 1
        unrouted = self.submit_route.on_answer(grant.queued, grant.at, request, answer)
        self._note_absence(grant, request, answer)
        not_yet = grant.kind is Kind.POLL and is_not_yet(answer)
        if _is_gateways(request, answer, not_yet=not_yet, outage=self.outage.armed):
            return self._on_away(grant, request, answer, chance)
        back: Notice | None = None
        if not_yet:
            self.outage.on_heard(answer.at)
        else:
            back = self._on_vendor_there(answer.at, grant)
        notice: Notice | None
        if answer.status == 429:
            notice = self._on_throttled(grant, request, answer, chance)
        else:
            notice = self._on_granted(grant, answer)
        return self._on_guarded(grant, request, answer) or notice or unrouted or back

    def _on_guarded(
        self, grant: Grant[Target], request: ApiRequest, answer: ApiAnswer
    ) -> Notice | None:
        """A 500 arms the ticket guard; the answer to the guard's probe may end it."""
        if answer.status == 500:
            self.guard.on_internal_error(answer.at)
            pause = max(0.0, self.guard.next_at() - answer.at)
            arguments = (request.method, request.path)
            return Notice(
                PaceEvent.TICKET_RAISED, Level.WARNING, TICKET_RAISED, arguments, pause=pause
            )
        if not grant.guard_probe:
            return None
        passed = answer.status < 500 and answer.status != 429
        self.guard.on_probe_answer(answer.at, passed=passed)
        return Notice(PaceEvent.GUARD_PASSED, Level.INFO, GUARD_PASSED) if passed else None

    def _note_absence(self, grant: Grant[Target], request: ApiRequest, answer: ApiAnswer) -> None:
        poll, submit = grant.kind is Kind.POLL, request.body is not None
        absence = self.absent_polls if poll else self.submit_route.absent
        if answer.status in ABSENT and (poll or submit):
            absence.on_absent(answer.at)
        elif 200 <= answer.status <= 299 and not is_away(answer) and not grant.instead:
            absence.on_success(grant.at, itself=poll or submit)

    def _on_granted(self, grant: Grant[Target], answer: ApiAnswer) -> Notice | None:
        was_blocked = self._pacer.blocked
        self.granted += answer.status not in NOT_NOW
        self.scheduler.on_granted(grant.kind)
        self._pacer.on_accepted(answer.at, grant.epoch, read_hint(answer.headers))
        if not was_blocked or self._pacer.blocked:
            return None
        rate = self._pacer.rate
        return Notice(
            PaceEvent.GRANTED, Level.INFO, GRANTED, (f"{rate or math.inf:.3g}",), rate=rate
        )

    def on_broken(
        self, now: float, grant: Grant[Target], error: APIConnectionError, chance: float
    ) -> Notice:
        """No whole answer came; `error.sent` says whether the request may have left."""
        self.free += 1
        self._on_no_answer(now, grant, chance)
        if error.sent:
            self.outage.on_lost(now, grant.at, chance)
            if grant.instead:
                self._list_probes.on_list_failed(None)
            if grant.kind is Kind.SUBMIT:
                self._submit_hold.on_unknown(now, grant.at, cause=Cause.UNREACHED)
        else:
            self.outage.on_unsent(now, chance)
            self._submit_hold.on_no_word(grant.at)
        pause = self.outage.next_at() - now
        event = PaceEvent.VENDOR_AWAY
        if pause > 0:
            # The text of the error, not the error: a record of the log may be kept or sent on.
            arguments = (str(error), pause)
            return Notice(
                event, Level.WARNING, "%s; no request is sent for %.1f s", arguments, delay=pause
            )
        return Notice(event, Level.INFO, "%s", (str(error),))

    def on_unreadable(self, now: float, grant: Grant[Target], chance: float) -> None:
        """The answer was too large, or in a coding that isn't read; its status was a success."""
        self.free += 1
        self._on_no_answer(now, grant, chance)
        self._on_vendor_there(now, grant)
        self.granted += 1

    def on_cut_off(self, now: float, grant: Grant[Target], chance: float) -> None:
        """The request's caller was cancelled, or an error of the caller's own ended the request."""
        self.free += 1
        self._on_no_answer(now, grant, chance)
        self._submit_hold.on_no_word(grant.at)

    def on_released(self, now: float, grant: Grant[Target], chance: float) -> None:
        """The request was not sent. The grant is used up all the same."""
        self.free += 1
        self._pacer.on_lost(now, grant.epoch, chance)
        self.outage.on_no_word()
        self._submit_hold.on_no_word(grant.at)
        if grant.guard_probe:
            self.guard.on_probe_unsent()

    def on_judged(self, now: float, grant: Grant[Target], *, known: bool) -> None:
        """The answer to a submit was read: whether it has an export's id, or refuses the export."""
        if known:
            self._submit_hold.on_known(grant.at)
        else:
            self._submit_hold.on_unknown(now, grant.at)

    def _on_vendor_there(self, now: float, grant: Grant[Target]) -> Notice | None:
        """The vendor itself answered, with any status."""
        self._list_probes.on_answer()
        seconds = now - grant.at
        # A request that took longer than its timeout waited for a connection pool, or this process
        # stood still. That isn't the vendor's time to answer.
        slow = seconds if seconds < self._timeout else 0.0
        if not self.outage.on_answer(now, grant.at, slow):
            return None
        if self.outage.lasted:
            self._submit_hold.on_vendor_back(now)
        return Notice(PaceEvent.VENDOR_BACK, Level.INFO, VENDOR_BACK)

    def _on_away(
        self, grant: Grant[Target], request: ApiRequest, answer: ApiAnswer, chance: float
    ) -> Notice:
        """A gateway answered in the vendor's place: no request was granted, and none refused."""
        now = answer.at
        self._on_no_answer(now, grant, chance)
        # This may be the vendor's own word. A list tells; another poll would be answered alike.
        self._poll_told_nothing = grant.kind is Kind.POLL and is_not_yet(answer)
        asked = retry_after_seconds(answer.status, answer.headers)
        self.outage.on_away(now, grant.at, chance, retry_after=asked)
        if grant.instead:
            self._list_probes.on_list_failed(answer.status)
        elif request.body is not None:
            self._list_probes.on_submit_failed(answer.status)
        if request.body is not None and answer.status not in NOT_NOW | UNROUTED:
            self._submit_hold.on_unknown(now, grant.at, enough=AWAY_IN_A_ROW, pause=asked or 0.0)
        pause = max(0.0, self.outage.next_at() - now)
        then = f"; nothing is sent for {pause:.1f} s, and one probe then" if pause else ""
        text = "%s %s: answered %d, not by the vendor itself%s"
        level = Level.WARNING if pause > 0 else Level.INFO
        arguments = (request.method, request.path, answer.status, then)
        return Notice(PaceEvent.VENDOR_AWAY, level, text, arguments, delay=pause or None)

    def _on_throttled(
        self, grant: Grant[Target], request: ApiRequest, answer: ApiAnswer, chance: float
    ) -> Notice:
        now = answer.at
        pause = retry_after_seconds(answer.status, answer.headers)
        asked = "" if pause is None else f", asked to wait {pause:g} s"
        self.throttled += 1
        if self.scheduler.on_refused(now, grant.kind, retry_after=pause, rate=self._pacer.rate):
            # The rate was not exceeded: the vendor has no room for another export.
            self._pacer.on_mistaken(now, self.scheduler.cap.rate_before)
            # The same cap is met again whenever one more export was tried.
            known, self._cap_told = self._cap_told, self.scheduler.cap.jobs
            level = Level.DEBUG if known == self._cap_told else Level.INFO
            found = (asked, self._cap_told)
            return Notice(PaceEvent.JOB_CAP, level, JOB_CAP_FOUND, found, delay=pause)
        was_blocked = self._pacer.blocked
        self._pacer.on_throttled(now, grant.epoch, retry_after=pause, chance=chance)
        # The requests on the wire may all be answered 429: the first one changes the pace.
        changed = self._pacer.blocked and not was_blocked
        level = Level.INFO if changed else Level.DEBUG
        arguments = (request.method, request.path, asked)
        delay = max(0.0, self._pacer.next_at() - now)
        return Notice(PaceEvent.THROTTLED, level, THROTTLED, arguments, delay=delay)

    def _on_no_answer(self, now: float, grant: Grant[Target], chance: float) -> None:
        self._pacer.on_lost(now, grant.epoch, chance)
        self.outage.on_no_word()
        if grant.guard_probe:
            self.guard.on_probe_answer(now, passed=False)


def _is_gateways(request: ApiRequest, answer: ApiAnswer, *, not_yet: bool, outage: bool) -> bool:
    """Whether a gateway answered. In an outage, the vendor's usual answers may be a gateway's."""
    if answer.status in UNROUTED:
        return outage or request.path == LIST_PATH
    return is_away(answer) and (outage or not not_yet)
