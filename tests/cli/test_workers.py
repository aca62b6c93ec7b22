"""`export --workers` and `--dask`: the same outcomes, summary, exit codes and Ctrl-C as ever."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from launch import PATIENCE, Environment, Parsed, Run, Start, Until

from segments_async.sandbox import Durations, Sandbox
from segments_async.sandbox.server import SandboxServer

EXPORT = ("export", "--to", "exports", "--all", "--run", "nightly", "--workers", "2")


def test_workers_export_each_segment_once(
    start: Start, run: Run, account: Environment, server: SandboxServer, parsed: Parsed
) -> None:
    """JSON lines, the summary and the exit code are of the whole run; so are those of a second."""
    process = start(*EXPORT, env=account(server))
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    lines = parsed(out)
    assert sorted(line["segment_id"] for line in lines) == sorted(server.sandbox.segment_ids)
    assert {line["source"] for line in lines} == {"exported"}
    assert "5 of 5 segments exported" in err
    assert server.sandbox.record.duplicates() == {}
    posts = len(server.sandbox.record.submits())
    again = run(*EXPORT, env=account(server))
    assert "Run nightly has ended: its outcomes are repeated." in again.stderr
    assert {line["source"] for line in parsed(again.stdout)} == {"resumed"}
    assert posts == len(server.sandbox.record.submits()) == 5


def test_ctrl_c_ends_the_command_and_its_workers(
    start: Start, account: Environment, until: Until
) -> None:
    """SIGINT to the process group: exit code 130, no traceback of any process, none is left."""
    forever = Durations(median=3600, sigma=0, longest=3600)
    with SandboxServer(Sandbox(segments=5, durations=forever)) as slow_server:
        process = start(*EXPORT, env=account(slow_server), start_new_session=True)
        try:
            until(lambda: len(slow_server.sandbox.record.submits()) == 5)
            os.killpg(process.pid, signal.SIGINT)
            # It waits for the end of every process that holds stdout.
            out, err = process.communicate(timeout=PATIENCE)
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    assert (process.returncode, out.count("\n")) == (130, 5)
    assert "Interrupted" in err
    assert "The same command goes on" in err
    assert "Traceback" not in err
    until(lambda: list(_alive(process.pid)) == [])


@pytest.mark.usefixtures("hangups_count")
@pytest.mark.parametrize(
    "number",
    [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.whole)],
    ids=["SIGTERM", "SIGHUP"],
)
def test_a_signal_to_all_processes_leaves_no_export_unknown(
    start: Start,
    account: Environment,
    run: Run,
    until: Until,
    parsed: Parsed,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    """Workers wait for the answers to POSTs on the wire; the same command goes on to the end.

    `timeout`, a service manager and a closed terminal signal the whole group.
    """
    durations = Durations(median=0.5, sigma=0, longest=0.5)
    sandbox = Sandbox(segments=12, latency=0.6, durations=durations)
    with SandboxServer(sandbox) as slow_server:
        with (tmp_path / "errors").open("w") as errors:
            process = start(
                *EXPORT,
                env=account(slow_server),
                stdout=subprocess.DEVNULL,
                stderr=errors,
                start_new_session=True,
            )
        try:
            until(lambda: len(sandbox.record.submits()) >= 4)
            os.killpg(process.pid, number)
            assert process.wait(PATIENCE) == 128 + number
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
        assert "Traceback" not in (tmp_path / "errors").read_text()
        until(lambda: list(_alive(process.pid)) == [])
        again = run(*EXPORT, env=account(slow_server))
        assert again.returncode == 0, again.stderr
        assert {line["outcome"] for line in parsed(again.stdout)} == {"exported"}
        assert sandbox.record.duplicates() == {}


def _alive(group: int) -> Iterator[int]:
    """The processes of a group that run; zombies, which wait for init, don't."""
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, found = path.read_text().rpartition(")")[2].split()[:3]
            if int(found) == group and state != "Z":
                yield int(path.parent.name)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--workers", "2"], "--workers needs --run NAME"),
        (["--dask", "tcp://127.0.0.1:1"], "--dask needs --run NAME"),
        (["--workers", "2", "--run", "a", "--dask", "tcp://127.0.0.1:1"], "give one"),
        (["--workers", "2", "--run", "a", "--join"], "give one"),
        (["--workers", "2", "--run", "a", "--no-journal"], "--workers needs a journal"),
        (["--dask", "tcp://127.0.0.1:1", "--run", "a", "--rate", "5"], "--rate"),
        (["--workers", "0", "--run", "a"], "workers"),
    ],
)
def test_contradictions_are_refused(
    run: Run, account: Environment, server: SandboxServer, arguments: list[str], words: str
) -> None:
    """In a sentence, with exit code 2, before anything is sent."""
    found = run("export", "--all", "--to", "exports", *arguments, env=account(server))
    assert found.returncode == 2, found.stderr
    assert words in found.stderr
    assert server.sandbox.record.api() == []


@pytest.mark.parametrize("module", ["segments_async", "segments_async.cli"])
def test_the_main_module_can_be_imported_by_a_worker(module: str) -> None:
    """A spawned process imports the program's main module, which must not start the command."""
    program = f"import runpy; runpy.run_module('{module}.__main__', run_name='__mp_main__')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
