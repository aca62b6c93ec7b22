"""The cost of the client: requests/s over real sockets, and processor time per request.

Both are compared with bare httpx, in interleaved rounds, since other programs use the machine too.
Prints tables and exits 1 when a goal is missed.

    python benchmarks/requests_per_second.py                    # both, some four minutes
    python benchmarks/requests_per_second.py --only processor   # or: sockets
    python benchmarks/requests_per_second.py --rounds 3
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import math
import multiprocessing
import statistics
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import anyio
import attrs
import httpx

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from segments_async import Pacer, SegmentsClient
from segments_async.sandbox import (
    API_ORIGIN,
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    PAGE_EXPORT_ID,
    Sandbox,
    SandboxTransport,
    TokenBucket,
)
from segments_async.sandbox.server import SandboxServer
from segments_async.testing import virtual_time

BACKENDS = ("asyncio", "trio")
AUTH = (PAGE_API_KEY, PAGE_ACCESS_TOKEN)
EXPORT = "/service/v1/segments/export/"

#: 1 000 waiting callers against one: at least this part of its requests/s.
LEAST_OF_ONE_CALLER = 0.6

#: Processor time per request over bare httpx's, at most.
MOST_OVER_BARE = 1.5

#: Seconds before counting, for connections to be made; and seconds of counting.
WARM_UP = 0.5
COUNTING = 2.0

#: Exports of one run whose processor time is taken.
EXPORTS = 2_000

#: Sends one request to the vendor.
Request = Callable[[], Awaitable[object]]

# --------------------------------------------------------------------- over real sockets


@attrs.frozen
class Contender:
    """A client, and the number of callers that share it."""

    name: str
    connected: Callable[[str], contextlib.AbstractAsyncContextManager[Request]]
    callers: int


@contextlib.asynccontextmanager
async def _ours(base_url: str) -> AsyncGenerator[Request]:
    async with SegmentsClient(*AUTH, base_url=base_url, pacer=Pacer(rate=math.inf)) as client:
        yield partial(client.get_export, PAGE_EXPORT_ID)


@contextlib.asynccontextmanager
async def _bare(base_url: str) -> AsyncGenerator[Request]:
    limits = httpx.Limits(max_connections=64, max_keepalive_connections=64)
    # With 1 000 tasks and no time-out, httpx's pool is slow and not broken.
    async with httpx.AsyncClient(
        auth=AUTH, base_url=base_url, limits=limits, timeout=None
    ) as client:

        async def request() -> object:
            return (await client.get(EXPORT + PAGE_EXPORT_ID)).raise_for_status().json()

        yield request


CONTENDERS = (
    Contender("ours", _ours, 1),
    Contender("ours", _ours, 64),
    Contender("ours", _ours, 1_000),
    Contender("bare httpx, one pool of 64", _bare, 1),
    Contender("bare httpx, one pool of 64", _bare, 64),
)


async def requests_per_second(contender: Contender, base_url: str) -> float:
    """Requests/s of all callers together, once connections are made."""
    answered, rate = 0, math.nan

    async def caller(request: Request) -> None:
        nonlocal answered
        while True:
            await request()
            answered += 1

    async with contender.connected(base_url) as request, anyio.create_task_group() as tasks:
        for _ in range(contender.callers):
            tasks.start_soon(caller, request)
        await anyio.sleep(WARM_UP)
        before, began = answered, time.perf_counter()
        await anyio.sleep(COUNTING)
        rate = (answered - before) / (time.perf_counter() - began)
        tasks.cancel_scope.cancel()
    return rate


@contextlib.contextmanager
def sandbox_process() -> Generator[str]:
    """A sandbox server in a process of its own, so that its processor time isn't ours."""
    # Not forked: a fork would hold copies of all files that this process has open.
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    try:
        yield ours.recv()
    finally:
        ours.close()  # which ends the server
        process.join()


def _serve(parent: Connection) -> None:
    with SandboxServer(Sandbox()) as server, contextlib.suppress(EOFError):
        parent.send(server.base_url)
        parent.recv()


def sockets(rounds: int) -> bool:
    """Print the table of requests/s. Returns whether the goal was met on each backend."""
    print("\nRequests/s over real sockets, medians of", rounds, "interleaved rounds.\n")
    print("| | callers | " + " | ".join(BACKENDS) + " |")
    print("|---|---" + "|---" * len(BACKENDS) + "|")
    measured: dict[tuple[str, Contender], list[float]] = {}
    with sandbox_process() as base_url:
        for _ in range(rounds):
            for backend in BACKENDS:
                for contender in CONTENDERS:
                    rate = anyio.run(requests_per_second, contender, base_url, backend=backend)
                    measured.setdefault((backend, contender), []).append(rate)
    for contender in CONTENDERS:
        rates = [statistics.median(measured[backend, contender]) for backend in BACKENDS]
        cells = " | ".join(f"{rate:.0f}" for rate in rates)
        print(f"| {contender.name} | {contender.callers} | {cells} |")
    one, _, thousand, *_ = CONTENDERS
    ratios = [_median_ratio(measured[b, thousand], measured[b, one]) for b in BACKENDS]
    cells = " | ".join(f"{ratio:.2f}" for ratio in ratios)
    print(f"| ours, 1 000 callers over 1 (goal: at least {LEAST_OF_ONE_CALLER}) | | {cells} |")
    return min(ratios) >= LEAST_OF_ONE_CALLER


# --------------------------------------------------------------------- processor time


@attrs.frozen
class Cost:
    """Seconds of processor time, and the number of requests."""

    seconds: float
    submits: int
    polls: int

    @property
    def each(self) -> float:
        return self.seconds / (self.submits + self.polls)


async def bulk_run() -> Cost:
    """A bulk run that finds the limit and keeps no files."""
    sandbox = Sandbox(segments=EXPORTS, limit=TokenBucket(100, 200), latency=0.08)
    async with (
        httpx.AsyncClient(transport=SandboxTransport(sandbox)) as http,
        # No file is fetched. A client of its own for files would read the certificates, which is
        # done once, whatever the number of requests.
        SegmentsClient(*AUTH, http_client=http, file_http_client=http) as client,
    ):
        segment_ids = sandbox.segment_ids
        began = _processor_time()
        report = await client.bulk_export(segment_ids, None)
        seconds = time.process_time() - began
    report.raise_for_errors()
    return Cost(seconds, len(sandbox.record.submits()), len(sandbox.record.polls()))


async def bare_requests(submits: int, polls: int) -> Cost:
    """The same numbers of POSTs and GETs by httpx alone, with answers decoded as JSON."""
    # Without a limit, which bare httpx couldn't keep.
    sandbox = Sandbox(segments=EXPORTS, latency=0.08)
    segment_ids, export_ids = sandbox.segment_ids, list[str]()
    async with httpx.AsyncClient(transport=SandboxTransport(sandbox), auth=AUTH) as http:

        async def submit(number: int) -> None:
            body = {"segmentId": segment_ids[number % EXPORTS], "outputFormat": "csv"}
            answer = await http.post(f"{API_ORIGIN}{EXPORT}", json=body)
            export_ids.append(answer.json()["exportId"])

        async def poll(number: int) -> None:
            (await http.get(f"{API_ORIGIN}{EXPORT}{export_ids[number % EXPORTS]}")).json()

        began = _processor_time()
        await _by_eight(submit, submits)
        await _by_eight(poll, polls)
        seconds = time.process_time() - began
    return Cost(seconds, submits, polls)


async def _by_eight(request: Callable[[int], Awaitable[None]], count: int) -> None:
    """Eight requests at once, as at 100/s with answers of 0.08 s."""
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await request(number)

    async with anyio.create_task_group() as tasks:
        for _ in range(8):
            tasks.start_soon(worker)


def _processor_time() -> float:
    gc.collect()  # or one client would pay for the other's garbage
    return time.process_time()


def processor(rounds: int) -> bool:
    """Print the table of processor time. Returns whether the goal was met on each backend."""
    print("\nProcessor time per request of a bulk run of", EXPORTS, "exports over the in-process")
    print(f"sandbox, in virtual time, without files; medians of {rounds} interleaved rounds.\n")
    print("| | ours | bare httpx | ours over bare (goal) |\n|---|---|---|---|")
    met = True
    for name in BACKENDS:
        pairs = [_pair(name) for _ in range(rounds)]
        ours, bare = ([cost.each for cost in costs] for costs in zip(*pairs, strict=True))
        ratio = _median_ratio(ours, bare)
        met &= ratio <= MOST_OVER_BARE
        print(
            f"| {name} | {_microseconds(ours)} | {_microseconds(bare)} "
            f"| {ratio:.2f} [{MOST_OVER_BARE}] |",
            flush=True,
        )
    return met


def _pair(name: str) -> tuple[Cost, Cost]:
    ours = _in_virtual_time(name, bulk_run)
    return ours, _in_virtual_time(name, partial(bare_requests, ours.submits, ours.polls))


def _in_virtual_time(name: str, function: Callable[[], Awaitable[Cost]]) -> Cost:
    backend, options = virtual_time(name)
    return anyio.run(function, backend=backend, backend_options=options)


def _microseconds(values: list[float]) -> str:
    return f"{1e6 * statistics.median(values):.0f} µs"


# --------------------------------------------------------------------- both


def _median_ratio(above: list[float], below: list[float]) -> float:
    """The median of the rounds' ratios: a slow round changes both sides of its ratio."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", choices=["sockets", "processor"])
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    parts = {"sockets": sockets, "processor": processor}
    met = [
        measure(options.rounds) for name, measure in parts.items() if options.only in (None, name)
    ]
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main())
