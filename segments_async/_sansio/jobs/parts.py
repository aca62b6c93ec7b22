"""How the processes of one shared run divide its segments: pure functions.

A shared run is divided into *parts*. Each part is an ordinary run of the journal, with a log and a
lock of its own. A process claims segments for a new part of its own, works at the part, and claims
again before it runs out of exports to submit. A part whose process has died is taken over.

The shared run has *rounds*. A part that was worked through and has exports left that a later start
may try again (a refused POST, a download that failed) is *left*: no process of this round takes it
up again, or all of them would try it in turn, for ever. The round is over when every part has ended
or is left. The next start of the run begins another round, in which the left parts are worked at.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence

import attrs

from segments_async._sansio.pace.backoff import MOST_INTERNAL_ERRORS

#: Segments of one claim. Smaller claims cost more commits than the exports themselves; of a larger
#: one, a slow process delays too many segments, and the transaction has too many rows.
LEAST_CLAIM, MOST_CLAIM = 20, 2000

#: The first claim of a process, which doesn't know yet how fast it submits.
FIRST_CLAIM = 200

#: A later claim has as many segments as the process submits, at its present rate, in the time that
#: it has worked at the run, and in this many seconds at most. Processes that start one after
#: another don't see how many they will be, and each one that joins slows the others down. Of 100
#: that shared 100 000 segments at 1 000 requests/s, the first 17 claimed 2 000 each while they were
#: few. They then submitted alone for as long again as all together, while the others spent their
#: parts of the limit on polls.
CLAIM_SECONDS = 120.0

#: A process claims again when fewer exports wait than it submits in this many seconds.
SECONDS_AHEAD = 5.0

#: Seconds for which a process leaves a part alone after another one took it: a live process has
#: the part, even if its lock can't be seen. Doubled each time, up to the longest.
LEFT_ALONE, LONGEST_LEFT_ALONE = 2.0, 60.0


@attrs.frozen
class PartView:
    """A part that has not ended, as the journal has it.

    Attributes:
        run_id: of the part's own run.
        round: the round that the part is worked at in.
        left: whether it was worked through in that round.
        locked: whether a live process has it.
        member: the process that opened it last.
    """

    run_id: int
    round: int
    left: bool
    locked: bool
    member: str


@attrs.frozen
class SharedView:
    """A shared run, as the journal has it.

    Attributes:
        ended: whether all of its parts have ended, and its end is written.
        round: the present one.
        internal_errors: answers of 500 to all processes in this round.
        parts: those that have not ended.
    """

    ended: bool
    round: int
    internal_errors: int
    parts: Sequence[PartView]

    @property
    def stopped(self) -> bool:
        """Whether the run has had as many answers of 500 as one run may: each raises a ticket."""
        return self.internal_errors >= MOST_INTERNAL_ERRORS

    @property
    def open_parts(self) -> Sequence[PartView]:
        """The parts that have not been worked through in this round."""
        return [part for part in self.parts if not part.left]

    def orphans(self, mine: Collection[int]) -> list[int]:
        """The run ids of the parts whose processes are gone; `mine`: those of this process."""
        return [p.run_id for p in self.open_parts if not p.locked and p.run_id not in mine]

    def is_over(self, round_: int) -> bool:
        """Whether a process that joined in this round has no more parts to wait for."""
        return self.ended or self.round > round_ or not self.open_parts

    def processes(self, member: str) -> int:
        """How many processes work at the run, this one (`member`) included."""
        return len({member, *(part.member for part in self.parts if part.locked)})


def starts_round(view: SharedView, *, unclaimed: Callable[[], int]) -> bool:
    """Whether a process that joins begins another round.

    Args:
        unclaimed: how many segments of earlier starts no part has. Asked only where this decides:
            it is a question about every segment of the run.
    """
    if view.ended or any(part.locked for part in view.parts):
        return False
    return view.stopped or (bool(view.parts) and not view.open_parts and not unclaimed())


def most_by_pace(submitted: float, worked: float) -> int:
    """The most segments that a process may claim at once, by its own pace.

    Args:
        submitted: exports per second that this process has submitted lately.
        worked: seconds for which this process has worked at the run.
    """
    return math.ceil(max(FIRST_CLAIM, min(CLAIM_SECONDS, worked) * submitted))


def claim_size(unclaimed: int, processes: int, most: int = FIRST_CLAIM) -> int:
    """How many segments a process claims at once.

    Half of an equal share, so that all processes come to their ends at about the same time.

    Args:
        unclaimed: segments that no part has.
        processes: those that work at the run, this one included.
        most: see `most_by_pace`.
    """
    share = math.ceil(unclaimed / (2 * max(1, processes)))
    return min(unclaimed, max(LEAST_CLAIM, min(MOST_CLAIM, share, most)))


def wants_more(waiting: int, submitted: float) -> bool:
    """Whether a process claims again.

    Args:
        waiting: its exports that wait to be submitted.
        submitted: exports per second that it has submitted lately.
    """
    return waiting < max(LEAST_CLAIM / 2, SECONDS_AHEAD * submitted)


class LostParts:
    """The parts that other processes took from this one.

    Where locks can't be seen, every process takes every part from the others again and again, and
    none of them has a part for long enough to write the end of a download.
    """

    def __init__(self) -> None:
        self._lost: dict[int, tuple[int, float]] = {}

    def add(self, run_id: int, now: float, chance: float) -> None:
        """Another process took this part. `chance` is a number from [0, 1)."""
        times, _ = self._lost.get(run_id, (0, 0.0))
        pause = min(LONGEST_LEFT_ALONE, LEFT_ALONE * 2.0**times)
        self._lost[run_id] = times + 1, now + pause * (0.5 + chance)

    def left_alone(self, now: float) -> set[int]:
        """The parts that this process doesn't take over now."""
        return {run_id for run_id, (_, until) in self._lost.items() if now < until}
