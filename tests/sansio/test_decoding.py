"""What an answer of 200 means: the page's shapes strictly, and DecodeError with a path else."""

from __future__ import annotations

import copy
import json
import traceback
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async._sansio.wire import (
    ApiAnswer,
    list_request,
    poll_request,
    read_export,
    read_segments,
    submit_request,
)
from segments_async.errors import DecodeError
from segments_async.models import Export, ExportStatus, OutputFormat, Segment, SegmentType

SIGNED = "https://b/k?X-Amz-Signature=5ec4e7"
SEGMENT_ID = "82200474-c131-4f7b-a35e-381469af31a7"
EXPORT_ID = "8f9fdd71-204c-41e1-a2ab-de7f85002f65"

# The three examples, as the page prints them.
LISTED = b"""[
  {
    "segmentId": "82200474-c131-4f7b-a35e-381469af31a7",
    "name": "My Segment",
    "description": "This is my segment",
    "category": null,
    "projectId": "5a6646c4-ae5a-4de4-9d47-eb6f228405b2",
    "type": "Static",
    "lastRun": "2019-04-09T12:25:06.000Z"
  }
]"""
COMPLETE = (
    b'{"exportId": "8f9fdd71-204c-41e1-a2ab-de7f85002f65", "segment": '
    + LISTED.strip(b"[]")
    + b""", "status": "COMPLETE",
  "startTime": "2019-04-09T14:45:07.000Z",
  "endTime": "2019-04-09T14:45:42.000Z",
  "filename": "s3://upload-bucket/path/to/8f9fdd71-204c-41e1-a2ab-de7f85002f65.csv"
}"""
)
PENDING = (
    COMPLETE[: COMPLETE.index(b'"status"')]
    + b"""
  "status": "PENDING",
  "startTime": "2019-04-09T14:45:07.000Z",
  "endTime": null,
  "filename": null
}"""
)
SEGMENT = Segment(
    segment_id=SEGMENT_ID,
    name="My Segment",
    project_id="5a6646c4-ae5a-4de4-9d47-eb6f228405b2",
    type=SegmentType.STATIC,
    description="This is my segment",
    category=None,
    last_run=datetime(2019, 4, 9, 12, 25, 6, tzinfo=UTC),
)

SEGMENT_STRINGS = ["segmentId", "name", "projectId", "type"]
SEGMENT_NULLABLE = ["description", "category", "lastRun"]
EXPORT_STRINGS = ["exportId", "status", "startTime"]
EXPORT_NULLABLE = ["projectId", "endTime", "filename"]
NO_STRINGS = [7, 1.5, True, [], {}, ["text"], {"text": "text"}]


def answer(body: object) -> ApiAnswer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ApiAnswer(200, {"content-type": "application/json"}, data)


def segments(body: object) -> list[Segment]:
    return read_segments(list_request(), answer(body))


def export(body: object) -> Export:
    return read_export(poll_request(EXPORT_ID), answer(body), export_id=EXPORT_ID)


def fault_in_list(body: object) -> str:
    with pytest.raises(DecodeError) as caught:
        segments(body)
    return caught.value.where


def fault_in_export(body: object) -> str:
    with pytest.raises(DecodeError) as caught:
        export(body)
    return caught.value.where


def segment_with(**changes: object) -> dict[str, Any]:
    return {**json.loads(LISTED)[0], **changes}


def export_with(**changes: object) -> dict[str, Any]:
    return {**json.loads(COMPLETE), **changes}


def without(document: dict[str, Any], key: str) -> dict[str, Any]:
    return {k: v for k, v in document.items() if k != key}


# Bodies that are not the page's at all.


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"<!DOCTYPE html><html><body>Log in to the hotel</body></html>", id="html"),
        pytest.param(LISTED[:-1], id="cut off"),
        pytest.param(LISTED + b"]", id="something after it"),
        pytest.param(b'[{"name": "\xff"}]', id="invalid UTF-8"),
        pytest.param(b"[" * 200_000, id="deep, open"),
        pytest.param(b"[" * 200_000 + b"]" * 200_000, id="deep, closed"),
        pytest.param(b'{"a":' * 100_000 + b"1" + b"}" * 100_000, id="deep objects"),
        pytest.param(b"9" * 5_000, id="a huge integer"),
        pytest.param(b"'single'", id="single quotes"),
    ],
)
def test_a_body_that_is_no_json_is_a_decode_error_at_its_root(body: bytes) -> None:
    """HTML, cut or damaged JSON, and JSON too deep or too large for Python are faults at `$`."""
    assert fault_in_list(body) == "$"
    assert fault_in_export(body) == "$"


@pytest.mark.parametrize("body", [{}, None, 7, "text", True, {"segments": []}])
def test_a_list_must_be_a_list(body: object) -> None:
    """Anything but a list, an object's keys included, is no list of segments."""
    assert fault_in_list(body) == "$"


@pytest.mark.parametrize("body", [[], None, 7, "text", True, [json.loads(COMPLETE)]])
def test_an_export_must_be_an_object(body: object) -> None:
    """Anything but an object, a list with the right object included, is no export."""
    assert fault_in_export(body) == "$"


def test_a_decode_error_says_what_the_answer_claimed_to_be() -> None:
    """A page of HTML from a captive proxy is recognizable by its content type in the message."""
    page = ApiAnswer(200, {"content-type": "text/html"}, b"<html>")
    with pytest.raises(DecodeError, match="text/html"):
        read_segments(list_request(), page)


def test_a_decode_error_has_the_request() -> None:
    """Method and path of what was asked are facts of the error."""
    with pytest.raises(DecodeError) as caught:
        export(b"[]")
    assert caught.value.method == "GET"
    assert caught.value.path == f"/service/v1/segments/export/{EXPORT_ID}"


def test_a_decode_error_holds_nothing_of_the_body() -> None:
    """The message of a fault has types and places, and no value: it might be somebody's link."""
    secret = "https://bucket.s3.amazonaws.com/key?X-Amz-Signature=f00"
    with pytest.raises(DecodeError) as caught:
        export(export_with(filename=[secret]))
    assert "f00" not in str(caught.value)


# One field at fault.


@pytest.mark.parametrize("value", [7, None, "text", [], True])
def test_an_element_that_is_no_object_is_named_by_its_index(value: object) -> None:
    """The path to a fault in a list has the element's index."""
    assert fault_in_list([segment_with(), segment_with(), value]) == "$[2]"


@pytest.mark.parametrize("key", SEGMENT_STRINGS)
@pytest.mark.parametrize("value", [None, *NO_STRINGS], ids=repr)
def test_a_string_of_a_segment_is_nothing_else(key: str, value: object) -> None:
    """Where the page has a string, a number is a fault and no string to be, and so is null."""
    body = [segment_with()] * 3 + [segment_with(**{key: value})]
    assert fault_in_list(body) == f"$[3].{key}"


@pytest.mark.parametrize("key", SEGMENT_NULLABLE)
@pytest.mark.parametrize("value", NO_STRINGS, ids=repr)
def test_a_nullable_field_of_a_segment_is_a_string_or_null(key: str, value: object) -> None:
    """Nullable means null or the page's type, and no third thing."""
    assert fault_in_list([segment_with(**{key: value})]) == f"$[0].{key}"


@pytest.mark.parametrize("key", SEGMENT_STRINGS)
def test_a_segment_lacks_nothing_that_is_not_nullable(key: str) -> None:
    """A missing key is a fault at that key."""
    assert fault_in_list([without(segment_with(), key)]) == f"$[0].{key}"


@pytest.mark.parametrize("key", EXPORT_STRINGS)
@pytest.mark.parametrize("value", [None, *NO_STRINGS], ids=repr)
def test_a_string_of_an_export_is_nothing_else(key: str, value: object) -> None:
    """Where the page has a string, a number is a fault and no string to be, and so is null."""
    assert fault_in_export(export_with(**{key: value})) == f"$.{key}"


@pytest.mark.parametrize("key", EXPORT_NULLABLE)
@pytest.mark.parametrize("value", NO_STRINGS, ids=repr)
def test_a_nullable_field_of_an_export_is_a_string_or_null(key: str, value: object) -> None:
    """Nullable means null or the page's type, and no third thing."""
    assert fault_in_export(export_with(**{key: value})) == f"$.{key}"


@pytest.mark.parametrize("key", [*EXPORT_STRINGS, "segment"])
def test_an_export_lacks_nothing_that_is_not_nullable(key: str) -> None:
    """A missing key is a fault at that key."""
    assert fault_in_export(without(export_with(), key)) == f"$.{key}"


@pytest.mark.parametrize("value", ["text", SEGMENT_ID, None, 7, [segment_with()]], ids=repr)
def test_the_segment_of_an_export_is_an_object(value: object) -> None:
    """A string where the page has an object is a fault, also where it is the segment's id."""
    assert fault_in_export(export_with(segment=value)) == "$.segment"


@pytest.mark.parametrize("key", [*SEGMENT_STRINGS, *SEGMENT_NULLABLE])
def test_a_fault_inside_the_segment_has_the_whole_path(key: str) -> None:
    """The path goes on inside the nested object, in the wire's own names."""
    body = export_with(segment=segment_with(**{key: 7}))
    assert fault_in_export(body) == f"$.segment.{key}"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "yesterday",
        "2019-04-09T25:25:06Z",
        "2019-02-30T12:25:06Z",
        "1554812706",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "\u0662\u0660\u0661\u0669-04-09",
    ],
)
def test_a_date_that_is_none_is_a_fault(value: str) -> None:
    """A string that is no moment, or one that Python's calendar can't hold in UTC, is a fault."""
    assert fault_in_export(export_with(startTime=value)) == "$.startTime"


# An answer about something else.


def test_an_answer_about_another_export_is_refused() -> None:
    """A cache's answer about another export would end as other users in this segment's file."""
    assert fault_in_export(export_with(exportId="another")) == "$.exportId"


def test_an_answer_about_another_segment_is_refused() -> None:
    """A POST for one segment that is answered with another's export is a fault."""
    request = submit_request("another", OutputFormat.CSV)
    with pytest.raises(DecodeError) as caught:
        read_export(request, answer(PENDING), segment_id="another")
    assert caught.value.where == "$.segment.segmentId"


@pytest.mark.parametrize("export_id", ["", "../list", "a/b", "a" * 129, "\ud800"])
def test_a_new_export_id_must_fit_into_a_url(export_id: str) -> None:
    """An id that could not be polled is found when it comes, not when it is used."""
    request = submit_request(SEGMENT_ID, OutputFormat.CSV)
    with pytest.raises(DecodeError) as caught:
        read_export(request, answer(export_with(exportId=export_id)), segment_id=SEGMENT_ID)
    assert caught.value.where == "$.exportId"


# Anything at all.

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_any_body_is_a_value_or_a_decode_error(body: bytes) -> None:
    """No bytes and no JSON raise anything but DecodeError, for a list and for an export."""
    for read, values in ((segments, list), (export, Export)):
        try:
            assert isinstance(read(body), values)
        except DecodeError as error:
            path = error.where
        else:
            continue
        assert path.startswith("$")


@given(st.sampled_from([*SEGMENT_STRINGS, *SEGMENT_NULLABLE, "exportId", "segment"]), JSON)
def test_any_value_in_any_field_is_a_value_or_a_decode_error(key: str, value: object) -> None:
    """Whatever stands in one field, the fault is at that field or inside it."""
    body = (
        export_with(**{key: value})
        if key in ("exportId", "segment")
        else export_with(segment=segment_with(**{key: value}))
    )
    try:
        assert export(body).export_id == EXPORT_ID
    except DecodeError as error:
        path = error.where
    else:
        return
    assert key in path


@given(st.text())
def test_a_segments_name_comes_through_unchanged(name: str) -> None:
    """A name is free text: nothing is stripped, normalized or refused."""
    assert segments([segment_with(name=name)])[0].name == name


# What the vendor may add.


def test_unknown_fields_are_ignored() -> None:
    """A field that the page doesn't have changes nothing, in the segment or around it."""
    body = export_with(newField=[1], segment=segment_with(alsoNew={"a": 1}))
    assert export(body) == export(COMPLETE)


def test_an_unknown_status_stays_a_plain_string() -> None:
    """A status that the page doesn't have is kept as it came."""
    status = export(export_with(status="QUEUED")).status
    assert (status, type(status)) == ("QUEUED", str)


def test_an_unknown_type_stays_a_plain_string() -> None:
    """A type that the page doesn't have is kept as it came."""
    kind = segments([segment_with(type="Realtime")])[0].type
    assert (kind, type(kind)) == ("Realtime", str)


@pytest.mark.parametrize("text", ["pending", "Pending", " PENDING", "NAME", "__class__"])
def test_only_the_exact_value_is_a_known_status(text: str) -> None:
    """Neither another case nor a member's name in Python makes a status a known one."""
    assert type(export(export_with(status=text)).status) is str


@pytest.mark.parametrize("status", ExportStatus)
def test_a_known_status_is_the_member(status: ExportStatus) -> None:
    """PENDING, COMPLETE and FAILED are members of ExportStatus."""
    assert export(export_with(status=status.value)).status is status


@pytest.mark.parametrize("kind", SegmentType)
def test_a_known_type_is_the_member(kind: SegmentType) -> None:
    """Static and Dynamic are members of SegmentType."""
    assert segments([segment_with(type=kind.value)])[0].type is kind


# What may be null, or absent.


@pytest.mark.parametrize("key", SEGMENT_NULLABLE)
@pytest.mark.parametrize("absent", [False, True])
def test_a_nullable_field_of_a_segment_may_be_null_or_absent(key: str, absent: bool) -> None:
    """Description, category and lastRun are None where the answer has null, or nothing."""
    body = without(segment_with(), key) if absent else segment_with(**{key: None})
    attribute = {"lastRun": "last_run"}.get(key, key)
    assert getattr(segments([body])[0], attribute) is None


@pytest.mark.parametrize("key", EXPORT_NULLABLE)
@pytest.mark.parametrize("absent", [False, True])
def test_a_nullable_field_of_an_export_may_be_null_or_absent(key: str, absent: bool) -> None:
    """So are projectId, endTime and filename, which the page's own examples lack or have null."""
    body = without(export_with(), key) if absent else export_with(**{key: None})
    attribute = {"projectId": "project_id", "endTime": "end_time"}.get(key, key)
    assert getattr(export(body), attribute) is None


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2019-04-09T12:25:06.000Z", datetime(2019, 4, 9, 12, 25, 6, tzinfo=UTC)),
        ("2019-04-09T12:25:06.125Z", datetime(2019, 4, 9, 12, 25, 6, 125_000, tzinfo=UTC)),
        ("2019-04-09T14:25:06+02:00", datetime(2019, 4, 9, 12, 25, 6, tzinfo=UTC)),
        ("2019-04-09T12:25:06", datetime(2019, 4, 9, 12, 25, 6, tzinfo=UTC)),
    ],
)
def test_moments_are_aware_and_in_utc(text: str, moment: datetime) -> None:
    """With an offset, a moment is converted; without one, it is taken as UTC."""
    start = export(export_with(startTime=text)).start_time
    assert (start, start.tzinfo) == (moment, UTC)


# The page's examples.


def test_the_pages_list() -> None:
    """The page's list of one segment decodes value for value."""
    assert segments(LISTED) == [SEGMENT]


def test_an_account_without_segments() -> None:
    """An empty list is an answer, not a fault."""
    assert segments(b"[]") == []


def test_the_order_of_the_list_is_the_vendors() -> None:
    """Segments come in the order of the answer, also where two are the same."""
    ids = ["b", "a", "c", "a"]
    assert [s.segment_id for s in segments([segment_with(segmentId=i) for i in ids])] == ids


def test_the_pages_new_export() -> None:
    """The page's answer to a POST decodes value for value."""
    request = submit_request(SEGMENT_ID, OutputFormat.CSV)
    assert read_export(request, answer(PENDING), segment_id=SEGMENT_ID) == Export(
        export_id=EXPORT_ID,
        segment=SEGMENT,
        status=ExportStatus.PENDING,
        start_time=datetime(2019, 4, 9, 14, 45, 7, tzinfo=UTC),
    )


def test_the_pages_complete_export() -> None:
    """The page's finished export decodes value for value, `s3://` link included."""
    assert export(COMPLETE) == Export(
        export_id=EXPORT_ID,
        segment=SEGMENT,
        status=ExportStatus.COMPLETE,
        start_time=datetime(2019, 4, 9, 14, 45, 7, tzinfo=UTC),
        end_time=datetime(2019, 4, 9, 14, 45, 42, tzinfo=UTC),
        filename=f"s3://upload-bucket/path/to/{EXPORT_ID}.csv",
    )


@given(st.permutations(list(json.loads(COMPLETE))))
def test_the_order_of_keys_means_nothing(keys: list[str]) -> None:
    """An object's keys may come in any order."""
    document = export_with()
    assert export({key: copy.deepcopy(document[key]) for key in keys}) == export(COMPLETE)


def test_a_fault_does_not_repeat_what_came() -> None:
    """A signed link in the wrong field is in no line of the error's traceback."""
    with pytest.raises(DecodeError) as caught:
        export(export_with(startTime=SIGNED))
    assert caught.value.where == "$.startTime"
    assert "5ec4e7" not in "".join(traceback.format_exception(caught.value))
