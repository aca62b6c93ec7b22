"""Requests of real runs in virtual time, second by second, as the sandbox recorded them.

Each trace is one run of the client against a sandbox with a limit that the client isn't told: the
requests that were granted and refused, the limit, and the rate at which the client would have sent
at most (`run.progress.rate`). Answers and exports take as long as in `benchmarks/pacing.py`; chance
is seeded, so that the same run is drawn each time.
"""

from __future__ import annotations

import itertools
import logging
import math
import random
from collections import Counter
from collections.abc import Callable, Sequence

import anyio
import attrs
import chart
import httpx
import matplotlib as mpl
from matplotlib.axes import Axes

from segments_async import SegmentsClient
from segments_async.sandbox import (
    API_ORIGIN,
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    ContendedLimit,
    Durations,
    Entry,
    Fault,
    FixedWindow,
    Sandbox,
    SandboxTransport,
    TokenBucket,
)
from segments_async.testing import virtual_time

#: Exports so short that the limit decides how long a run takes, and seconds that an answer takes.
DURATIONS = Durations(median=4.0, sigma=0.6, longest=60.0)
LATENCY = 0.08


@attrs.frozen(kw_only=True)
class Trace:
    """One run to draw.

    Attributes:
        title: of the picture.
        description: what there is to see, in sentences.
        exports: of the run.
        limit: of the vendor.
        shown: the limit as a line: the times at which it changes, and requests/s from then on.
        limit_label: the line's name in the legend.
        end: the last second of the picture.
        bin: seconds that a bar stands for.
        away: from when to when a gateway answers in the vendor's place.
        windows: when the vendor's windows begin.
        top: the highest rate of the picture; None: as high as the data.
    """

    title: str
    description: str
    exports: int
    limit: TokenBucket | FixedWindow | ContendedLimit
    shown: tuple[tuple[float, float], ...]
    limit_label: str = "the limit"
    end: float
    bin: float = 1.0
    away: tuple[float, float] | None = None
    windows: tuple[float, ...] = ()
    top: float | None = None


TRACES = {
    "trace-discovery": Trace(
        title="Finding a limit of 100 requests/s",
        description=(
            "The client's rate grows from 10/s to over 400/s in four seconds, as long as the "
            "limit's burst of 200 lasts. The first refusals stop it. After a few seconds of "
            "search the rate stays near the limit of 100/s, and a few requests are refused."
        ),
        exports=2_000,
        limit=TokenBucket(100, 200),
        shown=((0.0, 100.0),),
        end=40.0,
    ),
    "trace-moving": Trace(
        title="Following a limit that moves",
        description=(
            "The limit falls from 50/s to 25/s after a minute, and rises to 100/s after four. The "
            "client's rate falls at once, and follows the rise within some 20 seconds."
        ),
        exports=8_000,
        limit=TokenBucket(50, 100, steps=((60.0, 25.0), (240.0, 100.0))),
        shown=((0.0, 50.0), (60.0, 25.0), (240.0, 100.0)),
        end=320.0,
        bin=4.0,
    ),
    "trace-window": Trace(
        title="A limit of 300 requests per 30 s",
        description=(
            "A limit that is a window: so many requests in each 30 seconds. At first the client "
            "uses a window's budget up and is refused until the next window begins. After some "
            "windows it knows the length, and spreads the requests over the window."
        ),
        exports=1_650,
        limit=FixedWindow(300, 30, 7),
        shown=((0.0, 10.0),),
        limit_label="the limit on average",
        end=330.0,
        bin=2.0,
        top=40.0,
        windows=tuple(23.0 + 30.0 * number for number in range(11)),
    ),
    "trace-used-up": Trace(
        title="A limit that is used up at the start",
        description=(
            "Another program has used the account up: all requests of the first 30 seconds are "
            "refused. The client sends nine probes in that time. When a probe is granted, the rate "
            "grows until it meets the limit of 20/s."
        ),
        exports=500,
        limit=ContendedLimit(TokenBucket(20, 20), used_up=((0.0, 30.0),)),
        shown=((0.0, 0.0), (30.0, 20.0)),
        end=70.0,
        top=50.0,
    ),
    "trace-away": Trace(
        title="A vendor that is away for a minute",
        description=(
            "From second 20 to second 80 a gateway answers 503 to every request. The client sends "
            "single probes at growing intervals. The first answer of the vendor ends the pause, "
            "and the run goes on at the rate that it knew."
        ),
        exports=900,
        limit=TokenBucket(20, 40),
        shown=((0.0, 20.0),),
        end=120.0,
        away=(20.0, 80.0),
        top=50.0,
    ),
}


@attrs.frozen
class Recording:
    """One run: the requests that the vendor saw, and the client's rate over time."""

    api: list[Entry]
    rate: list[tuple[float, float]]


def record(trace: Trace) -> Recording:
    """Run the client to its end."""
    random.seed(1)  # the client's own chance: jitter of its probes
    logging.disable()  # the run's warnings are in the picture
    sandbox = Sandbox(
        segments=trace.exports,
        rows=0,
        seed=1,
        durations=DURATIONS,
        limit=trace.limit,
        latency=LATENCY,
    )
    if trace.away is not None:
        since, until = trace.away
        fault = Fault.status(503, body="maintenance")
        sandbox.inject(fault, origin="api", since=since, until=until)
    rate: list[tuple[float, float]] = []
    backend, options = virtual_time("asyncio")
    anyio.run(_run, sandbox, rate, backend=backend, backend_options=options)
    return Recording(sandbox.record.api(), rate)


async def _run(sandbox: Sandbox, rate: list[tuple[float, float]]) -> None:
    async with (
        httpx.AsyncClient(transport=SandboxTransport(sandbox)) as http,
        SegmentsClient(
            PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=API_ORIGIN, http_client=http
        ) as client,
        client.open_bulk_export(sandbox.segment_ids, None) as run,
        anyio.create_task_group() as tasks,
    ):

        async def watch() -> None:
            while True:
                now = run.progress
                # While requests are held none is sent, whatever the rate was: a gap in the line.
                known = now.rate if now.held is None and now.rate is not None else math.nan
                rate.append((anyio.current_time(), known))
                await anyio.sleep(0.1)

        tasks.start_soon(watch)
        await run.report()
        tasks.cancel_scope.cancel()


def draw(name: str) -> str:
    """The picture of a trace."""
    trace = TRACES[name]
    recording = record(trace)
    figure, (axes,) = chart.panels(1, 3.3)
    with mpl.rc_context(chart.STYLE):
        _bars(axes, trace, recording)
        _lines(axes, trace, recording)
        axes.set_title(trace.title)
        axes.set_ylabel("requests/s")
        axes.set_xlabel("seconds since the run began")
        axes.set_xlim(0, trace.end)
        axes.set_ylim(0, trace.top)
        figure.legend(loc="outside lower left", ncols=2)
    return chart.svg(figure, trace.title, trace.description)


def _bars(axes: Axes, trace: Trace, recording: Recording) -> None:
    """Requests by the second: granted, above them refused, and those that a gateway answered."""
    kinds: tuple[tuple[str, str, Callable[[Entry], bool]], ...] = (
        ("granted", chart.ACCEPTED[0], lambda one: one.status not in (429, 503)),
        ("refused (429)", chart.REFUSED[0], lambda one: one.status == 429),
        ("a gateway's 503", chart.AWAY[0], lambda one: one.status == 503),
    )
    below = [0.0] * round(trace.end / trace.bin)
    edges = [number * trace.bin for number in range(len(below) + 1)]
    for label, colour, belongs in kinds:
        heights = _per_second([one.at for one in recording.api if belongs(one)], trace)
        if not any(heights):
            continue
        above = [low + height for low, height in zip(below, heights, strict=True)]
        axes.stairs(
            above,
            edges,
            baseline=below,
            fill=True,
            color=colour,
            linewidth=0,
            label=label,
        )
        below = above


def _lines(axes: Axes, trace: Trace, recording: Recording) -> None:
    times, rates = zip(*_thinned(recording.rate), strict=True)
    axes.plot(times, rates, color=chart.RATE[0], linewidth=1.8, label="the client's rate")
    starts, limits = zip(*trace.shown, (trace.end, trace.shown[-1][1]), strict=True)
    axes.step(
        starts,
        limits,
        where="post",
        color=chart.LIMIT[0],
        linestyle=(0, (5, 3)),
        linewidth=1.4,
        label=trace.limit_label,
    )
    if trace.windows:
        axes.plot(
            trace.windows,
            [0.0] * len(trace.windows),
            "^",
            color=chart.LIMIT[0],
            markersize=6,
            clip_on=False,
            zorder=5,
            label="a window begins",
        )


def _per_second(times: Sequence[float], trace: Trace) -> list[float]:
    """Requests/s in each bin before the end."""
    counts = Counter(int(at / trace.bin) for at in times if at < trace.end)
    return [counts[number] / trace.bin for number in range(round(trace.end / trace.bin))]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Without the points within 2 % of the one before, which can't be seen."""
    kept = [points[0]]
    for before, point in itertools.pairwise(points):
        if not abs(point[1] / kept[-1][1] - 1) <= 0.02:  # also where a gap begins or ends
            # The one before it, too: else a jump after a plateau would be drawn as a slope.
            kept += [before, point]
    return [*kept, points[-1]]
