"""Limits on the account's requests. The page has a 429, and gives no number."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable
from typing import Protocol

from attrs import field, frozen, validators

_ENOUGH = 1 - 1e-9  # a client that sends exactly on time isn't refused for a rounding error


class Counter(Protocol):
    """The running state of a limit, made by the sandbox it belongs to."""

    def admit(self, now: float) -> float | None:
        """Grant a request (None), or refuse it and return the seconds until one passes.

        A refused request uses nothing of the budget.
        """
        ...


class _Budget(Counter, Protocol):
    """A counter whose budget other users take from, too."""

    def use(self, now: float, requests: float) -> None:
        """Other users take `requests` of what is left of the budget, or all that is left."""
        ...


Steps = tuple[tuple[float, float], ...]
Spans = tuple[tuple[float, float], ...]


def _as_steps(value: Iterable[tuple[float, float]]) -> Steps:
    return tuple(value)


def _spans_rise(instance: object, attribute: object, value: Spans) -> None:  # noqa: ARG001
    times = [t for span in value for t in span]
    if times != sorted(times) or any(t < 0 for t in times):
        raise ValueError("used_up is (since, until) in rising order, without overlaps")


def _uses_rise(instance: object, attribute: object, value: Steps) -> None:  # noqa: ARG001
    times = [t for t, _ in value]
    if times != sorted(times) or any(t < 0 or n < 0 for t, n in value):
        raise ValueError("used is (seconds, requests) in rising order, with no number below 0")


def _times_rise(instance: object, attribute: object, value: Steps) -> None:  # noqa: ARG001
    times = [t for t, _ in value]
    if times != sorted(times) or any(t < 0 or rate <= 0 for t, rate in value):
        raise ValueError("steps are (seconds, rate) in rising order, with rates above 0")


@frozen
class TokenBucket:
    """A bucket that fills evenly, and starts full.

    Attributes:
        rate: requests/s.
        burst: requests that may be saved up.
        steps: ``((seconds, rate), ...)`` sets other rates from these times on.
    """

    rate: float = field(validator=validators.gt(0))
    burst: float = field(default=1.0, validator=validators.ge(1))
    steps: Steps = field(default=(), converter=_as_steps, validator=_times_rise)

    def admitted_by(self, t: float) -> float:
        """The most requests that can be granted in [0, t]."""
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
        """Seconds from `start` until `tokens` tokens have dropped."""
        missing = tokens
        for since, until, rate in self._spans():
            begin = max(start, since)
            if until <= begin:
                continue
            if missing <= rate * (until - begin):
                return begin + missing / rate - start
            missing -= rate * (until - begin)
        return math.inf

    def counter(self) -> _Budget:
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

    def use(self, now: float, requests: float) -> None:
        self._fill(now)
        self._tokens -= min(self._tokens, requests)

    def _fill(self, now: float) -> None:
        dropped = self._limit.filled(self._at, now) if now > self._at else 0.0
        self._tokens = min(float(self._limit.burst), self._tokens + dropped)
        self._at = max(self._at, now)

    def admit(self, now: float) -> float | None:
        self._fill(now)
        if self._tokens >= _ENOUGH:
            self._tokens -= 1
            return None
        return self._limit.seconds_for(1 - self._tokens, now)


@frozen
class FixedWindow:
    """A number of requests in each window of time.

    Attributes:
        limit: requests in a window.
        seconds: of a window.
        phase: seconds of a window that have passed at time 0.
    """

    limit: int = field(validator=validators.ge(1))
    seconds: float = field(validator=validators.gt(0))
    phase: float = field(default=0.0, validator=validators.ge(0))

    def admitted_by(self, t: float) -> float:
        """The most requests that can be granted in [0, t]."""
        return self.limit * (self.window(t) - self.window(0.0) + 1)

    def window(self, t: float) -> int:
        """The number of the window that `t` is in."""
        return math.floor((t + self.phase) / self.seconds)

    def counter(self) -> _Budget:
        """A window in which no request is counted yet."""
        return _Window(self)


class _Window:
    def __init__(self, limit: FixedWindow) -> None:
        self._limit = limit
        self._window: int = limit.window(0.0)
        self._used = 0.0

    def use(self, now: float, requests: float) -> None:
        self._turn(now)
        self._used += min(self._limit.limit - self._used, requests)

    def _turn(self, now: float) -> None:
        window = self._limit.window(now)
        if window != self._window:
            self._window, self._used = window, 0.0

    def admit(self, now: float) -> float | None:
        self._turn(now)
        if self._used + _ENOUGH <= self._limit.limit:
            self._used += 1
            return None
        return (self._window + 1) * self._limit.seconds - self._limit.phase - now


@frozen
class ContendedLimit:
    """A limit that other users of the account use as well.

    The Retry-After of a refused request is the limit's own, without the other users.

    Attributes:
        limit: of the account; None for no limit outside of the spans.
        used_up: ``((since, until), ...)``: in these spans, in seconds, the other users take all
            that the limit grants, so that every request here is refused. A span of no length takes
            the rest of the budget at that time.
        used: ``((seconds, requests), ...)``: at these times the other users take this many requests
            of the rest.
    """

    limit: TokenBucket | FixedWindow | None
    used_up: Spans = field(default=(), converter=_as_steps, validator=_spans_rise)
    used: Steps = field(default=(), converter=_as_steps, validator=_uses_rise)

    def admitted_by(self, t: float) -> float:
        """The most requests that can be granted in [0, t].

        To a client that takes each request as soon as one is granted: the other users' `used` after
        the start take nothing from such a client.
        """
        spans = tuple((since, until) for since, until in self.used_up if since <= t)
        if self.limit is None:
            covered = sum(min(until, t) - since for since, until in spans)
            return 0.0 if spans and covered >= t else math.inf
        if isinstance(self.limit, FixedWindow):
            granted = self._by_windows(self.limit, t)
        else:
            granted = self._by_tokens(self.limit, spans, t)
        if self.used_up and self.used_up[0][0] == 0.0:
            return granted
        first = self.limit.limit if isinstance(self.limit, FixedWindow) else self.limit.burst
        return granted - min(first, sum(n for at, n in self.used if at == 0.0))

    def _by_windows(self, limit: FixedWindow, t: float) -> float:
        windows = range(limit.window(0.0), limit.window(t) + 1)
        starts = [max(0.0, n * limit.seconds - limit.phase) for n in windows]
        return sum(
            limit.limit
            for at in starts
            if not any(since <= at < until or at == since == until for since, until in self.used_up)
        )

    def _by_tokens(self, limit: TokenBucket, spans: Spans, t: float) -> float:
        granted = 0.0 if spans and spans[0][0] == 0.0 else float(limit.burst)
        at = 0.0
        for since, until in spans:
            granted += limit.filled(at, since)
            at = min(until, t)
        return granted + limit.filled(at, t)

    def counter(self) -> Counter:
        """A new counter, of whose budget nothing is used."""
        return _Contended(self)


#: The other users' last request of a span comes just before its end, which may begin a window.
_JUST_BEFORE = 1e-9


class _Contended:
    def __init__(self, limit: ContendedLimit) -> None:
        self._budget = None if limit.limit is None else limit.limit.counter()
        self._spans = deque(limit.used_up)
        self._used = deque(limit.used)

    def admit(self, now: float) -> float | None:
        while self._used and self._used[0][0] <= now:
            self._use(*self._used.popleft())
        while self._spans and self._spans[0][1] <= now:
            since, until = self._spans.popleft()
            self._use(max(since, until - _JUST_BEFORE), math.inf)
        inside = bool(self._spans) and self._spans[0][0] <= now
        if inside:
            self._use(now, math.inf)
        if self._budget is not None:
            return self._budget.admit(now)
        return self._spans[0][1] - now if inside else None

    def _use(self, at: float, requests: float) -> None:
        if self._budget is not None:
            self._budget.use(at, requests)
