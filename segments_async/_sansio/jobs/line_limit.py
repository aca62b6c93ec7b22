"""Which of the ends of exports get a line of their own in the log, and what the others add up to.

A run of a few exports has a line for each. A run of 100 000 exports would write seven lines a
second for four hours: too many to read, and each is paid for. So a run may write `BURST` lines at
once, and `EACH_WINDOW` lines in each later window; one more line in a window has the counts of the
rest. Exports that failed have lines of their own, and so have cancelled calls: many exports that
went well hide none of them.
"""

from __future__ import annotations

import math
from collections import Counter

import attrs

#: Lines of one kind that may be written at once.
BURST = 100

#: Lines of one kind in each later window, and a window's length in seconds.
EACH_WINDOW = 10
WINDOW = 60.0


@attrs.frozen
class Untold:
    """Ends that got no line of their own.

    Attributes:
        counts: how many, by the `name` given to `admits`.
        seconds: from the first of them to the last.
    """

    counts: Counter[str]
    seconds: float

    @property
    def total(self) -> int:
        return self.counts.total()


class LineLimit:
    """Limits the lines of one run."""

    def __init__(self) -> None:
        self._left: dict[str, float] = {}
        self._filled_at = -math.inf
        self._untold: Counter[str] = Counter()
        self._first = self._last = math.inf

    @property
    def has_untold(self) -> bool:
        """Whether ends got no line, and `due` has not returned their counts yet."""
        return bool(self._untold)

    def admits(self, name: str, *, kind: str, now: float) -> bool:
        """Whether an end gets a line. If not, the end is counted.

        Args:
            name: of the count to which the end belongs.
            kind: of ends that have a limit together; each kind has its own.
            now: seconds.
        """
        left = self._refilled(kind, now)
        if left >= 1.0:
            self._left[kind] = left - 1.0
            return True
        self._untold[name] += 1
        self._first, self._last = min(self._first, now), now
        return False

    def due(self, now: float, *, closing: bool = False) -> Untold | None:
        """The ends that got no line, if a window is over, or at the end; None if all had a line."""
        if not self._untold or (now - self._first < WINDOW and not closing):
            return None
        untold = Untold(self._untold, self._last - self._first)
        self._untold, self._first = Counter(), math.inf
        return untold

    def _refilled(self, kind: str, now: float) -> float:
        if now > self._filled_at:
            gained = EACH_WINDOW / WINDOW * (now - self._filled_at)
            self._left = {one: min(BURST, left + gained) for one, left in self._left.items()}
            self._filled_at = now
        return self._left.get(kind, float(BURST))
