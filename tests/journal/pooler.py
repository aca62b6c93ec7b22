"""pgbouncer as a child process, before a PostgreSQL of the tests."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from journal.server import PostgresServer

_PATIENCE = 30.0


@contextlib.contextmanager
def pooler(server: PostgresServer, mode: str, *, size: int = 5) -> Iterator[int]:
    """The port of a pgbouncer in that `pool_mode`."""
    directory = Path(tempfile.mkdtemp(prefix="journal-pgbouncer-"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    (directory / "ini").write_text(
        f"[databases]\n* = host=127.0.0.1 port={server.port} user=journal\n[pgbouncer]\n"
        f"listen_addr = 127.0.0.1\nlisten_port = {port}\nauth_type = any\nunix_socket_dir =\n"
        f"pool_mode = {mode}\ndefault_pool_size = {size}\n"
        "ignore_startup_parameters = extra_float_digits,options\n"
    )
    user = None
    if os.geteuid() == 0:  # it refuses to run as root
        users = {entry.pw_name for entry in pwd.getpwall()}
        user = "postgres" if "postgres" in users else "nobody"
        shutil.chown(directory, user)
    program = shutil.which("pgbouncer")
    assert program is not None
    with (directory / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, directory / "ini"], stdout=log, stderr=log, user=user, cwd=directory
        )
    try:
        until = time.monotonic() + _PATIENCE
        while True:
            try:
                psycopg.connect(f"postgresql://journal@127.0.0.1:{port}/postgres").close()
            except psycopg.OperationalError:
                if process.poll() is not None or time.monotonic() > until:
                    text = (directory / "log").read_text()
                    raise AssertionError(f"pgbouncer didn't start:\n{text}") from None
                time.sleep(0.05)
            else:
                break
        yield port
    finally:
        process.kill()
        process.wait(_PATIENCE)
        shutil.rmtree(directory)
