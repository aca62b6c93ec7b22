"""Network streams that return all the bytes that have arrived, for bodies of gigabytes.

httpcore asks its streams for 64 KiB at a time, asyncio reads at most 256 KiB, and TLS returns one
record of 16 KiB. Each piece, however small, passes asyncio, anyio, httpcore, h11 and httpx, which
takes some 0.15 ms. So these streams read the socket themselves, as much as has arrived at once. The
rest of a large body is read directly: from the connection into the memory that is written to disk,
past h11 (`start_direct_read`).

httpcore's interface for network backends is public (https://www.encode.io/httpcore/network-backends/).
So is the connection that it hands out with each response (https://www.encode.io/httpcore/extensions/).
Without this file everything works, more slowly.
"""

from __future__ import annotations

import abc
import contextlib
import os
import socket
import ssl
from collections.abc import Awaitable, Callable, Generator, Iterable, Mapping
from functools import partial
from typing import Any, TypeVar, cast

import anyio
import anyio.lowlevel
import httpcore
from anyio.abc import ByteStream
from anyio.streams.tls import TLSAttribute, TLSStream

from segments_async._sansio.pace.standstill import LATE, MOMENT

T = TypeVar("T")

#: Bytes read at once. A single read of 1 MiB is slower: it keeps the sender from the socket.
READ_SIZE = 256 * 1024

#: Bytes that must follow for a direct read. h11's copies cost as much processor time as SHA-256;
#: but a connection that was read directly can't be used again, and a new one takes some 0.1 s.
DIRECT_READ_FROM = 32 * 1024 * 1024

#: Bytes of a TLS record, at most (RFC 8446, section 5.1).
_RECORD = 16 * 1024

_BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError)

#: Raises to refuse a host (its name) for one of its addresses.
CheckAddresses = Callable[[str, list[str]], None]


class FastBackend(httpcore.AsyncNetworkBackend):
    """httpcore's backend for anyio, with streams that read their sockets themselves.

    Args:
        check_peer: called with the host and the address of each new connection. Raises to refuse
            the connection. None accepts every address.
    """

    def __init__(self, check_peer: CheckAddresses | None) -> None:
        self._check_peer = check_peer
        # Without anyio, httpcore defines an empty class of this name.
        self._anyio = cast(httpcore.AsyncNetworkBackend, httpcore.AnyIOBackend())

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        stream = await self._anyio.connect_tcp(host, port, timeout, local_address, socket_options)
        try:
            if self._check_peer is not None:
                self._check_peer(host, [stream.get_extra_info("server_addr")[0]])
            return _PlainStream(stream)
        except OSError as exc:  # no file descriptor is left
            await stream.aclose()
            raise httpcore.ConnectError(str(exc)) from exc
        except BaseException:
            await stream.aclose()
            raise

    async def sleep(self, seconds: float) -> None:
        await self._anyio.sleep(seconds)


class _FastStream(httpcore.AsyncNetworkStream):
    """A stream whose reads return all that has arrived.

    Attributes:
        last_read: bytes that the last read returned to httpcore.
    """

    last_read = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - all
        with _httpcore_read_errors():
            await anyio.lowlevel.checkpoint()
            received = await read_within(timeout, self.receive)
        self.last_read = len(received)
        return received

    @abc.abstractmethod
    async def receive(self) -> bytes:
        """All bytes that have arrived, at least one; empty at the end."""

    @abc.abstractmethod
    async def receive_into(self, buffer: memoryview) -> int:
        """As `receive`, into a buffer. Returns the number of bytes; 0 at the end."""

    @abc.abstractmethod
    def take_into(self, buffer: memoryview) -> int | None:
        """As `receive_into`, without waiting; None if nothing has arrived."""


class DirectRead:
    """The rest of a body with a Content-Length, read from its connection.

    h11 never sees these bytes, so httpcore closes the connection with the response.
    """

    def __init__(self, stream: _FastStream, size: int, timeout: float) -> None:
        self._stream = stream
        self._left = size
        self._timeout = timeout

    async def read_into(self, buffer: memoryview) -> int:
        """Read at least one byte. Returns the number of bytes; 0 when the body is complete.

        Raises:
            OSError: the connection broke, or nothing arrived within the timeout.
        """
        if not self._left:
            return 0
        room = buffer[: min(self._left, READ_SIZE)]
        await anyio.lowlevel.checkpoint()
        try:
            size = self._stream.take_into(room)
            if size is None:  # a timer for every read would cost as much as the read
                size = await read_within(self._timeout, partial(self._stream.receive_into, room))
        except (*_BROKEN, httpcore.NetworkError, httpcore.TimeoutException) as exc:
            # httpcore's: TLS may have to write before it reads on.
            raise ConnectionError(str(exc)) from exc
        if not size:
            raise ConnectionError(f"the connection ended {self._left} bytes before the body")
        self._left -= size
        return size


def start_direct_read(
    extensions: Mapping[str, Any], chunk: bytes, left: int, timeout: float
) -> DirectRead | None:
    """Read the rest of a body directly from the socket; None if h11 has to read on.

    Args:
        chunk: the part of the body that httpx returned last.
        left: bytes that follow the chunk, by a valid Content-Length.
        timeout: seconds for each read.
    """
    stream = extensions.get("network_stream")
    if left < DIRECT_READ_FROM or not isinstance(stream, _FastStream):
        return None
    # h11 returns all that it has of a body with a Content-Length, so its buffer is empty now. A
    # chunk that isn't the whole last read would show that it isn't. (The first chunk never is the
    # whole read: it came with the head.)
    return DirectRead(stream, left, timeout) if len(chunk) == stream.last_read else None


class _PlainStream(_FastStream):
    """httpcore's stream, whose socket is read here.

    anyio pauses asyncio's transport once it is connected, and the transport stays paused. Bytes
    that a server sends before it is asked may be lost to it: over HTTP and TLS these are an error.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        # A descriptor of its own: event loops refuse to watch the one that a transport has.
        self.socket = socket.socket(fileno=os.dup(stream.get_extra_info("socket").fileno()))
        self.socket.setblocking(False)

    async def receive(self) -> bytes:
        while (received := self._without_waiting(lambda: self.socket.recv(READ_SIZE))) is None:
            await anyio.wait_readable(self.socket)  # ClosedResourceError: closed meanwhile
        return received

    async def receive_into(self, buffer: memoryview) -> int:
        while (size := self.take_into(buffer)) is None:
            await anyio.wait_readable(self.socket)
        return size

    def take_into(self, buffer: memoryview) -> int | None:
        return self._without_waiting(lambda: self.socket.recv_into(buffer))

    def _without_waiting(self, read: Callable[[], T]) -> T | None:
        try:
            return read()
        except BlockingIOError:
            return None
        except OSError as exc:
            raise anyio.BrokenResourceError from exc

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        if self.socket.fileno() >= 0:
            anyio.notify_closing(self.socket)  # wakes tasks that wait for the socket
            self.socket.close()
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        try:
            with anyio.fail_after(timeout):
                encrypted = await TLSStream.wrap(
                    _AnyioStream(self),
                    ssl_context=ssl_context,
                    hostname=server_hostname,
                    standard_compatible=False,  # as httpcore: HTTP says where a body ends
                    server_side=False,
                )
        except BaseException as exc:
            await anyio.aclose_forcefully(_AnyioStream(self))
            if isinstance(exc, TimeoutError):
                raise httpcore.ConnectTimeout(str(exc)) from exc
            if isinstance(exc, (*_BROKEN, anyio.EndOfStream, ssl.SSLError, httpcore.WriteError)):
                raise httpcore.ConnectError(str(exc)) from exc
            raise
        return _EncryptedStream(self, encrypted)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _AnyioStream(ByteStream):
    """A plain stream in the form that anyio's TLS runs over."""

    def __init__(self, stream: _PlainStream) -> None:
        self._stream = stream

    async def receive(self, max_bytes: int = READ_SIZE) -> bytes:  # noqa: ARG002 - TLS takes more, too
        received = await self._stream.receive()
        if not received:
            raise anyio.EndOfStream
        return received

    async def send(self, item: bytes) -> None:
        await self._stream.write(item)

    async def send_eof(self) -> None:
        raise NotImplementedError("TLS ends by a message of its own")

    async def aclose(self) -> None:
        await self._stream.aclose()


class _EncryptedStream(_FastStream):
    """TLS over a plain stream."""

    def __init__(self, below: _PlainStream, stream: TLSStream) -> None:
        self._below = below
        self._stream = stream
        self._ssl = stream.extra(TLSAttribute.ssl_object)  # noqa: S610 - anyio's, not Django's
        #: Records are put together here: returned one by one they would cost as much again.
        self._records = memoryview(bytearray(READ_SIZE))
        self._broken: ssl.SSLError | None = None

    async def receive(self) -> bytes:
        return bytes(self._records[: await self.receive_into(self._records)])

    async def receive_into(self, buffer: memoryview) -> int:
        size = self.take_into(buffer)
        if size is None:
            try:
                first = await self._stream.receive(min(_RECORD, len(buffer)))
            except anyio.EndOfStream:
                return 0
            size = len(first)
            buffer[:size] = first
            size += self._decrypt_into(buffer[size:])
        return size

    def take_into(self, buffer: memoryview) -> int | None:
        size = 0 if self._broken is not None else self._decrypt_into(buffer)
        if self._broken is not None and not size:
            raise self._broken
        return size or None

    def _decrypt_into(self, buffer: memoryview) -> int:
        """Decrypt what has arrived. The next read raises the error of a broken record."""
        size = 0
        try:
            while size < len(buffer):
                # typeshed declares bytes, which `read` returns when it has no buffer.
                more = cast(int, self._ssl.read(len(buffer) - size, cast(bytearray, buffer[size:])))
                if not more:
                    break
                size += more
        except (ssl.SSLWantReadError, ssl.SSLEOFError):
            pass  # nothing more has arrived; the next read raises this again
        except ssl.SSLError as exc:
            # OpenSSL reports this error once. After it, the stream would just seem to end.
            self._broken = exc
        return size

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        try:
            with anyio.fail_after(timeout):
                await self._stream.send(buffer)
        except TimeoutError as exc:
            raise httpcore.WriteTimeout(str(exc)) from exc
        except (*_BROKEN, ssl.SSLError) as exc:
            raise httpcore.WriteError(str(exc)) from exc

    async def aclose(self) -> None:
        await self._below.aclose()

    def get_extra_info(self, info: str) -> Any:
        return self._ssl if info == "ssl_object" else self._below.get_extra_info(info)


async def read_within(timeout: float | None, read: Callable[[], Awaitable[T]]) -> T:
    """Read within the timeout. After a standstill of this process, look at the socket once more.

    What arrived during the standstill waits in the socket, and the timer was due before the event
    loop looked there. A cancelled read loses nothing.
    """
    began = anyio.current_time()
    with anyio.move_on_after(timeout):
        return await read()
    if timeout is not None and anyio.current_time() - began - timeout > LATE:
        with anyio.move_on_after(MOMENT):
            return await read()
    raise TimeoutError


@contextlib.contextmanager
def _httpcore_read_errors() -> Generator[None]:
    try:
        yield
    except TimeoutError as exc:
        raise httpcore.ReadTimeout(str(exc)) from exc
    except (*_BROKEN, ssl.SSLError) as exc:
        raise httpcore.ReadError(str(exc)) from exc
