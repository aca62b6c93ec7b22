"""The meaning of storage's refusals: a sentence for people, a reason for programs, and the remedy.

S3 answers in XML with one element per fact. A regular expression finds these elements: an XML
parser would expand the entities of an untrusted page. Only the code and the region are kept, each
in a narrow set of characters. The rest may repeat the signed request, as SignatureDoesNotMatch
does.

Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Mapping
from typing import Literal

import attrs

from segments_async._sansio.files.storage_outage import failure_of
from segments_async.errors import DownloadReason

#: Wait and try again; get a new link to the same file; or sign for another region. None: this
#: library can do nothing.
Remedy = Literal["wait", "new_link", "region"]

_FACT = re.compile(r"<(Code|Message|Region)>([^<]{0,1024})</\1>")
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")

#: A region becomes a label of a host's name.
_REGION = re.compile(r"[a-z]{2,8}(-[a-z0-9]{1,16}){1,4}")

#: Media types of pages, and how a page begins. No export begins so: its first line names columns.
_PAGE_TYPES = frozenset({"text/html", "application/xhtml+xml", "application/xml", "text/xml"})
_PAGE_STARTS = (b"<!doctype", b"<html", b"<?xml", b"<error", b"<!--", b"<head")

#: Bytes of a body that tell whether it is a page, also of a compressed one: its codes come first.
PAGE_START = 512


@attrs.frozen
class StorageError:
    """A refusal by storage.

    Attributes:
        code: S3's error code; ``""`` if the answer has none.
        message: a sentence without a URL, for people.
        reason: of the DownloadError.
        remedy: or None.
        region: of the bucket; None if the answer doesn't say.
        gone: whether storage answers so for a file that isn't there (any more). After the 48 hours
            that files stay, this means an expired export.
        absent: whether storage says for certain that the file isn't there. Other refusals may end
            once a clock or a key is corrected, and leave the downloaded bytes valid.
    """

    status: int
    code: str
    message: str
    reason: DownloadReason
    remedy: Remedy | None = None
    region: str | None = None
    gone: bool = False
    absent: bool = False


@attrs.frozen
class _Meaning:
    text: str
    reason: DownloadReason
    remedy: Remedy | None = None
    gone: bool = False
    absent: bool = False


_EXPIRED = _Meaning("the link has expired", "expired_link", "new_link", gone=True)
_SESSION = _Meaning(
    "the AWS session that signed the link has ended", "expired_link", "new_link", gone=True
)
_REGION_WRONG = _Meaning("the link is signed for another region than the bucket's", "denied")
_SLOW_DOWN = _Meaning("storage asks for fewer requests", "broken", "wait")
_OWN_FAULT = _Meaning("storage has a fault of its own", "broken", "wait")

_BY_CODE: Mapping[str, _Meaning] = {
    "AccessDenied": _Meaning(
        "access denied: the file may not be read with these credentials, or without any; or it "
        "isn't there, which storage doesn't tell those who may not list its bucket",
        "denied",
        gone=True,
    ),
    "AllAccessDisabled": _Meaning("all access to the bucket is disabled", "denied"),
    "ExpiredToken": _SESSION,
    "TokenRefreshRequired": _SESSION,
    "InvalidToken": _Meaning("storage doesn't accept the AWS session token", "denied"),
    "InvalidAccessKeyId": _Meaning("storage doesn't know the AWS access key", "denied"),
    "SignatureDoesNotMatch": _Meaning(
        "the signature doesn't match: the AWS secret key is wrong, or the link was changed on "
        "its way",
        "denied",
    ),
    "RequestTimeTooSkewed": _Meaning(
        "this machine's clock is off by more than 15 minutes from storage's: set it right",
        "denied",
    ),
    "NoSuchKey": _Meaning("the file isn't in its bucket", "denied", gone=True, absent=True),
    "NoSuchBucket": _Meaning("the bucket doesn't exist", "denied", gone=True),
    "InvalidObjectState": _Meaning("the file is archived, and must be restored first", "denied"),
    "AuthorizationHeaderMalformed": _REGION_WRONG,
    "AuthorizationQueryParametersError": _Meaning(
        "storage doesn't accept the link's signature parameters", "denied"
    ),
    "IllegalLocationConstraintException": _REGION_WRONG,
    "PermanentRedirect": _REGION_WRONG,
    "TemporaryRedirect": _REGION_WRONG,
    "Redirect": _REGION_WRONG,
    "SlowDown": _SLOW_DOWN,
    "RequestLimitExceeded": _SLOW_DOWN,
    "ServiceUnavailable": _SLOW_DOWN,
    "InternalError": _OWN_FAULT,
    "OperationAborted": _OWN_FAULT,
    "RequestTimeout": _OWN_FAULT,
}

_TWO_MECHANISMS = _Meaning(
    "the signed link came with an Authorization header, and storage allows only one of them: "
    "something on the way (file_http_client, a proxy) adds credentials",
    "denied",
)

_BY_STATUS: Mapping[int, _Meaning] = {
    401: _Meaning("storage wants other credentials", "denied"),
    403: _Meaning("storage denies access", "denied"),
    404: _Meaning("the file isn't there", "denied", gone=True, absent=True),
    410: _Meaning("the file isn't there any more", "denied", gone=True, absent=True),
    429: _SLOW_DOWN,
    503: _SLOW_DOWN,
}


def has_type_of_page(headers: Mapping[str, str]) -> bool:
    """Whether the headers, by lower-case names, announce a page: the body's start shows the rest.

    Some uploaders give each file the type of a page.
    """
    return headers.get("content-type", "").partition(";")[0].strip().lower() in _PAGE_TYPES


def is_page(start: bytes) -> bool:
    """Whether a body that begins so is a page. Gateways compress pages, also where none asked."""
    if start.startswith(b"\x1f\x8b"):
        try:
            start = zlib.decompressobj(16 + zlib.MAX_WBITS).decompress(start, PAGE_START)
        except zlib.error:
            return False
    return start.removeprefix(b"\xef\xbb\xbf").lstrip().lower().startswith(_PAGE_STARTS)


def storage_error(status: int, headers: Mapping[str, str], page: bytes) -> StorageError:
    """The meaning of an answer without the file.

    Args:
        status: of the answer, which isn't a success.
        headers: of the answer, by lower-case names.
        page: the answer's body, or its first 16 KiB.
    """
    facts = _facts(page)
    code = facts.get("Code", "")
    code = code if _CODE.fullmatch(code) else ""
    region = _region(headers, facts)
    meaning = _meaning(status, code, facts.get("Message", ""), page)
    remedy = meaning.remedy
    if region is not None and _is_about_the_region(status, code):
        meaning, remedy = _REGION_WRONG, "region"
    shown = f"{status} {code}" if code else str(status)
    return StorageError(
        status=status,
        code=code,
        message=f"storage answered {shown}: {meaning.text}",
        reason=meaning.reason,
        remedy=remedy,
        region=region,
        gone=meaning.gone,
        absent=meaning.absent,
    )


def _facts(page: bytes) -> dict[str, str]:
    """The text of the first element of each name. A second one is nested, or not S3's."""
    facts: dict[str, str] = {}
    for name, text in _FACT.findall(page.decode("utf-8", "replace")):
        facts.setdefault(name, text.strip())
    return facts


def _region(headers: Mapping[str, str], facts: Mapping[str, str]) -> str | None:
    named = headers.get("x-amz-bucket-region") or facts.get("Region", "")
    return named if _REGION.fullmatch(named) else None


def _is_about_the_region(status: int, code: str) -> bool:
    # Many answers name the bucket's region, denials too, so the header alone means nothing.
    return status in (301, 307) or code in (
        "AuthorizationHeaderMalformed",
        "AuthorizationQueryParametersError",
        "IllegalLocationConstraintException",
    )


def _meaning(status: int, code: str, message: str, page: bytes) -> _Meaning:
    if status in (400, 401, 403) and _says_expired(code, message, page):
        return _EXPIRED
    if code == "InvalidArgument" and "auth mechanism" in message:
        return _TWO_MECHANISMS
    return _BY_CODE.get(code) or _BY_STATUS.get(status) or _unknown(status)


def _says_expired(code: str, message: str, page: bytes) -> bool:
    """S3 has no code for an expired link: AccessDenied with the message "Request has expired"."""
    if code in _BY_CODE and code != "AccessDenied":
        return False
    return "expired" in (message or page.decode("utf-8", "replace")).lower()


def _unknown(status: int) -> _Meaning:
    if failure_of(status) is not None:
        return _OWN_FAULT
    return _Meaning("neither the file nor an error that is known", "broken")
