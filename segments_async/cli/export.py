"""The command `export`, and what `resume` shares with it."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping
from contextlib import AsyncExitStack, suppress
from os import getpid
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import anyio
import anyio.to_thread
import attrs

from segments_async import BulkRun, Pacer, SegmentsClient
from segments_async._files.destination import absolute
from segments_async._journal.records import RunSummary
from segments_async._run.start import unchanged_files
from segments_async._sansio.files.naming import file_names
from segments_async.cli import account, guard, kept, summary
from segments_async.cli.arguments import Hosts, Pace, RunOptions
from segments_async.cli.exit_codes import Exit, UsageError, alongside
from segments_async.cli.journal import Known, place, private_directory
from segments_async.cli.kept import Kept
from segments_async.cli.live import View
from segments_async.cli.selection import Selection
from segments_async.cli.standing import Standing
from segments_async.cli.terminal import Terminal, counted
from segments_async.errors import JournalError, SegmentsError, printable
from segments_async.models import Segment
from segments_async.results import (
    BulkReport,
    Exported,
    NotExported,
    leaves_all_as_it_was,
    outcome_line,
)

#: Unfinished runs that are named, each in a line.
_MOST_NAMED = 3


@attrs.frozen(kw_only=True)
class ExportRequest:
    """What the command line says; see `segments-async export --help`.

    Attributes:
        journal: where it is; None for none.
        run: the run's name; None where it isn't named.
        command: which one it is.
    """

    selection: Selection
    to: Path
    options: RunOptions
    pace: Pace
    hosts: Hosts
    journal: Path | str | None
    run: str | None = None
    dry_run: bool = False
    sandbox: bool = False
    command: Literal["export", "resume"] = "export"

    def check(self) -> None:
        """Find what contradicts itself, before anything is asked.

        Raises:
            UsageError: something does.
            ConfigurationError: the directory can't be one.
        """
        self.selection.check()
        absolute(self.to)
        if self.journal is None and (self.options.only_changed or self.run is not None):
            option = "--run" if self.run is not None else "--only-changed"
            raise UsageError(f"{option} needs a journal, and with this command line there is none")
        if self.journal is not None and not _is_text(absolute(self.to)):
            raise UsageError(
                f"--to {printable(str(self.to))}: a journal keeps the path as text, and this one "
                "isn't UTF-8; give another directory, or --no-journal"
            )


class ExportCommand:
    """One run of the command, which knows at any time what is unfinished."""

    def __init__(self, request: ExportRequest, terminal: Terminal) -> None:
        self._request = request
        self._terminal = terminal
        self._names: dict[str, str] = {}
        self._unfinished: dict[str, str] = {}
        #: Names of the segments that a signal cut off, by the ids of their exports.
        self._at_work: dict[str, str] = {}

    async def run(self) -> Exit:
        """List, choose, export, sum up."""
        self._request.check()
        if self._request.sandbox:
            return await self._run_on_sandbox()
        return await self.run_for(account.from_environment())

    async def run_for(self, source: account.Account) -> Exit:
        """The same, for this account."""
        return _exit_code(await self._export_from(source))

    def say_unfinished(self) -> None:
        """Name what a signal cut off."""
        if self._unfinished:
            done = len(self._names) - len(self._unfinished)
            self._terminal.say(
                f"{done} of {counted(len(self._names), 'segment')} had ended; unfinished: "
                f"{summary.some_names(self._unfinished.values())}."
            )
            if self._request.journal is not None:
                self._terminal.say(
                    "The same command goes on with them, and asks for nothing twice."
                )
                return
        if self._at_work:
            self._terminal.say(
                f"{counted(len(self._at_work), 'export')} at the vendor; "
                "`segments-async download EXPORT_ID --to FILE` fetches one that is complete:"
            )
            for export_id, name in self._at_work.items():
                self._terminal.say(f"  {export_id}  {name}")

    async def _run_on_sandbox(self) -> Exit:
        # Its extra may be missing, and is needed here only.
        from segments_async.cli import sandbox as stand_in

        with stand_in.demonstration() as server:
            self._terminal.say(f"Exporting from a sandbox on this machine, {server.base_url}")
            report = await self._export_from(stand_in.account(server))
            if report is not None and (wrong := stand_in.differing(report, server.sandbox)):
                names = summary.some_names(self._names[one] for one in wrong)
                self._terminal.say(f"Not what the sandbox served: {names}", style="bold red")
                return Exit.SOME_NOT
            if report is not None and report.exported:
                count = counted(len(report.exported), "file")
                self._terminal.people.print(f"{count} verified: sha256 equal to the sandbox's own.")
            return _exit_code(report)

    async def _export_from(self, source: account.Account) -> BulkReport[Exported] | None:
        """Export the chosen segments; None where there was nothing to do."""
        request, pace = self._request, self._request.pace
        async with source.client(
            pacer=None if pace.rate is None else Pacer(rate=pace.rate),
            poll_share=pace.poll_share,
            max_pending=pace.max_pending,
            downloads=pace.downloads,
            file_hosts=request.hosts.patterns,
        ) as client:
            known = None
            if request.journal is not None:
                known = await Known.look(request.journal, account=source.digest)
            chosen = await self._ended_run(known)
            if chosen is None:
                chosen = request.selection.among(await self._segments(client, known))
            self._names = {one: _name(segment) for one, segment in chosen.items()}
            if not chosen:
                self._terminal.say("The account has no segments: nothing to export.")
                return None
            if request.dry_run:
                await self._show_plan(chosen, known)
                return None
            return await self._export(client, chosen, known)

    async def _ended_run(self, known: Known | None) -> Mapping[str, Segment | str] | None:
        """The segments of the run that has this name and has ended; None where none has.

        Its outcomes are told again, for which the vendor needn't be asked, not even for the list.
        """
        request = self._request
        if known is None or request.run is None or request.dry_run:
            return None
        run = known.runs.get(request.run)
        if run is None or run.ended_at is None:
            return None
        segments = await known.segments_of(run.name, request.to)
        if not request.selection.ids or request.selection.names:
            return segments
        return {one: segments.get(one, one) for one in request.selection.ids}

    async def _segments(self, client: SegmentsClient, known: Known | None) -> list[Segment]:
        """The account's, once the ticket guard lets the request go."""
        if known is None:
            return await client.list_segments()
        if known.guard is not None and (held := guard.hold(client, known.guard)):
            self._terminal.say(held, style="yellow")
        try:
            return await client.list_segments()
        finally:
            await guard.remember(client, known.journal)

    async def _show_plan(self, chosen: Mapping[str, Segment | str], known: Known | None) -> None:
        paths = self._files(chosen)
        unchanged = await self._unchanged(chosen, known)
        names = {one: name for one, name in self._names.items() if one not in unchanged}
        if self._terminal.piped:
            await self._terminal.lines.send(
                *(
                    {"segment_id": one, "name": name, "file": str(paths[one])}
                    for one, name in names.items()
                )
            )
        else:
            self._terminal.people.print(summary.plan_table(names, paths))
        more = f", and {len(unchanged)} are unchanged" if unchanged else ""
        self._terminal.say(
            f"Nothing was exported: {counted(len(names), 'segment')} would be{more}."
        )

    def _files(self, chosen: Mapping[str, Segment | str]) -> dict[str, Path]:
        files = file_names(
            (one, segment.name if isinstance(segment, Segment) else None)
            for one, segment in chosen.items()
        )
        return {one: self._request.to / name for one, name in files.items()}

    async def _unchanged(
        self, chosen: Mapping[str, Segment | str], known: Known | None
    ) -> Mapping[str, object]:
        if known is None or not self._request.options.only_changed:
            return {}
        files = await known.journal.last_files(list(chosen), str(absolute(self._request.to)))
        segments = {one: s for one, s in chosen.items() if isinstance(s, Segment)}
        return await anyio.to_thread.run_sync(unchanged_files, segments, files)

    async def _export(
        self, client: SegmentsClient, chosen: Mapping[str, Segment | str], known: Known | None
    ) -> BulkReport[Exported]:
        began = monotonic()
        run = await self._opened(client, chosen)
        entered = False
        try:
            async with AsyncExitStack() as stack:
                await self._enter(stack, run, known)
                self._unfinished = dict(self._names)
                entered = True
                self._keep(run.name, known)
                async with alongside(View(run, self._terminal.err).show):
                    async for outcome in run:
                        await self._note(outcome, run.name)
        finally:
            if entered:
                await self._note_rest(run)
        report = await run.report()
        if not any(outcome.resumable for outcome in report.not_exported):
            kept.forget(self._request.to, run.name)
        summary.print_report(
            report,
            self._names,
            self._terminal.people,
            elapsed=monotonic() - began,
            journal=self._request.journal is not None,
        )
        return report

    async def _opened(
        self, client: SegmentsClient, chosen: Mapping[str, Segment | str]
    ) -> BulkRun[Exported]:
        request = self._request
        told: dict[str, Any] = {"timeout": request.pace.timeout, **attrs.asdict(request.options)}
        if request.journal is not None:
            await anyio.to_thread.run_sync(private_directory, request.to)
            told |= {"journal": request.journal, "run": request.run}
        return client.open_bulk_export(chosen.values(), request.to, **told)

    async def _enter(
        self, stack: AsyncExitStack, run: BulkRun[Exported], known: Known | None
    ) -> None:
        try:
            await stack.enter_async_context(run)
        except JournalError as error:
            if error.reason != "locked":
                raise
            who = self._holder(known)
            raise JournalError(
                f"{error}; wait for {who} to end, or end it, and give this command again",
                reason=error.reason,
                location=error.location,
            ) from error

    def _holder(self, known: Known | None) -> str:
        """Which command has the run that this one wants."""
        for run in known.runs.values() if known else ():
            if run.ended_at is None and self._is_wanted(run.name, run.destination):
                asked = Kept.load(self._request.to, run.name)
                if asked is not None and asked.is_live():
                    return f"`segments-async {asked.command}` (process {asked.process})"
        return "that process"

    def _is_wanted(self, name: str, destination: str | None) -> bool:
        if self._request.run is not None:
            return name == self._request.run
        return destination == str(absolute(self._request.to))

    def _keep(self, name: str, known: Known | None) -> None:
        """Say what the run goes on with, and keep what it was asked for.

        In one go after it was entered, since it asks for nothing before this task waits.
        """
        if self._request.journal is None:
            return
        earlier = known.runs.get(name) if known else None
        if earlier is not None and earlier.ended_at is not None:
            self._terminal.say(f"Run {name} has ended: what it came to is told again.")
            return
        if earlier is not None:
            standing = Standing.of(earlier)
            done = standing.exported + standing.unchanged
            of = f" of {standing.segments}" if standing.segments else ""
            self._terminal.say(f"Going on with run {name}: {done}{of} are done.")
        if self._request.command == "export":
            self._name_unfinished(name, known)
        Kept(
            run=name,
            segments=tuple(self._names),
            terms=self._request.options,
            command=self._request.command,
            process=getpid(),
        ).save(self._request.to)

    def _name_unfinished(self, name: str, known: Known | None) -> None:
        """Name the unfinished runs that this one isn't: nobody else would go on with them."""
        others = [run for run in known.runs.values() if run.ended_at is None] if known else []
        others = [run for run in others if run.name != name and not _is_live(run)]
        for run in others[:_MOST_NAMED]:
            standing = Standing.of(run)
            of = "" if standing.segments is None else f" of {standing.segments}"
            to = summary.here(Path(run.destination or self._request.to))
            how = shlex.join([*self._journal_option(), "--to", to, "--run", run.name])
            self._terminal.say(
                f"Run {run.name} is unfinished, {standing.unfinished}{of} segments; "
                f"`segments-async resume {how}` goes on with it, and this run doesn't.",
                style="yellow",
            )
        if len(others) > _MOST_NAMED:
            more = len(others) - _MOST_NAMED
            self._terminal.say(f"And {counted(more, 'run')} more: segments-async runs lists them.")

    def _journal_option(self) -> list[str]:
        journal = self._request.journal
        return [] if journal == place(None, self._request.to) else ["--journal", str(journal)]

    async def _note_rest(self, run: BulkRun[Exported]) -> None:
        """Of a run that was left early: what it left at the vendor.

        The run is over, so its outcomes are all there. Only the reader of their lines is waited
        for, and not for long where a signal came.
        """
        seen = len(self._names) - len(self._unfinished)
        outcomes: list[Exported | NotExported] = []
        with suppress(SegmentsError):  # what ended the run is being raised already
            async for outcome in run:
                outcomes.append(outcome)  # noqa: PERF401 - keeps those before an error
        for outcome in outcomes[seen:]:
            if isinstance(outcome, NotExported) and outcome.export and outcome.resumable:
                self._at_work[outcome.export.export_id] = self._names[outcome.segment_id]
        if not self._terminal.piped:
            return
        told = [self._line(outcome, run.name) for outcome in outcomes[seen:]]
        if anyio.current_effective_deadline() > -math.inf:
            await self._terminal.lines.send(*told)
        elif not await self._terminal.lines.finish(told):
            self._terminal.say(
                "The reader of stdout didn't take the last lines; "
                f"{self._request.to / 'manifest.jsonl'} has the outcomes.",
                style="yellow",
            )

    def _line(self, outcome: Exported | NotExported, run_name: str) -> dict[str, object]:
        return outcome_line(outcome, run=run_name, name=self._names[outcome.segment_id])

    async def _note(self, outcome: Exported | NotExported, run_name: str) -> None:
        name = self._names[outcome.segment_id]
        del self._unfinished[outcome.segment_id]
        if self._terminal.piped:
            await self._terminal.lines.send(self._line(outcome, run_name))
        elif isinstance(outcome, NotExported) and not leaves_all_as_it_was(outcome):
            self._terminal.say(f"{name}: {outcome.error}", style="red")


def _is_text(path: Path) -> bool:
    """Whether the path's bytes are text, of which databases take UTF-8 alone."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _is_live(run: RunSummary) -> bool:
    """Whether a process of this machine is at it."""
    asked = None if run.destination is None else Kept.load(Path(run.destination), run.name)
    return asked is not None and asked.is_live()


def _name(segment: Segment | str) -> str:
    if isinstance(segment, Segment):
        return segment.name or segment.segment_id
    return segment


def _exit_code(report: BulkReport[Exported] | None) -> Exit:
    return Exit.ALL_DONE if report is None or report.ok else Exit.SOME_NOT
