"""When a batch of a shared run is given to an executor, given again, and given up: pure functions.

An executor may lose a task in many ways: its process is killed, the pool breaks, a scheduler
cancels the task or reports it as lost while it runs on, or the future never ends. So a future is
only a hint. The journal decides: a batch is done when each of its segments has ended, and a batch
has a live process while a part with one of its segments is locked. A batch that is given to the
executor once too often does no harm: the second task finds the parts locked, or takes them over.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum, auto
from typing import TypeVar

import attrs

from segments_async._sansio.jobs.lifecycle import ENDS
from segments_async._sansio.jobs.record import ExportRecord, RunOptions, resume_events

#: Seconds after which a batch without a live process, whose future has not ended, is given to the
#: executor again: between the end of a process and the end of its future there are milliseconds in
#: a pool, and seconds in a cluster.
LOST_AFTER = 10.0

#: Attempts in a row that may end before a process has begun the batch. A batch that waits for a
#: process to end another batch is lost with that process, through no fault of its own.
MOST_UNBEGUN = 12

#: Seconds between two attempts that come to nothing, from the second on: the first pause, which
#: doubles, and the longest. A pool is started anew in seconds, a machine in minutes.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 30.0

T = TypeVar("T")


class Step(Enum):
    """The next step of a batch."""

    WAIT = auto()
    DONE = auto()
    SUBMIT = auto()
    GIVE_UP = auto()


@attrs.frozen
class BatchView:
    """A batch, as the journal has it.

    Attributes:
        unsettled: its segments whose parts are not worked through.
        untold: those of them that have no outcome yet.
        owners: the processes that opened the parts of the unsettled segments last.
        locked: whether a live process has a part with one of its unsettled segments.
    """

    unsettled: int
    untold: int
    owners: frozenset[str]
    locked: bool


@attrs.define
class Attempts:
    """The attempts at one batch.

    Args:
        retries: how often the batch is tried again after its process died without ending a segment.

    Attributes:
        deaths: attempts in a row that began, and ended no segment.
        unbegun: attempts in a row that did not begin, or whose process left the run.
    """

    retries: int
    deaths: int = 0
    unbegun: int = 0
    _untold: int = 0
    _owners: frozenset[str] = frozenset()
    _alone_since: float | None = None
    _again_at: float | None = None
    _left: bool = False

    def start(self, view: BatchView) -> None:
        """The batch is given to the executor."""
        self._untold, self._owners = view.untold, view.owners
        self._alone_since = self._again_at = None
        self._left = False

    def on_left(self) -> None:
        """The process left the run, through no fault of the batch.

        It was told to end, or it didn't see the coordinator: a database server that ends its
        sessions takes the coordinator's lock away for a moment.
        """
        self._left = True

    def step(self, view: BatchView, now: float, *, ended: bool) -> Step:
        """The next step of a batch that was given to the executor.

        Args:
            now: seconds.
            ended: whether the executor says that the task has ended, with a result or without.
        """
        if not view.unsettled:
            return Step.DONE
        if view.locked:
            self._alone_since = None
            return Step.WAIT
        if self._again_at is None:
            if not ended and not self._is_lost(view, now):
                return Step.WAIT
            if self._is_hopeless(view):
                return Step.GIVE_UP
            self._again_at = now + self._pause()
        return Step.SUBMIT if now >= self._again_at else Step.WAIT

    def _is_lost(self, view: BatchView, now: float) -> bool:
        """Whether a process began, is gone, and the future doesn't know."""
        if not self._has_begun(view):
            return False  # it waits for its turn
        if self._alone_since is None:
            self._alone_since = now
        return now - self._alone_since >= LOST_AFTER

    def _is_hopeless(self, view: BatchView) -> bool:
        """Count an attempt that has ended. Returns whether the batch is given up."""
        if view.untold < self._untold:
            self.deaths = self.unbegun = 0
        elif self._has_begun(view) and not self._left:
            self.deaths, self.unbegun = self.deaths + 1, 0
        else:
            self.unbegun += 1
        return self.deaths > self.retries or self.unbegun > MOST_UNBEGUN

    def _has_begun(self, view: BatchView) -> bool:
        """Whether a process has opened a part of the batch in this attempt."""
        return view.owners != self._owners

    def _pause(self) -> float:
        vain = max(self.deaths, self.unbegun)
        return 0.0 if vain < 2 else min(_LONGEST_PAUSE, _FIRST_PAUSE * 2.0 ** (vain - 2))


def batches(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """The items in batches of at most this size, in order."""
    for start in range(0, len(items), size):
        yield items[start : start + size]


def is_final(record: ExportRecord, options: RunOptions) -> bool:
    """Whether no process of the run changes the export's end, even one that goes on with the part.

    An end that a later process may go on from is final only when the whole part has been worked
    through.
    """
    return record.state in ENDS and not resume_events(record, options)
