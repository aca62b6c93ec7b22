"""Ends requests whose time is over, and ends none because this process stood still meanwhile.

A cancel scope's deadline goes by the clock alone. In a process that was stopped for a minute, it
ends requests whose answers are in their sockets already; see `_sansio/pace/standstill.py`.
"""

from __future__ import annotations

import math

import anyio
from anyio.abc import TaskGroup

from segments_async._requests.permits import Permit
from segments_async._sansio.pace.standstill import Standstill


class RequestWatch:
    """Watches the requests of one run, or of one caller, while any are on the wire.

    One task watches all of them: a timer for each request costs twice as much as one request's
    other decisions.
    """

    def __init__(self) -> None:
        self._permits: dict[Permit, None] = {}
        self._tasks: TaskGroup | None = None
        self._scope: anyio.CancelScope | None = None
        self._alarm = anyio.CancelScope()
        self._look_at = math.inf

    def open(self, tasks: TaskGroup) -> None:
        """Watch in this task group from now on."""
        self._tasks = tasks

    def add(self, permit: Permit) -> None:
        """Watch the permit's request from its first byte on."""
        if self._tasks is None:
            return  # the deadline of its cancel scope ends the request
        permit.watched_by(self)
        self._permits[permit] = None
        if self._scope is None:
            self._scope = anyio.CancelScope()
            self._tasks.start_soon(self._watch, self._scope)

    def on_due(self, due: float, /) -> None:
        """Look again at `due`, when the time of a request on the wire is over."""
        if due < self._look_at:
            self._alarm.cancel()

    def discard(self, permit: Permit) -> None:
        """Watch the permit's request no more: the request has ended."""
        self._permits.pop(permit, None)

    def close(self) -> None:
        """Stop watching. Requests that are still on the wire end by their scopes' deadlines."""
        self._tasks = None
        for permit in self._permits:
            permit.watched_by(None)
        self._permits.clear()
        if self._scope is not None:
            self._scope.cancel()

    async def _watch(self, scope: anyio.CancelScope) -> None:
        clock = Standstill(anyio.current_time())
        try:
            with scope:
                while self._permits:
                    await self._sleep(clock)
                    now = anyio.current_time()
                    for permit in self._permits:
                        if clock.is_over(permit.due, now):
                            permit.end()
        finally:
            self._scope = None

    async def _sleep(self, clock: Standstill) -> None:
        now = anyio.current_time()
        seconds = clock.plan(now, min(permit.due for permit in self._permits))
        self._look_at = now + seconds
        with anyio.CancelScope() as self._alarm:
            await anyio.sleep(seconds)
        self._look_at = -math.inf
        clock.on_look(anyio.current_time())
