"""What to send to the vendor, and what an answer means.

Paths, fields and codes are those of the vendor's page, "User Segments Export API". Answers are
converted once, here, strictly: a number where the page has a string is a fault with a path, never
a quiet conversion. Unknown fields are ignored and unknown enum values kept, so that the vendor may
add.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, TypeVar

import attrs
import cattrs
from cattrs.gen import make_dict_structure_fn, override

from segments_async._sansio.links import redact
from segments_async._sansio.retry import retry_after_seconds
from segments_async.errors import (
    APIStatusError,
    AuthenticationError,
    ConfigurationError,
    DecodeError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
)
from segments_async.models import Export, ExportStatus, OutputFormat, Segment, SegmentType

LIST_PATH = "/service/v1/segments/list"
EXPORT_PATH = "/service/v1/segments/export/"

#: Paths without an id in them.
FIXED_PATHS = frozenset({LIST_PATH, EXPORT_PATH})

#: Of an error page, this much is kept: enough to read, too little to fill a log.
EXCERPT_CHARACTERS = 2048

#: Of the word that says which limit was hit, this much.
LONGEST_SCOPE = 80

#: What may stand in a URL's path and in a file's name. The page's ids are UUIDs; the API key and
#: other vendors' ids suggest that more may come, and none of these characters can leave its place.
_ID = re.compile(r"[A-Za-z0-9_-]{1,128}")

T = TypeVar("T")


@attrs.frozen
class ApiRequest:
    """One request to the vendor's API, without credentials."""

    method: str
    path: str
    body: bytes | None = None


@attrs.frozen
class ApiAnswer:
    """One whole answer. Its headers are found by their names in lower case.

    `at` is when it was whole, in seconds of the event loop's clock. `raised` is what a response
    hook of the caller's HTTP client raised at it: the answer counts first, then that is raised.
    """

    status: int
    # Of a COMPLETE export the body has the signed link, and tracebacks may show what frames hold.
    headers: Mapping[str, str] = attrs.field(repr=False)
    body: bytes = attrs.field(repr=False)
    at: float = 0.0
    raised: Exception | None = None


def checked_id(kind: str, value: object) -> str:
    """Return the id if it can go into a URL, else refuse it before anything is sent."""
    if not isinstance(value, str) or not _ID.fullmatch(value):
        # It may be a link, or an Authorization header: in its repr, redact() would miss some.
        shown = repr(redact(value)) if isinstance(value, str) else type(value).__name__
        raise ConfigurationError(f"not the id of {kind}: {shown:.160}")
    return value


def list_request() -> ApiRequest:
    return ApiRequest("GET", LIST_PATH)


def submit_request(segment_id: str, output_format: OutputFormat) -> ApiRequest:
    # Of characters that JSON takes as they are, both of them.
    known = checked_id("a segment", segment_id)
    body = f'{{"segmentId": "{known}", "outputFormat": "{output_format.value}"}}'
    return ApiRequest("POST", EXPORT_PATH, body.encode())


def poll_request(export_id: str) -> ApiRequest:
    return ApiRequest("GET", EXPORT_PATH + checked_id("an export", export_id))


def read_segments(request: ApiRequest, answer: ApiAnswer) -> list[Segment]:
    """The answer to a list request; the errors of :func:`raise_for_status`, or DecodeError."""
    raise_for_status(request, answer)
    return _structure(request, answer, list[Segment], list)


def read_export(
    request: ApiRequest,
    answer: ApiAnswer,
    *,
    segment_id: str | None = None,
    export_id: str | None = None,
) -> Export:
    """The answer to a submit or a poll, which must be about what was asked.

    A cache, or a vendor's mix-up, that answers about another export would otherwise end as one
    segment's users in another segment's file.
    """
    raise_for_status(request, answer)
    export = _structure(request, answer, Export, dict)
    if export_id is not None and export.export_id != export_id:
        raise _undecodable(request, "$.exportId", "an answer about another export")
    if segment_id is not None and export.segment.segment_id != segment_id:
        raise _undecodable(request, "$.segment.segmentId", "an answer about another segment")
    if not _ID.fullmatch(export.export_id):
        raise _undecodable(request, "$.exportId", "not an id")
    return export


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
        return _converter.structure(value, Export)
    except Exception as exc:
        where, what = _fault(exc, "$")
        raise ValueError(f"{what} at {where}") from exc


def raise_for_status(request: ApiRequest, answer: ApiAnswer) -> None:
    """Raise the error that a status code stands for. The page knows 200 alone; 201 would do."""
    if not 200 <= answer.status <= 299:
        raise status_error(request, answer)


def status_error(request: ApiRequest, answer: ApiAnswer) -> APIStatusError:
    """The error for an answer whose status isn't 200. Redirects are not followed on the API."""
    error, text = _MEANINGS.get(answer.status, (APIStatusError, "an unexpected answer"))
    if 500 <= answer.status <= 599:
        error = ServerError
    facts: dict[str, Any] = {}
    if error is RateLimitedError:
        scope = answer.headers.get("x-mp-rate-limit-exceeded")
        facts["scope"] = scope and redact(scope)[:LONGEST_SCOPE]
    return error(
        f"{request.method} {request.path}: {answer.status}: {text}",
        method=request.method,
        path=request.path,
        status_code=answer.status,
        body=redact(answer.body[: 4 * EXCERPT_CHARACTERS].decode("utf-8", "replace"))[
            :EXCERPT_CHARACTERS
        ],
        retry_after=retry_after_seconds(answer.status, answer.headers),
        **facts,
    )


# The sentences after the codes that the page lists are the page's, shortened.
_MEANINGS: dict[int, tuple[type[APIStatusError], str]] = {
    401: (
        AuthenticationError,
        "could not validate the credentials; check that API key and access token are correct",
    ),
    403: (
        PermissionDeniedError,
        "the project does not have access to the Export API; upgrade the account (the Export API "
        "takes a Pro or Enterprise plan) or contact Analytics support to gain access",
    ),
    404: (NotFoundError, "no such segment or export in this account"),
    429: (RateLimitedError, "too many requests in a given amount of time"),
    500: (
        ServerError,
        "an error occurred at the vendor, which has raised a ticket with the Analytics team by "
        "itself; try again at a later time",
    ),
    502: (ServerError, "bad gateway"),
    503: (ServerError, "service unavailable"),
    504: (ServerError, "gateway timeout"),
}


def _structure(
    request: ApiRequest,
    answer: ApiAnswer,
    shape: type[T],
    outermost: type[list[Any] | dict[str, Any]],
) -> T:
    value = _parsed(answer.body)
    if value is _NOT_JSON:
        kind = answer.headers.get("content-type", "no content type")
        raise _undecodable(request, "$", f"not JSON ({redact(kind):.80})")
    try:
        if not isinstance(value, outermost):
            # cattrs takes any iterable for a list, so an object's keys would do.
            raise _Mismatch(f"expected {_JSON_NAMES[outermost]}, found {type(value).__name__}")
        return _converter.structure(value, shape)
    except Exception as exc:  # noqa: BLE001
        # The input is the vendor's and cattrs raises what its hooks raise: whatever it is, it
        # means that this body is not the page's.
        where, what = _fault(exc, "$")
    # Neither this frame nor those of a cause may show the answer: a signed link may be in it.
    del value
    raise _undecodable(request, where, what)


_NOT_JSON = object()


def _parsed(body: bytes) -> Any:
    """The JSON value, or _NOT_JSON. Returned, since the parser's error holds the whole body."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):  # JSONDecodeError and UnicodeDecodeError are ValueErrors
        return _NOT_JSON


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


_JSON_NAMES: dict[type, str] = {list: "a list", dict: "an object"}


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


def _open_enum(members: type[StrEnum]) -> Callable[[object, object], StrEnum | str]:
    """A known value becomes the member, an unknown one stays the plain string."""
    known: dict[str, StrEnum] = {member.value: member for member in members}

    def hook(value: object, _: object) -> StrEnum | str:
        text = _string(value, None)
        return known.get(text, text)

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


def _make_converter() -> cattrs.Converter:
    converter = cattrs.Converter(detailed_validation=True)
    converter.register_structure_hook(str, _string)
    converter.register_structure_hook(datetime, _timestamp)
    # cattrs has its own way with optional values: through two more calls for each.
    converter.register_structure_hook(str | None, _nullable(_string))
    converter.register_structure_hook(datetime | None, _nullable(_timestamp))
    converter.register_structure_hook(SegmentType | str, _open_enum(SegmentType))
    converter.register_structure_hook(ExportStatus | str, _open_enum(ExportStatus))
    converter.register_structure_hook(Segment, _mapping_of(Segment, converter))
    converter.register_structure_hook(Export, _mapping_of(Export, converter))
    return converter


_converter = _make_converter()
