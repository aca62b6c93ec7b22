"""Limits that are used up at the start or by other users, and restarts with a journal.

Two measurements, both in virtual time: the pacer alone (`pacing_limiter.py`), and the whole client
over the in-process sandbox. Prints the goals and the figures reached; every figure follows from its
seeds.

    python benchmarks/pacing_blocks.py                    # five seeds, ten minutes
    python benchmarks/pacing_blocks.py --alone            # the pacer alone, two minutes
    python benchmarks/pacing_blocks.py --sweep 1000       # limits drawn at random
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import anyio
import attrs
import httpx

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parent)]

import pacing_clients as clients
from pacing_limiter import LATENCY, Counter, Limit, drive
from pacing_scenarios import seconds_to_admit

from segments_async import Pacer, SegmentsClient
from segments_async.sandbox import (
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    ContendedLimit,
    Durations,
    FixedWindow,
    Sandbox,
    SandboxTransport,
    TokenBucket,
)
from segments_async.testing import virtual_time

WINDOWS = {10: FixedWindow(100, 10, 2), 30: FixedWindow(300, 30, 5), 60: FixedWindow(600, 60, 10)}
WINDOWS[90] = FixedWindow(900, 90, 30)
COUNTS = (20, 120, 600)


@attrs.frozen
class Asked:
    """A number of requests under a limit, and the seconds that they may take."""

    name: str
    limit: Limit
    requests: int
    factor: float = 1.25
    extra: float = 10.0
    retry_after: bool = False

    @property
    def best(self) -> float:
        return seconds_to_admit(self.limit, self.requests) + LATENCY

    @property
    def seconds(self) -> float:
        return self.factor * self.best + self.extra


def used_up() -> Iterator[Asked]:
    """Windows that are used up, or nearly, when the first request goes."""
    for seconds, window in WINDOWS.items():
        for count in COUNTS:
            limit = ContendedLimit(window, used_up=((0.0, 0.0),))
            name = f"window of {seconds} s used up"
            yield Asked(name, limit, count, extra=seconds + 10.0)
        limit = ContendedLimit(window, used=((0.0, window.limit - 20),))
        name = f"window of {seconds} s, 20 requests left"
        yield Asked(name, limit, 600, extra=seconds + 10.0)


def refused_at_first() -> Iterator[Asked]:
    """429 for some seconds from the start, then another limit or none."""
    for seconds in (4, 30, 90):
        for name, limit in (("no limit", None), ("20/s", TokenBucket(20, 20))):
            contended = ContendedLimit(limit, used_up=((0.0, float(seconds)),))
            for count in COUNTS:
                yield Asked(f"429 for {seconds} s, then {name}", contended, count)


def refused_later() -> Iterator[Asked]:
    """Another user uses up a limit of 10/s after the first few requests."""
    for after in (5, 15, 30, 100):
        for seconds in (5, 50):
            at = after / 10
            limit = ContendedLimit(TokenBucket(10, 20), used_up=((at, at + seconds),))
            name = f"10/s, refused for {seconds} s after {after} requests"
            yield Asked(name, limit, after + 100)


# ------------------------------------------------------------------ the pacer alone


def alone(asked: Asked, seed: int) -> tuple[float, int]:
    """Seconds and 429s of the pacer alone."""
    stop = 20 * asked.seconds + 600
    told = drive(
        Pacer(),
        asked.limit.counter(),
        asked.requests,
        seed=seed,
        retry_after=asked.retry_after,
        stop=stop,
    )
    return (told.end if len(told.accepted) >= asked.requests else stop), len(told.refused)


# ------------------------------------------------------------------ the whole client


def client(asked: Asked, seed: int) -> tuple[float, int]:
    """Seconds and 429s of the client's status requests, through httpx."""
    sandbox = Sandbox(
        limit=asked.limit,
        latency=LATENCY,
        seed=seed,
        retry_after="seconds" if asked.retry_after else None,
    )
    noticed: dict[str, float] = {}
    backend, options = virtual_time("asyncio")
    anyio.run(
        partial(clients.calls, sandbox, noticed, asked.requests),
        backend=backend,
        backend_options=options,
    )
    return max(noticed.values()), len(sandbox.record.throttled())


def restart(limit: TokenBucket, exports: int, seed: int) -> tuple[float, int, float, int]:
    """A run, and another one with the same journal ten minutes later, in a client of its own.

    Returns each one's makespan over the bound, and its 429s in the first minute.
    """
    stats: list[float] = []

    async def main() -> None:
        with tempfile.TemporaryDirectory() as folder:
            journal = Path(folder) / "runs.db"
            for number in range(2):
                sandbox = Sandbox(
                    segments=exports,
                    rows=0,
                    seed=seed + 100 * number,
                    durations=Durations(median=4.0, sigma=0.6, longest=60.0),
                    limit=limit,
                    latency=LATENCY,
                )
                began = anyio.current_time()
                async with (
                    httpx.AsyncClient(transport=SandboxTransport(sandbox)) as http,
                    SegmentsClient(
                        PAGE_API_KEY, PAGE_ACCESS_TOKEN, http_client=http, poll_share=0.0
                    ) as segments,
                ):
                    await segments.bulk_export(
                        sandbox.segment_ids, None, journal=journal, run=f"{number}"
                    )
                took = anyio.current_time() - began
                bound = seconds_to_admit(limit, 2 * exports) + LATENCY
                first = sandbox.record.api()[0].at
                refused = sum(e.at - first < 60.0 for e in sandbox.record.throttled())
                stats.extend((took / bound, refused))
                await anyio.sleep(600.0)

    backend, options = virtual_time("asyncio")
    anyio.run(main, backend=backend, backend_options=options)
    return stats[0], int(stats[1]), stats[2], int(stats[3])


# ------------------------------------------------------------------ tables


def table(
    title: str,
    measured: Callable[[Asked, int], tuple[float, int]],
    rows: Sequence[Asked],
    seeds: int,
    processes: int,
) -> bool:
    """Each row's worst seed against its goal."""
    print(f"\n{title}, seeds 1 to {seeds}: seconds, mean (worst)\n")
    print("| limit | requests | best possible | asked | reached | 429s | met |")
    print("|---|--:|--:|--:|--:|--:|---|")
    all_met = True
    with multiprocessing.Pool(processes) as pool:
        jobs = [(asked, seed) for asked in rows for seed in range(1, seeds + 1)]
        results = pool.starmap(measured, jobs, chunksize=1)
    for n, asked in enumerate(rows):
        found = results[n * seeds : (n + 1) * seeds]
        times, refused = zip(*found, strict=True)
        met = max(times) <= asked.seconds
        all_met &= met
        print(
            f"| {asked.name} | {asked.requests} | {asked.best:.0f} | {asked.seconds:.0f} "
            f"| {statistics.fmean(times):.0f} ({max(times):.0f}) | {statistics.fmean(refused):.0f} "
            f"| {'yes' if met else '**no**'} |",
            flush=True,
        )
    return all_met


@attrs.frozen
class ConstantRetryAfter:
    """A limiter whose 429s all have the same Retry-After, in seconds."""

    counter: Counter
    seconds: float

    def admit(self, now: float) -> float | None:
        return None if self.counter.admit(now) is None else self.seconds


def retry_after_table(seeds: int) -> None:
    """The pacer alone, where Retry-After is far longer than the limiter needs."""
    print(
        f"\nThe pacer alone, always the same Retry-After, seeds 1 to {seeds}; worst in brackets\n"
    )
    print("| limit | Retry-After | requests | over the best possible | 429s |")
    print("|---|--:|--:|--:|--:|")
    for limit, pause, count in (
        (TokenBucket(2, 4), 89, 1_000),
        (TokenBucket(10, 20), 60, 6_000),
        (TokenBucket(20, 40), 89, 6_000),
        (TokenBucket(100, 200), 89, 50_000),
    ):
        runs = [
            drive(
                Pacer(), ConstantRetryAfter(limit.counter(), pause), count, seed=s, retry_after=True
            )
            for s in range(1, seeds + 1)
        ]
        over = [run.end / (seconds_to_admit(limit, count) + LATENCY) for run in runs]
        refused = statistics.fmean(len(run.refused) for run in runs)
        print(
            f"| {limit.rate:g}/s, burst {limit.burst:g} | {pause} s | {count} "
            f"| {statistics.fmean(over):.2f} ({max(over):.2f}) | {refused:.0f} |",
            flush=True,
        )


def memory_table(seeds: int) -> None:
    """The pacer alone, starting at a remembered limit: right, too high, too low."""
    print(f"\nThe pacer alone, starting from memory, seeds 1 to {seeds}\n")
    print("| limit | remembered | over the best possible | 429s in the first minute, at most |")
    print("|---|--:|--:|--:|")
    for limit in (TokenBucket(1, 5), TokenBucket(10, 20), TokenBucket(100, 200)):
        for factor in (1.0, 2.0, 10.0, 0.5, 0.1):
            count = round(200 * limit.rate)
            times, refused = [], []
            for seed in range(1, seeds + 1):
                pacer = Pacer()
                if limit.rate * factor >= 0.5:
                    pacer.on_share(limit.rate * factor, remembered=True)
                told = drive(pacer, limit.counter(), count, seed=seed)
                times.append(told.end / (seconds_to_admit(limit, count) + LATENCY))
                refused.append(told.refused_before(60.0))
            print(
                f"| {limit.rate:g}/s, burst {limit.burst:g} | {limit.rate * factor:g}/s "
                f"| {statistics.fmean(times):.3f} | {max(refused)} |",
                flush=True,
            )


def restart_table(seeds: int, processes: int) -> bool:
    """The whole client, with a journal."""
    print(f"\nA first run and a restart with its journal, seeds 1 to {seeds}; worst in brackets\n")
    print("| limit | exports | first: over the bound, 429s in a minute | restart (1.03, 5) | met |")
    print("|---|--:|--:|--:|---|")
    met_all = True
    for limit, exports in ((TokenBucket(10, 20), 1_000), (TokenBucket(100, 200), 10_000)):
        jobs = [(limit, exports, seed) for seed in range(1, seeds + 1)]
        with multiprocessing.Pool(processes) as pool:
            found = pool.starmap(restart, jobs, chunksize=1)
        first, first_refused, second, second_refused = zip(*found, strict=True)
        met = statistics.fmean(second) <= 1.03 and max(second_refused) <= 5
        met_all &= met
        print(
            f"| {limit.rate:g}/s, burst {limit.burst:g} | {exports} "
            f"| {statistics.fmean(first):.3f} ({max(first):.3f}), {max(first_refused)} "
            f"| {statistics.fmean(second):.3f} ({max(second):.3f}), {max(second_refused)} "
            f"| {'yes' if met else '**no**'} |",
            flush=True,
        )
    return met_all


def windows_table(seeds: int) -> bool:
    """Fixed windows without Retry-After: 429s, at most 1.2 % and 15."""
    print(f"\nThe pacer alone in windows, seeds 1 to {seeds}; worst in brackets\n")
    print("| window | requests | over the best possible | 429s [1.2 % + 15] | met |")
    print("|---|--:|--:|--:|---|")
    met_all = True
    for limit, count in (
        (FixedWindow(100, 10, 2), 3_000),
        (FixedWindow(250, 20, 5), 5_000),
        (FixedWindow(300, 30, 7), 6_000),
        (FixedWindow(600, 60, 17), 6_000),
        (FixedWindow(1_500, 90, 40), 10_000),
        (FixedWindow(6_000, 60, 5), 30_000),
        (FixedWindow(20, 10, 3), 600),
        (FixedWindow(60, 60, 20), 600),
    ):
        runs = [drive(Pacer(), limit.counter(), count, seed=s) for s in range(1, seeds + 1)]
        over = [run.end / (seconds_to_admit(limit, count) + LATENCY) for run in runs]
        refused = statistics.fmean(len(run.refused) for run in runs)
        allowed = 0.012 * (count + refused) + 15
        met_all &= refused <= allowed
        print(
            f"| {limit.limit} per {limit.seconds:g} s | {count} "
            f"| {statistics.fmean(over):.3f} ({max(over):.3f}) | {refused:.0f} [{allowed:.0f}] "
            f"| {'yes' if refused <= allowed else '**no**'} |",
            flush=True,
        )
    return met_all


# ------------------------------------------------------------------ at random


def drawn(seed: int) -> Asked:
    """A limit of 1 to 500/s, and another user who uses it up in one of five ways."""
    chance = random.Random(seed)
    rate = 10 ** chance.uniform(0, 2.7)
    window = chance.uniform(10, 90)
    kind = chance.choice(("bucket", "bucket", "window", "none"))
    limit: TokenBucket | FixedWindow | None = None
    if kind == "bucket":
        limit = TokenBucket(rate, max(1, int(rate * 10 ** chance.uniform(-2, 0.3))))
    elif kind == "window":
        limit = FixedWindow(max(20, int(rate * window)), window, chance.uniform(0, window))
    how = chance.choice(("at the start", "once", "some times", "again and again"))
    spans: list[tuple[float, float]] = []
    if how == "at the start":
        spans = [(0.0, chance.choice((0.0, 4.0, 30.0, 90.0)))]
    elif how == "once":
        start = chance.uniform(1, 40)
        spans = [(start, start + chance.choice((1.0, 5.0, 20.0, 60.0)))]
    elif how == "some times":
        at = 0.0
        for _ in range(chance.randint(2, 6)):
            start = at + chance.uniform(0.1, 3)
            at = start + chance.uniform(0.2, 20)
            spans.append((start, at))
    else:
        period, share = chance.uniform(10, 60), chance.choice((0.0, 0.3))
        spans = [((k + 0.6) * period, (k + 0.6 + share) * period) for k in range(300)]
    count = chance.choice((20, 120, 600, 2_000))
    contended = ContendedLimit(limit, used_up=tuple(spans))
    extra = 10.0 + (window if kind == "window" else 0.0)
    return Asked(
        f"{seed}: {limit}, used up {how}",
        contended,
        count,
        factor=2.0 if how == "again and again" else 1.25,
        extra=extra + (1.2 * sum(b - a for a, b in spans) if how in ("once", "some times") else 0),
        retry_after=chance.random() < 0.3,
    )


def sweep(count: int, processes: int) -> None:
    """The drawn limits that take longer than their goal, and by how much."""
    rows = [drawn(seed) for seed in range(count)]
    with multiprocessing.Pool(processes) as pool:
        results = pool.starmap(alone, [(asked, 1) for asked in rows], chunksize=4)
    over = [(t / a.seconds, a, t, n) for a, (t, n) in zip(rows, results, strict=True)]
    slow = sorted((o for o in over if o[0] > 1), key=lambda o: -o[0])
    for share, asked, seconds, refused in slow[:20]:
        print(
            f"{share:.2f} of what is asked: {asked.name}, {asked.requests} requests, "
            f"best {asked.best:.0f} s, took {seconds:.0f} s, {refused} times 429"
        )
    beyond = [sum(o[0] > factor for o in over) for factor in (1.0, 1.5, 2.0, 4.0)]
    print(f"Of {count}, longer than asked: {beyond[0]}; 1.5 times: {beyond[1]}; ", end="")
    print(f"twice: {beyond[2]}; four times: {beyond[3]}.")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--alone", action="store_true")
    parser.add_argument("--restart", action="store_true")
    parser.add_argument("--sweep", type=int)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if options.sweep:
        sweep(options.sweep, options.processes)
        return 0
    if options.restart:
        return 0 if restart_table(options.seeds, options.processes) else 1
    rows = [*used_up(), *refused_at_first(), *refused_later()]
    met = table("The pacer alone", alone, rows, options.seeds, options.processes)
    met &= windows_table(options.seeds)
    retry_after_table(options.seeds)
    memory_table(options.seeds)
    if not options.alone:
        met &= table("The whole client", client, rows, options.seeds, options.processes)
        met &= restart_table(options.seeds, options.processes)
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main())
