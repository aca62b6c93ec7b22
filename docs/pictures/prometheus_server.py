"""A Prometheus server of one's own over recorded samples, and a Grafana dashboard's queries to it.

The server is a process on a free port of loopback, with a data folder of its own. It scrapes
nothing: `promtool` makes the blocks of its database from the samples. Each expression is completed
as Grafana completes it, and evaluated over a range of time.
"""

from __future__ import annotations

import contextlib
import math
import re
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import attrs
import httpx
from recorded_metrics import SCRAPE, Sample, openmetrics

#: Steps to which Grafana rounds the seconds between two points of a panel.
_STEPS = (15, 20, 30, 60, 120, 300, 600, 900, 1200, 1800, 3600)


@attrs.frozen
class Line:
    """One series of a panel.

    Attributes:
        name: of the legend.
        points: time in seconds since 1970, and value.
        reference: the `refId` of the target that it comes from.
    """

    name: str
    points: list[tuple[float, float]]
    reference: str


@attrs.frozen
class Range:
    """The times that a dashboard shows, in seconds since 1970, and seconds between two points."""

    start: float
    end: float
    step: float

    @classmethod
    def of(cls, samples: Sequence[Sample], points: int) -> Range:
        """From the first sample to the last, with at most so many points for a panel."""
        start, end = samples[0].at, samples[-1].at
        step = next(one for one in _STEPS if one >= max(SCRAPE, (end - start) / points))
        # Grafana begins and ends at a multiple of the step, as Prometheus' own page does.
        return cls(math.floor(start / step) * step, math.floor(end / step) * step, float(step))


class Prometheus:
    """A running server.

    Args:
        url: its address.
    """

    def __init__(self, url: str) -> None:
        self._url = url

    def panel(self, panel: Mapping[str, Any], shown: Range) -> list[Line]:
        """The series of all targets of a panel."""
        return [
            line
            for target in panel["targets"]
            for line in self.evaluate(
                target["expr"], target["legendFormat"], shown, target["refId"]
            )
        ]

    def evaluate(
        self, expression: str, legend: str, shown: Range, reference: str = "A"
    ) -> list[Line]:
        """The series of an expression of the dashboard."""
        query = {
            "query": completed(expression, shown),
            "start": str(shown.start),
            "end": str(shown.end),
            "step": str(shown.step),
        }
        answer = httpx.post(f"{self._url}/api/v1/query_range", data=query, trust_env=False).json()
        if answer["status"] != "success":
            raise ValueError(f"{expression}: {answer['error']}")
        return [
            Line(
                _named(legend, series["metric"]),
                [(at, float(value)) for at, value in series["values"]],
                reference,
            )
            for series in answer["data"]["result"]
        ]


def completed(expression: str, shown: Range) -> str:
    """The expression with its variables replaced as Grafana does, for all jobs."""
    # https://grafana.com/docs/grafana/latest/datasources/prometheus/template-variables/
    interval = max(shown.step + SCRAPE, 4 * SCRAPE)
    values = {
        "$__rate_interval": f"{interval:g}s",
        "$__range": f"{shown.end - shown.start:.0f}s",
        "$job": ".*",  # the variable's `allValue`
    }
    for name, value in values.items():
        expression = expression.replace(name, value)
    return expression


def _named(legend: str, labels: Mapping[str, str]) -> str:
    return re.sub(r"{{\s*(\w+)\s*}}", lambda found: labels.get(found[1], ""), legend)


@contextlib.contextmanager
def serving(samples: Sequence[Sample], folder: Path) -> Iterator[Prometheus]:
    """A Prometheus with these samples, which ends with the block.

    Args:
        samples: in the order of time.
        folder: an empty one, for its data.
    """
    text, data = folder / "samples.txt", folder / "data"
    text.write_text(openmetrics(list(samples)), encoding="utf-8")
    subprocess.run(
        ["promtool", "tsdb", "create-blocks-from", "openmetrics", "-q", text, data],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (folder / "prometheus.yml").write_text("scrape_configs: []\n", encoding="utf-8")
    address = f"127.0.0.1:{_free_port()}"
    arguments = {
        "config.file": folder / "prometheus.yml",
        "storage.tsdb.path": data,
        "storage.tsdb.retention.time": "100y",  # the night may be long ago
        "web.listen-address": address,
    }
    process = subprocess.Popen(
        ["prometheus", *(f"--{name}={value}" for name, value in arguments.items())],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            _wait_until_ready(process)
            yield Prometheus(f"http://{address}")
        finally:
            process.terminate()


def _wait_until_ready(process: subprocess.Popen[str]) -> None:
    assert process.stderr is not None
    said: list[str] = []
    for line in process.stderr:
        said.append(line)
        if "Server is ready" in line:
            return
    raise RuntimeError(f"Prometheus did not start:\n{''.join(said[-5:])}")


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
