"""One caller that waits for one export, and the shield around the POST that it may send."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import anyio

from segments_async._requests.call_state import CallState
from segments_async._requests.export_requests import ExportRequests
from segments_async._requests.permits import Mailbox, Permit
from segments_async._requests.shared_export import Follower, SharedExport, last_setback
from segments_async._requests.watch import RequestWatch
from segments_async._sansio.jobs.lifecycle import Event
from segments_async.errors import ExportTimeoutError, NotSubmittedError, SegmentsError
from segments_async.models import Export

#: Seconds for which a POST on the wire goes on after its caller was cancelled. Its answer has the
#: export's id.
POST_GRACE = 1.0

T = TypeVar("T")


class CallFollower:
    """A single call, as a follower of an export.

    Attributes:
        mailbox: where the gate puts the permits.
        shared: the export that the call follows, or followed; None before it joined one.
    """

    def __init__(self, state: CallState, requests: ExportRequests) -> None:
        self._state = state
        self._requests = requests
        self.mailbox: Mailbox = Mailbox()
        self.shared: SharedExport | None = None

    async def record(self, shared: SharedExport, event: Event) -> None:
        """Advance the call's state. A single call has no journal to write to."""
        self._state.apply(shared, event)

    async def unfinished(self, shared: SharedExport, now: float, *, answered: bool) -> None:
        """Nothing to do: a cancel scope around the call ends it when its time is up."""

    async def ended(self, shared: SharedExport) -> None:
        self.mailbox.deliver(shared)

    async def wait(
        self,
        join: Callable[[Follower], SharedExport],
        until: Callable[[SharedExport], bool] = lambda shared: shared.ended,
    ) -> Export:
        """Join an export and wait, sending the requests that are granted to this call.

        Args:
            join: adds the follower to an export.
            until: when the wait is over; by default at the export's end.

        Raises:
            SegmentsError: why the export ended without a link.
        """
        requests = self._requests
        shared = self.shared = join(self)
        try:
            self._state.on_joined(shared)
            while not until(shared):
                item = await requests.gate.next(self.mailbox)
                if isinstance(item, Permit):
                    send = partial(requests.perform, item)
                    await (shielded(item, send) if shared.waits_for_submit else send())
        finally:
            requests.registry.unfollow(self, shared)
            requests.registry.release(self.mailbox)
        if shared.error is not None:
            raise shared.fresh_error()
        if shared.export is None:
            raise AssertionError("an export that ended well has an answer")
        return shared.export

    def timeout_error(self, timeout: float | None) -> SegmentsError:
        """The error of a call whose `timeout` is over before its export's end."""
        shared = self.shared
        if shared is None:
            raise AssertionError("an export is joined before anything is waited for")
        if shared.error is not None:
            return shared.fresh_error()  # the POST was answered within its grace
        segment_id, export = shared.segment_id, shared.export
        text = f"{segment_id or shared.export_id}: no end within {timeout:g} s"
        if shared.submitted == "no":
            text = f"{text}; nothing was submitted"
            return NotSubmittedError(text, segment_id=segment_id, export=export)
        text = f"{text}; the export goes on, wait_for_export() too{last_setback(shared)}"
        error = ExportTimeoutError(text, segment_id=segment_id, export=export)
        error.__cause__ = shared.setback
        return error


async def shielded(permit: Permit, send: Callable[[], Awaitable[T]]) -> T:
    """Run `send` to its end even where the caller is cancelled, for at most `POST_GRACE` s more.

    The vendor may act on a POST that is cut off on the wire, and the export's id would be lost. So
    the POST is sent in a task of its own: asyncio's `Task.cancel()` of the caller doesn't reach it.
    """
    results: list[T] = []
    raised: list[Exception] = []
    watch = RequestWatch()
    async with anyio.create_task_group() as tasks:
        watch.open(tasks)
        watch.add(permit)

        async def bound_by_cancellation() -> None:
            try:
                await anyio.sleep_forever()
            finally:
                permit.bound(anyio.current_time() + POST_GRACE)

        async def shielded() -> None:
            with anyio.CancelScope(shield=True):
                try:
                    results.append(await send())
                except Exception as exc:  # noqa: BLE001 - raised below, as itself
                    # Raised in here, it would leave the task group wrapped in an ExceptionGroup.
                    raised.append(exc)
            tasks.cancel_scope.cancel()

        tasks.start_soon(bound_by_cancellation)
        tasks.start_soon(shielded)
    if raised:
        raise raised[0]
    return results[0]
