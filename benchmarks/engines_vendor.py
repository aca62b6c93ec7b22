"""The vendor's three requests, for each of the engines that benchmarks/engines.py compares.

Every engine has this client, and the same way to write a file. What a killed process leaves undone,
and how the requests keep to the account's limit, is the engine's.
"""

from __future__ import annotations

import asyncio
import functools
import json
import os
import time
from pathlib import Path
from typing import Any, Self

import attrs
import httpx

from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY, Durations

#: Seconds between two polls of one export. Each engine but ours polls at this interval.
POLL_EVERY = 2.0

#: Seconds until a refused request is sent again, where the answer doesn't say.
_AFTER_429 = 1.0

_WRITES = frozenset({"INSERT", "UPDATE", "DELETE"})

#: Seconds for one request.
_TIMEOUT = 10.0


@attrs.frozen(kw_only=True)
class Settings:
    """What each process of an engine is started with, from a JSON file.

    Attributes:
        base_url: of the vendor.
        segments: ids of the segments.
        directory: of this run. Files go to `exports` in it.
        server: the address of the engine's database or server; empty where it has none.
        rate: requests/s of the account.
        processes: working processes.
        requests: expected number of API requests for one export, by `requests_per_export`.
        shared: whether the working processes share one run (ours).
    """

    base_url: str
    segments: list[str]
    directory: str
    server: str
    rate: float
    processes: int
    requests: float
    shared: bool

    @classmethod
    def read(cls, path: str) -> Self:
        return cls(**json.loads(Path(path).read_text()))

    def tell(self, results: dict[str, dict[str, str]]) -> None:
        """Write the results that a caller got: for each segment a file's path, or an error."""
        path = Path(self.directory, "results.json")
        new = path.with_suffix(".new")
        new.write_text(json.dumps(results))
        new.rename(path)


class Vendor:
    """An httpx client of the vendor. Refused requests (429) are repeated: they weren't acted on."""

    def __init__(self, settings: Settings) -> None:
        self._to = Path(settings.directory, "exports")
        self._api = api_client(settings)
        # Plain HTTP on loopback: no certificates to load.
        self._storage = httpx.AsyncClient(timeout=_TIMEOUT, verify=False)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._api.aclose()
        await self._storage.aclose()

    async def submit(self, segment_id: str) -> str:
        """POST for an export. Returns the export's id."""
        wanted = {"segmentId": segment_id, "outputFormat": "csv"}
        answer = await self._ask("POST", "/service/v1/segments/export/", json=wanted)
        return str(answer["exportId"])

    async def poll(self, export_id: str) -> str | None:
        """The link to the export's file; None while the export is pending."""
        answer = await self._ask("GET", f"/service/v1/segments/export/{export_id}")
        if answer["status"] == "FAILED":
            raise RuntimeError("FAILED")
        return answer["filename"] if answer["status"] == "COMPLETE" else None

    async def fetch(self, link: str, segment_id: str) -> str:
        """Download the file, whole or not at all. Returns its path."""
        answer = await self._storage.get(link)
        path = self.path(segment_id)
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_bytes(answer.raise_for_status().content)
        part.replace(path)
        return str(path)

    def path(self, segment_id: str) -> Path:
        return self._to / f"{segment_id}.csv"

    async def _ask(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        while True:
            answer = await self._api.request(method, path, **content)
            if answer.status_code != 429:
                found: dict[str, Any] = answer.raise_for_status().json()
                return found
            await asyncio.sleep(float(answer.headers.get("Retry-After", _AFTER_429)))


def api_client(settings: Settings) -> httpx.AsyncClient:
    """A client for the API. A line of a log says which process sends which request, and when."""
    log = _log(f"{settings.directory}/requests.log")

    async def note(request: httpx.Request) -> None:
        post = request.method == "POST"
        what = json.loads(request.content)["segmentId"] if post else request.url.path.split("/")[-1]
        os.write(log, f"{time.monotonic()} {os.getpid()} {what}\n".encode())

    return httpx.AsyncClient(
        base_url=settings.base_url,
        auth=(PAGE_API_KEY, PAGE_ACCESS_TOKEN),
        timeout=_TIMEOUT,
        verify=False,
        event_hooks={"request": [note]},
    )


@functools.cache
def _log(path: str) -> int:
    return os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)


def requests_per_export(durations: Durations) -> float:
    """A POST, and a poll every `POLL_EVERY` seconds until the export has ended: the mean."""
    steps = 1_000
    lasting = [durations.seconds((n + 0.5) / steps) for n in range(steps)]
    return 1 + sum(1 + seconds // POLL_EVERY for seconds in lasting) / steps


def count_statements(directory: str) -> None:
    """Write a character for each statement of SQLAlchemy in this process: `r`, or `w` for a write.

    `c` is a commit of something. What was written outlives a kill.
    """
    from sqlalchemy import Engine, event

    log = _log(f"{directory}/statements.log")

    def on_statement(connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        words = statement.split()
        writes = words[0] in _WRITES or (words[0] == "WITH" and not _WRITES.isdisjoint(words))
        connection.info["wrote"] = writes or connection.info.get("wrote", False)
        os.write(log, b"w" if writes else b"r")

    def on_commit(connection: Any) -> None:
        if connection.info.pop("wrote", False):
            os.write(log, b"c")

    event.listen(Engine, "before_cursor_execute", on_statement)
    event.listen(Engine, "commit", on_commit)
