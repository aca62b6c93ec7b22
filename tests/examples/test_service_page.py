"""The page of examples/service, in a browser: it shows what the events say, names as text."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import app
import httpx
import pytest
import uvicorn
from attrs import evolve
from example_account import QUICK
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY, Sandbox
from segments_async.sandbox.server import SandboxServer

pytestmark = [pytest.mark.needs("Chromium"), pytest.mark.real_time]

PATIENCE = 300.0  # seconds, for a test that hangs

#: A segment's name that runs as a script where a page takes it for HTML.
HOSTILE = '<img src=x onerror="document.title=1">'


async def with_an_old_list(scope: Scope, receive: Receive, send: Send) -> None:
    """The service, whose list of exports is always of their start: only events say more."""
    if scope["type"] == "http" and scope["path"] == "/exports":
        job = {"state": "running", "error": None, "progress": None, "not_exported": []}
        await JSONResponse({"night": job})(scope, receive, send)
    else:
        await app.app(scope, receive, send)


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of the service, over real HTTP. One of its account's exports fails."""
    with SandboxServer(Sandbox(segments=3, rows=3, durations=QUICK)) as vendor:
        failing = vendor.sandbox.segment_ids[1]
        vendor.sandbox.fail_next(failing)
        rename(vendor.sandbox, failing, HOSTILE)
        monkeypatch.setenv("SEGMENTS_API_KEY", PAGE_API_KEY)
        monkeypatch.setenv("SEGMENTS_ACCESS_TOKEN", PAGE_ACCESS_TOKEN)
        monkeypatch.setenv("SEGMENTS_BASE_URL", vendor.base_url)
        monkeypatch.setenv("EXPORTS", str(tmp_path))
        config = uvicorn.Config(with_an_old_list, port=0, log_config=None, lifespan="on")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.02)
        port: int = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
        server.should_exit = server.force_exit = True
        thread.join()


def rename(sandbox: Sandbox, segment_id: str, name: str) -> None:
    segments: dict[str, Any] = vars(sandbox)["_segments"]
    segments[segment_id] = evolve(segments[segment_id], name=name)


def dom(address: str) -> str:
    """The page's elements, a while after it was loaded."""
    found = [shutil.which(name) for name in ("chromium", "chromium-browser", "google-chrome")]
    browser = next(filter(None, found))
    return subprocess.run(
        [
            *(browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"),
            *("--timeout=1500", "--dump-dom", address),
        ],
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    ).stdout


def test_an_export_that_the_service_has_forgotten(service: str) -> None:
    """A restarted service has no events of its earlier exports: the page says so."""
    until = time.monotonic() + PATIENCE
    shown = ""
    while "not followed" not in shown:
        assert time.monotonic() < until
        shown = re.sub(r"(?s)<script>.*", "", dom(service))
    assert "The service no longer has this export" in shown
    assert '<span class="state soft">running</span>' not in shown


def test_the_page(service: str) -> None:
    """The page shows the export's end, which it knows by an event, and names are no HTML."""
    with httpx.Client(base_url=service, trust_env=False) as http:
        http.post("/exports/night")
        until = time.monotonic() + PATIENCE
        while '"state":"running"' in http.get("/exports/night").text:
            assert time.monotonic() < until
            time.sleep(0.05)
    shown = ""
    while "2 of 3 exported, 1 not" not in shown:
        assert time.monotonic() < until
        shown = re.sub(r"(?s)<script>.*", "", dom(service))
    assert '<span class="state soft">ended</span>' in shown
    assert "<h2>night</h2>" in shown
    assert "&lt;img src=x onerror=" in shown
    assert "<img" not in shown
    assert "<title>Segment exports</title>" in shown
