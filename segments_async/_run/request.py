"""The request of a bulk export, checked before anything is read, written or sent."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypedDict, TypeVar

import attrs

from segments_async._files.destination import Destination
from segments_async._files.open_place import open_place
from segments_async._files.places import Place
from segments_async._journal.place import hidden
from segments_async._journal.records import RunSpec
from segments_async._sansio.api.credentials import Secret
from segments_async._sansio.api.redaction import redact
from segments_async._sansio.api.wire import LONGEST_ID, is_id
from segments_async._sansio.arguments import check_positive, check_timeout, segment_id_of
from segments_async._sansio.jobs.record import IfLost, RunOptions
from segments_async.errors import ConfigurationError, SegmentsError, printable
from segments_async.models import Segment

StrPath = str | os.PathLike[str]


class ExportOptions(TypedDict, total=False):
    """The keywords of every bulk export, for type checkers; `SegmentsClient` documents them."""

    timeout: float | None
    export_timeout: float
    only_changed: bool
    retry_failed: int
    on_unknown: IfLost
    on_expired: IfLost
    expected_seconds: Mapping[str, float] | None
    overwrite: bool


class BulkOptions(ExportOptions, total=False):
    """The keywords of a client's bulk export."""

    journal: StrPath | None
    run: str | None
    shared: bool


@attrs.frozen(kw_only=True)
class RunRequest:
    """The arguments of a bulk export; see `SegmentsClient.open_bulk_export`.

    Attributes:
        segments: by id; None where only the id was given.
        destination: None where only links are wanted.
        journal: a path or URL; None for none.
        run: the name that the caller gave.
        shared: whether other processes work at the same run.
        overwrite: whether files that are there already may be replaced.
        only_changed: whether to look for segments that needn't be exported.
        unusable: why a segment can never be exported, by its id.
    """

    segments: Mapping[str, Segment | None]
    destination: Place | None
    options: RunOptions
    journal: Secret | None = None
    run: str | None = None
    shared: bool = False
    overwrite: bool = False
    only_changed: bool = False
    unusable: Mapping[str, SegmentsError] = attrs.field(factory=dict[str, SegmentsError])

    @property
    def directory(self) -> str | None:
        """The location of the files; None where only links are wanted."""
        return None if self.destination is None else self.destination.location

    @property
    def stored_options(self) -> dict[str, Any]:
        """The keywords that a later session, or a worker, makes the same request with."""
        options = self.options
        return {
            "overwrite": self.overwrite,
            "only_changed": self.only_changed,
            "retry_failed": options.retry_failed,
            "on_unknown": options.on_unknown,
            "on_expired": options.on_expired,
            "export_timeout": options.export_timeout,
        }

    @property
    def spec(self) -> RunSpec:
        """The part of the request that the journal stores for a later session of the run."""
        # The specs of other runs stay as they were before there were shared runs.
        shared = {"shared": True} if self.shared else {}
        return RunSpec(
            segments=[segment for segment in self.segments if segment not in self.unusable],
            options=self.stored_options | shared,
        )


def bulk_export(
    segments: Iterable[Segment | str],
    to: StrPath | Destination | None,
    *,
    journal: StrPath | None = None,
    run: str | None = None,
    shared: bool = False,
    timeout: float | None = None,
    export_timeout: float = 86_400.0,
    only_changed: bool = False,
    retry_failed: int = 0,
    on_unknown: IfLost = "report",
    on_expired: IfLost = "report",
    expected_seconds: Mapping[str, float] | None = None,
    overwrite: bool = False,
) -> RunRequest:
    """The request that these arguments make. The keywords' defaults stand here and nowhere else.

    Raises:
        ConfigurationError: an id that can't be one, or options that make no sense.
    """
    place = None if journal is None else hidden(journal)
    del journal  # an error below shows this frame's variables to error reporters
    if isinstance(segments, str):
        # To a type checker a string is an iterable of strings; here each of them is a POST.
        raise ConfigurationError("segments: an iterable of segments or ids, not one string")
    given, unusable = _segments(segments)
    _check_use_of_journal(place, run, given, only_changed=only_changed)
    _check_shared(place, run, shared=shared)
    files = [
        (segment_id, None if segment is None else segment.name)
        for segment_id, segment in given.items()
        if segment_id not in unusable
    ]
    return RunRequest(
        segments=given,
        destination=None if to is None else open_place(to, files, overwrite=overwrite),
        options=_checked(
            RunOptions(
                timeout=timeout,
                export_timeout=export_timeout,
                retry_failed=retry_failed,
                on_unknown=on_unknown,
                on_expired=on_expired,
                expected_seconds=dict(expected_seconds or {}),
            )
        ),
        journal=place,
        run=run,
        shared=shared,
        overwrite=overwrite,
        only_changed=only_changed,
        unusable=unusable,
    )


def _check_use_of_journal(
    journal: object, run: str | None, given: Mapping[str, Segment | None], *, only_changed: bool
) -> None:
    """Refuse options that need a journal, or segments, which were not given."""
    if only_changed and journal is None:
        raise ConfigurationError("only_changed: needs a journal, which knows the last run's files")
    if run is not None and journal is None:
        raise ConfigurationError("run: needs a journal, which stores the run under its name")
    if only_changed and (bare := [one for one, segment in given.items() if segment is None]):
        raise ConfigurationError(
            f"only_changed: {len(bare)} of the segments are bare ids, the first {bare[0]}. Only a "
            "Segment, as list_segments() returns it, says when it last ran. Nothing was sent"
        )


def _check_shared(journal: object, run: str | None, *, shared: bool) -> None:
    """Refuse a shared run that other processes could not find."""
    if shared and journal is None:
        raise ConfigurationError("shared: needs a journal, in which the processes find the run")
    if shared and run is None:
        raise ConfigurationError(
            "shared: needs the run's name (run=...). Without one, a process that starts late would "
            "start a run of its own, and request every export once more"
        )


def _segments(
    segments: Iterable[Segment | str],
) -> tuple[dict[str, Segment | None], dict[str, SegmentsError]]:
    """The segments by id, and why some of them can't be exported."""
    given: dict[str, Segment | None] = {}
    unusable: dict[str, SegmentsError] = {}
    for segment in segments:
        if isinstance(segment, Segment) and not is_id(segment.segment_id):
            # The vendor's own id, and so this one segment's outcome; a caller's id is a mistake.
            shown = _shown_id(segment.segment_id)
            given[shown] = segment
            unusable[shown] = unusable_id(shown)
        else:
            segment_id = segment_id_of(segment)
            known = segment if isinstance(segment, Segment) else None
            given[segment_id] = known or given.get(segment_id)
    return given, unusable


def _shown_id(segment_id: str) -> str:
    """A text for a segment without a usable id, fit for a log and a journal; never a usable id."""
    shown = printable(redact(segment_id))
    return shown if len(shown) <= LONGEST_ID else shown[: LONGEST_ID - 3] + "..."


def unusable_id(segment_id: str) -> ConfigurationError:
    """The error for an id that can't be sent."""
    return ConfigurationError(
        f"segment {segment_id}: not an id that this library sends (letters, digits, _ and -, at "
        f"most {LONGEST_ID}); nothing was sent for it"
    )


def _checked(options: RunOptions) -> RunOptions:
    check_timeout(options.timeout)
    check_positive("export_timeout", options.export_timeout)
    if options.retry_failed < 0:
        raise ConfigurationError(f"retry_failed: 0 or more, not {options.retry_failed!r}")
    for name, value in (("on_unknown", options.on_unknown), ("on_expired", options.on_expired)):
        if value not in ("report", "resubmit"):
            raise ConfigurationError(f'{name}: "report" or "resubmit", not {value!r}')
    for segment_id, seconds in options.expected_seconds.items():
        check_positive(f"expected_seconds[{segment_id!r}]", seconds)
    return options


CallableT = TypeVar("CallableT", bound=Callable[..., Any])


def shows_options(options: Any) -> Callable[[CallableT], CallableT]:
    """Let `inspect.signature` and rendered docs show each of these keywords for `**options`.

    Args:
        options: `ExportOptions` or `BulkOptions`.
    """

    def decorate(function: CallableT) -> CallableT:
        own = inspect.signature(function)
        named = [one for one in own.parameters.values() if one.kind is not one.VAR_KEYWORD]
        keywords = inspect.signature(bulk_export).parameters
        named += [one for name, one in keywords.items() if name in options.__annotations__]
        shown = own.replace(parameters=named)
        setattr(function, "__signature__", shown)  # noqa: B010 - unknown to types
        return function

    return decorate
