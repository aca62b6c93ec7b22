"""The dashboard for Grafana, drawn from its file and from a real Prometheus' answers.

No Grafana draws here. The panels stand in the dashboard's own grid, with its titles, units, legends
and thresholds; each line is what Prometheus answered to the panel's expression, over the metrics of
`recorded_metrics.py`.
"""

from __future__ import annotations

import itertools
import json
import math
import re
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import chart
import matplotlib as mpl
import matplotlib.dates
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator, MultipleLocator
from prometheus_server import Line, Prometheus, Range, serving
from recorded_metrics import JOB, record

FILE = Path(__file__).resolve().parents[1] / "grafana.json"

TITLE = "The dashboard after a night's run"
DESCRIPTION = (
    "Twelve panels in two columns. Above, four numbers: active exports, exported and not exported "
    "in the last hour, and the oldest file. Below, over time: exports by state, ended exports, "
    "their duration, the errors, what held the run, answers of 429 and unknown submits, bytes per "
    "second, and the age of the oldest file, which rises while storage is away."
)

#: Inches: of the picture's width, and of one row of the grid (Grafana has 30 pixels for a row).
_WIDTH, _ROW = 9.0, 0.29
_COLUMNS = 24

#: Points of a panel at most: Grafana asks for one in each pixel of a small panel.
_POINTS = 150

_COLOURS = {"green": chart.SERIES[3], "orange": chart.SERIES[1], "red": chart.REFUSED}
_LINES = (chart.RATE, chart.REFUSED, chart.SERIES[3], chart.AWAY, chart.SERIES[1], chart.LIMIT)

#: What Grafana shows behind a number, by the unit's id: from which value on, and the unit.
_UNITS: dict[str, tuple[tuple[float, str], ...]] = {
    "short": ((1, ""),),
    "none": ((1, ""),),
    "s": ((1, " s"), (60, " min"), (3_600, " hours")),
    "cpm": ((1, " c/m"),),
    "Bps": ((1, " B/s"), (1_000, " kB/s"), (1_000_000, " MB/s")),
}


def draw() -> dict[str, str]:
    """The picture, by its name."""
    dashboard = json.loads(FILE.read_text(encoding="utf-8"))
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder, "files")
        files.mkdir()
        samples = record(files)
        shown = Range.of(samples, _POINTS)
        with serving(samples, Path(folder)) as prometheus:
            return {"dashboard": _drawn(dashboard, prometheus, shown)}


def _drawn(dashboard: Mapping[str, Any], prometheus: Prometheus, shown: Range) -> str:
    panels: Sequence[Mapping[str, Any]] = dashboard["panels"]
    rows = 1.7 + max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels)
    with mpl.rc_context(
        {**chart.STYLE, "font.size": 9, "axes.titlesize": 10, "legend.fontsize": 9}
    ):
        figure = Figure(figsize=(_WIDTH, rows * _ROW))
        figure.text(0.012, 1 - 0.95 / rows, _head(dashboard, shown), fontsize=10)
        for panel in panels:
            axes = figure.add_axes(_place(panel["gridPos"], rows))
            lines = prometheus.panel(panel, shown)
            figure.add_artist(_frame(panel["gridPos"], rows))
            axes.set_title(panel["title"])
            if panel["type"] == "stat":
                _draw_stat(axes, panel, lines)
            else:
                _draw_series(axes, panel, lines, shown)
    return _shortened(chart.svg(figure, TITLE, DESCRIPTION))


def _head(dashboard: Mapping[str, Any], shown: Range) -> str:
    begin, end = (datetime.fromtimestamp(at, UTC) for at in (shown.start, shown.end))
    return f"{dashboard['title']}    Job: {JOB}    {begin:%Y-%m-%d %H:%M} to {end:%H:%M} UTC"


def _place(grid: Mapping[str, int], rows: float) -> tuple[float, float, float, float]:
    """Left, bottom, width and height of a panel's axes, as parts of the figure."""
    left, right = (0.068, 0.018) if grid["h"] > 4 else (0.016, 0.016)
    above, below = 1.3, 2.6 if grid["h"] > 4 else 0.5
    bottom = 1 - (1.5 + grid["y"] + grid["h"] - below) / rows
    width, height = grid["w"] / _COLUMNS - left - right, (grid["h"] - above - below) / rows
    return (grid["x"] / _COLUMNS + left, bottom, width, height)


def _frame(grid: Mapping[str, int], rows: float) -> Rectangle:
    """The border of a panel."""
    gap = 0.004
    corner = (grid["x"] / _COLUMNS + gap, 1 - (1.45 + grid["y"] + grid["h"]) / rows)
    size = (grid["w"] / _COLUMNS - 2 * gap, (grid["h"] - 0.3) / rows)
    return Rectangle(corner, *size, fill=False, edgecolor=chart.EDGE, linewidth=1.0)


def _steps(panel: Mapping[str, Any]) -> list[tuple[float, str]]:
    """The thresholds of a panel: from which value on, and the colour."""
    steps = panel["fieldConfig"]["defaults"].get("thresholds", {"steps": []})["steps"]
    return [(-math.inf if one["value"] is None else one["value"], one["color"]) for one in steps]


def _draw_stat(axes: Axes, panel: Mapping[str, Any], lines: Sequence[Line]) -> None:
    """The last value, in the colour of its threshold, above a small graph."""
    axes.axis("off")
    if not lines:
        raise ValueError(f"{panel['title']}: Prometheus has no series")
    times, values = zip(*lines[0].points, strict=True)
    colour = next(name for least, name in reversed(_steps(panel)) if values[-1] >= least)
    light = _COLOURS[colour][0]
    axes.fill_between(times, values, color=light, alpha=0.2, linewidth=0)
    axes.set_xlim(times[0], times[-1])
    axes.set_ylim(0, 2 * max(*values, 1.0))
    text = _in_unit(values[-1], panel["fieldConfig"]["defaults"]["unit"])
    axes.text(0.5, 0.6, text, transform=axes.transAxes, ha="center", fontsize=20, color=light)


def _draw_series(axes: Axes, panel: Mapping[str, Any], lines: Sequence[Line], shown: Range) -> None:
    defaults = panel["fieldConfig"]["defaults"]
    custom = defaults["custom"]
    stacked = custom["stacking"]["mode"] == "normal"
    below: dict[float, float] = {}
    # One colour a series, as in Grafana; more than the palette has are told apart by dashes.
    looks = itertools.product(("-", "--", ":"), _LINES)
    for line, (dashes, colour) in zip(lines, looks, strict=False):
        values = dict(line.points)
        grid = [shown.start + shown.step * n for n in range(_count(shown))]
        low = [below.get(at, 0.0) if stacked else 0.0 for at in grid]
        high = [base + values.get(at, math.nan) for at, base in zip(grid, low, strict=True)]
        times = [datetime.fromtimestamp(at, UTC) for at in grid]
        axes.plot(times, high, dashes, color=colour[0], linewidth=1.3, label=line.name)
        opacity = custom["fillOpacity"] / 100
        axes.fill_between(times, low, high, color=colour[0], alpha=opacity, linewidth=0)
        below.update({at: top for at, top in zip(grid, high, strict=True) if not math.isnan(top)})
    _draw_thresholds(axes, panel)
    _set_axes(axes, defaults, shown)
    axes.legend(
        loc="upper left", bbox_to_anchor=(-0.13, -0.17), ncols=3, columnspacing=1.0, borderpad=0
    )


def _count(shown: Range) -> int:
    return round((shown.end - shown.start) / shown.step) + 1


def _draw_thresholds(axes: Axes, panel: Mapping[str, Any]) -> None:
    if "thresholdsStyle" not in panel["fieldConfig"]["defaults"]["custom"]:
        return
    highest = axes.get_ylim()[1]
    for least, name in _steps(panel):
        if 0 <= least <= highest:
            axes.axhline(least, color=_COLOURS[name][0], linestyle="--", linewidth=1.0)


def _set_axes(axes: Axes, defaults: Mapping[str, Any], shown: Range) -> None:
    begin, end = (datetime.fromtimestamp(at, UTC) for at in (shown.start, shown.end))
    axes.set_xlim(begin, end)
    axes.xaxis.set_major_locator(matplotlib.dates.MinuteLocator(byminute=range(0, 60, 15)))
    axes.xaxis.set_major_formatter(matplotlib.dates.DateFormatter("%H:%M"))
    axes.set_ylim(defaults["min"], None)
    unit = defaults["unit"]
    axes.yaxis.set_major_locator(MaxNLocator(4))
    if unit == "s":
        axes.yaxis.set_major_locator(MultipleLocator(300 * math.ceil(axes.get_ylim()[1] / 1_200)))
    axes.yaxis.set_major_formatter(lambda value, _: _in_unit(value, unit))
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def _in_unit(value: float, unit: str) -> str:
    least, name = next((one for one in reversed(_UNITS[unit]) if value >= one[0]), _UNITS[unit][0])
    return f"{value / least:.3g}{name}"


def _shortened(text: str) -> str:
    """The SVG without what can't be seen: parts of a tenth of a dot, points inside a level line."""
    lines = re.sub(r"(?<=[ML ])(-?\d+\.\d)\d+", r"\1", text).splitlines()
    heights = [
        found[1] if (found := re.fullmatch(r"L \S+ (\S+)", line)) else None for line in lines
    ]
    kept = [
        line
        for line, before, own, after in zip(
            lines, [None, *heights], heights, [*heights[1:], None], strict=False
        )
        if own is None or not before == own == after
    ]
    return "\n".join(kept) + "\n"
