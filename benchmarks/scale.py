"""Several real processes share one run, and some are killed with SIGKILL at random times.

Prints a table, and exits 1 where an export was made twice, lost, or left a half file.

    python benchmarks/scale.py                 # 10 000 exports, 8 processes, 20 kills: ten minutes
    python benchmarks/scale.py --quick         # 600 exports, 4 processes, 4 kills: a minute
    python benchmarks/scale.py --processes 1 8 --kills 0 --journal sqlite
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import resource
import statistics
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

from journal.server import PostgresServer
from reliability.crew import Found, Plan, share
from scratch import fast

from segments_async.sandbox import TokenBucket

#: Seconds after a kill within which another process has to go on with the work.
MOST_SECONDS = 10.0

_HEAD = (
    "journal", "processes", "exports", "kills", "twice or lost, half files", "unknown",
    "429", "time / least time", "statements / export", "commits / export",
    "processor ms / export", "s until a part goes on",
)  # fmt: skip


@attrs.frozen
class Row:
    """One measurement.

    Attributes:
        found: by the judge.
        clean: whether all promises held.
        texts: of the table's columns.
    """

    found: Found
    clean: bool
    texts: Sequence[str]


def measure(directory: Path, seed: int, plan: Plan, name: str, journal: str | None) -> Row:
    """Let the processes work, and count."""
    before = _processor_seconds()
    found = share(directory, seed, plan, journal)
    processor = _processor_seconds() - before
    api = found.sandbox.record.api()
    throttled = len(found.sandbox.record.throttled())
    least = (len(api) - throttled - plan.limit.burst) / plan.limit.rate
    written = Counter[str]()
    for path in directory.glob("log-*.sql"):
        written.update(path.read_text())
    delays = _delays(directory, found.kills)
    exports = plan.segments
    statements = (written["r"] + written["w"]) / exports
    texts = (
        name,
        str(plan.processes),
        str(exports),
        str(len(found.kills)),
        str(len(found.complaints)),
        str(found.unknown),
        f"{100 * throttled / len(api):.1f} %",
        f"{found.seconds / least:.2f}",
        f"{statements:.1f}",
        f"{written['c'] / exports:.2f}",
        f"{1000 * processor / exports:.1f}",
        f"{statistics.median(delays):.1f}, at most {max(delays):.1f}" if delays else "",
    )
    for complaint in found.complaints[:20]:
        print(f"  {complaint}")
    slow = any(delay > MOST_SECONDS for delay in delays)
    return Row(found, not found.complaints and not slow, texts)


def _processor_seconds() -> float:
    """Of all processes that have ended: their starts are included, and the sandbox isn't."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _delays(directory: Path, kills: Sequence[float]) -> list[float]:
    """Seconds from each kill to the line of the process that goes on with the last of its parts.

    A process that is killed before it has a part leaves none.
    """
    lines = [
        float(line.split()[0])
        for path in directory.glob("log-*")
        if path.suffix != ".sql"
        for line in path.read_text().splitlines()
        if "is gone, and this process goes on" in line
    ]
    found: list[float] = []
    for kill, following in itertools.pairwise([*kills, float("inf")]):
        if taken := [at - kill for at in lines if kill < at < following]:
            found.append(max(taken))
    return found


@contextlib.contextmanager
def _place(journal: str) -> Iterator[str | None]:
    if journal == "sqlite":
        yield None
        return
    with PostgresServer() as server:
        yield server.schema()


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer exports, processes and kills")
    parser.add_argument("--exports", type=int)
    parser.add_argument("--processes", type=int, nargs="+")
    parser.add_argument("--kills", type=int)
    parser.add_argument("--rate", type=float, default=100.0, help="requests/s of the account")
    parser.add_argument("--journal", nargs="+", default=["sqlite", "postgresql"])
    parser.add_argument("--disk", help="a directory on a disk; by default the files are in memory")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    exports = options.exports or (600 if options.quick else 10_000)
    kills = (4 if options.quick else 20) if options.kills is None else options.kills
    clean = True
    print("| " + " | ".join(_HEAD) + " |\n|" + "---|" * len(_HEAD), flush=True)
    for journal in options.journal:
        for processes in options.processes or [4 if options.quick else 8]:
            plan = Plan(
                processes=processes,
                segments=exports,
                kills=kills,
                limit=TokenBucket(options.rate, 20),
                # About all kills are in the first two thirds of the run.
                longest=2 * exports * 2.2 / options.rate * 0.66 / max(1, kills),
                rows=20,
                logs=True,
            )
            with (
                tempfile.TemporaryDirectory(dir=options.disk or fast()) as directory,
                _place(journal) as where,
            ):
                row = measure(Path(directory), options.seed, plan, journal, where)
            print("| " + " | ".join(row.texts) + " |", flush=True)
            clean = clean and row.clean
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
