"""The command `export`, and the part of `resume` that is the same. `app` declares the options."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from concurrent.futures import Executor
from contextlib import AsyncExitStack, nullcontext, suppress
from functools import partial
from pathlib import Path
from time import monotonic
from typing import Any

import anyio
import anyio.to_thread
import attrs

from segments_async import (
    BulkReport,
    BulkRun,
    Exported,
    Journal,
    JournalError,
    NotExported,
    Pacer,
    RunStatus,
    Segment,
    SegmentsClient,
    SegmentsError,
    file_names,
)
from segments_async.cli import account, json_lines, summary
from segments_async.cli.destination import file_in
from segments_async.cli.ending import alongside
from segments_async.cli.exit_codes import Exit
from segments_async.cli.journal import make_private_directory
from segments_async.cli.live import View, show_hold
from segments_async.cli.other_runs import name_others, say_start
from segments_async.cli.request import ExportRequest
from segments_async.cli.terminal import Terminal, counted
from segments_async.cli.workers import run_on, workers_of
from segments_async.results import leaves_all_as_it_was


class ExportCommand:
    """One run of the command. At any time it can name the segments that are unfinished."""

    def __init__(self, request: ExportRequest, terminal: Terminal) -> None:
        self._request = request
        self._terminal = terminal
        self._journal: Journal | None = None
        #: The runs of the journal as this command found them, by name.
        self._runs: Mapping[str, RunStatus] = {}
        self._names: dict[str, str] = {}
        self._unfinished: dict[str, str] = {}
        #: How many outcomes the loop has got.
        self._reported = 0
        self._failed: list[NotExported] = []
        #: Names of the segments that a signal cut off, by the ids of their exports.
        self._at_vendor: dict[str, str] = {}

    async def run(self) -> Exit:
        """List the segments, select, export, and print the report."""
        self._request.check()
        if self._request.sandbox:
            return await self._run_on_sandbox()
        return await self.run_for(account.from_environment())

    async def run_for(self, source: account.Account) -> Exit:
        """Carry out the command for this account; see `run`."""
        return _exit_code(await self._export_from(source))

    def say_unfinished(self) -> None:
        """Name the segments that failed, and those that a signal cut off."""
        journal = self._request.journal is not None
        summary.print_failures(self._failed, self._names, self._terminal.err, journal=journal)
        if self._request.join and self._unfinished:
            self._terminal.say(
                f"This process ended {counted(self._reported, 'segment')} of the run's. Other "
                "processes of the run go on with the rest, and so does the same command; no export "
                "is repeated."
            )
            return
        if self._unfinished:
            done = len(self._names) - len(self._unfinished)
            self._terminal.say(
                f"{done} of {counted(len(self._names), 'segment')} had ended; unfinished: "
                f"{summary.some_names(self._unfinished.values())}."
            )
            if self._request.journal is not None:
                self._terminal.say("The same command goes on with them; no export is repeated.")
                return
        elif self._reported:
            manifest = file_in(self._request.to, "manifest.jsonl")
            self._terminal.say(f"All segments had ended; {manifest} has the outcomes.")
        if self._at_vendor:
            self._terminal.say(
                f"{counted(len(self._at_vendor), 'export')} at the vendor; "
                "`segments-async download EXPORT_ID --to FILE` fetches one that is complete:"
            )
            for export_id, name in self._at_vendor.items():
                self._terminal.say(f"  {export_id}  {name}")

    async def _run_on_sandbox(self) -> Exit:
        # Imported here: `export` without --sandbox doesn't need the extra `sandbox`.
        from segments_async.cli import sandbox as stand_in

        with stand_in.demonstration() as server:
            self._terminal.note(f"Exporting from a sandbox on this machine, {server.base_url}")
            report = await self._export_from(stand_in.account(server))
            if report is not None and (wrong := stand_in.differing(report, server.sandbox)):
                names = summary.some_names(self._names[one] for one in wrong)
                self._terminal.say(
                    f"These files differ from what the sandbox served: {names}", style="bold red"
                )
                return Exit.SOME_NOT
            if report is not None and report.exported and not self._terminal.quiet:
                count = counted(len(report.exported), "file")
                self._terminal.people.print(f"{count} verified: sha256 equal to the sandbox's own.")
            return _exit_code(report)

    async def _export_from(self, source: account.Account) -> BulkReport[Exported] | None:
        """Export the chosen segments; None where there was nothing to export."""
        request, pace = self._request, self._request.pace
        async with source.client(
            pacer=None if pace.rate is None else Pacer(rate=pace.rate),
            poll_share=pace.poll_share,
            max_pending=pace.max_pending,
            downloads=pace.downloads,
            file_hosts=request.hosts.patterns,
        ) as client:
            await self._read_journal(source)
            chosen = await self._segments_of_ended_run()
            if chosen is None:
                chosen = request.selection.to_export(await self._list(client))
            self._names = {one: _name(segment) for one, segment in chosen.items()}
            if not chosen:
                self._terminal.note("The account has no segments: nothing to export.")
                return None
            if request.dry_run:
                await self._show_plan(chosen)
                return None
            return await self._export(client, chosen.values())

    async def _read_journal(self, source: account.Account) -> None:
        """Look into the journal, if there is one.

        A missing one is not created here, but by the run, after the vendor has accepted the
        credentials: with a mistyped API key it would be another account's journal for ever.
        """
        if self._request.journal is None:
            return
        try:
            self._journal = await source.journal(self._request.journal)
        except JournalError as error:
            if error.reason != "missing":
                raise
        else:
            self._runs = {run.name: run for run in await self._journal.runs()}

    async def _segments_of_ended_run(self) -> Mapping[str, Segment | str] | None:
        """The segments of the named run, if it has ended; otherwise None.

        The outcomes of an ended run are repeated from the journal, without any request.
        """
        request = self._request
        run = None if request.run is None or request.dry_run else self._runs.get(request.run)
        if self._journal is None or run is None or run.ended_at is None:
            return None
        segments = _by_id(await self._journal.segments(run.name))
        if not request.selection.ids or request.selection.names:
            return segments
        return {one: segments.get(one, one) for one in request.selection.ids}

    async def _list(self, client: SegmentsClient) -> list[Segment]:
        """The account's segments; requested after the time that the ticket guard names."""
        hold = partial(show_hold, client, self._terminal)
        if self._journal is None:
            async with alongside(hold):
                return await client.list_segments()
        async with self._journal.ticket_guard(client) as until, alongside(hold):
            if until is not None:
                self._terminal.say(
                    "An earlier request was answered 500: the vendor has opened a ticket with its "
                    f"support by itself. Nothing is sent until {until.astimezone():%H:%M:%S}.",
                    style="yellow",
                )
            return await client.list_segments()

    async def _show_plan(self, chosen: Mapping[str, Segment | str]) -> None:
        unchanged: set[str] = set()
        if self._journal is not None and self._request.options.only_changed:
            unchanged = await self._journal.unchanged(chosen.values(), self._request.to)
        files = {
            one: file_in(self._request.to, name)
            for one, name in file_names(chosen.values()).items()
        }
        names = {one: name for one, name in self._names.items() if one not in unchanged}
        if self._terminal.piped:
            await self._terminal.lines.send(
                *(
                    {"segment_id": one, "name": name, "file": str(files[one])}
                    for one, name in names.items()
                )
            )
        else:
            people = self._terminal.people
            narrow = summary.is_narrow(people)
            people.print(summary.plan_table(names, files, narrow=narrow))
        more = f", and {len(unchanged)} are unchanged" if unchanged else ""
        self._terminal.note(
            f"Nothing was exported: {counted(len(names), 'segment')} would be{more}."
        )

    async def _export(
        self, client: SegmentsClient, segments: Iterable[Segment | str]
    ) -> BulkReport[Exported]:
        started = monotonic()
        workers = self._request.workers
        async with workers_of(workers) if workers.wanted else nullcontext() as executor:
            run = await self._open(client, segments, executor)
            await self._follow(run)
        report = await run.report()
        for exported in report.exported:
            self._learn_name(exported)
        for missing in report.not_exported:
            self._learn_name(missing)
        summary.print_report(
            report,
            self._names,
            self._terminal,
            elapsed=monotonic() - started,
            journal=self._request.journal is not None,
            joined=self._request.join,
        )
        return report

    async def _follow(self, run: BulkRun[Exported]) -> None:
        """Enter the run, and report its outcomes."""
        entered = False
        try:
            async with AsyncExitStack() as stack:
                await stack.enter_async_context(run)
                self._unfinished = dict(self._names)
                entered = True
                self._say_start(run.name)
                whole = len(self._names) if self._request.join else None
                async with alongside(View(run, self._terminal, whole).show):
                    async for outcome in run:
                        await self._report_outcome(outcome, run.name)
        finally:
            if entered:
                await self._report_rest(run)

    async def _open(
        self,
        client: SegmentsClient,
        segments: Iterable[Segment | str],
        executor: Executor | None,
    ) -> BulkRun[Exported]:
        request = self._request
        keywords: dict[str, Any] = {
            "timeout": request.pace.timeout,
            **attrs.asdict(request.options),
        }
        if request.journal is not None:
            if isinstance(request.to, Path):
                await anyio.to_thread.run_sync(make_private_directory, request.to)
            if request.options.only_changed:
                # `only_changed` needs segments. An id that isn't in the account's list is sent too:
                # the vendor's answer says what is wrong with it.
                segments = [Segment(one) if isinstance(one, str) else one for one in segments]
            keywords |= {"journal": request.journal, "run": request.run}
        if executor is not None:
            return run_on(executor, list(segments), request, keywords)
        if request.join:
            keywords["shared"] = True
        return client.open_bulk_export(segments, request.to, **keywords)

    def _say_start(self, name: str) -> None:
        """Say whether the run is an earlier one, and which other runs it leaves alone."""
        request = self._request
        if request.journal is None:
            return
        earlier = self._runs.get(name)
        say_start(name, earlier, self._terminal, join=request.join)
        if request.command == "export" and (earlier is None or earlier.ended_at is None):
            name_others(name, self._runs, request.to, request.journal, self._terminal)

    async def _report_rest(self, run: BulkRun[Exported]) -> None:
        """Report the outcomes of a run that was left early, and its exports at the vendor.

        The run is over, so that iterating over its outcomes waits for nothing. Only the reader of
        stdout is waited for, after a signal for a short time.
        """
        seen = self._reported
        outcomes: list[Exported | NotExported] = []
        with suppress(SegmentsError):  # the error that ended the run is being raised already
            async for outcome in run:
                outcomes.append(outcome)  # noqa: PERF401 - keeps those before an error
        for outcome in outcomes[seen:]:
            self._learn_name(outcome)
            if not (isinstance(outcome, NotExported) and outcome.resumable):
                self._unfinished.pop(outcome.segment_id, None)
            elif outcome.export:
                self._at_vendor[outcome.export.export_id] = self._names[outcome.segment_id]
        if not self._terminal.piped:
            return
        lines = [self._line(outcome, run.name) for outcome in outcomes[seen:]]
        if anyio.current_effective_deadline() > -math.inf:
            await self._terminal.lines.send(*lines)
        elif not await self._terminal.lines.finish(lines):
            self._terminal.say(
                "The reader of stdout didn't take the last lines; "
                f"{file_in(self._request.to, 'manifest.jsonl')} has the outcomes.",
                style="yellow",
            )

    def _line(self, outcome: Exported | NotExported, run_name: str) -> dict[str, object]:
        return json_lines.outcome_line(outcome, run=run_name, name=self._names[outcome.segment_id])

    def _learn_name(self, outcome: Exported | NotExported) -> None:
        """Learn the name of a segment that another process of a shared run brought."""
        export = outcome.export
        name = export.segment.name if export is not None else None
        if isinstance(outcome, NotExported):
            name = name or outcome.name
        self._names.setdefault(outcome.segment_id, name or outcome.segment_id)

    async def _report_outcome(self, outcome: Exported | NotExported, run_name: str) -> None:
        self._learn_name(outcome)
        self._unfinished.pop(outcome.segment_id, None)
        self._reported += 1
        if isinstance(outcome, NotExported) and not leaves_all_as_it_was(outcome):
            self._failed.append(outcome)
        if self._terminal.piped:
            await self._terminal.lines.send(self._line(outcome, run_name))


def _by_id(segments: Iterable[Segment | str]) -> dict[str, Segment | str]:
    return {one.segment_id if isinstance(one, Segment) else one: one for one in segments}


def _name(segment: Segment | str) -> str:
    return segment if isinstance(segment, str) else segment.name or segment.segment_id


def _exit_code(report: BulkReport[Exported] | None) -> Exit:
    return Exit.ALL_DONE if report is None or report.ok else Exit.SOME_NOT
