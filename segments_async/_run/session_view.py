"""What others see of a session: its progress, its history, and the exports under way."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Generic

import anyio
import attrs

from segments_async._files.places import Place
from segments_async._run.engine import Engine
from segments_async._run.outcomes import Outcomes
from segments_async._run.pace_watch import PaceWatch
from segments_async._run.recorder import Recorder
from segments_async._run.resources import Resources
from segments_async._sansio.jobs.eta import Running
from segments_async._sansio.jobs.history import RunHistory, Times
from segments_async.results import Activity, Held, NotExported, OutcomeT, Progress

#: Exports that are looked at to estimate the run's end.
_MOST_SAMPLES = 24


@attrs.define(eq=False, repr=False)
class SessionView(Generic[OutcomeT]):
    """What others see of a session.

    Args:
        place: of the run's files; None for a run without files.

    Attributes:
        pace: of the run over time.
    """

    _resources: Resources
    _recorder: Recorder
    _engine: Engine[OutcomeT]
    _outcomes: Outcomes[OutcomeT]
    _place: Place | None
    _ended_at: float = 0.0
    pace: PaceWatch = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self.pace = PaceWatch(self._resources.gate, self._recorder, self.held)

    def on_end(self) -> None:
        """The session has ended: the run's clock stops."""
        self._ended_at = anyio.current_time()

    @property
    def waiting(self) -> int:
        """How many segments wait to be submitted."""
        return self._places()["waiting"]

    def _places(self) -> Mapping[str, int]:
        return self._recorder.run_state.places(len(self._engine.jobs))

    async def whole(self) -> tuple[list[OutcomeT | NotExported], Progress]:
        """The outcomes of the whole run, and its progress, once it has ended."""
        return self._outcomes.told, self.progress()

    def progress(self) -> Progress:
        """How far the run is, now."""
        finished = self._outcomes.finished.is_set()
        now = self._ended_at if finished else anyio.current_time()
        run_state = self._recorder.run_state
        progress = self._engine.stats.progress(
            run_state,
            now=now,
            running=partial(self._running, now),
            oldest_link_age=self._engine.downloads.oldest_link_age,
            fetch_seconds=self._engine.downloads.seconds_each,
        )
        return progress if finished else attrs.evolve(progress, held=self.held())

    def history(self) -> RunHistory:
        """When the run's exports moved on, and its pace."""
        records = self._recorder.run_state.records
        return RunHistory(
            times={i: Times.of(records[i]) for i in self._engine.jobs if i in records},
            pace=self.pace.points,
            destination=None if self._place is None else self._place.location,
        )

    def held(self) -> Held | None:
        """What delays the run's requests or downloads by more than their turn."""
        return self._resources.held(
            self._places(), journal_away=self._recorder.away, place=self._place
        )

    def waits(self) -> tuple[Held | None, float | None]:
        """What holds the run, and the age of its oldest complete file that isn't in its place."""
        held = None if self._outcomes.finished.is_set() else self.held()
        return held, self._engine.downloads.oldest_link_age

    def activity(self, limit: int) -> list[Activity]:
        """At most `limit` exports under way, the one with the latest event first."""
        now, run_state = anyio.current_time(), self._recorder.run_state
        found: list[Activity] = []
        for segment_id in itertools.islice(run_state.latest(), limit):
            job, state = self._engine.jobs[segment_id], run_state.state(segment_id)
            shared, age = job.shared, 0.0
            if shared is not None and shared.export_id is not None:
                age = now - shared.submitted_at
            export_id = None if shared is None else shared.export_id
            found.append(Activity(segment_id, export_id, job.name, state.value, age, job.bytes))
        return found

    def _running(self, now: float) -> list[Running]:
        """Some of the exports that the vendor works on, evenly chosen by their last events."""
        active = self._recorder.run_state.active
        step = 1 + len(active) // _MOST_SAMPLES
        chosen = itertools.islice(active, 0, None, step)
        # If none was chosen, they are a few among many exports whose files are being fetched.
        return list(self._at_the_vendor(chosen, now)) or list(
            itertools.islice(self._at_the_vendor(active, now), _MOST_SAMPLES)
        )

    def _at_the_vendor(self, segment_ids: Iterable[str], now: float) -> Iterator[Running]:
        for segment_id in segment_ids:
            shared = self._engine.jobs[segment_id].shared
            if shared is not None and shared.running:
                yield Running(now - shared.submitted_at, shared.known_seconds())
