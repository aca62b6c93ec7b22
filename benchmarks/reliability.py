"""Tests of the promises with large numbers of cases; the test suite runs small numbers.

Prints a table for each method, and exits 1 where a method found a broken promise.

    python benchmarks/reliability.py                                        # all of it, an hour
    python benchmarks/reliability.py --only schedules --schedules 10000 --seed 7
    python benchmarks/reliability.py --only schedules --schedule 4711
    python benchmarks/reliability.py --only kills --kills 2000
    python benchmarks/reliability.py --only fleet --jobs 10000
    python benchmarks/reliability.py --only deaths machine variants
    python benchmarks/reliability.py --only fuzzing --inputs 1000000 --seed 7
    python benchmarks/reliability.py --only fuzzing --decoder sidecar --seed 7 --number 4711

The last command repeats one input and shows its result; `--schedule` does so with a schedule.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).parent), str(Path(__file__).parents[1] / "tests")]

import reliability_runs
from fuzz.decoders import DECODERS
from fuzz.fuzzing import Decoder, Tally, fuzz
from fuzz.inputs import Inputs

# --------------------------------------------------------------------- fuzzing

#: Inputs that a process takes at a time.
_SHARE = 2_000

_Job = tuple[int, int, int, int]


def fuzzing(options: argparse.Namespace) -> bool:
    """Every decoder of a server's or a disk's data, on inputs from a seed."""
    chosen = [n for n, decoder in enumerate(DECODERS) if options.decoder in decoder.name]
    if options.number is not None:
        clean = [_replayed(DECODERS[n], options.seed, options.number) for n in chosen]
        return all(clean)
    print(f"\nFuzzing: {options.inputs} inputs, seed {options.seed}\n", flush=True)
    started = time.monotonic()
    tallies = {n: Tally(DECODERS[n].name) for n in chosen}
    jobs = _shares(chosen, options.inputs, options.seed)
    with multiprocessing.Pool(options.processes) as pool:
        for n, tally in pool.imap_unordered(_fuzz_share, jobs):
            tallies[n].add(tally)
    _print_tallies(list(tallies.values()))
    print(f"\n{time.monotonic() - started:.0f} s in {options.processes} processes")
    return all(tally.clean for tally in tallies.values())


def _shares(chosen: list[int], inputs: int, seed: int) -> Iterator[_Job]:
    for place, n in enumerate(chosen):
        # The first processes take the remainder.
        count = inputs // len(chosen) + (place < inputs % len(chosen))
        for start in range(0, count, _SHARE):
            yield n, seed, start, min(start + _SHARE, count)


def _fuzz_share(job: _Job) -> tuple[int, Tally]:
    n, seed, start, stop = job
    return n, fuzz(DECODERS[n], seed, range(start, stop))


def _print_tallies(tallies: list[Tally]) -> None:
    print("| decoder | inputs | own errors | foreign errors | broken claims | slowest input, ms |")
    print("|---|--:|--:|--:|--:|--:|")
    for t in tallies:
        print(
            f"| `{t.decoder}` | {t.inputs} | {t.own} | {t.foreign} | {t.broken + t.slow} "
            f"| {1000 * t.slowest:.1f} |"
        )
    total = Tally("all")
    for t in tallies:
        total.add(t)
    print(
        f"| all | {total.inputs} | {total.own} | {total.foreign} | {total.broken + total.slow} "
        f"| {1000 * total.slowest:.1f} |"
    )
    for t in tallies:
        for fault in t.faults:
            print(f"{t.decoder}, number {fault.number}: {fault.kind}: {fault.what!a}")


def _replayed(decoder: Decoder[Any, Any], seed: int, number: int) -> bool:
    given = decoder.make(Inputs(f"{seed}/{decoder.name}/{number}"))
    print(f"{decoder.name}, seed {seed}, number {number}: {given!a:.4000}")
    tally = fuzz(decoder, seed, [number])
    print(tally)
    return tally.clean


# ------------------------------------------------------------------------- all

#: By the word for `--only`: prints its table, and returns whether all promises held.
METHODS: Mapping[str, Callable[[argparse.Namespace], bool]] = {
    "fuzzing": fuzzing,
    **reliability_runs.METHODS,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=METHODS, default=list(METHODS))
    parser.add_argument("--seed", type=int, default=1, help="what all chance follows from")
    parser.add_argument("--processes", type=int, default=multiprocessing.cpu_count())
    fuzz_options = parser.add_argument_group("fuzzing")
    fuzz_options.add_argument("--inputs", type=int, default=1_000_000)
    fuzz_options.add_argument("--decoder", default="", help="only those with this in their name")
    fuzz_options.add_argument("--number", type=int, help="show this input, and what becomes of it")
    reliability_runs.add_options(parser)
    options = parser.parse_args()
    well = [METHODS[name](options) for name in options.only]
    return 0 if all(well) else 1


if __name__ == "__main__":
    sys.exit(main())
