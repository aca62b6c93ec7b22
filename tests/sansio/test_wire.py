"""The three requests that are sent, and the ids that they may contain."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async._sansio.api.wire import (
    LIST_CAP,
    ApiRequest,
    checked_id,
    list_request,
    poll_request,
    submit_request,
)
from segments_async.errors import ConfigurationError
from segments_async.models import OutputFormat

SEGMENT_ID = "82200474-c131-4f7b-a35e-381469af31a7"
EXPORT_ID = "8f9fdd71-204c-41e1-a2ab-de7f85002f65"
FIT = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-"

UNFIT = {
    "empty": "",
    "parent": "..",
    "slash": "a/b",
    "backslash": "a\\b",
    "escaped dots": "%2e%2e",
    "query": "a?b",
    "fragment": "a#b",
    "space": "a b",
    "trailing newline": EXPORT_ID + "\n",
    "trailing space": EXPORT_ID + " ",
    "129 characters": "a" * 129,
    "unicode digits": "\u0661\u0662\u0663",
    "full-width letters": "\uff41\uff42",
    "NUL": "a\0b",
    "lone surrogate": "\ud800",
    "a number": 7,
    "None": None,
    "bytes": b"abc",
    "a list": ["abc"],
}


@pytest.mark.parametrize("value", UNFIT.values(), ids=list(UNFIT))
def test_an_unfit_id_is_refused(value: object) -> None:
    """An id that could leave its place in a URL, or is no string, is refused before sending."""
    with pytest.raises(ConfigurationError, match="not the id of a segment"):
        checked_id("a segment", value)


@pytest.mark.parametrize("value", [v for v in UNFIT.values() if isinstance(v, str)])
def test_no_poll_is_made_of_an_unfit_id(value: str) -> None:
    """There is no request for an export whose id doesn't fit."""
    with pytest.raises(ConfigurationError, match="id of an export"):
        poll_request(value)


@given(st.text() | st.from_regex(r"[a-z0-9_%./-]{1,130}"))
def test_what_is_admitted_stays_in_its_place(value: str) -> None:
    """Any text is refused, or is of the harmless 64 characters, 1 to 128 of them."""
    try:
        admitted = checked_id("a segment", value)
    except ConfigurationError:
        assert not (1 <= len(value) <= 128 and set(value) <= set(FIT))
    else:
        assert admitted == value
        assert 1 <= len(value) <= 128
        assert set(value) <= set(FIT)


def test_a_refused_id_of_any_length_makes_a_short_message() -> None:
    """A megabyte handed in as an id doesn't come back in the error's message."""
    with pytest.raises(ConfigurationError) as caught:
        checked_id("a segment", "/" * 1_000_000)
    assert len(str(caught.value)) < 200


def test_list_request() -> None:
    """Segments are listed with a GET of exactly the page's path, without a body."""
    assert list_request() == ApiRequest("GET", "/service/v1/segments/list", None, LIST_CAP)


def test_poll_request() -> None:
    """A poll is a GET of the path of the vendor's page, without a slash at its end."""
    expected = ApiRequest("GET", f"/service/v1/segments/export/{EXPORT_ID}", None)
    assert poll_request(EXPORT_ID) == expected


def test_submit_request_path() -> None:
    """A submit is a POST of the path of the vendor's page, with the slash at its end."""
    request = submit_request(SEGMENT_ID, OutputFormat.CSV)
    assert (request.method, request.path) == ("POST", "/service/v1/segments/export/")


def test_submit_request_body() -> None:
    """The POST's body is the JSON of the page's example, value for value, and no more."""
    body = submit_request(SEGMENT_ID, OutputFormat.CSV).body
    assert body is not None
    assert json.loads(body) == {"segmentId": SEGMENT_ID, "outputFormat": "csv"}


@given(st.text(FIT, min_size=1, max_size=128))
def test_a_body_says_the_segment_it_was_made_for(segment_id: str) -> None:
    """Whatever the id, the body is ASCII and decodes to it."""
    body = submit_request(segment_id, OutputFormat.CSV).body
    assert body is not None
    assert json.loads(body.decode("ascii"))["segmentId"] == segment_id


@pytest.mark.parametrize(
    "value", ["https://b/k?X-Amz-Signature=5ec4e7", "bearer\t5ec4e7", ["https://b/k?sig=5ec4e7"]]
)
def test_a_refused_id_is_shown_without_secrets(value: object) -> None:
    """A signed link handed in by mistake doesn't end up in a log."""
    with pytest.raises(ConfigurationError) as caught:
        checked_id("an export", value)
    assert "5ec4e7" not in str(caught.value)
