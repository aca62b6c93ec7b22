"""Sign ``s3://`` links, with botocore for the credentials, the configuration and the signature.

The extra ``s3``. botocore takes as long to import as httpx does, so that happens with the first
such link. It also blocks (on files, on a sign-in, on a cloud's metadata service), so all of it
runs in a worker thread. It has no types, hence `Any`.
"""

from __future__ import annotations

import logging
import os
import re
import threading
from contextvars import ContextVar
from importlib import import_module
from typing import Any

import anyio
import anyio.to_thread
import attrs

from segments_async._http.storage import SignedLink, StorageBroken
from segments_async._sansio.api.redaction import redact
from segments_async._sansio.files.links import LinkRefused
from segments_async._sansio.files.s3_links import DEFAULT_REGION, S3Object, S3Place, object_url

#: Seconds a signed URL is good for. Storage looks at them when a request begins; its tolerance
#: for clocks that are wrong is the same.
LIFETIME = 900

#: Seconds that finding or refreshing credentials may take. A sign-in program may hang.
PATIENCE = 60.0

#: Seconds for which "no credentials" is believed: looking for them again may ask a metadata
#: service that isn't there, for a second each time.
ANONYMOUS_FOR = 300.0


class S3Signer:
    """Signs for whoever the standard AWS environment and configuration say that we are.

    They are read with the first link and belong to this object from then on; credentials that
    expire are refreshed by botocore. Without any, URLs go unsigned, which opens public objects.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._account: _Account | None = None
        self._regions: dict[str, str] = {}

    async def sign(self, target: S3Object) -> SignedLink:
        """The object's https URL, good for a quarter of an hour.

        Raises:
            LinkRefused: botocore isn't installed, or the AWS configuration can't work.
            StorageBroken: credentials couldn't be had, which may pass.
        """
        now = anyio.current_time()
        with anyio.move_on_after(PATIENCE):
            # A caller who is cancelled doesn't wait for the thread: it changes nothing but what it
            # found out, under its lock.
            return await anyio.to_thread.run_sync(self._sign, target, now, abandon_on_cancel=True)
        raise StorageBroken(f"AWS credentials: none within {PATIENCE:g} s")

    def learn(self, bucket: str, region: str) -> None:
        """Note where a bucket is, for this and all later links to it."""
        self._regions[bucket] = region

    def _sign(self, target: S3Object, now: float) -> SignedLink:
        _at_work.set(True)  # in the thread's own copy of the context
        with self._lock:
            if self._account is None:
                self._account = _Account.of_this_process()
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
class _Account:
    """Who we are to AWS. Used by one thread at a time."""

    place: S3Place
    _session: Any = attrs.field(repr=False)
    _anonymous_until: float = 0.0

    @classmethod
    def of_this_process(cls) -> _Account:
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
        except Exception as exc:  # noqa: BLE001 - a file that can't be read, a value that is none
            raise LinkRefused(f"the AWS configuration: {_shown(exc)}") from None

    def credentials(self, now: float) -> Any:
        """Frozen credentials, fresh; None where there are none."""
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


#: Codes by which AWS puts a request for credentials off.
_PUT_OFF = re.compile(r"(?i).*throttl.*|.*slowdown.*|.*timeout.*|.*unavailable.*|.*internal.*")


def _credentials_error(exc: Exception) -> Exception:
    """The one error of credentials: broken where it may pass, refused where a person has to act.

    botocore's chain reads files, runs programs and asks servers, and maps few of their errors: a
    token's file that isn't there (yet) is an OSError, a program's output that is no JSON a
    ValueError.
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
        return status in (408, 429) or status >= 500 or _PUT_OFF.fullmatch(code) is not None
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
        return _told(exc)
    return type(exc).__name__


def _told(exc: Exception) -> str:
    """Its own sentences say what to do ("run aws sso login")."""
    return redact(f"{type(exc).__name__}: {exc}")


def _place(session: Any) -> S3Place:
    return S3Place(
        # AWS_REGION is what Lambda sets and the other SDKs read; botocore knows the older name.
        region=os.environ.get("AWS_REGION") or session.get_config_variable("region"),
        endpoint=_endpoint(session),
        fips=bool(session.get_config_variable("use_fips_endpoint")),
        dualstack=bool(session.get_config_variable("use_dualstack_endpoint")),
    )


def _endpoint(session: Any) -> str | None:
    """S3's own before the general one, the environment before the profile.

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
    """That of the `s3` in a `[services …]`, which a profile names."""
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
    """At DEBUG, botocore logs signatures, and what it sends and gets where it asks for credentials.

    Only what it does for this module is kept quiet.
    """

    def filter(self, record: logging.LogRecord) -> bool:  # noqa: ARG002 - as its base has it
        return not _at_work.get()


for _name in ("botocore.auth", "botocore.endpoint", "botocore.parsers"):
    logging.getLogger(_name).addFilter(_Silence())
