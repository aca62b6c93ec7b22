"""The files of one run in a destination, such as object storage."""

from __future__ import annotations

import copy
import math
import re
from collections.abc import Collection, Iterable, Mapping, Sequence

from segments_async._files.destination import Destination, StoredFile
from segments_async._files.places import MANIFEST
from segments_async._files.upload import EXPORT_ID, SHA256, VERIFIED, UploadTarget
from segments_async._sansio.files.naming import file_names, is_in
from segments_async._sansio.files.urls import check_location
from segments_async._sansio.pace.hold import Hold
from segments_async.errors import ConfigurationError, TargetExistsError
from segments_async.models import Export
from segments_async.results import ExportedFile, HeldReason

#: Seconds in which the lines of `manifest.jsonl` are gathered before they are written.
APPEND_PAUSE = 15.0

_SHA256 = re.compile(r"[0-9a-f]{64}")


class RemotePlace:
    """A destination, and the name of each segment's file in it.

    Args:
        segments: ids, each with its segment's name if it is known.
        overwrite: whether existing files may be replaced.
    """

    def __init__(
        self,
        destination: Destination,
        segments: Iterable[tuple[str, str | None]],
        *,
        overwrite: bool,
    ) -> None:
        self._destination = destination
        self._location = check_location(destination.location)
        self._names = file_names(segments)
        self._overwrite = overwrite
        #: Names that were free when the run began. A file that has one of them by now is foreign.
        self._free: frozenset[str] = frozenset()
        self._away = _Away()

    append_pause: float = APPEND_PAUSE

    @property
    def location(self) -> str:
        return self._location

    @property
    def names(self) -> Mapping[str, str]:
        return self._names

    def with_names(self, names: Mapping[str, str]) -> RemotePlace:
        other = copy.copy(self)
        other._names, other._free = dict(names), frozenset()
        return other

    async def obstacles(self, own: Collection[str]) -> Mapping[str, ConfigurationError]:
        await self._destination.prepare()
        names = self._names.values()
        found = await self._find(names)
        self._free = frozenset(names) - found.keys()
        if self._overwrite:
            return {}
        return {
            segment_id: TargetExistsError(f"{at} exists; overwrite=True replaces it", path=at)
            for segment_id, name in self._names.items()
            if name in found and (at := self._at(name)) not in own
        }

    async def present(self, files: Mapping[str, ExportedFile]) -> dict[str, ExportedFile]:
        here = {
            segment_id: file
            for segment_id, file in files.items()
            if is_in(self._location, file.location)
        }
        names = {segment_id: _name(file) for segment_id, file in here.items()}
        found = await self._find(names.values())
        return {
            segment_id: file
            for segment_id, file in here.items()
            if (stored := found.get(names[segment_id])) is not None and stored.size == file.size
        }

    async def _find(self, names: Collection[str]) -> Mapping[str, StoredFile]:
        return await self._destination.find(frozenset(names)) if names else {}

    async def placed(self, segment_id: str, export: Export) -> ExportedFile | None:
        name = self._names[segment_id]
        if name in self._free:
            return None
        stored = await self._destination.stat(name)
        if stored is None or stored.metadata.get(EXPORT_ID) != export.export_id:
            return None
        sha256 = stored.metadata.get(SHA256, "")
        if not _SHA256.fullmatch(sha256):
            return None  # of an object of several parts, which the next download replaces
        return ExportedFile(
            location=self._at(name),
            size=stored.size,
            sha256=sha256,
            verified=stored.metadata.get(VERIFIED) == "true",
            export=export,
        )

    def target(self, segment_id: str) -> UploadTarget:
        name = self._names[segment_id]
        return UploadTarget(
            destination=self._destination,
            name=name,
            location=self._at(name),
            replace=self._overwrite or name not in self._free,
            on_away=self._away.on_result,
        )

    async def append(self, lines: Sequence[str]) -> None:
        await self._destination.append(MANIFEST, lines)

    def hold(self, now: float) -> Hold | None:  # noqa: ARG002 - the protocol's
        return Hold(HeldReason.DESTINATION_AWAY, math.inf) if self._away.lasts else None

    def _at(self, name: str) -> str:
        return f"{self._location}/{name}"


class _Away:
    """Whether the destination's last answer, for any file, was an error."""

    def __init__(self) -> None:
        self.lasts = False

    def on_result(self, away: bool) -> None:
        self.lasts = away


def _name(file: ExportedFile) -> str:
    return file.location.rpartition("/")[2]
