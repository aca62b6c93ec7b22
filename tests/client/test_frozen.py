"""A process that is stopped and continued: Ctrl-Z and `fg`, `docker pause`.

The vendor is a real server in the test's own process. Its record has the requests of the stopped
process.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from segments_async.sandbox import Durations, Sandbox
from segments_async.sandbox.server import SandboxServer

TESTS = Path(__file__).resolve().parent.parent

#: POSTs on the wire when the process is stopped.
POSTS = 10

#: Seconds after which the vendor answers: the process is stopped by then.
ANSWERED_AFTER = 1.5

#: Seconds to wait for anything that is bound to happen, on a machine however busy.
PATIENCE = 120.0


def _wait_until_on_the_wire(server: SandboxServer, child: subprocess.Popen[str]) -> None:
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and child.poll() is None:
        with server.lock:
            if len(server.sandbox.record.submits()) == POSTS:
                return
        time.sleep(0.01)
    raise AssertionError("the POSTs never came")


def stop_and_go_on(backend: str, how: str, *, timeout: float, stopped: float) -> dict[str, int]:
    """Stop a process with its POSTs on the wire for so many seconds. Returns its results."""
    sandbox = Sandbox(
        segments=POSTS, latency=ANSWERED_AFTER, durations=Durations(median=0.1, sigma=0)
    )
    with SandboxServer(sandbox) as server:
        command = [sys.executable, "-m", "client.frozen", backend, server.base_url]
        command += [",".join(sandbox.segment_ids), str(timeout), how]
        environ = os.environ | {"PYTHONPATH": str(TESTS)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environ) as child:
            try:
                _wait_until_on_the_wire(server, child)
                child.send_signal(signal.SIGSTOP)
                time.sleep(stopped)
                child.send_signal(signal.SIGCONT)
                told, _ = child.communicate(timeout=PATIENCE)
            finally:
                child.kill()
        assert sandbox.record.duplicates() == {}
        assert len(sandbox.record.submits()) == POSTS
    found: dict[str, int] = json.loads(told)
    return found


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="no SIGSTOP on this system")
@pytest.mark.counted(7, 60, "seconds of a stop")
@pytest.mark.parametrize(
    ("loop", "how"),
    [
        ("asyncio", "run"),
        ("trio", "single calls"),
        pytest.param("asyncio", "single calls", marks=pytest.mark.whole),
        pytest.param("trio", "run", marks=pytest.mark.whole),
        pytest.param("uvloop", "run", marks=pytest.mark.whole),
        pytest.param("uvloop", "single calls", marks=pytest.mark.whole),
    ],
)
def test_a_stopped_process_loses_no_answer(loop: str, how: str, count: int) -> None:
    """Stopped for longer than `request_timeout`, with ten POSTs on the wire: none is unknown.

    For a minute at the default of 30 s.
    """
    timeout = 5.0 if count < 30 else 30.0
    assert stop_and_go_on(loop, how, timeout=timeout, stopped=count) == {"exported": POSTS}
