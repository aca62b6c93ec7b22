"""HTTP clients; one request of the API, its capped body, and its errors.

httpx2 continues httpx with the same API and other classes, so a caller's client is typed by what
is used of it, and errors are told by their names.

A POST that may have left this process is never repeated, and one that provably didn't leave is
never called unknown. So everything that can fail without a request is done before one: clients are
made, and the environment is read, by `Clients.prepare`. From there on `_Wire` knows how far a
request got.
"""

from __future__ import annotations

import contextlib
import copy
import re
import ssl
import sys
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any, NoReturn, Protocol, cast

import anyio
import attrs
import httpx

from segments_async._http.environment import Route, read_certificates
from segments_async._http.fast_transport import CheckAddresses, FastTransport
from segments_async._http.redaction import redact_logs
from segments_async._sansio.api.content_coding import codings, decoded
from segments_async._sansio.api.credentials import EchoedSecrets, Origin, Secret
from segments_async._sansio.api.redaction import redact
from segments_async._sansio.api.wire import FIXED_PATHS, SHOWN_HEADERS, ApiAnswer, ApiRequest
from segments_async._sansio.error_chain import chain
from segments_async.errors import APIConnectionError, ConfigurationError, DecodeError, printable

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

#: Said of whatever is asked of a client after `aclose`.
CLOSED = "the client is closed: nothing was sent; make another one"


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

    @property
    def own(self) -> bool:
        """Whether the library made them; a caller's have a pool and hooks that are not ours."""
        ...

    def prepare(self) -> None:
        """Have a client ready: whatever is wrong with it is said here, before any request.

        Raises:
            ConfigurationError: there can be no client. Nothing was sent.
        """
        ...

    def resolves_here(self, host: str, port: int) -> bool:
        """Whether this machine looks the host's name up, and not a proxy."""
        ...

    def borrow(self) -> HttpClient: ...
    def give_back(self, client: HttpClient) -> None: ...


class CallersClient:
    """The caller's own client: used, never closed, never changed.

    Args:
        client: httpx's or httpx2's.
        name: of the argument that it was given as.
    """

    own = False

    def __init__(self, client: HttpClient, name: str = "http_client") -> None:
        self._client = client
        self._name = name

    def prepare(self) -> None:
        if getattr(self._client, "is_closed", False):
            raise ConfigurationError(f"{self._name}: it is closed already. Nothing was sent")

    def resolves_here(self, host: str, port: int) -> bool:  # noqa: ARG002 - it may be either
        return True

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

    Args:
        ssl_context: the caller's; None for the certificates of the environment.
        keepalive: seconds for which an idle connection is kept.
        loopback: whether the vendor is on this machine.
        scheme: of the requests.
        check_peer: raises where it refuses a host for the address that a direct connection to it
            has reached. None refuses nothing.
    """

    own = True

    def __init__(
        self,
        ssl_context: ssl.SSLContext | None,
        keepalive: float,
        *,
        loopback: bool,
        scheme: str = "https",
        check_peer: CheckAddresses | None = None,
    ) -> None:
        self._ssl_context = _verifying(ssl_context)
        self._keepalive = keepalive
        self._loopback = loopback
        self._scheme = scheme
        self._check_peer = check_peer
        self._route: Route | None = None
        self._headers = {"User-Agent": USER_AGENT}
        self._idle: list[HttpClient] = []
        self._clocks = _clocks()
        self._transports: dict[HttpClient, _OwnTransport] = {}
        self._closed = False

    def prepare(self) -> None:
        if self._closed:
            raise ConfigurationError(CLOSED)
        _verifying(self._ssl_context)  # each time: the context is the caller's to change
        if not self._transports:
            self._idle.append(self._new())

    def borrow(self) -> HttpClient:
        if abs(_clocks() - self._clocks) > 1.0:
            # The machine slept, and the monotonic clock, by which idle connections expire, stood
            # still meanwhile. A POST into one that is long dead would be lost without a word.
            self._clocks = _clocks()
            for transport in self._transports.values():
                transport.must_reconnect = True
        self.prepare()
        return self._idle.pop() if self._idle else self._new()

    def resolves_here(self, host: str, port: int) -> bool:
        return self._route is None or self._route.is_direct(host, port)

    def give_back(self, client: HttpClient) -> None:
        transport = self._transports.get(client)
        if transport is None:
            return
        if not transport.is_idle:
            # Cancelled at a bad moment: httpcore's pool keeps a connection that is nobody's.
            transport.must_reconnect = True
        self._idle.append(client)

    def _new(self) -> HttpClient:
        if self._ssl_context is None:
            self._ssl_context = read_certificates()
        if self._route is None and not self._loopback:
            # Never for loopback: the environment's proxy is off this machine, and gets plain HTTP.
            self._route = Route(self._scheme)
        transport = _OwnTransport(self._ssl_context, self._route, self._keepalive, self._check_peer)
        made: Any = httpx.AsyncClient(transport=transport, headers=self._headers, trust_env=False)
        client = cast(HttpClient, made)
        self._transports[client] = transport
        return client

    async def aclose(self) -> None:
        """Close all connections. Requests fail from now on."""
        self._closed = True
        self._idle.clear()
        while self._transports:
            client, _ = self._transports.popitem()
            await client.aclose()

    def forget(self) -> None:
        """Like `aclose`, in an event loop or a process that can't close these connections."""
        self._closed = True
        self._idle.clear()
        self._transports.clear()


class _OwnTransport(httpx.AsyncBaseTransport):
    """One connection: a direct one with wide reads, or one through the environment's proxy."""

    def __init__(
        self,
        ssl_context: ssl.SSLContext,
        route: Route | None,
        keepalive: float,
        check_peer: CheckAddresses | None,
    ) -> None:
        self._route = route
        self._direct = FastTransport(ssl_context, keepalive=keepalive, check_peer=check_peer)
        limits = httpx.Limits(max_connections=1, keepalive_expiry=keepalive)
        self._proxied = None if route is None else route.transport(ssl_context, limits)
        #: Whether the connection, if there is one, is of no use.
        self.must_reconnect = False

    @property
    def is_idle(self) -> bool:
        proxied = self._proxied
        return self._direct.is_idle and (proxied is None or proxied.is_idle)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.must_reconnect:
            self.must_reconnect = False
            with anyio.CancelScope(shield=True), contextlib.suppress(OSError, httpx.HTTPError):
                await self.aclose()  # closes the connection; the next one is made as needed
        url = request.url
        port = url.port or (443 if url.scheme == "https" else 80)
        if self._proxied is None or self._route is None or self._route.is_direct(url.host, port):
            return await self._direct.handle_async_request(request)
        try:
            return await self._proxied.handle_async_request(request)
        except Exception as exc:
            if was_sent(exc) is None:
                # The SOCKS package has errors of its own, which httpcore lets through.
                raise httpx.ProxyError(type(exc).__name__) from exc
            raise

    async def aclose(self) -> None:
        await self._direct.aclose()
        if self._proxied is not None:
            await self._proxied.aclose()


def _clocks() -> float:
    """How far the wall clock is ahead of the monotonic one. A jump of the former does no harm."""
    return time.time() - time.monotonic()


def _verifying(context: object) -> ssl.SSLContext | None:
    """The caller's context; httpx would take False for it, too, and verify nothing."""
    if context is None:
        return None
    if not isinstance(context, ssl.SSLContext):
        raise ConfigurationError("ssl_context: an ssl.SSLContext, or None for the system's trust")
    if context.verify_mode is not ssl.CERT_REQUIRED or not context.check_hostname:
        raise ConfigurationError("ssl_context: it has to verify certificates and host names")
    return context


class Permit(Protocol):
    """What the gate granted: one request, its time, and how far it got."""

    #: Whether the request may have left this process.
    may_have_left: bool

    def scope(self, deadline: float, *, shield: bool) -> anyio.CancelScope: ...
    def put_off(self, deadline: float) -> None: ...


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
        self._repeated = EchoedSecrets(authorization)
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
        # As httpx's Timeout gives it to its transports, which it would make anew each time. Only
        # connecting has one: once a request is on the wire, its ticket's scope alone ends it, since
        # httpx's timers take a process that stood still for a server that says nothing.
        timeouts = {"connect": timeout, "read": None, "write": None, "pool": None}
        self._timeouts: dict[str, float | None] = timeouts
        # Before the trace of a caller's client is known to speak, waiting for its pool looks like
        # waiting for an answer. httpx's own error, a little earlier, says which it was.
        self._first_timeouts = {**timeouts, "pool": 0.9 * timeout}
        #: Whether the clients' transport tells how far a request is, as httpcore's does.
        self.traces: bool = clients.own
        #: Requests that wait for a connection of a caller's pool.
        self.queued: dict[Permit, None] = {}

    @property
    def own(self) -> bool:
        """Whether the HTTP clients are the library's own."""
        return self._clients.own

    def prepare(self) -> None:
        """See `Clients.prepare`."""
        self._clients.prepare()

    async def send(
        self, request: ApiRequest, permit: Permit, *, cap: int = STATUS_CAP
    ) -> ApiAnswer:
        """Send the request once, in the ticket's scope.

        `ticket.may_have_left` is right however this ends. Waiting for a connection of a caller's
        pool isn't the request's time: that begins with connecting, or with its first byte. A
        request waits for as long as others of ours get connections there; where none has got one
        for `timeout` seconds, it ends as not sent.

        An answer that a caller's response hook raised at is returned all the same, with what the
        hook raised in `ApiAnswer.raised`.

        Raises:
            APIConnectionError: no whole answer came; `sent` says whether the request may have.
            DecodeError: the answer was larger than `cap` bytes, or compressed unasked.
        """
        post = request.body is not None
        handled = sys.exception()
        permit.may_have_left = False
        client = self._clients.borrow()
        wire = _Wire(permit, self, traced=post or not self._clients.own)
        try:
            with permit.scope(anyio.current_time() + self.timeout, shield=post):
                return await self._exchange(client, request, cap, wire)
        except Exception as exc:
            if (answer := wire.answer_despite(exc)) is not None:
                return answer
            if _carries_response(exc) and (answer := await self._carried(request, exc, cap, wire)):
                return answer
            sent = was_sent(exc)
            if sent is False:
                wire.on_unsent()
            if was_unprocessed(exc, wire.stream_id):
                wire.on_unprocessed()
            if sent is None and not wire.is_connecting:
                raise  # of a caller's hook, transport or client: his own
            forget_request(exc, handled)
            raise self._broken(request, described(exc), wire.may_have_left) from exc
        except BaseException as exc:  # a cancellation, or Ctrl-C
            forget_request(
                exc, handled
            )  # in a frame of it, h11 may be writing the Authorization header
            raise
        finally:
            wire.on_end()
            self._clients.give_back(client)
        if (answer := wire.answer_despite(None)) is not None:
            return answer
        raise self._broken(request, self._out_of_time(wire), wire.may_have_left)

    def _out_of_time(self, wire: _Wire) -> str:
        if wire.is_queued:
            return f"no connection of the http_client's pool was free for {self.timeout:g} s"
        return f"no answer within {self.timeout:g} s"

    async def _exchange(
        self, client: HttpClient, request: ApiRequest, cap: int, wire: _Wire
    ) -> ApiAnswer:
        post = request.body is not None
        outgoing = client.build_request(
            request.method,
            self._urls.get(request.path) or self._base + request.path,
            headers=self._post_headers if post else self._headers,
            content=request.body,
            # Of our own clients' requests only a POST needs to know whether it went out; for the
            # rest the trace is dead weight.
            extensions=(
                {"timeout": self.timeouts, "trace": wire.trace}
                if wire.traced
                else {"timeout": self.timeouts}
            ),
        )
        if request.path in FIXED_PATHS and request.path not in self._urls:
            self._urls[request.path] = outgoing.url
        if not self._clients.own:
            if not _sends_as_httpx(client):
                wire.on_handed_over()  # whatever it does first, there is no telling it apart
            client = self._hooked(client, request, cap, wire)
        with redact_logs(self._base + request.path):
            response: Response = await client.send(
                outgoing, stream=True, auth=wire.on_auth, follow_redirects=False
            )
        try:
            answer = wire.answer or await self._answer(request, response, cap, wire)
        except BaseException:
            # Otherwise httpx has closed it with its last byte.
            await close(response)
            raise
        if wire.answer is not None:
            await close(response)  # a caller's hooks may have left it open
        return answer

    def _hooked(self, client: HttpClient, request: ApiRequest, cap: int, wire: _Wire) -> HttpClient:
        """The caller's client; where it has hooks, a copy of it with ours around them.

        A hook of a caller's may raise. After the last request hook, the request goes out; before
        the first response hook, its answer is read. The copy shares all but the lists of hooks,
        so the caller's client isn't changed.
        """
        hooks: Mapping[str, list[Any]] = getattr(client, "event_hooks", None) or {}
        before, after = hooks.get("request") or [], hooks.get("response") or []
        if not before and not after:
            return client

        async def on_request(_: Any) -> None:
            wire.on_handed_over()

        async def on_response(response: Any) -> None:
            kept = _Kept(response)
            wire.answer = await self._answer(request, kept, cap, wire)
            await kept.put_back()

        copied: Any = copy.copy(client)
        copied.event_hooks = {"request": [*before, on_request], "response": [on_response, *after]}
        wire.hooked = True
        return cast(HttpClient, copied)

    async def _answer(
        self, request: ApiRequest, response: Response, cap: int, wire: _Wire
    ) -> ApiAnswer:
        headers = _headers(response.headers.raw)
        for name in SHOWN_HEADERS & headers.keys():
            headers[name] = self._repeated.removed_from(headers[name])
        wire.on_head(response.status_code, headers)
        body = await self._read(request, response, headers, cap)
        return ApiAnswer(response.status_code, headers, body, anyio.current_time())

    async def _carried(
        self, request: ApiRequest, exc: Exception, cap: int, wire: _Wire
    ) -> ApiAnswer | None:
        """The answer that an HTTPStatusError of a caller's client carries, with what was read."""
        response: Any = getattr(exc, "response", None)
        answer: ApiAnswer | None = None
        with contextlib.suppress(Exception), anyio.move_on_after(0):
            # In no time: the body was read, or it is closed by now.
            answer = await self._answer(request, response, cap, wire)
        return answer or wire.answer_despite(exc)

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
            body = self._repeated.removed_from_bytes(body)
        return body

    @property
    def timeouts(self) -> Mapping[str, float | None]:
        return self._timeouts if self.traces else self._first_timeouts

    def on_connection(self, permit: Permit) -> None:
        """A request of a caller's client has a connection, or makes one: its time begins."""
        self.traces = True
        del self.queued[permit]
        until = anyio.current_time() + self.timeout
        permit.put_off(until)
        for waiting in self.queued:
            # The pool moves.
            waiting.put_off(until)

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


class _Wire:
    """How far one request got, and what came back."""

    __slots__ = (
        "_api",
        "_handed_over",
        "_head",
        "_permit",
        "_sends",
        "_sent",
        "answer",
        "hooked",
        "stream_id",
        "traced",
    )

    def __init__(self, permit: Permit, api: Api, *, traced: bool) -> None:
        self._permit = permit
        self._api = api
        self.traced = traced
        #: Whether the caller's hooks come between httpx and its transport.
        self.hooked = False
        self._handed_over = False
        # None: no trace came, as from transports other than httpcore's.
        self._sent: bool | None = None
        self._sends = 0
        self._head: tuple[int, Mapping[str, str]] | None = None
        #: What a hook of ours has read.
        self.answer: ApiAnswer | None = None
        #: HTTP/2's.
        self.stream_id: int | None = None

    @property
    def may_have_left(self) -> bool:
        if not self._handed_over or self._sent is not None:
            return bool(self._sent)
        # Not a word from a transport that tells: it is in the pool's queue.
        return not (self.traced and self._api.traces)

    @property
    def is_connecting(self) -> bool:
        return self._sent is False

    @property
    def is_queued(self) -> bool:
        return self._handed_over and self._sent is None and not self.may_have_left

    def on_auth(self, outgoing: Any) -> Any:
        """Called by httpx for credentials, which the request has, and before the request hooks.

        (`auth=None` would have httpx look for some in the URL.)
        """
        if not self.hooked:
            self.on_handed_over()
        return outgoing

    def on_handed_over(self) -> None:
        """The transport has the request next."""
        self._handed_over = True
        if self.traced and not self._api.own:
            self._api.queued[self._permit] = None

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Called by httpcore. A tunnel's CONNECT is traced like the request, and isn't it."""
        if event.endswith(".started"):
            if self._permit in self._api.queued:
                self._api.on_connection(self._permit)
            sending = event.endswith("send_request_headers.started")
            if sending and getattr(info.get("request"), "method", b"") != b"CONNECT":
                self._sent = True
                self._sends += 1
                self.stream_id = info.get("stream_id")
            else:
                self.on_unsent()
        elif self._sent and event.endswith("receive_response_headers.complete"):
            self._on_traced_head(info.get("return_value"))

    def _on_traced_head(self, told: Any) -> None:
        """HTTP/1.1 tells (version, status, reason, headers), HTTP/2 (status, headers)."""
        with contextlib.suppress(TypeError, ValueError, IndexError, AttributeError):
            status = told[-3] if len(told) == 4 else told[0]
            if status >= 300:
                self.on_head(status, _headers(told[-1]))

    def on_unsent(self) -> None:
        """Connecting, or failed to. What a transport tried again may have left the first time."""
        if self._sent is None:
            self._sent = False

    def on_unprocessed(self) -> None:
        """It left, and the server says that it did nothing about it: the only time it left."""
        if self._sends == 1:
            self._sent = False

    def on_head(self, status: int, headers: Mapping[str, str]) -> None:
        self._head = status, headers

    def answer_despite(self, exc: Exception | None) -> ApiAnswer | None:
        """The answer, where one is known though httpx raised, or the request's time ended.

        Read by our hook, before the caller's hook raised; or, without its body, one that is no
        success: its status says all that matters, and its body would be an excerpt in an error.
        """
        if self.answer is not None:
            if exc is None or _carries_response(exc):
                return self.answer
            return attrs.evolve(self.answer, raised=exc)
        if self._head is None or self._head[0] < 300:
            return None
        callers = not (
            exc is None
            or isinstance(exc, DecodeError)
            or was_sent(exc) is not None
            or _carries_response(exc)
        )
        return ApiAnswer(*self._head, b"", anyio.current_time(), exc if callers else None)

    def on_end(self) -> None:
        self._api.queued.pop(self._permit, None)
        self._permit.may_have_left = self.may_have_left


class _Headers(dict[str, str]):
    """An answer's headers, which no repr shows: a Location may be signed, a cookie is a credential.

    Frames hold them as local variables, and error reporters show those.
    """

    def __repr__(self) -> str:
        return f"<{len(self)} headers>"


def _headers(raw: Iterable[tuple[bytes, bytes]]) -> _Headers:
    """One pass over them; httpx's own mapping decodes all of them at each look-up."""
    return _Headers(
        (name.decode("latin-1").lower(), value.decode("latin-1")) for name, value in raw
    )


def joined_headers(raw: Iterable[tuple[bytes, bytes]]) -> _Headers:
    """The same, with the values of a name that comes twice in one, as httpx joins them."""
    found = _Headers()
    for pair in raw:
        for name, value in _headers([pair]).items():
            found[name] = f"{found[name]}, {value}" if name in found else value
    return found


class _Kept:
    """A response that is read here and can be read again by the hooks that come after."""

    is_stream_consumed = False

    def __init__(self, response: Any) -> None:
        self._response = response
        self._parts: list[bytes] = []
        self.status_code: int = response.status_code
        self.headers: Any = response.headers
        self.extensions: Mapping[str, Any] = response.extensions

    async def aiter_raw(self) -> AsyncIterator[bytes]:
        # Not httpx's `aiter_raw`, after which nobody can read the response again.
        whole = self._response.is_stream_consumed
        async for part in self._response.aiter_bytes() if whole else self._response.stream:
            self._parts.append(part)
            yield part

    def aiter_bytes(self) -> AsyncIterator[bytes]:
        return self.aiter_raw()

    async def put_back(self) -> None:
        if not self._response.is_stream_consumed:
            await self.aclose()
            # httpx2 has a class of its own.
            package = sys.modules[type(self._response).__module__.partition(".")[0]]
            self._response.stream = getattr(package, "ByteStream", httpx.ByteStream)(
                b"".join(self._parts)
            )

    async def aclose(self) -> None:
        await self._response.stream.aclose()


def _sends_as_httpx(client: HttpClient) -> bool:
    """Whether its `send` is httpx's own, which hands a request over when it asks for credentials.

    A wrapper's, or a patched one, may do anything before and after.
    """
    return str(getattr(type(client).send, "__module__", "")).startswith("httpx")


def _carries_response(exc: Exception) -> bool:
    """Whether it is httpx's HTTPStatusError, or httpx2's: what `raise_for_status()` raises."""
    return "HTTPStatusError" in _httpx_names(exc) and getattr(exc, "response", None) is not None


#: httpx's errors that come before the first byte of the request. ProxyError: the tunnel failed.
_UNSENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError", "InvalidURL"})
_TRANSPORT = frozenset({"TransportError", "RequestError", "StreamError", "InvalidURL"})
_NO_ANSWER = frozenset({"NetworkError", "TimeoutException", "RemoteProtocolError", "ProxyError"})


#: HTTP/2's error code for a stream that was refused before any of it was processed.
_REFUSED_STREAM = 7


def was_unprocessed(exc: Exception, stream_id: int | None) -> bool:
    """Whether an HTTP/2 server said that it did nothing about the request (RFC 9113, 8.7).

    That is a GOAWAY whose last stream came before this one, or a stream reset as refused. httpcore
    raises the event itself; most such requests it sends again, on another connection.
    """
    for error in chain(exc):
        event: Any = error.args[0] if error.args else None
        last = getattr(event, "last_stream_id", None)
        if stream_id is not None and isinstance(last, int) and last < stream_id:
            return True
        told = getattr(event, "stream_id", None), getattr(event, "error_code", None)
        if stream_id is not None and told == (stream_id, _REFUSED_STREAM):
            return True
    return False


def _httpx_names(exc: Exception) -> set[str]:
    return {cls.__name__ for cls in type(exc).__mro__ if cls.__module__.startswith("httpx")}


def was_sent(exc: Exception) -> bool | None:
    """Whether a failed request may have arrived; None where the error isn't httpx's."""
    names = _httpx_names(exc)
    if names & _UNSENT:
        return False
    return True if names & _TRANSPORT else None


def is_no_answer(exc: Exception) -> bool:
    """Whether the server, or the way to it, failed. A full pool, or a URL that is none, is ours."""
    names = _httpx_names(exc)
    return isinstance(exc, OSError) or bool(names & _NO_ANSWER and "PoolTimeout" not in names)


def described(exc: Exception) -> str:
    """Its kind, and what it says; or, where it says nothing, what it came from says.

    On trio a refused certificate is an empty ConnectError.
    """
    text = next((text for error in chain(exc) if (text := str(error))), "")
    return printable(_redacted(f"{type(exc).__name__}: {text}" if text else type(exc).__name__))


#: The packages that a request goes through.
_LAYERS = frozenset({"httpx", "httpx2", "httpcore", "httpcore2", "h11", "h2"})

#: What h11 says of a header that it can't read, and repeats.
_HEADER_LINE = re.compile(r"(?is)(header (?:line|name|value)\b).*")


def _redacted(text: str) -> str:
    return redact(_HEADER_LINE.sub(r"\1 ...", text))


def forget_request(exc: BaseException, until: BaseException | None = None) -> None:
    """Take off an httpx error, and what it came from, whatever holds credentials or a signed URL.

    That is the request; the frames: the Authorization header is a local variable of those that
    were sending it, and error reporters show such; and what the message quotes of an answer.

    Args:
        exc: the error.
        until: what the caller was already handling when the request began.
    """
    for error in chain(exc, until):
        error.__traceback__ = None
        if "_request" in vars(error):
            vars(error)["_request"] = None
        if type(error).__module__.partition(".")[0] in _LAYERS:
            error.args = tuple(_redacted(a) if isinstance(a, str) else a for a in error.args)


def pieces(response: Response) -> AsyncIterator[bytes]:
    """The body as served; or, where a transport has read it already, what it read.

    ``httpx.MockTransport`` and others that make a response from a whole body do that.
    """
    return response.aiter_bytes() if response.is_stream_consumed else response.aiter_raw()


async def close(response: Response) -> None:
    # Under cancellation, closing must still give the connection back to the pool.
    with anyio.CancelScope(shield=True), contextlib.suppress(OSError):
        await response.aclose()
