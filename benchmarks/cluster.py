"""A bulk export on the workers of an executor, some of which are killed at random times (SIGKILL).

Prints a table, and exits 1 where an export was made twice, lost, or left a half file.

    python benchmarks/cluster.py              # 2 000 exports, 4 workers, 6 kills, each executor
    python benchmarks/cluster.py --quick      # 200 exports, 2 workers, 2 kills: two minutes
    python benchmarks/cluster.py --executor dask --kills 0
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import random
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import anyio
import attrs

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

from cluster.executors import children, dask_cluster
from reliability.judge import Contents, Told, duplicates, half_files, unaccounted
from scratch import fast

from segments_async.cluster import ProcessPool, export_on
from segments_async.sandbox import (
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    Durations,
    Sandbox,
    TokenBucket,
)
from segments_async.sandbox.server import SandboxServer

_HEAD = (
    "executor", "workers", "exports", "workers killed", "exports made twice",
    "without an outcome, half files", "unknown", "batches given out again", "time / least time",
)  # fmt: skip

Pids = Callable[[], list[int]]


@attrs.frozen
class Options:
    """The arguments."""

    exports: int
    workers: int
    kills: int
    rate: float
    batch: int
    seed: int


@contextlib.contextmanager
def process_pool(workers: int) -> Iterator[tuple[Executor, Pids]]:
    with ProcessPool(workers) as pool:
        yield pool, lambda: list(children())


@contextlib.contextmanager
def dask(workers: int) -> Iterator[tuple[Executor, Pids]]:
    with dask_cluster(workers) as (client, cluster):

        def found() -> list[int]:
            # Those that have started: a nanny whose worker dies before that doesn't start another.
            nannies: Any = list(cluster.workers.values())
            ready = dict(cluster.scheduler.workers)
            return [one.process.pid for one in nannies if one.worker_address in ready]

        # In the place of a nanny that gave up: its worker was killed once more while it started.
        cluster.adapt(minimum=workers, maximum=workers)
        yield client.get_executor(), found


EXECUTORS = {"ProcessPool": process_pool, "dask": dask}


class Killer(threading.Thread):
    """Kills workers at random times, which cover about two thirds of the run."""

    def __init__(self, found: Pids, options: Options) -> None:
        super().__init__(daemon=True)
        self._found = found
        self._options = options
        self._chance = random.Random(f"cluster {options.seed}")
        self._over = threading.Event()
        self.kills = 0

    def run(self) -> None:
        options = self._options
        longest = 2 * options.exports * 2.2 / options.rate * 0.66 / max(1, options.kills)
        while self.kills < options.kills:
            if self._over.wait(self._chance.uniform(0.5, longest)):
                return
            if alive := sorted(self._found()):
                # Processes of this benchmark's own executor.
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self._chance.choice(alive), signal.SIGKILL)
                    self.kills += 1

    def stop(self) -> None:
        self._over.set()
        self.join()


class Again(logging.Handler):
    """Counts the batches that are given out again."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def emit(self, record: logging.LogRecord) -> None:
        if "is given out again" in record.getMessage():
            self.count += 1
            print(f"  {record.getMessage()}", file=sys.stderr)


async def export(executor: Executor, sandbox: Sandbox, directory: Path, batch: int) -> list[Told]:
    async with export_on(
        executor,
        sandbox.segment_ids,
        directory / "exports",
        journal=directory / "runs.db",
        run="benchmark",
        batch=batch,
        client={"file_hosts": ["127.0.0.1"]},
    ) as run:
        return [Told.of(outcome) async for outcome in run]


def measure(name: str, options: Options, directory: Path) -> bool:
    """Run, kill, judge by the sandbox's record, and print a row. Returns whether all is well."""
    sandbox = Sandbox(
        segments=options.exports,
        rows=20,
        seed=options.seed,
        latency=0.03,
        durations=Durations(1.0, 0.7),
        limit=TokenBucket(options.rate, 20),
    )
    contents = Contents(sandbox)
    again = Again()
    logging.getLogger("segments_async").addHandler(again)
    with SandboxServer(sandbox) as server:
        os.environ["SEGMENTS_API_KEY"] = PAGE_API_KEY
        os.environ["SEGMENTS_ACCESS_TOKEN"] = PAGE_ACCESS_TOKEN
        os.environ["SEGMENTS_BASE_URL"] = server.base_url
        with EXECUTORS[name](options.workers) as (executor, found):
            killer = Killer(found, options)
            killer.start()
            told = anyio.run(export, executor, sandbox, directory, options.batch)
            killer.stop()
    logging.getLogger("segments_async").removeHandler(again)
    twice = duplicates(sandbox.record)
    other = unaccounted(sandbox, contents, told, killed=options.kills > 0)
    other += half_files(contents, directory / "exports")
    for complaint in [*twice, *other][:20]:
        print(f"  {complaint}")
    api = sandbox.record.api()
    least = (len(api) - len(sandbox.record.throttled()) - 20) / options.rate
    row = (
        name, options.workers, options.exports, killer.kills, len(twice), len(other),
        sum(one.error == "SubmitUnknownError" for one in told), again.count,
        f"{(api[-1].at - api[0].at) / least:.2f}",
    )  # fmt: skip
    print("| " + " | ".join(map(str, row)) + " |", flush=True)
    return not twice and not other


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer exports, workers and kills")
    parser.add_argument("--executor", nargs="+", default=list(EXECUTORS), choices=EXECUTORS)
    parser.add_argument("--exports", type=int)
    parser.add_argument("--workers", type=int)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--rate", type=float, default=100.0, help="requests/s of the account")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    options = Options(
        exports=given.exports or (200 if given.quick else 2000),
        workers=given.workers or (2 if given.quick else 4),
        kills=(2 if given.quick else 6) if given.kills is None else given.kills,
        rate=given.rate,
        batch=given.batch or (20 if given.quick else 100),
        seed=given.seed,
    )
    print("| " + " | ".join(_HEAD) + " |\n|" + "---|" * len(_HEAD), flush=True)
    clean = True
    for name in given.executor:
        with tempfile.TemporaryDirectory(dir=fast()) as directory:
            clean = measure(name, options, Path(directory)) and clean
    return 0 if clean else 1


if __name__ == "__main__":
    began = time.monotonic()
    code = main()
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    sys.exit(code)
