"""A journal with PostgreSQL's roles, rights, drivers and poolers."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path

import anyio
import psycopg
import pytest

from journal.lives import ACCOUNT, DESTINATION, GOES_WELL, live, opened, run_of
from journal.pooler import pooler
from journal.server import PostgresServer
from segments_async import JournalError
from segments_async._journal import postgresql, sql
from segments_async._journal.database import Database
from segments_async._journal.opening import open_run
from segments_async._journal.postgresql import PostgreSQL

pytestmark = [pytest.mark.needs("PostgreSQL"), pytest.mark.alternating]

DRIVERS = ("psycopg", "psycopg2", "pg8000")


def by(driver: str, postgres: PostgresServer, schema: str) -> str:
    """A URL of a schema in which each driver finds it: pg8000 has no `options`."""
    postgres.execute(f"CREATE ROLE {schema} LOGIN")
    postgres.execute(f"CREATE SCHEMA {schema} AUTHORIZATION {schema}")
    postgres.execute(f"ALTER ROLE {schema} SET search_path = {schema}")
    return f"postgresql+{driver}://{schema}@127.0.0.1:{postgres.port}/postgres"


@contextlib.contextmanager
def opening(postgres: PostgresServer, schema: str) -> Iterator[None]:
    """Holds the lock that another process would hold while it opens a run in this schema."""
    digest = hashlib.sha256(f"segments-async {schema} 0".encode()).digest()
    key = int.from_bytes(digest[:8], "big", signed=True)
    with psycopg.connect(postgres.url().partition("?")[0]) as connection:
        connection.execute("SELECT pg_advisory_xact_lock(%s)", (key,))
        yield
        connection.rollback()


def locks(postgres: PostgresServer) -> int:
    with psycopg.connect(postgres.url().partition("?")[0]) as connection:
        query = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        row = connection.execute(query).fetchone()
        assert row is not None
        return int(row[0])


@pytest.mark.parametrize("driver", DRIVERS)
async def test_a_run_by_each_driver(driver: str, postgres: PostgresServer) -> None:
    """A run can be written and locked by each supported driver."""
    where = by(driver, postgres, f"life_{driver}_{anyio.get_current_task().id % 10**6}")
    async with run_of(await opened(where)) as log:
        await live(log, "a")
        with pytest.raises(JournalError) as caught:
            async with run_of(await opened(where)):
                pass
        assert caught.value.reason == "locked"
    async with run_of(await opened(where)) as log:
        assert log.run_state.records["a"].file is not None


@pytest.mark.real_time
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("limit", ["lock", "statement"])
async def test_a_busy_database(
    driver: str, limit: str, postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process that opens a run is waited for; after a while the error is `locked`.

    So it is whether lock_timeout or statement_timeout ends the attempts.
    """
    schema = f"busy_{driver}_{limit}_{anyio.get_current_task().id % 10**6}"
    where = by(driver, postgres, schema)
    monkeypatch.setattr(postgresql, "EXCLUSIVE_SECONDS", 0.05)
    monkeypatch.setattr(sql, "_ATTEMPTS", 3)
    if limit == "statement":
        forever, briefly = ("'statement_timeout', '0'", "'statement_timeout', '40ms'")
        setting = postgresql.SET_STATEMENT.replace(forever, briefly)
        monkeypatch.setattr(postgresql, "SET_STATEMENT", setting)
    await opened(where)
    with opening(postgres, schema):
        with pytest.raises(JournalError) as caught:
            async with run_of(await opened(where)):
                pass
        assert caught.value.reason == "locked"
    async with run_of(await opened(where)):
        pass


@pytest.mark.parametrize("driver", DRIVERS)
async def test_missing_rights(driver: str, postgres: PostgresServer) -> None:
    """Missing rights are `unavailable`, and not `damaged`; the message says what to grant."""
    schema = f"rights_{driver}_{anyio.get_current_task().id % 10**6}"
    where = by(driver, postgres, schema)
    postgres.execute(f"ALTER SCHEMA {schema} OWNER TO journal")
    postgres.execute(f"GRANT USAGE ON SCHEMA {schema} TO {schema}")
    with pytest.raises(JournalError, match="GRANT USAGE, CREATE ON SCHEMA") as caught:
        await opened(where)
    assert caught.value.reason == "unavailable"
    postgres.execute(f"GRANT CREATE ON SCHEMA {schema} TO {schema}")
    await opened(where)
    for table in ("journal", "runs", "events", "guard"):
        postgres.execute(f"ALTER TABLE {schema}.segments_async_{table} OWNER TO journal")
    with pytest.raises(JournalError, match="GRANT") as caught:
        await opened(where)
    assert caught.value.reason == "unavailable"
    # Rights on tables are none on the sequence of a table's numbers.
    [named] = re.findall(r"sequence (segments_async_\w+)", str(caught.value))
    postgres.execute(f"GRANT USAGE ON SEQUENCE {schema}.{named} TO {schema}")


async def test_a_server_that_only_reads(postgres: PostgresServer) -> None:
    """A replica is `unavailable`, and the message asks for the primary."""
    schema = f"replica_{anyio.get_current_task().id % 10**6}"
    where = by("psycopg", postgres, schema)
    await opened(where)
    postgres.execute(f"ALTER ROLE {schema} SET default_transaction_read_only = on")
    with pytest.raises(JournalError, match="primary") as caught:
        async with run_of(await opened(where)):
            pass
    assert caught.value.reason == "unavailable"


# Poolers.


@pytest.mark.needs("pgbouncer")
@pytest.mark.real_time
@pytest.mark.parametrize("size", [1, 5])
@pytest.mark.parametrize("driver", ["psycopg", "pg8000"])
async def test_a_transaction_pooler(driver: str, size: int, postgres: PostgresServer) -> None:
    """A transaction pooler is refused at each attempt, and no lock or setting is left behind."""
    before = locks(postgres)
    with pooler(postgres, "transaction", size=size) as port:
        url = f"postgresql+{driver}://journal@127.0.0.1:{port}/postgres"
        for _ in range(3):
            with pytest.raises(JournalError, match="transaction pooler") as caught:
                await opened(url)
            assert caught.value.reason == "unsupported"
        with psycopg.connect(f"postgresql://journal@127.0.0.1:{port}/postgres") as connection:
            assert connection.execute("SHOW lock_timeout").fetchone() == ("0",)
        assert locks(postgres) == before
    with psycopg.connect(postgres.url().partition("?")[0]) as connection:
        query = "SELECT to_regclass('public.segments_async_journal')"
        assert connection.execute(query).fetchone() == (None,)


@pytest.mark.needs("pgbouncer")
@pytest.mark.real_time
async def test_a_transaction_pooler_that_hides(
    postgres: PostgresServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pooler that was not noticed at first is refused when a run is locked; no lock is left."""
    before = locks(postgres)
    monkeypatch.setattr(PostgreSQL, "_check_sessions", lambda _: None)
    schema = f"hidden_{anyio.get_current_task().id % 10**6}"
    by("psycopg", postgres, schema)
    # A pooler's own user is the server's: `journal`, whose schema is the one set here. It is set
    # before the pooler has a session.
    postgres.execute(f"ALTER ROLE journal SET search_path = {schema}")
    try:
        with pooler(postgres, "transaction") as port:
            url = f"postgresql://{schema}@127.0.0.1:{port}/postgres"
            database = await anyio.to_thread.run_sync(Database.open, url, ACCOUNT)
            confirm = postgresql.AdvisoryLock.confirm

            def confirmed(lock: postgresql.AdvisoryLock, connection: object) -> None:
                # Another client takes the session that was ours, for one transaction.
                with psycopg.connect(f"postgresql://journal@127.0.0.1:{port}/postgres") as other:
                    other.execute("SELECT 1")
                    confirm(lock, connection)  # type: ignore[arg-type]

            monkeypatch.setattr(postgresql.AdvisoryLock, "confirm", confirmed)
            with pytest.raises(JournalError, match="transaction pooler") as caught:
                open_run(database, DESTINATION, None, "now")
            assert caught.value.reason == "unsupported"
            assert locks(postgres) == before
    finally:
        postgres.execute("ALTER ROLE journal RESET ALL")


@pytest.mark.needs("pgbouncer")
@pytest.mark.real_time
async def test_a_session_pooler(postgres: PostgresServer, tmp_path: Path) -> None:
    """A session pooler gives each connection its own session, and works."""
    schema = f"session_{anyio.get_current_task().id % 10**6}"
    by("psycopg", postgres, schema)
    postgres.execute(f"ALTER ROLE journal SET search_path = {schema}")
    try:
        with pooler(postgres, "session") as port:
            url = f"postgresql://journal@127.0.0.1:{port}/postgres"
            async with run_of(await opened(url)) as log:
                await live(log, "a", GOES_WELL)
                with pytest.raises(JournalError) as caught:
                    async with run_of(await opened(url)):
                        pass
                assert caught.value.reason == "locked"
            async with run_of(await opened(url)) as log:
                assert log.run_state.records["a"].file is not None
    finally:
        postgres.execute("ALTER ROLE journal RESET ALL")


# Errors that other projects report.


@pytest.mark.parametrize("level", ["repeatable read", "serializable"])
async def test_a_roles_isolation_level(level: str, postgres: PostgresServer) -> None:
    """Whatever the isolation level, processes that start runs at once each get their own run."""
    schema = f"isolated_{level[:6]}_{anyio.get_current_task().id % 10**6}"
    where = by("psycopg", postgres, schema)
    postgres.execute(f"ALTER ROLE {schema} SET default_transaction_isolation = '{level}'")
    await opened(where)
    names: list[str] = []

    async def one(number: int) -> None:
        async with run_of(await opened(where), destination=f"/{number}") as log:
            await live(log, "a")
            names.append(log.name)

    async with anyio.create_task_group() as tasks:
        for number in range(6):
            tasks.start_soon(one, number)
    assert len(set(names)) == 6


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
@pytest.mark.parametrize("driver", DRIVERS)
async def test_another_encoding(encoding: str, driver: str, postgres: PostgresServer) -> None:
    """A database whose encoding can't store every name is `unsupported`, and not `damaged`."""
    name = f"encoded_{encoding}_{driver}_{anyio.get_current_task().id % 10**6}".lower()
    postgres.execute(
        f"CREATE DATABASE {name} ENCODING '{encoding}' LC_COLLATE 'C' LC_CTYPE 'C' "
        "TEMPLATE template0"
    )
    url = f"postgresql+{driver}://journal@127.0.0.1:{postgres.port}/{name}"
    with pytest.raises(JournalError, match="encoding UTF8") as caught:
        await opened(url)
    assert caught.value.reason == "unsupported"
