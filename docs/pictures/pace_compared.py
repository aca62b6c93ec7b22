"""The client beside simpler clients: how long a run takes, and how many requests are refused.

The clients and limits are those of `benchmarks/pacing.py`, in virtual time; the scenarios are
smaller than those of its tables.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import chart
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))

from pacing import RIVALS, STOP_AT, Result, rival_job
from pacing_scenarios import Scenario

from segments_async.sandbox import FixedWindow, TokenBucket

SCENARIOS = (
    Scenario("1 000 exports,\nlimit 10/s", 1_000, TokenBucket(10, 20), 10),
    Scenario("300 exports,\nlimit 1/s", 300, TokenBucket(1, 5), 1),
    Scenario("2 000 exports,\nlimit 100/s", 2_000, TokenBucket(100, 200), 100),
    Scenario("900 exports,\n300 per 30 s", 900, FixedWindow(300, 30, 7), 10),
)

#: The clients of `benchmarks/pacing.py`, by its names.
CLIENTS = {
    "naive": "naive: retries after 1 s, polls every 5 s",
    "backoff": "exponential backoff, full jitter",
    "adaptive": "adaptive limiter, like botocore's",
    "told the rate": "ours, told the true rate",
    "ours, 0.2": "ours",
}

_LEAST_PERCENT = 0.1


def draw() -> dict[str, str]:
    """The two pictures, by their names."""
    jobs = [(scenario, name) for scenario in SCENARIOS for name in RIVALS]
    with ProcessPoolExecutor(2) as processes:
        results = list(processes.map(rival_job, jobs))
    return {"makespan": makespan(results), "throttled": throttled(results)}


def makespan(results: Sequence[Result]) -> str:
    """The time that a run takes, over that of a client that knows the limit and every duration."""
    title = "Time of a run, over the least possible"
    description = (
        "Bars for five clients in each of four scenarios. The client of this library takes 1.0 to "
        "1.3 times the least time without being told the limit; one with exponential backoff "
        "takes up to 2.4 times."
    )

    def label(result: Result) -> str:
        return f"{result.makespan:.2f}" if result.finished else f"stopped at {STOP_AT:g}"

    figure, axes = _canvas(title)
    with mpl.rc_context(chart.STYLE):
        _bars(axes, results, lambda result: result.makespan, label)
        axes.axvline(1.0, color=chart.LIMIT[0], linewidth=1.2, linestyle="--")
        axes.set_xlabel("times the least possible time (dashed: 1)")
        axes.set_xlim(0, STOP_AT)
    return chart.svg(figure, title, description)


def throttled(results: Sequence[Result]) -> str:
    """The part of the requests that is refused."""
    title = "Requests refused with 429"
    description = (
        "Bars for five clients in each of four scenarios, on a logarithmic scale. Of a naive "
        "client's requests over 80 % are refused, of this library's one to three in a hundred."
    )

    def percent(result: Result) -> float:
        return 100 * result.throttled / max(1, result.requests)

    def label(result: Result) -> str:
        value = percent(result)
        return f"{value:.0f} %" if value >= 10 or value == 0 else f"{value:.1f} %"

    figure, axes = _canvas(title)
    with mpl.rc_context(chart.STYLE):
        axes.set_xscale("log")
        _bars(axes, results, lambda result: max(_LEAST_PERCENT, percent(result)), label)
        axes.set_xlabel("% of requests (each line: 10 times the last)")
        axes.set_xlim(_LEAST_PERCENT, 500)
        axes.set_xticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
        axes.minorticks_off()
    return chart.svg(figure, title, description)


def _canvas(title: str) -> tuple[Figure, Axes]:
    figure, (axes,) = chart.panels(1, 7.2)
    with mpl.rc_context(chart.STYLE):
        axes.set_title(title)
        axes.grid(visible=False, axis="y")
        axes.grid(axis="x")
    return figure, axes


def _bars(
    axes: Axes,
    results: Sequence[Result],
    length: Callable[[Result], float],
    label: Callable[[Result], str],
) -> None:
    """A group of bars for each scenario, one for each client."""
    height = 0.85 / len(CLIENTS)
    for number, (client, colour) in enumerate(zip(CLIENTS, chart.SERIES, strict=True)):
        own = [result for result in results if result.client == client]
        middle = (len(CLIENTS) - 1) / 2
        bars = axes.barh(
            [group + (number - middle) * height for group in range(len(own))],
            [length(result) for result in own],
            0.9 * height,
            color=colour[0],
            label=CLIENTS[client],
        )
        axes.bar_label(bars, [label(result) for result in own], padding=3, fontsize=9)
    axes.set_yticks(range(len(SCENARIOS)), [scenario.name for scenario in SCENARIOS])
    axes.invert_yaxis()
    axes.tick_params(axis="y", length=0)
    axes.figure.legend(loc="outside lower left", ncols=1)
