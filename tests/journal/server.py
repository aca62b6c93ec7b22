"""PostgreSQL as a child process, in a directory of its own."""

from __future__ import annotations

import os
import pwd
import shutil
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
    """The directory of the server's programs, which Debian keeps out of PATH."""
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
        self._guard: subprocess.Popen[bytes] | None = None
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]

    def url(self, database: str = "postgres", schema: str = "public") -> str:
        place = f"127.0.0.1:{self.port}/{database}"
        return f"postgresql://journal:Very-Secret@{place}?options=-csearch_path%3D{schema}"

    def restart(self, how: str = "fast") -> None:
        """Stop and start the server, as an administrator or a failover does."""
        self._control("restart", how)

    def stop(self, how: str = "fast") -> None:
        self._control("stop", how)

    def start(self) -> None:
        self._control("start")

    def _control(self, what: str, how: str = "fast") -> None:
        log = self._directory / "log"
        subprocess.run(
            [binaries() / "pg_ctl", what, "-D", self._directory / "data", "-m", how, "-w",
             "-t", str(int(_PATIENCE)), "-l", log, "-s"],
            check=True, user=_unprivileged(), cwd=self._directory,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip

    def terminate(self) -> None:
        """End every session but this one."""
        self.execute(
            "SELECT pg_terminate_backend(pid, 30000) FROM pg_stat_activity "
            "WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )

    def schema(self) -> str:
        """The URL of a new, empty schema."""
        name = f"journal_{next(self._numbers)}"
        self.execute(f"CREATE SCHEMA {name}")
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
        settings = "".join(f"{name} = '{value}'\n" for name, value in _SETTINGS.items())
        with (data / "postgresql.conf").open("a") as file:
            file.write(f"{settings}port = {self.port}\n")
        # pg_ctl's server outlives a killed test run, whose end closes this pipe.
        stop = [binaries() / "pg_ctl", "stop", "-m", "immediate", "-s", "-D", data]
        self._guard = subprocess.Popen(
            ["sh", "-c", 'cat; "$@"; rm -rf "$0"', self._directory, *stop],
            stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            user=user, cwd="/", start_new_session=True,
        )  # fmt: skip
        self._control("start")
        self._wait()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._guard is not None:
            self._guard.communicate()  # stops the server: its data is thrown away
        shutil.rmtree(self._directory, ignore_errors=True)

    def _wait(self) -> None:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                self.execute("SELECT 1")
            except OperationalError:
                if time.monotonic() > until:
                    log = (self._directory / "log").read_text()
                    raise AssertionError(f"PostgreSQL didn't start:\n{log}") from None
                time.sleep(0.05)
            else:
                return

    def execute(self, statement: str) -> None:
        """Run one statement as an administrator."""
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
