"""An S3 server on loopback, with a bucket, which the environment names to obstore."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
from botocore.session import Session  # type: ignore[import-untyped] # it has no types
from moto.server import ThreadedMotoServer

from segments_async._files import object_storage
from segments_async._sansio.files import objects

#: The least that S3 takes; moto holds it.
SMALL_PART = 5 * 1024 * 1024


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The URL of a moto server, for all tests of this process."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture(scope="session")
def s3_client(s3_server: str) -> Iterator[Any]:
    """Botocore's client of the server. It takes a second to make."""
    client = Session().create_client(
        "s3",
        region_name="us-east-1",
        endpoint_url=s3_server,
        aws_access_key_id="AKIAJUDGE",
        aws_secret_access_key="judge",
    )
    yield client
    client.close()


@pytest.fixture
def environment(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The variables by which obstore finds the server, and no others of AWS."""
    for name in list(os.environ):
        if name.upper().startswith("AWS_") or name.upper().endswith("_PROXY"):
            monkeypatch.delenv(name)
    wanted = {
        "AWS_ACCESS_KEY_ID": "AKIAEXAMPLE",
        "AWS_SECRET_ACCESS_KEY": "the-secret-of-the-test",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": s3_server,
        "AWS_ALLOW_HTTP": "true",
    }
    for name, value in wanted.items():
        monkeypatch.setenv(name, value)
    return wanted


class Bucket:
    """What the server has in a bucket, asked of the server itself."""

    def __init__(self, client: Any, name: str) -> None:
        self._client = client
        self.name = name

    def keys(self) -> list[str]:
        """The keys, without the library's own probe."""
        found = self._client.list_objects_v2(Bucket=self.name).get("Contents", [])
        return [one["Key"] for one in found if not one["Key"].endswith("/probe")]

    def read(self, key: str) -> bytes:
        return bytes(self._client.get_object(Bucket=self.name, Key=key)["Body"].read())

    def write(self, key: str, body: bytes, metadata: dict[str, str] | None = None) -> None:
        self._client.put_object(Bucket=self.name, Key=key, Body=body, Metadata=metadata or {})

    def delete(self, key: str) -> None:
        self._client.delete_object(Bucket=self.name, Key=key)

    def metadata(self, key: str) -> dict[str, str]:
        return dict(self._client.head_object(Bucket=self.name, Key=key)["Metadata"])

    def uploads(self) -> list[str]:
        """The keys of unfinished uploads in parts."""
        found = self._client.list_multipart_uploads(Bucket=self.name).get("Uploads", [])
        return [one["Key"] for one in found]


@pytest.fixture
def bucket(environment: dict[str, str], s3_client: Any, request: pytest.FixtureRequest) -> Bucket:
    """An empty bucket of the test's own."""
    del environment  # which obstore reads
    name = f"bucket-{abs(hash(request.node.nodeid))}"
    s3_client.create_bucket(Bucket=name)
    return Bucket(s3_client, name)


@pytest.fixture
def small_parts(monkeypatch: pytest.MonkeyPatch) -> int:
    """Objects of more than 5 MiB are uploaded in parts."""
    monkeypatch.setattr(objects, "PART", SMALL_PART)
    monkeypatch.setattr(objects, "PART_OF_UNKNOWN", SMALL_PART)
    return SMALL_PART


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A failed request to the store is repeated once, at once."""
    retry = {**getattr(object_storage, "_RETRY"), "max_retries": 1}  # noqa: B009
    monkeypatch.setattr(object_storage, "_RETRY", retry)
