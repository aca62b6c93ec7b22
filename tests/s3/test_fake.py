"""s3:// links against a server that is as strict as S3."""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import partial
from typing import Any

import attrs
import httpx
import pytest

from s3.fake import ACCESS_KEY, SECRET_KEY, Answer, FakeS3, error
from s3.reading import read, refused
from segments_async._files.s3 import S3Signer
from segments_async._http.clients import CallersClient
from segments_async._http.storage import Storage
from segments_async._http.storage_body import StorageBroken
from segments_async._sansio.files.links import LinkRefused, check_link

pytestmark = [pytest.mark.real_time, pytest.mark.usefixtures("credentials")]

LINK = "s3://bucket/a.csv"
CONTENT = b"user_id\n1\n"


async def test_an_expired_link(fake: FakeS3, storage: Storage) -> None:
    """An expired link is recognized by the page's words; its remedy is a new link."""
    fake.offset = timedelta(hours=1)
    answer = await refused(storage, LINK)
    assert (answer.reason, answer.remedy) == ("expired_link", "new_link")


async def test_a_clock_that_is_wrong(fake: FakeS3, storage: Storage) -> None:
    """The sentence for a link signed in the future names the clock."""
    fake.offset = timedelta(hours=-1)
    answer = await refused(storage, LINK)
    assert answer.code == "RequestTimeTooSkewed"
    assert "clock" in answer.message


async def test_a_missing_key_that_may_not_be_listed(fake: FakeS3, storage: Storage) -> None:
    """S3 denies access to a missing file, and the sentence says that the file may be missing."""
    fake.listable = False
    answer = await refused(storage, "s3://bucket/no.csv")
    assert (answer.status, answer.reason, answer.gone) == (403, "denied", True)
    assert "isn't there" in answer.message


async def test_another_secret_key(
    fake: FakeS3, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The fake does check signatures."""
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "another")
    assert (await refused(storage, LINK)).code == "SignatureDoesNotMatch"


async def test_temporary_credentials(
    fake: FakeS3, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A session token is part of the signature."""
    fake.token = "token+/="
    monkeypatch.setenv("AWS_SESSION_TOKEN", fake.token)
    assert await read(storage, LINK) == (200, CONTENT)


# Regions.


@pytest.mark.parametrize("moved", [False, True], ids=["400", "301"])
async def test_the_region_is_corrected_once_and_remembered(
    moved: bool, fake: FakeS3, storage: Storage
) -> None:
    """The link is signed again for the named region; the next link is signed for it at once."""
    fake.region, fake.moved = "eu-central-1", moved
    assert await read(storage, LINK) == (200, CONTENT)
    assert [asked.region for asked in fake.asked] == ["us-east-1", "eu-central-1"]
    assert await read(storage, LINK) == (200, CONTENT)
    assert [asked.region for asked in fake.asked][2:] == ["eu-central-1"]


async def test_no_second_correction(fake: FakeS3, storage: Storage) -> None:
    """A server that names another region each time gets two requests."""
    fake.instead = [
        error(400, "AuthorizationHeaderMalformed", Region=f"eu-west-{n}") for n in range(1, 9)
    ]
    answer = await refused(storage, LINK)
    assert len(fake.asked) == 2
    assert "another region" in answer.message


@pytest.mark.parametrize("region", ["us-east-1", "evil.example", "", "EU"])
async def test_a_region_that_is_no_news_is_not_tried(
    region: str, fake: FakeS3, storage: Storage
) -> None:
    """An invalid region is ignored. The answer's page can still be read."""
    fake.instead = [error(400, "AuthorizationHeaderMalformed", "Message", Region=region)]
    status, body = await read(storage, LINK)
    assert (status, len(fake.asked)) == (400, 1)
    assert body == error(400, "AuthorizationHeaderMalformed", "Message", Region=region).body


async def test_a_temporary_redirect_is_signed_again(fake: FakeS3, storage: Storage) -> None:
    """A signature is valid for one host: a redirect to another region is signed again."""
    fake.region = "eu-west-3"
    moving = error(307, "TemporaryRedirect")
    headers = {"location": f"{fake.url}/bucket/a.csv?old", "x-amz-bucket-region": "eu-west-3"}
    fake.instead = [attrs.evolve(moving, headers=headers)]
    assert await read(storage, LINK) == (200, CONTENT)
    assert [asked.region for asked in fake.asked] == ["us-east-1", "eu-west-3"]


async def test_a_configured_region(
    fake: FakeS3, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first request goes to the environment's region."""
    fake.region = "ap-south-1"
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    assert await read(storage, LINK) == (200, CONTENT)
    assert len(fake.asked) == 1


async def test_a_public_object_elsewhere(
    fake: FakeS3, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without credentials nothing is signed, and a wrong region is an error, not a loop."""
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    fake.public = True
    assert await read(storage, LINK) == (200, CONTENT)
    fake.moved, fake.region = True, "eu-west-1"
    assert (await refused(storage, LINK)).code == "PermanentRedirect"
    assert all("?" not in asked.target for asked in fake.asked)


# Keys.


@pytest.mark.parametrize(
    "key",
    [
        "..",
        "../../other/a.csv",
        "a/./b/../c.csv",
        "a//b.csv",
        "/a.csv",
        "a/",
        "a b+c%20d.csv",
        "a?b=c&d#e",
        "\u00fc\u20ac\U0001f600.csv",
        "!$&'()*,;=:@~",
    ],
)
async def test_odd_keys(key: str, fake: FakeS3, storage: Storage) -> None:
    """The sent path is the signed one, with dots and empty segments."""
    fake.objects["bucket", key] = b"odd"
    assert await read(storage, f"s3://bucket/{key}") == (200, b"odd")


# The policy.


@pytest.mark.parametrize(
    "location",
    [
        "https://evil.example/a.csv",
        "http://169.254.169.254/latest/meta-data/",
        "s3://bucket/a.csv",
        "file:///etc/passwd",
    ],
)
async def test_a_redirect_is_checked(location: str, fake: FakeS3, storage: Storage) -> None:
    """The policy checks each redirect, and an s3:// link is signed only if the vendor sent it."""
    fake.instead = [Answer(302, headers={"location": location})]
    with pytest.raises(LinkRefused):
        await read(storage, LINK)
    assert len(fake.asked) == 1


async def test_at_most_three_redirects(fake: FakeS3, storage: Storage) -> None:
    """A loop of redirects ends."""
    fake.instead = [Answer(302, headers={"location": "/bucket/a.csv"})] * 9
    with pytest.raises(StorageBroken, match="redirects"):
        await read(storage, LINK)
    assert len(fake.asked) == 4


def storage_over(
    http: httpx.AsyncClient, *, hosts: tuple[str, ...] = (), loopback: bool = True
) -> Storage:
    """Storage that is requested by a caller's client."""
    check = partial(check_link, file_hosts=hosts, loopback=loopback)
    return Storage(CallersClient(http), check, redirects=3, timeout=5.0, signer=S3Signer())


async def test_the_endpoint_has_to_be_admitted(fake: FakeS3) -> None:
    """A signed URL is checked like any link: loopback only if the vendor is there."""
    async with httpx.AsyncClient() as http:
        storage = storage_over(http, hosts=("*",), loopback=False)
        with pytest.raises(LinkRefused, match="https"):
            await read(storage, LINK)
    assert fake.asked == []


# Secrets.


@pytest.mark.parametrize(
    "options",
    [
        {"auth": ("api-key", "5ec4e7")},
        {"headers": {"Authorization": "Bearer 5ec4e7"}},
        {"cookies": {"session": "5ec4e7"}},
    ],
)
async def test_no_credential_but_the_signature(options: dict[str, Any], fake: FakeS3) -> None:
    """An Authorization header and cookies of a caller's client are not sent."""
    async with httpx.AsyncClient(**options) as http:
        storage = storage_over(http)
        assert await read(storage, LINK) == (200, CONTENT)
    (asked,) = fake.asked
    assert {"authorization", "cookie"}.isdisjoint(asked.headers)
    assert "5ec4e7" not in f"{asked}"


async def test_two_mechanisms(fake: FakeS3) -> None:
    """If something on the way adds credentials, the sentence says so."""

    class Adding(httpx.AsyncHTTPTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            request.headers["authorization"] = "Basic Og=="
            return await super().handle_async_request(request)

    async with httpx.AsyncClient(transport=Adding()) as http:
        storage = storage_over(http)
        answer = await refused(storage, LINK)
    assert "Authorization header" in answer.message


async def test_nothing_is_logged(
    fake: FakeS3, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    """At DEBUG neither botocore nor httpx logs a signature or a key."""
    caplog.set_level(logging.DEBUG)
    fake.region = "eu-central-1"
    await read(storage, LINK)
    assert any(record.name.startswith("botocore") for record in caplog.records)
    shown = caplog.text
    for asked in fake.asked:
        assert asked.query["X-Amz-Signature"] not in shown
    assert "X-Amz" not in shown
    assert SECRET_KEY not in shown
    assert ACCESS_KEY not in shown
