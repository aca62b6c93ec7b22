"""What the vendor's API says: lists, exports, error pages, headers, ids."""

from __future__ import annotations

import gzip
import json
import pickle
import re
import zlib
from datetime import UTC, datetime
from functools import partial
from typing import Any

import attrs

from fuzz.fuzzing import Decoder
from fuzz.inputs import SECRET, Inputs
from segments_async._sansio.api.content_coding import codings, decoded
from segments_async._sansio.api.decoding import (
    SegmentList,
    read_segments,
    read_status,
    read_submitted,
)
from segments_async._sansio.api.redaction import redact
from segments_async._sansio.api.retry_after import LONGEST_RETRY_AFTER, retry_after_seconds
from segments_async._sansio.api.structure import export_from_json, export_to_json
from segments_async._sansio.api.wire import (
    EXCERPT_CHARACTERS,
    ApiAnswer,
    ApiRequest,
    checked_id,
    list_request,
    poll_request,
    status_error,
)
from segments_async._sansio.files.links import quoted
from segments_async._sansio.pace.limit_headers import Hint, read_hint
from segments_async.errors import APIStatusError, ConfigurationError, DecodeError
from segments_async.models import Export, Segment

SEGMENT_ID = "82200474-c131-4f7b-a35e-381469af31a7"
EXPORT_ID = "8f9fdd71-204c-41e1-a2ab-de7f85002f65"
LINK = "https://bucket.s3.amazonaws.com/a.csv?X-Amz-Date=20191109T000000Z&X-Amz-Signature=5ec4e7"

SEGMENT = {
    "segmentId": SEGMENT_ID,
    "name": "My Segment",
    "description": "This is my segment",
    "category": None,
    "projectId": "5a6646c4-ae5a-4de4-9d47-eb6f228405b2",
    "type": "Static",
    "lastRun": "2019-04-09T12:25:06.000Z",
}
EXPORT = {
    "exportId": EXPORT_ID,
    "segment": SEGMENT,
    "status": "COMPLETE",
    "startTime": "2019-11-09T00:00:00.000Z",
    "endTime": "2019-11-09T00:00:10.000+01:00",
    "filename": LINK,
}

DATES = (
    "Sat, 09 Nov 2019 00:00:00 GMT",
    "Sat, 09 Nov 2019 00:00:07 GMT",
    "Sat, 09-Nov-19 00:01:00 GMT",
    "Sat Nov  9 00:00:09 2019",
    "Sat, 09 Nov 2019 00:00:00 -0000",
    "Fri, 31 Dec 9999 23:59:59 -2359",
    "Mon, 01 Jan 0001 00:00:00 +2359",
    "1 Jan 1 0:0 +99999999999999",
)
_STATUSES = (201, 204, 301, 400, 401, 403, 404, 418, 429, 429, 429, 500, 502, 503, 503, 599, 999)

_ANSWER_HEADERS = {
    "retry-after": ("7", "0.5", "120", "-1", "1e3", *DATES),
    "date": DATES,
    "content-type": ("application/json", "text/html; charset=utf-8"),
    "x-mp-rate-limit-exceeded": ("org", "account", "workspace"),
}

_HINT_HEADERS = {
    "ratelimit": ('"default";r=0;t=12', '"a";r=50;t=30, "b";r=0;t=1', "limit=1, remaining=0"),
    "ratelimit-remaining": ("0", "17", "0.5"),
    "x-ratelimit-remaining": ("0", "17"),
    "ratelimit-reset": ("30", "1573257600", "0"),
    "x-rate-limit-reset": ("30", "3601"),
    "x-mp-rate-limit-percentage-used": ("12", "95", "99.5", "1e3"),
}

#: Error pages as gateways have them; some repeat the request.
_PAGES = (
    b'{"error": "Unauthorized", "message": "could not validate"}',
    b"<html><head><title>502 Bad Gateway</title></head><body><h1>502</h1></body></html>",
    b"Authorization: Basic a2V5OnRva2Vu",
    b"not found: https://user:pw@bucket.s3.amazonaws.com/a?b=c&d=e, nor http://x?",
)


@attrs.frozen
class Answered:
    """An answer, and to what."""

    request: ApiRequest
    answer: ApiAnswer
    segment_id: str | None = None
    export_id: str = EXPORT_ID


def _page(inputs: Inputs) -> bytes:
    page = inputs.choice(_PAGES)
    if inputs.one_in(2):
        page = inputs.changed_bytes(page)
    if inputs.one_in(4):
        text = page.decode("utf-8", "replace")
        page = inputs.planting(text * inputs.choice((1, 1, 1, 40))).encode("utf-8", "surrogatepass")
    return page


def _headers(inputs: Inputs) -> dict[str, str]:
    return inputs.headers(_ANSWER_HEADERS) if inputs.one_in(3) else {}


def _list_answer(inputs: Inputs) -> Answered:
    if inputs.one_in(12):
        return Answered(list_request(), _refusal(inputs))
    body = inputs.json_text([SEGMENT] * inputs.randint(0, 3))
    return Answered(list_request(), ApiAnswer(200, _headers(inputs), body))


def _refusal(inputs: Inputs) -> ApiAnswer:
    return ApiAnswer(inputs.choice(_STATUSES), inputs.headers(_ANSWER_HEADERS), _page(inputs))


def _check_segments(_: Answered, found: SegmentList) -> None:
    assert (found.left_out > 0) == (found.fault is not None), found
    for segment in found.segments:
        _check_segment(segment)


def _check_segment(segment: Segment) -> None:
    assert isinstance(segment.segment_id, str), segment
    texts = (segment.name, segment.project_id, segment.type, segment.description, segment.category)
    assert all(isinstance(text, str | None) for text in texts), segment
    _check_moment(segment.last_run)


def _check_moment(moment: object) -> None:
    assert moment is None or (isinstance(moment, datetime) and moment.tzinfo is UTC), moment


def _export_answer(inputs: Inputs) -> Answered:
    asked = inputs.one_in(2)
    return Answered(
        poll_request(EXPORT_ID),
        _refusal(inputs)
        if inputs.one_in(12)
        else ApiAnswer(inputs.choice((200, 200, 200, 201)), _headers(inputs), _export_text(inputs)),
        segment_id=SEGMENT_ID if asked else None,
        export_id=EXPORT_ID,
    )


def _export_text(inputs: Inputs) -> bytes:
    export = EXPORT
    if inputs.one_in(8):
        export = {**EXPORT, "filename": inputs.planting(LINK)}
    return inputs.json_text(export)


def _check_export(given: Answered, found: Export) -> None:
    assert given.export_id == found.export_id, found
    assert given.segment_id in (None, found.segment.segment_id), found
    assert isinstance(found.export_id, str), found
    _check_exported(found)


def _check_exported(found: Export) -> None:
    """It is what the page says, its link stays out of sight, and the journal can keep the rest."""
    _check_segment(found.segment)
    _check_moment(found.start_time)
    _check_moment(found.end_time)
    known = attrs.evolve(found, filename=None)
    assert repr(known) == repr(found)
    link = found.filename or ""
    if SECRET in link and SECRET not in repr(found):
        assert SECRET.encode() not in pickle.dumps(found), "the link is pickled"
    assert export_from_json(json.loads(json.dumps(export_to_json(known)))) == known


def _check_status_error(given: Answered, found: APIStatusError) -> None:
    assert found.status_code == given.answer.status, found
    assert len(found.body) <= EXCERPT_CHARACTERS, len(found.body)
    assert len(str(found)) <= 400, len(str(found))
    assert len(repr(vars(found))) <= 12 * EXCERPT_CHARACTERS, "facts that fill a log"
    assert len(str(vars(found).get("scope"))) <= 400, "a scope that fills a log"
    _check_seconds(found.retry_after)


def _json_value(inputs: Inputs) -> object:
    value: object = EXPORT
    for _ in range(inputs.some(4)):
        value = inputs.changed_json(value)
    return json.loads(json.dumps(value))  # which joins two halves of a surrogate pair


def _check_seconds(seconds: float | None) -> None:
    assert seconds is None or 0 < seconds <= LONGEST_RETRY_AFTER, seconds


def _retry_after(inputs: Inputs) -> tuple[int, dict[str, str]]:
    status = inputs.choice((429, 503, 429, 503, 200, 401))
    headers = {name: inputs.header(_ANSWER_HEADERS[name]) for name in ("retry-after", "date")}
    if inputs.one_in(10):
        del headers[inputs.choice(("retry-after", "date"))]
    return status, headers


def _check_retry_after(given: tuple[int, dict[str, str]], found: float | None) -> None:
    assert found is None or given[0] in (429, 503), given
    _check_seconds(found)


def _check_hint(_: dict[str, str], found: Hint | None) -> None:
    assert found is None or (0 <= found.wait <= 3600 and found.steady), found


def _id(inputs: Inputs) -> object:
    return inputs.weighted(
        (3, inputs.identifier),
        (3, lambda: inputs.changed(inputs.identifier())),
        (2, lambda: inputs.planting(inputs.identifier())),
        (1, lambda: inputs.json_value(1)),
    )


def _check_id(_: object, found: str) -> None:
    assert re.fullmatch(r"[A-Za-z0-9_-]{1,128}", found), found


def _text(inputs: Inputs) -> str:
    text = inputs.changed(inputs.choice(_PAGES).decode())
    return inputs.planting(text) if inputs.one_in(2) else text


def _check_redacted(_: str, found: str) -> None:
    assert SECRET not in found, f"the secret is shown: {found:.200}"
    assert redact(found) == found, "redacted twice, it is something else"


_CODED = {"content-encoding": ("gzip", "deflate", "br", "utf-8", "gzip, aws-chunked", "x-gzip, ")}


def _coded(inputs: Inputs) -> tuple[str, bytes]:
    # Without a time in it: a seed makes the same bytes in the next second.
    encode = inputs.choice((partial(gzip.compress, mtime=0), zlib.compress, bytes))
    body = encode(_export_text(inputs) * inputs.choice((1, 1, 100)))
    if inputs.one_in(3):
        body = inputs.changed_bytes(body)
    return inputs.header(_CODED["content-encoding"]), body


def _check_coded(given: tuple[str, bytes], found: bytes | None) -> None:
    assert found is None or len(found) <= max(_CAP, len(given[1])), len(found)


#: Bytes, for the decoder of content codings.
_CAP = 4096


def _link(inputs: Inputs) -> str:
    link = inputs.changed(inputs.choice((LINK, LINK.replace("a.csv", "My Segment ü.csv"))))
    return inputs.choice(("", " ", "\n")) + link


def _check_quoted(given: str, found: str) -> None:
    assert quoted(found) == found, "quoted twice, it is something else"
    before, after = given.strip().partition("://"), found.partition("://")
    assert before[0] == after[0], "another scheme"
    assert before[2].partition("/")[0] == after[2].partition("/")[0], "another host"


DECODERS: tuple[Decoder[Any, Any], ...] = (
    Decoder(
        "wire.read_segments",
        (APIStatusError, DecodeError),
        _list_answer,
        lambda given: read_segments(given.request, given.answer),
        _check_segments,
    ),
    Decoder(
        "wire.read_status",
        (APIStatusError, DecodeError),
        _export_answer,
        lambda given: read_status(
            given.request, given.answer, segment_id=given.segment_id, export_id=given.export_id
        ),
        _check_export,
    ),
    Decoder(
        "wire.read_submitted",
        (APIStatusError, DecodeError),
        _export_answer,
        lambda given: read_submitted(given.request, given.answer, segment_id=SEGMENT_ID),
        lambda _, found: _check_exported(found),
    ),
    Decoder(
        "wire.status_error",
        (),
        lambda inputs: Answered(poll_request(EXPORT_ID), _refusal(inputs)),
        lambda given: status_error(given.request, given.answer),
        _check_status_error,
    ),
    Decoder(
        "wire.export_from_json",
        (ValueError,),
        _json_value,
        export_from_json,
        lambda _, found: _check_exported(found),
    ),
    Decoder(
        "wire.checked_id",
        (ConfigurationError,),
        _id,
        lambda value: checked_id("an export", value),
        _check_id,
    ),
    Decoder(
        "retry.retry_after_seconds",
        (),
        _retry_after,
        lambda given: retry_after_seconds(*given),
        _check_retry_after,
    ),
    Decoder(
        "hints.read_hint",
        (),
        lambda inputs: inputs.headers(_HINT_HEADERS),
        read_hint,
        _check_hint,
    ),
    Decoder("links.redact", (), _text, redact, _check_redacted),
    Decoder("links.quoted", (), _link, quoted, _check_quoted),
    Decoder(
        "content_coding.decoded",
        (),
        _coded,
        lambda given: decoded(given[1], codings(given[0]), _CAP),
        _check_coded,
    ),
)
