"""The results of exports: files, outcomes, and the progress of a run."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Literal, TypeVar

import attrs

from segments_async.errors import (
    ConfigurationError,
    SegmentsError,
    TargetExistsError,
)
from segments_async.models import Export, iso

Source = Literal["exported", "resumed", "unchanged"]


@attrs.frozen
class ExportedFile:
    """A whole file in its final place.

    Attributes:
        location: the absolute path; of a file in a :class:`Destination` its URL, such as
            ``"s3://bucket/prefix/name.csv"``.
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

    def to_dict(self) -> dict[str, object]:
        """The file as JSON values; docs/json.md has the schema."""
        return {
            "export_id": self.export.export_id,
            "segment_id": self.export.segment.segment_id,
            "name": self.export.segment.name,
            "file": self.location,
            "size": self.size,
            "sha256": self.sha256,
            "verified": self.verified,
        }


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

    def to_dict(self, *, run: str | None = None, at: datetime | None = None) -> dict[str, object]:
        """The outcome as JSON values: a line of `manifest.jsonl`; docs/json.md has the schema.

        Args:
            run: the run's name.
            at: when the line is made.
        """
        return _line(
            self,
            run,
            at,
            outcome="exported",
            file=self.file.location,
            size=self.file.size,
            sha256=self.file.sha256,
            verified=self.file.verified,
            source=self.source,
        )


@attrs.frozen
class Completed:
    """A segment whose export is COMPLETE, its file not fetched (a run with ``to=None``).

    Attributes:
        segment_id: the segment.
        export: the COMPLETE export, with its link in ``export.filename``.
    """

    segment_id: str
    export: Export

    def to_dict(self, *, run: str | None = None, at: datetime | None = None) -> dict[str, object]:
        """The outcome as JSON values: a line of `manifest.jsonl`; docs/json.md has the schema.

        Args:
            run: the run's name.
            at: when the line is made.
        """
        return _line(self, run, at, outcome="completed")


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
        name: the segment's name; None where it isn't known.
    """

    segment_id: str
    export: Export | None
    error: SegmentsError
    submitted: Literal["no", "yes", "maybe"]
    resumable: bool
    name: str | None = None

    def to_dict(self, *, run: str | None = None, at: datetime | None = None) -> dict[str, object]:
        """The outcome as JSON values: a line of `manifest.jsonl`; docs/json.md has the schema.

        Args:
            run: the run's name.
            at: when the line is made.
        """
        error = {"type": type(self.error).__name__, "message": str(self.error)}
        known = None if self.export is None else self.export.segment.name
        return _line(
            self,
            run,
            at,
            outcome="not_exported",
            name=known or self.name,
            submitted=self.submitted,
            resumable=self.resumable,
            error=error,
        )


#: How one segment of a run ended.
Outcome = Exported | Completed | NotExported

OutcomeT = TypeVar("OutcomeT", bound=Exported | Completed, covariant=True)


class HeldReason(StrEnum):
    """What may delay requests or downloads. Where several do, the first of them here is told."""

    TICKET_GUARD = "ticket_guard"
    """The vendor answered 500, which raises a support ticket. Nothing is sent for a minute or more;
    then one request goes as a probe."""
    VENDOR_AWAY = "vendor_away"
    """The API can't be reached, or a gateway answers in the vendor's place, or the results of
    submits stay unknown. One request at a time goes as a probe."""
    STORAGE_AWAY = "storage_away"
    """Storage can't be reached. One download at a time is tried; the bytes that came are kept."""
    DESTINATION_AWAY = "destination_away"
    """The object storage that the files go to can't be reached, or another destination. It is tried
    again, with pauses of up to a minute; exports go on meanwhile."""
    STORAGE_CREDENTIALS = "storage_credentials"
    """The AWS credentials for ``s3://`` links can't be read or refreshed, which may pass."""
    JOURNAL_AWAY = "journal_away"
    """The journal can't be written. Exports go on, and none is asked for meanwhile."""
    RATE_LIMIT = "rate_limit"
    """The vendor answered 429, or its limit is below one request a second."""
    SHARED_LIMIT = "shared_limit"
    """This process's part of the account's limit is below one request a second."""
    JOB_CAP = "job_cap"
    """As many exports run as ``max_pending``, or the vendor, admits. The next one is asked for when
    one of them ends."""
    OTHER_PROCESSES = "other_processes"
    """Nothing is left for this process in a shared run, and other processes work at the rest. It
    waits for the run's end, and goes on with the work of a process that dies."""


@attrs.frozen(kw_only=True)
class Held:
    """Why nothing moves, or less than could.

    Attributes:
        reason: the cause.
        seconds: until the next request or download is tried; None where an answer, or the end of an
            export, decides.
        until: the time of that try by this machine's clock, aware, UTC; None like `seconds`.
    """

    reason: HeldReason
    seconds: float | None = None
    until: datetime | None = None

    def to_dict(self) -> dict[str, object]:
        """The reason and its end as JSON values; docs/json.md has the schema."""
        return {"reason": str(self.reason), "seconds": self.seconds, "until": iso(self.until)}


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
        held: what delays the run's requests or downloads by more than their turn; None where
            nothing does.
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
    held: Held | None = None

    def to_dict(self) -> dict[str, object]:
        """The progress as JSON values; docs/json.md has the schema."""
        values: dict[str, object] = {
            field.name: getattr(self, field.name) for field in attrs.fields(Progress)
        }
        return values | {"held": None if self.held is None else self.held.to_dict()}


@attrs.frozen
class Activity:
    """One export under way, for a display of the run.

    Attributes:
        segment_id: the segment.
        export_id: the vendor's id; None before its POST is accepted.
        name: the segment's; None where it isn't known.
        state: ``"intent"``, ``"submitted"``, ``"complete"`` (waiting to be fetched) or
            ``"fetching"``.
        age: seconds since its POST was accepted; 0 before.
        bytes: of its file, fetched so far.
    """

    segment_id: str
    export_id: str | None
    name: str | None
    state: str
    age: float
    bytes: int


def leaves_all_as_it_was(outcome: Exported | Completed | NotExported) -> bool:
    """Whether a file was there and was kept: the manifest's earlier line of it still holds."""
    return isinstance(outcome, NotExported) and isinstance(outcome.error, TargetExistsError)


def _line(
    outcome: Exported | Completed | NotExported,
    run: str | None,
    at: datetime | None,
    /,
    **of_this_kind: object,
) -> dict[str, object]:
    """One outcome as one JSON object: the same keys in the same order for every kind.

    It holds no link: a presigned one is a credential.
    """
    export = outcome.export
    line: dict[str, object] = {
        "run": run,
        "at": at and at.astimezone(UTC).isoformat(timespec="milliseconds"),
        "outcome": "",
        "segment_id": outcome.segment_id,
        "name": export and export.segment.name,
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
    return line | of_this_kind


def in_bytes(count: int) -> str:
    """``0 B``, ``12.3 kB``, ``4.5 GB``."""
    if count < 1000:
        return f"{count} B"
    amount = float(count)
    for unit in ("kB", "MB", "GB"):
        amount /= 1000
        if amount < 999.95:
            return f"{amount:.1f} {unit}"
    return f"{amount / 1000:.1f} TB"
