"""Which of the ends of exports get a line of their own in the log, and what the others add up to.

A run of a few exports has a line for each. A run of 100 000 exports would write seven lines a
second for four hours, which nobody reads and somebody pays for. So a run may write `BURST` lines at
once, and `EACH_WINDOW` lines in each later window; one more line in a window has the counts of the
rest. Exports that failed have lines of their own, so that many exports that went well hide none.
"""

from __future__ import annotations

import math
from collections import Counter

import attrs

#: Lines of one kind that may be written at once.
BURST = 100

#: Lines of one kind in each window after that, and a window's length in seconds.
EACH_WINDOW = 10
WINDOW = 60.0


@attrs.frozen
class Untold:
    """Ends that got no line of their own.

    Attributes:
        counts: how many, by what the caller of `admits` called them.
        seconds: since the first of them.
    """

    counts: Counter[str]
    seconds: float

    @property
    def total(self) -> int:
        return self.counts.total()


class LineLimit:
    """Limits the lines of one run."""

    def __init__(self) -> None:
        self._left: dict[bool, float] = {}
        self._filled_at = -math.inf
        self._untold: Counter[str] = Counter()
        self._untold_since = math.inf

    def admits(self, name: str, *, well: bool, now: float) -> bool:
        """Whether an end gets a line; counted otherwise.

        Args:
            name: by which it is counted.
            well: whether the export went well. Failures have a limit of their own.
            now: seconds.
        """
        left = self._refilled(well, now)
        if left >= 1.0:
            self._left[well] = left - 1.0
            return True
        self._untold[name] += 1
        self._untold_since = min(self._untold_since, now)
        return False

    def due(self, now: float, *, closing: bool = False) -> Untold | None:
        """What got no line, once a window is over, or at the end. None where there is nothing."""
        if not self._untold or (now - self._untold_since < WINDOW and not closing):
            return None
        untold = Untold(self._untold, now - self._untold_since)
        self._untold, self._untold_since = Counter(), math.inf
        return untold

    def _refilled(self, well: bool, now: float) -> float:
        if now > self._filled_at:
            gained = EACH_WINDOW / WINDOW * (now - self._filled_at)
            self._left = {kind: min(BURST, left + gained) for kind, left in self._left.items()}
            self._filled_at = now
        return self._left.get(well, float(BURST))
