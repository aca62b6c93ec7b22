"""The segments that an `export`, or a `list`, selects."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

import attrs

from segments_async import Segment
from segments_async.cli.exit_codes import UsageError


@attrs.frozen(kw_only=True)
class Selection:
    """The selection of the command line.

    Attributes:
        ids: segments named by their id.
        names: shell patterns for names.
        every: all segments of the account.
    """

    ids: Sequence[str] = ()
    names: Sequence[str] = ()
    every: bool = False

    def check(self) -> None:
        """Refuse a selection that is wrong whatever segments there are.

        Raises:
            UsageError: nothing is selected, or `every` together with ids or names.
        """
        if self.every and (self.ids or self.names):
            raise UsageError("--all already means every segment: give it alone")
        if not (self.every or self.ids or self.names):
            raise UsageError("which segments? Give their ids, --name GLOB, or --all")

    def among(self, segments: Sequence[Segment]) -> list[Segment]:
        """The selected segments, in the account's order.

        Raises:
            UsageError: a pattern matches nothing.
        """
        for pattern in self.names:
            if not any(fnmatchcase(segment.name or "", pattern) for segment in segments):
                raise UsageError(f"--name {pattern!r} matches none of {len(segments)} segments")
        return [segment for segment in segments if self._means(segment)]

    def to_export(self, segments: Sequence[Segment]) -> dict[str, Segment | str]:
        """As `among`, by id; ids without a segment come last.

        An id without a segment is exported all the same: the vendor's answer says what is wrong.
        """
        chosen: dict[str, Segment | str] = {one.segment_id: one for one in self.among(segments)}
        return chosen | {one: one for one in self.ids if one not in chosen}

    def _means(self, segment: Segment) -> bool:
        return (
            self.every
            or segment.segment_id in self.ids
            or any(fnmatchcase(segment.name or "", pattern) for pattern in self.names)
        )
