"""The vendor's side of the examples' tests."""

from __future__ import annotations

import contextlib
import csv
import io
from collections.abc import AsyncIterator

from segments_async import SegmentsClient
from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY, Durations, Sandbox
from segments_async.sandbox.server import SandboxServer

#: For tests over sockets, which wait for the exports' real time.
QUICK = Durations(median=0.05, sigma=0)


def rows_of(sandbox: Sandbox, segment_id: str, attempt: int = 0) -> list[dict[str, str]]:
    """The rows of the file that the sandbox has for an export."""
    text = sandbox.content(segment_id, attempt).decode()
    return list(csv.DictReader(io.StringIO(text, newline="")))


@contextlib.asynccontextmanager
async def client_of(server: SandboxServer) -> AsyncIterator[SegmentsClient]:
    async with SegmentsClient(PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=server.base_url) as client:
        yield client
