"""Decoders of storage's answers, and the policy for links."""

from __future__ import annotations

import ipaddress
import re
from typing import Any

import attrs
import httpx

from fuzz.fuzzing import Decoder
from fuzz.inputs import SECRET, Inputs
from fuzz.vendor_decoders import DATES, LINK
from segments_async._sansio.api.credentials import is_loopback
from segments_async._sansio.files.links import (
    LinkRefused,
    check_addresses,
    check_link,
    request_target,
)
from segments_async._sansio.files.ranges import (
    ObjectVersion,
    PartialContent,
    Range,
    Refused,
    Restart,
    content_range,
    read_answer,
)
from segments_async._sansio.files.s3_links import S3Object, S3Place, object_url, parse_s3_link
from segments_async._sansio.files.storage_errors import StorageError, storage_error
from segments_async.cli.json_lines import unsigned

# ----------------------------------------------------------------------- links

_LINKS = (
    LINK,
    "https://s3.eu-west-1.amazonaws.com/bucket/a/./b/../c%20d.csv?X-Amz-Signature=5ec4e7",
    "https://b.s3.amazonaws.com:443/a;b=c?d#e",
    "https://127.0.0.1:8080/a.csv",
    "http://localhost/a.csv",
    "http://[::1]:80/a.csv",
    "https://evil.example/a.csv",
    "https://bucket.s3.amazonaws.com./a.csv",
    "https://evil.example\\@bucket.s3.amazonaws.com/a.csv",
    "https://bucket.s3.amazonaws.com\\.evil.example/",
    "https://bucket.s3.amazonaws.com#@evil.example/",
    "https://bucket.s3.amazonaws.com%2eevil.example/",
    "https://evil.example%23.amazonaws.com/",
    "https:bucket.s3.amazonaws.com",
    "https:///bucket.s3.amazonaws.com/a",
    "//bucket.s3.amazonaws.com/a",
    "https://[v1.a]/",
    "https://2130706433/",
    "https://xn--80ak6aa92e.amazonaws.com/",
    "file:///etc/passwd",
    "javascript:alert(1)",
)

_HOSTS = ("*.amazonaws.com",)

#: The longest URL that httpx takes.
_LONGEST_URL = 65536


def _link(inputs: Inputs) -> str:
    link = inputs.choice(_LINKS)
    link = inputs.changed(link) if inputs.one_in(2) else link
    return inputs.planting(link) if inputs.one_in(6) else link


def _follow(given: tuple[str, bool]) -> tuple[str, bytes | None]:
    link, loopback = given
    checked = check_link(link, file_hosts=_HOSTS, loopback=loopback)
    return checked, request_target(checked)


def _check_followed(given: tuple[str, bool], found: tuple[str, bytes | None]) -> None:
    """The HTTP client must read an admitted link as the policy read it."""
    link, loopback = given
    checked, target = found
    assert checked == link
    if target is not None:
        assert re.fullmatch(rb"/[!-~]*", target), target
        assert b"#" not in target, target
    if len(link) > _LONGEST_URL:
        return
    try:
        url = httpx.URL(link)
    except httpx.InvalidURL:
        return  # which storage takes for a link that isn't there
    host = url.raw_host.decode().removesuffix(".")  # `host` would decode punycode
    allowed = url.scheme == "https" and host.endswith(".amazonaws.com")
    local = loopback and url.scheme in ("http", "https") and is_loopback(host)
    assert allowed or local, f"httpx asks {host!r}"
    assert not url.userinfo, url


def _check_shown(_: str, found: str | None) -> None:
    assert found is not None
    assert SECRET not in found, f"the secret is shown: {found:.200}"


_ADDRESSES = (
    "52.216.1.1",
    "10.0.0.7",
    "127.0.0.1",
    "0.0.0.0",
    "169.254.169.254",
    "fe80::1%eth0",
    "::1",
    "::",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "64:ff9b::7f00:1",
    "2002:7f00:1::",
    "fd00:ec2::254",
    "2600:1f00::1",
    "100.100.100.200",
    "224.0.0.1",
)


def _resolved(inputs: Inputs) -> tuple[str, list[str], bool]:
    return (
        inputs.choice(("bucket.s3.amazonaws.com", "a" * 253)),
        [_address(inputs) for _ in range(inputs.some(4) + 1)],
        inputs.one_in(3),
    )


def _address(inputs: Inputs) -> str:
    return inputs.weighted(
        (4, lambda: inputs.choice(_ADDRESSES)),
        (3, lambda: inputs.changed(inputs.choice(_ADDRESSES))[:100]),  # a resolver's, no server's
        (1, lambda: str(ipaddress.IPv4Address(inputs.getrandbits(32)))),
        (1, lambda: str(ipaddress.IPv6Address(inputs.getrandbits(128)))),
        (1, lambda: f"64:ff9b::{inputs.getrandbits(16):x}:{inputs.getrandbits(16):x}"),
    )


def _check_addresses(given: tuple[str, list[str], bool], _: None) -> None:
    addresses, loopback = given[1:]
    for text in addresses:
        address = ipaddress.ip_address(text.partition("%")[0])
        known = [address]
        if isinstance(address, ipaddress.IPv6Address):
            inner = (address.ipv4_mapped, address.sixtofour)
            known += [found for found in inner if found is not None]
            if address in ipaddress.ip_network("64:ff9b::/96"):
                known.append(ipaddress.IPv4Address(int(address) % 2**32))
        for found in known:
            assert loopback or not found.is_loopback, text
            assert str(found) != "169.254.169.254", text
            assert not found.is_link_local, text
            assert not found.is_multicast, text
            assert not found.is_unspecified, text


_S3_LINKS = (
    "s3://bucket/a.csv",
    "S3://my-bucket.with.dots/a b/%20/../c?d#e",
    "s3://" + "a" * 63 + "/" + "k" * 1024,
    "s3://xn--bucket/a",
    "s3://127.0.0.1/a",
    "s3://b--x-s3/a",
    "s3://bucket/\u00e9\U0001f600.csv",
)


def _s3_link(inputs: Inputs) -> str:
    link = inputs.choice(_S3_LINKS)
    # Who calls it has seen the scheme.
    link = link[:5] + inputs.changed(link[5:]) if inputs.one_in(2) else link
    return link[:5] + inputs.planting(link[5:]) if inputs.one_in(6) else link


def _check_s3(given: str, found: S3Object) -> None:
    """The URL's host is AWS's, and its path has the whole key."""
    for region, place in (("us-east-1", S3Place()), ("eu-west-1", S3Place(fips=True))):
        url = object_url(found, place, region)
        check_link(url, file_hosts=_HOSTS, loopback=False)
        assert httpx.URL(url).host.endswith(f".{region}.amazonaws.com"), url
        target = request_target(url)
        assert target is not None, url
        assert httpx.URL(f"https://x{target.decode()}").query == b"", url


# --------------------------------------------------------------------- answers

_STORED = ObjectVersion(total=1000, etag='"abc"', ranges=True)
_DATED = ObjectVersion(total=1000, etag=None, modified=DATES[0], ranges=True)
_ASKED = (
    None,
    Range(_STORED, 0, 1000),
    Range(_STORED, 100, 1000),
    Range(_STORED, 100, 200),
    Range(_DATED, 100, 1000),
)

_FILE_HEADERS = {
    "content-length": ("1000", "900", "100", "0", "9" * 18, "9" * 19, "+7", "1,1"),
    "content-range": (
        "bytes 100-999/1000",
        "bytes 100-199/1000",
        "bytes 0-999/1000",
        "bytes 100-999/*",
        "bytes */1000",
        "BYTES  5-4/3",
    ),
    "content-encoding": ("gzip", "identity", "br", "x-gzip", "gzip, gzip"),
    "accept-ranges": ("bytes", "none"),
    "etag": ('"abc"', 'W/"abc"', '"d41d8cd98f00b204e9800998ecf8427e"', '"' + "e" * 257 + '"'),
    "last-modified": DATES,
    "date": DATES,
    "x-amz-request-id": ("7",),
    "x-amz-server-side-encryption": ("AES256", "aws:kms"),
}


@attrs.frozen
class Served:
    """An answer of storage, without its body."""

    status: int
    headers: dict[str, str]
    asked: Range | None


def _served(inputs: Inputs) -> Served:
    status = inputs.choice((200, 206, 206, 206, 412, 416, 304, 403, 500))
    return Served(status, inputs.headers(_FILE_HEADERS), inputs.choice(_ASKED))


def _check_served(given: Served, found: ObjectVersion | PartialContent | Restart | Refused) -> None:
    if isinstance(found, PartialContent):
        asked = given.asked
        assert asked is not None
        assert given.status in (200, 206)  # some servers send the range that was asked for with 200
        whole = (asked.start, asked.stop, asked.version.total)
        assert content_range(given.headers) == whole, given
    if isinstance(found, ObjectVersion):
        assert given.status == 200
        assert found.total is None or 0 <= found.total < 10**18, found
        assert found.md5 is None or re.fullmatch("[0-9a-f]{32}", found.md5), found
        if found.resumable:
            check_sendable(Range(found, 1, 2))


def check_sendable(asked: Range) -> None:
    """Values that go into request headers must be one line of ASCII."""
    for value in asked.headers().values():
        assert re.fullmatch(r"[ -~]{1,300}", value), asked


_ERROR_HEADERS = {
    "x-amz-bucket-region": ("eu-west-1", "us-east-1", "evil.example/", "a-b.c"),
    "content-type": ("application/xml",),
}

_ERROR_PAGE = (
    b'<?xml version="1.0" encoding="UTF-8"?>\n<Error><Code>%s</Code><Message>%s</Message>'
    b"<Region>%s</Region><StringToSign>AWS4-HMAC-SHA256</StringToSign></Error>"
)
_CODES = (b"AccessDenied", b"SlowDown", b"AuthorizationHeaderMalformed", b"NoSuchKey", b"X", b"")
_MESSAGES = (b"Request has expired", b"Access Denied", b"Only one auth mechanism allowed", b"")


def _refused(inputs: Inputs) -> tuple[int, dict[str, str], bytes]:
    region = inputs.choice((b"eu-west-1", b"evil.example/", b"us-gov-west-1", b""))
    page = _ERROR_PAGE % (inputs.choice(_CODES), inputs.choice(_MESSAGES), region)
    if inputs.one_in(2):
        page = inputs.changed_bytes(page)
    if inputs.one_in(6):
        page = inputs.planting(page.decode("utf-8", "replace")).encode()
    status = inputs.choice((301, 307, 400, 401, 403, 404, 410, 416, 429, 500, 503, 599))
    return status, inputs.headers(_ERROR_HEADERS), page[: 16 * 1024]


def _check_refused(given: tuple[int, dict[str, str], bytes], found: StorageError) -> None:
    assert found.status == given[0]
    assert re.fullmatch(r"[ -~]{1,300}", found.message), found
    assert SECRET not in repr(found), found
    assert found.region is None or re.fullmatch(r"[a-z0-9-]{1,63}", found.region), found
    assert (found.remedy == "region") <= (found.region is not None), found


DECODERS: tuple[Decoder[Any, Any], ...] = (
    Decoder(
        "links.check_link, request_target",
        (LinkRefused,),
        lambda inputs: (_link(inputs), inputs.one_in(3)),
        _follow,
        _check_followed,
    ),
    Decoder("cli.json_lines.unsigned", (), _link, unsigned, _check_shown),
    Decoder(
        "links.check_addresses",
        (LinkRefused,),
        _resolved,
        lambda given: check_addresses(given[0], given[1], loopback=given[2]),
        _check_addresses,
    ),
    Decoder("s3_links.parse_s3_link", (LinkRefused,), _s3_link, parse_s3_link, _check_s3),
    Decoder(
        "byte_ranges.read_answer",
        (),
        _served,
        lambda given: read_answer(given.status, given.headers, given.asked),
        _check_served,
    ),
    Decoder(
        "storage_errors.storage_error",
        (),
        _refused,
        lambda given: storage_error(*given),
        _check_refused,
    ),
)
