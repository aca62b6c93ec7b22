"""Threats that concern several modules: frames, spans, log lines, TLS, and endless answers.

docs/threats.md has the whole table, and the tests of the rest.
"""

from __future__ import annotations

import contextlib
import gzip
import http.server
import io
import json
import logging
import socket
import socketserver
import ssl
import threading
import traceback
import zlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any, Self

import anyio
import h2.config
import h2.connection
import h2.events
import httpx
import pytest
import trustme
from client.vendor import connected, until
from frames import BASIC, LINK, SIGNATURE, TESTS, Answering, an_export, client_of
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from segments_async import (
    APITimeoutError,
    ConfigurationError,
    DecodeError,
    DownloadError,
    NotExported,
    SegmentsClient,
    SegmentsError,
    SubmitUnknownError,
)
from segments_async._files.gzip_stream import STEP, GzipDecoder, NotGzip
from segments_async._http.storage import STORAGE_ERROR_CAP, StorageAnswer
from segments_async._sansio.api.wire import LIST_CAP, STATUS_CAP
from segments_async.models import Export, ExportStatus, Segment
from segments_async.sandbox import (
    API_ORIGIN,
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    PAGE_EXPORT_ID,
    PAGE_SEGMENT_ID,
    Fault,
    Sandbox,
    SandboxTransport,
)

pytestmark = pytest.mark.alternating

SECRETS = (PAGE_ACCESS_TOKEN, BASIC, SIGNATURE, "X-Amz-Signature", "X-Amz-Credential")

#: httpx's generators of a body that isn't read to its end can't be closed from outside.
abandoned_body = pytest.mark.filterwarnings("ignore:Async generator:ResourceWarning")


def secrets_in(text: str) -> list[str]:
    return [secret for secret in SECRETS if secret in text]


def complete(_: httpx.Request) -> httpx.Response:
    return httpx.Response(200, json=an_export())


def unused(_: httpx.Request) -> httpx.Response:
    raise AssertionError("nothing is asked of it")


# --------------------------------------------------------------------- tracebacks with locals


def held_by(error: BaseException) -> list[object]:
    """Requests and responses that hang on an error, or on one of its causes."""
    todo: list[BaseException | None] = [error]
    held: list[object] = []
    while todo:
        if (one := todo.pop()) is not None:
            found = vars(one).values()
            held += [v for v in found if isinstance(v, httpx.Request | httpx.Response)]
            todo += [one.__cause__, one.__context__]
    return held


def locals_shown(error: BaseException) -> str:
    """The text of an error reporter that shows the locals of all frames but the tests' own."""
    todo = [traceback.TracebackException.from_exception(error, capture_locals=True)]
    shown = ""
    while todo:
        told = todo.pop()
        shown += str(told)
        for frame in told.stack:
            if not frame.filename.startswith(TESTS):
                shown += f"{frame.filename} {frame.name} {frame.locals}\n"
        todo += told.exceptions or []
        if told.__cause__ is not None:
            todo.append(told.__cause__)
        elif told.__context__ is not None and not told.__suppress_context__:
            todo.append(told.__context__)
    return shown


def broken_while_sending(request: httpx.Request) -> httpx.Response:
    """Break as httpcore and h11 do while they write the request's head."""
    # Compiled as another file's: the tests' own frames are left out.
    exec(compile("head = told\nraise broken", "h11.py", "exec"), {}, {
        "told": [*request.headers.raw, str(request.url)],
        "broken": httpx.WriteError("not sent", request=request),
    })  # fmt: skip
    raise AssertionError("it raises")


def broken_twice(request: httpx.Request) -> httpx.Response:
    """Break with an error of the layer below as the cause."""
    try:
        return broken_while_sending(request)
    except httpx.WriteError as exc:
        raise httpx.ReadError("broken", request=request) from exc


OTHER = {"segmentId": "x", "name": "x", "projectId": "x", "type": "Static"}

API_ANSWERS: dict[str, Answering] = {
    "broken": broken_while_sending,
    "broken twice": broken_twice,
    "401": lambda _: httpx.Response(401, text=f"Basic {BASIC} may not, see {LINK}"),
    "500": lambda _: httpx.Response(500, text=f"Basic {BASIC} {LINK}"),
    "no json": lambda _: httpx.Response(200, text=f"<a href='{LINK}'>"),
    "a wrong field": lambda _: httpx.Response(200, json=an_export(exportId=[LINK])),
    "a wrong status": lambda _: httpx.Response(
        200, json=an_export(exportId={}, status=7) | {"filename": [LINK]}
    ),
    "another": lambda _: httpx.Response(
        200, json=an_export() | {"exportId": "x", "segment": OTHER}
    ),
    "too much": lambda _: httpx.Response(200, text=LINK + " " * STATUS_CAP),
    "compressed": lambda _: httpx.Response(
        200, headers={"content-encoding": "br"}, stream=httpx.ByteStream(LINK.encode())
    ),
    "a redirect": lambda _: httpx.Response(302, headers={"location": LINK}),
}


@abandoned_body
@pytest.mark.parametrize("answer", API_ANSWERS.values(), ids=list(API_ANSWERS))
@pytest.mark.parametrize("call", ["get_export", "request_export"])
async def test_no_frame_of_an_api_error_shows_a_secret(answer: Answering, call: str) -> None:
    """No locals of any frame, of the causes' frames neither, have a secret."""
    given = PAGE_EXPORT_ID if call == "get_export" else PAGE_SEGMENT_ID
    async with client_of(answer, unused) as client:
        with pytest.raises(SegmentsError) as caught:
            await getattr(client, call)(given)
    assert "segments_async" in locals_shown(caught.value)
    assert secrets_in(locals_shown(caught.value)) == []
    assert held_by(caught.value) == []


FILE_ANSWERS: dict[str, Answering] = {
    "broken": broken_while_sending,
    "broken twice": broken_twice,
    "denied": lambda _: httpx.Response(403, text=f"<Error>{LINK}</Error>"),
    "a region": lambda _: httpx.Response(
        307, headers={"location": LINK, "x-amz-bucket-region": "eu-central-1"}
    ),
    "redirects": lambda _: httpx.Response(302, headers={"location": LINK}),
    "another host": lambda _: httpx.Response(
        302, headers={"location": LINK.replace("amazonaws.com", "evil.example")}
    ),
    "an encoding": lambda _: httpx.Response(
        200, headers={"content-encoding": "br"}, stream=httpx.ByteStream(b"x")
    ),
}


@pytest.mark.parametrize("answer", FILE_ANSWERS.values(), ids=list(FILE_ANSWERS))
@pytest.mark.parametrize("how", ["download", "open", "bulk"])
async def test_no_frame_of_a_download_error_shows_a_link(
    answer: Answering, how: str, tmp_path: Path
) -> None:
    """No locals have a signed link, of `open_export` and of runs neither."""
    async with client_of(complete, answer) as client:
        export = await client.get_export(PAGE_EXPORT_ID)
        if how == "bulk":
            report = await client.bulk_export([PAGE_SEGMENT_ID], tmp_path)
            (outcome,) = report.not_exported
            assert isinstance(outcome, NotExported)
            assert secrets_in(locals_shown(outcome.error)) == []
            return
        with pytest.raises(DownloadError) as caught:  # noqa: PT012 (one of the two)
            if how == "download":
                await client.download_export(export, tmp_path / "a.csv")
            async with client.open_export(export):
                pass
    assert "_files" in locals_shown(caught.value)
    assert secrets_in(locals_shown(caught.value)) == []
    assert held_by(caught.value) == []


def test_an_answer_of_storage_shows_no_link() -> None:
    """The repr of storage's answer has no link: it is in locals, and Location may be signed."""

    async def read_into(_: memoryview) -> int:
        return 0

    answer = StorageAnswer(307, {"location": LINK}, httpx.ByteStream(b"").__aiter__(), read_into)
    assert secrets_in(repr(answer)) == []


# --------------------------------------------------------------------- spans


@pytest.fixture
def spans() -> Iterator[tuple[InMemorySpanExporter, TracerProvider]]:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield exporter, provider
    provider.shutdown()


async def test_opentelemetry_sees_nothing_of_a_file(
    spans: tuple[InMemorySpanExporter, TracerProvider], tmp_path: Path
) -> None:
    """OpenTelemetry traces the API; storage gets no `traceparent`, and no span has the link."""
    exporter, provider = spans
    sandbox = Sandbox(rows=5)
    elsewhere = f"{sandbox.files_origin}/moved?X-Amz-Signature={SIGNATURE}"
    sandbox.inject(Fault.status(307, headers={"location": elsewhere}), origin="files")
    async with (
        httpx.AsyncClient(transport=SandboxTransport(sandbox)) as api,
        httpx.AsyncClient(transport=SandboxTransport(sandbox)) as files,
        connected(sandbox, http_client=api, file_http_client=files) as client,
    ):
        for one in (api, files):
            HTTPXClientInstrumentor.instrument_client(one, tracer_provider=provider)
        export = await client.wait_for_export(await client.request_export(PAGE_SEGMENT_ID))
        with contextlib.suppress(DownloadError):  # the place that it was moved to isn't there
            await client.download_export(export, tmp_path / "a.csv")
        await client.download_export(export, tmp_path / "b.csv")
    told = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert API_ORIGIN in told
    assert secrets_in(told) == []
    assert sandbox.files_origin not in told
    assert len(sandbox.record.files()) >= 2
    assert all("traceparent" not in (e.headers or {}) for e in sandbox.record.files())


# --------------------------------------------------------------------- log lines of HTTP/2


class Http2Server:
    """Answers every request in a thread of its own, whose log lines are told apart."""

    THREAD = "http2-server"

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.origin = f"http://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._serve, name=self.THREAD)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        """Serve one connection for the API, and one for the file."""
        for _ in range(2):
            stream, _ = self._listener.accept()
            with stream:
                self._answer_all(stream)

    def _answer_all(self, stream: Any) -> None:
        config = h2.config.H2Configuration(client_side=False)
        connection = h2.connection.H2Connection(config)
        connection.initiate_connection()
        stream.sendall(connection.data_to_send())
        while data := stream.recv(65536):
            for event in connection.receive_data(data):
                if isinstance(event, h2.events.RequestReceived) and event.stream_id:
                    self._answer(connection, event.stream_id, dict(event.headers or ()))
            stream.sendall(connection.data_to_send())

    def _answer(self, connection: Any, stream_id: int, headers: Any) -> None:
        path = headers[b":path"].decode()
        fields = [(":status", "200"), ("content-type", "application/json")]
        if path.startswith("/a.csv"):
            fields = [(":status", "302"), ("location", f"/b.csv?X-Amz-Signature={SIGNATURE}")]
        body = json.dumps(an_export(f"{self.origin}/a.csv?X-Amz-Signature={SIGNATURE}"))
        connection.send_headers(stream_id, fields)
        connection.send_data(stream_id, body.encode(), end_stream=True)


@pytest.mark.real_time
async def test_http_2_logs_no_secret(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    """Hpack's DEBUG lines of a caller's HTTP/2 client have no credentials and no link."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.addFilter(lambda record: record.threadName != Http2Server.THREAD)
    caplog.set_level(logging.DEBUG)
    for name in ("httpx", "httpcore", "hpack"):
        caplog.set_level(logging.DEBUG, logger=name)
    logging.getLogger().addHandler(handler)
    try:
        with Http2Server() as server:
            async with (
                httpx.AsyncClient(http1=False, http2=True) as api,
                httpx.AsyncClient(http1=False, http2=True) as files,
                SegmentsClient(
                    PAGE_API_KEY,
                    PAGE_ACCESS_TOKEN,
                    base_url=server.origin,
                    http_client=api,
                    file_http_client=files,
                ) as client,
            ):
                export = await client.get_export(PAGE_EXPORT_ID)
                await api.aclose()
                await client.download_export(export, tmp_path / "a.csv")
    finally:
        logging.getLogger().removeHandler(handler)
    assert "send_request_headers" in text.getvalue()
    assert secrets_in(text.getvalue()) == []


# --------------------------------------------------------------------- TLS


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def tls_origin(authority: trustme.CA) -> Iterator[str]:
    """A server whose certificate only the fixture's authority vouches for."""

    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = json.dumps(an_export(f"{origin}/a.csv")).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - its base's
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None:
            pass  # a client that doesn't trust it hangs up

    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    with Server(("127.0.0.1", 0), Handler) as server:
        origin = f"https://localhost:{server.server_port}"
        server.socket = context.wrap_socket(server.socket, server_side=True)
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield origin
        server.shutdown()
        thread.join(10)


@pytest.mark.real_time
@pytest.mark.parametrize("which", ["API", "files"])
async def test_no_client_of_ours_takes_an_unknown_certificate(
    which: str, tls_origin: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The library's clients for the API and for files verify certificates by default."""
    segment, link = Segment(PAGE_SEGMENT_ID), f"{tls_origin}/a.csv"
    export = Export(PAGE_EXPORT_ID, segment, ExportStatus.COMPLETE, None, filename=link)

    async def ask() -> None:
        if which == "API":
            await client.list_segments()
        else:
            await client.download_export(export, tmp_path / "a.csv")

    caplog.set_level(logging.INFO, "segments_async")
    async with (
        SegmentsClient(PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=tls_origin) as client,
        anyio.create_task_group() as tasks,
    ):
        tasks.start_soon(ask)
        with anyio.fail_after(10):
            await until(lambda: "CERTIFICATE_VERIFY_FAILED" in caplog.text)
        tasks.cancel_scope.cancel()


@pytest.mark.real_time
async def test_a_callers_context_is_for_both_clients(
    tls_origin: str, authority: trustme.CA, tmp_path: Path
) -> None:
    """An authority that is in the `ssl_context` vouches for the API and for storage."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    async with SegmentsClient(
        PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=tls_origin, ssl_context=context
    ) as client:
        export = await client.get_export(PAGE_EXPORT_ID)
        file = await client.download_export(export, tmp_path / "a.csv")
    assert file.verified


def _without_names() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    return context


def _without_verification() -> ssl.SSLContext:
    context = _without_names()
    context.verify_mode = ssl.CERT_NONE
    return context


@pytest.mark.parametrize(
    "context",
    [False, True, "ca.pem", _without_names(), _without_verification()],
    ids=["False", "True", "a path", "no names", "no verification"],
)
def test_verification_cannot_be_switched_off(context: Any) -> None:
    """`ssl_context` takes no False, and no context that verifies less."""
    with pytest.raises(ConfigurationError, match="ssl_context"):
        SegmentsClient("key", "token", ssl_context=context)


async def test_a_context_that_is_loosened_later_is_refused() -> None:
    """The caller's context is checked again before each request."""
    context = ssl.create_default_context()
    async with SegmentsClient(
        "key", "token", base_url="https://127.0.0.1:1", ssl_context=context
    ) as client:
        context.check_hostname = False
        with pytest.raises(ConfigurationError, match="ssl_context"):
            await client.list_segments()
        context.verify_mode = ssl.CERT_NONE
        with pytest.raises(ConfigurationError, match="ssl_context"):
            await client.request_export(PAGE_SEGMENT_ID)


# --------------------------------------------------------------------- answers without an end


class Endless(httpx.AsyncByteStream):
    """An almost endless body, which counts the bytes that were read."""

    def __init__(self, piece: bytes, seconds: float = 0.0) -> None:
        self._piece = piece
        self._seconds = seconds
        self.taken = 0

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(2000):
            await anyio.sleep(self._seconds)
            self.taken += len(self._piece)
            yield self._piece


class Barren(httpx.AsyncByteStream):
    """An endless body."""

    def __init__(self, piece: bytes) -> None:
        self._piece = piece

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            await anyio.sleep(1.0)
            yield self._piece


EMPTY_MEMBERS = gzip.compress(b"") * 1000
EMPTY_BLOCKS = b"\0\0\0\xff\xff" * 10_000


@abandoned_body
@pytest.mark.parametrize(("piece", "coding"), [(b"", ""), (b"", "gzip"), (EMPTY_MEMBERS, "gzip")])
@pytest.mark.parametrize("how", ["download", "open"])
async def test_a_file_that_yields_nothing_ends(
    piece: bytes, coding: str, how: str, tmp_path: Path
) -> None:
    """A body that goes on without bytes of the file is ended."""

    def files(_: httpx.Request) -> httpx.Response:
        headers = {"content-encoding": coding} if coding else {}
        return httpx.Response(200, headers=headers, stream=Barren(piece))

    async with client_of(complete, files) as client:
        with pytest.raises(DownloadError) as caught:  # noqa: PT012 (one of the two)
            if how == "download":
                await client.download_export(PAGE_EXPORT_ID, tmp_path / "a.csv")
            async with client.open_export(PAGE_EXPORT_ID) as body:
                async for _chunk in body.iter_bytes():
                    pass
    assert caught.value.reason == "broken"


def test_blocks_of_gzip_that_yield_nothing_end() -> None:
    """Blocks within one gzip member that yield nothing are ended, too."""
    decoder = GzipDecoder()
    decoder.feed(b"\x1f\x8b\x08" + b"\0" * 7)
    assert decoder.read() == b""
    with pytest.raises(NotGzip, match="had no output"):  # noqa: PT012 (one of the hundred)
        for _ in range(100):
            decoder.feed(EMPTY_BLOCKS)
            decoder.read()


MIB = b" " * 1024 * 1024


@abandoned_body
@pytest.mark.parametrize(("call", "cap"), [("list", LIST_CAP), ("status", STATUS_CAP)])
async def test_of_a_body_no_more_is_read_than_its_cap(call: str, cap: int) -> None:
    """At most 64 MiB of a list, 1 MiB of a status, and one piece more are read."""
    body = Endless(MIB)
    async with client_of(lambda _: httpx.Response(200, stream=body), unused) as client:
        with pytest.raises(DecodeError, match=f"more than {cap} bytes"):
            await (client.list_segments() if call == "list" else client.get_export(PAGE_EXPORT_ID))
    assert body.taken == cap + len(MIB)


@abandoned_body
@pytest.mark.parametrize("how", ["download", "open"])
async def test_of_storages_error_page_no_more_is_read_than_its_cap(
    how: str, tmp_path: Path
) -> None:
    """At most 16 KiB of storage's error page are read."""
    page = Endless(b" " * 1024)
    async with client_of(complete, lambda _: httpx.Response(403, stream=page)) as client:
        export = await client.get_export(PAGE_EXPORT_ID)
        with pytest.raises(DownloadError) as caught:  # noqa: PT012 (one of the two)
            if how == "download":
                await client.download_export(export, tmp_path / "a.csv")
            async with client.open_export(export):
                pass
    assert caught.value.reason == "denied"
    assert page.taken == STORAGE_ERROR_CAP


@abandoned_body
async def test_an_answer_of_the_api_has_a_time_in_all() -> None:
    """`request_timeout` is for the whole answer: a byte a second ends it, too."""
    body = Endless(b" ", seconds=1.0)
    async with client_of(
        lambda _: httpx.Response(200, stream=body), unused, request_timeout=20.0
    ) as client:
        began = anyio.current_time()
        with pytest.raises(SubmitUnknownError):
            await client.request_export(PAGE_SEGMENT_ID)
        assert anyio.current_time() - began == pytest.approx(20.0, abs=0.1)


@abandoned_body
@pytest.mark.parametrize("status", [200, 403])
async def test_a_body_that_trickles_is_left_while_it_is_read(status: int) -> None:
    """`open_export` also ends a body slower than 64 KiB a minute, of an error page too."""
    body = Endless(b"user_id\n", seconds=1.0)
    async with client_of(complete, lambda _: httpx.Response(status, stream=body)) as client:
        export = await client.get_export(PAGE_EXPORT_ID)
        began = anyio.current_time()
        with pytest.raises(DownloadError, match="bytes came in 60 s"):  # noqa: PT012 (the loop)
            async with client.open_export(export) as opened:
                async for _ in opened.iter_bytes():
                    pass
        assert anyio.current_time() - began == pytest.approx(60.0, abs=1.5)


@abandoned_body
async def test_a_reader_may_take_its_time() -> None:
    """Only the server's time counts: a reader's hour between two pieces ends nothing."""
    body = Endless(bytes(70_000), seconds=1.0)
    async with client_of(complete, lambda _: httpx.Response(200, stream=body)) as client:
        export = await client.get_export(PAGE_EXPORT_ID)
        async with client.open_export(export) as opened:
            async for _ in opened.iter_bytes():
                await anyio.sleep(3600)
                if body.taken >= 500_000:
                    break
    assert body.taken >= 500_000


class BrokenChunks(socketserver.StreamRequestHandler):
    """Answers each request with chunks of which the second one has text in its length's place."""

    def handle(self) -> None:
        for line in self.rfile:
            if line == b"\r\n":
                break
        self.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{\r\n")
        self.wfile.write(f"{TOLD}\r\n".encode() * 3)


#: What a body may have: a link to a file, or a user's data.
TOLD = "somebody@example.com"


@pytest.mark.real_time
async def test_a_body_that_cannot_be_read_is_not_quoted(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """Bytes where a chunk's length should be are in no log line and no error, of API and file."""
    caplog.set_level(logging.DEBUG, "")
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), BrokenChunks) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        base_url = f"http://127.0.0.1:{server.server_address[1]}"
        async with SegmentsClient("key", "access token", base_url=base_url) as client:
            export = Export(
                export_id="e",
                segment=Segment("s"),
                status=ExportStatus.COMPLETE,
                filename=f"{base_url}/a.csv",
            )
            with pytest.raises(APITimeoutError) as listing:
                await client.list_segments(timeout=0.5)
            with pytest.raises(DownloadError, match="illegal chunk") as opening:  # noqa: PT012
                async with client.open_export(export) as body:
                    async for _ in body.iter_bytes():
                        pass
        server.shutdown()
    thread.join()
    assert "receive_response_body.failed" in caplog.text
    assert TOLD not in caplog.text + str(listing.value) + str(opening.value)


async def test_nothing_is_asked_for_compressed(tmp_path: Path) -> None:
    """Requests to API and storage ask for uncompressed answers."""
    asked: list[tuple[str, str]] = []

    class Noting(SandboxTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            asked.append((request.url.host, request.headers["accept-encoding"]))
            return await super().handle_async_request(request)

    sandbox = Sandbox(rows=5)
    async with (
        httpx.AsyncClient(transport=Noting(sandbox)) as both,
        connected(sandbox, http_client=both, file_http_client=both) as client,
    ):
        await client.export(PAGE_SEGMENT_ID, tmp_path / "a.csv")
    assert len({host for host, _ in asked}) == 2
    assert {coding for _, coding in asked} == {"identity"}


def test_a_gzip_bomb_comes_in_pieces() -> None:
    """64 MiB out of 64 KiB come in pieces of at most 1 MiB."""
    compress = zlib.compressobj(9, wbits=31)
    bomb = compress.compress(bytes(64 * STEP)) + compress.flush()
    assert len(bomb) < 100_000
    decoder = GzipDecoder()
    decoder.feed(bomb)
    sizes: list[int] = []
    while piece := decoder.read():
        sizes.append(len(piece))
    decoder.end()
    assert (sum(sizes), max(sizes)) == (64 * STEP, STEP)


# --------------------------------------------------------------------- texts for people


async def test_no_message_commands_a_terminal(
    caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    """A vendor's text is escaped in errors and log lines, and makes no new line there."""
    evil = "PEN\x1b]0;owned\x07\u202e\nDING"
    page = httpx.Response(200, headers=[(b"content-type", b"text/\x9b31m")], text="<html>")
    answers = {
        "a status": lambda _: httpx.Response(200, json=an_export(status=evil) | {"filename": None}),
        "a content type": lambda _: page,
    }
    shown = ""
    caplog.set_level(logging.DEBUG, logger="segments_async")
    for answer in answers.values():
        async with client_of(answer, unused) as client:
            with pytest.raises(SegmentsError) as caught:
                await client.download_export(PAGE_EXPORT_ID, tmp_path / "a.csv")
            shown += str(caught.value)
            with contextlib.suppress(SegmentsError):
                await client.wait_for_export(PAGE_EXPORT_ID, timeout=30)
    shown += "".join(record.getMessage() for record in caplog.records)
    assert "\\x1b]0;owned" in shown
    assert "\\x9b31m" in shown
    assert [char for char in "\x1b\x07\x9b\u202e\n" if char in shown] == []
