"""The progress of one request: whether its first byte was sent, and which answer came.

A POST that may have left this process is never repeated, and one that provably did not leave is
never called unknown. httpcore's trace extension reports each step of a request; transports without
it report nothing, and then a request counts as sent once the transport has it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any, Protocol

import anyio
import attrs

from segments_async._http.clients import Clients
from segments_async._http.errors import carries_response, was_sent, was_unprocessed
from segments_async._http.responses import response_headers
from segments_async._sansio.api.content_coding import codings
from segments_async._sansio.api.json_values import is_whole
from segments_async._sansio.api.wire import ApiAnswer
from segments_async.errors import DecodeError


class Permit(Protocol):
    """The gate's permission for one request: its time, and whether it may have left."""

    #: Whether the request may have left this process.
    may_have_left: bool

    def scope(self, deadline: float, *, shield: bool) -> anyio.CancelScope: ...
    def put_off(self, deadline: float) -> None: ...


class PoolQueue:
    """Requests that wait for a connection of the pool of a caller's client.

    Args:
        clients: the clients that send the requests. Requests of the library's own never wait.
        timeout: seconds for a request, once it has a connection.
    """

    def __init__(self, clients: Clients, timeout: float) -> None:
        self._clients = clients
        self._has_traced = False
        self._timeout = timeout
        self._waiting: dict[Permit, None] = {}

    def __contains__(self, permit: Permit) -> bool:
        return permit in self._waiting

    @property
    def traces(self) -> bool:
        """Whether the clients' transport reports how far a request is, as httpcore's does."""
        return self._has_traced or self._clients.own

    def add(self, permit: Permit) -> None:
        if not self._clients.own:
            self._waiting[permit] = None

    def remove(self, permit: Permit) -> None:
        self._waiting.pop(permit, None)

    def on_connection(self, permit: Permit) -> None:
        """A request has a connection, or opens one: its time begins.

        The other requests get more time to wait, since the pool hands out connections.
        """
        self._has_traced = True
        self.remove(permit)
        until = anyio.current_time() + self._timeout
        for one in (permit, *self._waiting):
            one.put_off(until)


@attrs.define(eq=False)
class RequestProgress:
    """The progress of one request, and its answer.

    Attributes:
        traced: whether httpcore is asked to report this request's steps.
        hooked: whether the caller's hooks run between httpx and its transport.
        answer: the answer that a response hook of ours has read.
        stream_id: HTTP/2's, if the request has one.
        parts: the answer's body as far as it has come.
    """

    _permit: Permit
    _queue: PoolQueue
    traced: bool
    hooked: bool = False
    answer: ApiAnswer | None = None
    stream_id: int | None = None
    # Not in the repr, which tracebacks may show: the body of a COMPLETE export has its link.
    parts: list[bytes] = attrs.field(factory=list[bytes], repr=False)
    _handed_over: bool = False
    #: None: no step was reported, as by transports other than httpcore's.
    _sent: bool | None = None
    _sends: int = 0
    _head: tuple[int, Mapping[str, str]] | None = None

    @property
    def may_have_left(self) -> bool:
        """Whether the request's first byte may have been sent."""
        if not self._handed_over or self._sent is not None:
            return bool(self._sent)
        # A transport that reports its steps has reported none: the request is in the pool's queue.
        return not (self.traced and self._queue.traces)

    @property
    def is_queued(self) -> bool:
        return self._handed_over and self._sent is None and not self.may_have_left

    def on_auth(self, outgoing: Any) -> Any:
        """Note that httpx has the request; it calls this for credentials, before the request hooks.

        (With `auth=None` httpx would look for credentials in the URL.)
        """
        if not self.hooked:
            self.on_handed_over()
        return outgoing

    def on_handed_over(self) -> None:
        """The request is about to be handed to the transport."""
        self._handed_over = True
        if self.traced:
            self._queue.add(self._permit)

    async def trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Called by httpcore at each step. A tunnel's CONNECT is reported like the request."""
        if event.endswith(".started"):
            if self._permit in self._queue:
                self._queue.on_connection(self._permit)
            sending = event.endswith("send_request_headers.started")
            if sending and getattr(info.get("request"), "method", b"") != b"CONNECT":
                self._sent = True
                self._sends += 1
                self.stream_id = info.get("stream_id")
            else:
                self.on_unsent()
        elif self._sent and event.endswith("receive_response_headers.complete"):
            self._on_traced_head(info.get("return_value"))

    def _on_traced_head(self, head: Any) -> None:
        """HTTP/1.1 reports (version, status, reason, headers), HTTP/2 (status, headers)."""
        with contextlib.suppress(TypeError, ValueError, IndexError, AttributeError):
            status = head[-3] if len(head) == 4 else head[0]
            if status >= 300:
                self.on_head(status, response_headers(head[-1]))

    def on_unsent(self) -> None:
        """The request is connecting, or failed to; an earlier try of httpcore may have left."""
        if self._sent is None:
            self._sent = False

    def on_failed(self, exc: Exception) -> bool:
        """The request failed. Returns whether the transport failed, not the caller's own code."""
        sent = was_sent(exc)
        if sent is False:
            self.on_unsent()
        if self._sends == 1 and was_unprocessed(exc, self.stream_id):
            self._sent = False
        return sent is not None or self._sent is False

    def on_head(self, status: int, headers: Mapping[str, str]) -> None:
        """An answer begins. A caller's client that tries again has several."""
        self._head = status, headers
        self.parts.clear()

    def on_end(self) -> None:
        self._queue.remove(self._permit)
        self._permit.may_have_left = self.may_have_left

    def answer_despite(self, exc: Exception | None) -> ApiAnswer | None:
        """The answer, if one is known although httpx raised or the request's time ended.

        That is an answer which our hook read before the caller's hook raised. Or an answer whose
        body did not come, and whose status is no success: its status is enough to act upon, and
        its body would only be an excerpt in an error. Or an answer with success of which nothing
        but the end is missing: a last chunk, or bytes that a false Content-Length announced.
        """
        if self.answer is not None:
            if exc is None or carries_response(exc):
                return self.answer
            return attrs.evolve(self.answer, raised=exc)
        if self._head is None:
            return None
        status, headers = self._head
        body = b"".join(self.parts) if status < 300 else b""
        if status < 300 and (codings(headers.get("content-encoding")) or not is_whole(body)):
            return None
        of_the_caller = exc if exc is not None and _is_callers(exc) else None
        return ApiAnswer(status, headers, body, anyio.current_time(), of_the_caller)


def _is_callers(exc: Exception) -> bool:
    """Whether the error is one of a caller's hook, and neither ours nor httpx's."""
    ours = isinstance(exc, DecodeError) or was_sent(exc) is not None or carries_response(exc)
    return not ours
