"""Standard streams that are closed, full, non-blocking, stalled or not UTF-8."""

from __future__ import annotations

import json
import os
import pty
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import anyio
import pytest
from launch import COMMAND, PATIENCE, Environment, Parsed, Run, Start

from segments_async.cli import streams
from segments_async.cli.json_writer import JsonLines
from segments_async.cli.streams import StdoutError
from segments_async.sandbox import Fault
from segments_async.sandbox.server import SandboxServer

EXPORT = ("export", "--to", "exports", "--all")

#: Longer than a pipe takes at once without blocking.
LINES: list[dict[str, object]] = [{"number": n, "text": "x" * 9_000} for n in range(12)]


@pytest.mark.parametrize("closed", [">&- 2>&- <&-", "2>&-"], ids=["all", "stderr"])
def test_closed_streams_are_dev_null(
    run: Run,
    account: Environment,
    server: SandboxServer,
    parsed: Parsed,
    tmp_path: Path,
    closed: str,
) -> None:
    """Closed streams are harmless, and no file gets their numbers."""
    env = account(server)
    done = subprocess.run(
        ["sh", "-c", f'"$@" {closed}', "sh", *COMMAND, *EXPORT, "-vv"],
        cwd=tmp_path,
        env=env,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert len(list((tmp_path / "exports").glob("*.csv"))) == 5
    [row] = parsed(run("runs", "--to", "exports", env=env).stdout)  # the journal is intact
    assert row["exported"] == 5


@pytest.mark.parametrize("command", [EXPORT, ("list",), ("--help",)], ids=lambda c: c[0])
def test_stdout_on_a_full_disk(
    run: Run, account: Environment, server: SandboxServer, command: tuple[str, ...]
) -> None:
    """Stdout that can't be written ends with 1 and a sentence, and loses no export."""
    env = account(server)
    slow = server.sandbox.export_id(server.sandbox.segment_ids[4])
    server.sandbox.inject(Fault.status(404), method="GET", path=slow, times=3)
    done = run(*command, env=env, out="/dev/full")
    assert done.returncode == 1
    last = done.stderr.splitlines()[-1]
    assert last == "segments-async: can't write to stdout: No space left on device"
    assert "Traceback" not in done.stderr
    if command == EXPORT:
        assert "The same command goes on with them" in done.stderr
        assert len(run(*EXPORT, env=env).stdout.splitlines()) == 5
        assert server.sandbox.record.duplicates() == {}


def test_stdout_on_a_full_disk_after_the_last_export(
    run: Run, account: Environment, server: SandboxServer, tmp_path: Path
) -> None:
    """Where every segment had ended, nobody is told that the same command goes on."""
    one = server.sandbox.segment_ids[0]
    done = run("export", "--to", "exports", one, env=account(server), out="/dev/full")
    assert done.returncode == 1
    assert "All segments had ended; exports/manifest.jsonl has the outcomes" in done.stderr
    assert "goes on" not in done.stderr
    assert len(list((tmp_path / "exports").glob("*.csv"))) == 1


def test_stderr_on_a_full_disk(
    run: Run, account: Environment, server: SandboxServer, parsed: Parsed
) -> None:
    """A stderr that can't be written fails no export."""
    done = run(*EXPORT, "-vv", env=account(server), err="/dev/full")
    assert done.returncode == 0
    assert [row["outcome"] for row in parsed(done.stdout)] == ["exported"] * 5


def test_names_on_a_terminal_that_is_not_utf_8(
    account: Environment, server: SandboxServer, tmp_path: Path
) -> None:
    """A character that the terminal's encoding lacks is shown as `?`, as wide as it was."""

    def rename(body: bytes) -> bytes:
        return body.replace(b'"My Segment"', '"Käufer \N{PARTY POPPER}!"'.encode())

    server.sandbox.inject(Fault.changed(rename), path="list")
    ours, theirs = pty.openpty()
    done = subprocess.run(
        [*COMMAND, "list"],
        cwd=tmp_path,
        env=account(server, PYTHONIOENCODING="latin-1"),
        stdin=theirs,
        stdout=theirs,
        stderr=subprocess.PIPE,
        timeout=PATIENCE,
    )
    os.close(theirs)
    shown = os.read(ours, 1 << 16).decode("latin-1")
    os.close(ours)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "Käufer ??!" in shown


def test_a_path_that_is_not_utf_8(
    run: Run, account: Environment, server: SandboxServer, parsed: Parsed, tmp_path: Path
) -> None:
    """A directory whose name is not UTF-8 is refused before the list, but not with --no-journal."""
    env, to = account(server), os.fsdecode(b"caf\xe9")
    refused = run("export", "--all", "--to", to, env=env)
    assert (refused.returncode, refused.stdout, len(server.sandbox.record)) == (2, "", 0)
    assert refused.stderr.startswith("segments-async: --to caf\\udce9: ")
    assert len(refused.stderr.splitlines()) == 1
    done = run("export", "--all", "--to", to, "--no-journal", env=env)
    assert done.returncode == 0, done.stderr
    assert all(Path(row["file"]).is_file() for row in parsed(done.stdout))
    assert len(list((tmp_path / to).glob("*.csv"))) == 5


def test_a_current_directory_that_was_removed(
    start: Start, account: Environment, server: SandboxServer, tmp_path: Path
) -> None:
    """Absolute paths work there. A relative one is a usage error of one sentence."""
    env, there = account(server), f"{tmp_path}/exports"
    export = ("export", "--all", "--to", there)
    (tmp_path / "gone").mkdir()
    done = subprocess.run(
        ["sh", "-c", 'rmdir ../gone && exec "$@"', "sh", *COMMAND, *export],
        cwd=tmp_path / "gone",
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "exports").glob("*.csv"))) == 5
    with removed_directory(tmp_path / "gone") as gone:
        for arguments in (
            ("export", "--all", "--to", "exports"),
            ("runs", "--journal", "runs.db"),
            ("report", "--to", there, "--html", "run.html"),
        ):
            refused = start(*arguments, env=env, cwd=gone)
            out, err = refused.communicate(timeout=PATIENCE)
            assert (refused.returncode, out) == (2, "")
            assert len(err.splitlines()) == 1, err


@contextmanager
def removed_directory(path: Path) -> Iterator[int]:
    """A descriptor of a directory that has no name any more."""
    path.mkdir()
    descriptor = os.open(path, os.O_RDONLY)
    path.rmdir()
    yield descriptor
    os.close(descriptor)


# ----------------------------------------------------------------- pipes, in this process


@pytest.fixture(params=[True, False], ids=["blocking", "non-blocking"])
def pipe(request: pytest.FixtureRequest) -> Iterator[tuple[int, int]]:
    ours, theirs = os.pipe()
    os.set_blocking(theirs, request.param)
    yield ours, theirs
    os.close(ours)
    os.close(theirs)


async def _read(descriptor: int, size: int) -> bytes:
    got = b""
    while len(got) < size:
        await anyio.wait_readable(descriptor)
        got += os.read(descriptor, size)
    return got


@pytest.mark.real_time
async def test_no_line_is_lost_in_a_pipe(pipe: tuple[int, int]) -> None:
    """More lines than a pipe holds all arrive, though the pipe is non-blocking."""
    ours, theirs = pipe
    whole = "".join(map(streams.json_text, LINES)).encode()
    async with anyio.create_task_group() as group:
        group.start_soon(JsonLines(theirs).send, *LINES)
        assert await _read(ours, len(whole)) == whole


@pytest.mark.real_time
async def test_a_line_is_never_cut_by_the_next(pipe: tuple[int, int]) -> None:
    """The rest of a cancelled task's line is sent before the next line."""
    ours, theirs = pipe
    lines = JsonLines(theirs)
    with anyio.CancelScope() as scope:
        async with anyio.create_task_group() as group:
            group.start_soon(lines.send, *LINES)
            await anyio.wait_readable(ours)
            scope.cancel()
    got: list[bytes] = []
    reader = Thread(target=_read_until_end, args=(ours, got))
    reader.start()
    with anyio.CancelScope() as scope:
        scope.cancel()
        assert await lines.finish([{"number": 12}])
    os.write(theirs, b"end")
    reader.join(PATIENCE)
    told = [json.loads(line) for line in b"".join(got).removesuffix(b"end").splitlines()]
    assert [line["number"] for line in told] == list(range(13))


def _read_until_end(descriptor: int, got: list[bytes]) -> None:
    while not got or not got[-1].endswith(b"end"):
        got.append(os.read(descriptor, 1 << 16))


@pytest.mark.real_time
async def test_a_reader_that_takes_nothing_is_left(
    pipe: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a signal neither lines nor sentences wait for a stalled reader."""
    _, theirs = pipe
    monkeypatch.setattr(streams, "PATIENCE", 0.01)
    monkeypatch.setattr(streams, "_Leaving", type("Left", (), {"came": True}))
    assert not await JsonLines(theirs).finish(LINES)
    assert streams.text_stream(theirs).write("to nobody") == 9


async def test_a_full_disk_is_told_once() -> None:
    """The first line that can't be written raises; later lines are dropped without an error."""
    descriptor = os.open("/dev/full", os.O_WRONLY)
    lines = JsonLines(descriptor)
    with pytest.raises(StdoutError, match="No space left"):
        await lines.send(*LINES)
    await lines.send(*LINES)
    assert not await lines.finish(LINES)
    os.close(descriptor)
