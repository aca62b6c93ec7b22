"""Network streams that hand over all that has come, for bodies of gigabytes.

httpcore asks its streams for 64 KiB at a time, asyncio reads at most 256 KiB, TLS hands over one
record of 16 KiB: and each piece, however small, goes through asyncio, anyio, httpcore, h11 and
httpx, for some 0.15 ms. So what has come is read here, from the socket itself and in one go.

httpcore's own interface for network backends is public (https://www.encode.io/httpcore/network-backends/);
httpx's transport has no argument for it, so the pool is made here, as httpx makes it.
"""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
from collections.abc import Generator, Iterable
from typing import Any, cast

import anyio
import anyio.lowlevel
import httpcore
import httpx
from anyio.abc import ByteStream
from anyio.streams.tls import TLSAttribute, TLSStream

#: Bytes read at once.
READ = 256 * 1024

#: Bytes of a TLS record, at most (RFC 8446, section 5.1).
_RECORD = 16 * 1024


class WideTransport(httpx.AsyncHTTPTransport):
    """httpx's transport for one connection at a time, without a proxy, with wide reads."""

    def __init__(self, ssl_context: ssl.SSLContext, *, keepalive: float) -> None:
        super().__init__(verify=ssl_context, trust_env=False)
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context,
            max_connections=1,
            keepalive_expiry=keepalive,
            network_backend=_Backend(),
        )


class _Backend(httpcore.AsyncNetworkBackend):
    """httpcore's backend for anyio, with wide streams."""

    def __init__(self) -> None:
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
            return _Stream(stream)
        except OSError as exc:  # no descriptor is left
            await stream.aclose()
            raise httpcore.ConnectError(str(exc)) from exc

    async def sleep(self, seconds: float) -> None:
        await self._anyio.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    """httpcore's stream, but its socket is read here.

    asyncio's transport, which anyio pauses once it is connected, stays so. What a server says
    before it is asked may be lost to it: over HTTP and TLS that is an error anyway.
    """

    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        # A descriptor of its own: event loops refuse to watch the one that a transport has.
        self.socket = socket.socket(fileno=os.dup(stream.get_extra_info("socket").fileno()))
        self.socket.setblocking(False)

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - all
        with _reading(timeout):
            return await receive(self.socket)

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
        received = await receive(self._stream.socket)
        if not received:
            raise anyio.EndOfStream
        return received

    async def send(self, item: bytes) -> None:
        await self._stream.write(item)

    async def send_eof(self) -> None:
        raise NotImplementedError("TLS has an end of its own")

    async def aclose(self) -> None:
        await self._stream.aclose()


class _Encrypted(httpcore.AsyncNetworkStream):
    """TLS over a stream."""

    def __init__(self, below: _Stream, stream: TLSStream) -> None:
        self._below = below
        self._stream = stream
        self._ssl = stream.extra(TLSAttribute.ssl_object)  # noqa: S610 - anyio's, not Django's
        #: Where records are put together: as pieces they would cost as much again.
        self._records = memoryview(bytearray(READ))
        self._broken: ssl.SSLError | None = None

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ARG002 - all
        with _reading(timeout):
            if self._broken is not None:
                raise self._broken
            try:
                first = await self._stream.receive(_RECORD)
            except anyio.EndOfStream:
                return b""
        return self._with_what_came(first)

    def _with_what_came(self, first: bytes) -> bytes:
        """And the records that have come already."""
        size = len(first)
        self._records[:size] = first
        try:
            while size < READ and (more := self._read_into(self._records[size:])):
                size += more
        except (ssl.SSLWantReadError, ssl.SSLEOFError):
            pass  # no more has come; the next read says so, too
        except ssl.SSLError as exc:
            # OpenSSL says it once; for the next read, the stream would just end.
            self._broken = exc
        return bytes(self._records[:size])

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


async def receive(connection: socket.socket) -> bytes:
    """All that has come, at least a byte; none at the end."""
    await anyio.lowlevel.checkpoint()
    while True:
        try:
            return connection.recv(READ)
        except BlockingIOError:
            await anyio.wait_readable(connection)  # ClosedResourceError: closed meanwhile
        except OSError as exc:
            raise anyio.BrokenResourceError from exc


@contextlib.contextmanager
def _reading(timeout: float | None) -> Generator[None]:
    try:
        with anyio.fail_after(timeout):
            yield
    except TimeoutError as exc:
        raise httpcore.ReadTimeout(str(exc)) from exc
    except (*_BROKEN, ssl.SSLError) as exc:
        raise httpcore.ReadError(str(exc)) from exc
