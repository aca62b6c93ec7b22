"""Runs the real command `segments-async` in virtual time, for `terminal.py`.

    python command_in_virtual_time.py SCENE

The command is the installed one: its arguments, its output, its terminal. In place of the vendor an
in-process sandbox answers, and time is virtual, the wall clock's too. So every run is the same, to
the second. A scene that shows a moment of a run ends the process at that moment, so that its
terminal stays as it was.
"""

from __future__ import annotations

import contextlib
import os
import random
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest import mock

import anyio
import attrs
import time_machine

from segments_async.cli import main
from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY, Durations, FileHost, TokenBucket
from segments_async.testing import SegmentsSandbox
from segments_async.testing.loop import VirtualTimeLoop

#: When the first command of a scene begins.
NIGHT = datetime(2026, 11, 23, 2, 0, 0, tzinfo=UTC)

Prepare = Callable[[SegmentsSandbox], None]

#: How long exports take: long enough to be seen under way.
DURATIONS = Durations(median=14.0, sigma=0.7, longest=45.0)


@attrs.frozen
class Command:
    """One command of a scene.

    Attributes:
        arguments: of `segments-async`.
        prepare: is called with the account before the command.
        night: the command begins so many nights after NIGHT; None: after the command before it.
        seconds: after so many seconds the process ends; None: with the command.
    """

    arguments: tuple[str, ...]
    prepare: Prepare | None = None
    night: int | None = None
    seconds: float | None = None


@attrs.frozen
class Scene:
    """Commands in one directory and one account. What the last one prints is drawn."""

    commands: tuple[Command, ...]
    segments: int = 12
    seed: int = 0
    durations: Durations = DURATIONS
    rate: float = 4.0
    file_rate: float | None = 150_000.0


EXPORT = ("export", "--all", "--to", "exports")


def _goes_wrong(account: SegmentsSandbox) -> None:
    """One export fails at the vendor, and the answer to one request is lost."""
    account.fail(account.segment_ids[3])
    account.lose_answer("submit", segment=account.segment_ids[5])


def _is_internal_error(account: SegmentsSandbox) -> None:
    """The fifth segment's request is answered 500."""
    account.internal_error("submit", segment=account.segment_ids[4])


SCENES = {
    "cli-help": Scene((Command(("--help",)),)),
    "cli-list": Scene((Command(("list",)),), segments=8),
    "cli-export": Scene((Command(EXPORT, seconds=25.1),), segments=30, seed=5, file_rate=150_000.0),
    "cli-summary-with-failures": Scene((Command(EXPORT, prepare=_goes_wrong),), segments=8),
    "cli-held": Scene((Command(EXPORT, prepare=_is_internal_error, seconds=24.1),)),
    "cli-runs": Scene(
        (
            Command(EXPORT),
            Command((*EXPORT, "--only-changed"), night=1),
            Command((*EXPORT, "--timeout", "20"), _goes_wrong, night=2),
            Command(("runs", "--to", "exports")),
        ),
    ),
}


class WallClockLoop(VirtualTimeLoop):
    """Virtual time that the wall clock follows."""

    def __init__(self, wall: time_machine.Traveller) -> None:
        self._wall = wall
        super().__init__()

    def _jump(self, seconds: float) -> None:
        before = self.time()
        super()._jump(seconds)
        self._wall.shift(self.time() - before)


def play(scene: Scene) -> None:
    """Run the commands of a scene in a directory of its own, and print the last one's output."""
    random.seed(1)
    account = SegmentsSandbox(
        segments=scene.segments,
        seed=scene.seed,
        rows=4_000,
        durations=scene.durations,
        limit=TokenBucket(scene.rate, scene.rate),
        latency=0.1,
        file_host=FileHost(rate=scene.file_rate),
        epoch=NIGHT - timedelta(days=1),
    )
    credentials = {"SEGMENTS_API_KEY": PAGE_API_KEY, "SEGMENTS_ACCESS_TOKEN": PAGE_ACCESS_TOKEN}
    with (
        tempfile.TemporaryDirectory() as folder,
        contextlib.chdir(folder),
        mock.patch.dict(os.environ, credentials),
        account.answering(),
        time_machine.travel(NIGHT, tick=False) as wall,
    ):
        for command in scene.commands[:-1]:
            with _unseen():
                _run(command, account, wall)
        _run(scene.commands[-1], account, wall)


def _run(command: Command, account: SegmentsSandbox, wall: time_machine.Traveller) -> None:
    if command.night is not None:
        wall.move_to(NIGHT + timedelta(days=command.night))
    if command.prepare is not None:
        command.prepare(account)
    loops: list[WallClockLoop] = []

    def make_loop() -> WallClockLoop:
        loops.append(loop := WallClockLoop(wall))
        if command.seconds is not None:
            loop.call_at(command.seconds, os._exit, 0)
        return loop

    def now() -> float:
        return loops[-1].time()

    real = anyio.run

    def run(work: Callable[..., Any], *arguments: Any) -> Any:
        return real(work, *arguments, backend_options={"loop_factory": make_loop})

    with (
        mock.patch.object(anyio, "run", run),
        mock.patch("segments_async.cli.export.monotonic", now),
        mock.patch.object(sys, "argv", ["segments-async", *command.arguments]),
        contextlib.suppress(SystemExit),
    ):
        main()


@contextlib.contextmanager
def _unseen() -> Iterator[None]:
    """Stdout and stderr go nowhere."""
    kept = {number: os.dup(number) for number in (1, 2)}
    with Path(os.devnull).open("wb") as nowhere:
        for number in kept:
            os.dup2(nowhere.fileno(), number)
        try:
            yield
        finally:
            for number, descriptor in kept.items():
                os.dup2(descriptor, number)
                os.close(descriptor)


if __name__ == "__main__":
    play(SCENES[sys.argv[1]])
