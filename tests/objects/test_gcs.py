"""A bulk export to `gs://`: a server on loopback with GCS's own conditions, by generation."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest
from client.vendor import STEADY, connected

from segments_async.sandbox import Sandbox

Object = tuple[bytes, int, dict[str, str]]


class _Gcs(BaseHTTPRequestHandler):
    """Objects by path, each with its generation. It heeds no ETag, as GCS's XML API doesn't."""

    objects: dict[str, Object]
    lock: threading.Lock
    protocol_version = "HTTP/1.1"

    @property
    def key(self) -> str:
        return unquote(urlsplit(self.path).path).removeprefix("/bucket/")

    def do_PUT(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        wanted = self.headers.get("x-goog-if-generation-match")
        with self.lock:
            generation = self.objects[self.key][1] if self.key in self.objects else 0
            if wanted not in (None, str(generation)):
                self._say(412)
                return
            kept = {k: v for k, v in self.headers.items() if k.lower().startswith("x-goog-meta")}
            stored = self.objects[self.key] = (body, generation + 1, kept)
        self._say(200, stored)

    def do_GET(self) -> None:
        found = self.objects.get(self.key)
        self._say(404 if found is None else 200, found, with_body=self.command == "GET")

    do_HEAD = do_GET  # noqa: N815 - the base class's

    def _say(self, status: int, found: Object | None = None, *, with_body: bool = False) -> None:
        self.send_response_only(status)
        body, generation, kept = found or (b"", 0, {})
        if found is not None:
            kept = kept | {"x-goog-generation": str(generation)}
            kept |= {"etag": f'"{hashlib.md5(body).hexdigest()}"'}
            kept |= {"last-modified": formatdate(usegmt=True)}
        length = len(body) if with_body or self.command == "HEAD" else 0
        for name, value in {**kept, "content-length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
        """Nothing."""


@pytest.fixture
def gcs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Object]]:
    """What the server has; the environment names it to obstore."""
    objects: dict[str, Object] = {}

    class Handler(_Gcs):
        pass

    Handler.objects, Handler.lock = objects, threading.Lock()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    account = {
        "gcs_base_url": f"http://127.0.0.1:{server.server_port}",
        "disable_oauth": True,
        "client_email": "",
        "private_key": "",
        "private_key_id": "",
    }
    path = tmp_path / "account.json"
    path.write_text(json.dumps(account))
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", str(path))
    monkeypatch.setenv("GOOGLE_ALLOW_HTTP", "true")
    yield objects
    server.shutdown()
    thread.join()
    server.server_close()


async def test_exports_and_manifest_lines_of_several_runs(gcs: dict[str, Object]) -> None:
    """Each object is whole, and each run adds its lines under a condition that GCS heeds."""
    sandbox = Sandbox(segments=3, durations=STEADY)
    async with connected(sandbox) as client:
        segments = await client.list_segments()
        for one in segments:
            report = await client.bulk_export([one], "gs://bucket/x")
            assert report.ok
            (exported,) = report.exported
            key = exported.file.location.removeprefix("gs://bucket/")
            assert gcs[key][0] == sandbox.content(one.segment_id)
        refused = await client.bulk_export(segments, "gs://bucket/x")
    assert not refused.exported
    lines = [json.loads(line) for line in gcs["x/manifest.jsonl"][0].splitlines()]
    assert [line["segment_id"] for line in lines] == [one.segment_id for one in segments]
