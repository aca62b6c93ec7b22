"""Credentials and the vendor's address: checked before anything is sent, and never shown."""

from __future__ import annotations

import base64
import html
import ipaddress
import json
import re
from typing import NoReturn
from urllib.parse import quote, urlsplit

import attrs

from segments_async.errors import ConfigurationError


class Secret:
    """A text that no repr, log line, format string or pickle shows."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        return self._text

    def __repr__(self) -> str:
        return "Secret(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a Secret is not pickled")


def authorization(api_key: object, access_token: object) -> Secret:
    """The Authorization header: "API Key as the username and Access Token as the password".

    A colon in the API key would move the border between the two (RFC 7617). A newline, usually
    from reading a file, is refused and not removed: the configured text is sent, or nothing.

    Raises:
        ConfigurationError: one of the two can't be sent. The message has no part of them.
    """
    problem = _problem("api_key", api_key) or _problem("access_token", access_token)
    if problem is None and ":" in str(api_key):
        problem = "api_key: a colon can't stand in a Basic authentication user name"
    header = Secret(
        "Basic " + base64.b64encode(f"{api_key}:{access_token}".encode("ascii", "replace")).decode()
    )
    # Error reporters show the local variables of an error's frames.
    del api_key, access_token
    if problem is not None:
        raise ConfigurationError(problem)
    return header


class EchoedSecrets:
    """Removes from an answer the credentials of the request that the answer repeats.

    These are the header's value and the access token, as they stand and as they are quoted in URLs,
    HTML and JSON.
    """

    def __init__(self, header: Secret) -> None:
        pair = header.reveal().partition(" ")[2]
        token = base64.b64decode(pair).decode("ascii").partition(":")[2]
        # The longest first: one form may be the beginning of another.
        forms = sorted({f for secret in (pair, token) for f in _forms(secret)}, key=len)
        self._forms = [Secret(form) for form in reversed(forms)]
        self._shortest = len(forms[0])

    def removed_from(self, text: str) -> str:
        if len(text) < self._shortest:
            return text  # almost always: a Content-Type
        for form in self._forms:
            text = text.replace(form.reveal(), "...")
        return text

    def removed_from_bytes(self, page: bytes) -> bytes:
        for form in self._forms:
            page = page.replace(form.reveal().encode(), b"...")
        return page


def _forms(secret: str) -> set[str]:
    quoted = {quote(secret, safe=safe) for safe in ("", "/", "/=+", "~")}
    lower = {re.sub("%[0-9A-F]{2}", lambda found: found[0].lower(), form) for form in quoted}
    escaped = json.dumps(secret)[1:-1]
    return {
        secret,
        secret.rstrip("="),
        *quoted,
        *lower,
        html.escape(secret),
        html.escape(secret, quote=False),
        escaped,
        escaped.replace("/", "\\/"),
        secret.translate(_BASE64URL),
        secret.translate(_BASE64URL).rstrip("="),
    }


_BASE64URL = str.maketrans("+/", "-_")


def _problem(what: str, value: object) -> str | None:
    if not isinstance(value, str) or not value:
        return f"{what}: missing or empty"
    if value != value.strip():
        return f"{what}: begins or ends with white space (a trailing newline?)"
    if value[0] == value[-1] and value[0] in "\"'" and len(value) > 1:
        # Else each request is answered 401, and the configured text looks right to its reader.
        return f"{what}: in quotation marks, which docker's --env-file keeps; remove them"
    if not value.isascii() or not value.isprintable():
        return f"{what}: only printable ASCII characters can be sent"
    return None


@attrs.frozen
class Origin:
    """The only address that credentials are sent to."""

    scheme: str
    host: str
    port: int
    prefix: str

    @property
    def loopback(self) -> bool:
        return is_loopback(self.host)

    @property
    def secure(self) -> bool:
        """Whether credentials may be sent there: over TLS, or without leaving this machine."""
        return self.scheme == "https" or self.loopback


#: The vendor's API.
BASE_URL = "https://query.indicative-prod.mparticle.com"


def parse_base_url(base_url: object) -> Origin:
    """The origin and path prefix of a base URL; ConfigurationError if it isn't one."""
    text = base_url if isinstance(base_url, str) else ""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    default = {"https": 443, "http": 80}.get(parts.scheme)
    if not host or port == 0 or default is None:
        raise ConfigurationError(f"base_url: not an http(s) URL: {_shown(base_url)}")
    if not text.isprintable() or " " in text:
        # urlsplit() drops some of these characters without an error, and keeps others in the host.
        raise ConfigurationError("base_url: white space or a control character (a newline?)")
    if parts.username is not None or parts.query or parts.fragment:
        raise ConfigurationError("base_url: no user information, query or fragment")
    return Origin(parts.scheme, host, port or default, parts.path.rstrip("/"))


def _shown(base_url: object) -> str:
    """The printable part of a value that isn't a URL: the value may be a misplaced credential."""
    return f"{len(base_url)} characters" if isinstance(base_url, str) else type(base_url).__name__


def is_loopback(host: str) -> bool:
    """Whether the host is this machine, by name or by address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
