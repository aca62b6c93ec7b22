"""The metrics of one night's bulk run, as Prometheus would have scraped them, in virtual time.

The run is a real one, of the library against a sandbox with faults. Its metrics go through
OpenTelemetry's SDK and its exporter for Prometheus. Every 15 seconds of virtual time the exporter
is asked for its samples, as a scrape would ask. Chance is seeded, so that each run has the same
values.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from unittest import mock

import anyio
import attrs
import httpx
import time_machine
from command_in_virtual_time import WallClockLoop
from opentelemetry import metrics
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.sdk.metrics import MeterProvider
from prometheus_client import REGISTRY

from segments_async import SegmentsClient
from segments_async.sandbox import (
    API_ORIGIN,
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    ContendedLimit,
    Durations,
    Fault,
    FileHost,
    Sandbox,
    SandboxTransport,
    TokenBucket,
)

#: The first scrape, and the seconds between two.
NIGHT = datetime(2026, 11, 23, 2, 0, 0, tzinfo=UTC)
SCRAPE = 15

#: The name that Prometheus gives the scraped process.
JOB = "nightly-exports"

#: Seconds for which the process is idle before its run, and after it.
IDLE = 300

_MINUTE = 60.0


@attrs.frozen
class Sample:
    """One value of one series.

    Attributes:
        series: the name with its labels, as in the text format.
        value: as in the text format.
        at: seconds since 1970.
    """

    series: str
    value: str
    at: float


def account() -> Sandbox:
    """The vendor of the night: a limit that others use, too, and a fault of each kind."""
    sandbox = Sandbox(
        segments=160,
        rows=400,
        seed=3,
        durations=Durations(median=600.0, sigma=0.8, longest=2_400.0),
        limit=ContendedLimit(TokenBucket(0.5, 10), used_up=((18 * _MINUTE, 19 * _MINUTE),)),
        latency=0.2,
        failed=0.02,
        file_host=FileHost(rate=20_000.0),
        epoch=NIGHT,
    )
    gateway = Fault.status(503, body="maintenance")
    # In minutes after the run's first request, which is the sandbox's second 0.
    sandbox.inject(Fault.LOST_AFTER, method="POST", since=2 * _MINUTE)
    sandbox.inject(Fault.LOST_AFTER, method="POST", since=4 * _MINUTE)
    sandbox.inject(Fault.status(500), method="GET", path="export/", since=7 * _MINUTE)
    sandbox.inject(gateway, origin="api", since=10 * _MINUTE, until=15 * _MINUTE)
    sandbox.inject(gateway, origin="files", since=24 * _MINUTE, until=32 * _MINUTE)
    return sandbox


def record(files: Path) -> list[Sample]:
    """Run the night, and return its samples in the order of time.

    Args:
        files: an empty directory, where the run leaves its files.
    """
    samples: list[Sample] = []
    reader = PrometheusMetricReader()
    provider = MeterProvider([reader])
    chance = random.getstate()  # the caller's
    try:
        random.seed(1)  # the client's own chance: jitter of its probes
        logging.disable()  # the run's warnings are in the metrics
        with (
            mock.patch.object(metrics, "get_meter_provider", return_value=provider),
            time_machine.travel(NIGHT, tick=False) as wall,
        ):
            anyio.run(
                _night,
                files,
                samples,
                backend_options={"loop_factory": lambda: WallClockLoop(wall)},
            )
    finally:
        random.setstate(chance)
        provider.shutdown()
        logging.disable(logging.NOTSET)
    return samples


async def _night(files: Path, samples: list[Sample]) -> None:
    sandbox = account()
    async with (
        httpx.AsyncClient(transport=SandboxTransport(sandbox)) as http,
        SegmentsClient(
            PAGE_API_KEY,
            PAGE_ACCESS_TOKEN,
            base_url=API_ORIGIN,
            http_client=http,
            file_http_client=http,
        ) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(_scrape, samples)
        await anyio.sleep(IDLE)
        await client.bulk_export(sandbox.segment_ids, files)
        await anyio.sleep(IDLE)
        tasks.cancel_scope.cancel()


async def _scrape(samples: list[Sample]) -> None:
    began = anyio.current_time()
    while True:
        at = NIGHT + timedelta(seconds=anyio.current_time() - began)
        samples += _samples(at.timestamp())
        await anyio.sleep(SCRAPE)


def _samples(at: float) -> Iterator[Sample]:
    for family in REGISTRY.collect():
        for sample in family.samples:
            if sample.name.startswith("segments_"):
                labels = {**sample.labels, "job": JOB, "instance": "exports-1:9464"}
                inside = ",".join(f'{name}="{value}"' for name, value in sorted(labels.items()))
                yield Sample(f"{sample.name}{{{inside}}}", repr(sample.value), at)


def openmetrics(samples: list[Sample]) -> str:
    """The samples in the text format that `promtool tsdb create-blocks-from openmetrics` reads."""
    lines = [f"{one.series} {one.value} {one.at:.3f}" for one in samples]
    return "\n".join([*lines, "# EOF", ""])
