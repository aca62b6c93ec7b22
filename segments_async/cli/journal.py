"""Where a command's journal is, and what it knows before a run begins."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

import anyio
import anyio.to_thread
import attrs

from segments_async._files.destination import absolute
from segments_async._filesystem.trust import make_directories
from segments_async._journal.records import GuardRecord, RunSummary
from segments_async._journal.sql import SqlJournal
from segments_async._sansio.jobs.record import ExportRecord
from segments_async.cli.exit_codes import UsageError
from segments_async.models import Segment

#: In the directory of the files: the journal, and what each run was asked for.
DIRECTORY = ".segments-async"

_FILE = "runs.db"


def place(journal: str | None, to: Path | None) -> Path | str:
    """Where the journal is: where `--journal` says, else in the directory of the files.

    Raises:
        UsageError: neither is given, or a password is.
    """
    if journal is None:
        if to is None:
            raise UsageError("which journal? Give --to DIR, or --journal PATH_OR_URL")
        return absolute(to) / DIRECTORY / _FILE
    if "://" not in journal:
        return Path(journal)
    if (problem := _problem(journal)) is not None:
        raise UsageError(
            f"--journal: {problem}. A password in an argument could be read by every user of the "
            "machine; PGPASSWORD, ~/.pgpass or a service tells it, too"
        )
    return journal


#: Parameters of a URL that hold no secret. Any other may, or may hold others: `conninfo` does.
#: https://www.postgresql.org/docs/current/libpq-connect.html
_HARMLESS = frozenset(
    {
        "application_name",
        "channel_binding",
        "client_encoding",
        "connect_timeout",
        "fallback_application_name",
        "gssencmode",
        "host",
        "hostaddr",
        "keepalives",
        "keepalives_count",
        "keepalives_idle",
        "keepalives_interval",
        "krbsrvname",
        "load_balance_methods",
        "options",
        "passfile",
        "port",
        "require_auth",
        "requirepeer",
        "service",
        "sslcert",
        "sslcrl",
        "sslcrldir",
        "sslkey",
        "sslmode",
        "sslnegotiation",
        "sslrootcert",
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
        "target_session_attrs",
        "tcp_user_timeout",
        "user",
    }
)


#: A password in a parameter that holds others.
_CONNINFO = re.compile(r"(?i)password\s*=")


def _problem(url: str) -> str | None:
    try:
        parts = urlsplit(url)
        told = parse_qsl(parts.query, keep_blank_values=True)
        texts = [unquote(parts.path), *(value for _, value in told)]
    except ValueError:
        # The library says that it can't be read, and never what it is.
        return "a URL with an @ that can't be read" if "@" in url else None
    if parts.password is not None or any(_CONNINFO.search(text) for text in texts):
        return "the URL has a password"
    if any(name not in _HARMLESS for name, _ in told) or parts.fragment:
        # Not repeated: a password with a bare & or # in it ends up there.
        return (
            "the URL has a parameter that may hold a password; taken are "
            f"{', '.join(sorted(_HARMLESS))}"
        )
    return None


def private_directory(to: Path) -> Path:
    """The directory within the directory of the files, for their owner alone; made if need be.

    Raises:
        UsageError: it can't be made.
    """
    directory = absolute(to) / DIRECTORY
    try:
        make_directories(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise UsageError(f"can't write {str(to)!r}: {error.strerror or error}") from error
    return directory


@attrs.frozen
class Known:
    """A journal that is there, and what it says.

    Attributes:
        journal: itself.
        runs: by name, the latest first.
        guard: the ticket guard; None where it is closed.
    """

    journal: SqlJournal
    runs: Mapping[str, RunSummary]
    guard: GuardRecord | None

    @classmethod
    async def look(cls, where: Path | str, *, account: str) -> Self | None:
        """Look into the journal; None where there is no file yet.

        None is made: with a mistyped API key it would be the journal of an account that isn't. Of
        a URL it can't be told without opening it, which makes one.

        Raises:
            JournalError: it can't be used.
        """
        if isinstance(where, Path) and not await anyio.to_thread.run_sync(where.exists):
            return None
        journal = await SqlJournal.open(where, account=account)
        runs = {run.name: run for run in await journal.runs()}
        return cls(journal, runs, await journal.guard())

    async def segments_of(self, run: str, to: Path) -> dict[str, Segment | str]:
        """The segments of a run that has ended, by id, and their names where they are known.

        Raises:
            ConfigurationError: the run's files are in another directory.
        """
        log = await self.journal.open_run(destination=str(absolute(to)), name=run, now_name=run)
        try:
            return {one: _segment(one, standing) for one, standing in log.records.items()}
        finally:
            with anyio.CancelScope(shield=True):
                await log.aclose()


def _segment(segment_id: str, standing: ExportRecord) -> Segment | str:
    if standing.export is not None:
        return standing.export.segment
    return segment_id if standing.file is None else standing.file.export.segment
