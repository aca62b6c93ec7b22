"""A run with a journal, cancelled at any turn of the event loop, and then resumed."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest
import trio
from scratch import fast

from reliability.judge import duplicates, unaccounted
from reliability.world import Plan, World
from segments_async.sandbox import Durations, Fault, Sandbox
from segments_async.testing import VirtualClock, VirtualTimeLoop


class TurnsOfAsyncio(VirtualTimeLoop):
    """Calls `on_turn` before each turn of the loop, which is when it asks its selector."""

    def __init__(self, on_turn: Callable[[], object]) -> None:
        super().__init__()
        selector: Any = self.__dict__["_selector"]
        select = selector.select

        def counted(timeout: float | None = None) -> Any:
            events = select(timeout)
            on_turn()
            return events

        selector.select = counted


class StepsOfTrio(trio.abc.Instrument):
    """Calls `on_turn` before each step of each task."""

    def __init__(self, on_turn: Callable[[], object]) -> None:
        self._on_turn = on_turn

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._on_turn()


def backend(name: str, on_turn: Callable[[], object]) -> dict[str, Any]:
    if name == "asyncio":
        return {"loop_factory": partial(TurnsOfAsyncio, on_turn)}
    return {"clock": VirtualClock(), "instruments": [StepsOfTrio(on_turn)]}


def vendor(internal_errors: int) -> Sandbox:
    """A vendor with two segments, and one failure each of a submit, a poll and a file."""
    sandbox = Sandbox(segments=2, rows=40, latency=0.1, durations=Durations(1.2, 0.2))
    if internal_errors:
        sandbox.inject(Fault.status(500), method="GET", path="export/", times=internal_errors)
    sandbox.inject(Fault.status(429), method="POST")
    sandbox.inject(Fault.status(502), method="GET", path="export/")
    sandbox.inject(Fault.cut(2_000), origin="files")
    return sandbox


def cancelled_at(
    turn: int, name: str, directory: Path, internal_errors: int
) -> tuple[bool, list[str]]:
    """Cancel a run at a turn. Returns whether the run had that turn, and the complaints."""
    random.seed(turn)
    world = World(vendor(internal_errors), directory, disk=random.Random(turn))
    turns = 0

    def on_turn() -> None:
        nonlocal turns
        if world.caller is not None:
            turns += 1
            if turns == turn:
                world.caller.cancel()

    with world.told_the_time():
        for hook in (on_turn, lambda: None):
            options = backend(name, hook)
            session = partial(world.session, Plan(gap=5.0))
            anyio.run(session, backend=name, backend_options=options)
    found = [
        *world.complaints,
        *duplicates(world.sandbox.record),
        *unaccounted(world.sandbox, world.contents, world.outcomes, killed=False),
    ]
    if any(outcome.error is not None for outcome in world.outcomes):
        found.append(f"not everything was exported: {world.outcomes}")
    return turns >= turn, found


@pytest.mark.counted(every=61, of="turns")
@pytest.mark.parametrize("name", ["asyncio", "trio"])
@pytest.mark.parametrize("internal_errors", [0, 1], ids=["no 500", "a 500"])
def test_at_every_turn(name: str, internal_errors: int, every: int) -> None:
    """The next session exports everything, with one POST per segment and no unknown export.

    On asyncio before each turn of the event loop, on trio before each step of any task. A 500 that
    the client got is remembered, however soon the cancellation comes after it: the next session
    sends nothing for the rest of its minute.
    """
    turn = 1 - every
    came = True
    while came:
        turn += every
        with tempfile.TemporaryDirectory(dir=fast()) as directory:
            came, complaints = cancelled_at(turn, name, Path(directory), internal_errors)
        assert complaints == [], f"turn {turn}"
    assert turn > 100
