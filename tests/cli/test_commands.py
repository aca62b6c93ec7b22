"""The commands against a server, without a terminal: what is printed, written and sent."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path

import pytest
from launch import AMPLE, Environment, Parsed, Run

from segments_async.sandbox import (
    FREE_ACCESS_TOKEN,
    FREE_API_KEY,
    PAGE_EXPORT_ID,
    PAGE_SEGMENT_ID,
    Durations,
    Fault,
    Sandbox,
)
from segments_async.sandbox.server import SandboxServer

EXPORT = ("export", "--to", "exports")
OUTCOME_KEYS = {
    "run", "at", "outcome", "segment_id", "name", "export_id", "file", "size", "sha256",
    "verified", "source", "submitted", "resumable", "error",
}  # fmt: skip


def test_list_is_json_lines_in_a_pipe(
    run: Run, account: Environment, server: SandboxServer, parsed: Parsed
) -> None:
    """`list` in a pipe is a JSON object per segment, in the account's order."""
    done = run("list", env=account(server))
    rows = parsed(done.stdout)
    assert done.returncode == 0
    assert [row["segment_id"] for row in rows] == server.sandbox.segment_ids
    assert set(rows[0]) == {
        "segment_id", "name", "type", "category", "description", "project_id", "last_run",
    }  # fmt: skip


def test_export_all(
    run_anew: Run, account: Environment, server: SandboxServer, parsed: Parsed, tmp_path: Path
) -> None:
    """`export --all`: a line per segment on stdout, and files that equal the vendor's.

    A log is as wide as a file's name needs.
    """
    done = run_anew(*EXPORT, "--all", env=account(server))
    rows = parsed(done.stdout)
    assert done.returncode == 0, done.stderr
    assert all(set(row) == OUTCOME_KEYS for row in rows)
    assert {row["segment_id"] for row in rows} == set(server.sandbox.segment_ids)
    assert {row["outcome"] for row in rows} == {"exported"}
    for row in rows:
        body = Path(row["file"]).read_bytes()
        assert hashlib.sha256(body).hexdigest() == server.sandbox.sha256(row["segment_id"])
        assert Path(row["file"]).parent == tmp_path / "exports"
        assert Path(row["file"]).name in done.stderr
    assert "5 of 5 segments exported" in done.stderr


def test_export_by_id_and_by_name(
    run: Run, account: Environment, server: SandboxServer, parsed: Parsed
) -> None:
    """Ids and patterns choose together; each segment is exported once."""
    other = server.sandbox.segments[-1]
    done = run(*EXPORT, PAGE_SEGMENT_ID, other.segment_id, "--name", "My *", env=account(server))
    assert done.returncode == 0, done.stderr
    assert {row["segment_id"] for row in parsed(done.stdout)} == {PAGE_SEGMENT_ID, other.segment_id}
    assert len(server.sandbox.record.submits()) == 2


def test_name_takes_several_patterns(
    run: Run, account: Environment, server: SandboxServer, parsed: Parsed
) -> None:
    """`--name A B` and `--name A --name B` are the same."""
    one, two = (segment.name for segment in server.sandbox.segments[:2])
    together = run(*EXPORT, "--dry-run", "--name", one, two, env=account(server))
    apart = run(*EXPORT, "--dry-run", "--name", one, "--name", two, env=account(server))
    assert len(parsed(together.stdout)) == 2
    assert together.stdout == apart.stdout


def test_name_that_matches_nothing_is_usage(
    run: Run, account: Environment, server: SandboxServer
) -> None:
    """A pattern that matches nothing ends with 2, and nothing is submitted."""
    done = run(*EXPORT, "--name", "My *", "Mine*", env=account(server))
    assert (done.returncode, done.stdout) == (2, "")
    assert "Mine*" in done.stderr
    assert server.sandbox.record.submits() == []


def test_dry_run_exports_nothing(
    run: Run, account: Environment, server: SandboxServer, parsed: Parsed, tmp_path: Path
) -> None:
    """`--dry-run` names the files, and neither submits nor writes."""
    planned = run(*EXPORT, "--all", "--dry-run", env=account(server))
    assert planned.returncode == 0
    assert server.sandbox.record.submits() == []
    assert not (tmp_path / "exports").exists()
    done = run(*EXPORT, "--all", env=account(server))
    names = {Path(row["file"]).name for row in parsed(done.stdout)}
    assert {Path(row["file"]).name for row in parsed(planned.stdout)} == names


def test_empty_account_is_all_exported(run: Run, account: Environment) -> None:
    """An account without segments ends with 0: all of none were exported."""
    with SandboxServer(Sandbox()) as server:
        server.sandbox.inject(Fault.changed(lambda _: b"[]"), path="list")
        done = run(*EXPORT, "--all", env=account(server))
    assert (done.returncode, done.stdout) == (0, "")
    assert "no segments" in done.stderr


def test_one_that_fails_is_some_not(
    run: Run, account: Environment, server: SandboxServer, parsed: Parsed
) -> None:
    """One refused segment ends with 1, is named, and harms no other."""
    server.sandbox.inject(Fault.status(404), method="POST", segment_id=PAGE_SEGMENT_ID, times=99)
    done = run(*EXPORT, "--all", env=account(server))
    rows = {row["segment_id"]: row for row in parsed(done.stdout)}
    assert done.returncode == 1
    assert rows[PAGE_SEGMENT_ID]["outcome"] == "not_exported"
    assert rows[PAGE_SEGMENT_ID]["error"]["type"] == "NotFoundError"
    assert [row["outcome"] for row in rows.values()].count("exported") == 4
    assert "My Segment" in done.stderr


def test_unknown_id_is_some_not(
    run: Run, account: Environment, server: SandboxServer, parsed: Parsed
) -> None:
    """An id that the account doesn't have is refused by the vendor: 1, and the rest is exported."""
    done = run(*EXPORT, "no-such-segment", PAGE_SEGMENT_ID, env=account(server))
    assert done.returncode == 1
    assert sorted(row["outcome"] for row in parsed(done.stdout)) == ["exported", "not_exported"]


def test_file_in_the_way_is_found_before_the_post(
    run: Run, account: Environment, server: SandboxServer, parsed: Parsed, tmp_path: Path
) -> None:
    """Without `--overwrite` an existing file is kept, and no export of it is requested."""
    env = account(server)
    run(*EXPORT, PAGE_SEGMENT_ID, "--no-journal", env=env)
    again = run(*EXPORT, PAGE_SEGMENT_ID, env=env)
    assert again.returncode == 1
    assert "--overwrite" in parsed(again.stdout)[0]["error"]["message"]
    assert len(server.sandbox.record.submits()) == 1
    [line] = (tmp_path / "exports" / "manifest.jsonl").read_text().splitlines()
    assert json.loads(line)["outcome"] == "exported"  # what it says of the file still holds
    assert again.stderr.splitlines()[-2:-1] == [
        "1 file is there already, and was kept (My Segment); --overwrite replaces it."
    ]
    assert run(*EXPORT, PAGE_SEGMENT_ID, "--overwrite", env=env).returncode == 0


@pytest.mark.parametrize("arguments", [["list"], ["status", "x"], [*EXPORT, "--all"]])
@pytest.mark.parametrize(
    "credentials",
    [
        {"SEGMENTS_ACCESS_TOKEN": "wrong0token"},
        {"SEGMENTS_API_KEY": FREE_API_KEY, "SEGMENTS_ACCESS_TOKEN": FREE_ACCESS_TOKEN},
    ],
    ids=["401", "403"],
)
def test_refused_credentials(
    run: Run,
    account: Environment,
    server: SandboxServer,
    arguments: list[str],
    credentials: dict[str, str],
) -> None:
    """Credentials that the vendor refuses end with 3 after one request, and aren't repeated."""
    done = run(*arguments, env=account(server, **credentials))
    assert (done.returncode, done.stdout) == (3, "")
    assert credentials["SEGMENTS_ACCESS_TOKEN"] not in done.stderr
    assert "Traceback" not in done.stderr
    assert len(server.sandbox.record) == 1


def test_no_connection_is_one_sentence(
    run: Run, account: Environment, server: SandboxServer
) -> None:
    """A vendor that can't be reached ends with 1 and a sentence, after a few tries."""
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))  # bound and not listening: nobody answers here
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
        done = run("status", "x", env=account(server, SEGMENTS_BASE_URL=address))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.splitlines()[-1].startswith("segments-async: No answer from the API")
    assert "Traceback" not in done.stderr


def test_timeout_leaves_the_rest_resumable(
    run: Run, account: Environment, slow_server: SandboxServer, parsed: Parsed
) -> None:
    """`--timeout` ends the run with 1; exports that go on are named with their ids."""
    done = run(*EXPORT, "--all", "--timeout", AMPLE, "--no-journal", env=account(slow_server))
    rows = parsed(done.stdout)
    assert done.returncode == 1
    assert {row["error"]["type"] for row in rows} == {"ExportTimeoutError"}
    assert all(row["resumable"] and row["export_id"] for row in rows)
    assert "segments-async download" in done.stderr


def test_status(run: Run, account: Environment, server: SandboxServer, parsed: Parsed) -> None:
    """`status` prints the vendor's answer about the page's export."""
    done = run("status", PAGE_EXPORT_ID, env=account(server))
    assert done.returncode == 0
    assert parsed(done.stdout) == [
        {
            "export_id": PAGE_EXPORT_ID,
            "segment_id": PAGE_SEGMENT_ID,
            "name": "My Segment",
            "status": "COMPLETE",
            "start_time": "2019-04-09T14:45:07+00:00",
            "end_time": "2019-04-09T14:45:42+00:00",
            "filename": f"s3://upload-bucket/path/to/{PAGE_EXPORT_ID}.csv",
        }
    ]


def test_status_shows_no_signature(
    run: Run, account: Environment, server: SandboxServer, parsed: Parsed
) -> None:
    """A signed link is a credential: `status` prints it without its query."""
    run(*EXPORT, PAGE_SEGMENT_ID, env=account(server))
    export_id = server.sandbox.export_id(PAGE_SEGMENT_ID)
    [row] = parsed(run("status", export_id, env=account(server)).stdout)
    assert row["filename"].startswith(server.files_url)
    assert "?" not in row["filename"]


def test_status_of_an_unknown_export(run: Run, account: Environment, server: SandboxServer) -> None:
    """A missing export ends with 1 and one sentence."""
    done = run("status", "no-such-export", env=account(server))
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 1


def test_id_that_would_leave_its_place_is_usage(
    run: Run, account: Environment, server: SandboxServer
) -> None:
    """An id that could change the URL is refused before anything is sent."""
    done = run("status", "../list", env=account(server))
    assert (done.returncode, done.stdout, len(server.sandbox.record)) == (2, "", 0)


def test_download(
    run: Run, account: Environment, server: SandboxServer, parsed: Parsed, tmp_path: Path
) -> None:
    """`download` fetches a complete export's file, and replaces one only with `--overwrite`."""
    env = account(server)
    run(*EXPORT, PAGE_SEGMENT_ID, env=env)
    fetch = ("download", server.sandbox.export_id(PAGE_SEGMENT_ID), "--to", "one.csv")
    first, second = run(*fetch, env=env), run(*fetch, env=env)
    third = run(*fetch, "--overwrite", env=env)
    assert (first.returncode, second.returncode, third.returncode) == (0, 2, 0)
    [row] = parsed(first.stdout)
    assert row["sha256"] == server.sandbox.sha256(PAGE_SEGMENT_ID)
    assert (tmp_path / "one.csv").read_bytes() == server.sandbox.content(PAGE_SEGMENT_ID)


def test_verbose_tells_of_429(run: Run, account: Environment) -> None:
    """`-v` puts a line about each pause on stderr, and nothing more on stdout."""
    with SandboxServer(Sandbox(retry_after="seconds", durations=Durations(median=0))) as server:
        server.sandbox.inject(Fault.status(429, headers={"Retry-After": "1"}), method="POST")
        quiet = run("list", env=account(server))
        loud = run(*EXPORT, "-v", "--all", env=account(server))
    assert quiet.stderr == ""
    assert "429" in loud.stderr.partition("exported")[0]
    assert len(loud.stdout.splitlines()) == 1


def test_export_from_the_sandbox(run: Run, parsed: Parsed, tmp_path: Path) -> None:
    """`export --sandbox --all` needs no account, keeps no journal, and compares each file."""
    done = run("export", "--sandbox", "--all", "--to", "exports")
    rows = parsed(done.stdout)
    assert done.returncode == 0, done.stderr
    assert len(rows) >= 3
    assert f"{len(rows)} files verified" in done.stderr
    assert not (tmp_path / "exports" / ".segments-async").exists()
