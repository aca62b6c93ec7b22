"""One caller who waits for one export, and the shield around the POST that it may send."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from segments_async._exports.registry import POST_GRACE, SharedExport
from segments_async._pace.permits import Mailbox, Permit
from segments_async._pace.watch import RequestWatch
from segments_async._sansio.jobs.lifecycle import Event

T = TypeVar("T")


class CallFollower:
    """A single caller, as a party of a flight."""

    def __init__(self) -> None:
        self.own_mailbox: Mailbox | None = None
        self.shared: SharedExport | None = None

    @property
    def mailbox(self) -> Mailbox:
        if self.own_mailbox is None:
            raise AssertionError("no inbox before the wait")
        return self.own_mailbox

    async def record(self, shared: SharedExport, event: Event) -> None:
        """A single call keeps no journal."""

    async def unfinished(self, shared: SharedExport, now: float, *, answered: bool) -> None:
        """A single call's timeout is a cancel scope."""

    async def ended(self, shared: SharedExport) -> None:
        self.mailbox.deliver(shared)


async def shielded(permit: Permit, send: Callable[[], Awaitable[T]]) -> T:
    """Run `send` to its end even where the caller is cancelled, for at most `POST_GRACE` s more.

    A POST that is cut off on the wire may have been acted on, and its id would be lost. It goes in
    a task of its own, which asyncio's `Task.cancel()` of the caller doesn't reach.
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
                    # Not from inside the task group, which would wrap it in an ExceptionGroup.
                    raised.append(exc)
            tasks.cancel_scope.cancel()

        tasks.start_soon(bound_by_cancellation)
        tasks.start_soon(shielded)
    if raised:
        raise raised[0]
    return results[0]
