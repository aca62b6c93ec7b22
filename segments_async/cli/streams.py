"""Standard streams as the command finds them: closed, full, non-blocking, stalled, not UTF-8.

Python's own text streams lose what a short write leaves, wait under a lock that no signal gets
through, and fail where a character has no bytes. So the command writes to the descriptors itself.
"""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import select
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from time import monotonic

import anyio
from anyio.lowlevel import checkpoint

#: A pipe that can be written to at all takes this many bytes without blocking (POSIX).
_PIECE = select.PIPE_BUF

#: Seconds that a reader who takes nothing gets once a signal has told the command to end.
PATIENCE = 1.0

#: Seconds between two looks at whether a signal came.
_LOOK = 0.1

_ERRORS = "segments-async"
_SIMPLER = {"…": ".", "·": "-"}


class StdoutError(Exception):
    """What the command has to tell on stdout can't be written there.

    Attributes:
        reader_gone: whether it is a pipe that nobody reads any more.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"can't write to stdout: {error.strerror or error}")
        self.reader_gone: bool = error.errno == errno.EPIPE


class _Leaving:
    """Whether a signal has told the command to end. Nothing waits for a stalled reader then."""

    came = False


def leave() -> None:
    """Wait for no reader that takes nothing, from now on."""
    _Leaving.came = True


def prepare() -> None:
    """Open the standard streams that are closed, and put ours in the place of Python's.

    A closed one is as ``/dev/null``. Left closed, its number would be given to the next file that
    is opened: a journal, into which complaints would then be written.
    """
    closed = [number for number in (0, 1, 2) if not _is_open(number)]
    for number in closed:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != number:
            os.dup2(opened, number)
            os.close(opened)
    if sys.stdin is None or 0 in closed:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - for the life of the process
    sys.stdout = text_stream(1, sys.stdout.encoding if sys.stdout else None)
    sys.stderr = text_stream(2, sys.stderr.encoding if sys.stderr else None, lenient=True)


def _is_open(number: int) -> bool:
    try:
        os.fstat(number)
    except OSError:
        return False
    return True


def text_stream(
    descriptor: int, encoding: str | None = None, *, lenient: bool = False
) -> io.TextIOWrapper:
    """Text to a descriptor. `lenient`: what can't be written is dropped."""
    return io.TextIOWrapper(
        (_Log if lenient else _Descriptor)(descriptor),
        encoding=encoding or "utf-8",
        errors=_ERRORS,
        write_through=True,
    )


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """As many `?` as the characters are wide, so that tables stay tables."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    from rich.cells import cell_len  # only here: it may not be installed

    missing = error.object[error.start : error.end]
    return "".join(_SIMPLER.get(one, "?" * cell_len(one)) for one in missing), error.end


codecs.register_error(_ERRORS, _replaced)


class _Descriptor(io.RawIOBase):
    """Writes the whole of what it is given, however little the descriptor takes at once."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self._number = number
        self._stalled = False
        self.name = f"<descriptor {number}>"

    def fileno(self) -> int:
        return self._number

    def isatty(self) -> bool:
        return os.isatty(self._number)

    def writable(self) -> bool:
        return True

    def write(self, data: bytes | bytearray | memoryview, /) -> int:  # type: ignore[override]
        left = memoryview(data)
        given_up = monotonic() + PATIENCE
        while left:
            # Waits here and not in write(): between two looks, a signal is heeded.
            if _is_writable(self._number, 0 if self._stalled else _LOOK):
                left = left[self._some(left[:_PIECE]) :]
                given_up = monotonic() + PATIENCE
            elif _Leaving.came and (self._stalled or monotonic() > given_up):
                self._stalled = True
                break
        return len(data)

    def _some(self, piece: memoryview) -> int:
        try:
            return os.write(self._number, piece)
        except BlockingIOError:  # somebody made it non-blocking, and others write to it, too
            return 0
        except OSError as error:
            raise StdoutError(error) from error


class _Log(_Descriptor):
    """stderr: what can't be written there is dropped. A log that is lost is no lost export."""

    def _some(self, piece: memoryview) -> int:
        with suppress(StdoutError):
            return super()._some(piece)
        return len(piece)


def _is_writable(number: int, seconds: float) -> bool:
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return bool(poll.poll(seconds * 1000))


def json_text(line: Mapping[str, object]) -> str:
    """One line of JSON, ASCII only: whole under any locale, and harmless on a terminal."""
    return json.dumps(line, allow_nan=False) + "\n"


class JsonLines:
    """JSON lines on stdout, each whole, at the pace of whoever reads them.

    A reader that is slow holds up only who sends lines, and no other task. What a cancelled task
    had to send is kept, so that a line is never cut where the next one begins.
    """

    def __init__(self, descriptor: int = 1) -> None:
        self._descriptor = descriptor
        self._unsent = bytearray()
        self._broken = False

    async def send(self, *lines: Mapping[str, object]) -> None:
        """Send these lines, and before them whatever is unsent.

        Raises:
            StdoutError: they can't be written; from then on nothing is.
        """
        self._add(lines)
        while self._unsent:
            await checkpoint()
            await self._send_some()

    async def finish(self, lines: Iterable[Mapping[str, object]]) -> bool:
        """Send these lines though the task is cancelled; whether all have been taken.

        A reader that takes nothing for `PATIENCE` seconds gets no more.
        """
        self._add(lines)
        while self._unsent:
            before = len(self._unsent)
            with anyio.move_on_after(PATIENCE, shield=True), suppress(StdoutError):
                await self._send_some()
            if len(self._unsent) == before:
                return False
        return not self._broken

    def _add(self, lines: Iterable[Mapping[str, object]]) -> None:
        if not self._broken:
            self._unsent += "".join(map(json_text, lines)).encode("ascii")

    async def _send_some(self) -> None:
        if not _is_writable(self._descriptor, 0):
            await anyio.wait_writable(self._descriptor)
        try:
            del self._unsent[: os.write(self._descriptor, self._unsent[:_PIECE])]
        except BlockingIOError:  # another process was faster
            return
        except OSError as error:
            self._broken = True
            self._unsent.clear()
            raise StdoutError(error) from error
