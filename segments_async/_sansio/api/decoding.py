"""What a body of the vendor's API holds: exports and segments, read from JSON and written to it.

What an export can't go on without (its id, its status, its link) is read strictly: a fault there is
a DecodeError with a JSON path. Every other field only decorates, and is None where it can't be
read: the page itself calls `projectId` and `filename` "not nullable" and prints examples without
them, and an export whose id was thrown away for a null `startTime` would run at the vendor without
anybody to fetch it. Unknown fields are ignored and unknown enum values kept, so that the vendor may
add.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar, cast

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, override

from segments_async._sansio.api.redaction import redact
from segments_async._sansio.api.wire import LONGEST_ID, ApiAnswer, ApiRequest, raise_for_status
from segments_async.errors import DecodeError
from segments_async.models import Export, ExportStatus, Segment, SegmentType

T = TypeVar("T")


@attrs.frozen
class SegmentList:
    """A list of segments, as far as it can be read.

    Attributes:
        segments: in the vendor's order.
        left_out: how many records have no id that can be read.
        fault: what is wrong with the first of those, and where; None where none was left out.
    """

    segments: list[Segment]
    left_out: int = 0
    fault: str | None = None


@attrs.frozen
class _Fault:
    """What is wrong with an answer, and the JSON path to it."""

    where: str
    what: str


def read_segments(request: ApiRequest, answer: ApiAnswer) -> SegmentList:
    """The answer to a list request.

    One odd record costs that record. Where no record at all can be read, the list can't be.

    Raises:
        APIStatusError: the status isn't success.
        DecodeError: not a list, or a list without a readable record.
    """
    raise_for_status(request, answer)
    return _or_raise(request, _segments_in(answer))


def read_submitted(request: ApiRequest, answer: ApiAnswer, *, segment_id: str) -> Export:
    """The answer to a submit: all that is needed of it is the export's id.

    The id may be one that can't go into a URL (see :func:`is_id`): it is returned all the same.

    Raises:
        APIStatusError: the status isn't success.
        DecodeError: no id in it, or an answer about another segment.
    """
    raise_for_status(request, answer)
    return _or_raise(request, _submitted_in(answer, segment_id))


def read_status(
    request: ApiRequest, answer: ApiAnswer, *, export_id: str, segment_id: str | None = None
) -> Export:
    """The answer to a poll, which must be about the export that was asked for.

    A cache, or a vendor's mix-up, that answers about another export would otherwise end as one
    segment's users in another segment's file.

    Raises:
        APIStatusError: the status isn't success.
        DecodeError: no status in it, or an answer about another export or segment.
    """
    raise_for_status(request, answer)
    return _or_raise(request, _status_in(answer, export_id, segment_id))


def _or_raise(request: ApiRequest, found: T | _Fault) -> T:
    # Nothing is raised from where the parsed answer is a local variable: error reporters show
    # those of every frame, and a signed link may be among them.
    if isinstance(found, _Fault):
        raise _undecodable(request, found.where, found.what)
    return found


def _segments_in(answer: ApiAnswer) -> SegmentList | _Fault:
    value = _parsed(answer.body)
    records = _list_in(value)
    if records is None:
        return _not_json(answer) if value is _NOT_JSON else _Fault("$", "expected a list")
    segments: list[Segment] = []
    first: _Fault | None = None
    for index, record in enumerate(records):
        found = _structured(_with_text_id(record, "segmentId"), Segment, f"$[{index}]")
        if isinstance(found, _Fault):
            first = first or found
        else:
            segments.append(found)
    if first is None:
        return SegmentList(segments)
    left_out = len(records) - len(segments)
    return SegmentList(segments, left_out, f"{first.what} at {first.where}") if segments else first


def _submitted_in(answer: ApiAnswer, segment_id: str) -> Export | _Fault:
    record = _export_in(answer)
    if not isinstance(record, _Fault) and not isinstance(record.get("status"), str):
        # It was accepted, and nothing says that it is done.
        record["status"] = ExportStatus.PENDING.value
    return _export(record, segment_id)


def _status_in(answer: ApiAnswer, export_id: str, segment_id: str | None) -> Export | _Fault:
    record = _export_in(answer, export_id)
    if not isinstance(record, _Fault):
        if record.get("exportId") is None:
            record["exportId"] = export_id  # it stands in the URL that was asked
        if not isinstance(record.get("status"), str) and _has_link(record):
            record["status"] = ExportStatus.COMPLETE.value
    found = _export(record, segment_id)
    if isinstance(found, _Fault) or found.export_id == export_id:
        return found
    if not _same_id(found.export_id, export_id):
        return _Fault("$.exportId", "an answer about another export")
    # Spelt as it was asked for: by this spelling it is known, here and in the journal.
    return attrs.evolve(found, export_id=export_id)


def _export(record: dict[str, Any] | _Fault, segment_id: str | None) -> Export | _Fault:
    if isinstance(record, _Fault):
        return record
    record["segment"] = _segment_in(record.get("segment"), segment_id)
    export = _structured(record, Export, "$")
    if isinstance(export, _Fault) or segment_id is None:
        return export
    named = export.segment.segment_id
    if not _same_id(named, segment_id):
        # The id is in the message: a person may ask the vendor about the export that runs.
        shown = redact(export.export_id)[:LONGEST_ID]
        what = f"an answer about another segment, with the export's id {shown!r},"
        return _Fault("$.segment.segmentId", what)
    if named == segment_id:
        return export
    # Spelt as the caller spells it, who looks for it by this id.
    return attrs.evolve(export, segment=attrs.evolve(export.segment, segment_id=segment_id))


def _same_id(one: str, other: str) -> bool:
    """UUIDs are written in either case."""
    return one.casefold() == other.casefold()


def _export_in(answer: ApiAnswer, export_id: str | None = None) -> dict[str, Any] | _Fault:
    """A copy of the export's object, also from a list, or from an envelope.

    Args:
        answer: the vendor's.
        export_id: of the export that was asked about, if any: it is looked for among several.
    """
    value = _parsed(answer.body)
    if value is _NOT_JSON:
        return _not_json(answer)
    only = _array(value)
    record = _object(only[0] if only is not None and len(only) == 1 else value)
    if record is None or not _is_export(record):
        found = list(_objects_with("exportId", value))
        if len(found) > 1 and export_id is not None:
            asked = (_with_text_id(one, "exportId")["exportId"] for one in found)
            found = [o for o, i in zip(found, asked, strict=True) if _is_text(i, export_id)]
        record = found[0] if len(found) == 1 else record
    if record is None:
        return _Fault("$", f"expected an object, found {type(value).__name__}")
    return dict(_with_text_id(record, "exportId"))


def _is_export(record: Mapping[str, Any]) -> bool:
    """Whether this is the export's own object. An envelope may have a status of its own."""
    if "exportId" in record:
        return True
    status = record.get("status")
    return isinstance(status, str) and status.strip().casefold() in _STATUSES


_STATUSES = frozenset(status.value.casefold() for status in ExportStatus)


def _is_text(value: object, expected: str) -> bool:
    return isinstance(value, str) and _same_id(value, expected)


#: An envelope in an envelope in an envelope is the deepest that is looked into.
_DEEPEST = 3


def _objects_with(key: str, value: Any, depth: int = 0) -> Iterator[dict[str, Any]]:
    """The objects that have the key, from a value's envelopes; none from inside another one."""
    record = _object(value)
    if record is not None and key in record:
        yield record
    elif depth <= _DEEPEST:
        for inner in record.values() if record is not None else _array(value) or ():
            yield from _objects_with(key, inner, depth + 1)


def _list_in(value: Any, depth: int = 0) -> Sequence[Any] | None:
    """The list of records, also from an envelope that has one such list.

    Where an envelope has several lists, the one with a segment in it counts: others hold errors,
    warnings or links.
    """
    envelope = _object(value)
    if envelope is None:
        return _array(value)
    lists = [v for v in map(_array, envelope.values()) if v is not None]
    lists = [v for v in lists if any(map(_has_segment_id, v))] or lists
    if not lists and depth < _DEEPEST:
        inner = (_list_in(v, depth + 1) for v in envelope.values() if isinstance(v, dict))
        lists = [v for v in inner if v is not None]
    return lists[0] if len(lists) == 1 else None


def _has_segment_id(value: Any) -> bool:
    record = _object(value)
    return record is not None and "segmentId" in record


def _segment_in(value: Any, asked: str | None) -> dict[str, Any]:
    """The segment's object, with the id that was asked for where it names none."""
    record = dict(_with_text_id(_object(value) or {}, "segmentId"))
    if not isinstance(record.get("segmentId"), str):
        record["segmentId"] = asked or ""
    return record


def _with_text_id(value: Any, key: str) -> Any:
    """The object with its id as a text: the vendor wrote a number, or white space around it."""
    record = _object(value)
    if record is None:
        return value
    told = record.get(key)
    if type(told) is int:
        return {**record, key: str(told)}
    if isinstance(told, str) and told != told.strip():
        return {**record, key: told.strip()}
    return value


def _object(value: Any) -> dict[str, Any] | None:
    return cast(dict[str, Any], value) if isinstance(value, dict) else None


def _array(value: Any) -> Sequence[Any] | None:
    return cast(Sequence[Any], value) if isinstance(value, list) else None


def _has_link(record: Mapping[str, Any]) -> bool:
    return isinstance(record.get("filename"), str) and bool(record["filename"].strip())


def export_to_json(value: Export | Segment) -> dict[str, Any]:
    """An export as the vendor writes it, without what is None."""
    return {
        _camel(a.name): _to_json(inner)
        for a in attrs.fields(type(value))
        if (inner := getattr(value, a.name)) is not None
    }


def _to_json(value: str | datetime | Segment) -> Any:
    if isinstance(value, Segment):
        return export_to_json(value)
    return value.isoformat() if isinstance(value, datetime) else value


def export_from_json(value: Any) -> Export:
    """What :func:`export_to_json` wrote; ValueError, with a JSON path, where it isn't that."""
    try:
        return _own.structure(value, Export)
    except Exception as exc:
        where, what = _fault(exc, "$")
        raise ValueError(f"{what} at {where}") from exc


def _structured(value: Any, shape: type[T], path: str) -> T | _Fault:
    try:
        return _vendor.structure(value, shape)
    except Exception as exc:  # noqa: BLE001
        # The input is the vendor's and cattrs raises what its hooks raise: whatever it is, it
        # means that this body is not the page's.
        return _Fault(*_fault(exc, path))


def _not_json(answer: ApiAnswer) -> _Fault:
    kind = answer.headers.get("content-type", "no content type")
    return _Fault("$", f"not JSON ({redact(kind):.80})")


_NOT_JSON = object()


def _parsed(body: bytes) -> Any:
    """The JSON value, or _NOT_JSON. Returned, since the parser's error holds the whole body."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        return _parsed_all_the_same(body)


def _parsed_all_the_same(body: bytes) -> Any:
    """The value of a body that is JSON but for a blemish.

    That is a byte of another encoding or a bare newline in a name, a number that Python won't
    read, or something after the value: none of them is in the way of the export's id.
    """
    text = body.decode(json.detect_encoding(body), "replace").lstrip("\ufeff \t\r\n")
    if not text.startswith(("{", "[")):
        return _NOT_JSON
    try:
        return _lenient.raw_decode(text)[0]
    except (ValueError, RecursionError):
        return _NOT_JSON


def _int(digits: str) -> int | None:
    try:
        return int(digits)
    except ValueError:  # of more than 4 300 digits
        return None


_lenient = json.JSONDecoder(strict=False, parse_int=_int)


def _undecodable(request: ApiRequest, where: str, what: str) -> DecodeError:
    return DecodeError(
        f"{request.method} {request.path}: {what} at {where}",
        method=request.method,
        path=request.path,
        where=where,
    )


def _fault(exc: Exception, path: str) -> tuple[str, str]:
    """The JSON path of the first fault in a cattrs error, and what is wrong there."""
    if not isinstance(exc, cattrs.BaseValidationError):
        what = "missing" if isinstance(exc, KeyError) else str(exc) or "of another shape"
        return path, what
    inner = exc.exceptions[0]
    for note in getattr(inner, "__notes__", ()):
        if isinstance(note, cattrs.IterableValidationNote):
            path = f"{path}[{note.index}]"
        elif isinstance(note, cattrs.AttributeValidationNote):
            path = f"{path}.{_camel(note.name)}"
    return _fault(inner, path)


class _Mismatch(Exception):
    """What a hook finds; no ValueError, which json.loads raises for bodies that aren't JSON."""


def _string(value: object, _: object) -> str:
    if not isinstance(value, str):
        raise _Mismatch(f"expected a string, found {type(value).__name__}")
    return value


def _timestamp(value: object, _: object) -> datetime:
    """The page's ``2019-04-09T12:25:06.000Z``. Without an offset it is taken as UTC."""
    try:
        moment = datetime.fromisoformat(_string(value, None))
        if moment.tzinfo is UTC:
            return moment
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):
        # The cause repeats the text, which may be anything: a link, put into the wrong field.
        raise _Mismatch("expected a date and time") from None


def _nullable(hook: Callable[[object, object], T]) -> Callable[[object, object], T | None]:
    return lambda value, shape: None if value is None else hook(value, shape)


def _readable(hook: Callable[[object, object], T]) -> Callable[[object, object], T | None]:
    """The value, or None where it isn't one: for what only decorates."""

    def read(value: object, shape: object) -> T | None:
        try:
            return None if value is None else hook(value, shape)
        except _Mismatch:
            return None

    return read


def _open_enum(members: type[StrEnum]) -> Callable[[object, object], StrEnum | str]:
    """A known value, in whatever case, becomes the member; an unknown one stays a string."""
    known: dict[str, StrEnum] = {member.value.casefold(): member for member in members}

    def hook(value: object, _: object) -> StrEnum | str:
        text = _string(value, None)
        return known.get(text.strip().casefold(), text)

    return hook


def _camel(name: str) -> str:
    head, *rest = name.split("_")
    return head + "".join(word.capitalize() for word in rest)


def _mapping_of(shape: type[Any], converter: cattrs.Converter) -> Callable[[Any, Any], Any]:
    """The structure function for a class whose attributes are in camelCase on the wire."""
    renamed = {a.name: override(rename=_camel(a.name)) for a in attrs.fields(shape)}
    structure: Any = make_dict_structure_fn(shape, converter, **renamed)  # type: ignore[arg-type]

    def hook(value: object, _: object) -> Any:
        if not isinstance(value, dict):
            raise _Mismatch(f"expected an object, found {type(value).__name__}")
        return structure(value, shape)

    return hook


def _make_converter(
    optional: Callable[[Callable[[object, object], Any]], Callable[[object, object], Any]],
) -> cattrs.Converter:
    """A converter of exports and segments; `optional` says how what may be None is read."""
    converter = cattrs.Converter(detailed_validation=True)
    converter.register_structure_hook(str, _string)
    # cattrs has its own way with optional values: through two more calls for each.
    converter.register_structure_hook(str | None, optional(_string))
    converter.register_structure_hook(datetime | None, optional(_timestamp))
    converter.register_structure_hook(SegmentType | str | None, optional(_open_enum(SegmentType)))
    converter.register_structure_hook(ExportStatus | str, _open_enum(ExportStatus))
    converter.register_structure_hook(Segment, _mapping_of(Segment, converter))
    converter.register_structure_hook(Export, _mapping_of(Export, converter))
    return converter


#: Reads what the vendor wrote.
_vendor = _make_converter(_readable)
#: Reads what this library wrote, in which nothing is odd.
_own = _make_converter(_nullable)
