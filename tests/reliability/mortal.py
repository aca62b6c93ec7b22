"""A process's death, simulated in the test's own process and in virtual time.

After its death, a session has no effect on the disk, in the journal, or on the network. Its locks
and descriptors are released, as the operating system does. Requests on the wire have been sent.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable, Generator
from typing import Any
from unittest import mock

import httpx

from segments_async._files import directory
from segments_async._files.part import ExportedBytes, PartFile
from segments_async._journal.database import Database
from segments_async._journal.high_water import HighWaterFile
from segments_async._journal.opened_run import OpenedRun
from segments_async.sandbox import Sandbox, SandboxTransport


class Life:
    """The life of one session."""

    def __init__(self) -> None:
        self.dead = False

    def die(self) -> None:
        self.dead = True

    @contextlib.contextmanager
    def lived(self) -> Generator[Life]:
        """While the session runs: from its death on, its effects don't happen."""
        with contextlib.ExitStack() as stack:
            for owner, name, instead in _EFFECTS:
                effect = _until_death(self, getattr(owner, name), instead)
                stack.enter_context(mock.patch.object(owner, name, effect))
            yield self


class MortalTransport(SandboxTransport):
    """A transport that sends nothing for a dead session.

    `careless`: a body that breaks off ends like a whole one. httpx's own transports compare a
    body's length with the announced one; a caller's transport may not.
    """

    def __init__(self, sandbox: Sandbox, life: Life, *, careless: bool = False) -> None:
        super().__init__(sandbox)
        self._life = life
        self._careless = careless

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self._life.dead:
            raise httpx.ConnectError("dead", request=request)
        response = await super().handle_async_request(request)
        if self._careless and isinstance(response.stream, httpx.AsyncByteStream):
            response.stream = _UnbrokenBody(response.stream)
        return response


class _UnbrokenBody(httpx.AsyncByteStream):
    def __init__(self, body: httpx.AsyncByteStream) -> None:
        self._body = body
        self._pieces = aiter(body)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            return await anext(self._pieces)
        except httpx.RemoteProtocolError:
            raise StopAsyncIteration from None

    async def aclose(self) -> None:
        await self._body.aclose()


def _until_death(life: Life, effect: Callable[..., Any], instead: Any) -> Callable[..., Any]:
    def call(*args: Any, **keywords: Any) -> Any:
        if not life.dead:
            return effect(*args, **keywords)
        return instead(*args) if callable(instead) else instead

    return call


def _let_go(file: PartFile, *_: object) -> None:
    file.release()


#: Functions with an effect, and their results in a dead session.
_EFFECTS: tuple[tuple[Any, str, Any], ...] = (
    (OpenedRun, "append", None),
    (OpenedRun, "finish", None),
    (OpenedRun, "set_aside", True),
    (HighWaterFile, "write", None),
    (Database, "set_guard", None),
    (PartFile, "open", None),
    (PartFile, "reset", None),
    (PartFile, "write", None),
    (PartFile, "hash_on", True),
    (PartFile, "finish", ExportedBytes(0, "")),
    (PartFile, "keep", _let_go),
    (PartFile, "discard", _let_go),
    (directory, "append_lines", None),
)
