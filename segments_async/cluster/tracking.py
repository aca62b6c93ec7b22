"""Where the segments of a coordinated run stand, by what the journal has told so far."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import attrs

from segments_async._run.outcomes import field_of
from segments_async._run.request import RunRequest
from segments_async._sansio.jobs.batches import BatchView, is_final
from segments_async._sansio.jobs.decisions import left_outcome, named, recorded_outcome
from segments_async._sansio.jobs.record import NEW, ExportRecord
from segments_async._sansio.jobs.run_state import ACTIVE, PLACES
from segments_async.models import Segment
from segments_async.results import Exported, Outcome

if TYPE_CHECKING:
    from segments_async._journal.coordination import News


class Tracking:
    """The segments of one run.

    Attributes:
        segments: of the run, by id; None where only the id is known.
        records: of those that have events.
        told: the segments whose outcomes were told.
        counts: by the fields of `Progress`, and the bytes of the files.
    """

    def __init__(self, run: str, request: RunRequest) -> None:
        self._run = run
        self._options = request.options
        self.segments: dict[str, Segment | None] = dict(request.segments)
        self.records: dict[str, ExportRecord] = {}
        self.told: set[str] = set()
        self.counts: Counter[str] = Counter()
        self._part_of: dict[str, int] = {}
        self._members: dict[int, list[str]] = {}
        self._settled: Collection[int] = ()
        self._owners: Mapping[int, str] = {}
        self._locked: Collection[int] = ()
        self._looked = False
        #: Ends of earlier sessions, whose files were in place before.
        self._earlier: set[str] = set()

    def add(self, segment_ids: Iterable[str]) -> None:
        """Add segments that other processes brought."""
        for segment_id in segment_ids:
            self.segments.setdefault(segment_id, None)

    def apply(self, news: News) -> list[Outcome]:
        """Take what the journal has now. Returns new outcomes."""
        records = news.records
        self.add(news.claimed)
        for segment_id, part_id in news.claimed.items():
            if segment_id not in self._part_of:  # after an error they are read once more
                self._part_of[segment_id] = part_id
                self._members.setdefault(part_id, []).append(segment_id)
        self.records.update(records)
        new = [one for one in news.settled if one not in self._settled]
        self._settled, self._owners, self._locked = news.settled, news.owners, news.locked
        if not self._looked:
            self._looked = True
            self._earlier = {i for i, record in records.items() if record.file is not None}
        ended = dict.fromkeys(i for i in records if is_final(self.records[i], self._options))
        ended |= dict.fromkeys(i for one in new for i in self._members.get(one, ()))
        return [self._tell(i, self._recorded(i)) for i in ended if i not in self.told]

    def give_up(self, segment_ids: Iterable[str], reason: str) -> list[Outcome]:
        """Tell the rest of these segments as unfinished."""
        rest = [i for i in segment_ids if i not in self.told]
        return [self._tell(i, self._left(i, reason)) for i in rest]

    def close(self) -> list[Outcome]:
        """Tell the rest of a run that has ended: segments that were never part of it."""
        return [self._tell(i, self._recorded(i)) for i in list(self.untold)]

    # ----------------------------------------------------------------- questions

    @property
    def untold(self) -> Iterator[str]:
        """The segments that have no outcome yet."""
        return (i for i in self.segments if i not in self.told)

    @property
    def has_told_all(self) -> bool:
        """Whether each segment has an outcome."""
        return next(self.untold, None) is None

    @property
    def at_work(self) -> Iterator[str]:
        """The live processes that have parts of the run."""
        return (self._owners[one] for one in self._locked if one in self._owners)

    def view(self, segment_ids: Iterable[str]) -> BatchView:
        """A batch of these segments, as the journal has it."""
        unsettled = [i for i in segment_ids if self._part_of.get(i) not in self._settled]
        found = {self._part_of[i] for i in unsettled if i in self._part_of}
        return BatchView(
            unsettled=len(unsettled),
            untold=sum(i not in self.told for i in unsettled),
            owners=frozenset(self._owners[one] for one in found if one in self._owners),
            locked=any(one in self._locked for one in found),
        )

    def is_free(self, segment_id: str) -> bool:
        """Whether the segment has to be worked at, and no live process has its part."""
        part = self._part_of.get(segment_id)
        return part is None or (part not in self._settled and part not in self._locked)

    def is_settled(self, segment_id: str) -> bool:
        """Whether the segment's part was worked through."""
        return self._part_of.get(segment_id) in self._settled

    def under_way(self) -> Iterator[tuple[str, ExportRecord]]:
        """The exports under way, the latest first."""
        for segment_id in reversed(self.records):
            record = self.records[segment_id]
            if segment_id not in self.told and record.state in ACTIVE:
                yield segment_id, record

    def places(self) -> Counter[str]:
        """How many segments without an outcome count in which field of `Progress`."""
        states = (self.records.get(i, NEW).state for i in self.untold)
        return Counter(PLACES.get(state, "waiting") for state in states)

    # ----------------------------------------------------------------- outcomes

    def _recorded(self, segment_id: str) -> Outcome:
        record = self.records.get(segment_id, NEW)
        found = recorded_outcome(segment_id, record, run=self._run)
        new = segment_id not in self._earlier
        if isinstance(found, Exported) and found.source == "resumed" and new:
            return attrs.evolve(found, source="exported")
        return named(found, self.segments.get(segment_id))

    def _left(self, segment_id: str, reason: str) -> Outcome:
        record = self.records.get(segment_id, NEW)
        outcome = left_outcome(segment_id, record, reason=reason, run=self._run)
        return named(outcome, self.segments.get(segment_id))

    def _tell(self, segment_id: str, outcome: Outcome) -> Outcome:
        self.told.add(segment_id)
        self.counts[field_of(outcome)] += 1
        if isinstance(outcome, Exported) and outcome.source == "exported":
            self.counts["bytes"] += outcome.file.size
        return outcome
