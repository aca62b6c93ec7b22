"""Errors of a journal in PostgreSQL, walked frame by frame: none shows the journal's password."""

from __future__ import annotations

import contextlib
import gc
import socket
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest
from client.vendor import connected
from frames import given_away

from journal.lives import GOES_WELL, live, opened, run_of
from journal.server import PostgresServer
from journal.test_sessions import by
from segments_async import ConfigurationError, Journal, JournalError, SegmentsError
from segments_async._sansio.jobs.lifecycle import Event
from segments_async.sandbox import PAGE_API_KEY, Sandbox

PASSWORD = "Very-Secret"
Serve = Callable[[socket.socket], None]
DRIVERS = ["psycopg", "psycopg2", "pg8000"]

#: Messages of the protocol (https://www.postgresql.org/docs/current/protocol-message-formats.html).
NO_TLS = b"N"
PASSWORD_PLEASE = b"R" + struct.pack("!ii", 8, 3)


def refusal(state: str, said: str) -> bytes:
    fields = f"SFATAL\0VFATAL\0C{state}\0M{said}\0\0".encode()
    return b"E" + struct.pack("!i", len(fields) + 4) + fields


def hangs_up(_: socket.socket) -> None:
    """The server is away before it has said anything."""


def resets(connection: socket.socket) -> None:
    """The server's machine ends the connection by a reset, as it does for one it doesn't know."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def refuses(connection: socket.socket) -> None:
    """The server asks for the password, repeats it, and refuses it."""
    while (asked := connection.recv(8192))[4:8] == struct.pack("!i", 80877103):
        connection.sendall(NO_TLS)
    assert b"user" in asked
    connection.sendall(PASSWORD_PLEASE)
    assert PASSWORD.encode() in connection.recv(8192)
    connection.sendall(refusal("28P01", f'password authentication failed: "{PASSWORD}"'))


def breaks_off(connection: socket.socket) -> None:
    """The server dies while it has the password."""
    while connection.recv(8192)[4:8] == struct.pack("!i", 80877103):
        connection.sendall(NO_TLS)
    connection.sendall(PASSWORD_PLEASE)
    connection.recv(8192)


@contextlib.contextmanager
def serving(serve: Serve | None) -> Iterator[int]:
    """The port of such a server; of None: a port at which nobody listens."""
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        if serve is not None:
            listening.listen()

        def run(serve: Serve) -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    with connection:
                        serve(connection)

        thread = threading.Thread(target=run, args=[serve or hangs_up], daemon=True)
        thread.start()
        try:
            yield listening.getsockname()[1]
        finally:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)


async def by_a_run(url: str, tmp_path: Path) -> None:
    sandbox = Sandbox()
    async with connected(sandbox) as client:
        try:
            await client.bulk_export(sandbox.segment_ids, tmp_path / "out", journal=url)
        finally:
            assert len(sandbox.record) == 0


async def by_an_opened_run(url: str, tmp_path: Path) -> None:
    async with (
        connected(Sandbox()) as client,
        client.open_bulk_export(["a"], tmp_path / "out", journal=url),
    ):
        pass


async def by_a_look(url: str, _: Path) -> None:
    await Journal.open(url, api_key=PAGE_API_KEY)


@pytest.fixture(scope="module")
def frozen() -> None:
    """Keep the collector from what is there before these tests: it takes a tenth of a second."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def collected(frozen: None) -> Iterator[None]:
    """pg8000 leaves the socket of a failed connection to the collector, which warns of that."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.mark.alternating
@pytest.mark.real_time
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.usefixtures("collected")
@pytest.mark.parametrize("form", ["{0}://u:{1}@{2}/db", "{0}://u@{2}/db?password={1}"])
@pytest.mark.parametrize("serve", [None, hangs_up, resets, breaks_off, refuses])
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("act", [by_a_run, by_an_opened_run, by_a_look])
async def test_a_server_that_is_away_or_refuses(
    act: Any, driver: str, serve: Any, form: str, tmp_path: Path
) -> None:
    """No frame, cause or attribute of the error has the password, which the server got."""
    with serving(serve) as port:
        url = form.format(f"postgresql+{driver}", PASSWORD, f"127.0.0.1:{port}")
        with pytest.raises(JournalError) as caught:
            await act(url, tmp_path)
    assert caught.value.reason == "unavailable"
    shown = given_away(caught.value)
    assert "segments_async" in shown
    assert [line for line in shown.splitlines() if PASSWORD in line] == []


BAD = {
    "asynchronous": "postgresql+asyncpg://u:{0}@host/db",
    "unknown": "postgresql+bogus://u:{0}@host/db?password={0}",
    "another database": "mysql://u:{0}@host/db?password={0}",
    "a bare at sign": "postgresql://u:x@{0}@host/db",
    "a port": "postgresql://u:{0}@host:no/db",
    "an option": "postgresql://u@host/db?password={0}&connect_timeout=x&connect_timeout=y",
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("act", [by_a_run, by_a_look])
async def test_a_url_that_can_not_be_used(name: str, act: Any, tmp_path: Path) -> None:
    """The frames of a ConfigurationError have no part of the URL either."""
    with pytest.raises(SegmentsError) as caught:
        await act(BAD[name].format(PASSWORD), tmp_path)
    assert isinstance(caught.value, ConfigurationError | JournalError)
    assert [line for line in given_away(caught.value).splitlines() if PASSWORD in line] == []


@pytest.mark.needs("PostgreSQL")
@pytest.mark.real_time
@pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning")
@pytest.mark.usefixtures("collected")
@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_server_that_went_away_under_a_run(
    driver: str, own_postgres: PostgresServer
) -> None:
    """The end of a run can't be written, and its error has no password in it."""
    schema = f"away_{driver}_{anyio.get_current_task().id % 10**6}"
    where = by(driver, own_postgres, schema).replace("@", f":{PASSWORD}@")
    async with run_of(await opened(where)) as log:
        await live(log, "a", GOES_WELL[:2])
        await anyio.to_thread.run_sync(own_postgres.stop)
        try:
            await log.record("a", Event.COMPLETED)
            with pytest.raises(JournalError) as caught:
                await log.finish(patience=0.5)
            with pytest.raises(JournalError) as again:
                await opened(where)
        finally:
            await anyio.to_thread.run_sync(own_postgres.start)
    for error in (caught.value, again.value):
        assert error.reason == "unavailable"
        assert PASSWORD not in given_away(error)
