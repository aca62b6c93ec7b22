"""Sessions of one run, driven by Hypothesis, beside a model of them.

The model is a dictionary: the last outcome of each segment that the user got. The sessions run on
asyncio, whose loop can run for a time and then stand still, with the session in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import anyio
import hypothesis.strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from scratch import fast

from reliability.judge import Told, duplicates, may_have_acted, unaccounted
from reliability.world import Plan, World
from segments_async._sansio.jobs.decisions import MOST_RESUBMITS
from segments_async.sandbox import Durations, Fault, Sandbox, TokenBucket
from segments_async.testing import VirtualTimeLoop

SEGMENTS = 4
RESUBMIT = {"on_unknown": "resubmit", "on_expired": "resubmit", "retry_failed": 1}


class SteppedLoop(VirtualTimeLoop):
    """An event loop that runs for a time and then stands still. It has no threads."""

    def _busy(self) -> bool:
        return False


async def _cancel(scope: anyio.CancelScope) -> None:
    scope.cancel()


class Sessions(RuleBasedStateMachine):
    """The sessions of one run."""

    def __init__(self) -> None:
        super().__init__()
        self._directory = Path(tempfile.mkdtemp(prefix="sessions-", dir=fast()))
        self._sandbox = Sandbox(
            segments=SEGMENTS,
            rows=40,
            latency=0.1,
            durations=Durations(3.0, 0.7),
            limit=TokenBucket(5, 5),
        )
        self._world = World(self._sandbox, self._directory, disk=random.Random(0))
        self._patched = contextlib.ExitStack()
        self._patched.enter_context(self._world.told_the_time())
        self._loop = SteppedLoop()
        self._task: asyncio.Task[None] | None = None
        self._opted_in = False
        self._deleted = set[str]()
        #: The model: the last outcome of each segment, and the most POSTs that it may have had.
        self._told: dict[str, Told] = {}
        self._posts = Counter(dict.fromkeys(self._sandbox.segment_ids, 1))

    # ----------------------------------------------------------------- what happens

    @precondition(lambda self: self._task is None)
    @rule(opted_in=st.sampled_from([False, False, True]), gap=st.sampled_from([0.0, 100.0]))
    def start(self, opted_in: bool, gap: float) -> None:
        self._opted_in |= opted_in
        if opted_in:
            # Of each segment: one POST for an unknown export of before, and those of this session.
            self._posts.update(dict.fromkeys(self._sandbox.segment_ids, MOST_RESUBMITS + 3))
        plan = Plan(gap=gap, options=RESUBMIT if opted_in else {})
        self._world.outcomes = []
        self._task = self._loop.create_task(self._world.session(plan))

    @precondition(lambda self: self._task is not None)
    @rule(seconds=st.floats(0.0, 8.0))
    def progress(self, seconds: float) -> None:
        self._loop.run_until_complete(asyncio.sleep(seconds))
        self._settle()

    @precondition(lambda self: self._task is not None)
    @rule(how=st.sampled_from(["leave", "cancel", "kill"]))
    def end(self, how: str) -> None:
        world = self._world
        while world.caller is None and self._task is not None:  # it hasn't begun, or has ended
            self.progress(1.0)
        if how == "kill":
            world.life.die()
        scope = (world.loop if how == "leave" else None) or world.caller
        if scope is not None:
            self._loop.run_until_complete(_cancel(scope))
        self._wait()

    @rule(count=st.integers(1, 5))
    def throttle(self, count: int) -> None:
        self._sandbox.inject(Fault.status(429), times=count)

    @rule(
        method=st.sampled_from(["POST", "GET"]),
        fault=st.sampled_from(
            [
                Fault.LOST_BEFORE,
                Fault.LOST_AFTER,
                Fault.UNREACHABLE,
                Fault.status(500),
                Fault.status(504, acts=True),
                Fault.cut(20),
                Fault.slow(40.0),
            ]
        ),
    )
    def lose(self, method: str, fault: Fault) -> None:
        self._sandbox.inject(fault, method=method)

    @rule(size=st.integers(0, 4_000))
    def cut_a_file(self, size: int) -> None:
        self._sandbox.inject(Fault.cut(size), origin="files")

    @precondition(lambda self: self._task is None)
    @rule(data=st.data())
    def delete_a_file(self, data: st.DataObject) -> None:
        files = sorted(self._world.directory.glob("*.csv"))
        if files:
            path = data.draw(st.sampled_from(files))
            path.unlink()
            gone = [s for s, t in self._told.items() if t.file == str(path)]
            for segment_id in gone:  # or its file was fetched, and the outcome not yet read
                del self._told[segment_id]
            # A finished run exports nothing again, and says so.
            self._deleted.update(s for s in self._sandbox.segment_ids if s in path.name)

    # ----------------------------------------------------------------- what holds

    @invariant()
    def nothing_is_asked_for_twice(self) -> None:
        if not self._opted_in:
            assert duplicates(self._sandbox.record) == []
        posts = Counter(e.segment_id for e in self._sandbox.record.submits() if may_have_acted(e))
        assert [s for s, count in posts.items() if count > self._posts[s or ""]] == []

    @invariant()
    def the_judge_has_no_complaints(self) -> None:
        assert self._world.complaints == [], self._world.complaints
        assert self._world.error is None, self._world.error

    def _settle(self) -> None:
        """Compare the outcomes with the model."""
        for outcome in self._world.outcomes:
            before = self._told.get(outcome.segment_id)
            if before is not None and before.error is None:
                assert outcome.error is None, (before, outcome)
                assert outcome.sha256 == before.sha256
            if before is not None and before.error == "SubmitUnknownError" and not self._opted_in:
                assert outcome.error == before.error, (before, outcome)
            self._told[outcome.segment_id] = outcome
        if self._task is not None and self._task.done():
            task, self._task = self._task, None
            task.result()

    def _wait(self) -> None:
        if self._task is not None:
            self._loop.run_until_complete(asyncio.wait([self._task]))
            self._settle()

    def teardown(self) -> None:
        """A last session without faults has the outcomes of all segments."""
        try:
            if self._task is not None:
                self.end("leave")
            self._sandbox.clear_faults()
            self.start(opted_in=False, gap=1.0)
            self._wait()
            world = self._world
            assert world.complaints == [], world.complaints
            found: list[Any] = unaccounted(
                self._sandbox,
                world.contents,
                world.outcomes,
                killed=world.killed,
                deleted=self._deleted,
            )
            assert found == [], found
        finally:
            if self._task is not None:  # an assertion failed above
                self._task.cancel()
                self._loop.run_until_complete(asyncio.wait([self._task]))
            self._patched.close()
            self._loop.close()
            shutil.rmtree(self._directory)
