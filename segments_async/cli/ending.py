"""The end of a command: its work is done, a signal ends it, or an error."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from time import monotonic
from types import FrameType, MappingProxyType
from typing import Any

import anyio

from segments_async import SegmentsError
from segments_async.cli import streams
from segments_async.cli.exit_codes import Exit, exit_code, sentence
from segments_async.cli.terminal import Terminal

#: The signals that end a command, and what it says then. SIGHUP, which Windows hasn't: the terminal
#: was closed, or the ssh connection broke.
_SENTENCES = {
    getattr(signal, name): sentence
    for name, sentence in (
        ("SIGINT", "Interrupted."),
        ("SIGTERM", "Terminated."),
        ("SIGHUP", "The terminal was closed."),
    )
    if hasattr(signal, name)
}
ENDING: tuple[signal.Signals, ...] = tuple(_SENTENCES)

#: Seconds in which another signal doesn't count as a second one: `timeout` signals both its child
#: and the child's group, and after a hang-up both the shell and the kernel signal the jobs.
_ECHO = 0.5


class Interrupted(Exception):
    """A signal ended the command, after the command had closed everything."""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.exit_code: int = 128 + number
        self.sentence: str = _SENTENCES[signal.Signals(number)]


def ending_signals() -> list[signal.Signals]:
    """The signals that end this command. Under `nohup` SIGHUP is ignored, and stays ignored."""
    return [
        number
        for number in ENDING
        if number.name != "SIGHUP" or signal.getsignal(number) is not signal.SIG_IGN
    ]


class Signals:
    """Counts signals. The first cancels the command's work, a second ends the process at once.

    Python's signal handlers count, since they run also while the event loop stands still.
    """

    def __init__(self) -> None:
        self.first: int | None = None
        self._at = 0.0
        self.numbers: list[signal.Signals] = ending_signals()

    def count(self, handlers: Mapping[int, Any] = MappingProxyType({})) -> None:
        """Count signals from now on, and then call these handlers."""

        def note(number: int, frame: FrameType | None) -> None:
            if self.first is None:
                self.first, self._at = number, monotonic()
                streams.leave()
            elif monotonic() - self._at > _ECHO:
                os._exit(128 + number)
            if callable(handler := handlers.get(number)):
                handler(number, frame)

        for number in self.numbers:
            signal.signal(number, note)


@asynccontextmanager
async def alongside(task: Callable[[], Coroutine[Any, Any, None]]) -> AsyncGenerator[None]:
    """Run a task during the block. An exception of the block is raised without a group."""
    try:
        async with anyio.create_task_group() as group:
            group.start_soon(task)
            yield
            group.cancel_scope.cancel()
    except BaseExceptionGroup as several:
        raise several.exceptions[0] from None


def finish(
    work: Callable[[], Awaitable[Exit]],
    terminal: Terminal,
    say_unfinished: Callable[[], None] = lambda: None,
    *,
    until_interrupted: bool = False,
) -> int:
    """Do a command's work, and return its exit code.

    Args:
        work: of the command.
        terminal: for a message.
        say_unfinished: called where a signal, or a broken stdout, cut the work off.
        until_interrupted: whether Ctrl-C is the usual end of this command, and a success.

    Raises:
        StdoutError: stdout can't be written.
        UsageError: the arguments, or the environment, are wrong.
    """
    try:
        return anyio.run(interruptible, work, Signals())
    except Interrupted as stop:
        if until_interrupted and stop.exit_code == 128 + signal.SIGINT:
            return Exit.ALL_DONE
        terminal.say(stop.sentence)
        say_unfinished()
        return stop.exit_code
    except SegmentsError as error:
        terminal.say(f"segments-async: {sentence(error)}", style="red")
        return exit_code(error)
    except streams.StdoutError:
        say_unfinished()
        raise


async def interruptible(work: Callable[[], Awaitable[Exit]], signals: Signals) -> Exit:
    """Do the work until a signal cancels it. A second signal ends the process at once.

    Raises:
        Interrupted: a signal came, and the work has ended.
    """
    code = Exit.ALL_DONE
    scope = anyio.CancelScope()
    try:
        with anyio.open_signal_receiver(*signals.numbers) as received:
            signals.count({number: signal.getsignal(number) for number in signals.numbers})

            async def watch() -> None:
                async for number in received:
                    signals.first = signals.first or number
                    scope.cancel()

            async with alongside(watch):
                with scope:
                    code = await work()
    finally:
        if signals.first is not None:
            signals.count()  # the receiver has restored the default handlers
    if scope.cancelled_caught:
        assert signals.first is not None
        raise Interrupted(signals.first)
    return code
