"""httpx2's AsyncClient, over the in-process sandbox; see `--httpx2` in `tests/conftest.py`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import httpx
import httpx2

from segments_async.sandbox import SandboxTransport


class Httpx2Transport(httpx2.AsyncBaseTransport):
    """The sandbox's transport for httpx2: the same bytes and errors in httpx2's classes."""

    def __init__(self, transport: SandboxTransport) -> None:
        self._transport = transport

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        sent = httpx.Request(
            request.method,
            str(request.url),
            headers=request.headers.raw,
            content=await request.aread(),
            extensions=dict(request.extensions),
        )
        with _in_classes_of_httpx2(request):
            answer = await self._transport.handle_async_request(sent)
        return httpx2.Response(
            answer.status_code, headers=answer.headers.raw, stream=_Body(answer.stream, request)
        )


class _Body(httpx2.AsyncByteStream):
    def __init__(self, stream: Any, request: httpx2.Request) -> None:
        self._stream = stream
        self._pieces = aiter(stream)
        self._request = request

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        with _in_classes_of_httpx2(self._request):
            piece: bytes = await anext(self._pieces)
            return piece

    async def aclose(self) -> None:
        await self._stream.aclose()


@contextmanager
def _in_classes_of_httpx2(request: httpx2.Request) -> Iterator[None]:
    try:
        yield
    except httpx.TransportError as exc:
        raise getattr(httpx2, type(exc).__name__)(str(exc), request=request) from exc


def client_of(transport: SandboxTransport) -> httpx2.AsyncClient:
    """A client of httpx2 that talks to the sandbox."""
    return httpx2.AsyncClient(transport=Httpx2Transport(transport))
