"""What the errors of object storage mean, and how large the parts of an upload are."""

from __future__ import annotations

import math
import re

import attrs

from segments_async.errors import DestinationReason

MIB = 1024 * 1024

#: Bytes of a part: the least that S3 takes, except for an object's last part. Each part that is
#: under way is in memory.
PART = 5 * MIB

#: Bytes of a part where nothing tells the object's size: 10 000 of them are 156 GiB.
PART_OF_UNKNOWN = 16 * MIB

#: S3 takes 10 000 parts.
# https://docs.aws.amazon.com/AmazonS3/latest/userguide/qfacts.html
_MOST_PARTS = 9_900

_STATUS = re.compile(r"status code: (\d{3})|HTTP status (?:client|server) error \((\d{3})")
_CODE = re.compile(r"<Code>([A-Za-z0-9]{1,64})</Code>|\"code\": *\"([A-Za-z0-9]{1,64})\"")
_REGION = re.compile(r"<Region>([a-z0-9-]{1,40})</Region>|expecting '([a-z0-9-]{1,40})'")

_EXPIRED = frozenset({"ExpiredToken", "TokenRefreshRequired", "InvalidToken"})
_KEYS = frozenset({"InvalidAccessKeyId", "SignatureDoesNotMatch", "AuthenticationFailed"})
_OTHER_REGION = frozenset(
    {"PermanentRedirect", "AuthorizationHeaderMalformed", "IllegalLocationConstraintException"}
)
_NO_BUCKET = frozenset({"NoSuchBucket", "ContainerNotFound"})
_FULL = frozenset(
    {"QuotaExceeded", "XMinioStorageFull", "XMinioAdminBucketQuotaExceeded", "InsufficientStorage"}
)
_BUSY = frozenset({"SlowDown", "ServiceUnavailable", "InternalError", "RequestTimeout"})
_BUSY_STATUS = frozenset({408, 429, *range(500, 600)}) - {501, 507}

#: Texts of an error for which no answer came.
_NO_ANSWER = ("error sending request", "HTTP error", "operation timed out", "error decoding")

#: The address at which a machine of a cloud asks for its credentials.
_METADATA_ADDRESS = ("169.254.", "metadata.google.internal", "[fd00:ec2::254]")

RIGHTS = (
    "the credentials need the right to list the bucket, to read and write objects under the "
    "prefix, and to abort multipart uploads"
)


@attrs.frozen
class StoreError:
    """What an error of object storage means.

    Attributes:
        reason: of the :class:`DestinationError`.
        text: what happened, and what helps, without anything of the store's own text: that may
            hold a URL with a signature.
    """

    reason: DestinationReason
    text: str


def part_size(size: int | None) -> int:
    """Bytes of each part of an object of this size; None where the size is unknown."""
    if size is None:
        return PART_OF_UNKNOWN
    return max(PART, math.ceil(size / _MOST_PARTS / MIB) * MIB)


def store_error(kind: str, text: str) -> StoreError:
    """The meaning of an error.

    Args:
        kind: name of the error's class.
    """
    found = _STATUS.search(text)
    status = int(found[1] or found[2]) if found else None
    code = next(filter(None, match.groups()), "") if (match := _CODE.search(text)) else ""
    told = " ".join(filter(None, (str(status or ""), code)))
    meaning = (
        _about_this_process(kind)
        or _about_credentials(kind, status, code, text)
        or _about_bucket(status, code, text)
        or _about_availability(status, code, text)
        or StoreError("broken", f"an error of the store ({kind})")
    )
    return StoreError(meaning.reason, f"{meaning.text} [{told}]" if told else meaning.text)


def _about_this_process(kind: str) -> StoreError | None:
    if kind == "NoThread":
        what = "no thread can be started: a limit of the user (ulimit -u) or of the container"
        return StoreError("away", what)
    if kind == "RustPanic":
        what = (
            "obstore panicked at a setting that can't be sent: is the endpoint a URL, and is a "
            "credential without white space?"
        )
        return StoreError("broken", what)
    return None


def _about_credentials(kind: str, status: int | None, code: str, text: str) -> StoreError | None:
    if "BadScheme" in text:
        what = "the endpoint is plain http://, which AWS_ALLOW_HTTP=true admits, on loopback say"
        return StoreError("broken", what)
    if "MissingAccount" in text:
        return StoreError("denied", "AZURE_STORAGE_ACCOUNT_NAME is not set")
    if any(address in text for address in _METADATA_ADDRESS):
        what = (
            "no credentials were found: neither in the environment, nor from this machine's cloud"
        )
        return StoreError("denied", what)
    if code == "RequestTimeTooSkewed":
        what = (
            "this machine's clock differs from the store's by more than 15 minutes: set the clock"
        )
        return StoreError("denied", what)
    if code in _EXPIRED:
        return StoreError("denied", "the credentials have expired: get fresh ones")
    if code in _KEYS:
        return StoreError("denied", "the store doesn't accept the credentials")
    if code in _OTHER_REGION or code in _NO_BUCKET:
        return None
    if status in (401, 403) or kind in ("PermissionDeniedError", "UnauthenticatedError"):
        return StoreError("denied", f"the store refuses access: {RIGHTS}")
    return None


def _about_bucket(status: int | None, code: str, text: str) -> StoreError | None:
    if code in _NO_BUCKET:
        return StoreError("missing", "the bucket doesn't exist, or not at this endpoint")
    if code in _OTHER_REGION or status == 301 or "redirect without LOCATION" in text:
        found = _REGION.search(text)
        region = next(filter(None, found.groups()), None) if found else None
        where = f" {region}: set AWS_REGION={region}" if region else ": set AWS_REGION to that one"
        return StoreError("missing", f"the bucket is in another region{where}")
    if code in _FULL or status == 507:
        return StoreError("full", "the store is full, or the bucket's quota is used up")
    return None


def _about_availability(status: int | None, code: str, text: str) -> StoreError | None:
    if code in _BUSY or status in _BUSY_STATUS:
        return StoreError("away", "the store is unavailable")
    if status is None and any(words in text for words in _NO_ANSWER):
        return StoreError("away", "the store doesn't answer")
    return None
