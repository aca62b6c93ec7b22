"""Answers of 200: ids, status and link are read strictly, other fields where they can be read."""

from __future__ import annotations

import copy
import json
import traceback
from datetime import UTC, datetime
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async._sansio.api import content_coding
from segments_async._sansio.api.content_coding import decoded
from segments_async._sansio.api.decoding import (
    SegmentList,
    read_segments,
    read_status,
    read_submitted,
)
from segments_async._sansio.api.wire import (
    ApiAnswer,
    is_id,
    list_request,
    poll_request,
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

SEGMENT_DECORATION = ["name", "projectId", "type", "description", "category", "lastRun"]
EXPORT_DECORATION = ["startTime", "projectId", "endTime"]
ATTRIBUTES = {
    "projectId": "project_id",
    "lastRun": "last_run",
    "startTime": "start_time",
    "endTime": "end_time",
}
NO_STRINGS = [7, 1.5, True, [], {}, ["text"], {"text": "text"}]


def answer(body: object) -> ApiAnswer:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return ApiAnswer(200, {"content-type": "application/json"}, data)


def listed(body: object) -> SegmentList:
    return read_segments(list_request(), answer(body))


def segments(body: object) -> list[Segment]:
    return listed(body).segments


def export(body: object, segment_id: str | None = None) -> Export:
    return read_status(
        poll_request(EXPORT_ID), answer(body), export_id=EXPORT_ID, segment_id=segment_id
    )


def submitted(body: object) -> Export:
    request = submit_request(SEGMENT_ID, OutputFormat.CSV)
    return read_submitted(request, answer(body), segment_id=SEGMENT_ID)


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
        pytest.param(b"null" + LISTED, id="something before it"),
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


@pytest.mark.parametrize("body", [{}, None, 7, "text", True, {"a": [], "b": []}])
def test_a_list_must_be_a_list(body: object) -> None:
    """Anything but a list, an object's keys included, is no list of segments."""
    assert fault_in_list(body) == "$"


@pytest.mark.parametrize("body", [[], None, 7, "text", True, [json.loads(COMPLETE)] * 2])
def test_an_export_must_be_an_object(body: object) -> None:
    """Anything but an object, a list of two included, is no export."""
    assert fault_in_export(body) == "$"


@pytest.mark.parametrize("key", ["data", "export", "result"])
def test_an_export_is_found_in_an_envelope(key: str) -> None:
    """The right object inside another one, or in a list of one, is read: its id would be lost."""
    for body in ({key: export_with(), "meta": {}}, [export_with()]):
        assert export(body) == export(COMPLETE)
        assert submitted(body).export_id == EXPORT_ID


def test_a_list_is_found_in_an_envelope() -> None:
    """The only list in an object is the list of segments."""
    assert segments({"segments": json.loads(LISTED), "total": 1}) == [SEGMENT]


def test_a_decode_error_says_what_the_answer_claimed_to_be() -> None:
    """A page of HTML from a captive proxy is recognizable by its content type in the message."""
    page = ApiAnswer(200, {"content-type": "text/html"}, b"<html>")
    with pytest.raises(DecodeError, match="text/html"):
        read_segments(list_request(), page)


def test_a_decode_error_has_the_request() -> None:
    """The error has the method and the path of the request."""
    with pytest.raises(DecodeError) as caught:
        export(b"[]")
    assert caught.value.method == "GET"
    assert caught.value.path == f"/service/v1/segments/export/{EXPORT_ID}"


def test_a_decode_error_holds_nothing_of_the_body() -> None:
    """The message has types and places, and no value, since a value might be a signed link."""
    secret = "https://bucket.s3.amazonaws.com/key?X-Amz-Signature=f00"
    with pytest.raises(DecodeError) as caught:
        export(export_with(exportId=[secret]))
    assert "f00" not in str(caught.value)


# One field at fault.


@pytest.mark.parametrize("key", SEGMENT_DECORATION)
@pytest.mark.parametrize("value", [None, *NO_STRINGS], ids=repr)
def test_what_decorates_a_segment_is_none_where_it_cant_be_read(key: str, value: object) -> None:
    """Null, a number, or an object in the place of a text or a time costs that field alone."""
    (found,) = segments([segment_with(**{key: value})])
    assert found == attrs.evolve(SEGMENT, **{ATTRIBUTES.get(key, key): None})


@pytest.mark.parametrize("key", SEGMENT_DECORATION)
def test_what_decorates_a_segment_may_be_absent(key: str) -> None:
    """A segment needs nothing but its id."""
    (found,) = segments([without(segment_with(), key)])
    assert found == attrs.evolve(SEGMENT, **{ATTRIBUTES.get(key, key): None})


@pytest.mark.parametrize("key", EXPORT_DECORATION)
@pytest.mark.parametrize("value", [None, "absent", *NO_STRINGS], ids=repr)
def test_what_decorates_an_export_is_none_where_it_cant_be_read(key: str, value: object) -> None:
    """Whatever startTime, projectId and endTime hold, the id, the status and the link are kept."""
    body = without(export_with(), key) if value == "absent" else export_with(**{key: value})
    whole = attrs.evolve(export(COMPLETE), **{ATTRIBUTES[key]: None})
    assert export(body) == whole
    assert submitted(body) == whole


@pytest.mark.parametrize("value", ["text", SEGMENT_ID, None, 7, [segment_with()], {}], ids=repr)
def test_a_segment_that_cant_be_read_is_the_one_that_was_asked_for(value: object) -> None:
    """An export's segment may be anything: which it is, the request says."""
    for found in (
        export(export_with(segment=value), SEGMENT_ID),
        submitted(export_with(segment=value)),
    ):
        assert found == attrs.evolve(export(COMPLETE), segment=Segment(SEGMENT_ID))
    assert export(export_with(segment=value)).segment == Segment("")


@pytest.mark.parametrize("value", [None, *NO_STRINGS[1:]], ids=repr)
def test_a_record_without_an_id_costs_that_record(value: object) -> None:
    """A record whose id can't be read is left out of the list and counted; the others are kept."""
    found = listed([segment_with(), segment_with(segmentId=value), segment_with()])
    assert found.segments == [SEGMENT, SEGMENT]
    assert found.left_out == 1
    assert "$[1].segmentId" in str(found.fault)


@pytest.mark.parametrize("value", [7, None, "text", [], True])
def test_an_element_that_is_no_object_costs_that_element(value: object) -> None:
    """An element of the list that is no object is left out, and the others are kept."""
    found = listed([segment_with(), value])
    assert (found.segments, found.left_out) == ([SEGMENT], 1)
    assert "$[1]" in str(found.fault)


def test_a_list_without_a_readable_record_is_a_fault() -> None:
    """A list in which nothing can be read is no empty account."""
    assert fault_in_list([7, without(segment_with(), "segmentId")]) == "$[0]"


@pytest.mark.parametrize("value", [None, *NO_STRINGS[1:]], ids=repr)
def test_an_id_is_a_string_or_a_whole_number(value: object) -> None:
    """A new export whose id is anything else has none: that is a fault at its id."""
    with pytest.raises(DecodeError) as caught:
        submitted(export_with(exportId=value))
    assert caught.value.where == "$.exportId"


def test_an_id_may_be_a_whole_number() -> None:
    """Ids that the vendor writes as numbers are their digits."""
    assert submitted(export_with(exportId=12345)).export_id == "12345"
    assert segments([segment_with(segmentId=7)])[0].segment_id == "7"


def test_a_poll_names_the_export_by_itself() -> None:
    """An answer without an id is about the export in the URL."""
    assert export(without(export_with(), "exportId")) == export(COMPLETE)
    assert export(export_with(exportId=None)) == export(COMPLETE)


@pytest.mark.parametrize("value", [None, "absent", *NO_STRINGS], ids=repr)
def test_a_status_that_cant_be_read(value: object) -> None:
    """A submit takes it for PENDING, a poll for COMPLETE beside a link and for a fault without."""
    body = without(export_with(), "status") if value == "absent" else export_with(status=value)
    assert submitted(body).status is ExportStatus.PENDING
    assert export(body).status is ExportStatus.COMPLETE
    assert fault_in_export({**body, "filename": None}) == "$.status"


@pytest.mark.parametrize(
    "value",
    [
        "",
        "yesterday",
        "23:59:60",
        "2019-04-09T25:25:06Z",
        "2019-02-30T12:25:06Z",
        "1554812706",
        "0001-01-01T00:00:00+23:59",
        "9999-12-31T23:59:59-23:59",
        "\u0662\u0660\u0661\u0669-04-09",
    ],
)
def test_a_date_that_is_none_is_none(value: str) -> None:
    """A string that is no moment, or one that Python's calendar can't hold in UTC, is None."""
    found = export(export_with(startTime=value, segment=segment_with(lastRun=value)))
    assert (found.start_time, found.segment.last_run) == (None, None)
    assert found.filename is not None


# An answer about something else.


def test_an_answer_about_another_export_is_refused() -> None:
    """A cache's answer about another export would end as other users in this segment's file."""
    assert fault_in_export(export_with(exportId="another")) == "$.exportId"


def test_an_answer_about_another_segment_is_refused() -> None:
    """A POST for one segment that is answered with another's export is a fault."""
    request = submit_request("another", OutputFormat.CSV)
    with pytest.raises(DecodeError) as caught:
        read_submitted(request, answer(PENDING), segment_id="another")
    assert caught.value.where == "$.segment.segmentId"


def test_a_segments_id_in_another_case_is_the_same() -> None:
    """UUIDs are the same in upper case; the caller's spelling is kept."""
    body = export_with(segment=segment_with(segmentId=SEGMENT_ID.upper()))
    assert submitted(body).segment.segment_id == SEGMENT_ID


@pytest.mark.parametrize("export_id", ["", "../list", "a/b", "a" * 129, "\ud800"])
def test_an_id_that_doesnt_fit_into_a_url_is_kept(export_id: str) -> None:
    """A new export's id that can't be polled is found when it comes, and is not thrown away."""
    found = submitted(export_with(exportId=export_id)).export_id
    assert (found, is_id(found)) == (export_id, False)


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


@given(st.sampled_from([*SEGMENT_DECORATION, *EXPORT_DECORATION, "segment"]), JSON)
def test_any_value_in_a_field_that_decorates_leaves_id_and_link(key: str, value: object) -> None:
    """Whatever stands in one of them, the export can be polled and fetched."""
    body = (
        export_with(**{key: value})
        if key in (*EXPORT_DECORATION, "segment")
        else export_with(segment=segment_with(**{key: value}))
    )
    try:
        found = export(body)
    except DecodeError as error:
        path = error.where
        assert "segment" in path  # it names another one
    else:
        assert (found.export_id, found.filename) == (EXPORT_ID, export(COMPLETE).filename)


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
    """A status that the vendor's page doesn't have stays a plain string."""
    status = export(export_with(status="QUEUED")).status
    assert (status, type(status)) == ("QUEUED", str)


def test_an_unknown_type_stays_a_plain_string() -> None:
    """A type that the vendor's page doesn't have stays a plain string."""
    kind = segments([segment_with(type="Realtime")])[0].type
    assert (kind, type(kind)) == ("Realtime", str)


@pytest.mark.parametrize("text", ["complete", "Complete", " COMPLETE"])
def test_a_known_status_is_known_in_any_case(text: str) -> None:
    """The page writes them in capitals; an export that is Complete is polled no further."""
    assert export(export_with(status=text)).status is ExportStatus.COMPLETE


@pytest.mark.parametrize("text", ["COMPLETED", "NAME", "__class__", ""])
def test_a_status_that_is_merely_like_one_is_unknown(text: str) -> None:
    """A longer word, or a member's name in Python, makes no known status."""
    assert type(export(export_with(status=text)).status) is str


@pytest.mark.parametrize("status", ExportStatus)
def test_a_known_status_is_the_member(status: ExportStatus) -> None:
    """PENDING, COMPLETE and FAILED are members of ExportStatus."""
    assert export(export_with(status=status.value)).status is status


@pytest.mark.parametrize("kind", SegmentType)
def test_a_known_type_is_the_member(kind: SegmentType) -> None:
    """Static and Dynamic are members of SegmentType."""
    assert segments([segment_with(type=kind.value)])[0].type is kind


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
    assert start is not None
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
    assert read_submitted(request, answer(PENDING), segment_id=SEGMENT_ID) == Export(
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
    """A signed link in the wrong field is in no line of the error's traceback, with all locals."""
    with pytest.raises(DecodeError) as caught:
        export(export_with(exportId=SIGNED))
    assert caught.value.where == "$.exportId"
    shown = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    frames = [f for f in shown.stack if "segments_async" in f.filename]
    assert frames
    assert all("5ec4e7" not in str(f.locals) for f in frames)


@pytest.mark.parametrize(
    "link", ['<https://h/l?page=2>; rel="next"', "<https://h/l?p=2>; rel=next"]
)
def test_a_link_header_tells_of_a_further_page(link: str) -> None:
    """RFC 8288 lets servers leave out the quotation marks."""
    found = read_segments(list_request(), ApiAnswer(200, {"link": link}, LISTED, 0.0))
    assert found.goes_on


@pytest.mark.parametrize("name", ["gzip", "deflate", "br"])
def test_many_codings_in_a_header_cost_one_parse(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A list of 17 MB is parsed in 0.1 s: for each of 10 000 names, it would be minutes."""
    parsed, is_whole = list[bytes](), content_coding.is_whole

    def noted(body: bytes) -> bool:
        parsed.append(body)
        return is_whole(body)

    monkeypatch.setattr(content_coding, "is_whole", noted)
    assert decoded(LISTED, [name] * 10_000, len(LISTED)) == LISTED
    assert len(parsed) <= 1
