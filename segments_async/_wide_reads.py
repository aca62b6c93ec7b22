"""Network streams that hand over all that has come, for bodies of gigabytes.

httpcore asks its streams for 64 KiB at a time. asyncio reads four times that in one go, which is
then cut and copied; TLS hands over one record of 16 KiB a time. Each piece costs h11 and httpx the
same, however small it is: reading what there is made 1.5 to 2 times the speed of it (0.5 GiB/s to
0.9, of 1.2 for curl).

httpcore's own interface for network backends is public (https://www.encode.io/httpcore/network-backends/);
httpx's transport has no argument for it, so the pool is made here, as httpx makes it.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any, cast

import httpcore
import httpx

#: Bytes asked for at once; asyncio's transports read at most 256 KiB.
READ = 1024 * 1024


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
        return _Stream(
            await self._anyio.connect_tcp(host, port, timeout, local_address, socket_options)
        )

    async def sleep(self, seconds: float) -> None:
        await self._anyio.sleep(seconds)


class _Stream(httpcore.AsyncNetworkStream):
    def __init__(self, stream: httpcore.AsyncNetworkStream) -> None:
        self._stream = stream
        self._ssl: ssl.SSLObject | None = stream.get_extra_info("ssl_object")

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        first = await self._stream.read(max(max_bytes, READ), timeout)
        if self._ssl is None or not first:
            return first
        return b"".join([first, *_records(self._ssl)])

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.AsyncNetworkStream:
        return _Stream(await self._stream.start_tls(ssl_context, server_hostname, timeout))

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


def _records(stream: ssl.SSLObject) -> Iterable[bytes]:
    """The TLS records that have come already. What is wrong with the next, the next read says."""
    while True:
        try:
            record = stream.read(READ)
        except ssl.SSLError:  # SSLWantReadError: no more has come
            return
        if not record:
            return
        yield record
