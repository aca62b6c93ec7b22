"""`Place`: where the files of a bulk export go, a `Directory` or a `RemotePlace`."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, Self

from segments_async._files.target import Target
from segments_async._sansio.pace.hold import Hold
from segments_async.errors import ConfigurationError
from segments_async.models import Export
from segments_async.results import ExportedFile

MANIFEST = "manifest.jsonl"


class Place(Protocol):
    """The files of one run, each with its name, by segment id.

    Attributes:
        append_pause: seconds between two calls of `append`, where each costs a whole object.
    """

    append_pause: float

    @property
    def location(self) -> str:
        """The absolute path, or the URL, by which the journal knows the place."""
        ...

    @property
    def names(self) -> Mapping[str, str]:
        """The name of each segment's file, by segment id."""
        ...

    def with_names(self, names: Mapping[str, str]) -> Self:
        """The same place, with these files' names by segment id."""
        ...

    async def obstacles(self, own: Collection[str]) -> Mapping[str, ConfigurationError]:
        """Make the place ready, and check each segment's file.

        Args:
            own: locations of files that the journal knows as this account's. They are replaced.

        Returns: an error for each segment whose file would replace a foreign one.

        Raises:
            ConfigurationError: no file can be written there.
            DestinationError: no file can be written there.
        """
        ...

    async def present(self, files: Mapping[str, ExportedFile]) -> dict[str, ExportedFile]:
        """Those of the files that are in their places, with the recorded sizes."""
        ...

    async def placed(self, segment_id: str, export: Export) -> ExportedFile | None:
        """The export's file, where a session placed it that was killed before it recorded so."""
        ...

    def target(self, segment_id: str) -> Target:
        """The place of this segment's file."""
        ...

    async def append(self, lines: Sequence[str]) -> None:
        """Add lines to the manifest. Raises OSError, or DestinationError."""
        ...

    def hold(self, now: float) -> Hold | None:
        """What delays files; None where nothing does."""
        ...
