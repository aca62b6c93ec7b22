"""The clients that the pacing benchmark compares: ours, and those one might write instead.

All clients talk to the same sandbox through httpx, in virtual time. Each records the time at which
it noticed that an export was complete.
"""

from __future__ import annotations

import math
import random
from collections.abc import Awaitable, Callable

import anyio
import httpx

from segments_async import Pacer, SegmentsClient
from segments_async.sandbox import (
    API_ORIGIN,
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    PAGE_EXPORT_ID,
    Sandbox,
    SandboxTransport,
)

#: A client takes a sandbox and where to put the time at which each segment was noticed.
Client = Callable[[Sandbox, dict[str, float]], Awaitable[None]]


def ours(
    *,
    share: float = 0.2,
    rate: float | None = None,
    hints: Callable[[Sandbox], dict[str, float]] | None = None,
    trace: list[tuple[float, float]] | None = None,
) -> Client:
    """The real client. `rate`: the limit is given; `trace`: its rate over time is recorded."""

    async def client(sandbox: Sandbox, noticed: dict[str, float]) -> None:
        transport = SandboxTransport(sandbox)
        async with (
            httpx.AsyncClient(transport=transport) as http,
            SegmentsClient(
                PAGE_API_KEY,
                PAGE_ACCESS_TOKEN,
                http_client=http,
                pacer=Pacer(rate=rate),
                poll_share=share,
            ) as segments,
            segments.open_bulk_export(
                sandbox.segment_ids, None, expected_seconds=hints(sandbox) if hints else None
            ) as run,
        ):
            async for outcome in run:
                now = anyio.current_time()
                noticed[outcome.segment_id] = now
                if trace is not None and (rate_now := run.progress.rate) is not None:
                    trace.append((now, rate_now))

    return client


def told(rate: float, share: float = 0.2) -> Client:
    """Ours, with the true rate given."""
    return ours(share=share, rate=rate)


def naive(sandbox: Sandbox, noticed: dict[str, float]) -> Awaitable[None]:
    """A task per export: after a 429 a retry 1 s later, and a poll every 5 s."""
    return _one_task_each(
        sandbox, noticed, poll_pause=lambda _: 5.0, retry_pause=lambda _: 1.0, limiter=None
    )


def backoff(sandbox: Sandbox, noticed: dict[str, float]) -> Awaitable[None]:
    """A task per export: full jitter, doubling up to 60 s, for retries and polls alike."""
    chance = random.Random(99)

    def pause(k: int) -> float:
        return chance.uniform(0.0, min(60.0, 2.0 ** min(k, 9)))

    return _one_task_each(sandbox, noticed, poll_pause=pause, retry_pause=pause, limiter=None)


def adaptive(sandbox: Sandbox, noticed: dict[str, float]) -> Awaitable[None]:
    """A task per export behind one limiter like botocore's adaptive mode: CUBIC in time."""
    chance = random.Random(99)
    return _one_task_each(
        sandbox,
        noticed,
        poll_pause=lambda k: min(20.0, 1.5 ** min(k, 9)),
        retry_pause=lambda k: chance.random() * min(20.0, 2.0 ** min(k, 5)),
        limiter=_Cubic(),
    )


class _Cubic:
    """Off until the first 429; then a token bucket whose rate is CUBIC in the seconds since a cut.

    With botocore's constants: beta 0.7, scale 0.4, at least 0.5 requests/s, at most twice the
    measured rate, which is a moving average over half seconds.
    """

    def __init__(self) -> None:
        self.enabled = False
        self._rate = self._capacity = 1.0
        self._tokens = self._filled_at = 0.0
        self._peak = self._plateau = self._cut_at = 0.0
        self._measured = self._bucket_began = 0.0
        self._count = 0

    async def acquire(self) -> None:
        while self.enabled:
            self._fill(anyio.current_time())
            if self._tokens >= 1 - 1e-9:  # or the client would sleep for a rounding error for ever
                self._tokens -= 1
                return
            await anyio.sleep((1 - self._tokens) / self._rate)

    def answered(self, now: float, *, throttled: bool) -> None:
        self._measure(now)
        if throttled:
            self._peak = min(self._measured, self._rate) if self.enabled else self._measured
            self._plateau = (self._peak * 0.3 / 0.4) ** (1 / 3)
            self._cut_at, self.enabled = now, True
            rate = 0.7 * self._peak
        else:
            rate = 0.4 * (now - self._cut_at - self._plateau) ** 3 + self._peak
        self._fill(now)
        rate = min(rate, 2 * self._measured)
        self._rate, self._capacity = max(rate, 0.5), max(rate, 1.0)
        self._tokens = min(self._tokens, self._capacity)

    def _fill(self, now: float) -> None:
        grown = self._tokens + (now - self._filled_at) * self._rate
        self._tokens, self._filled_at = min(self._capacity, grown), now

    def _measure(self, now: float) -> None:
        bucket = math.floor(now * 2) / 2
        self._count += 1
        if bucket > self._bucket_began:
            rate = self._count / (bucket - self._bucket_began)
            self._measured = 0.8 * rate + 0.2 * self._measured
            self._count, self._bucket_began = 0, bucket


async def _one_task_each(
    sandbox: Sandbox,
    noticed: dict[str, float],
    *,
    poll_pause: Callable[[int], float],
    retry_pause: Callable[[int], float],
    limiter: _Cubic | None,
) -> None:
    connections = anyio.Semaphore(64)
    transport = SandboxTransport(sandbox)
    async with (
        httpx.AsyncClient(
            transport=transport, auth=(PAGE_API_KEY, PAGE_ACCESS_TOKEN), base_url=API_ORIGIN
        ) as http,
        anyio.create_task_group() as tasks,
    ):

        async def ask(method: str, path: str, body: dict[str, str] | None) -> dict[str, str]:
            attempt = 0
            while True:
                async with connections:
                    if limiter:
                        await limiter.acquire()
                    answer = await http.request(method, path, json=body)
                refused = answer.status_code == 429
                if limiter:
                    limiter.answered(anyio.current_time(), throttled=refused)
                if not refused:
                    found: dict[str, str] = answer.json()
                    return found
                await anyio.sleep(retry_pause(attempt))
                attempt += 1

        async def export(segment_id: str) -> None:
            body = {"segmentId": segment_id, "outputFormat": "csv"}
            found = await ask("POST", "/service/v1/segments/export/", body)
            polls = 0
            while found["status"] == "PENDING":
                await anyio.sleep(poll_pause(polls))
                polls += 1
                found = await ask("GET", f"/service/v1/segments/export/{found['exportId']}", None)
            noticed[segment_id] = anyio.current_time()

        for segment_id in sandbox.segment_ids:
            tasks.start_soon(export, segment_id)


async def calls(sandbox: Sandbox, noticed: dict[str, float], count: int) -> None:
    """The limiter alone: `count` status requests of our client, as fast as they are granted."""
    transport = SandboxTransport(sandbox)
    left = iter(range(count))
    async with (
        httpx.AsyncClient(transport=transport) as http,
        SegmentsClient(PAGE_API_KEY, PAGE_ACCESS_TOKEN, http_client=http) as client,
        anyio.create_task_group() as tasks,
    ):

        async def worker() -> None:
            for number in left:
                await client.get_export(PAGE_EXPORT_ID)
                noticed[str(number)] = anyio.current_time()

        for _ in range(128):
            tasks.start_soon(worker)


async def twice(sandbox: Sandbox, spans: list[float], *, pause: float) -> None:
    """Two runs on one client; appends the seconds of each."""
    transport = SandboxTransport(sandbox)
    async with (
        httpx.AsyncClient(transport=transport) as http,
        SegmentsClient(PAGE_API_KEY, PAGE_ACCESS_TOKEN, http_client=http, poll_share=0.0) as client,
    ):
        for _ in range(2):
            began = anyio.current_time()
            await client.bulk_export(sandbox.segment_ids, None)
            spans.append(anyio.current_time() - began)
            await anyio.sleep(pause)


def noisy_hints(seed: int) -> Callable[[Sandbox], dict[str, float]]:
    """Guesses of each export's duration, off by a lognormal factor of sigma 1."""

    def hints(sandbox: Sandbox) -> dict[str, float]:
        chance = random.Random(seed)
        return {
            segment_id: sandbox.duration(segment_id) * math.exp(chance.gauss(0.0, 1.0))
            for segment_id in sandbox.segment_ids
        }

    return hints
