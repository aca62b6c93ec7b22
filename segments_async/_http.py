"""One request, its capped body, and its errors: the only production module that imports httpx.

httpx2 continues httpx with the same API and other classes, so a caller's client is typed by what
is used of it, and errors are told by their names.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator, Iterator, Mapping
from typing import Any, NoReturn, Protocol, cast
from urllib.request import getproxies

import anyio
import httpx

from segments_async._plain import plain
from segments_async._quiet import quietly
from segments_async._sansio.content_coding import codings, decoded
from segments_async._sansio.credentials import Origin, Secret, secrets_of
from segments_async._sansio.links import redact
from segments_async._sansio.wire import FIXED_PATHS, ApiAnswer, ApiRequest
from segments_async._wide_reads import WideTransport
from segments_async.errors import APIConnectionError, ConfigurationError, DecodeError

#: Requests under way at once. 32 slots cap answers of 0.57 s at 56/s; 64 carry 100/s, and 128
#: doubled the 429s of a cut (docs/design.md). No request ever waits inside httpx.
SLOTS = 64

#: Seconds an idle connection is kept. A POST sent into a connection that the server is just closing
#: ends as "unknown", so ours close before the common 5 s of servers do.
KEEPALIVE = 4.0

#: Largest bodies read, in bytes. 100 000 segments are 32 MB.
LIST_CAP = 64 * 1024 * 1024
STATUS_CAP = 1024 * 1024

USER_AGENT = "segments-async"


class Response(Protocol):
    """What is used of a response."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Any: ...  # a mapping of strings that has `raw`, too
    @property
    def extensions(self) -> Mapping[str, Any]: ...
    @property
    def is_stream_consumed(self) -> bool: ...
    def aiter_raw(self) -> AsyncIterator[bytes]: ...
    def aiter_bytes(self) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None: ...


class HttpClient(Protocol):
    """What is used of an ``AsyncClient``: httpx's, or httpx2's."""

    # To type checkers, these two take any arguments: httpx names more than we use.
    def build_request(self, *args: Any, **kwargs: Any) -> Any: ...
    async def send(self, *args: Any, **kwargs: Any) -> Any: ...
    async def aclose(self) -> None: ...


class Clients(Protocol):
    """Where a request gets its client from, and gives it back to."""

    def borrow(self) -> HttpClient: ...
    def give_back(self, client: HttpClient) -> None: ...


class CallersClient:
    """The caller's own client: used, never closed, never changed."""

    def __init__(self, client: HttpClient) -> None:
        self._client = client

    def borrow(self) -> HttpClient:
        return self._client

    def give_back(self, client: HttpClient) -> None:
        """It never left."""


class OwnClients:
    """Clients of our own, each with one connection, each for one request at a time.

    httpx's pool looks at all its connections, and at all of them again for each idle one, twice a
    request: with 64 it falls from 600 requests/s to 130. A pool of one has nothing to look at. The
    gate's slots say how many there are; the one used last goes first, so that no more
    connections are kept warm than are needed.
    """

    def __init__(
        self, ssl_context: ssl.SSLContext | None, keepalive: float, *, loopback: bool
    ) -> None:
        self._ssl_context = _verifying(ssl_context)
        self._keepalive = keepalive
        # httpx sends loopback, too, to the environment's proxy: off this machine, in the clear.
        self._trust_env = not loopback
        # A transport of our own would bypass the environment's proxies.
        self._proxied = self._trust_env and bool(getproxies())
        self._limits = httpx.Limits(max_connections=1, keepalive_expiry=keepalive)
        self._headers = {"User-Agent": USER_AGENT}
        self._idle: list[HttpClient] = []
        self._transports: dict[HttpClient, WideTransport] = {}
        self._all: list[HttpClient] = []
        self._closed = False

    def borrow(self) -> HttpClient:
        if self._closed:
            raise ConfigurationError("the client is closed")
        return self._idle.pop() if self._idle else self._new()

    def give_back(self, client: HttpClient) -> None:
        transport = self._transports.get(client)
        if transport is None or transport.is_at_rest:
            self._idle.append(client)

    def _new(self) -> HttpClient:
        if self._ssl_context is None:
            # Reading the system's certificates takes some 20 ms, so once for all.
            self._ssl_context = httpx.create_ssl_context()
        transport = (
            None if self._proxied else WideTransport(self._ssl_context, keepalive=self._keepalive)
        )
        made: Any = httpx.AsyncClient(
            verify=self._ssl_context,
            limits=self._limits,
            headers=self._headers,
            trust_env=self._trust_env,
            transport=transport,
        )
        client = cast(HttpClient, made)
        self._all.append(client)
        if transport is not None:
            self._transports[client] = transport
        return client

    async def aclose(self) -> None:
        """Close all connections. Requests fail from now on."""
        self._closed = True
        while self._all:
            await self._all.pop().aclose()


def _verifying(context: object) -> ssl.SSLContext | None:
    """The caller's context; httpx would take False for it, too, and verify nothing."""
    if context is None:
        return None
    if not isinstance(context, ssl.SSLContext):
        raise ConfigurationError("ssl_context: an ssl.SSLContext, or None for the system's trust")
    if context.verify_mode is not ssl.CERT_REQUIRED or not context.check_hostname:
        raise ConfigurationError("ssl_context: it has to verify certificates and host names")
    return context


class Api:
    """The vendor's API: sends one request, and reads its whole answer.

    Args:
        clients: httpx's or httpx2's.
        origin: where requests, and so credentials, go.
        authorization: the header's value.
        timeout: seconds for one request, from connecting to the last byte of the answer.
    """

    def __init__(
        self, clients: Clients, origin: Origin, authorization: Secret, timeout: float
    ) -> None:
        self._clients = clients
        self._secrets = secrets_of(authorization)
        self.timeout: float = timeout
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        self._base = f"{origin.scheme}://{host}:{origin.port}{origin.prefix}"
        # Parsing a URL is a tenth of what httpx costs, and every POST's and list's is the same.
        self._urls: dict[str, Any] = {}
        # Credentials are set per request and never on a client: this class builds each URL from
        # the origin, and follows no redirect, so there is nowhere else for them to go.
        headers = {
            # A compressed body is a bomb until its end is seen, and these bodies are small.
            "Accept-Encoding": "identity",
            "Authorization": authorization.reveal(),
        }
        # httpx takes its own class as it is, and encodes any other mapping anew each time.
        self._headers = httpx.Headers(headers)
        self._post_headers = httpx.Headers({**headers, "Content-Type": "application/json"})
        # As httpx's Timeout gives it to its transports, which it would make anew each time.
        self._timeouts = dict.fromkeys(("connect", "read", "write", "pool"), timeout)

    async def send(
        self, request: ApiRequest, scope: anyio.CancelScope, *, cap: int = STATUS_CAP
    ) -> ApiAnswer:
        """Send the request once, in a scope that ends with its time.

        Raises:
            APIConnectionError: no whole answer came; `sent` says whether the request may have.
            DecodeError: the answer was larger than `cap` bytes, or compressed unasked.
        """
        wire = _Wire()
        client = self._clients.borrow()
        try:
            with scope:
                return await self._exchange(client, request, cap, wire)
        except Exception as exc:
            sent = was_sent(exc)
            if sent is None:
                raise
            forget_request(exc)
            raise self._broken(request, described(exc), sent and wire.sent is not False) from exc
        finally:
            self._clients.give_back(client)
        what = f"no answer within {self.timeout:g} s"
        raise self._broken(request, what, wire.sent is not False)

    async def _exchange(
        self, client: HttpClient, request: ApiRequest, cap: int, wire: _Wire
    ) -> ApiAnswer:
        post = request.body is not None
        outgoing = client.build_request(
            request.method,
            self._urls.get(request.path) or self._base + request.path,
            headers=self._post_headers if post else self._headers,
            content=request.body,
            # Only a POST needs to know whether it went out; for the rest the trace is dead weight.
            extensions=(
                {"timeout": self._timeouts, "trace": wire.trace}
                if post
                else {"timeout": self._timeouts}
            ),
        )
        if request.path in FIXED_PATHS and request.path not in self._urls:
            self._urls[request.path] = outgoing.url
        with quietly():
            response: Response = await client.send(
                outgoing, stream=True, auth=_as_it_is, follow_redirects=False
            )
        # One pass over them; httpx's own mapping decodes all of them at each look-up.
        headers = {
            name.decode("latin-1").lower(): value.decode("latin-1")
            for name, value in response.headers.raw
        }
        try:
            body = await self._read(request, response, headers, cap)
        except BaseException:
            # Otherwise httpx has closed it with its last byte.
            await close(response)
            raise
        return ApiAnswer(response.status_code, headers, body, anyio.current_time())

    async def _read(
        self, request: ApiRequest, response: Response, headers: Mapping[str, str], cap: int
    ) -> bytes:
        body = await _whole(response, cap)
        if body is None:
            self._undecodable(request, f"an answer of more than {cap} bytes")
        if names := codings(headers.get("content-encoding")):
            body = decoded(body, names, cap)
            if body is None:
                what = f"an answer in a coding that was not asked for ({', '.join(names)})"
                self._undecodable(request, what)
        if response.status_code != 200:
            # Error pages like to repeat the request, and errors keep an excerpt of them.
            for secret in self._secrets:
                body = body.replace(secret.reveal().encode(), b"...")
        return body

    def _undecodable(self, request: ApiRequest, what: str) -> NoReturn:
        raise DecodeError(
            f"{request.method} {request.path}: {what}",
            method=request.method,
            path=request.path,
            where="$",
        )

    def _broken(self, request: ApiRequest, what: str, sent: bool) -> APIConnectionError:
        return APIConnectionError(
            f"{request.method} {request.path}: {what}",
            method=request.method,
            path=request.path,
            sent=sent,
        )


async def _whole(response: Response, cap: int) -> bytes | None:
    """The body; None where it is larger than `cap`."""
    parts: list[bytes] = []
    size = 0
    async for part in pieces(response):
        size += len(part)
        if size > cap:
            return None
        parts.append(part)
    return b"".join(parts)


def _as_it_is(outgoing: Any) -> Any:
    """The request brings its credentials; `auth=None` has httpx look for some in the URL."""
    return outgoing


class _Wire:
    """Whether a request's first byte went out, as httpcore's trace tells."""

    __slots__ = ("sent",)

    def __init__(self) -> None:
        # None: no trace came, as from transports other than httpcore's.
        self.sent: bool | None = None

    async def trace(self, event: str, _: object) -> None:
        if event.endswith("send_request_headers.started"):
            self.sent = True
        elif self.sent is None and event.endswith(".started"):
            self.sent = False


#: httpx's errors that come before the first byte of the request. ProxyError: the tunnel failed.
_UNSENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "InvalidURL"})
_TRANSPORT = frozenset({"TransportError", "RequestError", "StreamError", "InvalidURL"})


def was_sent(exc: Exception) -> bool | None:
    """Whether a failed request may have arrived; None where the error isn't httpx's."""
    names = {cls.__name__ for cls in type(exc).__mro__ if cls.__module__.startswith("httpx")}
    if names & _UNSENT:
        return False
    return True if names & _TRANSPORT else None


def described(exc: Exception) -> str:
    """Its kind, and what it says; or, where it says nothing, what it came from says.

    On trio a refused certificate is an empty ConnectError.
    """
    text = next((text for error in _chain(exc) if (text := str(error))), "")
    return plain(redact(f"{type(exc).__name__}: {text}" if text else type(exc).__name__))


def forget_request(exc: BaseException) -> None:
    """Take off an httpx error, and what it came from, whatever holds credentials or a signed URL.

    That is the request, and the frames: the Authorization header is a local variable of those
    that were sending it, and error reporters show such.
    """
    for error in _chain(exc):
        error.__traceback__ = None
        if "_request" in vars(error):
            vars(error)["_request"] = None


def _chain(exc: BaseException) -> Iterator[BaseException]:
    """The error, and all that it came from."""
    todo: list[BaseException | None] = [exc]
    while todo:
        if (error := todo.pop()) is not None:
            yield error
            todo.append(error.__context__)
            if error.__cause__ is not error.__context__:
                todo.append(error.__cause__)


def pieces(response: Response) -> AsyncIterator[bytes]:
    """The body as served; or, where a transport has read it already, what it read.

    ``httpx.MockTransport`` and others that make a response from a whole body do that.
    """
    return response.aiter_bytes() if response.is_stream_consumed else response.aiter_raw()


async def close(response: Response) -> None:
    # Under cancellation, closing must still give the connection back to the pool.
    with anyio.CancelScope(shield=True), contextlib.suppress(OSError):
        await response.aclose()
