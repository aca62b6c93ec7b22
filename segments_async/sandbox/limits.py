"""How many requests the account may send: the page has a 429, and gives no number."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Protocol

from attrs import field, frozen, validators

_ENOUGH = 1 - 1e-9  # a client that sends exactly on time isn't refused for a rounding error


class Counter(Protocol):
    """The running state of a limit, made by the sandbox it belongs to."""

    def admit(self, now: float) -> float | None:
        """Let one request through (None), or say how many seconds until one would pass.

        A refused request takes nothing from the budget.
        """
        ...


Steps = tuple[tuple[float, float], ...]


def _as_steps(value: Iterable[tuple[float, float]]) -> Steps:
    return tuple(value)


def _times_rise(instance: object, attribute: object, value: Steps) -> None:  # noqa: ARG001
    times = [t for t, _ in value]
    if times != sorted(times) or any(t < 0 or rate <= 0 for t, rate in value):
        raise ValueError("steps are (seconds, rate) in rising order, with rates above 0")


@frozen
class TokenBucket:
    """`rate` requests a second, of which `burst` may be saved up; the bucket starts full.

    `steps`, `((seconds, rate), ...)`, move the rate while it runs.
    """

    rate: float = field(validator=validators.gt(0))
    burst: float = field(default=1.0, validator=validators.ge(1))
    steps: Steps = field(default=(), converter=_as_steps, validator=_times_rise)

    def admitted_by(self, t: float) -> float:
        """The most requests that could be let through in [0, t]."""
        return self.burst + self.filled(0.0, t)

    def filled(self, start: float, end: float) -> float:
        """Tokens that drop into the bucket from `start` to `end`."""
        if not self.steps:
            return self.rate * (end - start)
        return sum(
            rate * max(0.0, min(end, until) - max(start, since))
            for since, until, rate in self._spans()
        )

    def seconds_for(self, tokens: float, start: float) -> float:
        """How long from `start` until so many tokens have dropped."""
        missing = tokens
        for since, until, rate in self._spans():
            begin = max(start, since)
            if until <= begin:
                continue
            if missing <= rate * (until - begin):
                return begin + missing / rate - start
            missing -= rate * (until - begin)
        return math.inf

    def counter(self) -> Counter:
        """A full bucket."""
        return _Bucket(self)

    def _spans(self) -> list[tuple[float, float, float]]:
        rates = [(-math.inf, self.rate), *self.steps]
        ends = [*(t for t, _ in self.steps), math.inf]
        return [(since, until, rate) for (since, rate), until in zip(rates, ends, strict=True)]


class _Bucket:
    def __init__(self, limit: TokenBucket) -> None:
        self._limit = limit
        self._tokens = float(limit.burst)
        self._at = 0.0

    def admit(self, now: float) -> float | None:
        dropped = self._limit.filled(self._at, now) if now > self._at else 0.0
        self._tokens = min(float(self._limit.burst), self._tokens + dropped)
        self._at = max(self._at, now)
        if self._tokens >= _ENOUGH:
            self._tokens -= 1
            return None
        return self._limit.seconds_for(1 - self._tokens, now)


@frozen
class FixedWindow:
    """`limit` requests in each window of `seconds`; `phase` seconds of the first have passed."""

    limit: int = field(validator=validators.ge(1))
    seconds: float = field(validator=validators.gt(0))
    phase: float = field(default=0.0, validator=validators.ge(0))

    def admitted_by(self, t: float) -> float:
        """The most requests that could be let through in [0, t]."""
        return self.limit * (self.window(t) - self.window(0.0) + 1)

    def window(self, t: float) -> int:
        """The number of the window that `t` is in."""
        return math.floor((t + self.phase) / self.seconds)

    def counter(self) -> Counter:
        """No request counted yet."""
        return _Window(self)


class _Window:
    def __init__(self, limit: FixedWindow) -> None:
        self._limit = limit
        self._window = limit.window(0.0)
        self._used = 0

    def admit(self, now: float) -> float | None:
        window = self._limit.window(now)
        if window != self._window:
            self._window, self._used = window, 0
        if self._used < self._limit.limit:
            self._used += 1
            return None
        return (window + 1) * self._limit.seconds - self._limit.phase - now
