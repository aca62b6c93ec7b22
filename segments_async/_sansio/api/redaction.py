"""Texts and links without credentials and signatures, for messages and log lines."""

from __future__ import annotations

import re
from urllib.parse import urlsplit

#: A URL's query, up to the next white space: it may have apostrophes. So an apostrophe that closes
#: a quotation is removed, too.
_QUERY = re.compile(r"\?[^\s\"<>]+")

#: A URL's path parameters and fragment.
_TAIL = re.compile(r"(:(?://|\\/\\/)[^\s\"<>?#;]*[;#])[^\s\"<>]+")
_CREDENTIALS = re.compile(r"(?i)\b(basic|bearer)\s+[A-Za-z0-9+/=._~-]+")

#: The user information of a URL: up to the last `@` before the path, as URL parsers read it. JSON
#: may write each slash as `\/`.
_USERINFO = re.compile(r"(:(?://|\\/\\/))[^\s/\"<>]+@")

#: The parts of a presigned link (AWS Signature V2 and V4, Google, Azure), in any text: a link that
#: is quoted for JSON, HTML or another URL may have no `?`.
_SIGNATURE = re.compile(
    r"(?i)(X-(?:Amz|Goog)-(?:Signature|Credential|Security-Token)|(?<![a-z])sig(?:nature)?)"
    r"(?:=|%3d|\\u003d|&#61;|&#x3d;)[^\s&\"'<>]*"
)


def redact(text: str) -> str:
    """A foreign text without the parts that look like secrets.

    These are the queries, path parameters, fragments and user information of URLs, signatures, and
    the credentials of an Authorization header. For a URL of our own see :func:`place_of`.
    """
    text = _QUERY.sub("?...", text)
    text = _TAIL.sub(r"\1...", text)
    text = _USERINFO.sub(r"\1...@", text)
    text = _CREDENTIALS.sub(r"\1 ...", text)
    return without_signatures(text)


def without_signatures(text: str) -> str:
    """The text without the signatures of links. A `?` in a sentence stays."""
    return _SIGNATURE.sub(r"\1: ...", text)


def place_of(link: str) -> str:
    """Scheme, host and port of a link: its path may be a secret as well as its query."""
    try:
        parts = urlsplit(link)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return "a link that is none"
    if ":" in host:
        host = f"[{host}]"
    return f"{parts.scheme}://{host}" + (f":{port}" if port is not None else "") + "/..."
