"""The place of the files: a directory, or the URL of object storage."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from cyclopts import Token

from segments_async.cli.exit_codes import UsageError
from segments_async.errors import printable

#: A Path would merge the slashes of a URL.
To = Path | str


def place_of_files(_: object, tokens: Sequence[Token]) -> To:
    """The argument of `--to`.

    Raises:
        UsageError: it is empty, as a shell's variable is that isn't set. A Path would make it the
            current directory.
    """
    if not tokens[0].value:
        raise UsageError("--to: the path is empty, and nothing was done")
    return to_of(tokens[0].value)


def place_of_file(kind: object, tokens: Sequence[Token]) -> To:
    """The argument of `--to` that names a file. A slash at its end, which a Path drops, is kept."""
    place, given = place_of_files(kind, tokens), tokens[0].value
    return given if given.endswith("/") else place


def to_of(location: str) -> To:
    """A location, as a journal knows it, as the value of `--to`."""
    return location if "://" in location else Path(location)


def file_in(to: To, name: str) -> To:
    """A file there."""
    return to / name if isinstance(to, Path) else f"{to.rstrip('/')}/{name}"


def relative(to: To) -> str:
    """The path, relative to the current directory where it is inside; a URL as it is."""
    if isinstance(to, str):
        return printable(to)
    try:
        current = Path.cwd()
    except FileNotFoundError:  # it was removed
        return printable(str(to))
    return printable(str(to.relative_to(current) if to.is_relative_to(current) else to))


def is_text(path: To) -> bool:
    """Whether the bytes of the path are UTF-8, the only text that databases store."""
    try:
        os.path.realpath(path).encode()
    except UnicodeEncodeError:
        return False
    return True
