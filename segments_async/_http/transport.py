"""The transport of the library's own clients: one connection, direct or through a proxy.

httpx's own transport has no argument for a network backend, so this one is built on httpcore's
pools, by public interfaces of httpx and httpcore alone.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

import anyio
import httpcore
import httpx

from segments_async._http.environment import Route
from segments_async._http.fast_transport import CheckAddresses, FastBackend

_HTTPCORE_ERRORS = (
    httpcore.TimeoutException,
    httpcore.NetworkError,
    httpcore.ProtocolError,
    httpcore.ProxyError,
    httpcore.UnsupportedProtocol,
)


class OneConnection(httpx.AsyncBaseTransport):
    """One connection at a time.

    Args:
        ssl_context: for all connections.
        keepalive: seconds for which an idle connection is kept.
        route: which hosts are reached through a proxy; None: none.
        check_peer: called with the host and the address of each direct connection before anything
            is sent on it, since a name may resolve to another address than when it was checked.
            Raises to refuse the connection.
    """

    def __init__(
        self,
        ssl_context: ssl.SSLContext,
        keepalive: float,
        *,
        route: Route | None = None,
        check_peer: CheckAddresses | None = None,
    ) -> None:
        self._route = route
        self._direct = httpcore.AsyncConnectionPool(
            ssl_context=ssl_context,
            max_connections=1,
            keepalive_expiry=keepalive,
            network_backend=FastBackend(check_peer),
        )
        self._proxied = None if route is None else route.proxy_pool(ssl_context, keepalive)
        #: Set to replace the connection before the next request.
        self.must_reconnect = False

    @property
    def connections(self) -> list[httpcore.AsyncConnectionInterface]:
        """The open connections: at most one to the server and one to the proxy."""
        proxied = [] if self._proxied is None else self._proxied.connections
        return [*self._direct.connections, *proxied]

    @property
    def is_idle(self) -> bool:
        """Whether no request holds a connection.

        A second cancellation by asyncio itself interrupts the closing of a connection, though that
        is shielded. The pool never gets such a connection back, and the next request would wait for
        it without end.
        """
        return all(found.is_idle() or found.is_closed() for found in self.connections)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.must_reconnect:
            self.must_reconnect = False
            with anyio.CancelScope(shield=True), contextlib.suppress(OSError, httpx.HTTPError):
                await self.aclose()  # httpcore's pool opens a new connection when it needs one
        url = request.url
        target = httpcore.URL(
            scheme=url.raw_scheme, host=url.raw_host, port=url.port, target=url.raw_path
        )
        content: Any = request.stream
        outgoing = httpcore.Request(
            method=request.method,
            url=target,
            headers=request.headers.raw,
            content=content,
            extensions=request.extensions,
        )
        pool = self._direct
        if self._proxied is not None and self._route is not None:
            port = url.port or (443 if url.scheme == "https" else 80)
            pool = pool if self._route.is_direct(url.host, port) else self._proxied
        try:
            response: Any = await pool.handle_async_request(outgoing)
        except _HTTPCORE_ERRORS as exc:
            raise _as_httpx(exc) from exc
        except Exception as exc:
            if pool is self._direct:
                raise
            # The SOCKS package has errors of its own, which httpcore does not map.
            raise httpx.ProxyError(type(exc).__name__) from exc
        return httpx.Response(
            status_code=response.status,
            headers=response.headers,
            stream=_Body(response.stream),
            extensions=response.extensions,
        )

    async def aclose(self) -> None:
        await self._direct.aclose()
        if self._proxied is not None:
            await self._proxied.aclose()


class _Body(httpx.AsyncByteStream):
    """A response's body; httpcore's errors are raised as httpx's."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._parts: AsyncIterator[bytes]

    def __aiter__(self) -> AsyncIterator[bytes]:
        self._parts = aiter(self._stream)
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._parts)
        except _HTTPCORE_ERRORS as exc:
            raise _as_httpx(exc) from exc

    async def aclose(self) -> None:
        await self._stream.aclose()


def _as_httpx(exc: Exception) -> Exception:
    """Httpx's error of the same name; all of httpcore's have one, or their base class has."""
    kinds = (getattr(httpx, cls.__name__, None) for cls in type(exc).__mro__)
    found: Exception = next(kind for kind in kinds if kind is not None)(str(exc))
    return found
