"""The sidecar on disk: read once, and written in place."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from segments_async._filesystem.disk import sync_directory, write_all_at
from segments_async._filesystem.trust import open_regular
from segments_async._sansio.files import sidecar


class SidecarFile:
    """A part's sidecar. Symbolic links are refused."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._descriptor: int | None = None

    def read(self) -> sidecar.Sidecar | None:
        """The sidecar; None if there is none, or if it can't be read."""
        try:
            descriptor = open_regular(self._path, os.O_RDONLY)
        except OSError:
            return None
        try:
            return sidecar.load(os.read(descriptor, sidecar.SIZE + 1))
        finally:
            os.close(descriptor)

    def write(self, content: sidecar.Sidecar) -> None:
        if self._descriptor is None:
            self._descriptor = open_regular(self._path, os.O_WRONLY | os.O_CREAT)
        write_all_at(self._descriptor, content.dump(), 0)

    def exists(self) -> bool:
        return self._descriptor is not None or os.path.lexists(self._path)

    def remove(self, *, durably: bool = False) -> None:
        """Remove the file, if there is one.

        Args:
            durably: also sync the directory. Otherwise a power failure could bring the sidecar
                back, beside a part that it does not describe.
        """
        if self.exists():
            self._path.unlink(missing_ok=True)
            self.close()
            if durably:
                sync_directory(self._path.parent)

    def close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


@cache
def boot_id() -> str | None:
    """The system's name for the time since its last start; None if it has no such name."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None
