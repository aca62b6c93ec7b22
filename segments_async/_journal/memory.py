"""A journal that lasts as long as the process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from segments_async._sansio.lifecycle import Event, State, advance


class MemoryJournal:
    """Where each export of one run stands, and how many stand where."""

    def __init__(self) -> None:
        self._states: dict[str, State] = {}
        self._counts: Counter[State] = Counter()

    def open(self, segment_id: str, state: State = State.NEW) -> None:
        """A segment of the run, of which nothing more is known than its state."""
        self._states[segment_id] = state
        self._counts[state] += 1

    async def record(
        self,
        segment_id: str,
        event: Event,
        facts: Mapping[str, Any] | None = None,  # noqa: ARG002 - RunLog.record's, which keeps them
    ) -> None:
        """Keep the event; IllegalTransition where it can't happen, and then nothing changes."""
        self.move(segment_id, advance(self._states[segment_id], event))

    def move(self, segment_id: str, state: State) -> None:
        """The export stands elsewhere now."""
        self._counts[self._states[segment_id]] -= 1
        self._counts[state] += 1
        self._states[segment_id] = state

    def state(self, segment_id: str) -> State:
        return self._states[segment_id]

    def count(self, *states: State) -> int:
        """How many of the run's exports are in one of these states."""
        return sum(self._counts[state] for state in states)
