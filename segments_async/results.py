"""The results of exports: files, outcomes, the progress of a run, and its report.

`BulkExportError` is here and not in `errors`, since it holds a report.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

import attrs

from segments_async.errors import ConfigurationError, SegmentsError, TargetExistsError
from segments_async.models import Export

Source = Literal["exported", "resumed", "unchanged"]


@attrs.frozen
class ExportedFile:
    """A whole file in its final place.

    Attributes:
        location: the absolute path.
        size: in bytes, as written: of a file that is stored gzip-encoded, decoded.
        sha256: of the bytes as written, in hex.
        verified: whether the server announced a length, and the file has that length. False where
            no length was announced: a file that was cut off can't be told from a whole one then.
        export: the export it came from.
    """

    location: str
    size: int
    sha256: str
    verified: bool
    export: Export

    @property
    def path(self) -> Path:
        """The location as a local path.

        Raises:
            ConfigurationError: the file isn't on this machine.
        """
        if "://" in self.location:
            raise ConfigurationError(f"not a local file: {self.location}")
        return Path(self.location)


@attrs.frozen
class Exported:
    """A segment whose file is in place.

    Attributes:
        segment_id: the segment.
        export: the COMPLETE export.
        file: the file.
        source: ``"exported"`` by this session; ``"resumed"`` by an earlier session of the run;
            ``"unchanged"`` by an earlier run, the segment not having run since.
    """

    segment_id: str
    export: Export
    file: ExportedFile
    source: Source = "exported"


@attrs.frozen
class Completed:
    """A segment whose export is COMPLETE, its file not fetched (a run with ``to=None``).

    Attributes:
        segment_id: the segment.
        export: the COMPLETE export, with its link in ``export.filename``.
    """

    segment_id: str
    export: Export


@attrs.frozen
class NotExported:
    """A segment without a file.

    Attributes:
        segment_id: the segment.
        export: the export as last seen, or None where there is none.
        error: why there is no file.
        submitted: whether the vendor was asked: ``"no"``, ``"yes"``, or ``"maybe"`` where the
            answer was lost.
        resumable: whether going on later costs no second export: the export is still running or
            complete, or was never asked for.
    """

    segment_id: str
    export: Export | None
    error: SegmentsError
    submitted: Literal["no", "yes", "maybe"]
    resumable: bool


#: How one segment of a run ended.
Outcome = Exported | Completed | NotExported

OutcomeT = TypeVar("OutcomeT", bound=Exported | Completed, covariant=True)


@attrs.frozen
class Progress:
    """The progress of a run. `waiting` to `not_exported` add up to `total`.

    Attributes:
        total: segments of the run.
        waiting: segments that are not submitted yet.
        pending: segments whose exports the vendor works on.
        fetching: segments whose exports are complete, and whose files are not in place yet.
        exported: segments whose files are in place.
        unchanged: segments that were not exported again, since their last files are still right.
        not_exported: segments that ended without a file.
        bytes: of files, fetched so far.
        requests: sent to the API by all callers of this client since the run began.
        throttled: how many of those were answered 429.
        rate: requests/s sent at most at present; None while nothing limits them.
        oldest_link_age: seconds since the vendor completed the oldest export whose file isn't in
            place, by this machine's clock; None where there is none. Files stay for 48 hours.
        eta_seconds: until the last outcome, if all goes on as it went; None while too little is
            known to say.
    """

    total: int
    waiting: int
    pending: int
    fetching: int
    exported: int
    unchanged: int
    not_exported: int
    bytes: int
    requests: int
    throttled: int
    rate: float | None
    oldest_link_age: float | None
    eta_seconds: float | None


@attrs.frozen
class BulkReport(Generic[OutcomeT]):
    """The result of a run.

    Attributes:
        name: the run's.
        exported: outcomes of the segments whose files are in place, in completion order. Of a run
            with ``to=None``: outcomes of the segments whose exports are COMPLETE.
        not_exported: outcomes of the other segments, each with its error, in completion order.
        started_at: aware, UTC.
        ended_at: aware, UTC.
        progress: the last.
    """

    name: str
    exported: Sequence[OutcomeT]
    not_exported: Sequence[NotExported]
    started_at: datetime
    ended_at: datetime
    progress: Progress

    @property
    def ok(self) -> bool:
        """Whether every segment was exported; of an empty run, too."""
        return not self.not_exported

    def raise_for_errors(self) -> None:
        """Raise BulkExportError if a segment was not exported."""
        if self.not_exported:
            first = self.not_exported[0]
            raise BulkExportError(
                f"{len(self.not_exported)} of {self.progress.total} segments were not exported; "
                f"the first: {first.error}",
                report=self,
            )


class BulkExportError(SegmentsError):
    """Not every segment of a bulk export was exported.

    Attributes:
        report: the outcomes of all segments.
    """

    report: BulkReport[Any]

    def __init__(self, message: str, *, report: BulkReport[Any]) -> None:
        super().__init__(message, report=report)


def outcome_line(
    outcome: Exported | Completed | NotExported, *, run: str, name: str | None = None
) -> dict[str, object]:
    """One outcome as one JSON object: a line of `manifest.jsonl`, and of the CLI's output.

    The same keys on every line, null where there is nothing to say; docs/manifest.md describes
    them. It holds no link: a presigned one is a credential.
    """
    export = outcome.export
    line: dict[str, object] = {
        "run": run,
        "at": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "outcome": _KINDS[type(outcome)],
        "segment_id": outcome.segment_id,
        "name": name if export is None else export.segment.name or name,
        "export_id": export and export.export_id,
        "file": None,
        "size": None,
        "sha256": None,
        "verified": None,
        "source": None,
        "submitted": "yes",
        "resumable": None,
        "error": None,
    }
    match outcome:
        case Exported(file=file, source=source):
            line |= {
                "file": file.location,
                "size": file.size,
                "sha256": file.sha256,
                "verified": file.verified,
                "source": source,
            }
        case NotExported(error=error, submitted=submitted, resumable=resumable):
            line |= {"submitted": submitted, "resumable": resumable, "error": _error(error)}
        case Completed():
            pass
    return line


def leaves_all_as_it_was(outcome: Exported | Completed | NotExported) -> bool:
    """Whether an existing file was kept: the manifest's earlier line about it is still right."""
    return isinstance(outcome, NotExported) and isinstance(outcome.error, TargetExistsError)


_KINDS = {Exported: "exported", Completed: "completed", NotExported: "not_exported"}


def _error(error: SegmentsError) -> dict[str, str]:
    return {"type": type(error).__name__, "message": str(error)}
