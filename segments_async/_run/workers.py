"""The tasks that send a run's requests: as many as were ever needed at once, used again and again.

A task for each request would cost more processor time than all decisions about that request. A
permit goes straight to an idle worker, whichever caller leads the gate; the run's own task isn't
woken.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from anyio.abc import TaskGroup

from segments_async._requests.permits import Mailbox, Permit


class WorkerPool(Mailbox):
    """A run's mailbox: workers use the permits; any other item wakes the task that waits here."""

    def __init__(self, perform: Callable[[Permit], Awaitable[None]]) -> None:
        super().__init__()
        self._perform = perform
        self._idle: list[Mailbox] = []
        self._tasks: TaskGroup | None = None

    def open(self, tasks: TaskGroup) -> None:
        """Have workers in this task group use the permits from now on."""
        self._tasks = tasks

    def close(self) -> None:
        """Start no more work, and end the idle workers. Permits gather in `items` again."""
        self._tasks = None
        while self._idle:
            self._idle.pop().wake()

    def deliver(self, item: object, /) -> None:
        """Called by the gate's leader, in whatever task that is."""
        if self._tasks is None or not isinstance(item, Permit):
            super().deliver(item)
        elif self._idle:
            self._idle.pop().deliver(item)
        else:
            self._tasks.start_soon(self._work, item)

    async def _work(self, first: Permit) -> None:
        await self._perform(first)
        mailbox = Mailbox()
        try:
            while self._tasks is not None:
                self._idle.append(mailbox)
                await mailbox.wait()
                while mailbox.items:
                    await self._perform(mailbox.items.popleft())
        finally:
            if mailbox in self._idle:
                # Cancelled while idle: a permit that came now would wait here for ever.
                self._idle.remove(mailbox)
            # Cancelled with a permit in its mailbox: the run releases what is in `items`.
            self.items.extend(mailbox.items)
