"""What the journal of a run costs: statements and commits for each export, and what each is for.

Several clients share one run in virtual time, against the sandbox, each with a pacer of its own, as
processes have. In virtual time a commit takes no time, so that no two events meet in one because
the disk is slow: on a machine with other work there are fewer commits, never more. The last column
is the number of exports that a kill at a random moment makes unknown, on average: those whose
INTENT is durable and whose id isn't.

    python benchmarks/commits.py                            # eight clients and one, 100 and 1000/s
    python benchmarks/commits.py --clients 8 --rate 100 --callers
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import sys
import tempfile
from collections.abc import Generator
from pathlib import Path

import anyio

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

from client.vendor import connected
from journal.server import PostgresServer
from journal.statements import Counts, counted
from scratch import fast

from segments_async import Pacer
from segments_async.sandbox import Durations, Sandbox, TokenBucket
from segments_async.testing import virtual_time

#: Seconds of the vendor's answer to each request.
LATENCY = 0.03

_HEAD = (
    "journal", "clients", "requests/s", "exports/s of each", "statements / export",
    "commits / export", "exports on the wire of each",
)  # fmt: skip


async def share(where: str, to: Path, clients: int, exports: int, rate: float) -> float:
    """Let the clients share a run. Returns the seconds that it took."""
    sandbox = Sandbox(
        segments=exports,
        rows=5,
        seed=1,
        latency=LATENCY,
        durations=Durations(1.0, 0.7),
        limit=TokenBucket(rate, 20),
    )

    async def work() -> None:
        async with connected(sandbox, pacer=Pacer()) as client:
            await client.bulk_export(
                sandbox.segment_ids, to, journal=where, run="nightly", shared=True
            )

    began = anyio.current_time()
    async with anyio.create_task_group() as tasks:
        for _ in range(clients):
            tasks.start_soon(work)
    if sorted(sandbox.record.exports_per_segment()) != sorted(sandbox.segment_ids):
        raise AssertionError("a segment without an export")
    return anyio.current_time() - began


def measure(journal: str, where: str, to: Path, clients: int, rate: float) -> Counts:
    """Measure one run, and print its line."""
    exports = int(min(2400, max(400, 8 * rate)))
    backend, options = virtual_time("asyncio")
    with counted() as counts:
        seconds = anyio.run(
            share, where, to, clients, exports, rate, backend=backend, backend_options=options
        )
    texts = (
        journal,
        str(clients),
        f"{rate:g}",
        f"{exports / seconds / clients:.1f}",
        f"{counts.statements.total() / exports:.1f}",
        f"{counts.commits.total() / exports:.2f}",
        f"{sum(counts.exposed) / seconds / clients:.2f}",
    )
    print("| " + " | ".join(texts) + " |", flush=True)
    return counts


def _print_callers(counts: Counts) -> None:
    exports = len(counts.exposed)
    print(f"\n{'for each export':<44} statements  commits")
    for caller, number in counts.statements.most_common():
        print(f"  {caller:<42} {number / exports:10.3f} {counts.commits[caller] / exports:8.3f}")
    print(f"\n{'events of one commit':<44} commits for each export")
    for kinds, number in counts.batches.most_common(12):
        print(f"  {kinds or 'none':<42} {number / exports:10.3f}")
    print()


@contextlib.contextmanager
def _place(journal: str, directory: str) -> Generator[str]:
    if journal == "sqlite":
        yield str(Path(directory) / "runs.db")
        return
    with PostgresServer() as server:
        yield server.schema()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rate", type=float, nargs="+", default=[100.0, 1000.0])
    parser.add_argument("--journal", nargs="+", default=["sqlite"])
    parser.add_argument("--callers", action="store_true", help="what each is for")
    options = parser.parse_args()
    print("| " + " | ".join(_HEAD) + " |\n|" + "---|" * len(_HEAD), flush=True)
    for journal, clients, rate in itertools.product(options.journal, options.clients, options.rate):
        with (
            tempfile.TemporaryDirectory(dir=fast()) as directory,
            _place(journal, directory) as where,
        ):
            counts = measure(journal, where, Path(directory) / "out", clients, rate)
        if options.callers:
            _print_callers(counts)


if __name__ == "__main__":
    main()
