"""Sign ``s3://`` links, with botocore for the credentials, the configuration and the signature.

The extra ``s3``. botocore takes as long to import as httpx, so it is imported with the first such
link. botocore blocks (on files, on a sign-in, on a cloud's metadata service), so all of its code
runs in a worker thread. botocore has no type annotations, hence `Any`.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from contextvars import ContextVar
from functools import partial
from importlib import import_module
from typing import Any

import anyio
import attrs

from segments_async._filesystem.threads import NoThread, in_thread
from segments_async._http.storage import SignedLink
from segments_async._http.storage_body import StorageBroken
from segments_async._sansio.api.redaction import redact
from segments_async._sansio.files.links import LinkRefused
from segments_async._sansio.files.s3_links import DEFAULT_REGION, S3Object, S3Place, object_url

#: Seconds for which a signed URL is valid. Storage checks them when a request begins, and tolerates
#: clocks that are wrong by as much.
LIFETIME = 900

#: Seconds that finding or refreshing credentials may take: a sign-in program may hang.
PATIENCE = 60.0

#: Seconds before credentials are looked for again after none were found. Each search may wait a
#: second for a metadata service that doesn't exist.
ANONYMOUS_FOR = 300.0


class S3Signer:
    """Signs with the credentials of the standard AWS environment and configuration.

    Both are read with the first link, and not again; botocore refreshes credentials that expire.
    Without credentials, URLs are unsigned, which suffices for public objects.
    """

    def __init__(self) -> None:
        #: Whether the last link could not be signed, for a reason that may pass.
        self.failing: bool = False
        self._lock = threading.Lock()
        self._account: Account | None = None
        self._regions: dict[str, str] = {}

    async def sign(self, target: S3Object) -> SignedLink:
        """The object's https URL, valid for a quarter of an hour.

        Raises:
            LinkRefused: botocore isn't installed, or the AWS configuration is invalid.
            StorageBroken: getting credentials failed for a reason that may pass.
        """
        now = anyio.current_time()
        try:
            with anyio.move_on_after(PATIENCE):
                # A cancelled caller doesn't wait for the thread, which changes only this object,
                # under its lock.
                sign = partial(self._sign, target, now)
                link = await in_thread(sign, abandon_on_cancel=True)
                self.failing = False
                return link
            raise StorageBroken(f"AWS credentials: none within {PATIENCE:g} s")
        except NoThread as exc:
            self.failing = True
            raise StorageBroken(f"AWS credentials: {exc.strerror}") from exc
        except StorageBroken:
            self.failing = True
            raise

    def learn(self, bucket: str, region: str) -> None:
        """Remember the bucket's region for all later links to it."""
        self._regions[bucket] = region

    def _sign(self, target: S3Object, now: float) -> SignedLink:
        _at_work.set(True)  # for this call alone: its thread has a copy of the caller's context
        with self._lock:
            if self._account is None:
                self._account = Account.of_this_process()
            credentials = self._account.credentials(now)
        place = self._account.place
        region = self._regions.get(target.bucket) or place.region or DEFAULT_REGION
        url = object_url(target, place, region)
        if credentials is not None:
            url = _signed(url, credentials, region)
        return SignedLink(url, region)


def _signed(url: str, credentials: Any, region: str) -> str:
    request = import_module("botocore.awsrequest").AWSRequest(method="GET", url=url)
    # Not botocore's generate_presigned_url(): it loads S3's model, and signs the old way (SigV2).
    auth = import_module("botocore.auth").S3SigV4QueryAuth
    auth(credentials, "s3", region, expires=LIFETIME).add_auth(request)
    return str(request.url)


@attrs.define
class Account:
    """The AWS configuration and credentials. Used by one thread at a time."""

    place: S3Place
    _session: Any = attrs.field(repr=False)
    _anonymous_until: float = 0.0

    @classmethod
    def of_this_process(cls) -> Account:
        try:
            session = import_module("botocore.session").Session()
        except ImportError:
            raise LinkRefused(
                "an s3:// link is signed by botocore; pip install 'segments-async[s3]'"
            ) from None
        try:
            return cls(_place(session), session)
        except LinkRefused:
            raise
        except Exception as exc:  # noqa: BLE001 - an unreadable file, an invalid value
            raise LinkRefused(f"the AWS configuration: {_shown(exc)}") from None

    def credentials(self, now: float) -> Any:
        """Frozen credentials, valid now; None if there are none."""
        if now < self._anonymous_until:
            return None
        try:
            found = self._session.get_credentials()
            if found is not None:
                return found.get_frozen_credentials()
        except Exception as exc:  # noqa: BLE001 - botocore's chain lets anything through
            # `from None`: a program that prints credentials may be quoted in it.
            raise _credentials_error(exc) from None
        self._anonymous_until = now + ANONYMOUS_FOR
        return None


#: Codes of AWS's temporary refusals of a request for credentials.
_TEMPORARY = re.compile(r"(?i).*throttl.*|.*slowdown.*|.*timeout.*|.*unavailable.*|.*internal.*")


def _credentials_error(exc: Exception) -> Exception:
    """StorageBroken for an error that may pass, LinkRefused for one that a person has to correct.

    botocore reads files, runs programs and asks servers, and maps few of their errors: a missing
    file of a token is an OSError, and a program's output that isn't JSON a ValueError.
    """
    if _may_pass(exc):
        return StorageBroken(f"AWS credentials: {_shown(exc)}")
    return LinkRefused(f"AWS credentials: {_shown(exc)}")


def _may_pass(exc: Exception) -> bool:
    errors = import_module("botocore.exceptions")
    if isinstance(exc, errors.ClientError):
        response: Any = getattr(exc, "response", {})
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = str(response.get("Error", {}).get("Code", ""))
        return status in (408, 429) or status >= 500 or _TEMPORARY.fullmatch(code) is not None
    return isinstance(
        exc,
        (
            errors.HTTPClientError,
            errors.ConnectionError,
            errors.CredentialRetrievalError,
            errors.MetadataRetrievalError,
            OSError,
        ),
    )


def _shown(exc: Exception) -> str:
    errors = import_module("botocore.exceptions")
    if isinstance(exc, errors.CredentialRetrievalError):
        return type(exc).__name__  # it may quote a program that prints credentials
    if isinstance(exc, OSError):
        where = f": {exc.filename}" if isinstance(exc.filename, str) else ""
        return redact(f"{type(exc).__name__}: {exc.strerror or 'no reason'}{where}")
    if isinstance(exc, (errors.BotoCoreError, errors.ClientError)):
        return _text_of(exc)
    return type(exc).__name__


def _text_of(exc: Exception) -> str:
    """The error's text, which says what to do ("run aws sso login")."""
    return redact(f"{type(exc).__name__}: {exc}")


def _place(session: Any) -> S3Place:
    return S3Place(
        # Lambda sets AWS_REGION, and the other SDKs read it; botocore knows the older name alone.
        region=os.environ.get("AWS_REGION") or session.get_config_variable("region"),
        endpoint=_endpoint(session),
        fips=bool(session.get_config_variable("use_fips_endpoint")),
        dualstack=bool(session.get_config_variable("use_dualstack_endpoint")),
    )


def _endpoint(session: Any) -> str | None:
    """The endpoint of S3 before the general one, the environment before the profile.

    https://docs.aws.amazon.com/sdkref/latest/guide/feature-ss-endpoints.html
    """
    if session.get_config_variable("ignore_configured_endpoint_urls"):
        return None
    profile = session.get_scoped_config()
    return (
        os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or _endpoint_of_services(session, profile.get("services"))
        or profile.get("endpoint_url")
    )


def _endpoint_of_services(session: Any, section: str | None) -> str | None:
    """The endpoint under `s3` in the `[services …]` section that a profile names."""
    if section is None:
        return None
    try:
        endpoint = session.full_config["services"][section].get("s3", {}).get("endpoint_url")
    except (KeyError, AttributeError):
        raise LinkRefused(
            f"the AWS configuration: no [services {section}], or no settings under its s3"
        ) from None
    return None if endpoint is None else str(endpoint)


_at_work: ContextVar[bool] = ContextVar("segments_async_s3_signer_at_work", default=False)


class _Silence(logging.Filter):
    """Drops botocore's lines at DEBUG, while it works for this module.

    They have signatures, and the requests and answers about credentials.
    """

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - as its base has it
        return not _at_work.get()


for _name in ("botocore.auth", "botocore.endpoint", "botocore.parsers"):
    logging.getLogger(_name).addFilter(_Silence())
