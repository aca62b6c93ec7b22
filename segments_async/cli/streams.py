"""Standard streams that may be closed, full, non-blocking, stalled, or not UTF-8.

After a short write Python's own text streams lose the rest; they wait under a lock that blocks
signals; and they fail at a character that the encoding lacks. So the command writes to the
descriptors itself.
"""

from __future__ import annotations

import codecs
import errno
import io
import json
import os
import select
import sys
from collections.abc import Mapping
from contextlib import suppress
from time import monotonic

#: A pipe that poll() calls writable takes this many bytes without blocking (POSIX).
PIECE = select.PIPE_BUF

#: Seconds to wait, after a signal, for a reader that takes nothing.
PATIENCE = 1.0

#: Seconds after which a waiting write checks whether a signal has come.
_LOOK = 0.1

_ERRORS = "segments-async"
_SIMPLER = {"…": ".", "·": "-"}


class StdoutError(Exception):
    """Stdout can't be written.

    Attributes:
        reader_gone: whether stdout is a pipe whose reader has ended.
    """

    def __init__(self, error: OSError) -> None:
        super().__init__(f"can't write to stdout: {error.strerror or error}")
        self.reader_gone: bool = error.errno == errno.EPIPE


class _Leaving:
    """Whether a signal has come. Then a stalled reader is waited for no longer than PATIENCE."""

    came = False


def leave() -> None:
    """From now on, wait for a stalled reader for at most PATIENCE seconds."""
    _Leaving.came = True


def prepare() -> None:
    """Open closed standard streams as ``/dev/null``, and replace Python's text streams.

    The number of a closed stream would go to the next file that is opened, such as the journal,
    and error messages would be written into that file.
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
    """A text stream to a descriptor. `lenient`: text that can't be written is dropped."""
    return io.TextIOWrapper(
        (_Log if lenient else _Descriptor)(descriptor),
        encoding=encoding or "utf-8",
        errors=_ERRORS,
        write_through=True,
    )


def _replaced(error: UnicodeError) -> tuple[str, int]:
    """Replace characters by `?`, as many as they are wide, so that tables keep their columns."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    from rich.cells import cell_len  # only here: it may not be installed

    missing = error.object[error.start : error.end]
    return "".join(_SIMPLER.get(one, "?" * cell_len(one)) for one in missing), error.end


codecs.register_error(_ERRORS, _replaced)


class _Descriptor(io.RawIOBase):
    """Writes all data, however little the descriptor takes at once."""

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
            # The wait is here and not in os.write(), so that signals are handled in between.
            if is_writable(self._number, 0 if self._stalled else _LOOK):
                left = left[self._some(left[:PIECE]) :]
                given_up = monotonic() + PATIENCE
            elif _Leaving.came and (self._stalled or monotonic() > given_up):
                self._stalled = True
                break
        return len(data)

    def _some(self, piece: memoryview) -> int:
        try:
            return os.write(self._number, piece)
        except (
            BlockingIOError
        ):  # a non-blocking descriptor, to which another process wrote meanwhile
            return 0
        except OSError as error:
            raise StdoutError(error) from error


class _Log(_Descriptor):
    """Stderr: text that can't be written is dropped, since a lost log line is no failed export."""

    def _some(self, piece: memoryview) -> int:
        with suppress(StdoutError):
            return super()._some(piece)
        return len(piece)


def is_writable(number: int, seconds: float) -> bool:
    """Whether the descriptor takes data, now or within `seconds`."""
    poll = select.poll()
    poll.register(number, select.POLLOUT)
    return bool(poll.poll(seconds * 1000))


def has_no_reader(number: int) -> bool:
    """Whether the descriptor is a pipe whose reader has ended."""
    poll = select.poll()
    poll.register(number, 0)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def json_text(line: Mapping[str, object]) -> str:
    """One line of JSON, ASCII only: the same under any locale, and harmless on a terminal."""
    return json.dumps(line, allow_nan=False) + "\n"
