"""Several processes with one account: their time together, with one journal and without.

A simulation of the parts that decide (`Pacer` and `Share`), in which requests always wait, against
the sandbox's limits. Answers take 80 ms, spread log-normally. Each process has the same number of
requests and starts a second after the one before; exchanges are a second apart. Prints the time
over the least that the limit asks for, the 429s, and the busiest second after the first twentieth.

    python benchmarks/shared_limit.py                    # four processes, three seeds, a minute
    python benchmarks/shared_limit.py --processes 8 --seeds 5
"""

from __future__ import annotations

import argparse
import bisect
import heapq
import itertools
import math
import random
import statistics
from collections.abc import Callable, Sequence

import attrs

from segments_async import Pacer
from segments_async._journal.limit import LEASE
from segments_async._sansio.pace.shared_limit import GroupView, Share
from segments_async.sandbox import FixedWindow, TokenBucket

Limit = TokenBucket | FixedWindow

#: A limit, whether a 429 says how long to wait, and the requests of all processes together.
SCENARIOS: dict[str, tuple[Limit, bool, int]] = {
    "2/s, burst 4": (TokenBucket(2, 4), False, 480),
    "10/s, burst 20": (TokenBucket(10, 20), False, 1200),
    "10/s, burst 20, Retry-After": (TokenBucket(10, 20), True, 1200),
    "40/s, burst 40": (TokenBucket(40, 40), False, 4800),
    "100/s, burst 200": (TokenBucket(100, 200), False, 12000),
    "100/s, burst 200, Retry-After": (TokenBucket(100, 200), True, 12000),
    "600 in each minute": (FixedWindow(600, 60, phase=17), False, 4000),
}

LATENCY = 0.08
SLOTS = 64
BETWEEN_EXCHANGES = 1.0

#: Times the least time after which a simulation is given up.
PATIENCE = 8.0


class Account:
    """The vendor's side, the journal's, and the clock."""

    def __init__(self, limit: Limit, *, retry_after: bool, seed: int) -> None:
        self.chance = random.Random(seed)
        self.counter = limit.counter()
        self.retry_after = retry_after
        self.now = 0.0
        self.arrivals: list[float] = []
        self.refused = 0
        self.found: float | None = None
        self.waiting: dict[int, float] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()

    def at(self, when: float, do: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), do))

    def step(self) -> bool:
        """Go on to the next event. Returns whether there was one."""
        if not self._events:
            return False
        self.now, _, do = heapq.heappop(self._events)
        do()
        return True


class Process:
    """One pacer with requests to send."""

    def __init__(self, account: Account, number: int, requests: int, *, shares: bool) -> None:
        self._account = account
        self._number = number
        self._left = requests
        self._under_way = 0
        self._pacer = Pacer()
        self._share = Share()
        self._looks_at = math.inf
        account.at(float(number), self._look)
        if shares:
            account.at(float(number), self._exchange)

    @property
    def done(self) -> bool:
        return self._left == 0 and self._under_way == 0

    def _look(self) -> None:
        self._looks_at = math.inf
        self._send()

    def _send(self) -> None:
        """Send what may go now, and look again when the next one may."""
        now = self._account.now
        while True:
            if self._left == 0 or self._under_way == SLOTS:
                self._pacer.on_idle()
                return
            at = self._pacer.next_at()
            if at > now + 1e-6:
                self._pacer.on_waiting()
                if at < self._looks_at:
                    self._looks_at = at
                    self._account.at(at, self._look)
                return
            self._begin(self._pacer.take(now))

    def _begin(self, epoch: int) -> None:
        self._left -= 1
        self._under_way += 1
        account = self._account
        latency = LATENCY * math.exp(0.35 * account.chance.gauss(0, 1))

        def arrive() -> None:
            account.arrivals.append(account.now)
            wait = account.counter.admit(account.now)
            account.at(account.now + 0.75 * latency, lambda: self._answered(epoch, wait))

        account.at(account.now + 0.25 * latency, arrive)

    def _answered(self, epoch: int, wait: float | None) -> None:
        account = self._account
        self._under_way -= 1
        if wait is None:
            self._pacer.on_accepted(account.now, epoch)
        else:
            self._left += 1
            account.refused += 1
            report = max(1.0, math.ceil(wait)) if account.retry_after else None
            self._pacer.on_throttled(
                account.now, epoch, retry_after=report, chance=account.chance.random()
            )
        self._send()

    def _exchange(self) -> None:
        account = self._account
        since = account.now - LEASE.total_seconds()
        others = sum(
            at >= since for number, at in account.waiting.items() if number != self._number
        )
        own = self._share.own(self._pacer, leaves=self.done)
        report = own.tell(GroupView(account.found, others, "the sum"))
        account.found = report.limit
        account.waiting.pop(self._number, None)
        if report.waits:
            account.waiting[self._number] = account.now
        if self.done:
            return
        if self._share.took(self._pacer, own, report):
            self._send()
        account.at(account.now + BETWEEN_EXCHANGES, self._exchange)


@attrs.frozen
class Measured:
    """The figures of one simulation."""

    over_least: float
    refused: float
    busiest: int


def simulate(
    limit: Limit, requests: int, processes: int, *, retry_after: bool, shares: bool, seed: int
) -> Measured:
    account = Account(limit, retry_after=retry_after, seed=seed)
    each = requests // processes
    fleet = [Process(account, n, each, shares=shares) for n in range(processes)]
    least = least_seconds(limit, each * processes)
    while not all(process.done for process in fleet) and account.now < PATIENCE * least:
        account.step()
    sent = account.arrivals
    found = sent[bisect.bisect_left(sent, 0.05 * account.now) :]
    busiest = max(bisect.bisect_left(found, at + 1.0) - n for n, at in enumerate(found))
    return Measured(account.now / least, account.refused / len(sent), busiest)


def least_seconds(limit: Limit, requests: int) -> float:
    """The least seconds in which the limit grants so many requests."""
    low, high = 0.0, 1.0
    while limit.admitted_by(high) < requests:
        high *= 2
    while high - low > 0.001:
        middle = (low + high) / 2
        low, high = (low, middle) if limit.admitted_by(middle) >= requests else (middle, high)
    return high + LATENCY


def shown(found: Sequence[Measured]) -> str:
    over = statistics.fmean(m.over_least for m in found)
    refused = statistics.fmean(m.refused for m in found)
    return f"{over:.2f} | {refused:.1%} | {max(m.busiest for m in found)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    print(f"\n{options.processes} processes, means of {options.seeds} seeds\n")
    print("| limit | with one journal | 429s | busiest second | alone | 429s | busiest second |")
    print("|---|--:|--:|--:|--:|--:|--:|")
    for name, (limit, retry_after, requests) in SCENARIOS.items():
        cells = [
            shown(
                [
                    simulate(
                        limit,
                        requests,
                        options.processes,
                        retry_after=retry_after,
                        shares=shares,
                        seed=seed,
                    )
                    for seed in range(1, options.seeds + 1)
                ]
            )
            for shares in (True, False)
        ]
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
