"""Texts and links as they may be shown: without credentials and signatures."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

#: With apostrophes, which a query may have. Where one closes a quotation, too much is taken out.
_QUERY = re.compile(r"\?[^\s\"<>]+")

#: A URL's path parameters and fragment.
_TAIL = re.compile(r"(:(?://|\\/\\/)[^\s\"<>?#;]*[;#])[^\s\"<>]+")
_CREDENTIALS = re.compile(r"(?i)\b(basic|bearer)\s+[A-Za-z0-9+/=._~-]+")

#: Up to the last `@` before the path, as URL parsers take it; also as JSON may write the slashes.
_USERINFO = re.compile(r"(:(?://|\\/\\/))[^\s/\"<>]+@")

#: A presigned link's parts (AWS Signature V2 and V4, Google, Azure), wherever they turn up: quoted
#: for JSON, HTML or another URL, a link has no `?` that could be looked for.
_SIGNATURE = re.compile(
    r"(?i)(X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|(?<![a-z])sig(?:nature)?)"
    r"(?:=|%3d|\\u003d|&#61;|&#x3d;)[^\s&\"'<>]*"
)


def redact(text: str) -> str:
    """A text from elsewhere without what looks like a secret.

    That are URLs' queries, path parameters, fragments and user information, signatures, and an
    Authorization's credentials. A URL of our own is not searched: see :func:`place_of`.
    """
    text = _QUERY.sub("?...", text)
    text = _TAIL.sub(r"\1...", text)
    text = _USERINFO.sub(r"\1...@", text)
    text = _CREDENTIALS.sub(r"\1 ...", text)
    return without_signatures(text)


def without_signatures(text: str) -> str:
    """The text without what signs a link. Unlike :func:`redact`, it leaves questions alone."""
    return _SIGNATURE.sub(r"\1: ...", text)


def place_of(link: str) -> str:
    """What may be shown of a link: a path may be a capability as well as a query."""
    try:
        parts = urlsplit(link)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "a link that is none"
    if ":" in host:
        host = f"[{host}]"
    return f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "") + "/..."
