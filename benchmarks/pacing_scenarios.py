"""The pacing benchmark's scenarios: limits, durations, and the clairvoyant bounds."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import attrs

from segments_async.sandbox import ContendedLimit, Durations, FixedWindow, Sandbox, TokenBucket

#: Exports short enough that the request budget binds, and the heavy-tailed ones of the vendor's
#: page ("within a matter of seconds, but can potentially take up to several hours").
SHORT = Durations(median=4.0, sigma=0.6, longest=60.0)
HEAVY = Durations(median=8.0, sigma=1.5, longest=4 * 3600.0)

#: Median seconds that an answer takes.
LATENCY = 0.08

#: The figures to reach: makespan and T90 over their bounds, for poll_share 0 and 0.2.
BUCKET_GOALS = {0.0: (1.05, 1.10), 0.2: (1.10, 1.20)}
MOVING_GOALS = {0.0: (1.10, 1.10), 0.2: (1.15, 1.20)}


@attrs.frozen
class Scenario:
    """A vendor with a limit, and a number of segments to export from it."""

    name: str
    exports: int
    limit: TokenBucket | FixedWindow
    true_rate: float
    retry_after: str | None = None
    durations: Durations = SHORT
    moving: bool = False

    def sandbox(self, seed: int) -> Sandbox:
        return Sandbox(
            segments=self.exports,
            rows=0,
            seed=seed,
            durations=self.durations,
            limit=self.limit,
            retry_after=self.retry_after,  # type: ignore[arg-type]
            latency=LATENCY,
        )

    def goals(self, share: float) -> tuple[float, float | None]:
        """The most that makespan / bound and T90 / its bound may be; None: no goal."""
        if isinstance(self.limit, FixedWindow):
            # Even spacing can't follow a staircase: 1.15 and one window are allowed.
            bound = seconds_to_admit(self.limit, 2 * self.exports)
            return 1.15 + self.limit.seconds / bound, None
        return (MOVING_GOALS if self.moving else BUCKET_GOALS)[share]

    def throttled_goal(self, requests: int) -> float:
        share = 0.015 if isinstance(self.limit, FixedWindow) else 0.01
        return share * requests + 15


def _both(scenario: Scenario) -> list[Scenario]:
    told = attrs.evolve(scenario, name=f"{scenario.name}, Retry-After", retry_after="seconds")
    return [scenario, told]


SCENARIOS: list[Scenario] = [
    *_both(Scenario("1 000 at 10/s", 1_000, TokenBucket(10, 20), 10)),
    *_both(Scenario("10 000 at 10/s", 10_000, TokenBucket(10, 20), 10)),
    *_both(Scenario("10 000 at 100/s", 10_000, TokenBucket(100, 200), 100)),
    *_both(Scenario("300 at 1/s", 300, TokenBucket(1, 5), 1)),
    *_both(
        Scenario(
            "8 000, 50 to 25 to 100/s",
            8_000,
            TokenBucket(50, 100, steps=((60, 25), (240, 100))),
            25,
            moving=True,
        )
    ),
    Scenario("3 000, 600 per 60 s", 3_000, FixedWindow(600, 60, 17), 10),
    Scenario("3 000, 300 per 30 s", 3_000, FixedWindow(300, 30, 7), 10),
    Scenario("5 000, 1 500 per 90 s", 5_000, FixedWindow(1_500, 90, 40), 1_500 / 90),
    Scenario("10 000 heavy-tailed at 10/s", 10_000, TokenBucket(10, 20), 10, durations=HEAVY),
]

LARGE = Scenario(
    "100 000 heavy-tailed at 100/s", 100_000, TokenBucket(100, 200), 100, durations=HEAVY
)


@attrs.frozen
class Bounds:
    """The seconds that a client needs that knows the limit and every duration."""

    makespan: float
    t90: float


def bounds(scenario: Scenario, durations: Sequence[float], share: float) -> Bounds:
    """The clairvoyant bounds, for the submits in the order as given."""
    count = len(durations)
    ends = sorted(
        admitted + seconds
        for admitted, seconds in zip(admissions(scenario.limit, count), durations, strict=True)
    )
    ninety = int((1.9 if share == 0 else 1.8) * count)
    return Bounds(
        max(seconds_to_admit(scenario.limit, 2 * count), ends[-1]) + LATENCY,
        max(seconds_to_admit(scenario.limit, ninety), ends[int(0.9 * count)]) + LATENCY,
    )


def admissions(limit: TokenBucket | FixedWindow, count: int) -> list[float]:
    """The earliest times at which the limit admits each of the first `count` requests."""
    step = max(1, count // 2_000)
    times: list[float] = []
    for start in range(0, count, step):
        at = seconds_to_admit(limit, start + 1)
        times.extend([at] * min(step, count - start))
    return times


def seconds_to_admit(limit: TokenBucket | FixedWindow | ContendedLimit, count: int) -> float:
    """The time by which the limit can have admitted `count` requests."""
    admitted: Callable[[float], float] = limit.admitted_by
    if admitted(0.0) >= count:
        return 0.0
    high = 1.0
    while admitted(high) < count:
        high *= 2
    low = 0.0
    for _ in range(60):
        middle = (low + high) / 2
        if admitted(middle) >= count:
            high = middle
        else:
            low = middle
    return high if math.isfinite(high) else math.inf
