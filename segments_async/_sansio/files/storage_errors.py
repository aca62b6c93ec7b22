"""What storage's refusal means: a sentence for a person, a reason for a program, and what may help.

S3 answers in XML of one element per fact. It is read by looking for those elements and not by an
XML parser: the page is a stranger's text, and a parser would expand its entities. Of the page only
the code and the region are kept, each in a narrow set of characters. The rest may repeat what was
signed (SignatureDoesNotMatch does).

Codes: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal

import attrs

from segments_async._sansio.files.storage_outage import failure_of
from segments_async.errors import DownloadReason

#: What may help: asking again later, a new link to the same file, or signing for another region.
#: None: nothing that this library could do.
Remedy = Literal["wait", "new_link", "region"]

_FACT = re.compile(r"<(Code|Message|Region)>([^<]{0,1024})</\1>")
_CODE = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")

#: A region goes into a host's name, as one label of it.
_REGION = re.compile(r"[a-z]{2,8}(-[a-z0-9]{1,16}){1,4}")


@attrs.frozen
class StorageError:
    """A refusal by storage.

    Attributes:
        status: the HTTP status.
        code: S3's error code, ``""`` where the answer had none.
        message: a sentence without a URL, for a person.
        reason: the DownloadError's.
        remedy: what may help, or None.
        region: where the bucket is, as the answer says; None where it doesn't.
        gone: whether this is how storage answers where the file isn't there (any more): past the
            48 hours that files stay, that is an expired export.
        absent: whether storage says for sure that the file isn't there. Other refusals may pass,
            by a clock or a key that is set right, and say nothing of what has come.
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


def storage_error(status: int, headers: Mapping[str, str], page: bytes) -> StorageError:
    """What an answer without the file means.

    Args:
        status: of an answer that isn't a success.
        headers: its own; looked up by names in lower case.
        page: its body, or the first 16 KiB of it.
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
    """Each element's first text. A second one is of something nested, or not S3's."""
    facts: dict[str, str] = {}
    for name, text in _FACT.findall(page.decode("utf-8", "replace")):
        facts.setdefault(name, text.strip())
    return facts


def _region(headers: Mapping[str, str], facts: Mapping[str, str]) -> str | None:
    named = headers.get("x-amz-bucket-region") or facts.get("Region", "")
    return named if _REGION.fullmatch(named) else None


def _is_about_the_region(status: int, code: str) -> bool:
    # A good many answers carry the bucket's region, denials too, so the header alone says nothing.
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
    """S3 has no code for it: AccessDenied, and "Request has expired" as its message."""
    if code in _BY_CODE and code != "AccessDenied":
        return False
    return "expired" in (message or page.decode("utf-8", "replace")).lower()


def _unknown(status: int) -> _Meaning:
    if failure_of(status) is not None:
        return _OWN_FAULT
    return _Meaning("not an answer that a file comes with", "broken")
