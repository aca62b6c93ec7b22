"""The URLs of destinations: `s3://bucket/prefix`, and those of a caller's `Destination`."""

from __future__ import annotations

import re

import attrs

from segments_async.errors import ConfigurationError, printable

#: Schemes of the object storage that the library writes to.
OBJECT_SCHEMES = frozenset({"s3", "gs", "az"})

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)([^?#]*)(.*)", re.DOTALL)
#: What stands for the host where a password has a slash, as many of AWS's secret keys have. It is
#: no host with a port.
_USER_AND_PASSWORD = re.compile(r"[^:\[]*:(?!\d*$)")
_BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}")


@attrs.frozen
class ObjectPlace:
    """A bucket, or a container, and the beginning of the keys in it.

    Attributes:
        scheme: ``s3``, ``gs`` or ``az``.
        prefix: without a slash at either end; empty for the bucket itself.
    """

    scheme: str
    bucket: str
    prefix: str

    @property
    def location(self) -> str:
        """The URL without a slash at its end: one place has one URL."""
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")


def check_location(location: str) -> str:
    """The URL of a destination, without a slash at its end.

    Raises:
        ConfigurationError: not a URL, or one that may hold a credential.
    """
    found = _URL.fullmatch(location)
    if found is None:
        raise ConfigurationError(
            "the location of a destination has to be a URL, such as s3://bucket/prefix"
        )
    scheme, host, path, rest = found.groups()
    if "@" in host or rest or (_USER_AND_PASSWORD.match(host) and "@" in path):
        # Not repeated in the message: it may have a password or a signature.
        raise ConfigurationError(
            f"{scheme}://...: a user, a password, a query or a fragment in the URL of a "
            "destination is refused, since the journal and the log show the URL. Credentials come "
            "from the environment. Nothing was sent"
        )
    if not location.isprintable():
        raise ConfigurationError("the location of a destination has a control character")
    if not host and not path.strip("/"):
        raise ConfigurationError(
            f"{printable(location)}: names no place; write a URL such as s3://bucket/prefix"
        )
    return location.rstrip("/")


def object_place(url: str) -> ObjectPlace:
    """Read a URL of object storage. Its path is taken as it is: ``%20`` stands for itself.

    Raises:
        ConfigurationError: no bucket, or keys that not every store and tool can address.
    """
    found = _URL.fullmatch(check_location(url))
    if found is None:
        raise AssertionError("checked")
    scheme, bucket, path, _ = found.groups()
    if not _BUCKET.fullmatch(bucket):
        raise ConfigurationError(
            f"{scheme}://...: no name of a bucket; write {scheme.lower()}://bucket/prefix/"
        )
    prefix = path.strip("/")
    parts = prefix.split("/") if prefix else []
    if any(part in ("", ".", "..") for part in parts) or len(prefix.encode()) > 700:
        raise ConfigurationError(
            f"{printable(url)}: a prefix of keys can't have empty parts, '.' or '..', and has 700 "
            "bytes at most"
        )
    return ObjectPlace(scheme.lower(), bucket, prefix)
