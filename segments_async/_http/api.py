"""One request of the API, its whole answer, and its errors.

Everything that can fail without a request is done before one: `Clients.prepare` makes clients and
reads the environment. From there on `RequestProgress` knows whether a request may have left.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import sys
from collections.abc import Mapping
from typing import Any, NoReturn, cast

import anyio

from segments_async._http.clients import Clients, HttpClient
from segments_async._http.errors import carries_response, described, forget_request
from segments_async._http.redaction import redact_logs
from segments_async._http.request_progress import Permit, PoolQueue, RequestProgress
from segments_async._http.responses import (
    RereadableResponse,
    Response,
    close,
    read_body,
    response_headers,
    unbind,
)
from segments_async._sansio.api.content_coding import codings_of, decoded
from segments_async._sansio.api.credentials import EchoedSecrets, Origin, Secret
from segments_async._sansio.api.deprecation import deprecation_notice
from segments_async._sansio.api.wire import FIXED_PATHS, SHOWN_HEADERS, ApiAnswer, ApiRequest
from segments_async.errors import APIConnectionError, DecodeError, printable

logger: logging.Logger = logging.getLogger("segments_async")

#: Different notices of a deprecation that one client warns of.
MOST_NOTICES = 5

#: Requests that are sent at once. 32 slots cap answers of 0.57 s at 56/s; 64 carry 100/s, and 128
#: doubled the 429s after a cut of the limit (docs/decisions.md). No request waits inside httpx.
SLOTS = 64


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
        self._echoed = EchoedSecrets(authorization)
        self.timeout: float = timeout
        host = f"[{origin.host}]" if ":" in origin.host else origin.host
        #: The address of the API, without credentials.
        self.place: str = f"{origin.scheme}://{host}:{origin.port}{origin.prefix}"
        # Parsing a URL is a tenth of what httpx costs, and every POST's and list's is the same.
        self._urls: dict[str, Any] = {}
        # Credentials are set per request and never on a client: this class builds each URL from
        # the origin, and follows no redirect, so there is nowhere else for them to go.
        headers = {
            # A small compressed body may expand to gigabytes; these bodies are small uncompressed.
            "Accept-Encoding": "identity",
            "Authorization": authorization.reveal(),
        }
        from httpx import Headers  # not at the top: see `client_maker`

        # httpx takes its own class as it is, and encodes any other mapping anew each time.
        self._headers = Headers(headers)
        self._post_headers = Headers({**headers, "Content-Type": "application/json"})
        # The form in which httpx gives a Timeout to transports: httpx would convert it for each
        # request. Only connecting has a timeout. Once a request is sent, its permit's scope alone
        # ends it: httpx's timers take a standstill of this process for a silent server.
        timeouts = {"connect": timeout, "read": None, "write": None, "pool": None}
        self._timeouts: Mapping[str, float | None] = timeouts
        # Until a caller's client has reported a first step, waiting for its pool can't be told from
        # waiting for an answer. httpx's PoolTimeout tells them apart. It comes well before the
        # permit's scope ends, since the event loop of a busy machine may stand still for seconds.
        self._first_timeouts: Mapping[str, float | None] = {**timeouts, "pool": 0.5 * timeout}
        self._queue = PoolQueue(clients, timeout)
        self._notices: set[str] = set()

    def prepare(self) -> None:
        """See `Clients.prepare`."""
        self._clients.prepare()

    async def send(self, request: ApiRequest, permit: Permit) -> ApiAnswer:
        """Send the request once, in the permit's scope.

        `permit.may_have_left` is right however this ends. `timeout` begins with connecting, or with
        the request's first byte; waiting for a connection of a caller's pool comes before. A
        request waits for as long as others of ours get connections there. If none has got one for
        `timeout` seconds, the request ends as not sent.

        An answer at which a caller's response hook raised is returned, with the hook's error in
        `ApiAnswer.raised`.

        Raises:
            APIConnectionError: no whole answer came; `sent` says whether the request may have
                arrived.
            DecodeError: the answer was larger than `request.cap` bytes, or compressed unasked.
        """
        post = request.body is not None
        handled = sys.exception()
        permit.may_have_left = False
        client = self._clients.borrow()
        progress = RequestProgress(permit, self._queue, traced=post or not self._clients.own)
        try:
            with permit.scope(anyio.current_time() + self.timeout, shield=post):
                return await self._exchange(client, request, progress)
        except Exception as exc:
            answer = progress.answer_despite(exc)
            if answer is None and carries_response(exc):
                answer = await self._carried(request, exc, progress)
            if answer is not None:
                return answer
            if not progress.on_failed(exc):
                raise  # an error of the caller's hook, transport or client passes as it is
            forget_request(exc, handled)
            raise _broken(request, described(exc), progress) from exc
        except BaseException as exc:  # a cancellation, or Ctrl-C
            # In a frame of the exception, h11 may be writing the Authorization header.
            forget_request(exc, handled)
            raise
        finally:
            progress.on_end()
            self._clients.give_back(client)
        if (answer := progress.answer_despite(None)) is not None:
            return answer
        what = f"no answer within {self.timeout:g} s"
        if progress.is_queued:
            what = f"no connection of the http_client's pool was free for {self.timeout:g} s"
        raise _broken(request, what, progress)

    async def _exchange(
        self, client: HttpClient, request: ApiRequest, progress: RequestProgress
    ) -> ApiAnswer:
        post = request.body is not None
        timeouts = self._timeouts if self._queue.traces else self._first_timeouts
        outgoing = client.build_request(
            request.method,
            self._urls.get(request.path) or self.place + request.path,
            headers=self._post_headers if post else self._headers,
            content=request.body,
            # Of our own clients' requests only a POST needs to know whether it went out; for the
            # rest the trace costs processor time and brings nothing.
            extensions=(
                {"timeout": timeouts, "trace": progress.trace}
                if progress.traced
                else {"timeout": timeouts}
            ),
        )
        if request.path in FIXED_PATHS and request.path not in self._urls:
            self._urls[request.path] = outgoing.url
        if not self._clients.own:
            if not _sends_as_httpx(client):
                # Such a client's `send` may do anything: from now on, the request may have left.
                progress.on_handed_over()
            client = self._with_our_hooks(client, request, progress)
        with redact_logs(self.place + request.path):
            response: Response = await client.send(
                outgoing, stream=True, auth=progress.on_auth, follow_redirects=False
            )
        try:
            with redact_logs(self.place + request.path):
                answer = progress.answer or await self._answer(request, response, progress)
        except BaseException:
            # After a whole body httpx has closed the response itself.
            await close(response)
            raise
        if progress.answer is not None:
            await close(response)  # a caller's hooks may have left it open
        else:
            unbind(response)
        return answer

    def _with_our_hooks(
        self, client: HttpClient, request: ApiRequest, progress: RequestProgress
    ) -> HttpClient:
        """The caller's client; if it has hooks, a copy of it with ours around them.

        A caller's hook may raise. After the last request hook, the request goes out; before the
        first response hook, the answer is read. The copy shares all but the lists of hooks, so the
        caller's client isn't changed.
        """
        hooks: Mapping[str, list[Any]] = getattr(client, "event_hooks", None) or {}
        before, after = hooks.get("request") or [], hooks.get("response") or []
        if not before and not after:
            return client

        async def on_request(_: Any) -> None:
            progress.on_handed_over()

        async def on_response(response: Any) -> None:
            rereadable = RereadableResponse(response)
            progress.answer = await self._answer(request, rereadable, progress)
            await rereadable.put_back()

        copied: Any = copy.copy(client)
        copied.event_hooks = {"request": [*before, on_request], "response": [on_response, *after]}
        progress.hooked = True
        return cast(HttpClient, copied)

    async def _answer(
        self, request: ApiRequest, response: Response, progress: RequestProgress
    ) -> ApiAnswer:
        headers = response_headers(response.headers.raw)
        for name in SHOWN_HEADERS & headers.keys():
            headers[name] = self._echoed.removed_from(headers[name])
        progress.on_head(response.status_code, headers)
        if "deprecation" in headers or "sunset" in headers:
            self._warn_of_deprecation(request, headers)
        body = await read_body(response, request.cap, progress.parts)
        if body is None:
            _raise_undecodable(request, f"an answer of more than {request.cap} bytes")
        if names := codings_of(headers.get("content-encoding"), body):
            body = decoded(body, names, request.cap)
            if body is None:
                what = f"an answer in a coding that was not asked for ({', '.join(names)})"
                _raise_undecodable(request, what)
        if response.status_code != 200:
            # Error pages often repeat the request, and errors keep an excerpt of them.
            body = self._echoed.removed_from_bytes(body)
        return ApiAnswer(response.status_code, headers, body, anyio.current_time())

    def _warn_of_deprecation(self, request: ApiRequest, headers: Mapping[str, str]) -> None:
        """Warn once for each notice, which comes with every answer; of the first few notices."""
        notice = deprecation_notice(headers)
        if notice and notice not in self._notices and len(self._notices) < MOST_NOTICES:
            self._notices.add(notice)
            logger.warning(
                "the vendor says that %s %s %s: see the vendor's documentation, and look for a "
                "newer version of this library",
                request.method,
                request.path,
                printable(self._echoed.removed_from(notice)),
            )

    async def _carried(
        self, request: ApiRequest, exc: Exception, progress: RequestProgress
    ) -> ApiAnswer | None:
        """The answer in an HTTPStatusError of a caller's client, with the body if it was read."""
        response: Any = getattr(exc, "response", None)
        answer: ApiAnswer | None = None
        with contextlib.suppress(Exception), anyio.move_on_after(0):
            # Without waiting: the body was read, or the response is closed by now.
            answer = await self._answer(request, response, progress)
        return answer or progress.answer_despite(exc)


def _sends_as_httpx(client: HttpClient) -> bool:
    """Whether the client's `send` is httpx's, which hands a request over after `auth` is called.

    A wrapper's or a patched `send` may do anything before and after.
    """
    return str(getattr(type(client).send, "__module__", "")).startswith("httpx")


def _raise_undecodable(request: ApiRequest, what: str) -> NoReturn:
    raise DecodeError(
        f"{request.method} {request.path}: {what}",
        method=request.method,
        path=request.path,
        where="$",
    )


def _broken(request: ApiRequest, what: str, progress: RequestProgress) -> APIConnectionError:
    return APIConnectionError(
        f"{request.method} {request.path}: {what}",
        method=request.method,
        path=request.path,
        sent=progress.may_have_left,
    )
