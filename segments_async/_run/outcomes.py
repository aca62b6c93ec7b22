"""The outcomes of a run: in completion order, for every iterator and for the manifest."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Generic, cast

import anyio
from anyio.abc import TaskGroup

from segments_async._files.places import Place
from segments_async._run.manifest import Manifest
from segments_async.errors import JournalError
from segments_async.results import Exported, NotExported, Outcome, OutcomeT, leaves_all_as_it_was


class Outcomes(Generic[OutcomeT]):
    """The outcomes of a run. Every iterator gets each outcome once.

    Attributes:
        told: the outcomes so far, in completion order.
        finished: set when no more outcomes follow.
        error: what ended the run before its end, other than its caller; None where nothing did.

    Args:
        run: the run's name, for the manifest.
        place: where the file of outcome lines is; None where none is written.
    """

    def __init__(self, run: str, place: Place | None) -> None:
        self._run = run
        self._manifest = None if place is None else Manifest(place)
        self._news: anyio.Event | None = None
        self.told: list[OutcomeT | NotExported] = []
        self.finished: anyio.Event = anyio.Event()
        self.error: BaseException | None = None

    @property
    def tells_the_rest(self) -> bool:
        """Whether unfinished segments get outcomes: not where the account ended the run."""
        return self.error is None or isinstance(self.error, JournalError)

    def add(self, outcome: Outcome, tasks: TaskGroup | None) -> None:
        """Add an outcome for every iterator. A task of the group, or the end, writes its line."""
        self.told.append(cast(OutcomeT | NotExported, outcome))
        if self._manifest is not None and not leaves_all_as_it_was(outcome):
            line = outcome.to_dict(run=self._run, at=datetime.now(UTC))
            if self._manifest.add(line) and tasks is not None:
                tasks.start_soon(self._manifest.write)
        self._wake()

    def hurry(self) -> None:
        """Write the gathered lines now, without waiting for more."""
        if self._manifest is not None:
            self._manifest.hurry()

    async def write(self) -> None:
        """Write the lines that are not written yet; the last call."""
        if self._manifest is not None:
            await self._manifest.write(last=True)

    def finish(self) -> None:
        """No more outcomes follow."""
        self.finished.set()
        self._wake()

    async def get(self, index: int) -> OutcomeT | NotExported | None:
        """Wait for the outcome at this place; None where there will be none.

        Raises:
            BaseException: `error`.
        """
        while index >= len(self.told):
            if self.finished.is_set():
                if self.error is not None:
                    raise self.error
                return None
            self._news = self._news or anyio.Event()
            await self._news.wait()
        return self.told[index]

    def _wake(self) -> None:
        if self._news is not None:
            self._news.set()
            self._news = None


def field_of(outcome: Outcome) -> str:
    """The field of `Progress` that counts the outcome."""
    if isinstance(outcome, NotExported):
        return "not_exported"
    unchanged = isinstance(outcome, Exported) and outcome.source == "unchanged"
    return "unchanged" if unchanged else "exported"
