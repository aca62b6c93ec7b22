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
from collections.abc import Collection, Sequence

import attrs

from segments_async._sansio.pace.backoff import MOST_INTERNAL_ERRORS

#: Segments of one claim: fewer cost more commits than the exports themselves, more are too many to
#: be held up by one slow process, and too many rows for one transaction.
LEAST_CLAIM, MOST_CLAIM = 20, 2000

#: A process claims again when fewer exports wait than it submits in so many seconds.
SECONDS_AHEAD = 5.0


@attrs.frozen
class PartView:
    """A part that has not ended, as the journal has it.

    Attributes:
        run_id: of the part's own run.
        round: in which it is worked at.
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
        """The parts that somebody works at, or has to."""
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


def starts_round(view: SharedView, *, unclaimed: int) -> bool:
    """Whether a process that joins begins another round.

    Args:
        view: of the shared run.
        unclaimed: segments of earlier starts that no part has.
    """
    if view.ended or any(part.locked for part in view.parts):
        return False
    over = bool(view.parts) and not view.open_parts and not unclaimed
    return over or view.stopped


def claim_size(unclaimed: int, processes: int) -> int:
    """How many segments a process claims at once.

    Half of an equal share, so that all processes come to their ends at about the same time.
    """
    share = math.ceil(unclaimed / (2 * max(1, processes)))
    return min(unclaimed, max(LEAST_CLAIM, min(MOST_CLAIM, share)))


def wants_more(waiting: int, submitted: float) -> bool:
    """Whether a process claims again.

    Args:
        waiting: its exports that wait to be submitted.
        submitted: exports per second that it has submitted lately.
    """
    return waiting < max(LEAST_CLAIM / 2, SECONDS_AHEAD * submitted)
