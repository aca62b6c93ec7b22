"""The cost of logging and of OpenTelemetry: processor time per request of a bulk run.

Runs without any, with lines to a handler that formats and drops them, and with OpenTelemetry's SDK
in memory; in interleaved rounds. Other programs use the machine too, and only ever add to a time:
the fastest of many short rounds are compared. Prints a table and exits 1 when the goal is missed.

    python benchmarks/telemetry.py               # some four minutes
    python benchmarks/telemetry.py --links       # runs that fetch no files, which have no goal
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import logging
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path

import anyio
import httpx
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from segments_async import SegmentsClient
from segments_async.sandbox import (
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    Sandbox,
    SandboxTransport,
    TokenBucket,
)
from segments_async.testing import virtual_time

#: What logging and OpenTelemetry may add to the processor time of a request.
MOST_ADDED = 0.05

#: Exports of one run, and rows of each file.
EXPORTS = 300
ROWS = 100


class Dropped(logging.Handler):
    """Formats each record, and drops it."""

    def __init__(self) -> None:
        super().__init__()
        self.lines = 0

    def emit(self, record: logging.LogRecord) -> None:
        self.format(record)
        self.lines += 1


@contextlib.contextmanager
def nothing() -> Generator[None]:
    yield


@contextlib.contextmanager
def lines(level: int) -> Generator[None]:
    log, handler = logging.getLogger("segments_async"), Dropped()
    log.setLevel(level)
    log.addHandler(handler)
    log.propagate = False
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(logging.WARNING)


@contextlib.contextmanager
def sdk(*, spans: bool = True, values: bool = True) -> Generator[None]:
    tracers, meters = TracerProvider(), MeterProvider([InMemoryMetricReader()])
    tracers.add_span_processor(BatchSpanProcessor(InMemorySpanExporter()))
    before = trace.get_tracer_provider, metrics.get_meter_provider
    # The API sets a provider once for a process; each round has providers of its own.
    if spans:
        trace.get_tracer_provider = lambda: tracers
    if values:
        metrics.get_meter_provider = lambda: meters
    try:
        yield
    finally:
        trace.get_tracer_provider, metrics.get_meter_provider = before
        tracers.shutdown()
        meters.shutdown()


@contextlib.contextmanager
def all_of_it() -> Generator[None]:
    with lines(logging.INFO), sdk():
        yield


WAYS: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
    "none (the log at WARNING)": nothing,
    "log at INFO": lambda: lines(logging.INFO),
    "log at DEBUG (no goal)": lambda: lines(logging.DEBUG),
    "OpenTelemetry: spans": lambda: sdk(values=False),
    "OpenTelemetry: metrics": lambda: sdk(spans=False),
    "OpenTelemetry: spans and metrics": sdk,
    "log at INFO, spans and metrics": all_of_it,
}


async def bulk_run(to: Path | None) -> tuple[float, int]:
    """Seconds of processor time, and requests, of a run that finds the limit."""
    sandbox = Sandbox(segments=EXPORTS, rows=ROWS, limit=TokenBucket(100, 200), latency=0.08)
    transport = SandboxTransport(sandbox)
    async with (
        httpx.AsyncClient(transport=transport) as http,
        httpx.AsyncClient(transport=transport) as files,
        SegmentsClient(
            PAGE_API_KEY, PAGE_ACCESS_TOKEN, http_client=http, file_http_client=files
        ) as client,
    ):
        gc.collect()
        began = time.process_time()
        report = await client.bulk_export(sandbox.segment_ids, to)
        seconds = time.process_time() - began
    report.raise_for_errors()
    return seconds, len(sandbox.record)


def measured(backend: str, way: str, *, links: bool) -> float:
    """Processor time per request, in seconds."""
    name, options = virtual_time(backend)
    with WAYS[way](), tempfile.TemporaryDirectory() as directory:
        run = partial(bulk_run, None if links else Path(directory))
        seconds, requests = anyio.run(run, backend=name, backend_options=options)
    return seconds / requests


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--links", action="store_true", help="fetch no files")
    parser.add_argument("--backend", choices=["asyncio", "trio"], default="asyncio")
    options = parser.parse_args()
    logging.getLogger("segments_async").setLevel(logging.WARNING)
    print("Processor time per request of a bulk run of", EXPORTS, "exports over the in-process")
    files = "without files" if options.links else f"with files of {ROWS} rows"
    print(f"sandbox, in virtual time, {files}; {options.backend}; the means of the fastest")
    print(f"quarter of {options.rounds} interleaved rounds. Goal: at most {MOST_ADDED:.0%} more.\n")
    print("| logging and telemetry | per request | more than none |\n|---|---|---|")
    times: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way, found in times.items():
            found.append(measured(options.backend, way, links=options.links))
    worst, none = -math.inf, _fastest(next(iter(times.values())))
    for way, found in times.items():
        added = _fastest(found) / none - 1
        print(f"| {way} | {1e6 * _fastest(found):.0f} µs | {added:+.1%} |")
        if "no goal" not in way:
            worst = max(worst, added)
    return 0 if options.links or worst <= MOST_ADDED else 1


def _fastest(times: list[float]) -> float:
    return statistics.mean(sorted(times)[: max(1, len(times) // 4)])


if __name__ == "__main__":
    sys.exit(main())
