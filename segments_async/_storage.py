"""Storage: where files come from, asked without credentials, its links kept out of logs.

It needs no httpx of its own: requests are built by the client that sends them.
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextvars import ContextVar
from typing import Any, NoReturn, cast
from urllib.parse import urljoin

import attrs

from segments_async._http import (
    USER_AGENT,
    Clients,
    HttpClient,
    Response,
    close,
    described,
    forget_request,
    pieces,
    was_sent,
)
from segments_async._sansio.links import redact

#: Seconds an idle connection is kept. Longer than the API's: a request can be repeated here.
STORAGE_KEEPALIVE = 15.0

#: Largest error page read, in bytes.
STORAGE_ERROR_CAP = 16 * 1024

#: No request header, unless told.
NO_HEADERS: Mapping[str, str] = {}


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
        clients: httpx's or httpx2's.
        check: raises where the link policy refuses a link; asked again for each redirect.
        redirects: how many are followed.
        timeout: seconds for connecting, and between two chunks.
    """

    def __init__(
        self, clients: Clients, check: Callable[[str], str], *, redirects: int, timeout: float
    ) -> None:
        self._clients = clients
        self._check = check
        self._redirects = redirects
        self._timeout = timeout

    @contextlib.asynccontextmanager
    async def get(
        self, link: str, headers: Mapping[str, str] = NO_HEADERS
    ) -> AsyncGenerator[StorageAnswer]:
        """Follow the link, and whatever redirects the policy admits.

        Args:
            link: from the vendor.
            headers: sent along, to where a redirect leads too: Range, If-Match, If-Range.

        Raises:
            LinkRefused: by the link policy, here or on the way.
            StorageBroken: no answer, or its body broke off.
        """
        client = self._clients.borrow()
        try:
            response = await self._follow(client, link, headers)
            try:
                chunks = _Chunks(pieces(response))
                yield StorageAnswer(response.status_code, response.headers, chunks)
            finally:
                await close(response)
        finally:
            self._clients.give_back(client)

    async def _follow(self, client: HttpClient, link: str, headers: Mapping[str, str]) -> Response:
        for _ in range(self._redirects + 1):
            response = await self._request(client, self._check(link), headers)
            location = response.headers.get("location")
            if response.status_code not in (301, 302, 303, 307, 308) or location is None:
                return response
            await close(response)
            try:
                link = urljoin(link, location)
            except ValueError:
                link = location  # no URL, which the policy refuses
        raise StorageBroken(f"more than {self._redirects} redirects")

    async def _request(self, client: HttpClient, link: str, headers: Mapping[str, str]) -> Response:
        headers = {**headers, "Accept-Encoding": "identity", "User-Agent": USER_AGENT}
        private = _link_in_flight.set(True)
        try:
            outgoing = client.build_request("GET", link, headers=headers, timeout=self._timeout)
            outgoing.headers.pop("cookie", None)
            answer = await client.send(
                outgoing, stream=True, auth=_no_credentials, follow_redirects=False
            )
            return cast(Response, answer)
        except Exception as exc:  # noqa: BLE001 - raised again, as ours or as itself
            _raise_storage_broken(exc)
        finally:
            _link_in_flight.reset(private)


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
    # A transport's own OSError too: raised as itself, it would be taken for the disk's.
    if was_sent(exc) is None and not isinstance(exc, OSError):
        raise exc
    # `from None`, and the request taken off: the cause holds the signed link.
    forget_request(exc)
    raise StorageBroken(described(exc)) from None


_link_in_flight: ContextVar[bool] = ContextVar("segments_async_link_in_flight", default=False)


class _HideLinks(logging.Filter):
    """httpx logs each full URL at INFO; of ours to storage, the query is a credential.

    httpcore logs the headers of answers at DEBUG, and a redirect's Location is such a URL too.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        if _link_in_flight.get():
            record.msg, record.args = redact(record.getMessage()), None
        return True


for _name in ("httpx", "httpx2", "httpcore.http11", "httpcore.http2"):
    logging.getLogger(_name).addFilter(_HideLinks())
