"""A sandbox, and clients that talk to it in the test's own process."""

from __future__ import annotations

import contextlib
import itertools
import os
import traceback
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from segments_async import Exported, Progress, SegmentsClient
from segments_async.client import statistics_of
from segments_async.sandbox import (
    API_ORIGIN,
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    Durations,
    Entry,
    Sandbox,
    SandboxTransport,
)

LIST = "/service/v1/segments/list"
EXPORT = "/service/v1/segments/export/"

#: All exports take as long as each other.
STEADY = Durations(median=4.0, sigma=0)


#: Whether the caller's clients are httpx2's instead of httpx's; set by ``pytest --httpx2``.
USE_HTTPX2 = "SEGMENTS_ASYNC_TEST_HTTPX2" in os.environ


def http_client(transport: SandboxTransport) -> Any:
    """A caller's own client that talks to the sandbox."""
    if not USE_HTTPX2:
        return httpx.AsyncClient(transport=transport)
    from client import httpx2_client

    return httpx2_client.client_of(transport)


@contextlib.asynccontextmanager
async def connected(sandbox: Sandbox, **options: Any) -> AsyncIterator[SegmentsClient]:
    """A client of the sandbox, which is at rest when the block ends without an exception."""
    transport = SandboxTransport(sandbox)
    async with http_client(transport) as http, http_client(transport) as files:
        places: dict[str, Any] = {
            "api_key": PAGE_API_KEY,
            "access_token": PAGE_ACCESS_TOKEN,
            "base_url": API_ORIGIN,
            "http_client": http,
            "file_http_client": files,
        }
        async with SegmentsClient(**places | options) as client:
            yield client
            assert_at_rest(client, sandbox)


def assert_at_rest(client: SegmentsClient, sandbox: Sandbox) -> None:
    """No caller waits, nothing is queued, all slots are free, and no request is open."""
    gate, downloads = statistics_of(client)
    assert gate.free_slots == gate.slots, gate
    assert not any((gate.has_leader, gate.waiting, gate.queued, gate.pending)), gate
    assert downloads == 0
    assert sandbox.record.under_way() == 0


def is_whole(sandbox: Sandbox, path: Path, segment_id: str, attempt: int = 0) -> bool:
    """Whether the file has the sandbox's own bytes, all of them."""
    return path.read_bytes() == sandbox.content(segment_id, attempt)


def all_whole(sandbox: Sandbox, exported: Any) -> bool:
    """Whether all files of a report are whole."""
    return all(
        isinstance(o, Exported) and is_whole(sandbox, o.file.path, o.segment_id) for o in exported
    )


def names_in(directory: Path) -> list[str]:
    """The names in a directory; none where there is no directory."""
    return sorted(entry.name for entry in directory.iterdir()) if directory.exists() else []


def told(error: BaseException) -> str:
    """All the text that a log would show of an error, with its causes."""
    return "".join(traceback.format_exception(error)) + repr(error) + str(vars(error))


def gaps(entries: list[Entry]) -> list[float]:
    """The seconds between one request and the next."""
    return [later.at - earlier.at for earlier, later in itertools.pairwise(entries)]


def adds_up(progress: Progress) -> bool:
    """Whether each segment of the run is counted once."""
    places = (
        progress.waiting,
        progress.pending,
        progress.fetching,
        progress.exported,
        progress.unchanged,
        progress.not_exported,
    )
    return min(places) >= 0 and sum(places) == progress.total


def http_clients_made(monkeypatch: pytest.MonkeyPatch) -> list[httpx.AsyncClient]:
    """All of httpx's clients that are made from now on, by the library or by the test."""
    made: list[httpx.AsyncClient] = []

    class Counted(httpx.AsyncClient):
        def __init__(self, **keywords: Any) -> None:
            super().__init__(**keywords)
            made.append(self)

    monkeypatch.setattr(httpx, "AsyncClient", Counted)
    return made


async def turns(count: int) -> None:
    """Let all other tasks have so many turns."""
    for _ in range(count):
        await anyio.lowlevel.checkpoint()


async def until(condition: Callable[[], bool]) -> None:
    """In real time: wait for another task or thread."""
    while not condition():  # noqa: ASYNC110 - nobody there could set an event
        await anyio.sleep(0.001)
