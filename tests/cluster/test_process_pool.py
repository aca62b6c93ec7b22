"""`ProcessPool`: real processes, each of which is replaced where it dies."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any

import anyio
import pytest
from reliability.judge import Contents, half_files

from segments_async import ConfigurationError, NotExported
from segments_async.cluster import ProcessPool
from segments_async.cluster import pool as module
from segments_async.sandbox import Durations, Sandbox, TokenBucket

from .conftest import Serve
from .executors import children
from .test_export_on import all_exported, cluster_run, posted_once

#: A process takes seconds to start on a busy machine: the tests have one pool.
PATIENCE = 60


@pytest.fixture(scope="module")
def pool() -> Iterator[ProcessPool]:
    with ProcessPool(2) as made:
        yield made


def test_a_dead_process_costs_its_own_task_alone(pool: ProcessPool) -> None:
    """Other tasks go on, the process is replaced, and results and errors are the functions' own."""
    sleeping = pool.submit(time.sleep, 1.0)
    dying = pool.submit(os._exit, 3)
    later = [pool.submit(os.getpid) for _ in range(4)]
    with pytest.raises(BrokenProcessPool):
        dying.result(PATIENCE)
    assert sleeping.result(PATIENCE) is None
    assert {one.result(PATIENCE) for one in later} <= children()
    with pytest.raises(ValueError, match="invalid literal"):
        pool.submit(int, "none").result(PATIENCE)
    with pytest.raises(BrokenProcessPool):  # again and again
        pool.submit(os._exit, 3).result(PATIENCE)
    assert pool.submit(int, "7").result(PATIENCE) == 7


def test_a_result_that_can_not_be_pickled_is_an_error_of_its_task(pool: ProcessPool) -> None:
    """A foreign function's result breaks nothing but its own future."""
    with pytest.raises(Exception, match=r"pickle|TextIOWrapper"):
        pool.submit(open, os.devnull).result(PATIENCE)
    assert pool.submit(int, "7").result(PATIENCE) == 7


def test_the_processes_ignore_the_signal_of_ctrl_c(pool: ProcessPool) -> None:
    """SIGINT reaches the whole process group; the parent decides when its processes stop."""
    os.kill(pool.submit(os.getpid).result(PATIENCE), signal.SIGINT)
    assert pool.submit(signal.getsignal, signal.SIGINT).result(PATIENCE) is signal.SIG_IGN


def test_waiting_tasks_can_be_cancelled() -> None:
    """`shutdown(cancel_futures=True)` cancels what no process has begun, and accepts no more."""
    before = children()
    pool = ProcessPool(1)
    running = pool.submit(time.sleep, 0.5)
    waiting = pool.submit(os.getpid)
    while not running.running():
        time.sleep(0.01)
    pool.shutdown(cancel_futures=True)
    assert running.done()
    with pytest.raises(CancelledError):
        waiting.result(0)
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(os.getpid)
    assert children() <= before


@pytest.mark.usefixtures("hangups_count")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP], ids=str)
def test_a_process_that_died_while_it_was_idle_costs_no_task(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next task has another process. SIGTERM and SIGHUP end a process that has no batch."""
    made: list[ProcessPoolExecutor] = []

    class Remembered(ProcessPoolExecutor):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            made.append(self)

    monkeypatch.setattr(module, "ProcessPoolExecutor", Remembered)
    with ProcessPool(1) as pool:
        first = pool.submit(os.getpid).result(PATIENCE)
        os.kill(first, number)
        until = time.monotonic() + PATIENCE
        while not _is_broken(made[0]):
            assert time.monotonic() < until
            time.sleep(0.01)
        assert pool.submit(os.getpid).result(PATIENCE) != first


#: An idle process, to which each call in the handler of its signal sends another signal.
SIGNALS_IN_A_HANDLER = """
import os, signal, sys, time
from segments_async.cluster import worker

left = 40

def send_another(frame, event, argument):
    global left
    if event.endswith("call") and left:
        left -= 1
        os.kill(os.getpid(), signal.SIGHUP)

worker.end_with_parent()
worker.leave_on_signals()
sys.setprofile(send_another)
os.kill(os.getpid(), signal.SIGTERM)
sys.setprofile(None)
time.sleep(60)
"""


@pytest.mark.usefixtures("hangups_count")
def test_a_signal_in_the_handler_of_another_holds_nothing_up() -> None:
    """A service manager may send SIGHUP right after SIGTERM: the process ends all the same."""
    text = (
        "import multiprocessing\n"
        "if __name__ == '__main__':\n"
        "    spawn = multiprocessing.get_context('spawn')\n"
        f"    process = spawn.Process(target=exec, args=({SIGNALS_IN_A_HANDLER!r}, {{}}))\n"
        "    process.start()\n"
        "    process.join(20)\n"
        "    print(process.exitcode)\n"
        "    process.kill()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", text], check=True, capture_output=True, text=True, timeout=PATIENCE
    )
    assert ended.stdout == "1\n"


def test_no_process_outlives_a_shutdown_that_waits() -> None:
    """Also where the last task ends during the wait."""
    pool = ProcessPool(1)
    process = pool.submit(os.getpid).result(PATIENCE)
    pool.submit(time.sleep, 0.3)
    pool.shutdown()
    assert not _is_alive(process)
    assert not Path(f"/proc/{process}").exists()


def test_a_machine_without_room_for_a_process_fails_each_task(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of thousands that wait, none is left without an end."""

    def full() -> ProcessPoolExecutor:
        raise OSError("too many open files")

    before = children()
    pool = ProcessPool(1)
    running = pool.submit(time.sleep, 30.0)
    waiting = [pool.submit(os.getpid) for _ in range(2000)]
    while not (started := children() - before):
        time.sleep(0.01)
    monkeypatch.setattr(module, "_process", full)
    os.kill(started.pop(), signal.SIGKILL)
    with pytest.raises(BrokenProcessPool):
        running.result(PATIENCE)
    for one in waiting:
        assert isinstance(one.exception(PATIENCE), OSError)
    pool.shutdown()


def test_a_pool_has_a_process() -> None:
    """No pool of none."""
    with pytest.raises(ConfigurationError, match="workers: at least 1"):
        ProcessPool(0)


@pytest.fixture
def sandbox(serve: Serve) -> Sandbox:
    """An account whose limit makes a run last for some seconds."""
    limit = TokenBucket(40, 5)
    return serve(Sandbox(segments=60, rows=5, durations=Durations(0.3, 0.5), limit=limit))


@pytest.mark.real_time
@pytest.mark.alternating
async def test_a_killed_worker_costs_a_retry(sandbox: Sandbox, tmp_path: Path) -> None:
    """SIGKILL on the way: no second POST, each segment has an outcome, no half file."""
    before = children()
    with ProcessPool(2) as pool:
        async with cluster_run(pool, sandbox, tmp_path, batch=15) as run:
            outcomes = []
            with anyio.fail_after(200):
                async for outcome in run:
                    outcomes.append(outcome)
                    if len(outcomes) == 5:
                        os.kill((children() - before).pop(), signal.SIGKILL)
        assert posted_once(sandbox)
        unknown = [one for one in outcomes if isinstance(one, NotExported)]
        # A POST that was on the wire at the kill.
        assert {type(one.error).__name__ for one in unknown} <= {"SubmitUnknownError"}
        assert len(unknown) <= 3
        assert sorted(one.segment_id for one in outcomes) == sorted(sandbox.segment_ids)
        assert unknown or all_exported(sandbox, outcomes)
        assert half_files(Contents(sandbox), tmp_path / "out") == []


_PROGRAM = """\
import multiprocessing
import sys
import anyio
from segments_async.cluster import ProcessPool, export_on

async def main(pool, ids, directory):
    options = {"journal": directory + "/runs.db", "run": "nightly", "batch": 15}
    client = {"file_hosts": ["127.0.0.1"]}
    async with export_on(pool, ids, directory + "/out", client=client, **options) as run:
        async for outcome in run:
            print(*(one.pid for one in multiprocessing.active_children()), flush=True)

if __name__ == "__main__":
    with ProcessPool(2) as pool:
        anyio.run(main, pool, sys.argv[2:], sys.argv[1])
"""


def test_the_processes_end_when_their_parent_is_killed(sandbox: Sandbox, tmp_path: Path) -> None:
    """SIGKILL of the parent: the workers leave the run and end, and send nothing afterwards."""
    program = tmp_path / "program.py"
    program.write_text(_PROGRAM)
    command = [sys.executable, str(program), str(tmp_path), *sandbox.segment_ids]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        children = [int(pid) for pid in process.stdout.readline().split()]
        assert children
        process.kill()
    until = time.monotonic() + PATIENCE
    while any(map(_is_alive, children)):
        assert time.monotonic() < until, "a worker outlives its parent"
        time.sleep(0.05)
    requests = len(sandbox.record.api())
    time.sleep(0.3)
    assert len(sandbox.record.api()) == requests
    assert posted_once(sandbox)


def _is_broken(executor: ProcessPoolExecutor) -> bool:
    """Whether the executor has seen that its process is gone."""
    try:
        executor.submit(os.getpid)
    except BrokenProcessPool:
        return True
    return False


def _is_alive(pid: int) -> bool:
    """Whether the process runs; a zombie, which waits for init, doesn't."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
