"""A response: its headers, its body, and how it is closed; httpx's, or httpx2's."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from importlib import import_module
from typing import Any, Protocol

import anyio


class Response(Protocol):
    """The attributes of httpx's and httpx2's responses that this package uses."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Any: ...  # a mapping of strings with a `raw` attribute
    @property
    def extensions(self) -> Mapping[str, Any]: ...
    @property
    def is_stream_consumed(self) -> bool: ...
    def aiter_raw(self) -> AsyncIterator[bytes]: ...
    def aiter_bytes(self) -> AsyncIterator[bytes]: ...
    async def aclose(self) -> None: ...


class ResponseHeaders(dict[str, str]):
    """Headers by lower-case name. A repr shows none of them.

    Frames hold the headers as local variables, which error reporters show: a Location may be a
    signed link, and a cookie is a credential.
    """

    def __repr__(self) -> str:
        return f"<{len(self)} headers>"


def response_headers(raw: Iterable[tuple[bytes, bytes]]) -> ResponseHeaders:
    """Decode each header once. httpx's own mapping decodes all headers at each look-up."""
    return ResponseHeaders(
        {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in raw}
    )


def joined_headers(raw: Iterable[tuple[bytes, bytes]]) -> ResponseHeaders:
    """As :func:`response_headers`, but joins the values of a repeated name, as httpx does."""
    found = ResponseHeaders()
    for pair in raw:
        for name, value in response_headers([pair]).items():
            found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def body_chunks(response: Response) -> AsyncIterator[bytes]:
    """The chunks of the body as served; if the transport has read the body already, as it read it.

    ``httpx.MockTransport`` has, and other transports that make a response of a whole body.
    """
    return response.aiter_bytes() if response.is_stream_consumed else response.aiter_raw()


async def read_body(response: Response, cap: int, parts: list[bytes]) -> bytes | None:
    """The whole body; None if it is larger than `cap` bytes.

    `parts` gets what comes: the caller has it, too, where the body breaks.
    """
    size = 0
    async for part in body_chunks(response):
        size += len(part)
        if size > cap:
            return None
        parts.append(part)
    return b"".join(parts)


def unbind(response: Any) -> None:
    """Break the circle of a response that was read, so that it is freed with its last use.

    httpx's response and its stream refer to each other, so a response, its request and all that the
    request refers to would wait for the garbage collector: 35 objects for each request, which took
    a twentieth of a request's processor time.
    """
    response.stream = _stream_of(response, b"")


def _stream_of(response: Any, body: bytes) -> Any:
    """A stream of these bytes, of the class that the response's package has."""
    # httpx2 has a class of its own.
    package = sys.modules[type(response).__module__.partition(".")[0]]
    if not hasattr(package, "ByteStream"):  # a response of the caller's own class
        package = import_module("httpx")
    return package.ByteStream(body)


async def close(response: Response) -> None:
    """Close the response, and give its connection back to the pool, under cancellation too."""
    with anyio.CancelScope(shield=True), contextlib.suppress(OSError):
        await response.aclose()


class RereadableResponse:
    """A response whose body the caller's response hooks can read again after us."""

    is_stream_consumed = False

    def __init__(self, response: Any) -> None:
        self._response = response
        self._parts: list[bytes] = []
        self.status_code: int = response.status_code
        self.headers: Any = response.headers
        self.extensions: Mapping[str, Any] = response.extensions

    async def aiter_raw(self) -> AsyncIterator[bytes]:
        # httpx's `aiter_raw` would mark the response as consumed.
        whole = self._response.is_stream_consumed
        async for part in self._response.aiter_bytes() if whole else self._response.stream:
            self._parts.append(part)
            yield part

    def aiter_bytes(self) -> AsyncIterator[bytes]:
        return self.aiter_raw()

    async def put_back(self) -> None:
        """Give the response a stream of the bytes that were read."""
        if not self._response.is_stream_consumed:
            await self.aclose()
            self._response.stream = _stream_of(self._response, b"".join(self._parts))

    async def aclose(self) -> None:
        await self._response.stream.aclose()
