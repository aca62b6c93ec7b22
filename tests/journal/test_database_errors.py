"""Errors of databases: the reason and the message of the JournalError, without passwords."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import anyio
import pytest
import sqlalchemy.exc
from frames import given_away

from journal.lives import opened
from segments_async import ConfigurationError, JournalError
from segments_async._journal.backends import backend
from segments_async._journal.errors import _POSTGRESQL, mapped_errors, sqlstate
from segments_async._journal.refusals import Locked
from segments_async._sansio.api.credentials import Secret


class Psycopg(Exception):
    def __init__(self, state: str, said: str = "it said so") -> None:
        super().__init__(said)
        self.sqlstate = state


class Psycopg2(Exception):
    def __init__(self, state: str, said: str = "it said so") -> None:
        super().__init__(said)
        self.pgcode = state


class Pg8000(Exception):
    def __init__(self, state: str, said: str = "it said so") -> None:
        super().__init__({"S": "ERROR", "C": state, "M": said})


DRIVERS: Any = pytest.mark.parametrize("driver", [Psycopg, Psycopg2, Pg8000])


def meaning(original: Exception) -> tuple[str, str]:
    """The reason and the message of the JournalError."""
    error = sqlalchemy.exc.OperationalError("SELECT :x", {"x": "Very-Secret"}, original)
    try:
        with mapped_errors("here"):
            raise error
    except Locked as exc:
        return "locked", str(exc)
    except JournalError as exc:
        return exc.reason, str(exc)


#: (https://www.postgresql.org/docs/current/errcodes-appendix.html)
STATES = {
    "08000": "unavailable",
    "08006": "unavailable",
    "08P01": "unavailable",
    "0A000": "unsupported",
    "22021": "damaged",
    "23503": "damaged",
    "23505": "damaged",
    "25006": "unavailable",
    "25P02": "unavailable",
    "25P03": "unavailable",
    "25P04": "unavailable",
    "26000": "unsupported",
    "28000": "unavailable",
    "28P01": "unavailable",
    "34000": "unsupported",
    "3D000": "unavailable",
    "3F000": "unavailable",
    "40001": "locked",
    "40003": "unavailable",
    "40P01": "locked",
    "42501": "unavailable",
    "42601": "unsupported",
    "42703": "damaged",
    "42704": "unsupported",
    "42883": "unsupported",
    "42P01": "damaged",
    "42P05": "unsupported",
    "53100": "unavailable",
    "53200": "unavailable",
    "53300": "unavailable",
    "54000": "unavailable",
    "55000": "unavailable",
    "55006": "locked",
    "55P03": "locked",
    "57014": "locked",
    "57P01": "unavailable",
    "57P02": "unavailable",
    "57P03": "unavailable",
    "57P05": "unavailable",
    "58030": "unavailable",
    "58P01": "damaged",
    "F0000": "unavailable",
    "P0001": "unavailable",
    "XX000": "unavailable",
    "XX001": "damaged",
    "XX002": "damaged",
}


@DRIVERS
@pytest.mark.parametrize(("state", "reason"), STATES.items())
def test_a_sqlstate(driver: Any, state: str, reason: str) -> None:
    """Each SQLSTATE has the same reason, wherever the driver stores it."""
    original = driver(state)
    assert sqlstate(original) == state
    assert meaning(original)[0] == reason


def test_each_row_of_the_table_is_tested() -> None:
    """The table has no row that is not tested above."""
    for prefix in _POSTGRESQL:
        assert any(state.startswith(prefix) for state in STATES), prefix


@DRIVERS
def test_what_a_server_said_is_repeated(driver: Any) -> None:
    """The message has the first line of the server's, without the statement and its values."""
    _, said = meaning(driver("53100", "no space left\nDETAIL: x"))
    assert said == "here: no space left"


@DRIVERS
@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("42501", "GRANT USAGE, CREATE ON SCHEMA"),
        ("25006", "the address of the primary"),
        ("26000", "transaction pooler"),
        ("42P05", "transaction pooler"),
        ("53300", "one connection for each live run"),
    ],
)
def test_what_the_reader_can_do(driver: Any, state: str, words: str) -> None:
    """The message has advice, where there is some."""
    assert words in meaning(driver(state))[1]


SQLITE = {
    "SQLITE_AUTH": "unavailable",
    "SQLITE_BUSY": "locked",
    "SQLITE_BUSY_SNAPSHOT": "locked",
    "SQLITE_CANTOPEN": "unavailable",
    "SQLITE_CORRUPT": "damaged",
    "SQLITE_CORRUPT_INDEX": "damaged",
    "SQLITE_FULL": "unavailable",
    "SQLITE_IOERR_FSYNC": "unavailable",
    "SQLITE_LOCKED": "locked",
    "SQLITE_NOMEM": "unavailable",
    "SQLITE_NOTADB": "foreign",
    "SQLITE_PERM": "unavailable",
    "SQLITE_PROTOCOL": "locked",
    "SQLITE_READONLY_DBMOVED": "unavailable",
    None: "damaged",  # no such table
}


@pytest.mark.parametrize(("name", "reason"), SQLITE.items())
def test_a_result_of_sqlite(name: str | None, reason: str) -> None:
    """Each result code has its reason, also while connecting, where SQLAlchemy wraps no error."""
    original = sqlite3.OperationalError("it said so")
    if name is not None:
        original.sqlite_errorname = name
    assert meaning(original)[0] == reason
    with pytest.raises((JournalError, Locked)), mapped_errors("here"):
        raise original


def test_a_password_in_a_drivers_words() -> None:
    """A password is removed from the driver's message, and the driver's error is not shown."""
    original = Psycopg("28P01", 'bad login "u" "s@crt": s%40crt')
    original.connection = "password=s@crt"  # type: ignore[attr-defined]
    secrets = [Secret("s@crt"), Secret("s%40crt")]
    with pytest.raises(JournalError) as caught, mapped_errors("here", secrets):
        raise sqlalchemy.exc.OperationalError("SELECT 1", {}, original)
    assert "crt" not in str(caught.value)
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
    assert "crt" not in str(vars(original))


# URLs and paths.

PASSWORDS = ["plain", "a@b", "a:b", "a/b", "a?b", "a#b", "a[b", "a]b", "a b", "a%b", "ä€", "a&b=c"]


@pytest.mark.parametrize("password", PASSWORDS)
@pytest.mark.parametrize("form", ["bare", "quoted", "named"])
async def test_no_password_in_a_message(password: str, form: str) -> None:
    """Whatever its characters, quoted or not, a password is in no message."""
    from urllib.parse import quote

    secret = f"x{password}SeCrEt"
    shown = secret if form == "bare" else quote(secret, safe="")
    place = "127.0.0.1:1/db"
    url = f"postgresql://u:{shown}@{place}"
    if form == "named":
        url = f"postgresql://u@{place}?password={shown}"
    with pytest.raises((JournalError, ConfigurationError)) as caught:
        await opened(url)
    error: BaseException | None = caught.value
    while error is not None:
        assert "SeCrEt" not in f"{error}{error!r}{vars(error)}"
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@ss@host/db",
        "postgresql://u:p@s/s@host/db",
        "postgresql://u:p?x@y@host/db",
        "postgresql+pg8000://u:p@ss@host:5/db",
    ],
)
async def test_a_bare_at_sign(url: str) -> None:
    """The message says how to write an @; the rest of the password would be shown as the host."""
    with pytest.raises(ConfigurationError, match="%40"):
        await opened(url)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+asyncpg://host/db",
        "postgresql+psycopg_async://host/db",
        "postgresql+bogus://host/db",
        "sqlite+aiosqlite:///x.db",
        "sqlite+bogus:///x.db",
    ],
)
def test_drivers_that_can_not_be_used(
    url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An unusable driver is refused before connecting; the message names a usable one."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match=r"synchronous.*postgresql\+psycopg://"):
        anyio.run(opened, url)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
async def test_a_driver_that_is_not_installed(driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message names the missing driver, and how to install one."""
    import sys

    for name in [n for n in sys.modules if n.partition(".")[0] == driver]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, driver, None)
    with pytest.raises(ConfigurationError, match=r"pip install 'psycopg\[binary\]'"):
        await opened(f"postgresql+{driver}://127.0.0.1:1/db")


@pytest.mark.parametrize("driver", ["psycopg", "psycopg2", "pg8000"])
async def test_an_option_that_the_driver_does_not_know(driver: str) -> None:
    """An unknown option is a ConfigurationError, and no TypeError of the driver."""
    with pytest.raises((ConfigurationError, JournalError)) as caught:
        await opened(f"postgresql+{driver}://u@127.0.0.1:1/db?no_such_option=1&password=SeCrEt")
    assert "SeCrEt" not in str(caught.value)


@pytest.mark.parametrize(
    "path", ["~/runs.db", "~user/runs.db", ":memory:", "file:runs.db?mode=memory", "a\0b", "\ud800"]
)
@pytest.mark.parametrize("form", ["{}", "sqlite:///{}"])
def test_paths_that_mean_something_else(
    path: str, form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Paths that a shell or SQLite takes for something else are refused; no file is created."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError):
        anyio.run(opened, form.format(path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text",
    [
        "host=db user=me password=SeCrEt dbname=runs",
        " dbname = runs password=SeCrEt",
        "connect_timeout=5 host=db password=SeCrEt",
        "application_name='a b'\n sslpassword=SeCrEt dbname = runs",
        "service=runs",
        "postgresql:/me:SeCrEt@db/runs",
        "postgres:me:SeCrEt@db/runs",
        "Postgresql+psycopg:/me:SeCrEt@db/runs",
        "jdbc:postgresql:/db/runs?password=SeCrEt",
    ],
)
async def test_other_notations_of_an_address(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are no names of files: no SQLite journal is made in place of the server's."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigurationError, match="write postgresql://") as caught:
        await opened(text)
    assert "SeCrEt" not in given_away(caught.value)
    assert [path async for path in anyio.Path(tmp_path).iterdir()] == []


@pytest.mark.parametrize("form", ["/{}", "//{}", "sqlite:////{}", "sqlite://///{}"])
async def test_slashes_at_the_beginning(form: str, tmp_path: Path) -> None:
    """Two slashes at the beginning are one, as they are to Linux."""
    path = form.format(str(tmp_path / "runs.db").lstrip("/"))
    await opened(path)
    assert (tmp_path / "runs.db").exists()


NAMES = [
    "a?b",
    "a#b",
    "a%41",
    "a b",
    "a\nb",
    "☃",
    "%2e%2e",
    "a&b=c",
    "a;b",
    "'",
    '"',
    "\\",
    "\udcff",
]


@pytest.mark.parametrize("name", NAMES)
def test_any_name_of_a_file(name: str, tmp_path: Path) -> None:
    """The file has the given name, whatever its characters."""
    anyio.run(opened, tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == [name]


async def test_a_journal_whose_directory_is_gone(tmp_path: Path) -> None:
    """An error while connecting is a JournalError, too."""
    path = tmp_path / "d" / "runs.db"
    await opened(path)
    found = backend(path)
    path.unlink()
    with pytest.raises(JournalError) as caught, mapped_errors("here"), found.engine.connect():
        pass
    assert caught.value.reason == "unavailable"
