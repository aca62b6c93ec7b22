"""A client in another event loop, or in another process, than its first operation."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from client.vendor import http_clients_made
from segments_async import ConfigurationError, SegmentsClient
from segments_async.sandbox import (
    API_ORIGIN,
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    Sandbox,
    SandboxTransport,
)
from segments_async.sandbox.server import SandboxServer


def _client(url: str, **options: Any) -> SegmentsClient:
    return SegmentsClient(PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=url, **options)


async def _refused(client: SegmentsClient, to: Path, word: str) -> None:
    """Every operation is refused, and none waits."""
    with anyio.fail_after(5):
        for ask in (
            client.list_segments(),
            client.request_export("s1"),
            client.get_export("e1"),
            client.wait_for_export("e1"),
            client.download_export("e1", to / "a.csv"),
            client.export("s1", to / "a.csv"),
            client.bulk_export(["s1"], to, journal=to / "runs.db"),
            client.open_export("e1").__aenter__(),
        ):
            with pytest.raises(ConfigurationError, match=word):
                await ask


@pytest.mark.parametrize("second", ["asyncio", "trio"])
@pytest.mark.parametrize("first", ["asyncio", "trio"])
def test_a_second_event_loop_is_refused(
    first: str, second: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A second event loop gets an error, and nothing is sent; with connections left open, too."""
    made = http_clients_made(monkeypatch)
    with SandboxServer(Sandbox(segments=3)) as server:
        client = _client(server.base_url)

        async def use() -> None:
            assert len(await client.list_segments()) == 3
            for http in made:  # or Python would warn of what the caller left open
                await http.aclose()

        async def use_elsewhere() -> None:
            await _refused(client, tmp_path, "event loop")
            await client.aclose()
            await _refused(client, tmp_path, "closed")

        anyio.run(use, backend=first)
        anyio.run(use_elsewhere, backend=second)
        assert len(server.sandbox.record.api()) == 1
    assert not (tmp_path / "runs.db").exists()


def test_a_callers_client_is_subject_to_the_same(tmp_path: Path) -> None:
    """A caller's HTTP client belongs to one event loop, too."""
    sandbox = Sandbox(segments=3)
    http = httpx.AsyncClient(transport=SandboxTransport(sandbox))
    client = _client(API_ORIGIN, http_client=http, file_http_client=http)
    assert len(anyio.run(client.list_segments)) == 3
    anyio.run(_refused, client, tmp_path, "event loop")
    assert len(sandbox.record.api()) == 1


def test_another_threads_loop_is_refused() -> None:
    """Another thread's event loop is refused while the first one runs."""

    async def both() -> None:
        with SandboxServer(Sandbox(segments=3)) as server:
            async with _client(server.base_url) as client:
                await client.list_segments()
                with pytest.raises(ConfigurationError, match="event loop"):
                    await anyio.to_thread.run_sync(anyio.run, client.list_segments)
                assert len(await client.list_segments()) == 3

    anyio.run(both)


def test_a_client_may_be_made_anywhere() -> None:
    """A client that was never used belongs to no loop; it may even be entered and left."""
    with SandboxServer(Sandbox(segments=3)) as server:
        client = _client(server.base_url)

        async def only_look() -> None:
            assert client is not None

        async def use() -> int:
            async with client:
                return len(await client.list_segments())

        asyncio.run(only_look())
        assert asyncio.run(use()) == 3


async def test_a_closed_client_is_refused(tmp_path: Path) -> None:
    """A closed client refuses all calls, with a caller's HTTP clients too."""
    transport = SandboxTransport(Sandbox())
    async with httpx.AsyncClient(transport=transport) as http:
        client = _client(API_ORIGIN, http_client=http, file_http_client=http)
        await client.aclose()
        await client.aclose()
        await _refused(client, tmp_path, "closed")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_process_is_refused() -> None:
    """The child sends nothing into its parent's connections, and closes none of them."""
    with SandboxServer(Sandbox(segments=3)) as server:

        async def use() -> int:
            async with _client(server.base_url) as client:
                await client.list_segments()
                if not (child := os.fork()):
                    os._exit(_in_child(client))
                _, status = os.waitpid(child, 0)  # noqa: ASYNC222 - it ends at once
                assert len(await client.list_segments()) == 3
                return os.waitstatus_to_exitcode(status)

        assert asyncio.run(use()) == 0
        assert len(server.sandbox.record.api()) == 2


def _in_child(client: SegmentsClient) -> int:
    """Run calls by hand: asyncio would find the parent's loop running."""
    try:
        client.list_segments().send(None)
    except ConfigurationError as exc:
        if "forked" not in str(exc):
            return 2
    except BaseException:  # noqa: BLE001 - nothing may go on in the child of a test
        return 3
    try:
        client.aclose().send(None)
    except StopIteration:
        return 0
    except BaseException:  # noqa: BLE001 - likewise
        return 4
    return 5
