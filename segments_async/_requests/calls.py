"""Single requests that change nothing at the vendor: sent again where that may help."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread

from segments_async._requests.gate import Gate
from segments_async._requests.permits import Mailbox, Permit, Target
from segments_async._sansio.api.wire import NOT_NOW, ApiAnswer, ApiRequest
from segments_async._sansio.pace.backoff import RetryQuota, full_jitter
from segments_async._sansio.pace.scheduler import Kind, QueuedRequest
from segments_async.errors import APIConnectionError, APIStatusError, APITimeoutError, ServerError

#: How often one call is sent at most, unless its caller gave it a time.
ATTEMPTS = 5

#: Bytes of JSON above which decoding would hold the event loop for longer than a few milliseconds.
DECODE_IN_THREAD = 256 * 1024

T = TypeVar("T")


class Calls:
    """The single calls of one client."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._quota = RetryQuota()

    async def call(
        self,
        request: ApiRequest,
        read: Callable[[ApiRequest, ApiAnswer], T],
        *,
        timeout: float | None = None,
    ) -> T:
        """Send a request and read its answer.

        Args:
            request: one that may be repeated.
            read: makes a value of the answer, or raises.
            timeout: seconds for all attempts and for the waits before them; None for no limit.

        Raises:
            APITimeoutError: no answer came within `timeout`.
            APIError: the last attempt failed, or another attempt would not help.
        """
        permits: list[Permit] = []
        with anyio.move_on_after(timeout):
            return await self._call(request, read, permits, patient=timeout is not None)
        seconds = timeout or 0.0
        raise APITimeoutError(
            f"{request.method} {request.path}: no answer within {seconds:g} s, the wait for its "
            "turn included; the client's `held` says why requests wait",
            method=request.method,
            path=request.path,
            sent=any(permit.may_have_left for permit in permits),
            seconds=seconds,
        )

    async def _call(
        self,
        request: ApiRequest,
        read: Callable[[ApiRequest, ApiAnswer], T],
        permits: list[Permit],
        *,
        patient: bool,
    ) -> T:
        after = -math.inf
        attempt = 0
        while True:
            try:
                permit = await self._permit(after)
                permits.append(permit)
                answer = await self._gate.send(permit, request)
                if len(answer.body) > DECODE_IN_THREAD:
                    return await _read_in_thread(read, request, answer)
                value = read(request, answer)
            except (APIConnectionError, APIStatusError) as exc:
                if not self._worth_another(exc, attempt, patient=patient):
                    raise
                after = anyio.current_time() + _pause(exc, attempt)
                attempt += 1
            else:
                self._quota.on_success()
                return value

    async def _permit(self, after: float) -> Permit:
        """Wait for the turn of one request, at `after` seconds at the earliest."""
        mailbox = Mailbox()
        queued = QueuedRequest[Target](Kind.CALL, mailbox, max(after, anyio.current_time()))
        self._gate.add(queued)
        try:
            permit: Permit = await self._gate.next(mailbox)
        finally:
            self._gate.cancel(queued)
            for unspent in mailbox.items:
                self._gate.release(unspent)
        return permit

    def _worth_another(
        self, exc: APIConnectionError | APIStatusError, attempt: int, *, patient: bool
    ) -> bool:
        """Whether to send the request again.

        `patient`: the caller's timeout bounds the attempts, and not their number.
        """
        if attempt + 1 >= ATTEMPTS and not patient:
            return False
        if isinstance(exc, APIStatusError) and exc.status_code in NOT_NOW:
            return True  # all four say "not now"; after a 429 the pacer decides when
        if isinstance(exc, APIStatusError) and exc.status_code == 500 and attempt:
            return False  # each 500 raises a ticket: one more request after the guard's pause
        passing = isinstance(exc, APIConnectionError | ServerError)
        return passing and (patient or self._quota.take())


async def _read_in_thread(
    read: Callable[[ApiRequest, ApiAnswer], T], request: ApiRequest, answer: ApiAnswer
) -> T:
    try:
        return await anyio.to_thread.run_sync(read, request, answer)
    except RuntimeError:  # no thread can be started; an error of `read` itself comes again
        return read(request, answer)


def _pause(exc: APIConnectionError | APIStatusError, attempt: int) -> float:
    """Seconds to wait before this call is sent again.

    0 after a 429: the pacer delays every request then.
    """
    if isinstance(exc, APIStatusError):
        if exc.status_code == 429:
            return 0.0
        if exc.retry_after is not None:
            return exc.retry_after
    return full_jitter(attempt, random.random())
