"""Arguments that callers give: each checked once, with an error that names it."""

from __future__ import annotations

from collections.abc import Sequence

from segments_async._sansio.api.wire import checked_id
from segments_async.errors import ConfigurationError
from segments_async.models import Export, Segment


def check_positive(name: str, value: float) -> None:
    """Refuse a number that isn't above zero."""
    if not value > 0:
        raise ConfigurationError(f"{name}: above zero, not {value!r}")


def check_timeout(timeout: float | None) -> None:
    """Refuse seconds that aren't above zero; None means no limit."""
    if timeout is not None:
        check_positive("timeout", timeout)


def check_at_least_one(name: str, value: int) -> None:
    """Refuse a count below one."""
    if value < 1:
        raise ConfigurationError(f"{name}: at least 1, not {value!r}")


def check_patterns(file_hosts: Sequence[str]) -> tuple[str, ...]:
    """The patterns of `file_hosts`; one string would be taken for a pattern per character."""
    if isinstance(file_hosts, str):
        raise ConfigurationError("file_hosts: a sequence of patterns, not one string")
    return tuple(file_hosts)


def segment_id_of(segment: Segment | str) -> str:
    """The id of a segment, or the id itself, checked."""
    return checked_id("a segment", segment.segment_id if isinstance(segment, Segment) else segment)


def export_id_of(export: Export | str) -> str:
    """The id of an export, or the id itself, checked."""
    return checked_id("an export", export.export_id if isinstance(export, Export) else export)
