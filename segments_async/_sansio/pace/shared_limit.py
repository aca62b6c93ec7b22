"""How the processes of one account divide its limit between them.

The journal has a sum for all of them. Each process finds by itself the rate that the vendor grants
it, and adds that rate to the sum; if it finds another rate later, the sum changes by the
difference. So the sum is the account's limit, and each process in which a request waits has an
equal part of the sum. A process that ended or was killed counts no more, and the others go faster
at once. A new process begins with its part, without a search.

In simulation (benchmarks/shared_limit.py) four processes take 1.00 to 1.02 times the least time,
where processes that know nothing of each other take 1.08 to 1.8 times it.

A minute after the last report the sum belongs to no process. It stays in the journal as the
remembered limit, at which a later process starts until it has found the limit by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from segments_async._sansio.pace.interval import LOWEST_RATE
from segments_async._sansio.pace.shared_outage import (
    Agreed,
    CommonOutage,
    GuardNews,
    News,
    OwnOutage,
)

if TYPE_CHECKING:
    from segments_async._sansio.pace.admission import Admission
    from segments_async._sansio.pace.pacer import Pacer

#: A part that differs by less from the present one changes nothing: each change ends the interval
#: that the pacer is measuring.
WORTH_A_CHANGE = 0.1

#: A remembered limit below this many requests/s isn't used: a search for the limit takes seconds,
#: and growth from so low a rate takes minutes.
LEAST_REMEMBERED = 0.5

#: One report lowers the sum to this part of itself at most, as one 429 does with one pacer's rate.
DEEPEST_CUT = 0.85


@attrs.frozen
class GroupView:
    """The reports of all processes of the account together.

    Attributes:
        limit: the sum, in requests/s; None where no process has found a rate.
        others: the other processes in which a request waits now.
        epoch: the sum's name. A sum that was forgotten had another one, and its reports aren't in
            this sum.
        learnt: the remembered limit, in requests/s, where `limit` is None; None where no limit is
            remembered.
        alive: the other processes that reported lately, whether a request waits in them or not.
        news: what the processes tell each other besides.
    """

    limit: float | None
    others: int
    epoch: str
    learnt: float | None = None
    alive: int = 0
    news: News = attrs.field(factory=News)


@attrs.frozen
class Report:
    """The report that one process writes to the journal.

    Attributes:
        limit: the sum with this process's rate, in requests/s; None where none is known.
        part: this process's part, in requests/s; None while it goes by its own rate.
        waits: whether this process counts among those in which a request waits.
        epoch: the sum's name.
        remembered: the limit is a remembered one.
        outages: the vendor's outages that change, by their names; None: the outage is over.
    """

    limit: float | None
    part: float | None
    waits: bool
    epoch: str
    remembered: bool = False
    outages: Mapping[str, CommonOutage | None] = attrs.field(factory=dict[str, CommonOutage | None])


@attrs.frozen
class Own:
    """The measurements of one process.

    Attributes:
        found: requests/s that its pacer believes are granted; None: none yet.
        reported: requests/s that the sum has from this process; None before its first report.
        reported_to: the epoch of that sum.
        alone: whether this process goes by its own rate and reports none: it is in a block, the
            caller gave its rate, or it has got 429s and no estimate yet.
        waits: whether a request waited for the pacer since the last report.
        from_memory: whether the reported rate is a remembered one.
        passing: requests/s that were accepted while the pacer sought the limit, without any 429;
            None where there was no such time.
    """

    found: float | None
    reported: float | None
    reported_to: str
    alone: bool
    waits: bool
    from_memory: bool = False
    passing: float | None = None

    def tell(self, group: GroupView) -> Report:
        """The report of this process; `group` is what all processes know."""
        parts = 1 + group.others
        learnt = group.learnt
        remembers = self.found is None and group.limit is None and learnt is not None
        if remembers and not self.alone and learnt is not None and learnt >= LEAST_REMEMBERED:
            return Report(learnt, learnt / parts, self.waits, group.epoch, remembered=True)
        if self.alone or (self.found is None and group.limit is None):
            waits = self.waits and self.reported is not None
            return Report(group.limit, None, waits, group.epoch)
        limit = max(LOWEST_RATE * parts, self._with_found(group))
        return Report(limit, limit / parts, self.waits, group.epoch)

    def _with_found(self, group: GroupView) -> float:
        limit = group.limit or 0.0
        if self.found is None:
            # Where processes start together, the first to find a rate finds it beside the others'
            # requests. That rate, divided by all, would be far below the limit for minutes.
            return limit + (self.passing or 0.0 if self.reported is None else 0.0)
        reported = self.reported if self.reported_to == group.epoch else None
        if self.from_memory and reported is not None and self.found < reported:
            # The remembered limit was too high, for the others too.
            return min(limit, self.found * (1 + group.others))
        # Processes that lost sight of each other may have reported the same part. If a 429 cuts all
        # of them, each subtracts its whole cut from the sum. `DEEPEST_CUT` bounds the fall.
        return max(DEEPEST_CUT * limit, limit + self.found - min(reported or 0.0, limit))


class Partner(Protocol):
    """A run of one of the clients that have one pacer."""

    @property
    def admission(self) -> Admission[Any]:
        """The admission of the run's client."""
        ...

    def took(self, own: Mapping[str, OwnOutage], agreed: Mapping[str, Agreed]) -> None:
        """Adopt the result of a look at the journal for the run's client."""
        ...

    def took_guard(self, guard: GuardNews | None) -> None:
        """Heed a 500 that another process received."""
        ...


class Share:
    """One process's part in the limit, which its pacer holds for all clients and runs."""

    def __init__(self) -> None:
        #: This process's name among those of the account; empty before its first exchange.
        self.member: str = ""
        #: Whether one of the runs makes the exchanges for all.
        self.exchanging: bool = False
        #: Whether the last exchange failed, and a warning was logged.
        self.failing: bool = False
        #: Other processes that reported lately, as of the last exchange.
        self.alive: int = 0
        #: The runs with a journal, by their parts of the exchanges.
        self.partners: list[Partner] = []
        #: Called where a client has news for the other processes; None while nothing is shared.
        self.wake: Callable[[], None] | None = None
        #: Whether other processes have parts of the limit too.
        self.divided: bool = False
        self._reported: float | None = None
        self._reported_to = ""
        self._new = True
        self._from_memory = False

    def own(self, pacer: Pacer, *, leaves: bool = False) -> Own:
        """The present measurements of this process; `took` is called once they are reported.

        Args:
            pacer: the pacer that holds this share.
            leaves: this process will send no more requests.
        """
        waits = (pacer.take_waited() or self._new) and not leaves
        self._new = False
        seeks = pacer.granted is None and pacer.throttled > 0
        alone = pacer.blocked or not pacer.learns or seeks
        return Own(
            pacer.granted,
            self._reported,
            self._reported_to,
            alone,
            waits,
            from_memory=self._from_memory,
            passing=pacer.passing,
        )

    def took(self, pacer: Pacer, own: Own, report: Report) -> bool:
        """The report is written: adopt its part. Returns whether the pace changed."""
        self.divided = report.part is not None and report.part < (report.limit or 0.0)
        if report.part is None:
            return False
        self._reported = report.part if own.found is None else own.found
        self._reported_to = report.epoch
        self._from_memory = report.remembered
        near = own.found is not None and abs(report.part / own.found - 1) <= WORTH_A_CHANGE
        if near or pacer.blocked or pacer.granted != own.found:
            return False  # a rate found meanwhile is reported first
        processes = round((report.limit or report.part) / report.part)
        pacer.on_share(report.part, remembered=report.remembered, processes=processes)
        self._reported = pacer.granted
        return True
