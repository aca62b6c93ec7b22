"""The output of a command: two consoles for people, JSON lines for programs, values in words."""

from __future__ import annotations

import logging
import sys
from datetime import datetime
from typing import TextIO

import attrs
from rich.console import Console
from rich.text import Text

from segments_async.cli.json_writer import JsonLines
from segments_async.cli.wording import in_words
from segments_async.errors import printable

#: A log or a mail has no width: a file's name, which people copy, is on one line there.
_WIDTH_OF_A_LOG = 300


@attrs.frozen
class Terminal:
    """Where a command writes.

    Attributes:
        people: the console for results: stdout where that is a terminal, otherwise stderr.
        err: the console for progress, log lines and errors: stderr.
        piped: whether stdout is read by a program, and carries JSON lines only.
        quiet: whether only errors and warnings are printed on stderr, and no progress.
        live: whether progress is drawn on stderr.
        lines: writes these JSON lines.
    """

    people: Console
    err: Console
    piped: bool
    quiet: bool = False
    live: bool = False
    lines: JsonLines = attrs.field(factory=JsonLines)

    @classmethod
    def open(cls, *, no_color: bool = False, json: bool = False, quiet: bool = False) -> Terminal:
        """The terminal of this process. `json` makes it `piped` in any case."""
        # isatty() and not rich: with FORCE_COLOR rich takes a pipe for a terminal.
        shown = sys.stdout.isatty()
        piped = json or not shown
        err = _console(sys.stderr, no_color=no_color)
        # On one terminal the drawing would be torn by JSON lines.
        live = err.is_terminal and not quiet and not (json and shown)
        people = err if piped else _console(sys.stdout, no_color=no_color)
        return cls(people, err, piped, quiet, live)

    def say(self, sentence: str, style: str = "") -> None:
        """Print a sentence that has to be read on stderr: of an error, or of unfinished work."""
        print_sentence(self.err, printable(sentence), style)

    def note(self, sentence: str, style: str = "") -> None:
        """Print a sentence on stderr, unless the terminal is quiet."""
        if not self.quiet:
            self.say(sentence, style)


def print_sentence(console: Console, sentence: str, style: str = "") -> None:
    """Print a sentence: on a terminal broken between words, in a log as one line."""
    console.print(Text(sentence, style=style), soft_wrap=not console.is_terminal)


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

    def __init__(self, terminal: Terminal, *, verbose: bool = False) -> None:
        super().__init__()
        self._terminal = terminal
        self._verbose = verbose

    def filter(self, record: logging.LogRecord) -> bool:
        """Leave out lines about segments, which the summary has too, unless `-v` asks for them."""
        return self._verbose or not hasattr(record, "segments_segment_id")

    def emit(self, record: logging.LogRecord) -> None:
        """Print one record in one line."""
        try:
            time = datetime.fromtimestamp(record.created).astimezone()
            style = "yellow" if record.levelno >= logging.WARNING else "dim"
            line = f"{time:%H:%M:%S} {printable(in_words(record.getMessage()))}"
            print_sentence(self._terminal.err, line, style)
        except Exception:  # noqa: BLE001 - as logging's own handlers do: a log line must not end a program
            self.handleError(record)


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
