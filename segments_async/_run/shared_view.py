"""What others see of one process's session of a shared run: its progress, and the whole run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Generic, cast

import attrs

from segments_async._run.outcomes import Outcomes, field_of
from segments_async._run.pace_watch import PaceWatch
from segments_async._run.parts import Parts
from segments_async._run.recorder import MemoryLog
from segments_async._run.request import RunRequest
from segments_async._run.resources import Resources
from segments_async._sansio.jobs.decisions import left_outcome, named, recorded_outcome
from segments_async._sansio.jobs.history import RunHistory, Times
from segments_async._sansio.jobs.journal_outage import JournalLooks
from segments_async._sansio.jobs.record import NEW, ExportRecord
from segments_async.results import (
    Activity,
    Held,
    HeldReason,
    NotExported,
    Outcome,
    OutcomeT,
    Progress,
)

if TYPE_CHECKING:
    from segments_async._journal.shared_log import SharedRunLog
    from segments_async._journal.shared_rows import Recorded


@attrs.define(eq=False, repr=False)
class SharedSessionView(Generic[OutcomeT]):
    """What others see of one process's session of a shared run.

    Args:
        outcomes: of the segments that this process works at.
        unclaimed: whether segments are left that this process may claim.

    Attributes:
        pace: of this process over time.
        idle: whether this process had nothing to do at its last look at the journal, and other
            processes had.
    """

    _name: str
    _resources: Resources
    _request: RunRequest
    _shared: SharedRunLog
    _outcomes: Outcomes[OutcomeT]
    _parts: Parts[OutcomeT]
    _unclaimed: Callable[[], bool]
    _looks: JournalLooks
    idle: bool = False
    _records: dict[str, ExportRecord] = attrs.field(factory=dict[str, ExportRecord])
    _requests_before: int = attrs.field(init=False)
    _throttled_before: int = attrs.field(init=False)
    pace: PaceWatch = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        gate = self._resources.gate
        self._requests_before, self._throttled_before = gate.requests, gate.throttled
        self.pace = PaceWatch(gate, MemoryLog(), lambda: self.progress().held)

    async def whole(self) -> tuple[list[OutcomeT | NotExported], Progress]:
        """The outcomes of all processes, as far as they are recorded, and their counts.

        Raises:
            JournalError: the journal can't be read.
        """
        own = {outcome.segment_id for outcome in self._outcomes.told}
        recorded = await self._shared.whole()
        self._records = {one.segment_id: one.record for one in recorded}
        others = [one for one in recorded if one.segment_id not in own]
        known = own.union(one.segment_id for one in others)
        outcomes: list[Outcome] = [*cast(list[Outcome], self._outcomes.told)]
        outcomes += map(self._recorded, others)
        outcomes += [
            recorded_outcome(one, NEW, run=self._name)
            for one in self._request.segments
            if one not in known
        ]
        counts = Counter(map(field_of, outcomes))
        progress = attrs.evolve(
            self.progress(),
            total=len(outcomes),
            waiting=0,
            pending=0,
            fetching=0,
            exported=counts["exported"],
            unchanged=counts["unchanged"],
            not_exported=counts["not_exported"],
            eta_seconds=0.0,
            held=None,
        )
        return cast(list[OutcomeT | NotExported], outcomes), progress

    def history(self) -> RunHistory:
        """When the exports of all processes moved on, as `whole` read it, and this one's pace."""
        return RunHistory(
            times={one: Times.of(record) for one, record in self._records.items()},
            pace=self.pace.points,
            destination=self._request.directory,
        )

    def _recorded(self, one: Recorded) -> Outcome:
        """The outcome of a segment of another process, by the journal's record of it.

        The file isn't looked at: it may be on another machine.
        """
        if one.settled:
            outcome = recorded_outcome(one.segment_id, one.record, run=self._name)
        else:
            reason = f"unfinished when this process left run {self._name}"
            outcome = left_outcome(one.segment_id, one.record, reason=reason, run=self._name)
        return named(outcome, self._request.segments.get(one.segment_id))

    def progress(self) -> Progress:
        """How far this process is with the segments that it has claimed, now."""
        live = [session.view.progress() for session in self._parts]
        gate, ended = self._resources.gate, self._parts.ended
        fields = ("waiting", "pending", "fetching", "exported", "unchanged", "not_exported")
        counts = {
            name: ended[name] + sum(int(getattr(one, name)) for one in live) for name in fields
        }
        estimates = [one.eta_seconds for one in live]
        known = [one for one in estimates if one is not None]
        ages = [one.oldest_link_age for one in live if one.oldest_link_age is not None]
        over = self._outcomes.finished.is_set()
        finished = over or len(known) == len(estimates) > 0
        return Progress(
            total=sum(counts.values()),
            **counts,
            bytes=ended["bytes"] + sum(one.bytes for one in live),
            requests=gate.requests - self._requests_before,
            throttled=gate.throttled - self._throttled_before,
            rate=gate.rate,
            oldest_link_age=max(ages, default=None),
            eta_seconds=max(known, default=0.0) if finished and not self._unclaimed() else None,
            held=None if over else self._held(counts),
        )

    def _held(self, counts: Mapping[str, int]) -> Held | None:
        held = self._resources.held(
            counts, journal_away=self._looks.away, place=self._request.destination
        )
        if held is None and self.idle and not self._parts.live:
            return Held(reason=HeldReason.OTHER_PROCESSES)
        return held

    def activity(self, limit: int) -> list[Activity]:
        """At most `limit` exports under way, those of the newest part first."""
        newest = reversed(list(self._parts))
        return [one for session in newest for one in session.view.activity(limit)][:limit]
