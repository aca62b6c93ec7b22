"""A caller's own HTTP client: its pool, its timeouts, its hooks, its faults."""

from __future__ import annotations

import contextlib
import json
import math
import socket
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import anyio
import anyio.abc
import h2.config
import h2.connection
import h2.events
import h2.exceptions
import httpx
import pytest

from client.vendor import STEADY, connected
from segments_async import (
    AuthenticationError,
    Export,
    NotFoundError,
    Pacer,
    SegmentsClient,
    SubmitUnknownError,
)
from segments_async._http.clients import CallersClient
from segments_async._sansio.api.credentials import authorization
from segments_async.sandbox import (
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    PAGE_SEGMENT_ID,
    Durations,
    Fault,
    Sandbox,
    SandboxTransport,
)
from segments_async.sandbox.server import SandboxServer

Hook = Callable[[Any], Any]


class Own(Exception):
    """An exception of the caller's own."""


async def raise_for_status(response: httpx.Response) -> None:
    """The hook of httpx's documentation."""
    response.raise_for_status()


async def read_and_raise_for_status(response: httpx.Response) -> None:
    """The same hook, which reads the answer first."""
    await response.aread()
    response.raise_for_status()


async def raise_own(_: object) -> None:
    raise Own


@contextlib.asynccontextmanager
async def hooked(sandbox: Sandbox, **hooks: list[Hook]) -> AsyncIterator[SegmentsClient]:
    """A client of the sandbox with a hooked HTTP client, whose hooks must stay as they are."""
    http = httpx.AsyncClient(transport=SandboxTransport(sandbox), event_hooks=hooks)
    before = {name: list(found) for name, found in http.event_hooks.items()}
    async with http, connected(sandbox, http_client=http) as client:
        yield client
    assert http.event_hooks == before


# --------------------------------------------------------------------- hooks


@pytest.mark.parametrize("hook", [raise_for_status, read_and_raise_for_status])
async def test_a_status_that_a_hook_raises_at_is_an_answer(hook: Hook, tmp_path: Path) -> None:
    """A 429, 500 or 404 that a hook raises at has its effect, as without the hook."""
    sandbox = Sandbox(segments=4, durations=STEADY)
    sandbox.inject(Fault.status(429), method="POST", times=2)
    async with hooked(sandbox, response=[hook]) as client:
        report = await client.bulk_export(sandbox.segment_ids, tmp_path)
        assert report.ok
        assert report.progress.throttled == 2
        with pytest.raises(NotFoundError) as caught:
            await client.get_export("no-such-export")
        assert caught.value.body
    assert sandbox.record.duplicates() == {}


async def test_a_hook_may_read_the_answer() -> None:
    """A body that a hook has read can be read again."""
    read: list[Any] = []

    async def reads(response: httpx.Response) -> None:
        read.append(json.loads(await response.aread()))

    async def reads_again(response: httpx.Response) -> None:
        read.append(response.json())

    sandbox = Sandbox()
    async with hooked(sandbox, response=[reads, reads_again]) as client:
        export = await client.request_export(PAGE_SEGMENT_ID)
    assert [found["exportId"] for found in read] == [export.export_id] * 2


async def test_a_request_hook_that_raises_sent_nothing(tmp_path: Path) -> None:
    """A request hook's exception is raised; nothing was sent, and the next session submits."""
    sandbox = Sandbox(segments=3, durations=STEADY)
    journal = tmp_path / "runs.db"
    for _ in range(3):
        async with hooked(sandbox, request=[raise_own]) as client:
            with pytest.raises(Own):
                await client.bulk_export(sandbox.segment_ids, None, journal=journal, run="night")
            for ask in (client.list_segments, lambda: client.request_export("s1")):
                with pytest.raises(Own):
                    await ask()
    assert sandbox.record.submits() == []
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None, journal=journal, run="night")
    assert len(report.exported) == 3
    assert len(sandbox.record.submits()) == 3


async def test_an_answer_is_kept_before_a_hooks_exception(tmp_path: Path) -> None:
    """A response hook that raises ends the run; ids that had come are in the journal."""
    sandbox = Sandbox(segments=3, durations=STEADY)
    journal = tmp_path / "runs.db"
    async with hooked(sandbox, response=[raise_own]) as client:
        with pytest.raises(Own):
            await client.bulk_export(sandbox.segment_ids, None, journal=journal, run="night")
    asked = len(sandbox.record.submits())
    assert asked >= 1
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None, journal=journal, run="night")
    assert len(report.exported) == 3
    assert len(sandbox.record.submits()) == 3


async def test_the_id_stands_beside_a_hooks_exception() -> None:
    """A single call's exception names the accepted export, and `export` joins it."""
    sandbox = Sandbox(durations=STEADY)
    async with hooked(sandbox, response=[raise_own]) as client:
        with pytest.raises(Own) as caught:
            await client.request_export(PAGE_SEGMENT_ID)
    (export_id,) = {entry.export_id for entry in sandbox.record.submits()}
    assert any(str(export_id) in note for note in caught.value.__notes__)


async def test_a_hook_that_dawdles_loses_no_answer() -> None:
    """A request whose time ends in a hook has its answer."""

    async def dawdles(_: object) -> None:
        await anyio.sleep(1000)

    sandbox = Sandbox(durations=STEADY)
    async with hooked(sandbox, response=[dawdles]) as client:
        export = await client.request_export(PAGE_SEGMENT_ID)
    assert len(sandbox.record.submits()) == 1
    assert export.export_id


# --------------------------------------------------------------------- faults before sending


@pytest.mark.parametrize("error", [Own, OSError, RuntimeError, MemoryError, KeyError])
async def test_whatever_fails_before_the_transport_was_not_sent(
    error: type[Exception], tmp_path: Path
) -> None:
    """An error before the transport is raised; nothing was sent, and a later session submits."""

    class Broken(httpx.AsyncClient):
        def build_request(self, *args: Any, **kwargs: Any) -> httpx.Request:
            raise error

    sandbox = Sandbox(segments=1, durations=STEADY)
    journal = tmp_path / "runs.db"
    async with (
        Broken(transport=SandboxTransport(sandbox)) as http,
        connected(sandbox, http_client=http) as client,
    ):
        with pytest.raises(error):
            await client.bulk_export(sandbox.segment_ids, None, journal=journal, run="night")
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None, journal=journal, run="night")
    assert report.ok
    assert len(sandbox.record.submits()) == 1


async def test_a_client_that_cannot_be_borrowed_was_sent_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """If no HTTP client can be made in mid-run, nothing was sent."""
    sandbox = Sandbox(segments=1, durations=STEADY)
    journal = tmp_path / "runs.db"
    async with connected(sandbox) as client:

        def fails(_: object) -> Any:
            raise Own

        with monkeypatch.context() as patched:
            patched.setattr(CallersClient, "borrow", fails)
            with pytest.raises(Own):
                await client.bulk_export(sandbox.segment_ids, None, journal=journal, run="night")
    async with connected(sandbox) as client:
        report = await client.bulk_export(sandbox.segment_ids, None, journal=journal, run="night")
    assert report.ok
    assert len(sandbox.record.submits()) == 1


async def test_a_transport_that_fails_in_an_unknown_way_may_have_sent(tmp_path: Path) -> None:
    """After an unknown error of a transport without traces, the export is unknown."""

    class Fails(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            raise Own

    sandbox = Sandbox(segments=1)
    outcomes: list[Any] = []
    async with (
        httpx.AsyncClient(transport=Fails()) as http,
        connected(sandbox, http_client=http) as client,
    ):

        async def collect() -> None:
            async with client.open_bulk_export(sandbox.segment_ids, None) as run:
                async for outcome in run:
                    outcomes.append(outcome)  # noqa: PERF401 - the iteration raises

        with pytest.raises(Own):
            await collect()
    assert [outcome.submitted for outcome in outcomes] == ["maybe"]


class _TriesAgain(httpx.AsyncBaseTransport):
    """A transport that repeats a failed request: the first POST is lost, the next can't connect."""

    def __init__(self) -> None:
        self._inner = httpx.AsyncHTTPTransport()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        with contextlib.suppress(httpx.TransportError):
            return await self._inner.handle_async_request(request)
        raise httpx.ConnectError("connection refused")

    async def aclose(self) -> None:
        await self._inner.aclose()


@pytest.mark.real_time
async def test_a_transport_that_tries_again_has_sent_what_it_sent_first() -> None:
    """The last error says that connecting failed; the trace shows an earlier POST."""
    with SandboxServer(Sandbox()) as server:
        server.sandbox.inject(Fault.LOST_AFTER, method="POST")
        async with (
            httpx.AsyncClient(transport=_TriesAgain()) as http,
            SegmentsClient(
                PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=server.base_url, http_client=http
            ) as client,
        ):
            with pytest.raises(SubmitUnknownError):
                await client.request_export(PAGE_SEGMENT_ID)
        assert len(server.sandbox.record.submits()) == 1


class _SendsAgain(httpx.AsyncClient):
    """Sends once more after a 429, as subclasses of httpx's client do."""

    async def send(self, request: httpx.Request, **kwargs: Any) -> httpx.Response:
        response = await super().send(request, **kwargs)
        if response.status_code != 429:
            return response
        await response.aclose()
        return await super().send(request, **kwargs)


async def test_a_client_that_tries_again_has_the_last_answers_body_alone() -> None:
    """With hooks, each answer is read. What an earlier one said is no part of the JSON."""
    sandbox = Sandbox()
    sandbox.inject(Fault.status(429, body="too many"), method="POST")

    async def nothing(_: httpx.Response) -> None: ...

    hooks = {"response": [nothing]}
    async with (
        _SendsAgain(transport=SandboxTransport(sandbox), event_hooks=hooks) as http,
        connected(sandbox, http_client=http) as client,
    ):
        export = await client.request_export(PAGE_SEGMENT_ID)
    assert export.export_id == sandbox.export_id(PAGE_SEGMENT_ID)
    assert [entry.status for entry in sandbox.record.submits()] == [429, 200]


# --------------------------------------------------------------------- answers that break


@pytest.mark.real_time
async def test_a_refusal_whose_body_breaks_is_a_refusal() -> None:
    """A status counts though its body breaks: a 401 is raised, after a 429 the POST goes again."""
    with SandboxServer(Sandbox(durations=Durations(median=0.1))) as server:
        broken = {"content-length": "1000"}
        async with SegmentsClient(
            PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=server.base_url, request_timeout=1.0
        ) as client:
            server.sandbox.inject(Fault.status(401, headers=broken, body="no"), method="POST")
            with pytest.raises(AuthenticationError):
                await client.request_export(PAGE_SEGMENT_ID)
            server.sandbox.inject(Fault.status(429, headers=broken, body="no"), method="POST")
            assert (await client.request_export(PAGE_SEGMENT_ID)).export_id


@pytest.mark.parametrize("coding", ["utf-8", "none", "", "identity", "aws-chunked"])
async def test_a_coding_that_is_none_is_no_compression(coding: str) -> None:
    """Plain JSON with `Content-Encoding: utf-8` is read, so the export's id isn't lost."""

    class Mislabels(SandboxTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            response = await super().handle_async_request(request)
            response.headers["content-encoding"] = coding
            return response

    async with (
        httpx.AsyncClient(transport=Mislabels(sandbox := Sandbox())) as http,
        connected(sandbox, http_client=http) as client,
    ):
        assert (await client.request_export(PAGE_SEGMENT_ID)).export_id


# --------------------------------------------------------------------- pools and timeouts


@pytest.mark.real_time
async def test_waiting_for_a_small_pool_isnt_the_requests_time() -> None:
    """Sixty-four requests over three connections: waiting for one isn't the request's time."""
    sandbox = Sandbox(segments=40, latency=0.1, durations=Durations(median=0.1, sigma=0))
    with SandboxServer(sandbox) as server:
        async with (
            httpx.AsyncClient(
                limits=httpx.Limits(max_connections=3), timeout=httpx.Timeout(0.01)
            ) as http,
            SegmentsClient(
                PAGE_API_KEY,
                PAGE_ACCESS_TOKEN,
                base_url=server.base_url,
                http_client=http,
                pacer=Pacer(rate=math.inf),
                request_timeout=0.6,
            ) as client,
        ):
            assert len(await client.list_segments()) == 40
            report = await client.bulk_export(sandbox.segment_ids, None)
        assert report.ok
        assert report.progress.requests >= 80
        assert len(sandbox.record.submits()) == 40
        assert sandbox.record.most_at_once() <= 3


@pytest.mark.real_time
@pytest.mark.parametrize("known", [True, False])
async def test_a_pool_that_never_moves_was_sent_nothing(known: bool) -> None:
    """If the caller's requests hold all connections, the request ends as not sent."""
    sandbox = Sandbox(segments=3, durations=Durations(median=0.1, sigma=0))
    with SandboxServer(sandbox) as server:
        async with (
            httpx.AsyncClient(limits=httpx.Limits(max_connections=1)) as http,
            SegmentsClient(
                PAGE_API_KEY,
                PAGE_ACCESS_TOKEN,
                base_url=server.base_url,
                http_client=http,
                request_timeout=2.0,
            ) as client,
        ):
            if known:
                await client.list_segments()
            async with http.stream("GET", server.base_url):
                report = await client.bulk_export(sandbox.segment_ids, None, timeout=6.0)
            assert [(o.submitted, o.resumable) for o in report.not_exported] == [("no", True)] * 3
            report = await client.bulk_export(sandbox.segment_ids, None)
            assert report.ok
        assert len(sandbox.record.submits()) == 3


async def test_a_silent_transports_request_has_its_time() -> None:
    """A transport without traces: `request_timeout` holds, and a request cut off is unknown."""
    sandbox = Sandbox(durations=STEADY)
    sandbox.inject(Fault.slow(100.0), method="POST")
    async with connected(sandbox, request_timeout=5.0) as client:
        began = anyio.current_time()
        with pytest.raises(SubmitUnknownError):
            await client.request_export(PAGE_SEGMENT_ID)
        assert anyio.current_time() - began == pytest.approx(5.0, abs=0.1)


# --------------------------------------------------------------------- HTTP/2


class _Http2Server:
    """Ends its first connection, or first stream, as a test says; then it answers."""

    def __init__(self, end: Callable[[Any, int], None]) -> None:
        self._end = end
        self._ended = 0
        self.posts = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(30)
        self.origin = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                self._answer_all(self._listener.accept()[0])

    def _answer_all(self, stream: socket.socket) -> None:
        connection = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))
        connection.initiate_connection()
        stream.sendall(connection.data_to_send())
        with stream:
            while data := stream.recv(65536):
                try:
                    events = connection.receive_data(data)
                except h2.exceptions.ProtocolError:
                    # After a GOAWAY of its own the server reads no more: a late SETTINGS frame of
                    # the client's, on its way by then, is no fault of either.
                    if connection.state_machine.state is h2.connection.ConnectionState.CLOSED:
                        return
                    raise
                for event in events:
                    # Only a POST has a body; the client may ask for the list in between.
                    self.posts += isinstance(event, h2.events.DataReceived) and bool(event.data)
                    if isinstance(event, h2.events.StreamEnded) and event.stream_id:
                        self._ended += 1
                        if self._ended == 1:
                            self._end(connection, event.stream_id)
                        else:
                            self._answer(connection, event.stream_id)
                stream.sendall(connection.data_to_send())

    def _answer(self, connection: Any, stream_id: int) -> None:
        answer = Sandbox().answer(
            "POST",
            "/service/v1/segments/export/",
            {
                "authorization": authorization(PAGE_API_KEY, PAGE_ACCESS_TOKEN).reveal(),
                "content-type": "application/json",
            },
            json.dumps({"segmentId": PAGE_SEGMENT_ID, "outputFormat": "csv"}).encode(),
            0.0,
        )
        connection.send_headers(stream_id, [(":status", str(answer.status))])
        connection.send_data(stream_id, b"".join(answer.pieces()), end_stream=True)


async def _post_over_http2(end: Callable[[Any, int], None]) -> tuple[Any, int]:
    """The result of `request_export`, and the number of POSTs that the server read."""
    with _Http2Server(end) as server:
        async with (
            httpx.AsyncClient(http1=False, http2=True) as http,
            SegmentsClient(
                PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=server.origin, http_client=http
            ) as client,
        ):
            try:
                return await client.request_export(PAGE_SEGMENT_ID), server.posts
            except SubmitUnknownError as exc:
                return exc, server.posts


@pytest.mark.real_time
@pytest.mark.parametrize(
    "end",
    [
        lambda connection, _: connection.close_connection(last_stream_id=0),
        lambda connection, stream_id: connection.reset_stream(stream_id, error_code=7),
    ],
    ids=["GOAWAY", "REFUSED_STREAM"],
)
async def test_what_a_server_says_it_didnt_process_is_sent_again(end: Any) -> None:
    """RFC 9113, 8.7: a POST that wasn't processed goes again, though it left."""
    came_of_it, posts = await _post_over_http2(end)
    assert isinstance(came_of_it, Export)
    assert posts == 2


@pytest.mark.real_time
@pytest.mark.parametrize(
    "end",
    [
        lambda connection, stream_id: connection.close_connection(last_stream_id=stream_id),
        lambda connection, stream_id: connection.reset_stream(stream_id, error_code=2),
    ],
    ids=["GOAWAY", "INTERNAL_ERROR"],
)
async def test_what_a_server_may_have_processed_is_unknown(end: Any) -> None:
    """After a GOAWAY that includes the stream, or another reset, the export is unknown."""
    came_of_it, posts = await _post_over_http2(end)
    assert isinstance(came_of_it, SubmitUnknownError)
    assert posts == 1


# --------------------------------------------------------------------- a machine that slept


@pytest.mark.real_time
async def test_after_a_machine_slept_connections_are_made_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """After sleep, old connections are closed: they look young by the monotonic clock."""
    made: list[anyio.abc.ByteStream] = []
    connect = anyio.connect_tcp

    async def counted(*args: Any, **keywords: Any) -> Any:
        made.append(await connect(*args, **keywords))
        return made[-1]

    monkeypatch.setattr(anyio, "connect_tcp", counted)
    with SandboxServer(Sandbox(segments=3)) as server:
        async with SegmentsClient(
            PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=server.base_url
        ) as client:
            await client.list_segments()
            await client.list_segments()
            assert len(made) == 1
            wall = time.time
            monkeypatch.setattr(time, "time", lambda: wall() + 3600)
            await client.list_segments()
            await client.list_segments()
            before, _ = made
            with pytest.raises(anyio.ClosedResourceError):
                await before.send(b"x")
