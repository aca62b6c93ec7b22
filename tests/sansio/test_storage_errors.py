"""The meaning of storage's refusals."""

from __future__ import annotations

from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async._sansio.files.storage_errors import Remedy, StorageError, storage_error
from segments_async.errors import DownloadReason


def page(code: str, message: str = "", **more: str) -> bytes:
    facts = {"Code": code, "Message": message, **more, "RequestId": "X", "HostId": "Y"}
    inside = "".join(f"<{name}>{text}</{name}>" for name, text in facts.items())
    return f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inside}</Error>'.encode()


def error(status: int, body: bytes = b"", **headers: str) -> StorageError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return storage_error(status, named, body)


#: Lone surrogates are no UTF-8.
SCRAPS = st.text(st.characters(codec="utf-8"), max_size=20)

EU_CENTRAL = {"Region": "eu-central-1"}
TWO = "Only one auth mechanism allowed; only the X-Amz-Algorithm query parameter, ..."


@pytest.mark.parametrize(
    ("answer", "words", "reason", "remedy"),
    [
        (
            error(403, page("AccessDenied", "Request has expired")),
            "the link has expired",
            "expired_link",
            "new_link",
        ),
        (error(403, page("AccessDenied", "Access Denied")), "access denied", "denied", None),
        (error(400, page("ExpiredToken", "has expired")), "session", "expired_link", "new_link"),
        (error(404, page("NoSuchKey")), "isn't in its bucket", "denied", None),
        (error(404, page("NoSuchBucket")), "bucket doesn't exist", "denied", None),
        (error(403, page("RequestTimeTooSkewed")), "clock", "denied", None),
        (error(403, page("SignatureDoesNotMatch")), "signature", "denied", None),
        (error(403, page("InvalidAccessKeyId")), "access key", "denied", None),
        (error(403, page("InvalidObjectState")), "archived", "denied", None),
        (error(400, page("InvalidArgument", TWO)), "Authorization header", "denied", None),
        (error(503, page("SlowDown")), "fewer requests", "broken", "wait"),
        (error(500, page("InternalError")), "fault of its own", "broken", "wait"),
        (error(400, page("RequestTimeout")), "fault of its own", "broken", "wait"),
        (
            error(400, page("AuthorizationQueryParametersError", **EU_CENTRAL)),
            "another region",
            "denied",
            "region",
        ),
        (
            error(400, page("AuthorizationHeaderMalformed", **EU_CENTRAL)),
            "another region",
            "denied",
            "region",
        ),
        (error(400, page("AuthorizationQueryParametersError")), "parameters", "denied", None),
        (
            error(301, page("PermanentRedirect"), x_amz_bucket_region="eu-central-1"),
            "another region",
            "denied",
            "region",
        ),
        (
            error(403, page("AccessDenied"), x_amz_bucket_region="eu-central-1"),
            "access denied",
            "denied",
            None,
        ),
    ],
)
def test_s3s_codes(answer: StorageError, words: str, reason: str, remedy: str | None) -> None:
    """Each refusal has a sentence, a reason, and a remedy."""
    assert words in answer.message
    assert str(answer.status) in answer.message
    assert (answer.reason, answer.remedy) == (reason, remedy)
    if remedy == "region":
        assert answer.region == "eu-central-1"


@pytest.mark.parametrize(
    ("status", "reason", "remedy", "gone"),
    [
        (401, "denied", None, False),
        (403, "denied", None, False),
        (404, "denied", None, True),
        (410, "denied", None, True),
        (429, "broken", "wait", False),
        (500, "broken", "wait", False),
        (502, "broken", "wait", False),
        (503, "broken", "wait", False),
        (504, "broken", "wait", False),
        (400, "broken", None, False),
        (304, "broken", None, False),
        (412, "broken", None, False),
        (418, "broken", None, False),
    ],
)
def test_without_a_page(status: int, reason: str, remedy: str | None, gone: bool) -> None:
    """Storage that isn't S3 is judged by its status."""
    answer = error(status)
    assert (answer.reason, answer.remedy, answer.gone) == (reason, remedy, gone)
    assert answer.code == ""


@pytest.mark.parametrize("status", [400, 401, 403])
@pytest.mark.parametrize("body", [b"<html>Link expired</html>", page("Other", "has Expired.")])
def test_an_expired_link_of_another_storage(status: int, body: bytes) -> None:
    """The word is enough, unless S3's code has another meaning."""
    assert (error(status, body).reason, error(status, body).gone) == ("expired_link", True)


def test_a_denial_may_be_of_a_file_that_is_gone() -> None:
    """Without the right to list the bucket, S3 answers 403 for a key that isn't there."""
    assert error(403, page("AccessDenied", "Access Denied")).gone
    assert error(404, page("NoSuchKey")).gone
    assert not error(403, page("InvalidAccessKeyId")).gone


def test_a_signature_that_does_not_match_has_not_expired() -> None:
    """The page may repeat the word from the request."""
    body = page("SignatureDoesNotMatch", "...", StringToSign="GET /expired.csv")
    assert error(403, body).reason == "denied"


@pytest.mark.parametrize(
    "region",
    ["", "eu", "EU-CENTRAL-1", "eu-central-1.evil.example", "eu-central-1/", "x@y-1", "a-" * 99],
)
def test_a_region_is_one_label_of_a_host(region: str) -> None:
    """An invalid region is ignored: it would become part of a host's name."""
    for answer in (
        error(400, page("AuthorizationHeaderMalformed", Region=region)),
        error(301, b"", x_amz_bucket_region=region),
    ):
        assert (answer.region, answer.remedy) == (None, None)


def test_no_entity_is_expanded() -> None:
    """A page that would grow to gigabytes in an XML parser is text like any other."""
    bomb = b'<!DOCTYPE e [<!ENTITY a "boom">]><Error><Code>&a;</Code></Error>'
    assert error(403, bomb).code == ""
    assert "boom" not in error(403, bomb).message


@pytest.mark.parametrize("secret", ["X-Amz-Signature=5ec4e7", "AKIA5EC4E7"])
def test_what_the_page_repeats_is_not_shown(secret: str) -> None:
    """S3 repeats the request, and so its credentials, on a page about a signature."""
    body = page("SignatureDoesNotMatch", secret, AWSAccessKeyId=secret, CanonicalRequest=secret)
    assert secret not in repr(error(403, body))
    assert secret not in repr(error(418, page("Other", secret)))
    assert secret not in repr(error(418, page(secret + "\x1b[2J", secret)))


@given(
    st.integers(300, 599),
    st.one_of(
        st.binary(max_size=300),
        st.builds(page, SCRAPS, SCRAPS, Region=SCRAPS),
    ),
    st.text(max_size=20),
)
def test_anything_has_a_meaning(status: int, body: bytes, region: str) -> None:
    """Whatever storage answers, a printable sentence and known values come out."""
    answer = storage_error(status, {"x-amz-bucket-region": region}, body)
    assert answer.message.isprintable()
    assert answer.reason in get_args(DownloadReason)
    assert answer.remedy is None or answer.remedy in get_args(Remedy)
    assert (answer.remedy == "region") <= (answer.region is not None)
