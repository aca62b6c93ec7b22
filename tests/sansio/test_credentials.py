"""Credentials and base URL: refused when malformed, and never shown."""

from __future__ import annotations

import base64
import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from segments_async._sansio.api.credentials import (
    Origin,
    Secret,
    authorization,
    parse_base_url,
)
from segments_async.errors import ConfigurationError

PAGE_KEY = "5a6646c4-ae5a-4de4-9d47-eb6f228405b2"
PAGE_TOKEN = "nux06hkn870v0ni4fhtd81kf"
PRINTABLE = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1)

MALFORMED = {
    "None": None,
    "empty": "",
    "space": " ",
    "a trailing newline": "sesame\n",
    "a trailing CRLF": "sesame\r\n",
    "a leading space": " sesame",
    "a trailing space": "sesame ",
    "a newline within": "ses\name",
    "a header within": "sesame\r\nX-Evil: 1",
    "NUL": "ses\0ame",
    "a tab within": "ses\tame",
    "DEL": "sesame\x7f",
    "a letter beyond ASCII": "s\u00e9same",
    "a no-break space": "sesame\u00a0",
    "a lone surrogate": "sesame\udc80",
    "quoted": '"sesame"',
    "quoted once": "'sesame'",
    "bytes": b"sesame",
    "a number": 7,
}


@pytest.mark.parametrize("value", MALFORMED.values(), ids=list(MALFORMED))
@pytest.mark.parametrize("which", ["api_key", "access_token"])
def test_what_is_malformed_is_refused(which: str, value: object) -> None:
    """A key or token that is missing, or that a header can't carry, is refused by its name."""
    values: dict[str, object] = {"api_key": PAGE_KEY, "access_token": PAGE_TOKEN, which: value}
    with pytest.raises(ConfigurationError, match=f"^{which}: "):
        authorization(**values)


@pytest.mark.parametrize("value", [v for v in MALFORMED.values() if v and v != " "], ids=repr)
def test_a_refusal_does_not_show_the_value(value: object) -> None:
    """The message names the fault, and shows no part of the value, which is nearly the secret."""
    with pytest.raises(ConfigurationError) as caught:
        authorization(PAGE_KEY, value)
    assert "same" not in str(caught.value)


@pytest.mark.parametrize("key", ["a:b", ":", ":b", "a:"])
def test_no_colon_in_the_key(key: str) -> None:
    """A colon in the user name would move the border between key and token."""
    with pytest.raises(ConfigurationError, match=r"^api_key: a colon"):
        authorization(key, PAGE_TOKEN)


def test_a_colon_in_the_token() -> None:
    """The token comes after the first colon, and may itself have colons."""
    assert base64.b64decode(authorization("a", "b:c").reveal().removeprefix("Basic ")) == b"a:b:c"


@given(PRINTABLE, PRINTABLE)
def test_the_header_is_what_was_given(key: str, token: str) -> None:
    """Credentials are sent as configured; a colon in the key and quotation marks are refused."""
    try:
        header = authorization(key, token).reveal()
    except ConfigurationError:
        assert ":" in key or any(one[0] == one[-1] in "\"'" for one in (key, token))
    else:
        assert base64.b64decode(header.removeprefix("Basic ")).decode() == f"{key}:{token}"


@given(st.text(), st.text())
def test_any_text_is_a_header_or_refused(key: str, token: str) -> None:
    """Any two texts give a header of one line of ASCII, or raise ConfigurationError."""
    try:
        header = authorization(key, token).reveal()
    except ConfigurationError:
        return
    assert header.isascii()
    assert header.isprintable()


def test_the_pages_credentials() -> None:
    """The page's key and token make the header that curl -u makes of them."""
    encoded = base64.b64encode(f"{PAGE_KEY}:{PAGE_TOKEN}".encode()).decode()
    assert authorization(PAGE_KEY, PAGE_TOKEN).reveal() == f"Basic {encoded}"


# A Secret.

SHOWN: dict[str, Callable[[Secret], str]] = {
    "repr": repr,
    "str": str,
    "f-string": lambda secret: f"{secret} {secret!r} {secret!s:>40}",
    "format": "{0} {0!r}".format,
    "percent": lambda secret: "%s %r" % (secret, secret),  # noqa: UP031 - as logging does it
    "in a list": lambda secret: repr([secret, {"a": secret}]),
    "dir": lambda secret: repr(dir(secret)),
    "ascii": ascii,
}


@pytest.mark.parametrize("show", SHOWN.values(), ids=list(SHOWN))
def test_a_secret_is_not_shown(show: Callable[[Secret], str]) -> None:
    """No usual way to make text of a Secret has the text that it holds."""
    assert "sesame" not in show(Secret("sesame"))


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_secret_is_not_copied(copied: Callable[[Any], Any]) -> None:
    """A copy would be one more place to forget: it raises, and without the text."""
    with pytest.raises(TypeError) as caught:
        copied(Secret("sesame"))
    assert "sesame" not in str(caught.value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_secret_is_not_pickled(protocol: int) -> None:
    """Pickling a secret, alone or inside a container, raises in every protocol."""
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps({"a": [Secret("sesame")]}, protocol)


def test_a_secret_has_no_dict() -> None:
    """vars(), which debuggers and error reporters show, finds nothing."""
    assert not hasattr(Secret("sesame"), "__dict__")


def test_a_secret_is_revealed_on_demand() -> None:
    """`reveal()` returns the text."""
    assert Secret("sesame").reveal() == "sesame"


# Base URLs.


@pytest.mark.parametrize(
    "url",
    [
        None,
        7,
        b"https://vendor.example",
        "",
        "vendor.example",
        "//vendor.example",
        "/service",
        "https://",
        "https:///service",
        "https:vendor.example",
        "ftp://vendor.example",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "https://vendor.example:port",
        "https://vendor.example:99999",
        "https://vendor.example:0",
        "https://[::1",
        "https://vendor.example\n",
        "https://vendor.example ",
        " https://vendor.example",
        "https://ven\ndor.example",
        "https://vendor.example/\tservice",
        "https://vendor.example/\x1b",
        "https://user@vendor.example",
        "https://:token@vendor.example",
        "https://key:token@vendor.example",
        "https://vendor.example?key=token",
        "https://vendor.example#fragment",
    ],
    ids=repr,
)
def test_no_base_url(url: object) -> None:
    """A text that is no plain http(s) URL, or has parts that would be dropped, is refused."""
    with pytest.raises(ConfigurationError, match=r"^base_url: "):
        parse_base_url(url)


@pytest.mark.parametrize(
    "url", ["sesame", "https://sesame@host", "https://host?sesame", "x:sesame"]
)
def test_a_refused_base_url_is_not_shown(url: str) -> None:
    """A refused base URL may be a misplaced credential, so the message doesn't show it."""
    with pytest.raises(ConfigurationError) as caught:
        parse_base_url(url)
    assert "sesame" not in str(caught.value)


@given(st.text() | st.text().map("https://{}".format))
def test_any_text_is_an_origin_or_refused(url: str) -> None:
    """Any text gives an origin with a host and a port, or raises ConfigurationError."""
    try:
        origin = parse_base_url(url)
    except ConfigurationError:
        return
    assert origin.host
    assert 1 <= origin.port <= 65_535


@pytest.mark.parametrize(
    ("url", "origin"),
    [
        ("https://vendor.example", Origin("https", "vendor.example", 443, "")),
        ("https://vendor.example/", Origin("https", "vendor.example", 443, "")),
        ("HTTPS://Vendor.Example:8443/", Origin("https", "vendor.example", 8443, "")),
        ("http://127.0.0.1:8080", Origin("http", "127.0.0.1", 8080, "")),
        ("http://localhost", Origin("http", "localhost", 80, "")),
        ("http://[::1]:8080/api/", Origin("http", "::1", 8080, "/api")),
        ("https://gateway.example/eu/v2/", Origin("https", "gateway.example", 443, "/eu/v2")),
    ],
)
def test_origins(url: str, origin: Origin) -> None:
    """Scheme and host in lower case, the scheme's port by default, the path as a prefix."""
    assert parse_base_url(url) == origin


@pytest.mark.parametrize(
    ("url", "secure"),
    [
        ("https://vendor.example", True),
        ("http://127.0.0.1", True),
        ("http://localhost:8080", True),
        ("http://[::1]", True),
        ("http://vendor.example", False),
        ("http://10.0.0.1", False),
        ("http://localhost.evil.example", False),
        ("http://127.0.0.1.evil.example", False),
    ],
)
def test_where_credentials_may_travel(url: str, secure: bool) -> None:
    """Over TLS, or without leaving this machine: nowhere else."""
    assert parse_base_url(url).secure is secure
