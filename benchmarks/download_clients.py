"""Ways of getting a file from a URL to the disk, for download.py to compare.

Each client is called with a Place, and returns when the file is written. All but curl write in
batches of 4 MiB in a worker thread. Ours also has SHA-256, a rename, and, except in one variant, a
sync.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import hashlib
import importlib.util
import os
import queue
import socket
import ssl
import subprocess
import unittest.mock
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import anyio
import anyio.to_thread
import attrs
import httpx

from segments_async import Export, ExportStatus, Segment, SegmentsClient, SegmentType
from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY

BATCH = 4 * 1024 * 1024

#: Seconds that any one download may take.
PATIENCE = 600.0


@attrs.frozen
class Place:
    """The file's URL, and its path on the disk.

    Attributes:
        url: of the file, on loopback.
        certificate: the certificate to trust; None for plain HTTP.
        target: a path on the disk.
    """

    url: str
    certificate: Path | None
    target: Path

    def ssl_context(self) -> ssl.SSLContext | None:
        return ssl.create_default_context(cafile=self.certificate) if self.certificate else None


@attrs.frozen
class Contender:
    """A way of downloading, and the backend that it runs on."""

    name: str
    download: Callable[[Place], Awaitable[object]]
    backend: str = "asyncio"
    has_goal: bool = False
    needs: str | None = None

    @property
    def installed(self) -> bool:
        return self.needs is None or importlib.util.find_spec(self.needs) is not None


def export_at(url: str) -> Export:
    """A COMPLETE export with a link to the file."""
    return Export(
        export_id="an-export",
        segment=Segment("a-segment", "A Segment", "a-project", SegmentType.STATIC),
        status=ExportStatus.COMPLETE,
        start_time=datetime.now(UTC),
        filename=url,
    )


async def ours(place: Place, *, targets: Sequence[Path] = ()) -> None:
    """One file, or several at once, by the client as its users have it."""
    async with SegmentsClient(
        PAGE_API_KEY,
        PAGE_ACCESS_TOKEN,
        # Files may be on loopback where the vendor is; no request is sent to it.
        base_url="http://127.0.0.1:9",
        ssl_context=place.ssl_context(),
        downloads=8,
    ) as client:

        async def download(target: Path) -> None:
            file = await client.download_export(export_at(place.url), target, overwrite=True)
            if not file.verified:
                raise RuntimeError("the length was not told")

        async with anyio.create_task_group() as tasks:
            for target in targets or [place.target]:
                tasks.start_soon(download, target)


async def ours_not_synced(place: Place) -> None:
    """Ours without a sync, as the other clients: the file may still be in memory alone."""
    with unittest.mock.patch("os.fsync"):
        await ours(place)


async def curl(place: Place) -> None:
    trust = ["--cacert", str(place.certificate)] if place.certificate else []
    limits = ["--max-time", f"{PATIENCE:.0f}", "--noproxy", "*"]
    command = ["curl", "-sS", "--fail", *limits, *trust, "-o", str(place.target), place.url]
    await anyio.run_process(command, stderr=subprocess.STDOUT)


async def curl_then_sync(place: Place) -> None:
    """Curl with a sync, as ours: shows how much of the difference to curl is the disk's."""
    await curl(place)
    with place.target.open("rb") as file:
        await anyio.to_thread.run_sync(os.fsync, file.fileno())


async def bare_httpx(place: Place) -> None:
    verify = place.ssl_context() or False
    async with (
        httpx.AsyncClient(verify=verify, trust_env=False) as client,
        client.stream("GET", place.url) as answer,
    ):
        answer.raise_for_status()
        await _write(answer.aiter_raw(), place.target)


async def aiohttp_client(place: Place) -> None:
    import aiohttp

    async with (
        aiohttp.ClientSession(raise_for_status=True) as session,
        session.get(place.url, ssl=place.ssl_context() or True) as answer,
    ):
        await _write(answer.content.iter_any(), place.target)


async def obstore_client(place: Place) -> None:
    await anyio.to_thread.run_sync(_obstore, place)


def _obstore(place: Place) -> None:
    import obstore
    from obstore.store import HTTPStore

    base, _, name = place.url.rpartition("/")
    options: Any = {"allow_http": True, "timeout": f"{PATIENCE:.0f}s"}
    if place.certificate:  # it takes no other trust
        options["allow_invalid_certificates"] = True
    store = HTTPStore.from_url(base, client_options=options)
    with place.target.open("wb", buffering=0) as file:
        for chunk in obstore.get(store, name).stream(min_chunk_size=BATCH):
            file.write(chunk)


async def _write(chunks: AsyncIterator[bytes], target: Path) -> None:
    with contextlib.ExitStack() as opened:
        file = opened.enter_context(target.open("wb", buffering=0))
        batch: list[bytes] = []
        size = 0
        async for chunk in chunks:
            batch.append(chunk)
            size += len(chunk)
            if size >= BATCH:
                await anyio.to_thread.run_sync(file.writelines, batch)
                batch, size = [], 0
        await anyio.to_thread.run_sync(file.writelines, batch)


async def bare_socket(place: Place) -> None:
    await anyio.to_thread.run_sync(_bare_socket, place)


def _bare_socket(place: Place) -> None:
    """Sockets, threads and system calls alone: the most that Python reaches with SHA-256 and fsync.

    As ours, it has three batches (one is received, one written, one hashed), and syncs on the way.
    """
    spare: queue.SimpleQueue[memoryview] = queue.SimpleQueue()
    for _ in range(3):
        spare.put(memoryview(bytearray(BATCH)))
    digest = hashlib.sha256()
    with (
        _asked(place) as (connection, head, left),
        place.target.open("wb", buffering=0) as file,
        concurrent.futures.ThreadPoolExecutor(1) as hashing,
        concurrent.futures.ThreadPoolExecutor(1) as writing,
        concurrent.futures.ThreadPoolExecutor(1) as syncing,
    ):

        def keep(batch: memoryview, filled: int, sync: bool) -> None:
            hashed = hashing.submit(digest.update, batch[:filled])
            file.write(batch[:filled])
            if sync:
                syncing.submit(os.fsync, file.fileno())
            hashed.add_done_callback(lambda _: spare.put(batch))

        number = 0
        while left:
            batch = spare.get()
            batch[: len(head)] = head
            filled, head = len(head), b""
            left -= filled
            while filled < len(batch) and left:
                received = connection.recv_into(batch[filled:])
                filled, left = filled + received, left - received
            number += 1
            writing.submit(keep, batch, filled, number % 32 == 0)
        writing.shutdown()
        syncing.shutdown()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _asked(place: Place) -> Iterator[tuple[socket.socket, bytes, int]]:
    """A connection, the part of the body that came with its head, and the body's length."""
    url = urlsplit(place.url)
    context = place.ssl_context()
    with socket.create_connection((url.hostname, url.port), PATIENCE) as plain:
        connection = context.wrap_socket(plain, server_hostname=url.hostname) if context else plain
        connection.sendall(f"GET {url.path} HTTP/1.1\r\nHost: {url.netloc}\r\n\r\n".encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += connection.recv(65_536)
        head, _, body = answer.partition(b"\r\n\r\n")
        length = head.lower().partition(b"content-length:")[2].split()[0]
        yield connection, body, int(length)


CURL = Contender("curl", curl)
OURS = (
    Contender("ours (asyncio)", ours, has_goal=True),
    Contender("ours (trio)", ours, backend="trio", has_goal=True),
)
NOT_SYNCED = (
    Contender("ours, not synced (asyncio)", ours_not_synced, has_goal=True),
    Contender("ours, not synced (trio)", ours_not_synced, backend="trio", has_goal=True),
)
OTHERS = (
    Contender("a bare socket, with sha256 and fsync", bare_socket),
    Contender("curl, then fsync", curl_then_sync),
    Contender("bare httpx", bare_httpx),
    Contender("aiohttp", aiohttp_client, needs="aiohttp"),
    Contender("obstore, in a thread", obstore_client, needs="obstore"),
)
