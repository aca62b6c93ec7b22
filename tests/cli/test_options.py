"""Options of every command: from the environment, `--quiet`, `--json`; and shell completion."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from launch import Environment, Parsed, Run

from segments_async.cli import account
from segments_async.cli.app import app
from segments_async.cli.environment import ON_COMMAND_LINE, PREFIX
from segments_async.sandbox import PAGE_SEGMENT_ID, Fault
from segments_async.sandbox.server import SandboxServer

EXPORT = ("export", "--to", "exports")


# ------------------------------------------------------------------- the environment


def test_options_come_from_the_environment(
    run: Run, account: Environment, server: SandboxServer, parsed: Parsed, tmp_path: Path
) -> None:
    """`SEGMENTS_EXPORT_...` sets the options of `export`: texts, flags and numbers."""
    options = {"TO": "there", "RATE": "20", "ONLY_CHANGED": "true", "QUIET": "1"}
    env = {f"SEGMENTS_EXPORT_{name}": value for name, value in options.items()}
    done = run("export", "--all", "--dry-run", env=account(server, **env))
    assert (done.returncode, done.stderr) == (0, "")
    files = [Path(row["file"]) for row in parsed(done.stdout)]
    assert [file.parent for file in files] == [Path("there")] * 5
    assert server.sandbox.record.submits() == []


#: Variables of arguments that act, and the command line that each would change.
ACTING = {
    "SEGMENTS_EXPORT_SEGMENT": ("export", "--to", "there"),
    "SEGMENTS_EXPORT_ALL": ("export", "--to", "there"),
    "SEGMENTS_EXPORT_NAME": ("export", "--to", "there"),
    "SEGMENTS_EXPORT_SANDBOX": ("export", "--all", "--to", "there"),
    "SEGMENTS_EXPORT_DRY_RUN": ("export", "--all", "--to", "there"),
    "SEGMENTS_EXPORT_OVERWRITE": ("export", "--all", "--to", "there"),
    "SEGMENTS_EXPORT_RUN": ("export", "--all", "--to", "there"),
    "SEGMENTS_RESUME_RUN": ("resume", "--to", "there"),
    "SEGMENTS_LIST_NAME": ("list",),
    "SEGMENTS_RUNS_PRUNE": ("runs", "--to", "there"),
    "SEGMENTS_RUNS_RUN": ("runs", "--to", "there"),
    "SEGMENTS_STATUS_EXPORT_ID": ("status",),
    "SEGMENTS_DOWNLOAD_EXPORT_ID": ("download", "--to", "there.csv"),
    "SEGMENTS_DOWNLOAD_OVERWRITE": ("download", "some-id", "--to", "there.csv"),
    "SEGMENTS_REPORT_RUN": ("report", "--to", "there", "--html", "there.html"),
    "SEGMENTS_REPORT_HTML": ("report", "--to", "there"),
    "SEGMENTS_COMPLETION_SHELL": ("completion",),
    "SEGMENTS_COMPLETION_INSTALL": ("completion", "bash"),
}


@pytest.mark.parametrize("variable", ACTING)
def test_what_acts_comes_from_the_command_line(
    run: Run, account: Environment, server: SandboxServer, tmp_path: Path, variable: str
) -> None:
    """A variable that would select, replace or delete is a usage error; nothing is done."""
    env = account(server, **{variable: "1", "HOME": str(tmp_path)})
    done = run(*ACTING[variable], env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"{variable}: " in done.stderr
    assert len(server.sandbox.record) == 0
    assert list(tmp_path.iterdir()) == []


def test_each_argument_that_acts_is_known() -> None:
    """All arguments without a name, and all options that act, are among those of the test above."""
    alone = {
        f"{PREFIX}{command}_{argument.name.lstrip('-')}".upper().replace("-", "_")
        for command in app
        if not command.startswith("-")
        for argument in app[command].assemble_argument_collection()
        if argument.index is not None or argument.name in ON_COMMAND_LINE
    }
    assert alone == set(ACTING)


def test_an_argument_counts_more(
    run: Run, account: Environment, server: SandboxServer, parsed: Parsed
) -> None:
    """What the command line says isn't read from the environment, whose value may be wrong."""
    env = {"SEGMENTS_EXPORT_TO": "there", "SEGMENTS_EXPORT_RATE": "soon"}
    done = run(*EXPORT, "--all", "--dry-run", "--rate", "50", env=account(server, **env))
    assert done.returncode == 0, done.stderr
    assert {Path(row["file"]).parent for row in parsed(done.stdout)} == {Path("exports")}


@pytest.mark.parametrize("no", ["0", "false", "no", ""])
def test_a_variable_can_say_no(
    run: Run, account: Environment, server: SandboxServer, tmp_path: Path, no: str
) -> None:
    """A flag's variable that says no, or is empty, leaves the flag out."""
    env = {"SEGMENTS_EXPORT_QUIET": no, "SEGMENTS_EXPORT_RUN": "", "SEGMENTS_EXPORT_RATE": ""}
    done = run(*EXPORT, PAGE_SEGMENT_ID, env=account(server, **env))
    assert done.returncode == 0, done.stderr
    assert "1 segment" in done.stderr
    assert len(server.sandbox.record.submits()) == 1


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ONLY_CHANGED", "perhaps"), ("RATE", "-1"), ("RETRY_FAILED", "some"), ("ON_UNKNOWN", "ask")],
)
def test_a_wrong_variable_is_named(
    run: Run, account: Environment, server: SandboxServer, variable: str, value: str
) -> None:
    """A variable with a wrong value is a usage error that names it; nothing is sent."""
    env = account(server, **{f"SEGMENTS_EXPORT_{variable}": value})
    done = run(*EXPORT, "--all", env=env)
    assert (done.returncode, done.stdout) == (2, "")
    assert f"SEGMENTS_EXPORT_{variable}" in done.stderr
    assert len(server.sandbox.record) == 0


def test_a_contradiction_with_a_variable_names_it(run: Run, account: Environment) -> None:
    """Where an argument contradicts a variable, the sentence says where to look."""
    done = run(*EXPORT, "--all", "--no-journal", env=account(SEGMENTS_EXPORT_ONLY_CHANGED="1"))
    assert done.returncode == 2
    assert "SEGMENTS_EXPORT_ONLY_CHANGED" in done.stderr


def test_no_option_is_called_like_a_credential() -> None:
    """No command's options have the names of the account's variables."""
    commands = [name.upper().replace("-", "_") for name in app if not name.startswith("-")]
    credentials = (account_variable(name) for name in ("API_KEY", "ACCESS_TOKEN", "BASE_URL"))
    for variable in credentials:
        assert not any(variable.startswith(f"{PREFIX}{command}_") for command in commands)


def account_variable(name: str) -> str:
    value: str = getattr(account, name)
    return value


# ------------------------------------------------------------------- quiet, JSON, names


def test_quiet_says_nothing_of_what_went_well(
    run: Run, account: Environment, server: SandboxServer, parsed: Parsed
) -> None:
    """With `--quiet` an export without a fault writes its JSON lines, and nothing on stderr."""
    done = run(*EXPORT, "--all", "--quiet", env=account(server))
    assert (done.returncode, done.stderr) == (0, "")
    assert len(parsed(done.stdout)) == 5


def test_quiet_says_what_failed(run: Run, account: Environment, server: SandboxServer) -> None:
    """With `-q` the segments that failed are named, with the reason, and nothing else is."""
    server.sandbox.inject(Fault.status(404), method="POST", segment_id=PAGE_SEGMENT_ID, times=99)
    done = run(*EXPORT, "--all", "-q", env=account(server))
    assert done.returncode == 1
    assert done.stderr.startswith("1 segment not exported: ")
    assert "My Segment" in done.stderr
    assert "of 5 segments exported" not in done.stderr


def test_list_by_name(
    run: Run, account: Environment, server: SandboxServer, parsed: Parsed
) -> None:
    """`list --name` has the segments that `export --name` would export."""
    done = run("list", "--name", "My *", env=account(server))
    assert [row["name"] for row in parsed(done.stdout)] == ["My Segment"]
    missing = run("list", "--name", "my *", env=account(server))
    assert (missing.returncode, missing.stdout) == (2, "")
    assert "'my *' matches none of 5 segments" in missing.stderr


def test_a_failed_segment_is_told_once(
    run: Run, account: Environment, server: SandboxServer
) -> None:
    """Segments that failed for one reason are told together, each once, with name and id."""
    for segment in server.sandbox.segments[:3]:
        server.sandbox.inject(Fault.LOST_AFTER, method="POST", segment_id=segment.segment_id)
    done = run(*EXPORT, "--all", env=account(server))
    assert done.returncode == 1
    assert done.stderr.count("3 segments not exported: ") == 1
    for segment in server.sandbox.segments[:3]:
        assert done.stderr.count(f"  {segment.name} ({segment.segment_id})\n") == 1
        assert done.stderr.count(segment.segment_id) == 1


# ------------------------------------------------------------------- completion


@pytest.mark.parametrize(
    ("shell", "beginning"), [("bash", "# Bash"), ("zsh", "#compdef"), ("fish", "# Fish")]
)
def test_completion_has_every_command(run: Run, shell: str, beginning: str) -> None:
    """The script for each shell has the commands, their options and their choices."""
    done = run("completion", shell)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(beginning)
    for word in ("export", "resume", "completion", "only-changed", "quiet", "resubmit"):
        assert word in done.stdout
    assert "EXPORT_ID'" not in done.stdout


def test_completion_in_zsh_by_file_or_by_eval(run: Run) -> None:
    """The script for zsh works as a file of any name in `fpath`, and where it is evaluated."""
    script = run("completion", "zsh").stdout
    assert script.startswith("#compdef segments-async\n")
    assert '  _cyclopts_segments-async "$@"\n' in script
    assert "  compdef _cyclopts_segments-async segments-async\n" in script


def test_completion_works_in_bash(run: Run, tmp_path: Path) -> None:
    """Bash itself completes commands, options and choices by the script."""
    (tmp_path / "script").write_text(run("completion", "bash").stdout)
    for line, expected in (
        ("segments-async ex", {"export"}),
        ("segments-async export --only", {"--only-changed"}),
        ("segments-async export --on-unknown re", {"report", "resubmit"}),
    ):
        words = line.split(" ")
        program = (
            f"source ./script; COMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; "
            '_segments_async 2>/dev/null; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        done = subprocess.run(
            [shutil.which("bash") or "bash", "--norc", "-c", program],
            cwd=tmp_path,
            capture_output=True,
            text=True,
        )
        assert {word.strip() for word in done.stdout.split()} == expected, done


def test_completion_is_installed_for_one_user(
    run: Run, account: Environment, tmp_path: Path
) -> None:
    """`--install` writes the script into the home directory, and says where."""
    done = run("completion", "fish", "--install", env=account(HOME=str(tmp_path)))
    assert done.returncode == 0, done.stderr
    script = tmp_path / ".config/fish/completions/segments-async.fish"
    assert script.is_file()
    assert str(script) in done.stderr.replace("\n", "")


def test_a_home_that_cannot_be_written(run: Run, account: Environment, tmp_path: Path) -> None:
    """Where the script can't be written, a sentence says so."""
    (tmp_path / ".config").write_text("a file, where a directory has to be: root can't write it")
    done = run("completion", "fish", "--install", env=account(HOME=str(tmp_path)))
    assert done.returncode == 2
    assert "can't write" in done.stderr
