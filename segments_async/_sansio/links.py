"""Which link may be followed, and how a link may be shown.

The link to a file is text from a server, followed with this process's network position. So it may
name only hosts that the user listed, over https; and these may not resolve to this machine, or to
one of the services that a cloud has for its own machines. A link's query, which is a credential
where the link is presigned, is never shown.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from urllib.parse import SplitResult, quote, urlsplit

#: Hosts that storage redirects may chain through before it is a loop.
MOST_REDIRECTS = 3

#: A host's name (RFC 1123, and the underscore of old bucket names) in lower case. What it leaves
#: out some resolver or URL parser reads in its own way: `\`, `%2f`, an empty or overlong label.
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")

#: Addresses that no file is at, whatever name leads there: this machine's network, and what clouds
#: tell their machines about themselves, credentials included. Private ones pass (S3 PrivateLink).
_NEVER = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",  # "this network"; Linux takes it for loopback
        "169.254.0.0/16",  # link-local; metadata of AWS, Google, Azure, Oracle
        "224.0.0.0/4",  # multicast
        "100.100.100.200/32",  # Alibaba's metadata
        "168.63.129.16/32",  # Azure's host
        "::/128",  # unspecified
        "fe80::/10",  # link-local
        "ff00::/8",  # multicast
        "fd00:ec2::/32",  # AWS's metadata and its neighbours
        "fd20:ce::254/128",  # Google's metadata
    )
)

#: RFC 6052: an IPv4 address in an IPv6 network.
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

#: What may stand in a path and a query (RFC 3986).
_TARGET = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")

_QUERY = re.compile(r"\?[^\s\"'<>]+")
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
    """The text without URL queries, user info, signatures, and an Authorization's credentials."""
    text = _QUERY.sub("?...", text)
    text = _USERINFO.sub(r"\1...@", text)
    text = _CREDENTIALS.sub(r"\1 ...", text)
    return without_signatures(text)


def without_signatures(text: str) -> str:
    """The text without what signs a link. Unlike :func:`redact`, it leaves questions alone."""
    return _SIGNATURE.sub(r"\1: ...", text)


class LinkRefused(Exception):
    """The link policy refuses the link; the message says why, and what would admit it."""


class LinkMalformed(LinkRefused):
    """This one link is none: that says nothing of the links of other exports."""


#: What browsers, requests and httpx quote in a URL's path and query: links that are put together
#: from a key have spaces and umlauts in them.
_TO_QUOTE = re.compile(r"[^!#$%&'()*+,./0-9:;=?@A-Z\[\]_a-z~-]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def quoted(link: str) -> str:
    """The link without white space around it, and with what a URL can't hold quoted as UTF-8.

    What is quoted already stays as it is; so do scheme and host, for the policy to judge.
    """
    text = link.strip()
    head, slash, rest = text.partition("://")
    host, slash_of_path, path = rest.partition("/")
    if not slash or not slash_of_path or _CONTROL.search(text):
        return text
    try:
        target = _TO_QUOTE.sub(lambda found: quote(found[0], safe=""), path)
    except UnicodeEncodeError:  # half a surrogate pair, which the policy refuses
        return text
    return f"{head}://{host}/{target}"


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
        LinkRefused: it may not. A LinkMalformed, where that is about this link alone.
    """
    try:
        parts = urlsplit(link)
        host = (parts.hostname or "").removesuffix(".")
        _ = parts.port
    except ValueError:
        raise LinkMalformed("not a URL") from None
    if not link.isascii() or not link.isprintable() or " " in link:
        raise LinkMalformed("not a URL")
    if parts.username is not None or parts.password is not None:
        raise LinkMalformed("a link with user information")
    if loopback and parts.scheme in ("http", "https") and is_loopback(host):
        return link
    _check_public(parts, host, file_hosts)
    return link


def _check_public(parts: SplitResult, host: str, file_hosts: Sequence[str]) -> None:
    if parts.scheme != "https":
        scheme = repr(parts.scheme or "no scheme")
        refused = LinkRefused if parts.scheme else LinkMalformed
        raise refused(f"only https:// links are followed, not {scheme:.40}")
    if _is_address(host):
        raise LinkRefused("a link to an IP address instead of a host")
    if not _HOST.fullmatch(host):
        raise LinkMalformed("not a host's name")
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


def request_target(link: str) -> bytes | None:
    """The link's path and query exactly as they stand; None where a client has to mend them."""
    parts = urlsplit(link)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return target.encode("ascii") if _TARGET.fullmatch(target) else None


def check_addresses(host: str, addresses: Iterable[str], *, loopback: bool) -> None:
    """Refuse a host by what its name resolves to; any of the addresses might be the one used.

    Args:
        host: for the message.
        addresses: as resolved, numeric.
        loopback: whether the vendor itself is on loopback; then its files may be, too.

    Raises:
        LinkRefused: one of them is loopback, unspecified, link-local, multicast, or a cloud's
            metadata service.
    """
    for text in addresses:
        address = _unwrapped(text)
        if address is None or any(address in network for network in _NEVER):
            raise LinkRefused(f"the host {host!r} resolves to {text}, which is no place for files")
        if address.is_loopback and not loopback:
            raise LinkRefused(f"the host {host!r} resolves to {text}, which is this machine")


def _unwrapped(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a connection would reach: IPv6 may carry one of IPv4. None: not one."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address
