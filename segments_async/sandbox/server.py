"""The sandbox on two loopback ports: the API's and the file host's (extra `sandbox`)."""

from __future__ import annotations

import asyncio
import queue
import signal
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from types import FrameType, TracebackType
from typing import Any, Self

try:
    import uvicorn
    from starlette.requests import ClientDisconnect, Request
    from starlette.types import Receive, Scope, Send
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ModuleNotFoundError as _missing:
    raise ModuleNotFoundError(
        f"the sandbox's server needs {_missing.name}: pip install 'segments-async[sandbox]'",
        name=_missing.name,
    ) from _missing

from .answer import Answer, BrokenBody
from .clock import Clock
from .model import Sandbox
from .request import LARGEST_BODY

_KEEP_ALIVE = 75  # seconds; longer than clients' pools keep an idle connection
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: close() sends RST


class SandboxServer:
    """Serves a sandbox over real HTTP, in a thread and an event loop of its own.

    After `with SandboxServer(Sandbox()) as server:` the API is at `server.base_url`. The sandbox's
    `epoch` and origins become the server's. The record may be read meanwhile. Several reads that
    must agree need `lock`.
    """

    def __init__(
        self, sandbox: Sandbox, *, host: str = "127.0.0.1", port: int = 0, files_port: int = 0
    ) -> None:
        """Port 0 means any free port."""
        self.sandbox = sandbox
        self.lock: threading.Lock = threading.Lock()
        self._host = host
        self._ports = port, files_port
        self._start = 0.0

    @property
    def base_url(self) -> str:
        """The API's origin."""
        return self.sandbox.api_origin

    @property
    def files_url(self) -> str:
        """The file host's origin."""
        return self.sandbox.files_origin

    def now(self) -> float:
        """The sandbox's time: seconds since the server started."""
        return time.monotonic() - self._start

    def __enter__(self) -> Self:
        api, files = self._bound()
        self._start = time.monotonic()
        self.sandbox.clock = Clock(datetime.now(UTC))
        self.sandbox.api_origin, self.sandbox.files_origin = self._url(api), self._url(files)
        app = _App(self, files_port=files.getsockname()[1])
        self._server = _Server(_config(app))
        self._thread = threading.Thread(
            target=self._server.run, args=([api, files],), name="sandbox", daemon=True
        )
        self._thread.start()
        self._server.listening.wait()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._server.should_exit = self._server.force_exit = True
        self._thread.join()

    def _bound(self) -> tuple[socket.socket, socket.socket]:
        """Both sockets, or neither and an OSError."""
        first = _bind(self._host, self._ports[0])
        try:
            return first, _bind(self._host, self._ports[1])
        except OSError:
            first.close()
            raise

    def _url(self, listener: socket.socket) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"http://{host}:{listener.getsockname()[1]}"


def serve(
    sandbox: Sandbox,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    files_port: int = 0,
    ready: Callable[[SandboxServer], object] | None = None,
) -> int:
    """Serve until SIGINT, SIGTERM or SIGHUP, and return that signal's number; main thread only.

    A second signal doesn't wait. SIGHUP is left alone where it is ignored, as under `nohup`.
    `ready` is called once both ports listen.
    """
    # Not an Event: a handler runs in the middle of whatever the main thread does. Event.set() waits
    # for a lock that the main thread may hold in Event.wait(), and then neither goes on.
    came: queue.SimpleQueue[int] = queue.SimpleQueue()
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, _frame: FrameType | None) -> None:
        came.put(number)
        restore()

    hangup = getattr(signal, "SIGHUP", None)  # Windows has none
    for number in filter(None, (signal.SIGINT, signal.SIGTERM, hangup)):
        if number != hangup or signal.getsignal(number) is not signal.SIG_IGN:
            before[number] = signal.signal(number, note)
    try:
        with SandboxServer(sandbox, host=host, port=port, files_port=files_port) as server:
            if ready is not None:
                ready(server)
            return came.get()
    finally:
        restore()


class _App:
    """The ASGI application of both ports."""

    def __init__(self, server: SandboxServer, files_port: int) -> None:
        self._server = server
        self._files_port = files_port

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # A request that breaks off has not reached the vendor. A stopping server cancels its tasks.
        with suppress(ClientDisconnect, asyncio.CancelledError):
            await self._exchange(Request(scope, receive), _Wire(scope, receive, send))

    async def _exchange(self, request: Request, wire: _Wire) -> None:
        body = await _read(request)
        to_files = request.scope["server"][1] == self._files_port
        latency = 0.0 if to_files else self._draw_latency()
        await asyncio.sleep(latency / 4)
        answer = self._ask(request, to_files, body)
        try:
            await asyncio.sleep(latency * 3 / 4 + answer.delay)
            await wire.deliver(answer, lambda: self._ended(answer))
        finally:
            self._ended(answer)

    def _draw_latency(self) -> float:
        with self._server.lock:
            return self._server.sandbox.draw_latency()

    def _ask(self, request: Request, to_files: bool, body: bytes) -> Answer:
        server, sandbox = self._server, self._server.sandbox
        path, query = request.scope["raw_path"].decode("latin-1"), request.scope["query_string"]
        if query:
            path = f"{path}?{query.decode('latin-1')}"
        with server.lock:
            if to_files:
                return sandbox.answer_file(request.method, path, request.headers, server.now())
            return sandbox.answer(request.method, path, request.headers, body, server.now())

    def _ended(self, answer: Answer) -> None:
        with self._server.lock:
            self._server.sandbox.record.end(answer.entry, self._server.now())


class _Wire:
    """One connection, while it carries an answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self._transport: asyncio.Transport = scope["state"]["transport"]
        self._receive = receive
        self._send = send

    async def deliver(self, answer: Answer, ending: Callable[[], None]) -> None:
        """Send the answer. `ending` is called before the client can have all of it."""
        if answer.unreachable or answer.lost == "before":
            ending()
            await self._reset()
        elif answer.lost == "after":
            ending()
            await self._close()
        else:
            await self._send_start(answer)
            await self._send_body(answer, ending)

    async def _send_start(self, answer: Answer) -> None:
        headers = [(k.encode("latin-1"), v.encode("latin-1")) for k, v in answer.headers.items()]
        await self._send(
            {"type": "http.response.start", "status": answer.status, "headers": headers}
        )

    async def _send_body(self, answer: Answer, ending: Callable[[], None]) -> None:
        held = b""
        try:
            for piece in answer.pieces():
                await self._send_piece(held)
                held = piece
                if answer.rate is not None:
                    await asyncio.sleep(len(piece) / answer.rate)
        except BrokenBody:
            await self._send_piece(held)
            ending()
            await self._close()
        else:
            ending()
            await self._send_piece(held, more=False)

    async def _send_piece(self, piece: bytes, *, more: bool = True) -> None:
        await self._send({"type": "http.response.body", "body": piece, "more_body": more})

    async def _reset(self) -> None:
        raw: socket.socket = self._transport.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self._transport.abort()
        await self._gone()

    async def _close(self) -> None:
        self._transport.close()
        await self._gone()

    async def _gone(self) -> None:
        """Wait until uvicorn has seen the connection close, or uvicorn would answer 500."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


class _Protocol(H11Protocol):
    """Puts the connection into each request's scope: some answers close it."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "transport": transport}


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets)
        finally:
            self.listening.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # Idle and slow connections would delay the end.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)


def _config(app: Any) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Protocol,
        ws="none",
        loop="asyncio",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        server_header=False,
        date_header=False,  # the sandbox sends its own
        proxy_headers=False,
        timeout_keep_alive=_KEEP_ALIVE,
        backlog=2048,
    )


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # Naming TCP has asyncio set TCP_NODELAY. Without it an answer's body waits 40 ms behind its
    # head for a delayed ACK: 22 requests/s on one connection, instead of hundreds.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError:
        listener.close()
        raise
    return listener


async def _read(request: Request) -> bytes:
    """The body. Of a body that is too large, just enough for the 413."""
    pieces: list[bytes] = []
    size = 0
    async for piece in request.stream():
        if size <= LARGEST_BODY:
            pieces.append(piece)
            size += len(piece)
    return b"".join(pieces)
