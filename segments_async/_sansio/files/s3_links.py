"""From ``s3://bucket/key`` to the https URL to sign: names checked, keys quoted, hosts chosen.

Bucket and key are a server's text. The bucket becomes part of a host's name, so it has to be one
that S3 would accept; the key is taken as it stands, as the AWS command line does: ``%20``, ``?``
and ``#`` in it are its own characters.

https://docs.aws.amazon.com/AmazonS3/latest/userguide/bucketnamingrules.html
"""

from __future__ import annotations

import re
from urllib.parse import quote, urlsplit

import attrs

from segments_async._sansio.files.links import LinkMalformed, LinkRefused

SCHEME = "s3://"

#: Where a bucket is looked for first when nothing tells a region: S3's own default.
DEFAULT_REGION = "us-east-1"

#: S3's limit, in bytes of UTF-8.
LONGEST_KEY = 1024

_BUCKET = re.compile(
    r"(?=.{3,63}\Z)[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*"
)
_ADDRESS = re.compile(r"[0-9]+(\.[0-9]+){3}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def is_s3_link(link: str) -> bool:
    """Whether the link is to be signed first."""
    return link.lstrip()[: len(SCHEME)].lower() == SCHEME


@attrs.frozen
class S3Object:
    """A bucket's name, as S3 would accept it, and a key."""

    bucket: str
    key: str


def parse_s3_link(link: str) -> S3Object:
    """Take ``s3://bucket/key`` apart.

    Raises:
        LinkMalformed: not a bucket's name, or not a key.
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
    """Where S3 is, by the standard AWS environment and configuration.

    Attributes:
        region: None where nothing tells it.
        endpoint: the URL of an S3 that isn't AWS's own, or None.
        fips: whether AWS's own is asked at its FIPS 140 endpoints.
        dualstack: whether it is asked over IPv6, too.
    """

    region: str | None = None
    endpoint: str | None = None
    fips: bool = False
    dualstack: bool = False


def object_url(target: S3Object, place: S3Place, region: str) -> str:
    """The unsigned URL of an object, quoted as S3 signs it.

    Virtual-hosted on AWS, but path-style for a bucket with dots, which the certificate for
    ``*.s3.amazonaws.com`` doesn't cover, and at an endpoint of the user's, where a host per bucket
    often doesn't exist.

    Raises:
        LinkRefused: the configured endpoint is no URL to put a path after.
    """
    # S3 signs each byte but these quoted, and the path as it is: no segment is dropped.
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
