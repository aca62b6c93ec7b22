"""The part of `reliability.py` for runs with a journal.

`kills` and `deaths` have real processes over real sockets; the others are in virtual time.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import multiprocessing
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test
from journal.server import PostgresServer, binaries
from reliability.fleet import Plan, sail
from reliability.machine import Sessions
from reliability.processes import Tally, die_everywhere, kill_runs
from reliability.schedules import Verdict, replay
from reliability.variants import VARIANTS

from segments_async.sandbox import TokenBucket

#: Schedules that a process takes at a time, and kills in one process of the pool.
_SHARE = 50
_KILLS = 100

# --------------------------------------------------------------------- schedules


def schedules(options: argparse.Namespace) -> bool:
    """Seeded schedules of faults over the sessions of one run."""
    if options.schedule is not None:
        verdict = replay(options.schedule)
        print(verdict)
        return not verdict.complaints
    print(f"\nSchedules: {options.schedules}, seeds from {options.seed}\n", flush=True)
    started = time.monotonic()
    stop = options.seed + options.schedules
    shares = [range(at, min(at + _SHARE, stop)) for at in range(options.seed, stop, _SHARE)]
    verdicts: list[Verdict] = []
    with multiprocessing.Pool(options.processes) as pool:
        for share in pool.imap_unordered(_play_share, shares):
            verdicts += share
            _print_found(f"seed {v.seed}: {c}" for v in share for c in v.complaints)
    print("| schedules | sessions | killed | POSTs | files | unknown | complaints | seconds |")
    print("|--:|--:|--:|--:|--:|--:|--:|--:|")
    print(
        f"| {len(verdicts)} | {sum(v.sessions for v in verdicts)} "
        f"| {sum(v.kills for v in verdicts)} | {sum(v.posts for v in verdicts)} "
        f"| {sum(v.exported for v in verdicts)} | {sum(v.unknown for v in verdicts)} "
        f"| {sum(len(v.complaints) for v in verdicts)} | {time.monotonic() - started:.0f} |"
    )
    return not any(v.complaints for v in verdicts)


def _play_share(seeds: Sequence[int]) -> list[Verdict]:
    _quiet()
    return [replay(seed) for seed in seeds]


# --------------------------------------------------------------------- processes

_KILLS_HEADER = (
    "| | runs | kills | POSTs | files | unknown | per kill | at most | complaints | seconds |\n"
    "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
)


def kills(options: argparse.Namespace) -> bool:
    """Kill -9 of real processes at random moments."""
    print(f"\nkill -9: {options.kills}, seed {options.seed}\n", flush=True)
    started = time.monotonic()
    jobs = [
        (options.seed * 1_000_000 + at, min(_KILLS, options.kills - at))
        for at in range(0, options.kills, _KILLS)
    ]
    tally = Tally()
    with multiprocessing.Pool(options.processes) as pool:
        for share in pool.imap_unordered(_kill_share, jobs):
            tally.add(share)
            _print_found(share.complaints)
    print(_KILLS_HEADER)
    few = tally.unknown_per_kill <= tally.most_unknown_per_kill
    _print_tally("kill -9", tally, f"{tally.most_unknown_per_kill:.2f}", started)
    return few and not tally.complaints


def _kill_share(job: tuple[int, int]) -> Tally:
    _quiet()
    with tempfile.TemporaryDirectory() as directory:
        return kill_runs(Path(directory), *job, lambda: None)


def fleet(options: argparse.Namespace) -> bool:
    """Several processes with one account and one journal, some killed."""
    print(f"\n8 processes, {options.jobs} exports, 20 kills, seed {options.seed}\n", flush=True)
    plan = Plan(8, options.jobs, 20, TokenBucket(100, 200), longest=20.0)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        found = sail(Path(directory), options.seed, plan)
    _print_found(found.complaints)
    print(
        "| POSTs | files | unknown | 429s | busiest second | at most | seconds over the limit's "
        "| complaints | seconds |\n|--:|--:|--:|--:|--:|--:|--:|--:|--:|\n"
        f"| {found.posts} | {found.exported} | {found.unknown} | {found.throttled:.2%} "
        f"| {found.busiest} | {found.allowed:.0f} | {found.over_bound:.3f} "
        f"| {len(found.complaints)} | {time.monotonic() - started:.0f} |"
    )
    return not found.complaints and found.busiest <= found.allowed


def deaths(_: argparse.Namespace) -> bool:
    """Death at every journal write and file operation."""
    print("\nDeath at every durable operation\n", flush=True)
    found: dict[str, Tally] = {}
    print(_KILLS_HEADER)
    with contextlib.ExitStack() as stack:
        journals: dict[str, Callable[[], str | None]] = {"SQLite": lambda: None}
        try:
            binaries()
        except AssertionError:
            print("(no PostgreSQL here)")
        else:
            journals["PostgreSQL"] = stack.enter_context(PostgresServer()).schema
        for name, journal in journals.items():
            started = time.monotonic()
            with tempfile.TemporaryDirectory() as directory:
                found[name] = die_everywhere(Path(directory), journal)
            _print_found(found[name].complaints)
            _print_tally(name, found[name], "", started)
    return not any(tally.complaints for tally in found.values())


def _print_tally(name: str, tally: Tally, most: str, started: float) -> None:
    print(
        f"| {name} | {tally.runs} | {tally.kills} | {tally.posts} | {tally.exported} "
        f"| {tally.unknown} | {tally.unknown_per_kill:.2f} | {most} | {len(tally.complaints)} "
        f"| {time.monotonic() - started:.0f} |",
        flush=True,
    )


# --------------------------------------------------------------------- the state machine


def machine(options: argparse.Namespace) -> bool:
    """Sessions of one run as Hypothesis draws them, against a dictionary."""
    print(
        f"\nState machine: {options.examples} x {options.steps}, seed {options.seed}\n", flush=True
    )
    started = time.monotonic()
    count = -(-options.examples // options.processes)
    jobs = [(options.seed * 1_000 + n, count, options.steps) for n in range(options.processes)]
    with multiprocessing.Pool(options.processes) as pool:
        found = [what for what in pool.imap_unordered(_run_machine, jobs) if what is not None]
    _print_found(found)
    print("| examples | steps each, at most | failures | seconds |\n|--:|--:|--:|--:|")
    print(
        f"| {count * options.processes} | {options.steps} | {len(found)} "
        f"| {time.monotonic() - started:.0f} |"
    )
    return not found


def _run_machine(job: tuple[int, int, int]) -> str | None:
    _quiet()
    number, examples, steps = job
    try:
        run_state_machine_as_test(
            seed(number)(Sessions),
            settings=settings(
                max_examples=examples,
                stateful_step_count=steps,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
            ),
        )
    except Exception as exc:  # noqa: BLE001 - whatever it found is told
        return f"seed {number}: {exc!r}\n" + "\n".join(getattr(exc, "__notes__", []))
    return None


# --------------------------------------------------------------------- broken variants


def variants(options: argparse.Namespace) -> bool:
    """The number of schedules that catch each deliberately broken variant."""
    print(f"\nBroken variants, on {_SHARE} schedules each\n", flush=True)
    print("| variant | schedules that caught it | the first |\n|---|--:|--:|")
    well = True
    for name, (broken, complaint) in VARIANTS.items():
        with broken():
            verdicts = _play_share(range(options.seed, options.seed + _SHARE))
        caught = [v.seed for v in verdicts if any(complaint in c for c in v.complaints)]
        well &= bool(caught)
        print(f"| {name} | {len(caught)} | {caught[0] if caught else 'none'} |")
    return well


# ------------------------------------------------------------------------- all


def _print_found(complaints: Iterator[str] | Sequence[str]) -> None:
    for complaint in complaints:
        print(complaint, flush=True)


def _quiet() -> None:
    random.seed(1)
    logging.getLogger("segments_async").setLevel(logging.CRITICAL)


#: By the word for `--only`: prints its table, and returns whether all promises held.
METHODS: Mapping[str, Callable[[argparse.Namespace], bool]] = {
    "schedules": schedules,
    "kills": kills,
    "fleet": fleet,
    "deaths": deaths,
    "machine": machine,
    "variants": variants,
}


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of these methods."""
    group = parser.add_argument_group("runs")
    group.add_argument("--schedules", type=int, default=10_000)
    group.add_argument("--schedule", type=int, help="play the schedule of this seed again")
    group.add_argument("--kills", type=int, default=2_000)
    group.add_argument("--jobs", type=int, default=10_000, help="exports of the fleet")
    group.add_argument("--examples", type=int, default=5_000, help="of the state machine")
    group.add_argument("--steps", type=int, default=100, help="of each of them")
