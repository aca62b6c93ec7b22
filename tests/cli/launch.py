"""How tests start the command, and the types of the fixtures that do it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from forked import Forked

import segments_async
from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY
from segments_async.sandbox.server import SandboxServer

COMMAND = (sys.executable, "-W", "error", "-m", "segments_async.cli")
PATIENCE = 120.0  # seconds: a bound for what hangs, and no claim of how long anything takes

#: Seconds for `--timeout`, in which a busy machine too submits five exports.
AMPLE = "5"


def environment(server: SandboxServer | None = None, **more: str) -> dict[str, str]:
    """The environment of a command: the package under test, and a server's account or none."""
    package = Path(segments_async.__file__).parent.parent
    names = {"PATH", "HOME", "LANG", "SSL_CERT_FILE"}
    kept = {name: value for name, value in os.environ.items() if name in names}
    account = {}
    if server is not None:
        account = {
            "SEGMENTS_BASE_URL": server.base_url,
            "SEGMENTS_API_KEY": PAGE_API_KEY,
            "SEGMENTS_ACCESS_TOKEN": PAGE_ACCESS_TOKEN,
        }
    return {**kept, "PYTHONPATH": str(package), "COLUMNS": "100", **account, **more}


class Run(Protocol):
    """Run the command to its end, without a terminal.

    `out`, `err`: files for its stdout and stderr, whose content is not returned then.
    """

    def __call__(
        self,
        *arguments: str,
        env: Mapping[str, str] | None = None,
        out: str | None = None,
        err: str | None = None,
    ) -> subprocess.CompletedProcess[str]: ...


class Start(Protocol):
    """Start the command, without a terminal; what is still running afterwards is killed.

    `more`: as `Forked` takes it. Stdout and stderr are pipes where it says nothing of them.
    """

    def __call__(
        self, *arguments: str, env: Mapping[str, str] | None = None, **more: Any
    ) -> Forked: ...


class StartAnew(Protocol):
    """As `Start`, in a Python of its own: for claims about the interpreter's start or end."""

    def __call__(self, *arguments: str, env: Mapping[str, str]) -> subprocess.Popen[str]: ...


class Environment(Protocol):
    """The environment of a command: a server's account, and more variables."""

    def __call__(self, server: SandboxServer | None = None, **more: str) -> dict[str, str]: ...


#: The JSON objects of an output that is nothing but JSON lines.
Parsed = Callable[[str], list[dict[str, Any]]]

#: Wait for another process to get somewhere.
Until = Callable[[Callable[[], object]], None]
