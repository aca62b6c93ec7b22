"""What the journal keeps beside an event, as JSON, and read back strictly.

No link is kept: a presigned one is a credential. An export's `filename` never goes in, texts that
come from elsewhere (a segment's name, an error's message) go in redacted, and
:func:`check_secrets`, which the journal asks last of all, trusts neither.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, cast

import attrs

import segments_async.errors as errors
from segments_async._sansio.api.redaction import redact, without_signatures
from segments_async._sansio.api.structure import export_from_json, export_to_json
from segments_async.errors import (
    ConfigurationError,
    DownloadError,
    ExportError,
    SegmentsError,
    printable,
)
from segments_async.models import Export
from segments_async.results import ExportedFile, NotExported

Submitted = Literal["no", "yes", "maybe"]


class UnreadablePayload(ValueError):
    """Facts that this library doesn't write."""


class SecretInPayload(ValueError):
    """Facts that would put a signed link or a credential on disk: a fault in this library."""


@attrs.frozen
class Failure:
    """How an export that came to no file ended.

    Attributes:
        type: the name of the error's class.
        message: the error's.
        submitted: as in :class:`NotExported`.
        resumable: as in :class:`NotExported`.
        details: the error's other facts, where they are plain values.
    """

    type: str
    message: str
    submitted: Submitted
    resumable: bool
    details: Mapping[str, Any] = attrs.field(factory=dict[str, Any])

    def error(self, export: Export | None) -> SegmentsError:
        """The error, anew; of a class that this version doesn't know, a plain SegmentsError."""
        cls = getattr(errors, self.type, None)
        if not (isinstance(cls, type) and issubclass(cls, SegmentsError)):
            cls = SegmentsError
        error = cls.__new__(cls, self.message)
        error.__dict__.update(self.details)
        if isinstance(error, ExportError | DownloadError):
            error.__dict__["export"] = export
        return error


@attrs.frozen
class Payload:
    """What an event tells, beside that it happened; None where it tells nothing."""

    export: Export | None = None
    file: ExportedFile | None = None
    failure: Failure | None = None


def payload_of(
    *,
    export: Export | None = None,
    file: ExportedFile | None = None,
    outcome: NotExported | None = None,
) -> dict[str, Any]:
    """The facts as JSON values. `export` and `file.export` are the same where both are given."""
    payload: dict[str, Any] = {}
    if export is None and file is not None:
        export = file.export
    if export is None and outcome is not None:
        export = outcome.export
    if export is not None:
        payload["export"] = _redacted(export_to_json(attrs.evolve(export, filename=None)))
    if file is not None:
        payload["file"] = {name: getattr(file, name) for name in _FILE}
    if outcome is not None:
        payload["error"] = _error(outcome)
    return payload


def read_payload(
    segment_id: str, payload: Mapping[str, Any], known: Export | None = None
) -> Payload:
    """Facts as they were written; `known` is the export of earlier events.

    Raises:
        UnreadablePayload: anything else.
    """
    try:
        return _read(segment_id, payload, known)
    except UnreadablePayload:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, ConfigurationError) as exc:
        raise UnreadablePayload(f"facts of segment {segment_id}: {exc}") from exc


def check_secrets(text: str) -> None:
    """Refuse a text that holds a link's query, user information, or a signature.

    Raises:
        SecretInPayload: it does. The message doesn't repeat it.
    """
    if ("://" in text and redact(text) != text) or without_signatures(text) != text:
        raise SecretInPayload("a link with a query, or a signature, does not go into the journal")


_FILE: dict[str, type] = {"location": str, "size": int, "sha256": str, "verified": bool}
_SUBMITTED: dict[str, Submitted] = {"no": "no", "yes": "yes", "maybe": "maybe"}


def _read(segment_id: str, payload: Mapping[str, Any], known: Export | None) -> Payload:
    if unknown := payload.keys() - {"export", "file", "error"}:
        names = redact(", ".join(sorted(unknown)))
        raise UnreadablePayload(f"facts of segment {segment_id}: {names:.200}?")
    export = _read_export(segment_id, payload["export"]) if "export" in payload else None
    file = failure = None
    if "file" in payload:
        source = known if export is None else export
        if source is None:
            raise UnreadablePayload(f"segment {segment_id}: a file of no export")
        values = {name: _typed(payload["file"], name, kind) for name, kind in _FILE.items()}
        file = ExportedFile(export=source, **values)
    if "error" in payload:
        failure = _read_failure(payload["error"])
    return Payload(export, file, failure)


def _read_export(segment_id: str, value: Any) -> Export:
    export = export_from_json(value)
    if export.segment.segment_id != segment_id:
        raise UnreadablePayload(f"segment {segment_id}: the export of another segment")
    return export


def _read_failure(value: Any) -> Failure:
    return Failure(
        type=_typed(value, "type", str),
        message=printable(_typed(value, "message", str)),  # it is shown, and the journal is input
        submitted=_submitted(value["submitted"]),
        resumable=_typed(value, "resumable", bool),
        details=dict(_typed(value, "details", dict)),
    )


def _submitted(value: Any) -> Submitted:
    known = _SUBMITTED.get(value)
    if known is None:
        # Not a KeyError, which would repeat a text that may be anything.
        raise ValueError("submitted: neither no, yes nor maybe")
    return known


def _typed(value: Any, name: str, kind: type) -> Any:
    found = value[name]
    if type(found) is not kind:
        raise TypeError(f"{name}: expected {kind.__name__}, found {type(found).__name__}")
    return found


def _error(outcome: NotExported) -> dict[str, Any]:
    error = outcome.error
    details = {name: value for name, value in vars(error).items() if _plain(value)}
    return {
        "type": type(error).__name__,
        "message": _redacted(str(error)),
        "submitted": outcome.submitted,
        "resumable": outcome.resumable,
        "details": _redacted(details),
    }


def _plain(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int)


def _redacted(value: Any) -> Any:
    """Texts without what :func:`check_secrets` would refuse."""
    if isinstance(value, dict):
        known = cast(dict[str, Any], value)
        return {name: _redacted(inner) for name, inner in known.items()}
    if not isinstance(value, str):
        return value
    return redact(value) if "://" in value else without_signatures(value)
