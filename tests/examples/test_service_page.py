"""The page of examples/service, in a browser: it shows what the events say, names as text."""

from __future__ import annotations

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
from playwright.sync_api import Browser, Page
from report.browser import chromium
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


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def shown(browser: Browser, service: str) -> Iterator[Page]:
    """The page, before its scripts have read anything: the test opens it."""
    context = browser.new_context(base_url=service)
    context.set_default_timeout(PATIENCE * 1000)
    yield context.new_page()
    context.close()


def test_an_export_that_the_service_has_forgotten(shown: Page) -> None:
    """A restarted service has no events of its earlier exports: the page says so."""
    shown.goto("/")
    shown.get_by_text("The service no longer has this export").wait_for()
    assert shown.locator(".state", has_text="running").count() == 0


def test_the_page(shown: Page, service: str) -> None:
    """The page shows the export's end, which it knows by an event, and names are no HTML."""
    httpx.post(f"{service}/exports/night", trust_env=False)
    shown.goto("/")
    shown.get_by_text("2 of 3 exported, 1 not").wait_for()
    shown.locator(".state.soft", has_text="ended").wait_for()
    assert shown.locator("h2").all_text_contents() == ["night"]
    assert HOSTILE in (shown.locator("main").text_content() or "")
    assert shown.locator("img").count() == 0
    assert shown.title() == "Segment exports"
