"""PostgreSQL as a child process, in a directory of its own."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

import sqlalchemy
from sqlalchemy.exc import OperationalError

#: Seconds that the server may take to listen, or to leave.
_PATIENCE = 60.0

_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",  # processes are killed here, and no machine
    "synchronous_commit": "off",  # the journal is to see to it by itself
    "shared_buffers": "16MB",
    "max_connections": "100",
}


def binaries() -> Path:
    """Where the server's programs are: Debian keeps them out of PATH."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    program = found[-1] if found else shutil.which("postgres")
    if program is None:
        raise AssertionError("no PostgreSQL: mark the test with needs('PostgreSQL')")
    return Path(program).parent


class PostgresServer:
    """A server on a free port of 127.0.0.1. A journal takes one schema."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="journal-postgresql-"))
        self._numbers = count(1)
        self._process: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    def url(self, database: str = "postgres", schema: str = "public") -> str:
        place = f"127.0.0.1:{self.port}/{database}"
        return f"postgresql://journal:Very-Secret@{place}?options=-csearch_path%3D{schema}"

    def schema(self) -> str:
        """The URL of a new, empty schema."""
        name = f"journal_{next(self._numbers)}"
        self._execute(f"CREATE SCHEMA {name}")
        return self.url(schema=name)

    def __enter__(self) -> Self:
        user = _unprivileged()
        if user is not None:  # the server refuses to run as root
            shutil.chown(self._directory, user)
        data = self._directory / "data"
        initdb = ["-U", "journal", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync"]
        subprocess.run(
            [binaries() / "initdb", "-D", data, *initdb],
            check=True, capture_output=True, user=user, cwd=self._directory,
        )  # fmt: skip
        settings = [f"--{name}={value}" for name, value in _SETTINGS.items()]
        with (self._directory / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [binaries() / "postgres", "-D", data, f"--port={self.port}", *settings],
                stdout=log, stderr=log, user=user, cwd=self._directory,
            )  # fmt: skip
        self._wait()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGQUIT)  # at once: its data is thrown away
            self._process.wait(_PATIENCE)
        shutil.rmtree(self._directory)

    def _wait(self) -> None:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                self._execute("SELECT 1")
            except OperationalError:
                ended = self._process is None or self._process.poll() is not None
                if ended or time.monotonic() > until:
                    log = (self._directory / "log").read_text()
                    raise AssertionError(f"PostgreSQL didn't start:\n{log}") from None
                time.sleep(0.05)
            else:
                return

    def _execute(self, statement: str) -> None:
        url = self.url().replace("postgresql:", "postgresql+psycopg:")
        engine = sqlalchemy.create_engine(url, isolation_level="AUTOCOMMIT")
        with engine.connect() as connection:
            connection.exec_driver_sql(statement)
        engine.dispose()


def _unprivileged() -> str | None:
    if os.geteuid() != 0:
        return None
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"
