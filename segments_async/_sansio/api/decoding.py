"""The vendor's answers to a list request, a submit and a poll.

An export's id, status and link are read strictly: a fault there is a DecodeError with a JSON path.
Every other field is None if it can't be read. The page itself calls `projectId` and `filename` "not
nullable", and prints examples without them. If a null `startTime` made the answer to a POST
unreadable, its export would run at the vendor and never be fetched. Unknown fields are ignored, and
unknown enum values kept, so that the vendor may add some.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import attrs

from segments_async._sansio.api.json_values import (
    NOT_JSON,
    as_array,
    as_object,
    goes_on,
    list_with,
    objects_with,
    parsed,
    with_text_id,
)
from segments_async._sansio.api.redaction import redact
from segments_async._sansio.api.structure import Fault, structured
from segments_async._sansio.api.wire import LONGEST_ID, ApiAnswer, ApiRequest, raise_for_status
from segments_async.errors import DecodeError
from segments_async.models import Export, ExportStatus, Segment

T = TypeVar("T")


@attrs.frozen
class SegmentList:
    """The readable segments of a list.

    Attributes:
        segments: in the vendor's order.
        left_out: number of records without a readable id.
        fault: what is wrong with the first of these records, and where; None if there is none.
        goes_on: whether the answer says that other segments are on a further page.
    """

    segments: list[Segment]
    left_out: int = 0
    fault: str | None = None
    goes_on: bool = False


def read_segments(request: ApiRequest, answer: ApiAnswer) -> SegmentList:
    """The answer to a list request. Records that can't be read are left out.

    Raises:
        APIStatusError: the status isn't success.
        DecodeError: the body isn't a list, or no record in it can be read.
    """
    raise_for_status(request, answer)
    return _or_raise(request, _segments_in(answer))


def read_submitted(request: ApiRequest, answer: ApiAnswer, *, segment_id: str) -> Export:
    """The answer to a submit; only the export's id has to be readable.

    An id that can't go into a URL (see :func:`is_id`) is returned like any other.

    Raises:
        APIStatusError: the status isn't success.
        DecodeError: the answer has no id, or is about another segment.
    """
    raise_for_status(request, answer)
    return _or_raise(request, _submitted_in(answer, segment_id))


def read_status(
    request: ApiRequest, answer: ApiAnswer, *, export_id: str, segment_id: str | None = None
) -> Export:
    """The answer to a poll, which must be about the export that was asked for.

    A wrong cache, or a mistake of the vendor's, may answer about another export. Without this check
    one segment's users would be written to another segment's file.

    Raises:
        APIStatusError: the status isn't success.
        DecodeError: the answer has no status, or is about another export or segment.
    """
    raise_for_status(request, answer)
    return _or_raise(request, _status_in(answer, export_id, segment_id))


def shows_segment(answer: ApiAnswer, segment_id: str) -> bool:
    """Whether the answer to a list request has the segment.

    The text is searched, not parsed: parsing a list of 200 000 segments takes seconds. The list
    may be encoded twice: see `parsed`.
    """
    quoted, quoted_twice = f'"{segment_id}"'.encode(), f'"{segment_id}\\"'.encode()
    return 200 <= answer.status <= 299 and (quoted in answer.body or quoted_twice in answer.body)


def _or_raise(request: ApiRequest, found: T | Fault) -> T:
    # Raised here, where the parsed answer is no local variable: error reporters show the locals of
    # every frame, and the answer may hold a signed link.
    if isinstance(found, Fault):
        raise undecodable(request, found.where, found.what)
    return found


def _segments_in(answer: ApiAnswer) -> SegmentList | Fault:
    value = parsed(answer.body)
    records = list_with("segmentId", value)
    if records is None:
        return _not_json(answer) if value is NOT_JSON else Fault("$", "expected a list")
    segments: list[Segment] = []
    first: Fault | None = None
    for index, record in enumerate(records):
        found = structured(with_text_id(record, "segmentId"), Segment, f"$[{index}]")
        if isinstance(found, Fault):
            first = first or found
        else:
            segments.append(found)
    link = answer.headers.get("link", "").lower().replace('"', "")
    more = goes_on(value) or "rel=next" in link
    if first is None:
        return SegmentList(segments, goes_on=more)
    left_out = len(records) - len(segments)
    fault = f"{first.what} at {first.where}"
    return SegmentList(segments, left_out, fault, more) if segments else first


def _submitted_in(answer: ApiAnswer, segment_id: str) -> Export | Fault:
    record = _export_in(answer)
    if not isinstance(record, Fault) and not isinstance(record.get("status"), str):
        # The export was accepted, and the answer doesn't say that it is complete.
        record["status"] = ExportStatus.PENDING.value
    return _export(record, segment_id)


def _status_in(answer: ApiAnswer, export_id: str, segment_id: str | None) -> Export | Fault:
    record = _export_in(answer, export_id)
    if not isinstance(record, Fault):
        if record.get("exportId") is None:
            record["exportId"] = export_id  # the request's URL has it
        if not isinstance(record.get("status"), str) and _has_link(record):
            record["status"] = ExportStatus.COMPLETE.value
    found = _export(record, segment_id)
    if isinstance(found, Fault) or found.export_id == export_id:
        return found
    if not _same_id(found.export_id, export_id):
        return Fault("$.exportId", "an answer about another export")
    # In the spelling of the request, by which this process and the journal know the export.
    return attrs.evolve(found, export_id=export_id)


def _export(record: dict[str, Any] | Fault, segment_id: str | None) -> Export | Fault:
    if isinstance(record, Fault):
        return record
    record["segment"] = _segment_in(record.get("segment"), segment_id)
    export = structured(record, Export, "$")
    if isinstance(export, Fault) or segment_id is None:
        return export
    named = export.segment.segment_id
    if not _same_id(named, segment_id):
        # The message has the export's id, so that a person can ask the vendor about the export.
        shown = redact(export.export_id)[:LONGEST_ID]
        what = f"an answer about another segment, with the export's id {shown!r},"
        return Fault("$.segment.segmentId", what)
    if named == segment_id:
        return export
    # In the caller's spelling, by which the caller looks for the segment.
    return attrs.evolve(export, segment=attrs.evolve(export.segment, segment_id=segment_id))


def _same_id(one: str, other: str) -> bool:
    """Whether the ids are equal; UUIDs are written in either case."""
    return one.casefold() == other.casefold()


def _export_in(answer: ApiAnswer, export_id: str | None = None) -> dict[str, Any] | Fault:
    """A copy of the export's object, which may be in a list or an envelope.

    Args:
        answer: the vendor's.
        export_id: of the export that was asked about; selects one of several objects.
    """
    value = parsed(answer.body)
    if value is NOT_JSON:
        return _not_json(answer)
    only = as_array(value)
    record = as_object(only[0] if only is not None and len(only) == 1 else value)
    if record is None or not _is_export(record):
        found = list(objects_with("exportId", value))
        if len(found) > 1 and export_id is not None:
            found = [one for one in found if _has_id(one, export_id)]
        record = found[0] if len(found) == 1 else record
    if record is None:
        return Fault("$", f"expected an object, found {type(value).__name__}")
    return dict(with_text_id(record, "exportId"))


def _is_export(record: Mapping[str, Any]) -> bool:
    """Whether this is the export's own object, not an envelope with a status of its own."""
    if "exportId" in record:
        return True
    status = record.get("status")
    return isinstance(status, str) and status.strip().casefold() in _STATUSES


_STATUSES = frozenset(status.value.casefold() for status in ExportStatus)


def _has_id(record: dict[str, Any], export_id: str) -> bool:
    found = with_text_id(record, "exportId")["exportId"]
    return isinstance(found, str) and _same_id(found, export_id)


def _segment_in(value: Any, asked: str | None) -> dict[str, Any]:
    """The segment's object; the id of the request if the object has none."""
    record = dict(with_text_id(as_object(value) or {}, "segmentId"))
    if not isinstance(record.get("segmentId"), str):
        record["segmentId"] = asked or ""
    return record


def _has_link(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("filename"), str) and bool(record["filename"].strip())


def _not_json(answer: ApiAnswer) -> Fault:
    kind = answer.headers.get("content-type", "no content type")
    return Fault("$", f"not JSON ({redact(kind):.80})")


def undecodable(request: ApiRequest, where: str, what: str) -> DecodeError:
    """The error of an answer with a fault at this place of its JSON."""
    return DecodeError(
        f"{request.method} {request.path}: {what} at {where}",
        method=request.method,
        path=request.path,
        where=where,
    )
