"""From ``s3://bucket/key`` to the https URL to sign: names checked, keys quoted, hosts chosen.

Bucket and key are a server's text. The bucket becomes part of a host's name, so S3's rules for
names have to allow it. The key is taken as it stands, as by the AWS command line: ``%20``, ``?``
and ``#`` are characters of the key.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

import attrs

from segments_async._sansio.files.links import LinkMalformed, LinkRefused

SCHEME = "s3://"

#: The region of the first request if no region is configured: S3's own default.
DEFAULT_REGION = "us-east-1"

#: S3's limit, in bytes of UTF-8.
LONGEST_KEY = 1024

_BUCKET = re.compile(
    r"(?=.{3,63}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
)
_ADDRESS = re.compile(r"[0-9]+(\.[0-9]+){3}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def is_s3_link(link: str) -> bool:
    """Whether the link has to be signed."""
    return link.lstrip()[: len(SCHEME)].lower() == SCHEME


@attrs.frozen
class S3Object:
    """A bucket's name that S3's rules allow, and a key."""

    bucket: str
    key: str


def parse_s3_link(link: str) -> S3Object:
    """Take ``s3://bucket/key`` apart.

    Raises:
        LinkMalformed: the bucket's name or the key isn't allowed.
    """
    bucket, _, key = link.lstrip()[len(SCHEME) :].partition("/")
    if not _BUCKET.fullmatch(bucket) or _ADDRESS.fullmatch(bucket) or bucket.startswith("xn--"):
        raise LinkMalformed("an s3:// link without a bucket's name as S3 allows it")
    if bucket.endswith("--x-s3"):
        raise LinkMalformed(
            "an s3:// link to a directory bucket (S3 Express), which isn't supported"
        )
    try:
        size = len(key.encode())
    except UnicodeEncodeError:
        raise LinkMalformed("an s3:// link whose key is not Unicode") from None
    if not 0 < size <= LONGEST_KEY:
        raise LinkMalformed(
            f"an s3:// link with a key of {size} bytes; S3's have 1 to {LONGEST_KEY}"
        )
    if _CONTROL.search(key):
        raise LinkMalformed("an s3:// link with a control character in its key (a newline?)")
    return S3Object(bucket, key)


@attrs.frozen(kw_only=True)
class S3Place:
    """The address of S3, by the standard AWS environment and configuration.

    Attributes:
        region: None if none is configured.
        endpoint: the URL of an S3 that isn't AWS's own, or None.
        fips: whether to use the FIPS 140 endpoints of AWS.
        dualstack: whether to use the endpoints of AWS for IPv6.
    """

    region: str | None = None
    endpoint: str | None = None
    fips: bool = False
    dualstack: bool = False


def object_url(target: S3Object, place: S3Place, region: str) -> str:
    """The unsigned URL of an object, quoted as S3 signs it.

    On AWS the bucket is part of the host. It is part of the path if its name has dots, for which
    the certificate of ``*.s3.amazonaws.com`` isn't valid; and at a configured endpoint, where a
    host per bucket often doesn't exist.

    Raises:
        LinkRefused: the configured endpoint isn't a URL without a query.
    """
    # S3 signs the path with all bytes but these quoted, and with all of its segments.
    key = quote(target.key, safe="/~")
    if place.endpoint is not None:
        return f"{_endpoint(place.endpoint)}/{target.bucket}/{key}"
    service = ("s3-fips" if place.fips else "s3") + (".dualstack" if place.dualstack else "")
    host = f"{service}.{region}.amazonaws.com"
    if region.startswith("cn-"):
        host += ".cn"
    if "." in target.bucket:
        return f"https://{host}/{target.bucket}/{key}"
    return f"https://{target.bucket}.{host}/{key}"


def _endpoint(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and url.isprintable()
    except ValueError:
        usable = False
    if not usable or "?" in url or "#" in url or " " in url:
        raise LinkRefused("the endpoint in the AWS configuration (AWS_ENDPOINT_URL_S3) is no URL")
    return url.rstrip("/")
