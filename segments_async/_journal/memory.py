"""A journal that lasts as long as the process."""

from __future__ import annotations

from collections import Counter

from segments_async._sansio.lifecycle import Event, State, advance


class MemoryJournal:
    """Where each export of one run stands, and how many stand where."""

    def __init__(self) -> None:
        self._states: dict[str, State] = {}
        self._counts: Counter[State] = Counter()

    def open(self, segment_id: str) -> None:
        """A segment of the run, of which nothing is known."""
        self._states[segment_id] = State.NEW
        self._counts[State.NEW] += 1

    async def record(self, segment_id: str, event: Event) -> None:
        """Keep the event; IllegalTransition where it can't happen, and then nothing changes."""
        before = self._states[segment_id]
        after = advance(before, event)
        self._states[segment_id] = after
        self._counts[before] -= 1
        self._counts[after] += 1

    def state(self, segment_id: str) -> State:
        return self._states[segment_id]

    def count(self, *states: State) -> int:
        """How many of the run's exports are in one of these states."""
        return sum(self._counts[state] for state in states)
