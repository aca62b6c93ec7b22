"""An AWS configuration of the test's own, and a storage that knows s3:// links."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from botocore.session import Session  # type: ignore[import-untyped] # it has no types
from moto.server import ThreadedMotoServer

from s3.fake import ACCESS_KEY, SECRET_KEY, FakeS3, serving
from segments_async._files.s3 import S3Signer
from segments_async._http.clients import OwnClients
from segments_async._http.storage import Storage
from segments_async._sansio.files.links import MOST_REDIRECTS, check_addresses, check_link


def isolate(patch: pytest.MonkeyPatch, home: Path) -> None:
    """Hide this machine's AWS configuration; that of `home` is seen instead."""
    for name in list(os.environ):
        if name.upper().startswith("AWS_") or name.upper().endswith("_PROXY"):
            patch.delenv(name)
    patch.setenv("HOME", str(home))
    patch.setenv("AWS_CONFIG_FILE", str(home / "config"))
    patch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(home / "credentials"))
    patch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(autouse=True)
def aws_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the test's own AWS configuration: `config` and `credentials`, if it likes."""
    home = tmp_path / "home"
    home.mkdir()
    isolate(monkeypatch, home)
    return home


@pytest.fixture
def credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment has the credentials that the fake knows."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)


@pytest.fixture(scope="module")
def moto_client(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Botocore's client of a moto server."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        isolate(patch, tmp_path_factory.mktemp("home"))
        client = Session().create_client(
            "s3",
            region_name="us-east-1",
            endpoint_url=f"http://{host}:{port}",
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
        )
        yield client
        client.close()
    server.stop()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeS3]:
    """A fake S3 with one object, which the environment names as S3's endpoint."""
    with serving(FakeS3({("bucket", "a.csv"): b"user_id\n1\n"})) as served:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", served.url)
        yield served


@pytest.fixture
async def storage() -> AsyncIterator[Storage]:
    """As the client has it where its vendor is on loopback."""
    clients = OwnClients(None, 5.0, loopback=True)
    yield Storage(
        clients,
        partial(check_link, file_hosts=("*.amazonaws.com",), loopback=True),
        redirects=MOST_REDIRECTS,
        timeout=10.0,
        check_addresses=partial(check_addresses, loopback=True),
        signer=S3Signer(),
    )
    await clients.aclose()
