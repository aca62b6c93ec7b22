"""The pictures of two pages, pacing and measurements, drawn from runs in virtual time.

`python benchmarks/pacing.py --draw docs/pictures` draws them (extra `bench`). The scenarios are
smaller than the tables', so that drawing takes minutes. The same runs give the same files, byte for
byte: no dates, no random ids, no font of one machine.
"""

from __future__ import annotations

import itertools
import multiprocessing
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import anyio
import attrs
import httpx
import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from pacing import RIVALS, STOP_AT, Result, _rival_job
from pacing_scenarios import Scenario

from segments_async import SegmentsClient
from segments_async.sandbox import (
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    FixedWindow,
    Sandbox,
    SandboxTransport,
    TokenBucket,
)
from segments_async.testing import virtual_time

COMPARED = [
    Scenario("1 000 exports,\n10/s", 1_000, TokenBucket(10, 20), 10),
    Scenario("300 exports,\n1/s", 300, TokenBucket(1, 5), 1),
    Scenario("2 000 exports,\n100/s", 2_000, TokenBucket(100, 200), 100),
    Scenario("900 exports,\n300 per 30 s", 900, FixedWindow(300, 30, 7), 10),
]

DISCOVERY = Scenario("", 2_000, TokenBucket(100, 200), 100)
#: Seconds drawn: as long as requests wait.
DISCOVERY_END, MOVING_END = 40.0, 320.0
MOVING_STEPS = ((60.0, 25.0), (240.0, 100.0))
MOVING = Scenario("", 8_000, TokenBucket(50, 100, steps=MOVING_STEPS), 25, moving=True)

# Tones and a grey that stand out on white and on near-black alike; the background is transparent.
GREY = "#808080"
LIMIT = "#d98032"
REFUSED = "#d9534f"
COLOURS = dict(zip(RIVALS, ("#b07cc6", "#d98032", "#b5a02c", "#58a06a", "#3f8fd9"), strict=True))
NAMES = {
    "naive": "naive: retries after 1 s, polls every 5 s",
    "backoff": "exponential backoff with full jitter",
    "adaptive": "adaptive limiter like botocore's",
    "told the rate": "ours, told the true rate",
    "ours, 0.2": "ours",
}

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "segments-async",
    "svg.fonttype": "none",  # text stays text: small files, and the reader's own font
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    **{f"{part}.color": GREY for part in ("text", "xtick", "ytick", "grid")},
    **{f"axes.{part}": GREY for part in ("edgecolor", "labelcolor", "titlecolor")},
    **{f"{part}.facecolor": "none" for part in ("figure", "axes", "savefig")},
    "grid.alpha": 0.35,
    "grid.linewidth": 0.6,
}


def draw_all(folder: Path) -> None:
    """Run the scenarios, and draw the three pictures."""
    with multiprocessing.Pool(2) as pool:
        traces = pool.map_async(trace, (DISCOVERY, MOVING), chunksize=1)
        jobs = [(scenario, name) for scenario in COMPARED for name in RIVALS]
        results = pool.map(_rival_job, jobs, chunksize=1)
        discovery, moving = traces.get()
    pictures = {
        "makespan": makespan(results),
        "throttled": throttled(results),
        "rate": rates(discovery, moving),
    }
    for name, figure in pictures.items():
        _save(figure, folder / f"{name}.svg")


def _save(figure: Figure, path: Path) -> None:
    with mpl.rc_context(STYLE):
        # A date, or the version that drew it, would change the file where the picture is the same.
        figure.savefig(path, metadata={"Date": None, "Creator": None})


# --------------------------------------------------------------------- ours beside the others


def makespan(results: Sequence[Result]) -> Figure:
    """Makespan over the bound, a bar for each client in each scenario."""

    def label(result: Result) -> str:
        return f"{result.makespan:.2f}" if result.finished else f"> {STOP_AT:g}"

    figure, axes = _canvas("How long a run takes, over what a clairvoyant client would need")
    _bars(axes, results, lambda result: result.makespan, label)
    axes.axhline(1.0, color=GREY, linewidth=1, linestyle="--", zorder=3)
    axes.set_ylabel("makespan / bound (no unit)")
    axes.set_ylim(0, 1.1 * STOP_AT)
    return figure


def throttled(results: Sequence[Result]) -> Figure:
    """The share of 429s on a logarithmic scale, a bar for each client in each scenario."""
    least = 0.1

    def percent(result: Result) -> float:
        return 100 * result.throttled / max(1, result.requests)

    def label(result: Result) -> str:
        value = percent(result)
        return f"{value:.0f}" if value >= 10 or value == 0 else f"{value:.1f}"

    figure, axes = _canvas("How many of the requests are refused")
    axes.set_yscale("log")
    _bars(axes, results, lambda result: max(least, percent(result)), label)
    axes.set_ylabel("answers of 429, % of requests (log scale)")
    axes.set_ylim(least, 250)
    axes.set_yticks([0.1, 1, 10, 100], ["0.1", "1", "10", "100"])
    return figure


def _canvas(title: str) -> tuple[Figure, Axes]:
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 4.2), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title, loc="left")
        axes.grid(axis="y")
        axes.set_axisbelow(True)
    return figure, axes


def _bars(
    axes: Axes,
    results: Sequence[Result],
    height: Callable[[Result], float],
    label: Callable[[Result], str],
) -> None:
    """A group of bars for each scenario, one for each client, in the order of RIVALS."""
    width = 0.9 / len(RIVALS)
    with mpl.rc_context(STYLE):
        for number, name in enumerate(RIVALS):
            own = [result for result in results if result.client == name]
            left = [group + (number - (len(RIVALS) - 1) / 2) * width for group in range(len(own))]
            bars = axes.bar(
                left, [height(r) for r in own], 0.88 * width, color=COLOURS[name], label=NAMES[name]
            )
            axes.bar_label(bars, [label(result) for result in own], padding=2, fontsize=8)
        axes.set_xticks(range(len(COMPARED)), [scenario.name for scenario in COMPARED])
        axes.tick_params(axis="x", length=0)
        axes.figure.legend(loc="outside lower center", ncols=3, fontsize=9)


# --------------------------------------------------------------------- the rate over time


@attrs.frozen
class Trace:
    """One run: the client's rate, the requests granted, and the times of 429s."""

    believed: list[tuple[float, float]]
    granted: list[float]
    refused: list[float]


def trace(scenario: Scenario) -> Trace:
    """A run of our client, with its rate ten times a second."""
    sandbox = scenario.sandbox(1)
    believed: list[tuple[float, float]] = []
    backend, options = virtual_time("asyncio")
    anyio.run(_watched_run, sandbox, believed, backend=backend, backend_options=options)
    api, refused = sandbox.record.api(), sandbox.record.throttled()
    return Trace(
        believed,
        granted=[entry.at for entry in api if entry.status != 429],
        refused=[entry.at for entry in refused],
    )


async def _watched_run(sandbox: Sandbox, believed: list[tuple[float, float]]) -> None:
    async with (
        httpx.AsyncClient(transport=SandboxTransport(sandbox)) as http,
        SegmentsClient(PAGE_API_KEY, PAGE_ACCESS_TOKEN, http_client=http) as client,
        client.open_bulk_export(sandbox.segment_ids, None) as run,
        anyio.create_task_group() as tasks,
    ):

        async def watch() -> None:
            while True:
                if (rate := run.progress.rate) is not None:
                    believed.append((anyio.current_time(), rate))
                await anyio.sleep(0.1)

        tasks.start_soon(watch)
        await run.report()
        tasks.cancel_scope.cancel()


def rates(discovery: Trace, moving: Trace) -> Figure:
    """The rate over time while the limit is found, and while the limit moves."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(9, 6), layout="constrained")
        above, below = figure.subplots(2, 1)
        _rate_axes(above, discovery, [(0.0, 100.0)], end=DISCOVERY_END)
        above.set_title("Finding a limit of 100/s with a burst of 200", loc="left")
        _rate_axes(below, moving, [(0.0, 50.0), *MOVING_STEPS], end=MOVING_END)
        below.set_title(
            "Following a limit that falls from 50 to 25/s and rises to 100/s", loc="left"
        )
        below.set_xlabel("time since the run began (s)")
        handles, labels = above.get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9)
    return figure


def _rate_axes(axes: Axes, run: Trace, steps: Sequence[tuple[float, float]], *, end: float) -> None:
    seconds, counts = _per_second(run.granted, end)
    axes.step(
        seconds, counts, where="post", color=GREY, linewidth=0.8, label="granted, each second"
    )
    times, believed = zip(*_thinned(run.believed), strict=True)
    axes.plot(times, believed, color=COLOURS["ours, 0.2"], linewidth=1.6, label="the client's rate")
    starts, limits = zip(*steps, (end, steps[-1][1]), strict=True)
    axes.step(
        starts, limits, where="post", color=LIMIT, linestyle="--", linewidth=1.4, label="true limit"
    )
    refused = sorted({round(at, 1) for at in run.refused})  # those of a burst are one mark
    axes.plot(
        refused,
        [0.03] * len(refused),  # of the height, whatever the scale
        "|",
        color=REFUSED,
        markersize=9,
        transform=axes.get_xaxis_transform(),
        label="429",
    )
    axes.set_ylabel("requests/s")
    axes.set_xlim(0, end)
    axes.set_ylim(bottom=0)
    axes.grid()


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without the points within 2 % of the one before, which can't be seen."""
    kept = [points[0]]
    for before, point in itertools.pairwise(points):
        if abs(point[1] / kept[-1][1] - 1) > 0.02:
            # The one before it, too: else a jump after a plateau would be drawn as a slope.
            kept += [before, point]
    return [*kept, points[-1]]


def _per_second(times: Sequence[float], end: float) -> tuple[list[int], list[int]]:
    """The number of times in each second before the end."""
    counts = Counter(int(at) for at in times)
    seconds = list(range(int(end) + 1))
    return seconds, [counts[second] for second in seconds]
