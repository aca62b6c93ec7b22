"""The output of a command: two consoles for people, JSON lines for programs, values in words."""

from __future__ import annotations

import logging
import sys
from datetime import datetime
from typing import TextIO

import attrs
from rich.console import Console
from rich.text import Text

from segments_async.cli.streams import JsonLines
from segments_async.errors import printable

_WIDTH_OF_A_LOG = 110


@attrs.frozen
class Terminal:
    """Where a command writes.

    Attributes:
        people: the console for results: stdout where that is a terminal, otherwise stderr.
        err: the console for progress, log lines and errors: stderr.
        piped: whether stdout is read by a program, and carries JSON lines only.
        lines: writes these JSON lines.
    """

    people: Console
    err: Console
    piped: bool
    lines: JsonLines = attrs.field(factory=JsonLines)

    @classmethod
    def open(cls, *, no_color: bool = False, json: bool = False) -> Terminal:
        """The terminal of this process. `json` makes it `piped` in any case."""
        # isatty() and not rich: with FORCE_COLOR rich takes a pipe for a terminal.
        piped = json or not sys.stdout.isatty()
        err = _console(sys.stderr, no_color=no_color)
        return cls(err if piped else _console(sys.stdout, no_color=no_color), err, piped)

    def say(self, sentence: str, style: str = "") -> None:
        """Print a sentence on stderr."""
        self.err.print(Text(printable(sentence), style=style), soft_wrap=True)


def _console(stream: TextIO, *, no_color: bool) -> Console:
    # No markup, emoji or highlighting: most of the printed text comes from a server.
    return Console(
        file=stream,
        markup=False,
        emoji=False,
        highlight=False,
        no_color=no_color or None,
        width=None if stream.isatty() else _WIDTH_OF_A_LOG,
    )


class LogLines(logging.Handler):
    """Prints the library's log on the terminal, above the live view."""

    def __init__(self, terminal: Terminal) -> None:
        super().__init__()
        self._terminal = terminal

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record in one line."""
        try:
            time = datetime.fromtimestamp(record.created).astimezone()
            style = "yellow" if record.levelno >= logging.WARNING else "dim"
            line = f"{time:%H:%M:%S} {printable(record.getMessage())}"
            self._terminal.err.print(Text(line, style=style), soft_wrap=True)
        except Exception:  # noqa: BLE001 - as logging's own handlers do: a log line must not end a program
            self.handleError(record)


def in_bytes(count: int) -> str:
    """``0 B``, ``12.3 kB``, ``4.5 GB``."""
    if count < 1000:
        return f"{count} B"
    amount = float(count)
    for unit in ("kB", "MB", "GB"):
        amount /= 1000
        if amount < 999.95:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1000:.1f} TB"


def in_time(seconds: float) -> str:
    """``7 s``, ``3 min 20 s``, ``2 h 05 min``."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole // 60 % 60:02d} min"


def counted(count: int, one: str, many: str | None = None) -> str:
    """``1 segment``, ``2 segments``."""
    return f"{count} {one if count == 1 else many or one + 's'}"
