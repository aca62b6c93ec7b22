"""A text file of lines in object storage, to which several processes add.

An object can't be appended to: it is written again, under the condition that it is still the
version that was read. Where another process was faster, it is read once more. So no line is lost
where the store heeds conditions, and the object stays small: a full one is put aside.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

import anyio

from segments_async.errors import DestinationError

if TYPE_CHECKING:
    from obstore import UpdateVersion

    from segments_async._files.object_storage import ObjectStorage

#: Bytes from which on the object is put aside under a name of its own, and a new one begun. It is
#: some 8 000 lines, and what each write sends at most.
LARGEST = 4 * 1024 * 1024

#: How often a write is tried that other processes were faster than.
_ATTEMPTS = 30


class ObjectLines:
    """Adds lines to one object."""

    def __init__(self, storage: ObjectStorage, name: str) -> None:
        self._storage = storage
        self._name = name
        self._lock: anyio.Lock | None = None
        #: The object as this process wrote it; None where it has to be read.
        self._known: tuple[bytes, UpdateVersion] | None = None

    async def add(self, lines: Sequence[str]) -> None:
        """Add the lines, behind all that are there.

        Raises:
            DestinationError: they could not be written.
        """
        new = "".join(f"{line}\n" for line in lines).encode()
        self._lock = self._lock or anyio.Lock()
        async with self._lock:
            for attempt in range(_ATTEMPTS):
                found = self._known or await self._storage.read(self._name)
                # A write whose answer was lost is repeated by obstore, and refused.
                if attempt and found is not None and new in found[0]:
                    return
                self._known = None
                try:
                    await self._write(found, new)
                except DestinationError as exc:
                    if exc.reason != "exists":
                        raise
                    await anyio.sleep(random.random() * min(2.0, 0.05 * 2**attempt))
                else:
                    return
        raise DestinationError(
            f"{self._storage.location}/{self._name}: the lines were not added, since other "
            "programs keep writing to it",
            reason="exists",
        )

    async def _write(self, found: tuple[bytes, UpdateVersion] | None, new: bytes) -> None:
        storage = self._storage
        if found is None:
            version = await storage.put(self._name, new, attributes={}, create=True)
            self._remember(new, version)
            return
        content, before = found
        if content and len(content) + len(new) > LARGEST:
            await storage.put(_aside(self._name, content), content, attributes={}, create=False)
            content = b""
        version = await storage.replace(self._name, content + new, before)
        self._remember(content + new, version)

    def _remember(self, content: bytes, version: UpdateVersion) -> None:
        # Without conditions nothing tells that another process has written meanwhile.
        self._known = (content, version) if self._storage.conditional else None


def _aside(name: str, content: bytes) -> str:
    """The name of a full file, the same in every process: its last line's time, and its bytes."""
    stem, _, suffix = name.rpartition(".")
    try:
        at = str(json.loads(content.splitlines()[-1])["at"])[:19]
    except (ValueError, LookupError, TypeError):
        at = ""
    stamp = re.sub(r"[^0-9T]+", "-", at) or "full"
    return f"{stem}-{stamp}-{hashlib.sha256(content).hexdigest()[:8]}.{suffix}"
