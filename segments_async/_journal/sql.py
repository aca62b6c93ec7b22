"""The journal's asynchronous side: each call is made in a worker thread, and retried while locked.

This module doesn't import SQLAlchemy, an extra. The modules behind it do, when a journal is opened.
"""

from __future__ import annotations

import contextlib
import os
import threading
import unicodedata
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Generic, Protocol, Self, TypeVar

import anyio

from segments_async._filesystem.posix import require_posix
from segments_async._filesystem.threads import NoThread, in_thread
from segments_async._journal.place import hidden, is_other_notation
from segments_async._journal.records import RunSpec
from segments_async._journal.refusals import Locked, journal_error
from segments_async._sansio.api.credentials import Secret
from segments_async._sansio.jobs.payload import SecretInPayload, check_secrets
from segments_async._sansio.pace.shared_limit import GroupView, Report
from segments_async.errors import ConfigurationError

if TYPE_CHECKING:
    from segments_async._journal.coordinated_log import CoordinatedRun
    from segments_async._journal.database import Database
    from segments_async._journal.run_log import RunLog
    from segments_async._journal.shared_log import SharedRunLog

T = TypeVar("T")


class Closable(Protocol):
    """A run that a thread has opened, or several, or none."""

    def close(self) -> None: ...


Handed = TypeVar("Handed", bound=Closable)

#: Attempts to lock a run or the database, and the seconds between them: a process that was just
#: killed may take a moment to die.
_ATTEMPTS = 20
_BETWEEN = 0.1

#: Seconds between two transactions of a prune, in which other processes write.
_PRUNE_PAUSE = 0.02

#: Characters of a run's name, and of its destination.
_LONGEST_NAME, _LONGEST_PATH = 200, 4096


class SqlJournal:
    """A journal in SQLite or PostgreSQL, of one account."""

    def __init__(self, database: Database) -> None:
        self._database = database

    @classmethod
    async def open(
        cls, where: str | os.PathLike[str] | Secret, *, account: str, create: bool = True
    ) -> Self:
        """Open the journal; create it where there is none.

        Args:
            where: the path of a SQLite file, or a SQLAlchemy URL (``sqlite:///PATH``,
                ``postgresql://...``).
            account: the SHA-256, in hex, of base URL and API key.
            create: False raises JournalError (``missing``) in place of creating a journal.

        Raises:
            ConfigurationError: no journal can be there, or SQLAlchemy isn't installed.
            JournalError: the journal can't be used; its `reason` says why.
        """
        require_posix("a journal")
        where = hidden(where)
        opened = partial(_open, where, account, create=create)
        return cls(await _retried(opened, _shown(where)))

    @property
    def location(self) -> str:
        """The file, or the database server without user and password."""
        return self._database.location

    async def open_run(
        self,
        *,
        destination: str | None,
        name: str | None,
        now_name: str,
        spec: RunSpec | None = None,
    ) -> RunLog:
        """Lock a run for this process until its log is closed, and read its log.

        Args:
            destination: the directory of the run's files; None for a run without files.
            name: of the run, finished, unfinished or new; None for the unfinished run to this
                destination that no caller named, or a new run.
            now_name: the name of a new run where `name` is None; with a number if it is taken.
            spec: stored for later sessions until the run has ended; None leaves the stored one.

        Raises:
            ConfigurationError: the name can't be one, or the run has another destination.
            JournalError: a live process has the run (``locked``), or the log is damaged.
        """
        from segments_async._journal.opening import open_run
        from segments_async._journal.run_log import RunLog

        _check_texts(name if name is not None else now_name, destination)
        opening = partial(
            open_run, destination=destination, name=name, now_name=now_name, spec=spec
        )
        return RunLog(await self.hand_over(opening))

    async def join(self, *, destination: str | None, name: str, spec: RunSpec) -> SharedRunLog:
        """Join the shared run of this name, or start it; see `_journal.shared`.

        Raises:
            ConfigurationError: the name can't be one, the run has another destination, or it isn't
                a shared run.
            JournalError: the journal can't be written, or is an older copy.
        """
        from segments_async._journal.shared import join
        from segments_async._journal.shared_log import SharedRunLog

        _check_texts(name, destination)
        joined = await self.ask(lambda database: join(database, destination, name, spec))
        return SharedRunLog(self, joined)

    async def coordinate(
        self, *, destination: str | None, name: str, spec: RunSpec
    ) -> CoordinatedRun:
        """Join the shared run of this name, or start it, as the one that gives out its segments.

        Raises:
            ConfigurationError: as :meth:`join`.
            JournalError: as :meth:`join`; or another live process gives them out (``locked``).
        """
        from segments_async._journal.coordinated_log import CoordinatedRun
        from segments_async._journal.coordination import coordinate, is_coordinated

        # Before this process joins, which may begin a round.
        if await self.ask(partial(is_coordinated, name=name)):
            text = f"run {name}: another live process gives out its segments. Nothing was sent"
            raise journal_error(self._database.location, "locked", text)
        joined = (await self.join(destination=destination, name=name, spec=spec)).joined
        lock = await self.hand_over(partial(coordinate, run_id=joined.run_id))
        return CoordinatedRun(self, joined, lock)

    async def hand_over(self, opening: Callable[[Database], Handed]) -> Handed:
        """Open a resource in a worker thread, and close it if the task is cancelled meanwhile."""
        handover = _Handover(partial(opening, self._database))
        return await handover.taken(self._database.location)

    async def ask(self, question: Callable[[Database], T]) -> T:
        """Ask the database in a worker thread, again while another process has locked it.

        Raises:
            JournalError: as the method of `Database` does, or (``locked``) after some attempts.
        """
        return await _retried(partial(question, self._database), self._database.location)

    async def exchange(self, member: str, make_report: Callable[[GroupView], Report]) -> Report:
        """Read the reports of the account's processes on the rate limit, and add this one's.

        Args:
            make_report: makes this process's report from the others'. Called in a worker thread.

        Raises:
            JournalError: the journal can't be written, or (``locked``) not now.
        """
        try:
            # A cancelled caller doesn't wait for the thread, whose report does no harm.
            exchange = partial(self._database.exchange, member, make_report)
            return await _asked(exchange, self._database.location, abandon_on_cancel=True)
        except Locked as exc:
            raise journal_error(self._database.location, "locked", str(exc)) from exc

    async def prune(self, before: datetime) -> int:
        """Delete the runs to which nothing has happened since; how many. See `Journal.prune`."""
        from segments_async._journal import pruning

        old = await self.ask(partial(pruning.old_runs, before=before))
        hidden = [one for one in old if await self.ask(partial(pruning.hide, run_id=one))]
        for run_id in await self.ask(pruning.hidden_runs):
            while await self.ask(partial(pruning.delete_some, run_id=run_id)):  # noqa: ASYNC110
                await anyio.sleep(_PRUNE_PAUSE)
        return len(hidden)


def _open(where: Secret, account: str, *, create: bool) -> Database:
    try:
        from segments_async._journal.database import Database
    except ModuleNotFoundError as exc:
        if exc.name and exc.name.partition(".")[0] == "segments_async":
            raise
        raise ConfigurationError(
            f"a journal needs {exc.name}: pip install 'segments-async[journal]'"
        ) from exc
    return Database.open(where, account, create=create)


async def _retried(question: Callable[[], T], location: str) -> T:
    """Ask in a worker thread, again while another process has locked the run or the database."""
    for _ in range(_ATTEMPTS - 1):
        with contextlib.suppress(Locked):
            return await _asked(question, location)
        await anyio.sleep(_BETWEEN)
    try:
        return await _asked(question, location)
    except Locked as exc:
        raise journal_error(location, "locked", str(exc)) from exc


async def _asked(question: Callable[[], T], location: str, *, abandon_on_cancel: bool = False) -> T:
    """Ask in a worker thread. A thread that can't be started is an error of the journal."""
    try:
        return await in_thread(question, abandon_on_cancel=abandon_on_cancel)
    except NoThread as exc:
        raise journal_error(location, "unavailable", str(exc.strerror)) from exc


class _Handover(Generic[Handed]):
    """Hands a run from the worker thread that opens it to the task, or closes the run.

    asyncio's own `Task.cancel()` ends the task while the thread is still opening the run.
    """

    def __init__(self, opening: Callable[[], Handed]) -> None:
        self._opening = opening
        self._lock = threading.Lock()
        self._opened: Handed | None = None
        self._abandoned = False

    async def taken(self, location: str) -> Handed:
        try:
            return await _retried(self._open, location)
        except BaseException:
            with self._lock:
                self._abandoned = True
                if self._opened is not None:
                    self._opened.close()
            raise

    def _open(self) -> Handed:
        opened = self._opening()
        with self._lock:
            self._opened = opened
            if self._abandoned:
                opened.close()
        return opened


def _check_texts(name: str, destination: str | None) -> None:
    _check_text("a run's name", name, _LONGEST_NAME)
    if destination is not None:
        _check_text("a destination", destination, _LONGEST_PATH)


def _check_text(what: str, text: object, longest: int) -> None:
    """Refuse a text that a database can't store, a terminal can't show, or that has a secret."""
    if not isinstance(text, str):  # a date, or a date as a number
        raise ConfigurationError(f"{what} is a string, not {type(text).__name__}")
    try:
        check_secrets(text)
        text.encode()
    except (SecretInPayload, UnicodeEncodeError) as exc:
        raise ConfigurationError(f"{what} that a journal can't store: {exc}") from None
    if not text or len(text) > longest or any(unicodedata.category(c) == "Cc" for c in text):
        raise ConfigurationError(f"not {what}: {text!r:.80}")


def _shown(where: Secret) -> str:
    """The place, without the part that may be a password."""
    text = where.reveal()
    return "..." if is_other_notation(text) else text.rpartition("@")[2].partition("?")[0]
