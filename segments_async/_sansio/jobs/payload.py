"""The payload of an event: typed in memory, JSON in the journal.

The journal holds no link: a presigned link is a credential. So an export's `filename` is never
written, texts from elsewhere (a segment's name, an error's message) are written redacted, and
:func:`check_secrets` refuses a secret that is left. All that is read back is checked strictly.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
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
    """A payload that this library doesn't write."""


class SecretInPayload(ValueError):
    """A payload that would put a signed link or a credential on disk: a fault in this library."""


@attrs.frozen
class Failure:
    """Why an export has no file.

    Attributes:
        type: the name of the error's class.
        submitted: as in :class:`NotExported`.
        resumable: as in :class:`NotExported`.
        details: those attributes of the error that are numbers, texts or None.
        name: the segment's name where no export has it; None where one has, or it isn't known.
    """

    type: str
    message: str
    submitted: Submitted
    resumable: bool
    details: Mapping[str, Any] = attrs.field(factory=dict[str, Any])
    name: str | None = None

    @classmethod
    def of(cls, outcome: NotExported) -> Failure:
        """The failure that an outcome tells."""
        error = outcome.error
        details = {name: value for name, value in vars(error).items() if _is_scalar(value)}
        return cls(type(error).__name__, str(error), outcome.submitted, outcome.resumable, details)

    def error(self, export: Export | None) -> SegmentsError:
        """The error, anew; a plain SegmentsError where this version doesn't know the class."""
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
    """The payload of an event. None: the event has no such value."""

    export: Export | None = None
    file: ExportedFile | None = None
    failure: Failure | None = None

    @classmethod
    def of_file(cls, file: ExportedFile) -> Payload:
        return cls(file.export, file)

    @classmethod
    def of_outcome(cls, outcome: NotExported) -> Payload:
        return cls(outcome.export, failure=Failure.of(outcome))

    def named(self, name: str | None) -> Payload:
        """The payload with the segment's name, where it tells an end without an export.

        Otherwise a later reader of the journal would have the segment's id alone.
        """
        if self.failure is None or self.export is not None:
            return self
        return attrs.evolve(self, failure=attrs.evolve(self.failure, name=name))


#: The payload of an event without any value.
NOTHING = Payload()


def payload_to_json(payload: Payload) -> str:
    """The payload as JSON, without links and redacted.

    Raises:
        SecretInPayload: the text holds a link's query or a signature all the same.
    """
    value: dict[str, Any] = {}
    if payload.export is not None:
        value["export"] = _redacted(export_to_json(attrs.evolve(payload.export, filename=None)))
    if payload.file is not None:
        value["file"] = {name: getattr(payload.file, name) for name in _FILE}
    if payload.failure is not None:
        value["error"] = _redacted(_failure_to_json(payload.failure))
    _check_texts(value)
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


def payload_from_json(
    segment_id: str, value: Mapping[str, Any], known: Export | None = None
) -> Payload:
    """The payload that :func:`payload_to_json` wrote; `known` is the export of earlier events.

    Raises:
        UnreadablePayload: `payload_to_json` writes no such value.
    """
    try:
        return _read(segment_id, value, known)
    except UnreadablePayload:
        raise
    except (AttributeError, KeyError, TypeError, ValueError, ConfigurationError) as exc:
        raise UnreadablePayload(f"payload of segment {segment_id}: {exc}") from exc


def check_secrets(text: str) -> None:
    """Refuse a text that holds a link's query, user information, or a signature.

    Raises:
        SecretInPayload: it does. The message doesn't repeat it.
    """
    if ("://" in text and redact(text) != text) or without_signatures(text) != text:
        raise SecretInPayload("a link with a query, or a signature, does not go into the journal")


def _check_texts(value: Any) -> None:
    """Check each text of a JSON value: a dump's quotes would end a link that isn't at its end."""
    inner: Iterable[Any] = ()
    if isinstance(value, str):
        check_secrets(value)
    elif isinstance(value, dict):
        inner = cast(dict[str, Any], value).values()
    for each in inner:
        _check_texts(each)


_FILE: dict[str, type] = {"location": str, "size": int, "sha256": str, "verified": bool}
_SUBMITTED: dict[str, Submitted] = {"no": "no", "yes": "yes", "maybe": "maybe"}


def _read(segment_id: str, value: Mapping[str, Any], known: Export | None) -> Payload:
    if unknown := value.keys() - {"export", "file", "error"}:
        names = redact(", ".join(sorted(unknown)))
        raise UnreadablePayload(f"payload of segment {segment_id}: {names:.200}?")
    export = _read_export(segment_id, value["export"]) if "export" in value else None
    file = failure = None
    if "file" in value:
        source = known if export is None else export
        if source is None:
            raise UnreadablePayload(f"segment {segment_id}: a file of no export")
        values = {name: _typed(value["file"], name, kind) for name, kind in _FILE.items()}
        file = ExportedFile(export=source, **values)
    if "error" in value:
        failure = _read_failure(value["error"])
    return Payload(export, file, failure)


def _read_export(segment_id: str, value: Any) -> Export:
    export = export_from_json(value)
    if export.segment.segment_id != segment_id:
        raise UnreadablePayload(f"segment {segment_id}: the export of another segment")
    return export


def _failure_to_json(failure: Failure) -> dict[str, Any]:
    value = attrs.asdict(failure)
    if failure.name is None:
        del value["name"]
    return value


def _read_failure(value: Any) -> Failure:
    return Failure(
        type=_typed(value, "type", str),
        message=printable(_typed(value, "message", str)),  # it is shown, and the journal is input
        submitted=_submitted(value["submitted"]),
        resumable=_typed(value, "resumable", bool),
        details=dict(_typed(value, "details", dict)),
        name=_typed(value, "name", str) if "name" in value else None,
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


def _is_scalar(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is None or isinstance(value, str | int)


def _redacted(value: Any) -> Any:
    """The JSON value with each text redacted."""
    if isinstance(value, dict):
        known = cast(dict[str, Any], value)
        return {name: _redacted(inner) for name, inner in known.items()}
    if not isinstance(value, str):
        return value
    return redact(value) if "://" in value else without_signatures(value)
