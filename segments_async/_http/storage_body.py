"""The body of an answer of storage, and the errors of a request that brings none.

httpx's errors and their frames hold the signed link. `raise_storage_broken` raises ours in their
place.
"""

from __future__ import annotations

import contextlib
import sys
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, NoReturn

from segments_async._http.errors import described, forget_request, was_sent
from segments_async._http.redaction import redact_logs
from segments_async._http.responses import Response, body_chunks, close, joined_headers
from segments_async._sansio.files.ranges import content_length

if TYPE_CHECKING:
    from segments_async._http.fast_transport import DirectRead


class StorageBroken(Exception):
    """The connection to storage failed. The message holds no URL.

    Attributes:
        away: whether storage as a whole is unavailable, so that this file is not the cause.
    """

    away: bool = False


class NoAnswer(StorageBroken):
    """The request got no answer."""


class StorageBody:
    """The chunks of a response's body; httpx's errors are raised as StorageBroken."""

    __slots__ = ("_ahead", "_chunk", "_left", "_raw", "_rest", "_timeout", "headers", "response")

    def __init__(self, response: Response, timeout: float) -> None:
        self.response = response
        self.headers: Mapping[str, str] = joined_headers(response.headers.raw)
        self._timeout = timeout
        self._raw = body_chunks(response)
        self._ahead: deque[bytes] = deque()
        self._left = content_length(self.headers) or 0
        self._chunk = memoryview(b"")
        self._rest: DirectRead | None = None

    def __aiter__(self) -> StorageBody:
        return self

    async def __anext__(self) -> bytes:
        return self._ahead.popleft() if self._ahead else await self._read()

    async def read_into(self, buffer: memoryview) -> int:
        """Read at least one byte of the body. Returns the number of bytes; 0 at the end."""
        if self._rest is not None and not self._chunk:
            try:
                return await self._rest.read_into(buffer)
            except OSError as exc:
                raise_storage_broken(exc)
        while not self._chunk:
            try:
                self._next(await self.__anext__())
            except StopAsyncIteration:
                return 0
        size = min(len(buffer), len(self._chunk))
        buffer[:size] = self._chunk[:size]
        self._chunk = self._chunk[size:]
        return size

    def _next(self, chunk: bytes) -> None:
        self._chunk = memoryview(chunk)
        if not self._ahead:
            # Not at the top: with httpcore, it takes as long to import as httpx.
            from segments_async._http.fast_transport import start_direct_read

            self._rest = start_direct_read(
                self.response.extensions, chunk, self._left, self._timeout
            )

    async def aclose(self) -> None:
        await close(self.response)
        if self._rest is not None:
            # httpx's and httpcore's generators still wait for the bytes that were read directly. A
            # read on the closed connection ends them; else the garbage collector warns of each.
            with contextlib.suppress(StorageBroken, StopAsyncIteration):
                await self._read()

    async def peek(self, size: int) -> bytes:
        """The body's first bytes; they are read again afterwards."""
        with contextlib.suppress(StopAsyncIteration):
            while sum(map(len, self._ahead)) < size:
                self._ahead.append(await self._read())
        return b"".join(self._ahead)[:size]

    async def _read(self) -> bytes:
        handled = sys.exception()
        try:
            with redact_logs("the body of a file"):  # httpcore logs what it can't read of a body
                chunk = await self._raw.__anext__()
        except Exception as exc:
            if isinstance(exc, StopAsyncIteration):
                raise
            raise_storage_broken(exc, handled)
        except BaseException as exc:  # such as a cancellation: its traceback must not show the link
            forget_request(exc, handled)
            raise
        self._left -= len(chunk)
        return chunk


def raise_storage_broken(
    exc: Exception,
    handled: BaseException | None = None,
    *,
    kind: type[StorageBroken] = StorageBroken,
) -> NoReturn:
    # An OSError of a transport would be taken for one of the disk. httpx raises UnicodeError for
    # invalid punycode in a host, if NO_PROXY is set.
    if was_sent(exc) is None and not isinstance(exc, OSError | UnicodeError):
        raise exc
    # `from None`: the cause holds the signed link. `forget_request`: its frames hold it, too.
    forget_request(exc, handled)
    raise kind(described(exc)) from None
