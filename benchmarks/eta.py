"""How honest the estimated end of a run is, in a fresh run and in a resumed one.

The real client, journal and files against the sandbox, in virtual time. A run's progress is read
four times a second. The table has the estimated over the true remaining seconds when 10, 50 and 90
percent of the run's time have passed (the median of the seeds, and the worst), and when the first
estimate was there, in percent of the run's time. 1.00 is exact, `-` is None. A resumed run goes on
after a first session was cut at half of the time that the fresh run took.

    python benchmarks/eta.py                 # three seeds, minutes
    python benchmarks/eta.py --seeds 1
"""

from __future__ import annotations

import argparse
import logging
import math
import random
import statistics
import tempfile
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any

import anyio
import attrs
import httpx

from segments_async import SegmentsClient
from segments_async._journal import run_log
from segments_async._run import downloads, engine
from segments_async.sandbox import (
    API_ORIGIN,
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    Durations,
    Sandbox,
    SandboxTransport,
    TokenBucket,
)
from segments_async.testing import virtual_time

LATENCY = 0.1
LOOK = 0.25
SHARES = (0.1, 0.5, 0.9)


@attrs.frozen
class Scenario:
    """An account, and how long its exports take."""

    segments: int
    durations: Durations
    rate: float | None


SCENARIOS: Mapping[str, Scenario] = {
    "40, exports of 4 s": Scenario(40, Durations(), None),
    "40, exports of 30 s": Scenario(40, Durations(median=30, longest=600), None),
    "500 at 50/s, of 4 s": Scenario(500, Durations(), 50),
    "500 at 10/s, of 4 s": Scenario(500, Durations(), 10),
    "200, of 60 s, heavy tail": Scenario(200, Durations(median=60, sigma=1, longest=1200), None),
    "30, all of 120 s": Scenario(30, Durations(median=120, sigma=0, longest=120), None),
}


class VirtualDatetime(datetime):
    """The time of day, which a run measures across sessions, by the event loop's clock."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Any:  # noqa: ARG003
        return EPOCH + timedelta(seconds=anyio.current_time())


EPOCH = Sandbox().epoch
for module in (run_log, engine, downloads):
    module.datetime = VirtualDatetime  # type: ignore[attr-defined]

Looks = Sequence[tuple[float, float | None]]


async def session(sandbox: Sandbox, to: Path, timeout: float | None) -> Looks:
    """One session of the run: the seconds left that were estimated, by time since its start."""
    began = anyio.current_time()
    async with (
        httpx.AsyncClient(transport=SandboxTransport(sandbox)) as http,
        SegmentsClient(
            PAGE_API_KEY,
            PAGE_ACCESS_TOKEN,
            base_url=API_ORIGIN,
            http_client=http,
            file_http_client=http,
        ) as client,
    ):
        segments = await client.list_segments()
        async with client.open_bulk_export(
            segments, to, journal=to / "runs.db", timeout=timeout
        ) as run:
            return [
                (anyio.current_time() - began, progress.eta_seconds)
                async for progress in run.changes(LOOK)
            ]


async def sessions(scenario: Scenario, seed: int) -> Mapping[str, Looks]:
    """A fresh run, and the second session of a run that was cut."""
    random.seed(seed)
    looks: dict[str, Looks] = {}
    with tempfile.TemporaryDirectory() as folder:
        fresh, cut = Path(folder, "fresh"), Path(folder, "cut")
        for to in (fresh, cut):
            to.mkdir(mode=0o700)
        looks["fresh"] = await session(_sandbox(scenario, seed), fresh, None)
        sandbox = _sandbox(scenario, seed)
        await session(sandbox, cut, looks["fresh"][-1][0] / 2)
        looks["resumed"] = await session(sandbox, cut, None)
    return looks


def _sandbox(scenario: Scenario, seed: int) -> Sandbox:
    limit = None if scenario.rate is None else TokenBucket(rate=scenario.rate, burst=scenario.rate)
    return Sandbox(
        segments=scenario.segments,
        rows=10,
        seed=seed,
        latency=LATENCY,
        limit=limit,
        durations=scenario.durations,
    )


def ratio(looks: Looks, share: float) -> float:
    """The estimated over the true seconds left; NaN where nothing was estimated."""
    end = looks[-1][0]
    at, eta = next(look for look in reversed(looks) if look[0] <= share * end or look is looks[0])
    return math.nan if eta is None else eta / (end - at)


def first_estimate(looks: Looks) -> float:
    """The share of the run's time after which there was an estimate."""
    return next((at for at, eta in looks if eta is not None), math.nan) / looks[-1][0]


def _shown(ratios: Sequence[float]) -> str:
    told = [one for one in ratios if not math.isnan(one)]
    if not told:
        return f"{'-':>12}"
    worst = max(told, key=lambda one: abs(math.log(max(one, 1e-9))))
    return f"{statistics.median(told):5.2f} ({worst:4.2f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    logging.getLogger("segments_async").setLevel(logging.CRITICAL)
    heads = "".join(f"{f'at {share:.0%}':>13}" for share in SHARES)
    print(f"{'':26}{'':8}{heads}{'seconds':>9}{'first':>7}")
    for name, scenario in SCENARIOS.items():
        runs = [anyio.run(sessions, scenario, seed, **_virtual()) for seed in range(options.seeds)]
        for kind in ("fresh", "resumed"):
            looks = [run[kind] for run in runs]
            shown = " ".join(_shown([ratio(one, share) for one in looks]) for share in SHARES)
            seconds = statistics.median(one[-1][0] for one in looks)
            first = statistics.median(first_estimate(one) for one in looks)
            print(f"{name:26}{kind:8} {shown}{seconds:9.0f}{first:7.0%}")


def _virtual() -> dict[str, Any]:
    name, backend_options = virtual_time("asyncio")
    return {"backend": name, "backend_options": backend_options}


if __name__ == "__main__":
    main()
