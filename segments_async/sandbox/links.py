"""Links to files: signed like S3's, and valid for a time."""

from __future__ import annotations

import hmac
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from urllib.parse import parse_qs

from attrs import field, frozen

from . import chance
from .answer import Reply

_SCOPE = "AKIASANDBOXSANDBOX00%2F{day}%2Fus-east-1%2Fs3%2Faws4_request"


@frozen
class Signer:
    """Signs links, and refuses others' links. The signature is like S3's in form only."""

    key: bytes = field(repr=False)

    @classmethod
    def of(cls, seed: int) -> Signer:
        """The signer of a sandbox with this seed."""
        return cls(chance.digest(seed, "signing key", size=32))

    def query(self, path: str, date: str, lifetime: int) -> str:
        """The query that opens `path` for `lifetime` seconds from `date` (in S3's form) on."""
        return (
            f"X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential={_SCOPE.format(day=date[:8])}"
            f"&X-Amz-Date={date}&X-Amz-Expires={lifetime}&X-Amz-SignedHeaders=host"
            f"&X-Amz-Signature={self._signature('GET', path, date, str(lifetime))}"
        )

    def refusal(self, method: str, path: str, query: str, moment: datetime) -> Reply | None:
        """S3's error for this link; None: the link opens."""
        values = {name: found[0] for name, found in parse_qs(query).items()}
        date, lifetime = values.get("X-Amz-Date", ""), values.get("X-Amz-Expires", "")
        given = values.get("X-Amz-Signature")
        if given is None:
            return s3_error(403, "AccessDenied", "Access Denied")
        try:
            start = datetime.strptime(date, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
            expires = start + timedelta(seconds=int(lifetime))
        except (ValueError, OverflowError):
            return s3_error(
                400, "AuthorizationQueryParametersError", "X-Amz-Date or X-Amz-Expires is malformed"
            )
        if moment >= expires:
            times = {"Expires": _iso(expires), "ServerTime": _iso(moment)}
            more = {"X-Amz-Expires": lifetime, **times}
            return s3_error(403, "AccessDenied", "Request has expired", **more)
        if not hmac.compare_digest(
            given.encode(), self._signature(method, path, date, lifetime).encode()
        ):
            return s3_error(
                403,
                "SignatureDoesNotMatch",
                "The request signature we calculated does not match the signature you provided.",
            )
        return None

    def _signature(self, *signed: str) -> str:
        return blake2b("\n".join(signed).encode(), key=self.key, digest_size=32).hexdigest()


def s3_error(status: int, code: str, message: str, **more: str) -> Reply:
    """An error as S3 prints it."""
    fields = {"Code": code, "Message": message, **more, "RequestId": "SANDBOX", "HostId": "sandbox"}
    inside = "".join(f"<{name}>{value}</{name}>" for name, value in fields.items())
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inside}</Error>'
    return Reply(status, body.encode(), {"content-type": "application/xml"})


def _iso(moment: datetime) -> str:
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"
