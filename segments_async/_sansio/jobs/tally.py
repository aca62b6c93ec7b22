"""Where each export of one run stands, and how many stand where."""

from __future__ import annotations

from collections import Counter

from segments_async._sansio.jobs.lifecycle import Event, State, advance


class Tally:
    """The states of a run's exports, by segment id, and their counts."""

    def __init__(self) -> None:
        self._states: dict[str, State] = {}
        self._counts: Counter[State] = Counter()

    def open(self, segment_id: str, state: State = State.NEW) -> None:
        """A segment of the run, of which nothing more is known than its state."""
        self._states[segment_id] = state
        self._counts[state] += 1

    def record(self, segment_id: str, event: Event) -> State:
        """The state after the event; IllegalTransition where it can't happen, changing nothing."""
        after = advance(self._states[segment_id], event)
        self.move(segment_id, after)
        return after

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
