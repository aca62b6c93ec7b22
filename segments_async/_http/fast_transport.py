"""Network streams that hand over all that has come, for bodies of gigabytes.

httpcore asks its streams for 64 KiB at a time, asyncio reads at most 256 KiB, TLS hands over one
record of 16 KiB: and each piece, however small, goes through asyncio, anyio, httpcore, h11 and
httpx, for some 0.15 ms. So what has come is read here, from the socket itself and in one go; and
the rest of a large body past h11, into the memory from which it is written.

httpcore's own interface for network backends is public (https://www.encode.io/httpcore/network-backends/);
httpx's transport has no argument for it, so the pool is made here, as httpx makes it.
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
import httpx
from anyio.abc import ByteStream
from anyio.streams.tls import TLSAttribute, TLSStream

from segments_async._sansio.pace.standstill import LATE, MOMENT

T = TypeVar("T")

#: Bytes read at once. A single read of 1 MiB is slower: it keeps the sender from the socket.
READ = 256 * 1024

#: Bytes that are read past h11, at least: its copies cost as much processor time as SHA-256, but
#: without it the connection can't be used again, and another one takes some 0.1 s.
DIRECT_READ_FROM = 32 * 1024 * 1024

#: Bytes of a TLS record, at most (RFC 8446, section 5.1).
_RECORD = 16 * 1024


class OneConnection(httpx.AsyncHTTPTransport):
    """httpx's transport for one connection at a time."""

    @property
    def is_idle(self) -> bool:
        """Whether no request holds the connection.

        One whose closing was cut off holds it for ever, and whoever asks next waits in vain:
        asyncio's own cancellation, where it comes twice, respects no shield.
        """
        return all(found.is_idle() or found.is_closed() for found in self._pool.connections)


#: Raises where it refuses a host, by its name, for one of its addresses.
CheckAddresses = Callable[[str, list[str]], None]


class FastTransport(OneConnection):
    """The same without a proxy, with wide reads.

    Args:
        ssl_context: whom to trust.
        keepalive: seconds for which an idle connection is kept.
        check_peer: asked of each connection before anything is sent on it: what a name resolved to
            before may be something else by now.
    """

    def __init__(
        self,
        ssl_context: ssl.SSLContext,
        *,
        keepalive: float,
        check_peer: CheckAddresses | None = None,
    ) -> None:
        super().__init__(verify=ssl_context, trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context,
            max_connections=1,
            keepalive_expiry=keepalive,
            network_backend=_Backend(check_peer),
        )


class _Backend(httpcore.AsyncNetworkBackend):
    """httpcore's backend for anyio, with wide streams."""

    def __init__(self, check_peer: CheckAddresses | None) -> None:
        self._check_peer = check_peer
        # Without anyio, httpcore has another class of that name, with nothing in it.
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
            return _Stream(stream)
        except OSError as exc:  # no descriptor is left
            await stream.aclose()
            raise httpcore.ConnectError(str(exc)) from exc
        except BaseException:
            await stream.aclose()
            raise

    async def sleep(self, seconds: float) -> None:
        await self._anyio.sleep(seconds)


class _ReadHere(httpcore.AsyncNetworkStream):
    """A stream that is read here.

    Attributes:
        handed_over: bytes of the last read.
    """

    handed_over = 0

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - all
        with _reading():
            await anyio.lowlevel.checkpoint()
            received = await _within(timeout, self.receive)
        self.handed_over = len(received)
        return received

    @abc.abstractmethod
    async def receive(self) -> bytes:
        """All that has come, at least a byte; none at the end."""

    @abc.abstractmethod
    async def receive_into(self, buffer: memoryview) -> int:
        """As much of it as fits, at least a byte. Returns how many; 0 at the end."""

    @abc.abstractmethod
    def take_into(self, buffer: memoryview) -> int | None:
        """The same without waiting; None where nothing has come."""


class DirectRead:
    """The rest of a body that has a Content-Length, read from its connection past h11.

    httpcore hands out the connection of a response, as "an API that steps outside the standard
    request/response model" (https://www.encode.io/httpcore/extensions/). h11 never hears of these
    bytes, so httpcore closes the connection with the response.
    """

    def __init__(self, stream: _ReadHere, size: int, timeout: float) -> None:
        self._stream = stream
        self._left = size
        self._timeout = timeout

    async def read_into(self, buffer: memoryview) -> int:
        """Some of it, at least a byte. Returns how many; 0 when all of it was read.

        Raises:
            OSError: it broke off, or nothing came within the timeout.
        """
        if not self._left:
            return 0
        room = buffer[: min(self._left, READ)]
        await anyio.lowlevel.checkpoint()
        try:
            size = self._stream.take_into(room)
            if size is None:  # a timer for every read would cost as much as the read
                size = await _within(self._timeout, partial(self._stream.receive_into, room))
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
    """What follows, if it is worth it, and on a connection of ours.

    Args:
        extensions: of the response.
        chunk: of its body, the one that came last.
        left: bytes that follow it, by a Content-Length that counts.
        timeout: seconds for each read.
    """
    stream = extensions.get("network_stream")
    if left < DIRECT_READ_FROM or not isinstance(stream, _ReadHere):
        return None
    # Of a body with a Content-Length h11 hands over all that it has, so it holds nothing now. If it
    # ever did, the chunk would not be all of what was read last. (The first one isn't, in any case:
    # it came with the head.)
    return DirectRead(stream, left, timeout) if len(chunk) == stream.handed_over else None


class _Stream(_ReadHere):
    """httpcore's stream, but its socket is read here.

    asyncio's transport, which anyio pauses once it is connected, stays so. What a server says
    before it is asked may be lost to it: over HTTP and TLS that is an error anyway.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        # A descriptor of its own: event loops refuse to watch the one that a transport has.
        self.socket = socket.socket(fileno=os.dup(stream.get_extra_info("socket").fileno()))
        self.socket.setblocking(False)

    async def receive(self) -> bytes:
        while (received := self._now(lambda: self.socket.recv(READ))) is None:
            await anyio.wait_readable(self.socket)  # ClosedResourceError: closed meanwhile
        return received

    async def receive_into(self, buffer: memoryview) -> int:
        while (size := self.take_into(buffer)) is None:
            await anyio.wait_readable(self.socket)
        return size

    def take_into(self, buffer: memoryview) -> int | None:
        return self._now(lambda: self.socket.recv_into(buffer))

    def _now(self, read: Callable[[], T]) -> T | None:
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
            anyio.notify_closing(self.socket)  # whoever waits for it
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
                    _Below(self),
                    ssl_context=ssl_context,
                    hostname=server_hostname,
                    standard_compatible=False,  # as httpcore: HTTP says where a body ends
                    server_side=False,
                )
        except BaseException as exc:
            await anyio.aclose_forcefully(_Below(self))
            if isinstance(exc, TimeoutError):
                raise httpcore.ConnectTimeout(str(exc)) from exc
            if isinstance(exc, (*_BROKEN, anyio.EndOfStream, ssl.SSLError, httpcore.WriteError)):
                raise httpcore.ConnectError(str(exc)) from exc
            raise
        return _Encrypted(self, encrypted)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class _Below(ByteStream):
    """A stream as anyio wants it, for TLS to run over."""

    def __init__(self, stream: _Stream) -> None:
        self._stream = stream

    async def receive(self, max_bytes: int = READ) -> bytes:  # noqa: ARG002 - TLS takes more, too
        received = await self._stream.receive()
        if not received:
            raise anyio.EndOfStream
        return received

    async def send(self, item: bytes) -> None:
        await self._stream.write(item)

    async def send_eof(self) -> None:
        raise NotImplementedError("TLS has an end of its own")

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Encrypted(_ReadHere):
    """TLS over a stream."""

    def __init__(self, below: _Stream, stream: TLSStream) -> None:
        self._below = below
        self._stream = stream
        self._ssl = stream.extra(TLSAttribute.ssl_object)  # noqa: S610 - anyio's, not Django's
        #: Where records are put together: as pieces they would cost as much again.
        self._records = memoryview(bytearray(READ))
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
            size += self._decrypted(buffer[size:])
        return size

    def take_into(self, buffer: memoryview) -> int | None:
        size = 0 if self._broken is not None else self._decrypted(buffer)
        if self._broken is not None and not size:
            raise self._broken
        return size or None

    def _decrypted(self, buffer: memoryview) -> int:
        """The records that have come already; a broken one is for the next read to say."""
        size = 0
        try:
            while size < len(buffer) and (more := self._read_into(buffer[size:])):
                size += more
        except (ssl.SSLWantReadError, ssl.SSLEOFError):
            pass  # no more has come; the next read says so, too
        except ssl.SSLError as exc:
            # OpenSSL says it once; for the next read, the stream would just end.
            self._broken = exc
        return size

    def _read_into(self, buffer: memoryview) -> int:
        # typeshed has it return bytes, as it does without a buffer.
        return cast(int, self._ssl.read(len(buffer), cast(bytearray, buffer)))

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

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        raise NotImplementedError("TLS over TLS is for proxies")

    def get_extra_info(self, info: str) -> Any:
        return self._ssl if info == "ssl_object" else self._below.get_extra_info(info)


_BROKEN = (anyio.BrokenResourceError, anyio.ClosedResourceError)


async def _within(timeout: float | None, read: Callable[[], Awaitable[T]]) -> T:
    """Read within the timeout; where this process stood still, look at the socket once more.

    What came meanwhile waits there, and the timer was due before anybody looked. A read that is
    cancelled loses nothing.
    """
    began = anyio.current_time()
    with anyio.move_on_after(timeout):
        return await read()
    if timeout is not None and anyio.current_time() - began - timeout > LATE:
        with anyio.move_on_after(MOMENT):
            return await read()
    raise TimeoutError


@contextlib.contextmanager
def _reading() -> Generator[None]:
    try:
        yield
    except TimeoutError as exc:
        raise httpcore.ReadTimeout(str(exc)) from exc
    except (*_BROKEN, ssl.SSLError) as exc:
        raise httpcore.ReadError(str(exc)) from exc
