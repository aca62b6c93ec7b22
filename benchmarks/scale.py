"""Several real processes share one run, while they are killed, stopped, or lied to.

Prints a table with a row for each kind of fault, and marks figures that miss their bounds. Exits 1
where an export was made twice or lost, a half file was left, or nobody went on with the work of a
process that died.

    python benchmarks/scale.py                 # 10 000 exports, 8 processes: about an hour
    python benchmarks/scale.py --quick         # 200 exports, 4 processes: a minute
    python benchmarks/scale.py --faults none kill --processes 1 8 --journal sqlite

The faults, each in a run of its own:

    none    nothing: how long 4, and 8, processes take together
    kill    SIGKILL to a process at random times, which is started again
    term    the same with SIGTERM
    lies    every process gets every lock, and sees none: each believes that it owns all
    stop    one process stands still for a minute (SIGSTOP), and the clocks are an hour apart
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import resource
import signal
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

from forked import shared_fork_server
from journal.server import PostgresServer
from reliability.crew import Found, Plan, share
from reliability.judge import busiest_second
from scratch import fast

from segments_async.sandbox import TokenBucket

#: Seconds after which nobody goes on with the work of a process that died.
MOST_SECONDS = 60.0

#: The bounds of a run on processors of its own; a busy machine may miss those of time.
TIMES_THE_LEAST = {1: 1.15, 4: 1.15, 8: 1.20}
SECONDS_AFTER = {signal.SIGKILL: 10.0, signal.SIGTERM: 1.0}
THROTTLED_SHARE, THROTTLED_MORE = 0.02, 15
TIMES_THE_RATE = 1.1

BURST = 20

_HEAD = (
    "journal", "processes", "exports", "fault", "twice or lost, half files", "unknown",
    "429", "busiest second", "time / least time", "statements / export", "commits / export",
    "processor ms / export", "s until the first, and the last, part goes on",
)  # fmt: skip

_FAULTS: Mapping[str, Mapping[str, Any]] = {
    "none": {},
    "kill": {"signal": signal.SIGKILL},
    "term": {"signal": signal.SIGTERM},
    "lies": {"lies": True},
    "stop": {"stop": 60.0, "clocks": 3600.0},
}


@attrs.frozen
class Row:
    """One measurement.

    Attributes:
        clean: whether all promises held.
        texts: of the table's columns. An exclamation mark: the figure misses its bound.
    """

    clean: bool
    texts: Sequence[str]


def measure(
    directory: Path, seed: int, plan: Plan, names: tuple[str, str], journal: str | None
) -> Row:
    """Let the processes work, and count. `names`: of the journal and of the fault."""
    before = _processor_seconds()
    found = share(directory, seed, plan, journal)
    shared_fork_server().close()  # its processes are counted once it has ended
    processor = _processor_seconds() - before
    for complaint in found.complaints[:20]:
        print(f"  {complaint}")
    written = Counter[str]()
    for path in directory.glob("log-*.sql"):
        written.update(path.read_text())
    delays = _delays(directory, found.kills)
    exports = plan.segments
    texts = (
        names[0],
        str(plan.processes),
        str(exports),
        names[1],
        str(len(found.complaints)),
        str(found.unknown),
        *_of_the_limit(found, plan),
        f"{(written['r'] + written['w']) / exports:.1f}",
        f"{written['c'] / exports:.2f}",
        f"{1000 * processor / exports:.1f}",
        _told(delays, SECONDS_AFTER[signal.Signals(plan.signal)]) if delays else "",
    )
    slow = any(last > MOST_SECONDS for _, last in delays)
    return Row(not found.complaints and not slow, texts)


def _of_the_limit(found: Found, plan: Plan) -> tuple[str, str, str]:
    """The 429s, the busiest second, and the time over the least time for so many requests."""
    api = found.sandbox.record.api()
    refused = len(found.sandbox.record.throttled())
    rate, burst = plan.limit.rate, plan.limit.burst
    busiest = busiest_second(api, since=api[0].at + 0.05 * found.seconds)
    over_least = found.seconds / ((len(api) - refused - burst) / rate)
    return (
        f"{refused} of {len(api)}"
        + _missed(refused <= THROTTLED_SHARE * len(api) + THROTTLED_MORE),
        f"{busiest}" + _missed(busiest <= TIMES_THE_RATE * rate + burst),
        f"{over_least:.2f}" + _missed(over_least <= TIMES_THE_LEAST.get(plan.processes, 1.2)),
    )


def _missed(holds: bool) -> str:
    return "" if holds else " !"


def _processor_seconds() -> float:
    """Of all processes that have ended: the fork server is included, and the sandbox isn't."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _delays(directory: Path, kills: Sequence[float]) -> list[tuple[float, float]]:
    """For each kill, the seconds until other processes go on with the first and the last part.

    A process that is killed before it has a part leaves none.
    """
    lines = [
        float(line.split()[0])
        for path in directory.glob("log-*")
        if path.suffix != ".sql"
        for line in path.read_text().splitlines()
        if "is gone, and this process goes on" in line
    ]
    found: list[tuple[float, float]] = []
    for kill, following in itertools.pairwise([*kills, float("inf")]):
        if taken := [at - kill for at in lines if kill < at < following]:
            found.append((min(taken), max(taken)))
    return found


def _told(delays: Sequence[tuple[float, float]], bound: float) -> str:
    columns = [sorted(column) for column in zip(*delays, strict=True)]
    told = [f"{statistics.median(one):.1f} (at most {one[-1]:.1f})" for one in columns]
    return ", ".join(told) + _missed(columns[0][-1] <= bound)


@contextlib.contextmanager
def _place(journal: str) -> Iterator[str | None]:
    if journal == "sqlite":
        yield None
        return
    with PostgresServer() as server:
        yield server.schema()


def _plans(options: argparse.Namespace, fault: str) -> Iterator[Plan]:
    quick, rate = options.quick, options.rate
    exports = options.exports or (200 if quick else 10_000)
    kills = (2 if quick else 20) if options.kills is None else options.kills
    kills = kills if fault in ("kill", "term") else 0
    usual = [4] if quick else [4, 8] if fault == "none" else [8]
    details = dict(_FAULTS[fault])
    if quick and "stop" in details:
        details["stop"] = 3.0
    for processes in options.processes or usual:
        yield Plan(
            processes=processes,
            segments=exports,
            kills=kills,
            limit=TokenBucket(rate, BURST),
            # About all kills are in the first two thirds of the run.
            longest=2 * exports * 2.2 / rate * 0.66 / max(1, kills),
            rows=20,
            logs=True,
            **details,
        )


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer exports, processes and kills")
    parser.add_argument("--exports", type=int)
    parser.add_argument("--processes", type=int, nargs="+")
    parser.add_argument("--kills", type=int)
    parser.add_argument("--faults", nargs="+", choices=list(_FAULTS), default=list(_FAULTS))
    parser.add_argument("--rate", type=float, default=100.0, help="requests/s of the account")
    parser.add_argument("--journal", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--disk", help="a directory on a disk; by default the files are in memory")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    clean = True
    print("| " + " | ".join(_HEAD) + " |\n|" + "---|" * len(_HEAD), flush=True)
    for journal, fault in itertools.product(options.journal, options.faults):
        for plan in _plans(options, fault):
            with (
                tempfile.TemporaryDirectory(dir=options.disk or fast()) as directory,
                _place(journal) as where,
            ):
                name = f"{plan.kills} x {fault}" if plan.kills else fault
                row = measure(Path(directory), options.seed, plan, (journal, name), where)
            print("| " + " | ".join(row.texts) + " |", flush=True)
            clean = clean and row.clean
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
