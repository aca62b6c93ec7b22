"""How close the client comes to the best possible under an unknown limit.

Drives the real client over the in-process sandbox in virtual time, beside clients that one might
write instead, against the clairvoyant bound. Prints tables; every figure follows from its seeds.

    python benchmarks/pacing.py                 # all scenarios, 5 seeds (20 minutes on two cores)
    python benchmarks/pacing.py --quick         # the small ones, two seeds: for every change
    python benchmarks/pacing.py --only 300 --seeds 2
    python benchmarks/pacing.py --rivals        # the other clients beside ours, one seed
    python benchmarks/pacing.py --large         # 100 000 exports
"""

from __future__ import annotations

import argparse
import multiprocessing
import random
import statistics
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import anyio
import attrs

sys.path[:0] = [str(Path(__file__).parents[1] / "tests"), str(Path(__file__).parent)]

import pacing_clients as clients
from pacing_scenarios import HEAVY, LARGE, SCENARIOS, Scenario, bounds, seconds_to_admit

from segments_async.sandbox import FixedWindow, Sandbox, TokenBucket
from segments_async.testing import virtual_time

SHARES = (0.0, 0.2)

#: A rival is stopped at so many times the bound.
STOP_AT = 3.0

#: With more exports than these, clients without a limiter send tens of millions of requests.
MOST_WITHOUT_LIMITER = 3_000
WITHOUT_LIMITER = ("naive", "backoff")

#: Scenarios for every change: together 20 s.
QUICK = ("1 000 at 10/s", "300 at 1/s", "3 000, 300 per 30 s")


@attrs.frozen
class Result:
    """The figures of one run of one client."""

    scenario: str
    client: str
    seed: int
    finished: bool
    makespan: float
    t90: float
    requests: int
    throttled: int
    polls_per_export: float
    duplicates: int
    delays_over: float
    """Share of exports noticed later than max(2 s, 5 % of the duration) after their end."""


def measure(
    scenario: Scenario, name: str, client: clients.Client, share: float, seed: int
) -> Result:
    """Run the client in virtual time, and judge it by the sandbox's record."""
    random.seed(seed)  # our client's own chance: the jitter of its probes
    sandbox = scenario.sandbox(seed)
    durations = [sandbox.duration(segment_id) for segment_id in sandbox.segment_ids]
    bound = bounds(scenario, durations, share)
    noticed: dict[str, float] = {}

    async def main() -> None:
        stop = None if name.startswith("ours") else STOP_AT * bound.makespan
        with anyio.move_on_after(stop):
            await client(sandbox, noticed)

    backend, options = virtual_time("asyncio")
    anyio.run(main, backend=backend, backend_options=options)
    return _judge(scenario, name, seed, sandbox, noticed, bound.makespan, bound.t90)


def _judge(
    scenario: Scenario,
    name: str,
    seed: int,
    sandbox: Sandbox,
    noticed: dict[str, float],
    bound: float,
    bound_t90: float,
) -> Result:
    record = sandbox.record
    times = sorted(noticed.values())
    finished = len(times) == scenario.exports
    late = 0
    for submit in record.submits():
        if not submit.acted or submit.segment_id not in noticed:
            continue
        duration = sandbox.duration(submit.segment_id)
        delay = noticed[submit.segment_id] - (submit.at + duration)
        late += delay > max(2.0, 0.05 * duration)
    return Result(
        scenario=scenario.name,
        client=name,
        seed=seed,
        finished=finished,
        makespan=times[-1] / bound if finished else STOP_AT,
        t90=times[int(0.9 * scenario.exports)] / bound_t90 if finished else STOP_AT,
        requests=len(record.api()),
        throttled=len(record.throttled()),
        polls_per_export=len(record.polls()) / scenario.exports,
        duplicates=len(record.duplicates()),
        delays_over=late / scenario.exports,
    )


def _job(arguments: tuple[Scenario, float, int]) -> Result:
    scenario, share, seed = arguments
    return measure(scenario, f"ours, {share:g}", clients.ours(share=share), share, seed)


def rival_job(arguments: tuple[Scenario, str]) -> Result:
    scenario, name = arguments
    known: dict[str, clients.Client] = {
        "naive": clients.naive,
        "backoff": clients.backoff,
        "adaptive": clients.adaptive,
        "told the rate": clients.told(scenario.true_rate),
        "ours, 0.2": clients.ours(),
    }
    return measure(scenario, name, known[name], 0.2, 1)


RIVALS = ("naive", "backoff", "adaptive", "told the rate", "ours, 0.2")


def own_table(scenarios: Sequence[Scenario], seeds: int, processes: int) -> bool:
    """Ours, share 0 and 0.2, means of the seeds against the goals."""
    jobs = [(s, share, seed) for s in scenarios for share in SHARES for seed in range(1, seeds + 1)]
    # The longest scenarios first, so that no process works alone at the end.
    jobs.sort(key=lambda job: -job[0].exports)
    with multiprocessing.Pool(processes) as pool:
        results = list(pool.imap_unordered(_job, jobs, chunksize=1))
    print(f"\nSeeds 1 to {seeds}; mean (worst). Over the clairvoyant bound; goals in brackets.\n")
    print("| scenario | share | makespan | T90 | 429s | polls/export | met |")
    print("|---|---|---|---|---|---|---|")
    met = True
    for scenario in scenarios:
        for share in SHARES:
            name = f"ours, {share:g}"
            rows = [r for r in results if (r.scenario, r.client) == (scenario.name, name)]
            met &= _print_row(scenario, share, rows)
    return met


def _print_row(scenario: Scenario, share: float, rows: Sequence[Result]) -> bool:
    mean = statistics.fmean
    goal, goal_t90 = scenario.goals(share)
    makespan, worst = mean(r.makespan for r in rows), max(r.makespan for r in rows)
    t90 = mean(r.t90 for r in rows)
    throttled, requests = mean(r.throttled for r in rows), mean(r.requests for r in rows)
    limit = scenario.throttled_goal(round(requests))
    met = (
        all(r.finished and not r.duplicates for r in rows)
        and makespan <= goal
        and worst <= goal + 0.05
        and (goal_t90 is None or t90 <= goal_t90)
        and throttled <= limit
    )
    t90_goal = "" if goal_t90 is None else f" [{goal_t90:.2f}]"
    print(
        f"| {scenario.name} | {share:g} | {makespan:.3f} ({worst:.3f}) [{goal:.2f}] "
        f"| {t90:.3f}{t90_goal} | {throttled:.0f} = {100 * throttled / requests:.2f} % "
        f"[{limit:.0f}] | {mean(r.polls_per_export for r in rows):.2f} "
        f"| {'yes' if met else '**no**'} |",
        flush=True,
    )
    return met


def rivals_table(scenarios: Sequence[Scenario], processes: int) -> None:
    """Ours beside the others, one seed."""
    jobs = [
        (s, name)
        for s in scenarios
        for name in RIVALS
        if s.exports <= MOST_WITHOUT_LIMITER or name not in WITHOUT_LIMITER
    ]
    with multiprocessing.Pool(processes) as pool:
        results = pool.map(rival_job, jobs, chunksize=1)
    print("\nSeed 1, share 0.2: makespan over the bound, and the share of 429s.\n")
    print("| scenario | " + " | ".join(RIVALS) + " |")
    print("|---" * (len(RIVALS) + 1) + "|")
    for scenario in scenarios:
        ran = {r.client: r for r in results if r.scenario == scenario.name}
        cells = [_rival_cell(ran.get(name)) for name in RIVALS]
        print(f"| {scenario.name} | " + " | ".join(cells) + " |", flush=True)


def _rival_cell(result: Result | None) -> str:
    if result is None:
        return "not run"
    ratio = f"{result.makespan:.3f}" if result.finished else "> 3"
    return f"{ratio}, {100 * result.throttled / max(1, result.requests):.1f} %"


# --------------------------------------------------------------------- figures of their own


def idle_hour(seed: int) -> tuple[float, float]:
    """Makespan over the bound of a run, and of the same run on the same client an hour later."""
    scenario = Scenario("1 000 at 10/s", 1_000, TokenBucket(10, 20), 10)
    sandbox = scenario.sandbox(seed)
    durations = [sandbox.duration(segment_id) for segment_id in sandbox.segment_ids]
    bound = bounds(scenario, durations, 0.0).makespan
    spans: list[float] = []

    async def main() -> None:
        await clients.twice(sandbox, spans, pause=3600.0)

    backend, options = virtual_time("asyncio")
    anyio.run(main, backend=backend, backend_options=options)
    return spans[0] / bound, spans[1] / bound


def limiter_alone(limit: TokenBucket | FixedWindow, count: int) -> tuple[float, int]:
    """Time over the best possible for `count` plain requests, and the number of 429s."""
    sandbox = Sandbox(limit=limit, latency=0.08)
    noticed: dict[str, float] = {}
    backend, options = virtual_time("asyncio")
    anyio.run(
        partial(clients.calls, sandbox, noticed, count),
        backend=backend,
        backend_options=options,
    )
    best = seconds_to_admit(limit, count) + 0.08
    return max(noticed.values()) / best, len(sandbox.record.throttled())


def longest_first(seed: int) -> tuple[float, float]:
    """Makespan with hints of lognormal error 1, over that of the order as given.

    Also the lowest ratio that any client can reach: no run is shorter than its longest export, or
    than the time in which the limit grants two requests for each export.
    """
    scenario = Scenario("", 10_000, TokenBucket(10, 20), 10, durations=HEAVY)
    given = measure(scenario, "ours", clients.ours(share=0.0), 0.0, seed)
    hinted = measure(
        scenario, "ours", clients.ours(share=0.0, hints=clients.noisy_hints(seed)), 0.0, seed
    )
    sandbox = scenario.sandbox(seed)
    durations = [sandbox.duration(segment_id) for segment_id in sandbox.segment_ids]
    given_seconds = given.makespan * bounds(scenario, durations, 0.0).makespan
    floor = max(seconds_to_admit(scenario.limit, 2 * scenario.exports), max(durations))
    return hinted.makespan / given.makespan, floor / given_seconds


def detection(seed: int) -> float:
    """Share of exports, from the 10th second on, noticed later than max(2 s, 5 %)."""
    scenario = Scenario("", 200, TokenBucket(200, 400), 200, durations=HEAVY)
    sandbox = scenario.sandbox(seed)
    noticed: dict[str, float] = {}
    backend, options = virtual_time("asyncio")
    anyio.run(partial(clients.ours(), sandbox, noticed), backend=backend, backend_options=options)
    considered = late = 0
    for submit in sandbox.record.submits():
        if not submit.acted or submit.segment_id is None:
            continue
        duration = sandbox.duration(submit.segment_id)
        ended = submit.at + duration
        if ended >= 10.0:
            considered += 1
            late += noticed[submit.segment_id] - ended > max(2.0, 0.05 * duration)
    return late / max(1, considered)


def own_figures(seeds: int) -> None:
    """The figures beside those of the scenarios."""
    numbers = range(1, seeds + 1)
    print(f"\nSeeds 1 to {seeds}.\n\n| figure | measured | goal |\n|---|---|---|")
    pairs = [idle_hour(seed) for seed in numbers]
    first, second = (statistics.fmean(column) for column in zip(*pairs, strict=True))
    print(f"| second run after an idle hour, over the first | {second / first:.3f} | 1 |")
    for rate, burst in ((1, 2), (10, 20), (37, 80), (100, 200)):
        limit = TokenBucket(rate, burst)
        ratio, throttled = limiter_alone(limit, round(300 * limit.rate**0.75))
        print(
            f"| limiter alone, {limit.rate:g}/s, burst {limit.burst:g} "
            f"| {ratio:.3f}, {throttled} times 429 | 1.05 |"
        )
    ratios, floors = zip(*(longest_first(seed) for seed in numbers), strict=True)
    print(
        "| longest first, hints of lognormal error 1, over the given order "
        f"| {statistics.fmean(ratios):.3f}, the best possible being {statistics.fmean(floors):.3f} "
        "| 0.75 |"
    )
    late = statistics.fmean(detection(seed) for seed in numbers)
    print(f"| noticed later than max(2 s, 5 %), not saturated | {100 * late:.1f} % | 5 % |")


def _chosen(only: str | None, *, quick: bool) -> Iterator[Scenario]:
    for scenario in SCENARIOS:
        if quick:
            if scenario.name.removesuffix(", Retry-After") in QUICK:
                yield scenario
        elif only is None or only in scenario.name:
            yield scenario


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rivals", action="store_true")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--figures", action="store_true")
    parser.add_argument("--only")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    if options.large:
        met = own_table([LARGE], options.seeds, options.processes)
        told = measure(LARGE, "told the rate", clients.told(LARGE.true_rate), 0.2, 1)
        print(f"\nTold the rate, seed 1, share 0.2: {told.makespan:.3f} of the bound.")
        return 0 if met else 1
    if options.rivals:
        rivals_table(list(_chosen(options.only, quick=options.quick)), options.processes)
    elif options.figures:
        own_figures(options.seeds)
    else:
        seeds = 2 if options.quick else options.seeds
        chosen = list(_chosen(options.only, quick=options.quick))
        return 0 if own_table(chosen, seeds, options.processes) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
