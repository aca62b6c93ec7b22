"""The pacer alone against a limit, in virtual time, with callers who always have requests to send.

No client, no transport: the simulation calls `Pacer` as the gate does, and answers come after a
lognormal latency. It is a hundred times faster than the whole client, so that many limits can be
tried with many seeds.
"""

from __future__ import annotations

import heapq
import math
import random
from typing import Protocol

import attrs

from segments_async import Pacer
from segments_async.sandbox import ContendedLimit, FixedWindow, TokenBucket

#: Median seconds that an answer takes, and requests on the wire at once.
LATENCY = 0.08
SLOTS = 64

Limit = TokenBucket | FixedWindow | ContendedLimit


class Counter(Protocol):
    """Admits or refuses requests."""

    def admit(self, now: float) -> float | None: ...


class NoLimit:
    """Admits everything."""

    def admit(self, now: float) -> float | None:  # noqa: ARG002
        return None


@attrs.define
class Drive:
    """When the accepted and the refused requests were answered."""

    accepted: list[float] = attrs.field(factory=list)
    refused: list[float] = attrs.field(factory=list)
    rates: list[tuple[float, float]] = attrs.field(factory=list)

    @property
    def end(self) -> float:
        return self.accepted[-1] if self.accepted else math.inf

    def refused_before(self, at: float) -> int:
        return sum(t < at for t in self.refused)


def drive(
    pacer: Pacer,
    counter: Counter,
    requests: int,
    *,
    seed: int,
    retry_after: bool = False,
    start: float = 0.0,
    stop: float = math.inf,
    latency: float = LATENCY,
) -> Drive:
    """Send until so many requests were accepted, or until `stop`."""
    chance, told = random.Random(seed), Drive()
    arrivals: list[tuple[float, int, int, float]] = []  # when, number, epoch, answered at
    answers: list[tuple[float, int, int, float | None]] = []
    now, number, left = start, 0, requests
    while len(told.accepted) < requests and now < stop:
        under_way = len(arrivals) + len(answers)
        at = math.inf
        if left and under_way < SLOTS:
            at = pacer.next_at()
            if at <= now + 1e-6:
                left -= 1
                number += 1
                epoch = pacer.take(now)
                takes = latency * math.exp(0.35 * chance.gauss(0, 1))
                heapq.heappush(arrivals, (now + 0.25 * takes, number, epoch, now + takes))
                continue
            pacer.on_waiting()
        else:
            pacer.on_idle()
        arrives = arrivals[0][0] if arrivals else math.inf
        answered = answers[0][0] if answers else math.inf
        now = max(now, min(at, arrives, answered))
        if arrives <= now:
            when, n, epoch, answered_at = heapq.heappop(arrivals)
            heapq.heappush(answers, (answered_at, n, epoch, counter.admit(when)))
        elif answered <= now:
            _, _, epoch, wait = heapq.heappop(answers)
            if wait is None:
                told.accepted.append(now)
                pacer.on_accepted(now, epoch)
            else:
                left += 1
                told.refused.append(now)
                pause = max(1.0, math.ceil(wait)) if retry_after else None
                pacer.on_throttled(now, epoch, retry_after=pause, chance=chance.random())
            told.rates.append((now, pacer.rate or math.inf))
    return told
