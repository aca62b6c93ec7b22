"""The fast transport over real sockets, plain and TLS: with direct reads, and without them."""

from __future__ import annotations

import contextlib
import gc
import os
import socket
import ssl
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import anyio
import anyio.to_thread
import httpx
import pytest
from client.vendor import until

from segments_async._http import fast_transport
from segments_async._http.clients import OwnClients
from segments_async._http.errors import was_sent
from segments_async._http.storage import Storage
from segments_async._http.storage_body import StorageBody, StorageBroken
from segments_async._http.transport import OneConnection
from segments_async._sansio.files.ranges import NO_END

pytestmark = [pytest.mark.real_time, pytest.mark.needs("openssl")]

#: Of several TLS records, and of several reads.
BODY = bytes(range(256)) * 8192  # 2 MiB
HEAD = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A certificate for localhost, and its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    key, found = folder / "key.pem", folder / "cert.pem"
    command = f"openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -keyout {key}"
    subprocess.run(
        [*command.split(), "-addext", "subjectAltName=DNS:localhost", "-out", str(found)],
        check=True,
        capture_output=True,
    )
    found.write_text(found.read_text() + key.read_text())
    return found


#: Seconds for what has no reason to hang, and no claim of how long anything takes.
PATIENCE = 120.0


@contextlib.contextmanager
def listening(serve: Callable[[socket.socket], None]) -> Iterator[int]:
    """The port of a listening socket on loopback, which a thread serves."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        yield listener.getsockname()[1]
        listener.close()
        thread.join(PATIENCE)
        assert not thread.is_alive()


@contextlib.contextmanager
def serving(answer: bytes, tls: ssl.SSLContext | None) -> Iterator[int]:
    """A server that answers one connection, and closes it without a word."""

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            raw, _ = listener.accept()
            with tls.wrap_socket(raw, server_side=True) if tls else raw as connection:
                connection.recv(65536)
                connection.sendall(answer)

    with listening(serve) as port:
        yield port


async def fetch(
    url: str, context: ssl.SSLContext, timeout: httpx.Timeout | float = PATIENCE
) -> list[bytes]:
    async with (
        httpx.AsyncClient(transport=OneConnection(context, 1.0)) as client,
        client.stream("GET", url, timeout=timeout) as response,
    ):
        return [chunk async for chunk in response.aiter_raw()]


Case = tuple[str, Callable[[Path], ssl.SSLContext | None]]


def _server_context(certificate: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    return context


CASES: dict[str, Case] = {
    "plain": ("http", lambda _: None),
    "TLS": ("https", _server_context),
}


@pytest.mark.parametrize(("scheme", "context_of"), CASES.values(), ids=CASES)
async def test_a_body_cut_off_is_an_error(
    scheme: str, context_of: Callable[[Path], ssl.SSLContext | None], certificate: Path
) -> None:
    """A body that is shorter than announced is an error."""
    answer = HEAD % len(BODY) + BODY[:-1]
    trust = ssl.create_default_context(cafile=str(certificate))
    with (
        serving(answer, context_of(certificate)) as port,
        anyio.fail_after(PATIENCE),
        pytest.raises(httpx.TransportError),
    ):
        await fetch(f"{scheme}://localhost:{port}/", trust)


@pytest.mark.parametrize(("scheme", "context_of"), CASES.values(), ids=CASES)
async def test_a_body_is_read_whole_and_in_large_pieces(
    scheme: str, context_of: Callable[[Path], ssl.SSLContext | None], certificate: Path
) -> None:
    """All bytes arrive in their order, in larger pieces than httpcore's own streams read."""
    trust = ssl.create_default_context(cafile=str(certificate))
    with (
        serving(HEAD % len(BODY) + BODY, context_of(certificate)) as port,
        anyio.fail_after(PATIENCE),
    ):
        chunks = await fetch(f"{scheme}://localhost:{port}/", trust)
    assert b"".join(chunks) == BODY
    assert max(map(len, chunks)) > 16 * 1024


@contextlib.contextmanager
def saying(
    first: bytes, *, reset: bool = False, said: threading.Event | None = None
) -> Iterator[int]:
    """A server that sends the same bytes after any request, then nothing until the client closes.

    Args:
        first: the bytes.
        reset: whether the server then resets the connection.
        said: set once the bytes are sent.
    """

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(first)
                if said is not None:
                    said.set()
                if reset:
                    linger = struct.pack("ii", 1, 0)
                    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                else:
                    assert connection.recv(65536) == b""

    with listening(serve) as port:
        yield port


async def test_a_connection_that_is_reset() -> None:
    """A ReadError, as from httpx's own transport."""
    with (
        saying(HEAD % 10 + b"01234", reset=True) as port,
        anyio.fail_after(PATIENCE),
        pytest.raises(httpx.ReadError),
    ):
        await fetch(f"http://127.0.0.1:{port}/", httpx.create_ssl_context())


async def test_a_connection_that_falls_silent() -> None:
    """A read timeout, after as long as the request says."""
    with (
        saying(HEAD % 10 + b"01234") as port,
        anyio.fail_after(PATIENCE),
        pytest.raises(httpx.ReadTimeout),
    ):
        await fetch(
            f"http://127.0.0.1:{port}/",
            httpx.create_ssl_context(),
            httpx.Timeout(PATIENCE, read=0.1),
        )


@pytest.mark.parametrize("answer", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b""])
async def test_what_fails_before_the_request_was_not_sent(answer: bytes) -> None:
    """A server without TLS, or a silent one, is a connect error: no POST was sent."""
    with (
        saying(answer) as port,
        anyio.fail_after(PATIENCE),
        pytest.raises((httpx.ConnectError, httpx.ConnectTimeout)) as caught,
    ):
        await fetch(f"https://127.0.0.1:{port}/", httpx.create_ssl_context(), timeout=0.1)
    assert was_sent(caught.value) is False


async def test_a_cancelled_read_leaves_no_connection() -> None:
    """The server sees the connection close, so no descriptor of it is open."""
    said = threading.Event()
    with saying(HEAD % 10 + b"01234", said=said) as port, anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(fetch, f"http://127.0.0.1:{port}/", httpx.create_ssl_context())
            await anyio.to_thread.run_sync(said.wait, PATIENCE)
            tasks.cancel_scope.cancel()


async def test_a_flipped_byte_of_tls_is_an_error(certificate: Path) -> None:
    """After valid records, in a body that ends with the connection."""
    head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n"
    trust = ssl.create_default_context(cafile=str(certificate))
    with (
        encrypting([head, *[b"x" * 16_000] * 8], certificate, flipped=5) as port,
        anyio.fail_after(PATIENCE),
        pytest.raises(httpx.ReadError, match=r"(?i)bad.record.mac"),
    ):
        await fetch(f"https://localhost:{port}/", trust)


async def test_small_records_are_put_together(certificate: Path) -> None:
    """S3's TLS has records of 8 KiB."""
    pieces = [b"x" * 8000] * 64
    head = HEAD % sum(map(len, pieces))
    trust = ssl.create_default_context(cafile=str(certificate))
    with encrypting([head, *pieces], certificate) as port, anyio.fail_after(PATIENCE):
        chunks = await fetch(f"https://localhost:{port}/", trust)
    assert b"".join(chunks) == b"".join(pieces)
    assert len(chunks) < len(pieces) / 2


@contextlib.contextmanager
def encrypting(
    records: list[bytes], certificate: Path, *, flipped: int | None = None
) -> Iterator[int]:
    """A server that answers with these TLS records at once; one of them has a flipped byte."""

    def serve(listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            with connection:
                incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
                tls = _server_context(certificate).wrap_bio(incoming, outgoing, server_side=True)
                for step in (tls.do_handshake, lambda: tls.read(65536)):
                    while True:
                        try:
                            step()
                        except ssl.SSLWantReadError:
                            connection.sendall(outgoing.read())
                            incoming.write(connection.recv(65536))
                        else:
                            break
                answer = bytearray(outgoing.read())
                for number, record in enumerate(records):
                    tls.write(record)
                    sealed = bytearray(outgoing.read())
                    sealed[100 if number == flipped else 0] ^= number == flipped
                    answer += sealed
                connection.sendall(answer)
                connection.recv(65536)

    with listening(serve) as port:
        yield port


async def test_closed_while_it_is_read() -> None:
    """A waiting read fails at once, and not at the read timeout."""
    client = httpx.AsyncClient(transport=OneConnection(httpx.create_ssl_context(), 1.0))
    said = threading.Event()
    with saying(HEAD % 10 + b"01234", said=said) as port, anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:

            async def read() -> None:
                with pytest.raises(httpx.ReadError):
                    await client.get(f"http://127.0.0.1:{port}/", timeout=2 * PATIENCE)

            tasks.start_soon(read)
            await anyio.to_thread.run_sync(said.wait, PATIENCE)
            await client.aclose()


async def test_without_a_descriptor_nothing_was_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connect error, as if the connection could not be opened."""

    def no_more(_: int) -> int:
        raise OSError(24, "Too many open files")

    with saying(b"") as port:
        monkeypatch.setattr(os, "dup", no_more)
        with pytest.raises(httpx.ConnectError, match="Too many open files") as caught:
            await fetch(f"http://127.0.0.1:{port}/", httpx.create_ssl_context())
    assert was_sent(caught.value) is False


async def test_the_certificate_is_verified(certificate: Path) -> None:
    """No request is sent to a server whose certificate isn't trusted."""
    with (
        serving(HEAD % len(BODY) + BODY, _server_context(certificate)) as port,
        pytest.raises(httpx.ConnectError, match=r"(?i)certificate"),
    ):
        await fetch(f"https://localhost:{port}/", httpx.create_ssl_context())


async def test_a_client_whose_connection_is_held_gets_another_one() -> None:
    """A request does not wait for a connection whose closing was interrupted."""
    clients = OwnClients(httpx.create_ssl_context(), 1.0, loopback=True)
    with saying(HEAD % 10 + b"01234") as port, saying(HEAD % 5 + b"56789") as other_port:
        client = clients.borrow()
        request = client.build_request("GET", f"http://127.0.0.1:{port}/")
        response = await client.send(request, stream=True)
        clients.give_back(client)
        assert clients.borrow() is client
        with anyio.fail_after(10):
            again = client.build_request("GET", f"http://127.0.0.1:{other_port}/")
            other = await client.send(again, stream=True)
        await response.aclose()
        assert await anext(other.aiter_raw()) == b"56789"
        await other.aclose()
        await clients.aclose()


# --------------------------------------------------------------------- direct reads


@pytest.fixture(params=[1, NO_END], ids=["direct", "through h11"])
def direct(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Whether bodies of 2 MiB are read directly. Each claim holds with and without direct reads."""
    monkeypatch.setattr(fast_transport, "DIRECT_READ_FROM", request.param)
    return bool(request.param == 1)


async def read(url: str, context: ssl.SSLContext, timeout: float = PATIENCE) -> bytes:
    """The body, read as downloads read it, with buffers of an unusual size."""
    clients = OwnClients(context, 1.0, loopback=True)
    storage = Storage(clients, lambda link: link, redirects=0, timeout=timeout)
    body, buffer = b"", memoryview(bytearray(100_003))
    try:
        async with storage.get(url) as answer:
            while size := await answer.read_into(buffer):
                body += buffer[:size]
        return body
    finally:
        await clients.aclose()


@pytest.fixture
def directly_read(monkeypatch: pytest.MonkeyPatch, direct: bool) -> list[int]:
    """The number of bytes of each direct read."""
    sizes: list[int] = []
    read_into = fast_transport.DirectRead.read_into

    async def note(rest: fast_transport.DirectRead, buffer: memoryview) -> int:
        sizes.append(await read_into(rest, buffer))
        return sizes[-1]

    monkeypatch.setattr(fast_transport.DirectRead, "read_into", note)
    return sizes


@pytest.mark.parametrize(("scheme", "context_of"), CASES.values(), ids=CASES)
async def test_a_large_body(
    scheme: str,
    context_of: Callable[[Path], ssl.SSLContext | None],
    certificate: Path,
    direct: bool,
    directly_read: list[int],
) -> None:
    """All bytes of the body arrive in their order, and none that follow it."""
    trust = ssl.create_default_context(cafile=str(certificate))
    answer = HEAD % len(BODY) + BODY + b"and more"
    with serving(answer, context_of(certificate)) as port, anyio.fail_after(PATIENCE):
        assert await read(f"{scheme}://localhost:{port}/", trust) == BODY
    if direct:
        assert sum(directly_read) > len(BODY) / 4
    assert directly_read[-1:] == ([0] if direct else [])


@pytest.mark.parametrize(("scheme", "context_of"), CASES.values(), ids=CASES)
async def test_a_large_body_cut_off(
    scheme: str,
    context_of: Callable[[Path], ssl.SSLContext | None],
    certificate: Path,
    direct: bool,
) -> None:
    """The body is broken, also when h11 does not see its end."""
    trust = ssl.create_default_context(cafile=str(certificate))
    with (
        serving(HEAD % len(BODY) + BODY[:-1], context_of(certificate)) as port,
        anyio.fail_after(PATIENCE),
        pytest.raises(StorageBroken, match="ended 1 bytes before" if direct else "RemoteProtocol"),
    ):
        await read(f"{scheme}://localhost:{port}/", trust)


@pytest.mark.parametrize(
    ("reset", "seconds", "what"),
    [(True, PATIENCE, "reset by peer"), (False, 2.0, "TimeoutError")],
    ids=["reset", "silent"],
)
async def test_a_connection_that_fails_in_a_large_body(
    direct: bool, reset: bool, seconds: float, what: str
) -> None:
    """The connection is broken; this is never an error of the disk."""
    with (
        saying(HEAD % (2 * len(BODY)) + BODY, reset=reset) as port,
        anyio.fail_after(PATIENCE),
        pytest.raises(StorageBroken, match=what if direct else "Read"),
    ):
        await read(
            f"http://127.0.0.1:{port}/",
            httpx.create_ssl_context(),
            timeout=seconds,
        )


async def test_a_flipped_byte_of_tls_in_a_large_body(
    certificate: Path, direct: bool, directly_read: list[int]
) -> None:
    """The records before the flipped byte are read, and its record is an error."""
    pieces = [b"x" * 16_000] * 64
    trust = ssl.create_default_context(cafile=str(certificate))
    with (
        encrypting([HEAD % sum(map(len, pieces)), *pieces], certificate, flipped=60) as port,
        anyio.fail_after(PATIENCE),
        pytest.raises(StorageBroken, match=r"(?i)bad.record.mac"),
    ):
        await read(f"https://localhost:{port}/", trust)
    assert (sum(directly_read) > 0) == direct


@pytest.mark.parametrize("direct", [1], indirect=True, ids=["direct"])
async def test_a_cancelled_direct_read(directly_read: list[int]) -> None:
    """The connection is closed at once."""
    with saying(HEAD % (2 * len(BODY)) + BODY) as port, anyio.fail_after(PATIENCE):
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read, f"http://127.0.0.1:{port}/", httpx.create_ssl_context())
            await until(lambda: sum(directly_read) > 0)
            tasks.cancel_scope.cancel()


CHUNK = 512 * 1024
CHUNKED = b"".join(
    b"%x\r\n%b\r\n" % (CHUNK, BODY[start : start + CHUNK]) for start in range(0, len(BODY), CHUNK)
)
ANSWERS = {
    "small": (HEAD % len(BODY) + BODY, len(BODY) + 1),
    "of unknown length": (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + BODY, 1),
    # RFC 9112, section 6.3: the length doesn't count.
    "chunked, with a length": (
        HEAD[:-2] % len(BODY) + b"transfer-encoding: chunked\r\n\r\n" + CHUNKED + b"0\r\n\r\n",
        1,
    ),
}


@pytest.mark.parametrize(("answer", "past_from"), ANSWERS.values(), ids=ANSWERS)
@pytest.mark.parametrize("direct", [1], indirect=True, ids=["direct"])
async def test_other_bodies_go_through_h11(
    monkeypatch: pytest.MonkeyPatch, directly_read: list[int], answer: bytes, past_from: int
) -> None:
    """A connection is used again after a small body; h11 alone knows where other bodies end."""
    monkeypatch.setattr(fast_transport, "DIRECT_READ_FROM", past_from)
    with serving(answer, None) as port, anyio.fail_after(PATIENCE):
        assert await read(f"http://127.0.0.1:{port}/", httpx.create_ssl_context()) == BODY
    assert directly_read == []


async def test_an_answer_before_a_broken_record_counts(certificate: Path) -> None:
    """The broken record does not cost the answer to a POST, which has arrived whole."""
    trust = ssl.create_default_context(cafile=str(certificate))
    with (
        encrypting([HEAD % 5 + b"hello", b"x" * 200], certificate, flipped=1) as port,
        anyio.fail_after(PATIENCE),
    ):
        assert await fetch(f"https://localhost:{port}/", trust) == [b"hello"]


async def test_nothing_is_left_to_the_garbage_collector(direct: bool) -> None:
    """Httpx's and httpcore's generators are closed after the body, also after a direct read."""
    finalized: list[object] = []
    with serving(HEAD % len(BODY) + BODY, None) as port, anyio.fail_after(PATIENCE):
        url = f"http://127.0.0.1:{port}/"
        hooks = sys.get_asyncgen_hooks()
        sys.set_asyncgen_hooks(firstiter=hooks.firstiter, finalizer=finalized.append)
        try:
            assert await read(url, httpx.create_ssl_context()) == BODY
            gc.collect()
        finally:
            sys.set_asyncgen_hooks(*hooks)
    assert finalized == []


async def test_what_was_peeked_is_read_first(direct: bool) -> None:
    """The bytes of the look ahead are read again, and none after them are skipped."""
    clients = OwnClients(httpx.create_ssl_context(), 1.0, loopback=True)
    storage = Storage(clients, lambda link: link, redirects=0, timeout=10)
    body, buffer = b"", memoryview(bytearray(100_003))
    with serving(HEAD % len(BODY) + BODY, None) as port, anyio.fail_after(PATIENCE):
        async with storage.get(f"http://127.0.0.1:{port}/") as answer:
            assert isinstance(answer.chunks, StorageBody)
            # From several reads; h11 returned the last one whole.
            assert await answer.chunks.peek(1_000_000) == BODY[:1_000_000]
            while size := await answer.read_into(buffer):
                body += buffer[:size]
        await clients.aclose()
    assert body == BODY


# --------------------------------------------------------------------- a process that stood still


class _Loops:
    """Time as seen by a read: the first one ends in a standstill of the process."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
        self._offset = 0.0
        now = anyio.current_time
        self._seconds = seconds
        monkeypatch.setattr(anyio, "current_time", lambda: now() + self._offset)

    def stand_still(self) -> None:
        self._offset += self._seconds


@pytest.mark.parametrize(("seconds", "read_again"), [(60.0, True), (0.0, False)])
async def test_after_a_standstill_a_socket_is_looked_at_once_more(
    seconds: float, read_again: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a standstill the socket may have bytes although the timer is due; else time is up."""
    loops, reads = _Loops(monkeypatch, seconds), 0

    async def read() -> bytes:
        nonlocal reads
        reads += 1
        if reads == 1:
            try:
                await anyio.sleep_forever()
            finally:
                loops.stand_still()
        return b"what came"

    if read_again:
        assert await fast_transport.read_within(0.01, read) == b"what came"
    else:
        with pytest.raises(TimeoutError):
            await fast_transport.read_within(0.01, read)
    assert reads == 1 + read_again
