"""s3:// links against moto, over real HTTP."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from s3.reading import read, refused
from segments_async._http.storage import Storage

pytestmark = [pytest.mark.real_time, pytest.mark.usefixtures("credentials")]

CONTENT = b"user_id,email\n1,a@example.com\n2,b@example.com\n"

ODD_KEYS = [
    "a b.csv",
    "a+b.csv",
    "100%25.csv",
    "a%20b.csv",
    "a?versionId=1&x",
    "a#b",
    "folder/",
    "~a-b_c.d!$'()*,;=:@",
    "\u00fc\u20ac\U0001f600.csv",
    "deep/er/\u1e9e.csv",
]


@pytest.fixture(scope="module")
def filled(moto_client: Any) -> Any:
    moto_client.create_bucket(Bucket="bucket")
    for key in ["a.csv", *ODD_KEYS]:
        moto_client.put_object(Bucket="bucket", Key=key, Body=CONTENT + key.encode())
    return moto_client


@pytest.fixture
def s3(filled: Any, credentials: None, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Botocore's client; moto is the endpoint for it as for us."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", filled.meta.endpoint_url)
    return filled


async def test_a_signed_object(s3: Any, storage: Storage) -> None:
    """The file has its bytes and its ETag."""
    async with storage.get("s3://bucket/a.csv") as answer:
        assert b"".join([chunk async for chunk in answer.chunks]) == CONTENT + b"a.csv"
        assert answer.headers["etag"] == s3.head_object(Bucket="bucket", Key="a.csv")["ETag"]


@pytest.mark.parametrize("key", ODD_KEYS)
async def test_odd_keys(key: str, s3: Any, storage: Storage) -> None:
    """An object is found under the key by which botocore stored it."""
    assert await read(storage, f"s3://bucket/{key}") == (200, CONTENT + key.encode())


@pytest.mark.parametrize(
    ("headers", "status", "body"),
    [
        ({"Range": "bytes=8-"}, 206, (CONTENT + b"a.csv")[8:]),
        ({"Range": "bytes=0-3", "If-Match": "{etag}"}, 206, CONTENT[:4]),
        ({"Range": "bytes=99999-"}, 416, None),
        ({"If-Match": '"another"'}, 412, None),
    ],
)
async def test_a_part_of_an_object(
    headers: dict[str, str], status: int, body: bytes | None, s3: Any, storage: Storage
) -> None:
    """Range and If-Match work unsigned with a signed URL."""
    etag = s3.head_object(Bucket="bucket", Key="a.csv")["ETag"]
    asked = {name: value.replace("{etag}", etag) for name, value in headers.items()}
    got = await read(storage, "s3://bucket/a.csv", asked)
    assert got[0] == status
    assert body is None or got[1] == body


@pytest.mark.parametrize(
    ("link", "code"), [("s3://bucket/no.csv", "NoSuchKey"), ("s3://no-bucket/k", "NoSuchBucket")]
)
async def test_what_is_not_there(link: str, code: str, s3: Any, storage: Storage) -> None:
    """A missing file and a missing bucket are distinguished."""
    answer = await refused(storage, link)
    assert (answer.status, answer.code, answer.reason, answer.gone) == (404, code, "denied", True)


async def test_without_credentials(
    s3: Any, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without credentials a public object can be read, another can't."""
    s3.put_object(Bucket="bucket", Key="public.csv", Body=CONTENT, ACL="public-read")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    assert await read(storage, "s3://bucket/public.csv") == (200, CONTENT)
    assert (await refused(storage, "s3://bucket/a.csv")).reason == "denied"


async def test_an_endpoint_of_a_profile(
    s3: Any, storage: Storage, aws_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The endpoint may stand in the configuration instead of the environment."""
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3")
    monkeypatch.setenv("AWS_PROFILE", "here")
    (aws_home / "config").write_text(f"[profile here]\nendpoint_url = {s3.meta.endpoint_url}\n")
    assert await read(storage, "s3://bucket/a.csv") == (200, CONTENT + b"a.csv")


async def test_a_bucket_with_dots(s3: Any, storage: Storage) -> None:
    """A bucket with dots is part of the path."""
    s3.create_bucket(Bucket="my.own.bucket")
    s3.put_object(Bucket="my.own.bucket", Key="k", Body=CONTENT)
    assert await read(storage, "s3://my.own.bucket/k") == (200, CONTENT)
