"""How long a run will go on, as far as that can be known.

The longer of two times decides: to send the requests that remain, and to wait for the slowest
export. How long the slowest one takes is judged by a lognormal law of durations, since
most exports take seconds, and some take hours. The law is fitted to the exports that ended *and* to
those that run: an export that has run for a minute says that exports may take longer than a minute.
Without the running ones, the law of a young run would be that of its quickest exports.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from statistics import NormalDist

import attrs

#: An estimate needs this many ends, and this share of the exports that were begun.
ENOUGH_ENDS = 3
ENOUGH_OF_ALL = 0.05

#: The spread of a law from few ends: as if this many more ends had been seen with this spread.
#: 0.7 says that one export of six takes twice as long as half of them.
_USUAL_SPREAD = 0.7
_ENDS_OF_USUAL_SPREAD = 5
_LEAST_SPREAD = 0.02

_NORMAL = NormalDist()
_SHORTEST = 0.5  # seconds: the vendor's times are whole seconds
_SAMPLES = 8
_LONGEST = 1e7  # seconds
#: An export has outlived the law where, by the law, a smaller share of exports takes as long.
_BEYOND_THE_LAW = 1e-9


@attrs.frozen
class Running:
    """A running export, which stands for several in the estimate.

    Attributes:
        age: seconds since it was submitted; below zero: until it will be.
        known: seconds from its submission to its last poll: it takes longer than that.
    """

    age: float
    known: float = 0.0


@attrs.frozen
class Law:
    """A lognormal law of durations.

    Attributes:
        log_median: the logarithm of the seconds within which half of the exports end.
        spread: the standard deviation of the logarithms.
    """

    log_median: float
    spread: float

    def beyond(self, seconds: float) -> float:
        """The share of exports that take longer."""
        if seconds <= 0.0:
            return 1.0
        return 0.5 * math.erfc(
            (math.log(seconds) - self.log_median) / (self.spread * math.sqrt(2.0))
        )

    def ended_within(self, seconds: float, export: Running) -> float:
        """The chance that an export has ended when `seconds` more have passed.

        For one that outlives the law, the chance to be still at work falls with the square of the
        age: at even odds it ends after four tenths of the seconds that it has taken.
        """
        later = export.age + seconds
        if later <= export.known:
            return 0.0
        still = self.beyond(export.known)
        if still < _BEYOND_THE_LAW:
            return 1.0 - (export.known / later) ** 2
        return 1.0 - self.beyond(later) / still


def fit(durations: Sequence[float], running: Sequence[Running], pending: int) -> Law | None:
    """The law of these durations, and of the exports that still run; None for too few ends.

    The product-limit estimate (Kaplan and Meier) gives each end its place in the law. Where the
    place is known as a multiple of the spread, a line through the logarithms gives the law.

    Args:
        durations: of the exports that ended, in seconds.
        running: some of those that run.
        pending: how many run.
    """
    ends = sorted(max(_SHORTEST, seconds) for seconds in durations)
    if len(ends) < max(ENOUGH_ENDS, ENOUGH_OF_ALL * (len(ends) + pending)):
        return None
    known = sorted(one.known for one in running)
    each = pending / max(1, len(known))
    places: list[float] = []
    beyond = 1.0
    for index, seconds in enumerate(ends):
        at_risk = len(ends) - index + each * (len(known) - bisect_right(known, seconds))
        after = beyond * (1.0 - 1.0 / at_risk)
        places.append(_NORMAL.inv_cdf(1.0 - (beyond + after) / 2.0))
        beyond = after
    return _line(places, [math.log(seconds) for seconds in ends])


def _line(places: Sequence[float], logarithms: Sequence[float]) -> Law:
    """The line through these points, its slope drawn to the usual spread where they are few."""
    count = len(places)
    middle, height = sum(places) / count, sum(logarithms) / count
    width = sum((place - middle) ** 2 for place in places)
    product = sum(
        (place - middle) * (logarithm - height)
        for place, logarithm in zip(places, logarithms, strict=True)
    )
    slope = product / width
    weight = count / (count + _ENDS_OF_USUAL_SPREAD)
    spread = max(_LEAST_SPREAD, weight * slope + (1.0 - weight) * _USUAL_SPREAD)
    return Law(height - spread * middle, spread)


def until_all_ended(law: Law, exports: Sequence[tuple[Running, float]]) -> float:
    """Seconds within which all exports end, at even odds.

    Args:
        exports: each with the number of exports that it stands for.
    """

    def likely(seconds: float) -> bool:
        chance = 0.0
        for export, count in exports:
            one = law.ended_within(seconds, export)
            if one <= 0.0:
                return False
            chance += count * math.log(one)
        return chance >= -math.log(2.0)

    high = 1.0
    while high < _LONGEST and not likely(high):
        high *= 2.0
    low = 0.0
    while high - low > 0.02 * high + 0.05:
        middle = (low + high) / 2.0
        low, high = (low, middle) if likely(middle) else (middle, high)
    return high


def eta_seconds(
    *,
    waiting: int,
    pending: int,
    fetching: int,
    rate: float | None,
    polls: int,
    ended: int,
    durations: Sequence[float],
    running: Sequence[Running],
    fetch_seconds: float,
) -> float | None:
    """Seconds until the last outcome, or None while too little is known.

    Args:
        waiting: exports to be submitted.
        pending: at work at the vendor.
        fetching: complete, their files not in place.
        rate: requests/s that are sent at most; None while nothing limits them.
        polls: sent so far in the session.
        ended: exports whose polls ended in the session.
        durations: seconds that exports took at the vendor, in this session and before.
        running: some of the pending ones.
        fetch_seconds: for one file on average, all downloads together.
    """
    if not (waiting or pending or fetching):
        return 0.0
    files = (waiting + pending + fetching) * fetch_seconds
    if not (waiting or pending):
        return files or None
    law = fit(durations, running, pending)
    if law is None or (pending and not running):
        return None
    polls_each = max(1.0, polls / max(1, ended + pending))
    gap = 1.0 / rate if rate else 0.0
    sending = (waiting * (1.0 + polls_each) + pending) * gap
    exports = [(one, pending / len(running)) for one in running]
    exports += _to_be_submitted(waiting, waiting * gap)
    return max(sending, until_all_ended(law, exports), files)


def _to_be_submitted(waiting: int, until_last: float) -> list[tuple[Running, float]]:
    """Exports that stand for the waiting ones, evenly until the last one's submit."""
    if not waiting:
        return []
    ages = (-until_last * index / (_SAMPLES - 1) for index in range(_SAMPLES))
    return [(Running(age), waiting / _SAMPLES) for age in ages]
