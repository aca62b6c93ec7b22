"""Blocks for a shell: real processes, against a server of the page's own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import attrs
from command_proxy import CommandProxy
from forked import ForkServer
from sybil import Example

PATIENCE = 120.0  # seconds: a bound for what hangs, and no claim of how long anything takes

#: Stand for free ports: pages are tested at the same time, and a reader's server may be running.
PORTS = ("8420", "8000")

#: The plugins that a reader's environment may have. Importing all of this one's takes two seconds.
PYTEST = {
    "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1",
    "PYTEST_PLUGINS": "anyio.pytest_plugin,segments_async.testing.plugin,pytest_asyncio.plugin",
}

#: Commands that serve until they are stopped.
_SERVERS = re.compile(r"(segments-async sandbox|uvicorn|python3? -m uvicorn|fastapi run)\b")

_STATUS = re.compile("\x1e(\\d+)\n")


@attrs.frozen
class Command:
    """A command of a console block, and the output that the block shows; "": none is shown."""

    text: str
    shown: str


def commands(block: str) -> Iterator[Command]:
    """A console block's commands: ``$ `` begins one, and a backslash or ``> `` goes on with it."""
    text, shown = "", ""
    for line in block.splitlines():
        if line.startswith("$ "):
            if text:
                yield Command(text, shown)
            text, shown = line[2:], ""
        elif text and not shown and (text.endswith("\\") or line.startswith("> ")):
            text += "\n" + line.removeprefix("> ")
        elif text:
            shown += line + "\n"
        else:
            raise AssertionError(f"a console block begins with a command: {line!r}")
    yield Command(text, shown)


def matches(shown: str, printed: str) -> bool:
    """Whether the output is the one shown, in which ``...`` stands for any text."""
    parts = [re.escape(part) for part in _trimmed(shown).split("...")]
    return re.fullmatch(".*?".join(parts), _trimmed(printed), re.DOTALL) is not None


def _trimmed(text: str) -> str:
    return "\n".join(line.rstrip() for line in text.strip("\n").splitlines())


class Shell:
    """Runs the blocks of one page in one directory.

    Variables and the directory are kept from block to block, as in a reader's terminal.
    """

    def __init__(
        self,
        directory: Path,
        state: Path,
        variables: dict[str, str],
        free: list[int],
        fork_server: ForkServer,
    ) -> None:
        self._directory = directory
        self._state = state
        self._free_ports = dict(zip(PORTS, map(str, free), strict=True))
        self._servers: list[subprocess.Popen[bytes]] = []
        self._environment = _environment(state) | variables
        self._saved = state / "variables.sh"
        self._proxy = CommandProxy(fork_server, state / "bin")

    def __enter__(self) -> Self:
        self._proxy.__enter__()
        return self

    def __exit__(self, *_: object) -> None:
        for server in self._servers:
            os.killpg(server.pid, signal.SIGKILL)
            server.wait()
        self._proxy.__exit__()

    def console(self, example: Example) -> str | None:
        """Run a console block; what differs from what it shows, or None."""
        block = list(commands(self._with_free_ports(example.parsed)))
        if _SERVERS.match(block[0].text):
            assert len(block) == 1, "a command that serves has a block of its own"
            return self._serve(block[0])
        printed = self._run("\n".join(_with_status(command.text) for command in block))
        return _difference(block, printed)

    def script(self, example: Example) -> str | None:
        """Run a block that is a whole script; its output if it fails, or None."""
        text = self._with_free_ports(example.parsed)
        printed = self._run(f"set -euo pipefail\n{text}\nprintf '\\n\\036%s\\n' 0")
        return None if _STATUS.search(printed) else f"the script failed:\n{printed}"

    def _with_free_ports(self, text: str) -> str:
        for port, free in self._free_ports.items():
            text = re.sub(rf"(?<!\d){port}(?!\d)", free, text)
        return text

    def _run(self, script: str) -> str:
        """The output of a script, stderr included; the state is that of the block before."""
        before = f". {self._saved}\n" if self._saved.exists() else ""
        after = f'\nexport -p >{self._saved}; printf "cd %q\\n" "$PWD" >>{self._saved}\n'
        completed = subprocess.run(
            ["bash", "-c", before + script + after],
            cwd=self._directory,
            env=self._environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        return completed.stdout

    def _serve(self, command: Command) -> str | None:
        """Start a server, which ends with the page, and wait for the output that is shown."""
        log = self._state / f"server-{len(self._servers)}.log"
        before = f". {self._saved}\n" if self._saved.exists() else ""
        with log.open("wb") as output:
            server = subprocess.Popen(
                ["bash", "-c", f"{before}exec {command.text}"],
                cwd=self._directory,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._servers.append(server)
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and server.poll() is None:
            printed = log.read_text()
            if printed.endswith("\n") and matches(command.shown + "...", printed):
                return None
            time.sleep(0.02)
        return f"$ {command.text}\nshown:\n{command.shown}\nprinted:\n{log.read_text()}"


def syntax_error(script: str) -> str | None:
    """What bash says about a script that it reads and doesn't run."""
    read = subprocess.run(
        ["bash", "-n"], input=script, capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    return read.stderr if read.returncode else None


def _with_status(command: str) -> str:
    """The command, then its exit code on a line of its own; ``$?`` stays what it is."""
    return f"{command}\n_status=$?; printf '\\036%s\\n' $_status; (exit $_status)"


def _difference(block: list[Command], printed: str) -> str | None:
    """The first command that failed, or whose output is not the one shown."""
    parts = _STATUS.split(printed)
    outputs, codes = parts[::2], [int(code) for code in parts[1::2]]
    if len(codes) < len(block):
        return f"the shell ended early:\n{printed}"
    for number, (command, output, code) in enumerate(zip(block, outputs, codes, strict=False)):
        if code != 0 and not _asks_for_status(block, number + 1):
            return f"$ {command.text}\nexit code {code}:\n{output}"
        if command.shown and not matches(command.shown, output):
            return f"$ {command.text}\nshown:\n{command.shown}\nprinted:\n{output}"
    return None


def _asks_for_status(block: list[Command], number: int) -> bool:
    return number < len(block) and block[number].text.startswith("echo $?")


def _environment(state: Path) -> dict[str, str]:
    """A home of the page's own, and a folder for programs, with a pip that asks no index."""
    home, programs = state / "home", state / "bin"
    home.mkdir()
    programs.mkdir()
    pip = programs / "pip"
    pip.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).with_name("pip.py")} "$@"\n')
    pip.chmod(0o700)
    path = (str(programs), str(Path(sys.executable).parent), os.environ["PATH"])
    return {
        "PATH": os.pathsep.join(path),
        "HOME": str(home),
        "LANG": "C.UTF-8",
        "COLUMNS": "100",
        "TMPDIR": str(state),
        "PIP_NO_INDEX": "1",
        "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "PIP_ROOT_USER_ACTION": "ignore",
        **PYTEST,
    }
