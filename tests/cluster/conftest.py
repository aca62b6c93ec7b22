"""A vendor over HTTP, whose credentials are in the environment, as each worker has them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY, Durations, Sandbox
from segments_async.sandbox.server import SandboxServer

Serve = Callable[[Sandbox], Sandbox]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    """Serves an account over HTTP until the test's end."""
    with ExitStack() as servers:

        def serve(made: Sandbox) -> Sandbox:
            server = servers.enter_context(SandboxServer(made))
            monkeypatch.setenv("SEGMENTS_API_KEY", PAGE_API_KEY)
            monkeypatch.setenv("SEGMENTS_ACCESS_TOKEN", PAGE_ACCESS_TOKEN)
            monkeypatch.setenv("SEGMENTS_BASE_URL", server.base_url)
            return made

        yield serve


@pytest.fixture
def sandbox(serve: Serve) -> Sandbox:
    """An account with 16 segments, whose exports take no time to speak of."""
    return serve(Sandbox(segments=16, rows=5, durations=Durations(0.05, 0.0)))
