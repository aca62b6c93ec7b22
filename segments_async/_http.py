"""One request, its capped body, and its errors: the only production module that imports httpx.

httpx2 continues httpx with the same API and other classes, so a caller's client is typed by what
is used of it, and errors are told by their names.
"""

from __future__ import annotations

import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextvars import ContextVar
from typing import Any, NoReturn, Protocol, cast
from urllib.parse import urljoin

import anyio
import attrs
import httpx

from segments_async._sansio.credentials import Origin, Secret
from segments_async._sansio.links import redact
from segments_async._sansio.wire import ApiAnswer, ApiRequest
from segments_async.errors import APIConnectionError, DecodeError

#: Requests under way at once. 32 slots cap answers of 0.57 s at 56/s; 64 carry 100/s, and 128
#: doubled the 429s of a cut (docs/design.md). httpx's pool gets as many connections, so that no
#: request waits inside it: its cost grows with connections x queued requests.
SLOTS = 64

#: Seconds an idle connection is kept. A POST sent into a connection that the server is just closing
#: ends as "unknown", so ours close before the common 5 s of servers do.
KEEPALIVE = 4.0

#: Largest bodies read, in bytes. 100 000 segments are 32 MB.
LIST_CAP = 64 * 1024 * 1024
STATUS_CAP = 1024 * 1024

#: Of storage's error pages, in bytes.
STORAGE_ERROR_CAP = 16 * 1024

USER_AGENT = "segments-async"


class Response(Protocol):
    """What is used of a response."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Mapping[str, str]: ...
    def aiter_raw(self) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None: ...


class HttpClient(Protocol):
    """What is used of an ``AsyncClient``: httpx's, or httpx2's."""

    def build_request(self, method: str, url: Any, **options: Any) -> Any: ...
    async def send(self, request: Any, **options: Any) -> Any: ...
    async def aclose(self) -> None: ...


def api_client(ssl_context: ssl.SSLContext | None) -> HttpClient:
    """Our own client for the API."""
    limits = httpx.Limits(
        max_connections=SLOTS, max_keepalive_connections=SLOTS, keepalive_expiry=KEEPALIVE
    )
    return cast(HttpClient, httpx.AsyncClient(verify=ssl_context or True, limits=limits))


def storage_client(ssl_context: ssl.SSLContext | None, downloads: int) -> HttpClient:
    """Our own client for storage: no credentials, and no cookies kept."""
    limits = httpx.Limits(max_connections=downloads, max_keepalive_connections=downloads)
    return cast(HttpClient, httpx.AsyncClient(verify=ssl_context or True, limits=limits))


class Api:
    """The vendor's API: sends one request, and reads its whole answer.

    Args:
        client: an httpx or httpx2 ``AsyncClient``.
        origin: where requests, and so credentials, go.
        authorization: the header's value.
        timeout: seconds for one request, from connecting to the last byte of the answer.
    """

    def __init__(
        self, client: HttpClient, origin: Origin, authorization: Secret, timeout: float
    ) -> None:
        self._client = client
        self._origin = origin
        self._authorization = authorization
        self._timeout = timeout
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        self._base = f"{origin.scheme}://{host}:{origin.port}{origin.prefix}"
        self._headers = {
            "Accept": "application/json",
            # A compressed body is a bomb until its end is seen, and these bodies are small.
            "Accept-Encoding": "identity",
            "User-Agent": USER_AGENT,
        }
        self._post_headers = {**self._headers, "Content-Type": "application/json"}

    async def send(self, request: ApiRequest, *, cap: int = STATUS_CAP) -> ApiAnswer:
        """Send the request once.

        Raises:
            APIConnectionError: no whole answer came; `sent` says whether the request may have.
            DecodeError: the answer was larger than `cap` bytes, or compressed unasked.
        """
        wire = _Wire()
        try:
            with anyio.fail_after(self._timeout):
                return await self._exchange(request, cap, wire)
        except TimeoutError as exc:
            sent = wire.sent is not False
            self._broken(request, f"no answer within {self._timeout:g} s", sent, exc)
        except Exception as exc:
            sent_by_type = _sent(exc)
            if sent_by_type is None:
                raise
            self._broken(request, _described(exc), sent_by_type and wire.sent is not False, exc)

    async def _exchange(self, request: ApiRequest, cap: int, wire: _Wire) -> ApiAnswer:
        post = request.body is not None
        outgoing = self._client.build_request(
            request.method,
            self._base + request.path,
            headers=self._post_headers if post else self._headers,
            content=request.body,
            timeout=self._timeout,
            # Only a POST needs to know whether it went out; for the rest the trace is dead weight.
            extensions={"trace": wire.trace} if post else None,
        )
        response: Response = await self._client.send(
            outgoing, stream=True, auth=self._authorize, follow_redirects=False
        )
        try:
            headers = {name.lower(): value for name, value in response.headers.items()}
            body = await self._read(request, response, headers, cap)
            return ApiAnswer(response.status_code, headers, body)
        finally:
            await _close(response)

    def _authorize(self, outgoing: Any) -> Any:
        """httpx calls this last, on every hop: credentials go to the vendor's origin only."""
        url = outgoing.url
        port = url.port or {"https": 443, "http": 80}.get(url.scheme)
        if (url.scheme, url.host, port) == (
            self._origin.scheme,
            self._origin.host,
            self._origin.port,
        ):
            outgoing.headers["Authorization"] = self._authorization.reveal()
        return outgoing

    async def _read(
        self, request: ApiRequest, response: Response, headers: Mapping[str, str], cap: int
    ) -> bytes:
        if headers.get("content-encoding", "identity").lower() != "identity":
            self._undecodable(request, "a compressed answer, which was not asked for")
        parts: list[bytes] = []
        size = 0
        async for part in response.aiter_raw():
            size += len(part)
            if size > cap:
                self._undecodable(request, f"an answer of more than {cap} bytes")
            parts.append(part)
        body = b"".join(parts)
        if response.status_code != 200:
            # Error pages like to repeat the request, and errors keep an excerpt of them.
            body = body.replace(self._authorization.reveal().encode(), b"...")
        return body

    def _undecodable(self, request: ApiRequest, what: str) -> NoReturn:
        raise DecodeError(
            f"{request.method} {request.path}: {what}",
            method=request.method,
            path=request.path,
            where="$",
        )

    def _broken(
        self, request: ApiRequest, what: str, sent: bool, cause: BaseException
    ) -> NoReturn:
        # The cause may hold the request, and that the Authorization header.
        _forget_request(cause)
        raise APIConnectionError(
            f"{request.method} {request.path}: {what}",
            method=request.method,
            path=request.path,
            sent=sent,
        ) from cause

    async def aclose(self) -> None:
        await self._client.aclose()


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
_UNSENT = frozenset({"ConnectError", "ConnectTimeout", "PoolTimeout", "ProxyError"})
_TRANSPORT = frozenset({"TransportError", "RequestError", "StreamError", "InvalidURL"})


def _sent(exc: Exception) -> bool | None:
    """Whether a failed request may have arrived; None where the error isn't httpx's."""
    names = {cls.__name__ for cls in type(exc).__mro__ if cls.__module__.startswith("httpx")}
    if names & _UNSENT:
        return False
    return True if names & _TRANSPORT else None


def _described(exc: Exception) -> str:
    return redact(f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__)


def _forget_request(exc: BaseException) -> None:
    """Take the request, with its credentials or signed URL, off an httpx error and its causes."""
    cause: BaseException | None = exc
    while cause is not None:
        if "_request" in vars(cause):
            vars(cause)["_request"] = None
        cause = cause.__cause__ or cause.__context__


async def _close(response: Response) -> None:
    # Under cancellation, closing must still give the connection back to the pool.
    with anyio.CancelScope(shield=True), contextlib.suppress(OSError):
        await response.aclose()


@attrs.frozen
class StorageAnswer:
    """The head of storage's answer; the body is read from `chunks`, as served."""

    status: int
    headers: Mapping[str, str]
    chunks: AsyncIterator[bytes] = attrs.field(repr=False)


class StorageBroken(Exception):
    """The link to storage broke. Holds no URL."""


class Storage:
    """Storage, asked without credentials and cookies.

    Args:
        client: an httpx or httpx2 ``AsyncClient``.
        check: raises where the link policy refuses a link; asked again for each redirect.
        redirects: how many are followed.
        timeout: seconds for connecting, and between two chunks.
    """

    def __init__(
        self, client: HttpClient, check: Callable[[str], str], *, redirects: int, timeout: float
    ) -> None:
        self._client = client
        self._check = check
        self._redirects = redirects
        self._timeout = timeout

    @contextlib.asynccontextmanager
    async def get(self, link: str) -> AsyncIterator[StorageAnswer]:
        """Follow the link, and whatever redirects the policy admits.

        Raises:
            LinkRefused: by the link policy, here or on the way.
            StorageBroken: no answer, or its body broke off.
        """
        response = await self._follow(link)
        try:
            headers = {name.lower(): value for name, value in response.headers.items()}
            chunks = _Chunks(response.aiter_raw())
            yield StorageAnswer(response.status_code, headers, chunks)
        finally:
            await _close(response)

    async def _follow(self, link: str) -> Response:
        for _ in range(self._redirects + 1):
            response = await self._request(self._check(link))
            location = response.headers.get("location")
            if response.status_code not in (301, 302, 303, 307, 308) or location is None:
                return response
            await _close(response)
            link = urljoin(link, location)
        raise StorageBroken(f"more than {self._redirects} redirects")

    async def _request(self, link: str) -> Response:
        outgoing = self._client.build_request(
            "GET",
            link,
            headers={"Accept-Encoding": "identity", "User-Agent": USER_AGENT},
            timeout=self._timeout,
        )
        outgoing.headers.pop("cookie", None)
        private = _link_in_flight.set(True)
        try:
            return cast(
                Response,
                await self._client.send(
                    outgoing, stream=True, auth=_no_credentials, follow_redirects=False
                ),
            )
        except Exception as exc:
            _raise_storage_broken(exc)
        finally:
            _link_in_flight.reset(private)

    async def aclose(self) -> None:
        await self._client.aclose()


def _no_credentials(outgoing: Any) -> Any:
    """Whatever a caller's client would add by itself stays off requests to storage."""
    outgoing.headers.pop("authorization", None)
    return outgoing


class _Chunks:
    """The chunks of a body, with httpx's errors turned into ours."""

    __slots__ = ("_raw",)

    def __init__(self, raw: AsyncIterator[bytes]) -> None:
        self._raw = raw

    def __aiter__(self) -> _Chunks:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await self._raw.__anext__()
        except Exception as exc:
            if isinstance(exc, StopAsyncIteration):
                raise
            _raise_storage_broken(exc)


def _raise_storage_broken(exc: Exception) -> NoReturn:
    if _sent(exc) is None:
        raise exc
    # `from None`, and the request taken off: the cause holds the signed link.
    _forget_request(exc)
    raise StorageBroken(_described(exc)) from None


_link_in_flight: ContextVar[bool] = ContextVar("segments_async_link_in_flight", default=False)


class _HideLinks(logging.Filter):
    """httpx logs each full URL at INFO; of ours to storage, the query is a credential."""

    def filter(self, record: logging.LogRecord) -> bool:
        if _link_in_flight.get():
            record.msg, record.args = redact(record.getMessage()), None
        return True


for _name in ("httpx", "httpx2"):
    logging.getLogger(_name).addFilter(_HideLinks())
