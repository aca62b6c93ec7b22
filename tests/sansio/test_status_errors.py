"""Answers other than 200: the error of each, its facts, and the texts that it doesn't show."""

from __future__ import annotations

import base64
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async._sansio.api.decoding import read_segments, read_status
from segments_async._sansio.api.wire import (
    EXCERPT_CHARACTERS,
    ApiAnswer,
    list_request,
    poll_request,
    raise_for_status,
    status_error,
)
from segments_async.errors import (
    APIStatusError,
    AuthenticationError,
    NotFoundError,
    PermissionDeniedError,
    RateLimitedError,
    ServerError,
)

CLASSES = {
    400: APIStatusError,
    401: AuthenticationError,
    403: PermissionDeniedError,
    404: NotFoundError,
    409: APIStatusError,
    415: APIStatusError,
    429: RateLimitedError,
    500: ServerError,
    501: ServerError,
    502: ServerError,
    503: ServerError,
    504: ServerError,
    599: ServerError,
}
SIGNED = "https://bucket.s3.amazonaws.com/key?X-Amz-Credential=AKIA&X-Amz-Signature=5ec4e7"


def error_for(
    status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
) -> APIStatusError:
    return status_error(list_request(), ApiAnswer(status, headers or {}, body))


@pytest.mark.parametrize(("status", "cls"), CLASSES.items())
def test_a_code_has_its_class(status: int, cls: type[APIStatusError]) -> None:
    """Each status is raised as exactly the class that the tree of errors gives for it."""
    assert type(error_for(status)) is cls


@given(st.integers(100, 999).filter(lambda status: not 200 <= status <= 299))
def test_only_2xx_is_success(status: int) -> None:
    """Any code but a success raises an APIStatusError that has the code."""
    with pytest.raises(APIStatusError) as caught:
        raise_for_status(list_request(), ApiAnswer(status, {}, b"[]"))
    assert caught.value.status_code == status


def test_200_raises_nothing() -> None:
    """With 200, the answer is read: here, of an account without segments."""
    assert read_segments(list_request(), ApiAnswer(200, {}, b"[]")).segments == []


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_names_the_other_host(status: int) -> None:
    """A redirect is not followed: it is a plain status error that says to which host it leads."""
    headers = {"location": "https://elsewhere.example/path?sig=5ec4e7"}
    answer = ApiAnswer(status, headers, b"{}")
    with pytest.raises(APIStatusError, match=r"elsewhere\.example.*base_url") as caught:
        read_status(poll_request("an-export"), answer, export_id="an-export")
    assert type(caught.value) is APIStatusError
    assert "5ec4e7" not in str(caught.value)


@pytest.mark.parametrize("status", CLASSES)
def test_an_error_has_the_request_and_the_code(status: int) -> None:
    """Method, path and code are facts, and in the message."""
    error = status_error(poll_request("an-export"), ApiAnswer(status, {}, b""))
    path = "/service/v1/segments/export/an-export"
    assert (error.method, error.path, error.status_code) == ("GET", path, status)
    assert str(error).startswith(f"GET {path}: {status}: ")


def test_401_says_what_to_check() -> None:
    """The sentence of a 401 is the page's: check key and token."""
    assert "check that API key and access token are correct" in str(error_for(401))


@pytest.mark.parametrize("words", ["upgrade", "contact Analytics support"])
def test_403_says_what_the_page_says(words: str) -> None:
    """The sentence of a 403 has both ways out: upgrade, or contact support."""
    assert words in str(error_for(403))


def test_500_says_that_a_ticket_was_raised() -> None:
    """The sentence of a 500 says that the vendor knows already, and to try later."""
    message = str(error_for(500))
    assert "ticket" in message
    assert "later" in message


def test_429_has_the_limit_that_was_hit() -> None:
    """The value of X-mp-rate-limit-exceeded, from the vendor's other APIs, is an attribute."""
    error = error_for(429, headers={"x-mp-rate-limit-exceeded": "workspace"})
    assert isinstance(error, RateLimitedError)
    assert error.scope == "workspace"


@pytest.mark.parametrize("scope", [SIGNED, "a" * 1000])
def test_a_scope_is_a_word(scope: str) -> None:
    """Any server may set this header: the value is kept only if it is short and no secret."""
    error = error_for(429, headers={"x-mp-rate-limit-exceeded": scope})
    assert isinstance(error, RateLimitedError)
    assert len(error.scope or "") <= 80
    assert "5ec4e7" not in (error.scope or "")


def test_429_without_a_scope() -> None:
    """Without that header, the attribute is None."""
    error = error_for(429)
    assert isinstance(error, RateLimitedError)
    assert error.scope is None


@pytest.mark.parametrize(
    ("status", "pause"), [(429, 7.0), (503, 7.0), (401, None), (403, None), (500, None)]
)
def test_retry_after_is_a_fact_where_it_counts(status: int, pause: float | None) -> None:
    """`retry_after` is set for 429 and 503, and for no other status."""
    assert error_for(status, headers={"retry-after": "7"}).retry_after == pause


def test_the_body_is_kept_as_an_excerpt() -> None:
    """A short error page is kept whole."""
    assert error_for(400, b'{"error": "no such format"}').body == '{"error": "no such format"}'


@given(st.binary(max_size=3 * EXCERPT_CHARACTERS) | st.integers(0, 100_000).map(bytes))
def test_an_excerpt_is_short_text(body: bytes) -> None:
    """Any body, also one that is no UTF-8, leaves at most 2 048 characters."""
    assert len(error_for(500, body).body) <= 2048


@pytest.mark.parametrize("characters", ["a", "\u00e9", "\U0001f600"])
def test_an_excerpt_uses_its_room(characters: str) -> None:
    """A long page fills the excerpt, however many bytes its characters take."""
    assert error_for(500, (characters * 10_000).encode()).body == characters * 2048


@pytest.mark.parametrize("lead", [0, 1000, 2000, 2047, 2100, 8100, 8190])
def test_an_excerpt_has_no_signed_query(lead: int) -> None:
    """A signed link loses its query, wherever in the page it stands."""
    body = error_for(502, b"x" * lead + b" " + SIGNED.encode() + b" y" * 3000).body
    assert "5ec4e7" not in body
    assert "AKIA" not in body


def test_an_excerpt_has_no_credentials() -> None:
    """An Authorization header that a proxy's page repeats is removed from the excerpt."""
    secret = base64.b64encode(b"the-key:the-token").decode()
    assert secret not in error_for(400, f"authorization: Basic {secret}".encode()).body


def test_the_message_has_nothing_of_the_body() -> None:
    """The body is in `.body` only, since messages end up in logs."""
    assert "hello" not in str(error_for(500, b"hello"))
