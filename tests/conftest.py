"""Fixtures of all tests: the two backends, their clocks, and programs that pip can't install."""

from __future__ import annotations

import gc
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import hypothesis.strategies
import pytest
from forked import ForkServer, shared_fork_server
from journal.server import PostgresServer
from scratch import fast

from segments_async.testing import virtual_time

pytest_plugins = ["counted", "pytester"]

# A busy machine is no reason for a claim to fail, nor is chance: everybody's run tries the same
# examples. `pytest --hypothesis-profile=searching` tries others.
hypothesis.settings.register_profile("searching", deadline=None)
hypothesis.settings.register_profile("patient", deadline=None, derandomize=True)
hypothesis.settings.load_profile("patient")

#: Set by ``.ci/run``: a test that would skip for want of a part fails instead.
_ALL_PARTS = os.environ.get("SEGMENTS_ASYNC_TEST_ALL") == "1"


def _on_path(*programs: str) -> Callable[[], bool]:
    return lambda: any(shutil.which(program) for program in programs)


def _postgresql() -> bool:
    # Debian keeps the server out of PATH, in a folder per version.
    return _on_path("postgres")() or any(Path("/usr/lib/postgresql").glob("*/bin/postgres"))


_PARTS: dict[str, Callable[[], bool]] = {
    "curl": _on_path("curl"),
    "jq": _on_path("jq"),
    "nginx": _on_path("nginx"),
    "openssl": _on_path("openssl"),
    "sqlite3": _on_path("sqlite3"),
    "PostgreSQL": _postgresql,
    "prometheus": lambda: _on_path("prometheus")() and _on_path("promtool")(),
    "Chromium": _on_path("chromium", "chromium-browser", "google-chrome"),
    "pgbouncer": _on_path("pgbouncer"),
    "root": lambda: os.geteuid() == 0,
}


def pytest_addoption(parser: pytest.Parser) -> None:
    """`--httpx2`: the callers' HTTP clients in the client's tests are httpx2's."""
    parser.addoption("--httpx2", action="store_true", help="clients of httpx2 instead of httpx")


def pytest_configure(config: pytest.Config) -> None:
    """Options and places reach xdist's processes by the environment, which they inherit."""
    if config.getoption("--httpx2"):
        os.environ["SEGMENTS_ASYNC_TEST_HTTPX2"] = "1"
    # No test talks to the Internet. Reading all of certifi's certificates takes each client 20 ms.
    os.environ["SSL_CERT_FILE"] = str(Path(__file__).with_name("one_authority.pem"))
    _use_memory()


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the garbage collector from half a million objects that stay until the end.

    It would look at all of them again and again, for a quarter of the time that collecting takes,
    and at each of its full collections during the tests.

    Hypothesis makes its random generator at its first example. It warns of a generator that no
    object refers to, and finds none among those that the collector doesn't look at.
    """
    gc.disable()
    try:
        return (yield)
    finally:
        hypothesis.find(hypothesis.strategies.none(), lambda _: True)
        gc.freeze()
        gc.enable()


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> tuple[str, dict[str, Any]]:
    """Run each async test twice, in virtual time; in real time where marked ``real_time``."""
    if request.node.get_closest_marker("real_time"):
        return request.param, {}
    return virtual_time(request.param)


@pytest.fixture(autouse=True)
def loggers_as_they_were() -> Iterator[None]:
    """Undo what a test does to the library's logger: the CLI takes it over for its process.

    Without this, whether a later test in the same worker sees a log line depends on the order.
    """
    log = logging.getLogger("segments_async")
    level, propagate, handlers = log.level, log.propagate, log.handlers[:]
    yield
    log.setLevel(level)
    log.propagate = propagate
    log.handlers[:] = handlers


@pytest.fixture
def hangups_count() -> Iterator[None]:
    """Under `nohup`, the processes that a test starts would inherit that SIGHUP is ignored."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A PostgreSQL server, for all tests of this process."""
    with PostgresServer() as server:
        yield server


@pytest.fixture(scope="session")
def fork_server() -> ForkServer:
    """Starts commands by forks, for all tests of this process."""
    return shared_fork_server()


def _use_memory() -> None:
    """Put temporary files into memory, unless the caller says where they go."""
    if "TMPDIR" not in os.environ and (memory := fast()) is not None:
        os.environ["TMPDIR"] = tempfile.tempdir = memory


def pytest_xdist_auto_num_workers() -> int:
    """For `-n auto`: three per processor, since more than half of their time are waits.

    They wait for sockets, disks and processes. Each worker imports all tests, which takes 7 s of a
    processor, and has a PostgreSQL and servers of its own, so there are eight at the most.
    """
    return min(8, 3 * _processors())


def _processors() -> int:
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip, or fail under SEGMENTS_ASYNC_TEST_ALL=1, a test whose ``needs`` aren't met."""
    for marker in item.iter_markers("needs"):
        for part in marker.args:
            _need(part)


def _need(part: str) -> None:
    if part not in _PARTS:
        raise pytest.UsageError(f"needs({part!r}): not one of {', '.join(_PARTS)}")
    if _PARTS[part]():
        return
    if _ALL_PARTS:
        pytest.fail(f"needs {part}, and SEGMENTS_ASYNC_TEST_ALL=1 allows no skip", pytrace=False)
    pytest.skip(f"needs {part}")
