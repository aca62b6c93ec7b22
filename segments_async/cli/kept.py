"""What a run was asked for, kept beside its files, so that `resume` needn't be told again.

The journal has no row for a segment that nothing happened to yet, so it can't tell which segments
a run has. A file beside the files does, one for each run that isn't finished.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self

import attrs
from cattrs import BaseValidationError, Converter

from segments_async._filesystem.trust import distrust_of_file
from segments_async.cli.arguments import RunOptions
from segments_async.cli.exit_codes import UsageError
from segments_async.cli.journal import DIRECTORY, private_directory

_converter = Converter(forbid_extra_keys=True)


@attrs.frozen(kw_only=True)
class Kept:
    """What a run was asked for, and who is at it.

    Attributes:
        run: its name.
        segments: ids.
        terms: on which.
        command: of the process that was last at it.
        process: its id.
    """

    run: str
    segments: Sequence[str]
    terms: RunOptions
    command: Literal["export", "resume"]
    process: int

    def save(self, to: Path) -> None:
        """Keep it, whole or not at all.

        Raises:
            UsageError: it can't be written.
        """
        path = private_directory(to) / _name(self.run)
        new = path.with_suffix(".new")
        text = json.dumps(_converter.unstructure(self))
        try:
            new.unlink(missing_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            with os.fdopen(os.open(new, flags, 0o600), "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            new.replace(path)
        except OSError as error:
            raise UsageError(f"can't write {str(path)!r}: {error.strerror or error}") from error

    @classmethod
    def load(cls, to: Path, run: str) -> Self | None:
        """What was kept of the run; None where nothing was, or nothing that can be read.

        Raises:
            UsageError: another user may have written it, and with it what is exported.
        """
        path = to / DIRECTORY / _name(run)
        if (problem := distrust_of_file(path)) is not None:
            raise UsageError(f"not read, because {problem}")
        try:
            value = json.loads(path.read_bytes())
            kept = _converter.structure(value, cls)
        except (OSError, ValueError, RecursionError, BaseValidationError):
            return None
        return kept if kept.run == run else None

    def is_live(self) -> bool:
        """Whether the process that was last at it is there."""
        try:
            os.kill(self.process, 0)
        except (OSError, OverflowError, ValueError):
            return False
        return True


def forget(to: Path, run: str) -> None:
    """The run is over: nobody goes on with it."""
    with contextlib.suppress(OSError):
        (to / DIRECTORY / _name(run)).unlink()


def _name(run: str) -> str:
    """A run's name may be any text, a file's may not."""
    return f"run-{hashlib.sha256(run.encode()).hexdigest()[:16]}.json"
