"""Which links may be followed, and which part of a link may be shown.

The link to a file is a text from a server, and this process follows it from its own place in the
network. So a link may name only hosts that the user listed, over https. These hosts may not resolve
to this machine, or to a service that a cloud offers to its own machines. A link's query is never
shown: in a presigned link the query is a credential.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import re
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from urllib.parse import SplitResult, quote, urlsplit

from segments_async._sansio.api.credentials import is_loopback
from segments_async._sansio.api.redaction import place_of, redact

#: Redirects of storage that are followed; more count as a loop.
MOST_REDIRECTS = 3

#: The meaning of `{region}` in a pattern: ``us-east-1``, ``us-gov-west-1``, ``cn-north-1``.
_REGION = r"[a-z]{2}(?:-[a-z]+)+-[0-9]{1,2}"

#: AWS's two domains. (Isolated partitions have others, which can't be reached from the Internet.)
_AWS = ("amazonaws.com", "amazonaws.com.cn")

#: S3's endpoints, legacy forms included. Each also occurs with a bucket or access point before it.
#: https://docs.aws.amazon.com/general/latest/gr/s3.html and, for the endpoints of a VPC,
#: https://docs.aws.amazon.com/AmazonS3/latest/userguide/privatelink-interface-endpoints.html
_S3_ENDPOINTS = (
    "s3",
    "s3-external-1",
    "s3-accelerate",
    "s3-accelerate.dualstack",
    "s3-{region}",
    "s3-fips-{region}",
    "s3.{region}",
    "s3.dualstack.{region}",
    "s3-fips.{region}",
    "s3-fips.dualstack.{region}",
    "s3-accesspoint.{region}",
    "s3-accesspoint.dualstack.{region}",
    "s3-accesspoint-fips.{region}",
    "s3-accesspoint-fips.dualstack.{region}",
    "mrap.accesspoint.s3-global",
    "vpce-*.s3.{region}.vpce",
)

#: Patterns of S3's own hosts, which are the default. `*.amazonaws.com` would also match the
#: databases, private APIs and machines of customers, which trust requests from their own network.
S3_HOSTS: tuple[str, ...] = tuple(
    f"{bucket}{endpoint}.{domain}:443"
    for domain in _AWS
    for endpoint in _S3_ENDPOINTS
    for bucket in ("", "*.")
)

#: A host's name in lower case (RFC 1123, and the underscore of old bucket names). Resolvers and URL
#: parsers disagree about the rest: `\`, `%2f`, an empty or overlong label.
_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")

#: Addresses that are refused for every host: this machine's network, and the metadata services that
#: give a cloud's machines their credentials. Private addresses pass (S3 PrivateLink).
_NEVER = tuple(
    ipaddress.ip_network(network)
    for network in (
        "0.0.0.0/8",  # "this network"; Linux takes it for loopback
        "169.254.0.0/16",  # link-local; metadata of AWS, Google, Azure, Oracle
        "224.0.0.0/4",  # multicast
        "240.0.0.0/4",  # reserved, and the broadcast address
        "100.100.100.200/32",  # Alibaba's metadata
        "100.96.0.96/32",  # Volcano Engine's
        "168.63.129.16/32",  # Azure's host
        "192.0.0.192/32",  # Oracle's metadata, formerly
        "::/128",  # unspecified
        "fe80::/10",  # link-local
        "ff00::/8",  # multicast
        "fd00:ec2::/32",  # AWS's metadata and its neighbours
        "fd20:ce::254/128",  # Google's metadata
        "fd00:c1::a9fe:a9fe/128",  # Oracle's
        "fd00:42::42/128",  # Scaleway's
    )
)

#: IPv6 networks whose addresses contain an IPv4 address, and the number of bits to the right of it.
_CARRIERS = tuple(
    (ipaddress.IPv6Network(network), place)
    for network, place in (
        ("::ffff:0:0/96", 0),  # mapped (RFC 4291, 2.5.5.2)
        ("::/96", 0),  # compatible (2.5.5.1)
        ("::ffff:0:0:0/96", 0),  # translated (RFC 7915)
        ("64:ff9b::/96", 0),  # NAT64 (RFC 6052)
        ("64:ff9b:1::/48", 0),  # NAT64 of one's own (RFC 8215), of /96
        ("2002::/16", 80),  # 6to4 (RFC 3056)
    )
)

#: NAT64 of one's own (RFC 8215). The octet at the middle of an address is no part of the IPv4
#: address (RFC 6052, 2.2). Without that octet, it has this many bits to its right, for /48, /56
#: and /64.
_OWN_NAT64 = ipaddress.IPv6Network("64:ff9b:1::/48")
_OWN_NAT64_PLACES = (40, 32, 24)

#: Teredo (RFC 4380): the client's address has its bits inverted.
_TEREDO = ipaddress.IPv6Network("2001::/32")

_IPV4 = 0xFFFFFFFF

#: An interface identifier that carries IPv4 (ISATAP, RFC 5214), whatever the network.
_ISATAP = (0x00005EFE, 0x02005EFE)

#: A path and query of the characters that RFC 3986 allows.
_TARGET = re.compile(r"/(?:[A-Za-z0-9._~!$&'()*+,;=:@/?-]|%[0-9A-Fa-f]{2})*")


def without_secret(link: str) -> str:
    """The printable part of a link; with the path for S3, whose paths are keys and no secrets."""
    shown = redact(link)  # before urlsplit(), which drops tabs and newlines
    try:
        parts = urlsplit(shown)
        host, port = parts.hostname or "", parts.port
    except ValueError:  # not a URL: the whole text helps to find out why
        return shown
    s3 = parts.scheme == "s3" or is_admitted(host, port, S3_HOSTS)
    if parts.netloc and not s3 and not is_loopback(host):
        return place_of(shown)
    netloc = parts.netloc.rpartition("@")[2]
    return parts._replace(netloc=netloc, query="", fragment="").geturl()


class LinkRefused(Exception):
    """The link policy refuses the link. The message says why, and which option would admit it."""


class LinkMalformed(LinkRefused):
    """The text isn't a valid link; that says nothing of the links of other exports."""


#: Characters that browsers, requests and httpx quote in a URL's path and query. Links that a server
#: builds from a key may have spaces and umlauts.
_TO_QUOTE = re.compile(r"[^!#$%&'()*+,./0-9:;=?@A-Z\[\]_a-z~-]")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def quoted(link: str) -> str:
    """The link without white space around it, its path and query quoted as UTF-8 where necessary.

    Quoted characters stay as they are. Scheme and host stay, too, for the policy to judge.
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


def check_link(link: str, *, file_hosts: Sequence[str], loopback: bool) -> str:
    """Return the link if it may be followed.

    Args:
        link: an absolute URL.
        file_hosts: patterns such as ``"*.example.com"``. ``*`` stands for any text, ``{region}``
            for an AWS region. A pattern with a port at its end admits that port alone.
        loopback: whether the vendor itself is on loopback, as the sandbox is. Only then may its
            files be there, and have http:// links.

    Raises:
        LinkRefused: the link may not be followed. LinkMalformed: the text is not a link.
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
    if is_loopback(host) or not is_admitted(host, parts.port, file_hosts):
        known = not is_loopback(host) and is_admitted(host, None, file_hosts)
        what, admitted = ("the port of", f"{host}:{parts.port}") if known else ("the host", host)
        raise LinkRefused(
            f"{what} {admitted!r} is not among file_hosts; to admit it, "
            f"pass file_hosts=[..., {admitted!r}] to SegmentsClient"
        )


def is_admitted(host: str, port: int | None, patterns: Iterable[str]) -> bool:
    """Whether a pattern admits a host (in lower case) and its port (None: 443)."""
    return any(_admits(pattern, host, 443 if port is None else port) for pattern in patterns)


def _admits(pattern: str, host: str, port: int) -> bool:
    of_host, of_port = _compiled(pattern)
    return of_port in (None, port) and of_host.match(host) is not None


@lru_cache(maxsize=1024)
def _compiled(pattern: str) -> tuple[re.Pattern[str], int | None]:
    """A pattern's host, and its port; None admits any port."""
    host, colon, port = pattern.lower().rpartition(":")
    if not colon or not (port.isascii() and port.isdigit()):
        host, port = pattern.lower(), ""
    regex = fnmatch.translate(host).replace(re.escape("{region}"), _REGION)
    return re.compile(regex), int(port) if port else None


def _is_address(host: str) -> bool:
    """Whether the host is an IP address, also in a shorthand: 2130706433, 0x7f.1, 127.1."""
    if ":" in host:
        return True
    last = host.rpartition(".")[2]
    return last.isdigit() or last.startswith("0x")


def request_target(link: str) -> bytes | None:
    """The link's path and query exactly as they stand; None if a client has to quote some of it."""
    parts = urlsplit(link)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return target.encode("ascii") if _TARGET.fullmatch(target) else None


def check_addresses(host: str, addresses: Iterable[str], *, loopback: bool) -> None:
    """Refuse a host for any of the addresses that its name resolves to.

    Args:
        addresses: numeric.
        loopback: whether the vendor itself is on loopback; then its files may be there, too.

    Raises:
        LinkRefused: one of them is loopback, unspecified, link-local, multicast, or a cloud's
            metadata service.
    """
    for text in addresses:
        reached = list(_reached(text))
        if not reached or any(address in network for address in reached for network in _NEVER):
            raise LinkRefused(f"the host {host!r} resolves to {text}, where no link may lead")
        if any(address.is_loopback for address in reached) and not loopback:
            raise LinkRefused(f"the host {host!r} resolves to {text}, which is this machine")


def _reached(text: str) -> Iterator[ipaddress.IPv4Address | ipaddress.IPv6Address]:
    """The address, and the IPv4 addresses in an IPv6 address; none if the text isn't an address."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return
    yield address
    if isinstance(address, ipaddress.IPv4Address) or int(address) < 2:
        return  # `::` and `::1` contain no IPv4 address
    for network, place in _CARRIERS:
        if address in network:
            yield ipaddress.IPv4Address(int(address) >> place & _IPV4)
    if address in _OWN_NAT64:
        number = int(address)
        without_octet = (number >> 64 << 56) | (number & ((1 << 56) - 1))
        yield from (
            ipaddress.IPv4Address(without_octet >> place & _IPV4) for place in _OWN_NAT64_PLACES
        )
    if address in _TEREDO:
        yield ipaddress.IPv4Address(~int(address) & _IPV4)
    if int(address) >> 32 & _IPV4 in _ISATAP:
        yield ipaddress.IPv4Address(int(address) & _IPV4)
