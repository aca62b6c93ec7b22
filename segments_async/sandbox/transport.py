"""The sandbox in the test's own process: an httpx transport without sockets."""

from __future__ import annotations

from collections.abc import AsyncIterator

import anyio
import anyio.lowlevel
import httpx

from .answer import Answer, BrokenBody
from .model import Sandbox


class SandboxTransport(httpx.AsyncBaseTransport):
    """`httpx.AsyncClient(transport=SandboxTransport(sandbox))` talks to the sandbox.

    The sandbox's time is `anyio.current_time()`, so virtual time works; its 0 is the time of the
    first request. Several transports may share a sandbox, also one after another in several event
    loops. A request to an origin that isn't the sandbox's fails to connect.

    Args:
        sandbox: the one that answers.

    Attributes:
        sandbox: the one that answers.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self.sandbox = sandbox

    def now(self) -> float:
        """The sandbox's time."""
        return self.sandbox.timeline.now(anyio.lowlevel.current_token(), anyio.current_time())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request to the host of its URL."""
        body = await request.aread()
        await anyio.lowlevel.checkpoint()  # a caller that was cancelled sends nothing
        self.now()  # the sandbox's time begins before the first latency
        origin = f"{request.url.scheme}://{request.url.netloc.decode('ascii')}"
        if origin == self.sandbox.api_origin:
            latency = self.sandbox.draw_latency()
        elif origin == self.sandbox.files_origin:
            latency = 0.0
        else:
            raise httpx.ConnectError(f"nothing listens at {origin}", request=request)
        try:
            await _pause(latency / 4)
        except BaseException:
            # A request on the wire arrives, though its sender was cancelled.
            self._end(self._arrived(request, origin, body))
            raise
        answer = self._arrived(request, origin, body)
        return await self._delivered(request, answer, latency * 3 / 4 + answer.delay)

    def _arrived(self, request: httpx.Request, origin: str, body: bytes) -> Answer:
        path = request.url.raw_path.decode("ascii")
        if origin == self.sandbox.api_origin:
            return self.sandbox.answer(request.method, path, request.headers, body, self.now())
        return self.sandbox.answer_file(request.method, path, request.headers, self.now())

    async def _delivered(
        self, request: httpx.Request, answer: Answer, seconds: float
    ) -> httpx.Response:
        try:
            if answer.unreachable:
                raise httpx.ConnectError("connection refused", request=request)
            await _wait_for_answer(request, seconds)
            if answer.lost != "no":
                raise httpx.ReadError("connection reset by peer", request=request)
        except BaseException:
            self._end(answer)
            raise
        return httpx.Response(
            answer.status, headers=list(answer.headers.items()), stream=_Body(self, answer)
        )

    def _end(self, answer: Answer) -> None:
        self.sandbox.record.end(answer.entry, self.now())


class _Body(httpx.AsyncByteStream):
    """An answer's body, made when it is read."""

    def __init__(self, transport: SandboxTransport, answer: Answer) -> None:
        self._transport = transport
        self._entry = answer.entry
        self._rate = answer.rate
        self._pieces = answer.pieces()
        self._begun = False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            piece = next(self._pieces)
        except StopIteration:
            raise StopAsyncIteration from None
        except BrokenBody as exc:
            raise httpx.RemoteProtocolError(str(exc)) from exc
        if self._rate is not None:
            await anyio.sleep(len(piece) / self._rate)
        elif self._begun:  # most bodies have one piece, which needs no checkpoint
            await anyio.lowlevel.checkpoint()
        self._begun = True
        return piece

    async def aclose(self) -> None:
        """The response is closed: the request has ended."""
        self._transport.sandbox.record.end(self._entry, self._transport.now())


async def _pause(seconds: float) -> None:
    if seconds > 0:
        await anyio.sleep(seconds)


async def _wait_for_answer(request: httpx.Request, seconds: float) -> None:
    """Wait for `seconds`, and for httpx's read timeout at most."""
    timeout: float | None = request.extensions.get("timeout", {}).get("read")
    if timeout is not None and seconds > timeout:
        await anyio.sleep(timeout)
        raise httpx.ReadTimeout("the sandbox is slow", request=request)
    await _pause(seconds)
