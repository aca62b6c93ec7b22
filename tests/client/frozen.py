"""A process that POSTs, is stopped meanwhile, and prints its results as JSON.

Started by `test_frozen.py`: ``python -m client.frozen BACKEND BASE_URL SEGMENTS TIMEOUT HOW``.
"""

from __future__ import annotations

import json
import math
import sys
from collections import Counter
from functools import partial
from typing import Any

import anyio

from segments_async import Pacer, SegmentsClient, SubmitUnknownError
from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY


async def in_a_run(client: SegmentsClient, segments: list[str]) -> Counter[str]:
    report = await client.bulk_export(segments, None)
    told = Counter(f"{type(o.error).__name__} {o.submitted}" for o in report.not_exported)
    return told + Counter(exported=len(report.exported))


async def by_single_calls(client: SegmentsClient, segments: list[str]) -> Counter[str]:
    told: Counter[str] = Counter()

    async def one(segment: str) -> None:
        try:
            await client.request_export(segment)
            told["exported"] += 1
        except SubmitUnknownError as exc:
            told[type(exc).__name__] += 1

    async with anyio.create_task_group() as tasks:
        for segment in segments:
            tasks.start_soon(one, segment)
    return told


async def main(url: str, segments: list[str], timeout: float, how: str) -> None:
    async with SegmentsClient(
        PAGE_API_KEY,
        PAGE_ACCESS_TOKEN,
        base_url=url,
        pacer=Pacer(rate=math.inf),
        request_timeout=timeout,
    ) as client:
        work = in_a_run if how == "run" else by_single_calls
        sys.stdout.write(json.dumps(await work(client, segments)))


if __name__ == "__main__":
    backend, url, segments, timeout, how = sys.argv[1:]
    options: dict[str, Any] = {}
    if backend == "uvloop":
        backend, options = "asyncio", {"use_uvloop": True}
    anyio.run(
        partial(main, url, segments.split(","), float(timeout), how),
        backend=backend,
        backend_options=options,
    )
