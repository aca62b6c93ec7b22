"""Exports that go on: after kills, on other nights. The server's record is the judge."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import stat
from collections.abc import Iterator, Sequence
from operator import itemgetter
from pathlib import Path

import pytest
from launch import AMPLE, PATIENCE, Environment, Parsed, Run, Start, Until

from segments_async._journal.backends import backend
from segments_async._journal.tables import specs, with_checksum
from segments_async.sandbox import PAGE_SEGMENT_ID, Durations, Fault, Sandbox
from segments_async.sandbox.server import SandboxServer

EXPORT = ("export", "--to", "exports", "--all")
PLACE = ("--to", "exports")
RUN_KEYS = {
    "run", "destination", "started_at", "ended_at", "live", "processes", "held", "segments",
    "exported", "unchanged", "not_exported", "unfinished",
}  # fmt: skip


@pytest.fixture
def steady_server() -> Iterator[SandboxServer]:
    """Five segments, whose exports take longer than it takes to submit all."""
    steady = Durations(median=float(AMPLE) + 2, sigma=0)
    with SandboxServer(Sandbox(segments=5, rows=20, durations=steady)) as server:
        yield server


def modes(directory: Path) -> dict[str, int]:
    return {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in directory.iterdir()}


# ----------------------------------------------------------------- going on


@pytest.mark.parametrize("again", [EXPORT, ("resume", *PLACE)], ids=["the same", "resume"])
def test_killed_export_goes_on(
    start: Start,
    run: Run,
    account: Environment,
    steady_server: SandboxServer,
    until: Until,
    parsed: Parsed,
    again: tuple[str, ...],
) -> None:
    """After kill -9, the same command or `resume` ends complete: five segments, five exports.

    Two of them had not been requested, so that the journal had no event of them.
    """
    record, env = steady_server.sandbox.record, account(steady_server)
    process = start(*EXPORT, "--max-pending", "3", env=env)
    # What is polled was accepted, and is in the journal by then.
    until(lambda: len({entry.export_id for entry in record.polls()}) == 3)
    process.end()
    assert len(record.submits()) == 3

    done = run(*again, env=env)
    rows = parsed(done.stdout)
    assert done.returncode == 0, done.stderr
    assert "Going on with run" in done.stderr
    assert "0 of 5 are done" in done.stderr
    assert "5 of 5 segments exported" in done.stderr
    assert {row["segment_id"] for row in rows} == set(steady_server.sandbox.segment_ids)
    assert len(record.submits()) == 5
    assert record.duplicates() == {}


def test_several_commands_join_one_run(
    start: Start,
    run: Run,
    account: Environment,
    steady_server: SandboxServer,
    until: Until,
    parsed: Parsed,
) -> None:
    """A killed command's exports are gone on with by another one, and by `resume` of the run."""
    record, env = steady_server.sandbox.record, account(steady_server)
    command = (*EXPORT, "--run", "ours", "--join")
    first = start(*command, env=env)
    until(lambda: len({entry.export_id for entry in record.polls()}) == 5)
    others = [start(*command, env=env), start("resume", *PLACE, "--run", "ours", env=env)]
    first.end()
    rows = []
    for process in others:
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, err
        assert "5 of 5 segments exported" in err
        rows += parsed(out)
    assert sorted(row["segment_id"] for row in rows) == sorted(steady_server.sandbox.segment_ids)
    assert len(record.submits()) == 5
    alone = run(*EXPORT, "--run", "ours", env=env)
    assert alone.returncode == 2, alone.stderr
    assert "--join joins the run" in alone.stderr
    late = run(*command, env=env)
    assert (late.returncode, late.stdout) == (0, "")
    assert "Run ours has ended: nothing is sent." in late.stderr
    assert "5 of 5 segments exported" in late.stderr


@pytest.mark.parametrize("again", ["the same", "resume"])
def test_a_moved_directory_goes_on(
    start: Start,
    run: Run,
    account: Environment,
    steady_server: SandboxServer,
    until: Until,
    parsed: Parsed,
    tmp_path: Path,
    again: str,
) -> None:
    """After `mv`, the run goes on at the new path: five segments, five exports."""
    record, env = steady_server.sandbox.record, account(steady_server)
    process = start(*EXPORT, env=env)
    until(lambda: len({entry.export_id for entry in record.polls()}) == 5)
    process.end()
    (tmp_path / "exports").rename(tmp_path / "moved")

    (listed,) = parsed(run("runs", "--to", "moved", env=env).stdout)
    assert (listed["destination"], listed["unfinished"]) == (str(tmp_path / "moved"), 5)
    command = ("export", "--all") if again == "the same" else ("resume",)
    done = run(*command, "--to", "moved", env=env)
    assert done.returncode == 0, done.stderr
    assert "5 of 5 segments exported" in done.stderr
    assert len(list((tmp_path / "moved").glob("*.csv"))) == 5
    assert not (tmp_path / "exports").exists()
    assert len(record.submits()) == 5


def test_what_is_done_is_told_and_not_done_again(
    run: Run, account: Environment, server: SandboxServer, parsed: Parsed
) -> None:
    """A run that goes on says how much is done, and repeats those outcomes as `resumed`."""
    record, env = server.sandbox.record, account(server)
    server.sandbox.inject(Fault.status(403), origin="files", segment_id=PAGE_SEGMENT_ID)
    assert run(*EXPORT, env=env).returncode == 1
    done = run(*EXPORT, env=env)
    sources = {row["segment_id"]: row["source"] for row in parsed(done.stdout)}
    assert done.returncode == 0, done.stderr
    assert "4 of 5 are done" in done.stderr
    assert "5 of 5 segments exported to exports (4 of them before)" in done.stderr
    assert sources.pop(PAGE_SEGMENT_ID) == "exported"
    assert set(sources.values()) == {"resumed"}
    assert len(record.submits()) == 5


def test_timeout_and_the_same_command(
    run: Run, account: Environment, steady_server: SandboxServer, parsed: Parsed
) -> None:
    """`--timeout` leaves a run that the same command goes on with, and it says so."""
    record, env = steady_server.sandbox.record, account(steady_server)
    first = run(*EXPORT, "--timeout", AMPLE, env=env)
    assert first.returncode == 1
    assert "The same command goes on" in first.stderr
    [row] = parsed(run("runs", *PLACE, env=env).stdout)
    assert (row["ended_at"], row["segments"], row["unfinished"]) == (None, 5, 5)

    again = run(*EXPORT, env=env)
    assert again.returncode == 0, again.stderr
    assert {row["run"] for row in parsed(again.stdout)} == {row["run"]}
    assert len(record.submits()) == 5


def test_run_of_a_name_is_idempotent(
    run: Run, account: Environment, server: SandboxServer, parsed: Parsed
) -> None:
    """`--run NAME` of an ended run repeats its outcomes, though the vendor is away."""
    env = account(server)
    first = run(*EXPORT, "--run", "tonight", env=env)
    sent = len(server.sandbox.record)
    away = env | {"SEGMENTS_BASE_URL": server.base_url}
    server.sandbox.inject(Fault.status(503), times=99)
    again = run(*EXPORT, "--run", "tonight", env=away)
    one = run("export", *PLACE, PAGE_SEGMENT_ID, "--run", "tonight", env=away)
    assert (first.returncode, again.returncode, one.returncode) == (0, 0, 0)
    assert len(server.sandbox.record) == sent
    assert [row["segment_id"] for row in parsed(one.stdout)] == [PAGE_SEGMENT_ID]
    assert "Run tonight has ended" in again.stderr
    assert "(5 of them before)" in again.stderr
    assert {row["run"] for row in parsed(again.stdout)} == {"tonight"}
    assert {row["source"] for row in parsed(again.stdout)} == {"resumed"}
    told, repeated = (
        # Exports end side by side, in any order.
        sorted(
            ({**row, "at": None, "source": None} for row in parsed(done.stdout)),
            key=itemgetter("segment_id"),
        )
        for done in (first, again)
    )
    assert told == repeated


def test_a_run_at_work_is_waited_for(
    start: Start, run: Run, account: Environment, slow_server: SandboxServer, until: Until
) -> None:
    """While a command has a run open, another one ends with 1, and names the process."""
    env = account(slow_server)
    process = start(*EXPORT, env=env)
    until(lambda: len(slow_server.sandbox.record.submits()) == 5)
    second = run(*EXPORT, env=env)
    assert (second.returncode, second.stdout) == (1, "")
    assert f"held by a live process (process {process.pid})" in second.stderr
    assert "wait for that process to end" in second.stderr
    assert len(slow_server.sandbox.record.submits()) == 5


# ----------------------------------------------------------------- another night


def test_a_night_goes_on_with_the_last(
    run: Run, account: Environment, server: SandboxServer
) -> None:
    """docs/cli.md's line for every night: the unfinished exports of one night are the next one's.

    A second time in the same night, the line requests none.
    """
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()
    [line] = re.findall(r"^ *0 2 \* \* \*  segments-async (.*)$", text, re.MULTILINE)
    nightly, env = line.split(), account(server)
    server.sandbox.inject(Fault.status(403), origin="files", times=5)
    assert run(*nightly, env=env).returncode == 1
    second, third = run(*nightly, env=env), run(*nightly, env=env)
    assert (second.returncode, third.returncode) == (0, 0), second.stderr
    assert len(server.sandbox.record.submits()) == 5
    assert "5 unchanged" in third.stderr


def test_unfinished_runs_of_other_names_are_spoken_of(
    run: Run, account: Environment, slow_server: SandboxServer
) -> None:
    """A run of another name leaves unfinished runs alone, and names the command for each."""
    env = account(slow_server)
    cut = ("--timeout", "1", "--max-pending", "1")
    run(*EXPORT, *cut, "--run", "2026-11-24", env=env)
    for other in (("--run", "2026-11-25"), ()):
        [said] = [
            line
            for line in run(*EXPORT, *cut, *other, env=env).stderr.splitlines()
            if line.startswith("Run 2026-11-24 is unfinished")
        ]
        assert "5 of 5 segments" in said
        assert "`segments-async resume --to " in said
        assert " --run 2026-11-24` goes on with it" in said


def test_a_run_of_another_name_under_way_is_spoken_of(
    start: Start, run: Run, account: Environment, steady_server: SandboxServer, until: Until
) -> None:
    """Where last night's run still goes on, tonight's says that it requests the same segments."""
    record, env = steady_server.sandbox.record, account(steady_server)
    first = start(*EXPORT, "--run", "2026-11-26", "--join", env=env)
    until(lambda: len({entry.export_id for entry in record.polls()}) == 5)
    second = run(*EXPORT, "--run", "2026-11-27", "--join", env=env)
    _, said = first.communicate(timeout=PATIENCE)
    assert (first.returncode, second.returncode) == (0, 0), said
    assert "Run 2026-11-26 to the same directory is under way" in second.stderr
    assert "5 of 5 segments exported" in said
    assert "5 of 5 segments exported" in second.stderr
    assert len(record.submits()) == 10


def test_second_run_exports_again_over_its_own_files(
    run: Run, account: Environment, server: SandboxServer, parsed: Parsed
) -> None:
    """A run after an ended run exports again, and replaces its files without --overwrite."""
    env = account(server)
    first, second = run(*EXPORT, env=env), run(*EXPORT, env=env)
    assert (first.returncode, second.returncode) == (0, 0), second.stderr
    assert len(server.sandbox.record.submits()) == 10
    for row in parsed(second.stdout):
        assert row["source"] == "exported"
        assert row["sha256"] == server.sandbox.sha256(row["segment_id"], 1)
    assert parsed(first.stdout)[0]["run"] != parsed(second.stdout)[0]["run"]


def test_only_changed(
    run: Run, account: Environment, server: SandboxServer, parsed: Parsed
) -> None:
    """`--only-changed` exports refreshed segments only, and `--dry-run` shows only these."""
    env, record = account(server), server.sandbox.record
    run(*EXPORT, env=env)
    changed = server.sandbox.segment_ids[2]
    with server.lock:
        server.sandbox.refresh(changed, server.now() + 60)
    planned = run(*EXPORT, "--only-changed", "--dry-run", env=env)
    assert [row["segment_id"] for row in parsed(planned.stdout)] == [changed]
    assert len(record.submits()) == 5

    done = run(*EXPORT, "--only-changed", env=env)
    sources = {row["segment_id"]: row["source"] for row in parsed(done.stdout)}
    assert done.returncode == 0
    assert sources.pop(changed) == "exported"
    assert set(sources.values()) == {"unchanged"}
    assert [entry.segment_id for entry in record.submits()[5:]] == [changed]
    assert "1 of 5 segments exported to exports, 4 unchanged" in done.stderr


def test_lost_answer_is_resubmitted_on_demand(
    run: Run, account: Environment, server: SandboxServer, parsed: Parsed
) -> None:
    """A lost answer is reported; only `--on-unknown resubmit` requests another export."""
    env, record = account(server), server.sandbox.record
    export = ("export", PAGE_SEGMENT_ID, *PLACE)
    server.sandbox.inject(Fault.LOST_AFTER, method="POST", times=2)
    reported = run(*export, env=env)
    assert reported.returncode == 1
    assert parsed(reported.stdout)[0]["error"]["type"] == "SubmitUnknownError"
    assert len(record.submits()) == 1
    resubmitted = run(*export, "--on-unknown", "resubmit", env=env)
    assert resubmitted.returncode == 0, resubmitted.stderr
    assert len(record.submits()) == 3


# ----------------------------------------------------------------- runs and resume


def test_runs(run: Run, account: Environment, server: SandboxServer, parsed: Parsed) -> None:
    """`runs` in a pipe is a JSON object per run, the latest first, and needs no access token."""
    env = account(server)
    run(*EXPORT, "--run", "first", env=env)
    run(*EXPORT, "--only-changed", "--run", "second", env=env)
    sent = len(server.sandbox.record)
    done = run("runs", *PLACE, env=env | {"SEGMENTS_ACCESS_TOKEN": ""})
    rows = parsed(done.stdout)
    assert done.returncode == 0, done.stderr
    assert all(set(row) == RUN_KEYS for row in rows)
    assert [row["run"] for row in rows] == ["second", "first"]
    assert [(row["exported"], row["unchanged"]) for row in rows] == [(0, 5), (5, 0)]
    assert all(row["ended_at"] for row in rows)
    assert len(server.sandbox.record) == sent


def test_prune_forgets(
    run: Run,
    account: Environment,
    slow_server: SandboxServer,
    parsed: Parsed,
) -> None:
    """`runs --prune 0` deletes every run that no process has open; `--prune 1` keeps these."""
    env = account(slow_server)
    run(*EXPORT, "--timeout", "1", env=env)
    assert parsed(run("runs", *PLACE, "--prune", "1", env=env).stdout) == [{"pruned": 0}]
    assert parsed(run("runs", *PLACE, "--prune", "0", env=env).stdout) == [{"pruned": 1}]
    assert run("runs", *PLACE, env=env).stdout == ""


def test_resume_keeps_to_what_was_asked(
    run: Run, account: Environment, server: SandboxServer, parsed: Parsed
) -> None:
    """`resume` exports the segments of its run only, with the run's --only-changed."""
    env, ids = account(server), server.sandbox.segment_ids
    run("export", *PLACE, *ids[:2], env=env)
    server.sandbox.durations = Durations(median=3600, sigma=0, longest=3600)
    with server.lock:
        server.sandbox.refresh(ids[0], server.now() + 60)
    cut_off = ("--only-changed", "--timeout", AMPLE, "--max-pending", "1")
    assert run("export", *PLACE, *ids[:3], *cut_off, env=env).returncode == 1
    before = len(server.sandbox.record.submits())
    done = run("resume", *PLACE, "--timeout", AMPLE, env=env)
    rows = {row["segment_id"]: row for row in parsed(done.stdout)}
    assert done.returncode == 1
    assert set(rows) == set(ids[:3])
    assert rows[ids[1]]["source"] == "unchanged"
    assert {entry.segment_id for entry in server.sandbox.record.submits()[2:]} == {ids[0], ids[2]}
    assert len(server.sandbox.record.submits()) <= before + 1


def test_resume_with_nothing_to_do(run: Run, account: Environment, server: SandboxServer) -> None:
    """Where every run has ended, `resume` says so and succeeds; nothing is sent."""
    env = account(server)
    run(*EXPORT, "--run", "x", env=env)
    sent = len(server.sandbox.record)
    done = run("resume", *PLACE, env=env)
    named = run("resume", *PLACE, "--run", "x", env=env)
    assert (done.returncode, named.returncode) == (0, 0)
    assert "has ended" in done.stderr
    assert "Run x has ended" in named.stderr
    assert len(server.sandbox.record) == sent


def test_resume_in_a_copy_of_a_directory(
    run: Run, account: Environment, slow_server: SandboxServer, tmp_path: Path
) -> None:
    """The original's run goes on in the original; `resume` doesn't say that the run has ended."""
    env = account(slow_server)
    run(*EXPORT, "--run", "one", "--timeout", "1", env=env)
    sent = len(slow_server.sandbox.record)
    shutil.copytree(tmp_path / "exports", tmp_path / "copy")
    done = run("resume", "--to", "copy", env=env)
    assert done.returncode == 0
    assert "no run to this directory" in done.stderr
    assert "Run one to exports is unfinished" in done.stderr
    assert "ended" not in done.stderr
    assert len(slow_server.sandbox.record) == sent


def test_resume_that_cannot_know(
    run: Run, account: Environment, slow_server: SandboxServer, tmp_path: Path
) -> None:
    """The segments of a run are never guessed: several runs, an unknown name, no spec are 2.

    So are options that a later version stored, and a spec file that another user may have written.
    """
    env = account(slow_server)
    for name in ("one", "two"):
        run(*EXPORT, "--run", name, "--timeout", "1", env=env)
    several = run("resume", *PLACE, env=env)
    unknown = run("resume", *PLACE, "--run", "three", env=env)
    directory = tmp_path / "exports" / ".segments-async"
    engine = backend(str(directory / "runs.db")).engine
    with engine.begin() as connection:
        [row] = connection.execute(specs.select().where(specs.c.run_id == 1)).mappings().all()
        text = json.loads(row["spec"])
        text["options"]["later"] = 1
        later = with_checksum(specs, {**row, "spec": json.dumps(text)})
        connection.execute(specs.update().where(specs.c.run_id == 1).values(later))
    newer = run("resume", *PLACE, "--run", "one", env=env)
    with engine.begin() as connection:
        connection.execute(specs.delete())
    lost = run("resume", *PLACE, "--run", "one", env=env)
    spec_file(directory, "one", slow_server.sandbox.segment_ids, mode=0o666)
    others = run("resume", *PLACE, "--run", "one", env=env)
    codes = [done.returncode for done in (several, unknown, newer, lost, others)]
    assert codes == [2, 2, 2, 2, 2]
    assert "may be written by others" in others.stderr
    assert "two, one" in several.stderr
    assert "three" in unknown.stderr
    assert "later version" in newer.stderr
    assert "doesn't have its list of segments" in lost.stderr


def spec_file(directory: Path, run: str, segments: Sequence[str], mode: int = 0o600) -> Path:
    """The file that an earlier version stored for a run, beside its journal."""
    options = {"overwrite": False, "only_changed": False, "retry_failed": 0}
    options |= {"on_unknown": "report", "on_expired": "report", "export_timeout": 86_400.0}
    values = {"run": run, "segments": segments, "terms": options, "command": "export", "process": 1}
    path = directory / f"run-{hashlib.sha256(run.encode()).hexdigest()[:16]}.json"
    path.write_text(json.dumps(values))
    path.chmod(mode)
    return path


def test_resume_of_a_run_of_the_last_version(
    run: Run, account: Environment, slow_server: SandboxServer, parsed: Parsed, tmp_path: Path
) -> None:
    """A spec file beside an older journal is read, and replaced by a row of the journal."""
    env, ids = account(slow_server), slow_server.sandbox.segment_ids
    run(*EXPORT, "--run", "one", "--timeout", "1", "--max-pending", "1", env=env)
    directory = tmp_path / "exports" / ".segments-async"
    with backend(str(directory / "runs.db")).engine.begin() as connection:
        specs.drop(connection)
    path = spec_file(directory, "one", ids[:3])
    [row] = parsed(run("runs", *PLACE, env=env).stdout)
    assert (row["segments"], row["unfinished"]) == (3, 3)
    done = run("resume", *PLACE, "--timeout", "1", env=env)
    assert {row["segment_id"] for row in parsed(done.stdout)} == set(ids[:3])
    assert not path.exists()
    [row] = parsed(run("runs", *PLACE, env=env).stdout)
    assert (row["segments"], row["unfinished"]) == (3, 3)


@pytest.mark.parametrize("command", ["runs", "resume"])
def test_no_journal_is_usage(
    run: Run, account: Environment, server: SandboxServer, tmp_path: Path, command: str
) -> None:
    """A missing journal is an error, and none is created."""
    done = run(command, *PLACE, env=account(server))
    assert (done.returncode, done.stdout) == (2, "")
    assert "there is no journal at" in done.stderr
    assert not (tmp_path / "exports").exists()


# ----------------------------------------------------------------- the journal's place


def test_kept_for_its_owner_alone(
    run: Run, account: Environment, slow_server: SandboxServer, tmp_path: Path
) -> None:
    """Whatever the umask, DIR/.segments-async is 0700, its files are 0600, without a secret."""
    before = os.umask(0)
    try:
        run(*EXPORT, "--timeout", "1", env=account(slow_server))
    finally:
        os.umask(before)
    kept = tmp_path / "exports" / ".segments-async"
    assert stat.S_IMODE(kept.stat().st_mode) == 0o700
    assert set(modes(kept).values()) == {0o600}
    token = account(slow_server)["SEGMENTS_ACCESS_TOKEN"].encode()
    assert all(token not in path.read_bytes() for path in kept.iterdir())


def test_journal_elsewhere(
    run: Run, account: Environment, server: SandboxServer, tmp_path: Path, parsed: Parsed
) -> None:
    """`--journal PATH` names the journal of several directories, also for `runs`."""
    env = account(server)
    for directory in ("one", "two"):
        run("export", "--all", "--to", directory, "--journal", "all.db", env=env)
        assert not (tmp_path / directory / ".segments-async" / "runs.db").exists()
    every = parsed(run("runs", "--journal", "all.db", env=env).stdout)
    one = parsed(run("runs", "--journal", "all.db", "--to", "one", env=env).stdout)
    assert [Path(row["destination"]).name for row in every] == ["two", "one"]
    assert [Path(row["destination"]).name for row in one] == ["one"]


def test_no_journal(run: Run, account: Environment, server: SandboxServer, tmp_path: Path) -> None:
    """`--no-journal` leaves only files and the manifest."""
    assert run(*EXPORT, "--no-journal", env=account(server)).returncode == 0
    assert {path.suffix for path in (tmp_path / "exports").iterdir()} == {".csv", ".jsonl"}


def test_a_mistyped_key_makes_no_journal(
    run: Run, account: Environment, server: SandboxServer, tmp_path: Path
) -> None:
    """Refused credentials leave no journal, which would be another account's for ever."""
    assert run(*EXPORT, env=account(server, SEGMENTS_API_KEY="wrong")).returncode == 3
    assert not (tmp_path / "exports").exists()
    assert run(*EXPORT, env=account(server)).returncode == 0


def test_another_accounts_journal(
    run: Run, account: Environment, server: SandboxServer, tmp_path: Path
) -> None:
    """A journal of another account is refused with 1 and advice, before anything is sent."""
    run(*EXPORT, env=account(server))
    sent = len(server.sandbox.record)
    done = run(*EXPORT, env=account(server, SEGMENTS_API_KEY="another"))
    assert (done.returncode, done.stdout) == (1, "")
    assert "another account" in done.stderr
    assert "each account needs its own directory, or its own journal" in done.stderr
    assert len(server.sandbox.record) == sent


def test_damaged_journal_is_one_sentence(
    run: Run, account: Environment, server: SandboxServer, tmp_path: Path
) -> None:
    """A damaged journal ends every command with 1 and a sentence; nothing is sent."""
    run(*EXPORT, env=account(server))
    sent = len(server.sandbox.record)
    (tmp_path / "exports" / ".segments-async" / "runs.db").write_bytes(b"")
    for command in (EXPORT, ("runs", *PLACE), ("resume", *PLACE)):
        done = run(*command, env=account(server))
        assert (done.returncode, done.stdout) == (1, "")
        assert len(done.stderr.splitlines()) == 1
        assert "runs.db" in done.stderr
    assert len(server.sandbox.record) == sent


# ----------------------------------------------------------------- the ticket guard


def test_a_500_is_told_plainly_and_remembered(
    start: Start, run: Run, account: Environment, server: SandboxServer, until: Until
) -> None:
    """A 500 is reported with its ticket and until when nothing is sent, also by the next command.

    The next command sends nothing: the guard holds its list, too.
    """
    env = account(server)
    server.sandbox.inject(Fault.status(500), method="POST")
    first = run(*EXPORT, "--timeout", AMPLE, env=env)
    [told] = [line for line in first.stderr.splitlines() if "500 on POST" in line]
    assert "the vendor has opened a ticket with its support by itself" in told
    assert "Nothing is sent until " in told
    moment = told.rpartition(" ")[2]
    sent = len(server.sandbox.record)

    second = start(*EXPORT, env=env)
    assert second.stderr is not None
    held = second.stderr.readline()
    assert "the vendor has opened a ticket" in held
    assert moment in held
    second.send_signal(signal.SIGINT)
    _, rest = second.communicate(timeout=PATIENCE)
    assert (second.returncode, "Traceback" in rest) == (130, False)
    assert len(server.sandbox.record) == sent


def test_a_500_of_the_list_is_remembered(
    start: Start, run: Run, account: Environment, server: SandboxServer, until: Until
) -> None:
    """A 500 before the run is open is stored in the journal, too."""
    env = account(server)
    run(*EXPORT, env=env)
    server.sandbox.inject(Fault.status(500), path="list")
    first = start(*EXPORT, env=env)
    assert first.stderr is not None
    assert "500 on GET" in first.stderr.readline()
    first.send_signal(signal.SIGTERM)
    first.communicate(timeout=PATIENCE)
    sent = len(server.sandbox.record)
    second = start(*EXPORT, env=env)
    assert second.stderr is not None
    assert "An earlier request was answered 500" in second.stderr.readline()
    assert len(server.sandbox.record) == sent


def test_lines_of_a_resumed_run_are_those_of_the_manifest(
    run: Run, account: Environment, server: SandboxServer, parsed: Parsed, tmp_path: Path
) -> None:
    """JSON lines of a repeated run have the same keys and values as the manifest's."""
    env = account(server)
    run(*EXPORT, "--run", "x", env=env)
    told = parsed(run(*EXPORT, "--run", "x", env=env).stdout)
    text = (tmp_path / "exports" / "manifest.jsonl").read_text().splitlines()
    written = [json.loads(line) for line in text][5:]
    for row in (*told, *written):
        row.pop("at")
    assert sorted(map(str, told)) == sorted(map(str, written))
