"""Proxies: a request for a tunnel isn't a request to the vendor."""

from __future__ import annotations

import contextlib
import gc
import math
import select
import socket
import socketserver
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlsplit

import anyio
import pytest
import trustme

from segments_async import (
    APIConnectionError,
    NotSubmittedError,
    Pacer,
    SegmentsClient,
    SubmitUnknownError,
)
from segments_async.sandbox import (
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    PAGE_SEGMENT_ID,
    Durations,
    Sandbox,
)
from segments_async.sandbox.server import SandboxServer

pytestmark = [pytest.mark.real_time, pytest.mark.alternating]

#: No such host is: what asks for it goes through the proxy, or nowhere.
VENDOR = "vendor.invalid"

Behaviour = Callable[["Proxy", socket.socket, bytes], None]


class Proxy:
    """A proxy on loopback: its first connections follow the test's behaviours, then it works."""

    def __init__(self, behaviours: list[Behaviour], behind: Callable[[], int]) -> None:
        self.first_lines: list[str] = []
        self.behind = behind
        self._behaviours = behaviours
        self._lock = threading.Lock()
        proxy = self

        class Handler(socketserver.BaseRequestHandler):
            def handle(self) -> None:
                with contextlib.suppress(OSError):
                    proxy.serve(self.request)

        class Server(socketserver.ThreadingTCPServer):
            daemon_threads = True
            block_on_close = False

        self._server = Server(("127.0.0.1", 0), Handler)
        self.url = f"http://me:hunter2@127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def serve(self, connection: socket.socket) -> None:
        connection.settimeout(30)
        head = b""
        while b"\r\n\r\n" not in head:
            if not (more := connection.recv(65536)):
                return
            head += more
        with self._lock:
            self.first_lines.append(head.split(b"\r\n")[0].decode())
            behaviour = self._behaviours.pop(0) if self._behaviours else works
        behaviour(self, connection, head)


def works(proxy: Proxy, connection: socket.socket, head: bytes) -> None:
    """Open a tunnel, or forward the request and all that follows."""
    with socket.create_connection(("127.0.0.1", proxy.behind()), 30) as server:
        if head.startswith(b"CONNECT"):
            connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        else:
            server.sendall(head.replace(b"http://" + VENDOR.encode(), b"", 1))
        ends = {connection: server, server: connection}
        while True:
            for readable in select.select(list(ends), [], [], 30)[0]:
                if not (data := readable.recv(65536)):
                    return
                ends[readable].sendall(data)


def hangs_up(_: Proxy, connection: socket.socket, head: bytes) -> None:
    connection.close()


def resets(_: Proxy, connection: socket.socket, head: bytes) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def stalls(_: Proxy, connection: socket.socket, head: bytes) -> None:
    connection.recv(1)  # until the client leaves


def says(answer: bytes) -> Behaviour:
    def behaviour(_: Proxy, connection: socket.socket, head: bytes) -> None:
        connection.sendall(answer)

    return behaviour


def breaks_tls(_: Proxy, connection: socket.socket, head: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    connection.recv(65536)
    connection.sendall(b"this is no TLS")


def stalls_in_tls(proxy: Proxy, connection: socket.socket, head: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
    while connection.recv(65536):
        pass


NO_TUNNEL: dict[str, Behaviour] = {
    "hangs up": hangs_up,
    "resets": resets,
    "stalls": stalls,
    "says garbage": says(b"\x00\x01\x02 no HTTP\r\n\r\n"),
    "says half a line": says(b"HTTP/1.1 2"),
    "says 407": says(b"HTTP/1.1 407 Who are you\r\nContent-Length: 0\r\n\r\n"),
    "says 401 itself": says(b"HTTP/1.1 401 No\r\nContent-Length: 4\r\n\r\nwho?"),
    "says 407 with a body": says(b"HTTP/1.1 407 No\r\nContent-Length: 4\r\n\r\nwho?"),
    "says 502": says(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n"),
    "breaks TLS": breaks_tls,
    "hangs up in TLS": says(b"HTTP/1.1 200 OK\r\n\r\n"),
    "stalls in TLS": stalls_in_tls,
}
every_failure = pytest.mark.parametrize("failure", NO_TUNNEL.values(), ids=NO_TUNNEL)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


class _Tls(socketserver.ThreadingTCPServer):
    """TLS in front of a plain server."""

    daemon_threads = True
    block_on_close = False


@contextlib.contextmanager
def _tls_before(port: int, authority: trustme.CA) -> Iterator[int]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(VENDOR).configure_cert(context)

    class Handler(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with (
                contextlib.suppress(OSError),
                context.wrap_socket(self.request, server_side=True) as client,
                socket.create_connection(("127.0.0.1", port), 30) as server,
            ):
                ends: dict[socket.socket, socket.socket] = {client: server, server: client}
                while True:
                    for readable in select.select(list(ends), [], [], 30)[0]:
                        if not (data := readable.recv(65536)):
                            return
                        ends[readable].sendall(data)

    with _Tls(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def _client(url: str, **options: Any) -> SegmentsClient:
    return SegmentsClient(
        PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=url, pacer=Pacer(rate=math.inf), **options
    )


@every_failure
async def test_a_tunnel_that_fails_was_sent_no_post(
    failure: Behaviour,
    monkeypatch: pytest.MonkeyPatch,
    authority: trustme.CA,
    trusting: ssl.SSLContext,
    tmp_path: Path,
) -> None:
    """The POST is tried again, and the vendor gets it once, when a tunnel holds."""
    sandbox = Sandbox(segments=2, durations=Durations(median=0.1, sigma=0))
    with (
        SandboxServer(sandbox) as server,
        _tls_before(urlsplit(server.base_url).port or 0, authority) as port,
        Proxy([failure], lambda: port) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        async with _client(
            f"https://{VENDOR}", ssl_context=trusting, request_timeout=1.0
        ) as client:
            report = await client.bulk_export(
                [PAGE_SEGMENT_ID], None, journal=tmp_path / "runs.db", timeout=60
            )
    assert report.ok
    assert len(sandbox.record.submits()) == 1
    assert set(proxy.first_lines) == {f"CONNECT {VENDOR}:443 HTTP/1.1"}


@every_failure
async def test_without_a_tunnel_a_run_is_resumable(
    failure: Behaviour, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The proxy sees only CONNECT, so no export is unknown at the end."""
    with Proxy([failure] * 100, lambda: 0) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        async with _client(f"https://{VENDOR}", request_timeout=0.5) as client:
            report = await client.bulk_export(
                ["s1", "s2", "s3"], None, journal=tmp_path / "runs.db", timeout=3.0
            )
    told = [(type(o.error), o.submitted, o.resumable) for o in report.not_exported]
    assert told == [(NotSubmittedError, "no", True)] * 3
    assert set(proxy.first_lines) == {f"CONNECT {VENDOR}:443 HTTP/1.1"}


async def test_a_post_lost_inside_a_tunnel_is_unknown(
    monkeypatch: pytest.MonkeyPatch, authority: trustme.CA, trusting: ssl.SSLContext
) -> None:
    """A POST lost in an open tunnel may have arrived: it is unknown."""

    class LosesAll(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.recv(65536)

    with (
        _Tls(("127.0.0.1", 0), LosesAll) as vendor,
        _tls_before(vendor.server_address[1], authority) as port,
        Proxy([], lambda: port) as proxy,
    ):
        threading.Thread(target=vendor.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        async with _client(f"https://{VENDOR}", ssl_context=trusting) as client:
            with pytest.raises(SubmitUnknownError):
                await client.request_export(PAGE_SEGMENT_ID)
        vendor.shutdown()


async def test_a_post_that_a_proxy_forwards_may_have_arrived(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Over plain http the proxy gets the POST itself: a lost one is unknown."""
    with Proxy([hangs_up], lambda: 0) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        with pytest.warns(UserWarning, match="HTTPS"):
            client = _client(f"http://{VENDOR}", allow_insecure=True)
        async with client:
            with pytest.raises(SubmitUnknownError):
                await client.request_export(PAGE_SEGMENT_ID)
    assert proxy.first_lines[0].startswith(f"POST http://{VENDOR}/")


async def test_a_host_in_no_proxy_is_asked_past_the_proxy(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A request to a host in NO_PROXY doesn't go to the proxy."""
    with Proxy([], lambda: 0) as proxy:
        monkeypatch.setenv("HTTPS_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", f"[::1],{VENDOR}")
        async with _client(f"https://{VENDOR}", request_timeout=0.5) as client:
            with pytest.raises(NotSubmittedError):
                await client.export("s1", Path("unused.csv"), timeout=0.5)
    assert proxy.first_lines == []


# httpcore leaves the socket of a SOCKS handshake that failed to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
async def test_a_socks_proxy_that_fails_was_sent_no_post(monkeypatch: pytest.MonkeyPatch) -> None:
    """A SOCKS proxy hangs up, or answers garbage, in its handshake: no POST was sent."""
    answers = [b"", b"garbage", b"\x05\xff", b"\x05\x00\x05\x01\x00\x01\x00\x00\x00\x00\x00\x00"]
    seen: list[bytes] = []

    class Socks(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            seen.append(self.request.recv(65536))
            with contextlib.suppress(OSError):
                self.request.sendall(answers[len(seen) % len(answers)])

    with _Tls(("127.0.0.1", 0), Socks) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        monkeypatch.setenv("ALL_PROXY", f"socks5://127.0.0.1:{server.server_address[1]}")
        async with _client(f"https://{VENDOR}", request_timeout=0.5) as client:
            report = await client.bulk_export(["s1"], None, timeout=2.0)
        async with _client(f"https://{VENDOR}", request_timeout=0.5) as client:
            # An outage is waited for; what SOCKS's package raises isn't raised as it is.
            with anyio.move_on_after(2.0), contextlib.suppress(APIConnectionError):
                await client.list_segments()
        server.shutdown()
    (missing,) = report.not_exported
    assert (type(missing.error), missing.submitted) == (NotSubmittedError, "no")
    assert seen
    gc.collect()  # here, where the warning is expected
