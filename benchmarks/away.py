"""A vendor that is away in mid-run: how many exports end as unknown.

The real client against the sandbox, in virtual time. Each scenario is a run of 2 000 segments at 20
requests/s during which a gateway answers for the vendor. The sandbox's record counts the
submits that were on the wire when the outage began, the exports that end as unknown, and the POSTs
that were repeated although the vendor may have acted on them. Exits 1 where a figure isn't reached.

    python benchmarks/away.py                     # five seeds, asyncio and trio
    python benchmarks/away.py --segments 200 --seeds 1
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import anyio
import attrs
import httpx

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from segments_async import BulkReport, Completed, SegmentsClient
from segments_async.sandbox import (
    API_ORIGIN,
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    Durations,
    Entry,
    Fault,
    Sandbox,
    SandboxTransport,
    TokenBucket,
)
from segments_async.testing import virtual_time

SINCE = 20.0
LIMIT = TokenBucket(rate=20, burst=40)
LATENCY = 0.1


@attrs.frozen
class Scenario:
    """The answer in the vendor's place, for how many seconds, and to which requests."""

    fault: Fault
    seconds: float
    submits_alone: bool = False


MAINTENANCE = Fault.status(503, body="maintenance")

SCENARIOS: Mapping[str, Scenario] = {
    "503 to all, 5 minutes": Scenario(MAINTENANCE, 300),
    "503 with Retry-After: 30, 5 minutes": Scenario(
        Fault.status(503, headers={"retry-after": "30"}), 300
    ),
    "502 to all, 4 seconds": Scenario(Fault.status(502, body="<html>"), 4),
    "a login page to all, 5 minutes": Scenario(Fault.status(200, body="<html>"), 300),
    "503 to submits alone, 1 hour": Scenario(MAINTENANCE, 3600, submits_alone=True),
    "no answer to submits alone, 1 hour": Scenario(Fault.LOST_AFTER, 3600, submits_alone=True),
}


@attrs.frozen
class RunStats:
    """The figures of one run."""

    on_the_wire: int
    unknown: int
    probes: int
    exported: int
    repeated: int
    seconds: float


async def run(scenario: Scenario, segments: int, seed: int) -> RunStats:
    """One run."""
    sandbox = Sandbox(
        segments=segments, seed=seed, latency=LATENCY, limit=LIMIT, durations=Durations(median=4.0)
    )
    until = SINCE + scenario.seconds
    method = "POST" if scenario.submits_alone else None
    sandbox.inject(scenario.fault, method=method, since=SINCE, until=until)
    random.seed(seed)
    transport = SandboxTransport(sandbox)
    async with (
        httpx.AsyncClient(transport=transport) as http,
        SegmentsClient(
            PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=API_ORIGIN, http_client=http
        ) as client,
    ):
        report = await client.bulk_export(sandbox.segment_ids, None)
    return stats(sandbox, report, until, anyio.current_time())


def stats(
    sandbox: Sandbox, report: BulkReport[Completed], until: float, seconds: float
) -> RunStats:
    submits = [e for e in sandbox.record.submits() if e.status != 429]
    met = [e for e in submits if SINCE <= e.at < until]
    posts = Counter(e.segment_id for e in submits)
    return RunStats(
        # Sent by then: a request takes a quarter of its latency to arrive.
        on_the_wire=sum(was_on_its_way(e) for e in met),
        unknown=sum(o.submitted == "maybe" for o in report.not_exported),
        # After the first seconds, each submit that the gateway answered was a probe.
        probes=sum(e.at > SINCE + 1.5 for e in met),
        exported=len(report.exported),
        repeated=sum(count > 1 for count in posts.values()),
        seconds=seconds,
    )


def was_on_its_way(entry: Entry) -> bool:
    return entry.at - SINCE < LATENCY / 4


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--segments", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=5)
    options = parser.parse_args()
    logging.getLogger("segments_async").setLevel(logging.CRITICAL)
    met = True
    print(f"{options.segments} segments, {options.seeds} seeds on each backend; the worst of each")
    print(f"{'':38} {'on wire':>8} {'unknown':>8} {'asked':>9} {'repeated':>9} {'seconds':>8}")
    for name, scenario in SCENARIOS.items():
        runs = [
            (backend, anyio.run(run, scenario, options.segments, seed, **how(backend)))
            for backend in ("asyncio", "trio")
            for seed in range(options.seeds)
        ]
        worst = max((f for _, f in runs), key=lambda f: f.unknown - f.on_the_wire - f.probes)
        probes = worst.probes if scenario.submits_alone else 0
        asked = 5 + worst.on_the_wire + probes
        repeated = max(f.repeated for _, f in runs)
        lost = any(f.exported + f.unknown != options.segments for _, f in runs)
        reached = worst.unknown <= asked and not repeated and not lost
        met = met and reached
        print(
            f"{name:38} {worst.on_the_wire:8} {worst.unknown:8} {'<= ' + str(asked):>9} "
            f"{repeated:9} {max(f.seconds for _, f in runs):8.0f}"
            f"{'' if reached else '  not met'}"
        )
    sys.exit(not met)


def how(backend: str) -> dict[str, Any]:
    name, options = virtual_time(backend)
    return {"backend": name, "backend_options": options}


if __name__ == "__main__":
    main()
