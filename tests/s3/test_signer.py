"""The signer, by the standard AWS environment and configuration. No sockets."""

from __future__ import annotations

import json
import re
import sys
import threading
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import anyio
import anyio.to_thread
import pytest
from botocore.exceptions import ClientError, ConnectTimeoutError, EndpointConnectionError

from s3.fake import ACCESS_KEY, SECRET_KEY
from segments_async._files import s3
from segments_async._files.s3 import S3Signer
from segments_async._http.storage_body import StorageBroken
from segments_async._sansio.files.links import LinkRefused
from segments_async._sansio.files.s3_links import S3Object

OBJECT = S3Object("bucket", "a.csv")


def scope(url: str) -> list[str]:
    """Access key, date, region, service: what the URL is signed for."""
    return parse_qs(urlsplit(url).query)["X-Amz-Credential"][0].split("/")


def host(url: str) -> str:
    return urlsplit(url).netloc


# Credentials.


async def test_without_credentials_nothing_is_signed() -> None:
    """Without credentials the URL is unsigned."""
    signed = await S3Signer().sign(OBJECT)
    assert signed.url == "https://bucket.s3.us-east-1.amazonaws.com/a.csv"


@pytest.mark.usefixtures("credentials")
async def test_signed_with_version_4() -> None:
    """Signed are the query, for a quarter of an hour, and the host; Range and If-Match aren't."""
    signed = await S3Signer().sign(OBJECT)
    query = {name: values[0] for name, values in parse_qs(urlsplit(signed.url).query).items()}
    assert query["X-Amz-Algorithm"] == "AWS4-HMAC-SHA256"
    assert query["X-Amz-Expires"] == "900"
    assert query["X-Amz-SignedHeaders"] == "host"
    assert scope(signed.url)[0] == ACCESS_KEY
    assert scope(signed.url)[2:] == ["us-east-1", "s3", "aws4_request"]
    assert re.fullmatch("[0-9a-f]{64}", query["X-Amz-Signature"])
    assert "X-Amz" not in repr(signed)


@pytest.mark.usefixtures("aws_home")
async def test_credentials_of_a_profile(aws_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """AWS_PROFILE chooses a profile of the shared files."""
    (aws_home / "credentials").write_text(
        "[default]\naws_access_key_id = AKIADEFAULT\naws_secret_access_key = x\n"
        "[work]\naws_access_key_id = AKIAWORK\naws_secret_access_key = x\n"
    )
    (aws_home / "config").write_text("[profile work]\nregion = eu-west-2\n")
    assert scope((await S3Signer().sign(OBJECT)).url)[0] == "AKIADEFAULT"
    monkeypatch.setenv("AWS_PROFILE", "work")
    assert scope((await S3Signer().sign(OBJECT)).url)[::2] == [
        "AKIAWORK",
        "eu-west-2",
        "aws4_request",
    ]


BROKEN = {
    "no such profile": ("", {"AWS_PROFILE": "nobody"}),
    "a config file that isn't one": ("[", {}),
    "half a credential": ("", {"AWS_ACCESS_KEY_ID": "AKIAHALF"}),
    "no such services": ("[default]\nservices = no\n", {}),
    "services without settings": ("[default]\nservices = x\n[services x]\ns3 = 1\n", {}),
    "a role without its source": (
        "[default]\nrole_arn = arn:aws:iam::1:role/x\nsource_profile = no\n",
        {},
    ),
}


@pytest.mark.parametrize(("config", "environment"), BROKEN.values(), ids=BROKEN)
async def test_a_configuration_that_cannot_work(
    config: str, environment: dict[str, str], aws_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error of botocore about the configuration is a refused link."""
    (aws_home / "config").write_text(config)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(LinkRefused, match="AWS"):
        await S3Signer().sign(OBJECT)


async def test_a_program_for_credentials_is_not_quoted(aws_home: Path) -> None:
    """A program's output may be a secret, and its failure may pass."""
    program = aws_home / "program"
    program.write_text(f"#!{sys.executable}\nimport sys\nsys.exit('5ec4e7')\n")
    program.chmod(0o755)
    (aws_home / "config").write_text(f"[default]\ncredential_process = {program}\n")
    with pytest.raises(StorageBroken) as caught:
        await S3Signer().sign(OBJECT)
    assert "5ec4e7" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__


class _Session:
    """A session that finds credentials slowly, or finds none."""

    def __init__(self, wait: threading.Event | None = None) -> None:
        self.looked = 0
        self._wait = wait

    def get_credentials(self) -> Any:
        self.looked += 1
        if self._wait is not None:
            assert self._wait.wait(60)


def slow_signer(monkeypatch: pytest.MonkeyPatch, session: _Session) -> S3Signer:
    account = s3.Account(s3.S3Place(), session)
    monkeypatch.setattr(s3.Account, "of_this_process", lambda: account)
    return S3Signer()


async def test_no_credentials_is_believed_for_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another search would cost a second if there is no metadata service."""
    session = _Session()
    signer = slow_signer(monkeypatch, session)
    for _ in range(5):
        await signer.sign(OBJECT)
    assert session.looked == 1
    await anyio.sleep(s3.ANONYMOUS_FOR + 1)
    await signer.sign(OBJECT)
    assert session.looked == 2


@pytest.mark.real_time
async def test_a_cancelled_caller_does_not_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do others that time out while a search hangs; afterwards all work."""
    hanging = threading.Event()
    session = _Session(hanging)
    signer = slow_signer(monkeypatch, session)
    monkeypatch.setattr(s3, "PATIENCE", 600.0)
    try:
        with anyio.CancelScope() as scope_:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(signer.sign, OBJECT)
                await anyio.to_thread.run_sync(_until, lambda: session.looked == 1)
                tasks.cancel_scope.cancel()
        assert not scope_.cancelled_caught
        monkeypatch.setattr(s3, "PATIENCE", 0.05)
        with pytest.raises(StorageBroken, match="AWS credentials"):
            await signer.sign(OBJECT)
    finally:
        hanging.set()
    monkeypatch.setattr(s3, "PATIENCE", 600.0)
    await signer.sign(OBJECT)


async def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """It counts as credentials that can't be had for now; later ones are."""
    session = _Session()
    signer = slow_signer(monkeypatch, session)

    async def none(*_: Any, **__: Any) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as at_limit:
        at_limit.setattr(anyio.to_thread, "run_sync", none)
        with pytest.raises(StorageBroken, match="can't start new thread"):
            await signer.sign(OBJECT)
    assert signer.failing
    await signer.sign(OBJECT)
    assert not signer.failing


def _until(condition: Any) -> None:
    while not condition():
        threading.Event().wait(0.001)


async def test_without_botocore(monkeypatch: pytest.MonkeyPatch) -> None:
    """The refusal says what to install."""
    monkeypatch.setitem(sys.modules, "botocore.session", None)
    with pytest.raises(LinkRefused, match=r"pip install 'segments-async\[s3\]'"):
        await S3Signer().sign(OBJECT)


# Places.

SERVICES = """
[profile both]
services = ours
endpoint_url = https://general.example
[profile general]
endpoint_url = https://general.example
region = eu-north-1
[services ours]
s3 =
    endpoint_url = https://files.example/s3
"""

PLACES: dict[str, tuple[dict[str, str], str, str]] = {
    "nothing": ({}, "bucket.s3.us-east-1.amazonaws.com", "us-east-1"),
    "AWS_DEFAULT_REGION": (
        {"AWS_DEFAULT_REGION": "eu-west-1"},
        "bucket.s3.eu-west-1.amazonaws.com",
        "eu-west-1",
    ),
    "AWS_REGION first": (
        {"AWS_REGION": "eu-west-3", "AWS_DEFAULT_REGION": "eu-west-1"},
        "bucket.s3.eu-west-3.amazonaws.com",
        "eu-west-3",
    ),
    "FIPS": (
        {"AWS_USE_FIPS_ENDPOINT": "true", "AWS_REGION": "us-gov-east-1"},
        "bucket.s3-fips.us-gov-east-1.amazonaws.com",
        "us-gov-east-1",
    ),
    "dual stack": (
        {"AWS_USE_DUALSTACK_ENDPOINT": "true"},
        "bucket.s3.dualstack.us-east-1.amazonaws.com",
        "us-east-1",
    ),
    "S3's own endpoint first": (
        {"AWS_ENDPOINT_URL_S3": "https://own.example", "AWS_ENDPOINT_URL": "https://all.example"},
        "own.example",
        "us-east-1",
    ),
    "the environment before the profile": (
        {"AWS_ENDPOINT_URL": "https://all.example", "AWS_PROFILE": "both"},
        "all.example",
        "us-east-1",
    ),
    "a profile's endpoint for S3": ({"AWS_PROFILE": "both"}, "files.example", "us-east-1"),
    "a profile's general endpoint": ({"AWS_PROFILE": "general"}, "general.example", "eu-north-1"),
    "endpoints ignored": (
        {
            "AWS_ENDPOINT_URL_S3": "https://own.example",
            "AWS_IGNORE_CONFIGURED_ENDPOINT_URLS": "true",
        },
        "bucket.s3.us-east-1.amazonaws.com",
        "us-east-1",
    ),
}


@pytest.mark.usefixtures("credentials")
@pytest.mark.parametrize(("environment", "where", "region"), PLACES.values(), ids=PLACES)
async def test_places(
    environment: dict[str, str],
    where: str,
    region: str,
    aws_home: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Region and endpoint come from the sources of the AWS SDKs, in their order."""
    (aws_home / "config").write_text(SERVICES)
    (aws_home / "credentials").write_text("")
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    signed = await S3Signer().sign(OBJECT)
    assert (host(signed.url), signed.region) == (where, region)
    assert scope(signed.url)[2] == region


async def test_what_was_learned_counts_for_one_bucket(monkeypatch: pytest.MonkeyPatch) -> None:
    """And beats the configured region there."""
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    signer = S3Signer()
    signer.learn("bucket", "sa-east-1")
    assert (await signer.sign(OBJECT)).region == "sa-east-1"
    assert (await signer.sign(S3Object("other", "k"))).region == "eu-west-1"


def test_no_secret_in_a_repr() -> None:
    """No repr of the signer or its attributes shows a secret."""
    account = s3.Account(s3.S3Place(), f"session of {SECRET_KEY}")
    assert SECRET_KEY not in repr(account)


# Credentials that fail otherwise than by an error of botocore's own.


def _client_error(code: str, status: int) -> Any:
    told = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(told, "AssumeRoleWithWebIdentity")


FAILURES: dict[str, tuple[Exception, type[Exception]]] = {
    "a token's file is gone": (FileNotFoundError(2, "No such file", "/gone"), StorageBroken),
    "no permission": (PermissionError(13, "Permission denied", "/token"), StorageBroken),
    "no connection": (EndpointConnectionError(endpoint_url="http://127.0.0.1:9/"), StorageBroken),
    "connecting takes too long": (ConnectTimeoutError(endpoint_url="http://x/"), StorageBroken),
    "throttled": (_client_error("Throttling", 400), StorageBroken),
    "503": (_client_error("ServiceUnavailable", 503), StorageBroken),
    "denied": (_client_error("AccessDenied", 403), LinkRefused),
    "no JSON": (json.JSONDecodeError("Expecting value", "5ec4e7", 0), LinkRefused),
    "no header's value": (ValueError("5ec4e7 is not a legal header value"), LinkRefused),
    "a key that isn't there": (KeyError("5ec4e7"), LinkRefused),
}


@pytest.mark.parametrize(("failure", "kind"), FAILURES.values(), ids=FAILURES)
async def test_whatever_fails_is_an_error_of_credentials(
    failure: Exception, kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says so, is retried if it may pass, and quotes no text that may be secret."""
    session = _Session()

    def fails() -> None:
        raise failure

    monkeypatch.setattr(session, "get_credentials", fails)
    with pytest.raises((StorageBroken, LinkRefused)) as caught:
        await slow_signer(monkeypatch, session).sign(OBJECT)
    assert type(caught.value) is kind
    assert str(caught.value).startswith("AWS credentials: ")
    assert "5ec4e7" not in str(caught.value)
