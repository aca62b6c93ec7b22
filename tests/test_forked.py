"""The fork server of the tests: a dead one is replaced, and no process holds up another one."""

from __future__ import annotations

import os
import signal
import subprocess
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from forked import Forked, ForkServer

#: Seconds: a bound for what hangs.
PATIENCE = 120.0

#: A program that ends at the end of its stdin, with 3.
WAITS = "import sys\nsys.stdin.read()\nsys.exit(3)\n"

Begin = Callable[..., Forked]


@pytest.fixture
def begin(fork_server: ForkServer, tmp_path: Path) -> Begin:
    """Start the program, which ends at once unless its stdin stays open."""
    program = tmp_path / "waits.py"
    program.write_text(WAITS)

    def begin(**streams: Any) -> Forked:
        return Forked(fork_server, program=str(program), cwd=tmp_path, env=os.environ, **streams)

    return begin


def test_a_fork_server_that_has_died_is_replaced(fork_server: ForkServer, begin: Begin) -> None:
    """The processes of a killed fork server are lost, and the next start works."""
    lost = begin()
    fork_server.kill()
    with pytest.raises(AssertionError, match="the fork server has died"):
        lost.poll()
    assert begin().wait(PATIENCE) == 3


def test_a_wait_holds_up_no_other_start(begin: Begin) -> None:
    """While a thread waits for a process, others are started and end."""
    reading, writing = os.pipe()
    with ThreadPoolExecutor(1) as pool:
        first = begin(stdin=reading)
        os.close(reading)
        waiting = pool.submit(first.wait, PATIENCE)
        # The thread may wait only after the first of them.
        assert [begin().wait(PATIENCE) for _ in range(3)] == [3, 3, 3]
        assert not waiting.done()
        os.close(writing)
        assert waiting.result() == 3


@pytest.mark.parametrize("method", [Forked.wait, Forked.communicate])
def test_a_process_that_hangs_is_killed(begin: Begin, method: Callable[..., object]) -> None:
    """After its seconds it is killed, and the test fails; its exit code says so."""
    reading, writing = os.pipe()
    process = begin(stdin=reading, stdout=subprocess.PIPE)
    with pytest.raises(AssertionError, match=r"it doesn't end: .*waits\.py"):
        method(process, 0.0)
    assert process.returncode == -signal.SIGKILL
    process.end()
    for descriptor in (reading, writing):
        os.close(descriptor)
