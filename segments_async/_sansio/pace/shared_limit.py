"""How the processes of one account divide its limit between them.

Each finds by itself what the vendor grants it, and adds that to the sum that all keep together;
what it finds later changes the sum by the difference. So the sum is the account's limit, whoever
found how much of it, and everybody who waits gets an equal part. A process that is done, or was
killed, counts no more, and the others go faster at once; a new one begins with its part, and
needn't find anything.

In simulation (benchmarks/shared_limit.py) four processes take 1.00 to 1.02 times the least time,
where processes that know nothing of each other take 1.08 to 1.8 times it.

A minute after the last process spoke, the sum is nobody's any more. It stays as what a later
process starts at, until that one has found the limit by itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from segments_async._sansio.pace.interval import LOWEST_RATE

if TYPE_CHECKING:
    from segments_async._sansio.pace.pacer import Pacer

#: A part that differs by less from the one that is there changes nothing: each change ends what
#: the pacer is measuring.
WORTH_A_CHANGE = 0.1

#: Requests/s below which a remembered limit isn't gone by: to seek the limit takes seconds, and to
#: grow from so low a rate takes minutes.
LEAST_REMEMBERED = 0.5

#: The sum falls to this part of itself at most when one tells what it found: one 429 teaches a
#: pacer no more than that either.
DEEPEST_CUT = 0.85


@attrs.frozen
class GroupView:
    """What all processes know.

    Attributes:
        limit: requests/s that they found together; None where none has found any.
        others: how many others wait for their part now.
        sum_id: of the sum. What was told for another one, which is forgotten, isn't in this.
        learnt: requests/s of the account that processes found which are all gone, where `limit` is
            None and such a limit is remembered.
    """

    limit: float | None
    others: int
    epoch: str
    learnt: float | None = None


@attrs.frozen
class Report:
    """What one process tells the others.

    Attributes:
        limit: requests/s of the account, with what it found; None where it knows of none.
        part: of it, that is this process's; None while it goes by what it finds itself.
        waits: whether it is to be counted among those that wait.
        sum_id: of the sum that it is in.
        remembered: the limit is one that processes found which are all gone.
    """

    limit: float | None
    part: float | None
    waits: bool
    epoch: str
    remembered: bool = False


@attrs.frozen
class Own:
    """What one process has to tell.

    Attributes:
        found: requests/s that its pacer believes are granted to it; None: none yet.
        told: of these, how many the sum has in it; None before it told any.
        told_to: which sum.
        alone: whether it goes by what it finds itself, and tells nothing: it is being refused
            right now, was told its rate by the caller, or has been refused and found nothing yet.
        waits: whether anybody waited for the pacer since it told last.
        from_memory: what it told is what was remembered, and not what it found.
    """

    found: float | None
    report: float | None
    told_to: str
    alone: bool
    waits: bool
    from_memory: bool = False

    def tell(self, group: GroupView) -> Report:
        """What to tell, now that this is what all know."""
        parts = 1 + group.others
        learnt = group.learnt
        remembers = self.found is None and group.limit is None and learnt is not None
        if remembers and not self.alone and learnt is not None and learnt >= LEAST_REMEMBERED:
            return Report(learnt, learnt / parts, self.waits, group.epoch, remembered=True)
        if self.alone or (self.found is None and group.limit is None):
            waits = self.waits and self.report is not None
            return Report(group.limit, None, waits, group.epoch)
        limit = max(LOWEST_RATE * parts, self._with_found(group))
        return Report(limit, limit / parts, self.waits, group.epoch)

    def _with_found(self, group: GroupView) -> float:
        limit = group.limit or 0.0
        if self.found is None:
            return limit
        report = self.report if self.told_to == group.epoch else None
        if self.from_memory and report is not None and self.found < report:
            # The memory was wrong, and wrong for the others, too.
            return min(limit, self.found * (1 + group.others))
        # Several may have told the same part, as each did that took over from one it lost sight
        # of. If all are cut then, each would take it off the sum.
        return max(DEEPEST_CUT * limit, limit + self.found - min(report or 0.0, limit))


class Share:
    """One process's part in the limit, which its pacer holds for all clients and runs."""

    def __init__(self) -> None:
        #: This process's name among those of the account; empty before its first exchange.
        self.member: str = ""
        #: Runs with a journal, and whether one of them makes the exchanges for all.
        self.runs: int = 0
        self.exchanging: bool = False
        #: Whether the last exchange failed, and a warning was logged.
        self.failing: bool = False
        self._told: float | None = None
        self._told_to = ""
        self._new = True
        self._from_memory = False

    def own(self, pacer: Pacer, *, leaves: bool = False) -> Own:
        """What there is to tell now; `took` follows once it is told.

        Args:
            pacer: that finds and keeps the part.
            leaves: this process will send nothing more.
        """
        waits = (pacer.take_waited() or self._new) and not leaves
        self._new = False
        seeks = pacer.granted is None and pacer.throttled > 0
        alone = pacer.blocked or not pacer.learns or seeks
        return Own(
            pacer.granted, self._told, self._told_to, alone, waits, from_memory=self._from_memory
        )

    def took(self, pacer: Pacer, own: Own, report: Report) -> bool:
        """The others know it: go by this part from now on. Returns whether the pace changed."""
        if report.part is None:
            return False
        self._told = report.part if own.found is None else own.found
        self._told_to = report.epoch
        self._from_memory = report.remembered
        near = own.found is not None and abs(report.part / own.found - 1) <= WORTH_A_CHANGE
        if near or pacer.blocked or pacer.granted != own.found:
            return False  # what was found meanwhile is told first
        pacer.on_share(report.part, remembered=report.remembered)
        self._told = pacer.granted
        return True
