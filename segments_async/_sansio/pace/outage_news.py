"""What one client knows of the outages and of the 500s that other processes met."""

from __future__ import annotations

import math
from collections.abc import Mapping

from segments_async._sansio.pace.backoff import TicketGuard
from segments_async._sansio.pace.outage import Cause, Outage
from segments_async._sansio.pace.shared_outage import (
    GRACE,
    NO_LISTS,
    REQUESTS,
    SUBMITS,
    Agreed,
    GuardNews,
    OwnOutage,
    Word,
)
from segments_async._sansio.pace.submit_hold import ListCounts, ListProbes, SubmitHold


class KnownOutage:
    """What one client knows of one common outage.

    Args:
        held: the client's outage, or its hold of submits.
        outage: the client's. A process that others have refuted about all requests is no witness
            about submits either.
    """

    def __init__(self, held: Outage | SubmitHold, outage: Outage) -> None:
        self._held = held
        self._outage = outage
        self._known: str = ""
        self._version: str = ""
        self._row_due_at = self._row_seen_at = -math.inf
        self._turn = False
        self._setbacks = 0
        self._since = math.inf

    @property
    def has_news(self) -> bool:
        """Whether this client knows something that the journal doesn't have."""
        held = self._held
        if held.armed:
            reports = held.cause is Cause.ANSWERED and not self._refuted
            return held.setbacks != self._setbacks and (reports or self._turn)
        return bool(self._known)

    @property
    def _refuted(self) -> bool:
        return self._held.refuted or self._outage.refuted

    def look_at(self, now: float) -> float:
        """When to look at the journal next, in seconds; inf where nothing is held in common."""
        if not self._known:
            return math.inf
        # While another process has the turn, its answer may come at any time.
        return now if self._turn else self._row_due_at

    def own(
        self,
        now: float,
        member: str,
        *,
        wants: bool,
        lists: ListCounts = NO_LISTS,
        hurried: bool = False,
    ) -> OwnOutage:
        """The client's present state."""
        held = self._held
        self._since = min(self._since, now) if held.armed else math.inf
        at = held.next_at()
        return OwnOutage(
            member=member,
            armed=held.armed,
            cause=held.cause,
            fresh=held.setbacks != self._setbacks,
            due=0.0 if math.isinf(at) else at - now,
            lasts=now - self._since if held.armed else 0.0,
            failures=held.failures,
            lists=lists,
            known=self._known,
            version=self._version,
            row_due=self._row_due_at - now,
            row_age=now - self._row_seen_at,
            # While a probe is on the wire, none is to be sent.
            wants=wants and at < math.inf,
            refuted=self._refuted,
            hurried=hurried,
            setbacks=held.setbacks,
        )

    def took(self, now: float, own: OwnOutage, agreed: Agreed) -> bool:
        """Adopt the result of a look. Returns whether that changes what may be sent.

        Args:
            now: seconds.
            own: the state that the look began with.
            agreed: the result.
        """
        held, row = self._held, agreed.row
        self._setbacks = own.setbacks
        if row is None:
            self._known = self._version = ""
            self._row_due_at, self._turn = -math.inf, False
        else:
            if row.version != self._version:
                self._version = row.version
                self._row_due_at, self._row_seen_at = now + row.due, now
            self._known, self._turn = row.name, row.turn
        if held.setbacks != own.setbacks or held.armed != own.armed:
            return False  # an answer came meanwhile: the next look tells of it
        if agreed.word is Word.BACK:
            held.on_told_back()
            return True
        if row is not None and agreed.word is Word.PROBE:
            held.on_told(now, now, row.failures)
            return True
        if row is not None and agreed.word is Word.HOLD and (row.due > 0 or not held.armed):
            held.on_told(now, self._row_due_at + GRACE, row.failures)
            return not own.armed
        return False


class OutageNews:
    """What one client knows of the account's other processes, apart from the limit."""

    def __init__(
        self,
        outage: Outage,
        submit_hold: SubmitHold,
        list_probes: ListProbes,
        guard: TicketGuard,
    ) -> None:
        self._outage = outage
        self._submit_hold = submit_hold
        self._list_probes = list_probes
        self._guard = guard
        self._guard_version = ""
        self._outages = {
            REQUESTS: KnownOutage(outage, outage),
            SUBMITS: KnownOutage(submit_hold, outage),
        }

    @property
    def has_news(self) -> bool:
        """Whether this client knows something that the journal doesn't have."""
        return any(known.has_news for known in self._outages.values())

    def look_at(self, now: float) -> float:
        """When to look at the journal next, in seconds; inf where nothing is held in common."""
        return min(known.look_at(now) for known in self._outages.values())

    def own(
        self, now: float, member: str, *, submits: bool, others: bool
    ) -> Mapping[str, OwnOutage]:
        """The client's present state, by the names of the outages.

        Args:
            now: seconds.
            member: the client's name among the account's processes.
            submits: whether submits wait to be sent.
            others: whether other requests wait.
        """
        outage, hold = self._outage, self._submit_hold
        requests, known = submits or others, self._outages
        return {
            REQUESTS: known[REQUESTS].own(
                now, member, wants=requests, lists=self._list_probes.counts
            ),
            # In an outage of all requests a list goes in the place of a submit.
            SUBMITS: known[SUBMITS].own(
                now, member, wants=submits and not outage.armed, hurried=hold.hurried
            ),
        }

    def took(
        self, now: float, own: Mapping[str, OwnOutage], agreed: Mapping[str, Agreed]
    ) -> Mapping[str, Word]:
        """Adopt the results of a look. Returns the words that change what may be sent."""
        changes: dict[str, Word] = {}
        for what, one in agreed.items():
            if self._outages[what].took(now, own[what], one):
                changes[what] = one.word
            if what == REQUESTS and one.word is Word.PROBE and one.row is not None:
                self._list_probes.on_told(one.row.lists)
        return changes

    def restore_guard(self, now: float, news: GuardNews | None) -> bool:
        """Heed, before the first request, a 500 that an earlier process received, or another one.

        Where the pause is over, the first request is a probe. Returns whether there was a 500.
        """
        if news is None:
            return False
        self._guard_version = news.version
        if not self._guard.on_told(now, now + news.left, news.pause):
            self._guard.restore(now + min(0.0, news.left), news.pause)
        return True

    def took_guard(self, now: float, news: GuardNews | None) -> bool:
        """Heed a 500 that another process received. Returns whether the guard changed."""
        version = "" if news is None else news.version
        if version == self._guard_version:
            return False
        self._guard_version = version
        if news is None:
            return self._guard.on_told_passed()
        return self._guard.on_told(now, now + news.left, news.pause)
