"""Pictures of the command: its real output on a terminal of 64 columns, or some more.

`command_in_virtual_time.py` runs in a pseudo-terminal. pyte, a terminal in Python, gives what
stands on its screen at the end, and rich draws that screen. No font is embedded or asked for: each
text is stretched to its columns, whatever the reader's monospaced font is.
"""

from __future__ import annotations

import fcntl
import io
import itertools
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import attrs
import pyte
from command_in_virtual_time import SCENES
from pyte.screens import Char
from rich.console import Console
from rich.style import Style
from rich.terminal_theme import TerminalTheme
from rich.text import Text

#: Seconds, for a program that hangs.
_PATIENCE = 300.0

_PROGRAM = Path(__file__).with_name("command_in_virtual_time.py")

#: Pixels of the picture in its own size, for each column.
_PIXELS = 8.6

#: Light on dark, in both schemes of the reader: so a terminal is recognized. All colours have a
#: contrast of 5 or more.
_THEME = TerminalTheme(
    (24, 28, 34),
    (220, 226, 232),
    [
        (24, 28, 34),
        (255, 138, 128),
        (126, 214, 148),
        (240, 200, 100),
        (125, 186, 255),
        (216, 160, 240),
        (100, 212, 224),
        (220, 226, 232),
    ],
    [
        (154, 164, 174),  # of dim text
        (255, 138, 128),
        (126, 214, 148),
        (240, 200, 100),
        (125, 186, 255),
        (216, 160, 240),
        (100, 212, 224),
        (255, 255, 255),
    ],
)

_FORMAT = """\
<svg xmlns="http://www.w3.org/2000/svg" width="@WIDTH@" height="@HEIGHT@" \
viewBox="0 0 {width} {height}" role="img" aria-labelledby="title description">
<title id="title">@TITLE@</title>
<desc id="description">@DESCRIPTION@</desc>
<style>
.{unique_id}-matrix {{ font-family: monospace; font-size: {char_height}px; }}
{styles}
</style>
{chrome}
<g transform="translate({terminal_x}, {terminal_y})" class="{unique_id}-matrix">
{backgrounds}
{matrix}
</g>
</svg>
"""


@attrs.frozen
class Window:
    """The terminal of a scene.

    Attributes:
        title: in the picture's title.
        description: what there is to see.
        columns: of the terminal.
        rows: of the terminal; unused ones at the end are not drawn.
    """

    title: str
    description: str
    columns: int = 64
    rows: int = 60


WINDOWS = {
    "cli-help": Window(
        "segments-async --help", "The commands, and where credentials and settings come from."
    ),
    "cli-list": Window(
        "segments-async list", "A table of the account's segments: their ids and names."
    ),
    "cli-export": Window(
        "segments-async export, under way",
        "A line for each export under way, then the bar with the counts of segments, then bytes, "
        "requests, the time so far and the time left.",
        rows=20,
    ),
    "cli-summary-with-failures": Window(
        "segments-async export, at its end",
        "The files, then each reason for which segments have no file, with the names and the ids "
        "of the exports, then what can be done, then the totals.",
    ),
    "cli-held": Window(
        "segments-async export, while nothing moves",
        "The last line, in yellow, says why no request is sent, and when the next one is.",
        rows=24,
    ),
    "cli-runs": Window(
        "segments-async runs",
        "A table of the runs of one directory, the latest first, with the counts of segments.",
        columns=72,
    ),
}


def draw(name: str, start: Callable[..., Any] = subprocess.Popen) -> str:
    """The picture of a scene, whose program is started as `subprocess.Popen` does it."""
    window = WINDOWS[name]
    lines = _screen(window, _output(name, window, start))
    command = " ".join(["segments-async", *SCENES[name].commands[-1].arguments])
    console = Console(
        record=True, width=window.columns, file=io.StringIO(), color_system="truecolor"
    )
    console.print(Text.assemble(("$ ", "bright_black"), (command, "bold")), soft_wrap=False)
    for line in lines:
        console.print(line, soft_wrap=True)
    drawn = console.export_svg(
        title="", theme=_THEME, code_format=_FORMAT, unique_id=name, font_aspect_ratio=0.61
    )
    return _sized(drawn, window)


def _sized(drawn: str, window: Window) -> str:
    box = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', drawn)
    assert box is not None
    width, height = float(box[1]), float(box[2])
    pixels = round(window.columns * _PIXELS)
    texts = {
        "@WIDTH@": str(pixels),
        "@HEIGHT@": str(round(height * pixels / width)),
        "@TITLE@": escape(window.title),
        "@DESCRIPTION@": escape(window.description),
    }
    for mark, text in texts.items():
        drawn = drawn.replace(mark, text)
    drawn = re.sub(r"<text [^>]*>\n</text>", "", drawn)  # rich draws the ends of lines, too
    # Nothing overflows its line here, and rich's clips would cut the last line's descenders.
    drawn = re.sub(r' clip-path="[^"]*"', "", drawn).replace("</text><text", "</text>\n<text")
    return "\n".join(line.strip() for line in drawn.splitlines() if line.strip()) + "\n"


def _screen(window: Window, output: bytes) -> list[Text]:
    """The lines that stand on the terminal when the scene has ended."""
    screen = pyte.Screen(window.columns, window.rows)
    pyte.ByteStream(screen).feed(_with_dim_as_colour(output))
    lines = [_line(screen, row) for row in range(window.rows)]
    while lines and not lines[-1].plain.strip():
        lines.pop()
    return lines


def _output(name: str, window: Window, start: Callable[..., Any]) -> bytes:
    """All that the scene writes to its terminal."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", window.rows, window.columns, 0, 0))
    kept = {key: os.environ[key] for key in ("PATH", "HOME") if key in os.environ}
    process = start(
        [sys.executable, str(_PROGRAM), name],
        env={**kept, "TERM": "xterm-256color", "LANG": "C.UTF-8", "TZ": "UTC"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    pieces = list(iter(lambda: _read(ours), b""))
    os.close(ours)
    if process.wait(_PATIENCE):
        raise RuntimeError(b"".join(pieces).decode(errors="replace"))
    return b"".join(pieces)


def _read(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, 65536)
    except OSError:  # so Linux says that no process writes any more
        return b""


def _with_dim_as_colour(output: bytes) -> bytes:
    """Dim text (2) in the colour bright black (90): pyte doesn't know dim text."""
    return re.sub(
        rb"\x1b\[2(;[\d;]*)?m", lambda found: b"\x1b[90" + (found[1] or b"") + b"m", output
    )


def _line(screen: pyte.Screen, row: int) -> Text:
    text = Text(end="")
    cells = [screen.buffer[row][column] for column in range(screen.columns)]
    for style, chars in itertools.groupby(cells, key=_style):
        text.append("".join(char.data for char in chars), style)
    text.rstrip()
    return text


def _style(char: Char) -> Style:
    colour = None if char.fg == "default" else _NAMES.get(char.fg, f"#{char.fg}")
    return Style(
        color=colour,
        bold=char.bold or None,
        italic=char.italics or None,
        reverse=char.reverse or None,
    )


#: pyte's names of colours that rich calls otherwise.
_NAMES = {
    **{name: name for name in ("black", "red", "green", "blue", "magenta", "cyan", "white")},
    "brown": "yellow",
    "brightblack": "bright_black",
    "brightred": "bright_red",
    "brightgreen": "bright_green",
    "brightbrown": "bright_yellow",
    "brightblue": "bright_blue",
    "brightmagenta": "bright_magenta",
    "brightcyan": "bright_cyan",
    "brightwhite": "bright_white",
}
