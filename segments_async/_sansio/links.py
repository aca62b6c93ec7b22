"""Which link may be followed, and how a link may be shown.

The link to a file is text from a server, followed with this process's network position. So it may
name only hosts that the user listed, over https; and its query, which is a credential where the
link is presigned, is never shown.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase
from urllib.parse import SplitResult, urlsplit

#: Hosts that storage redirects may chain through before it is a loop.
MOST_REDIRECTS = 3

#: A host's name (RFC 1123, and the underscore of old bucket names) in lower case. What it leaves
#: out some resolver or URL parser reads in its own way: `\`, `%2f`, an empty or overlong label.
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")

_QUERY = re.compile(r"\?[^\s\"'<>]+")
_CREDENTIALS = re.compile(r"(?i)\b(basic|bearer)\s+[A-Za-z0-9+/=._~-]+")
_USERINFO = re.compile(r"://[^\s/@\"'<>]+@")


def redact(text: str) -> str:
    """The text without URL queries, user info, and credentials of an Authorization header."""
    text = _QUERY.sub("?...", text)
    text = _USERINFO.sub("://...@", text)
    return _CREDENTIALS.sub(r"\1 ...", text)


class LinkRefused(Exception):
    """The link policy refuses the link; the message says why, and what would admit it."""


def is_loopback(host: str) -> bool:
    """Whether the host is this machine, by name or by address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_link(link: str, *, file_hosts: Sequence[str], loopback: bool) -> str:
    """Return the link if it may be followed.

    Args:
        link: an absolute URL.
        file_hosts: patterns such as ``"*.amazonaws.com"``.
        loopback: whether the vendor itself is on loopback (the sandbox is); then, and only then,
            so may its files be, over plain http too.

    Raises:
        LinkRefused: it may not.
    """
    try:
        parts = urlsplit(link)
        host = (parts.hostname or "").removesuffix(".")
        _ = parts.port
    except ValueError:
        raise LinkRefused("not a URL") from None
    if not link.isascii() or not link.isprintable() or " " in link:
        raise LinkRefused("not a URL")
    if parts.username is not None or parts.password is not None:
        raise LinkRefused("a link with user information")
    if loopback and parts.scheme in ("http", "https") and is_loopback(host):
        return link
    _check_public(parts, host, file_hosts)
    return link


def _check_public(parts: SplitResult, host: str, file_hosts: Sequence[str]) -> None:
    if parts.scheme != "https":
        raise LinkRefused(f"only https:// links are followed, not {parts.scheme or 'no scheme'!r}")
    if _is_address(host):
        raise LinkRefused("a link to an IP address instead of a host")
    if not _HOST.fullmatch(host):
        raise LinkRefused("not a host's name")
    if is_loopback(host) or not any(fnmatchcase(host, p.lower()) for p in file_hosts):
        raise LinkRefused(
            f"the host {host!r} is not among file_hosts; to admit it, "
            f"pass file_hosts=[..., {host!r}] to SegmentsClient"
        )


def _is_address(host: str) -> bool:
    """Also in the shorthands that resolvers take: 2130706433, 0x7f.1, 127.1."""
    if ":" in host:
        return True
    last = host.rpartition(".")[2]
    return last.isdigit() or last.startswith("0x")
