"""The command `export`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from time import monotonic

import attrs

from segments_async import BulkRun, Pacer, SegmentsClient
from segments_async._sansio.naming import file_names
from segments_async.cli import account, lines, summary
from segments_async.cli.choose import Choice
from segments_async.cli.exits import Exit, alongside
from segments_async.cli.live import View
from segments_async.cli.screen import Screen, counted
from segments_async.models import Exported, NotExported, Segment
from segments_async.report import BulkReport, outcome_line


@attrs.frozen(kw_only=True)
class Options:
    """What the command line says; see `segments-async export --help`."""

    choice: Choice
    to: Path
    dry_run: bool
    overwrite: bool
    timeout: float | None
    downloads: int | None
    rate: float | None
    max_pending: int | None
    poll_share: float | None
    sandbox: bool


class ExportCommand:
    """One run of the command, which knows at any time what is unfinished."""

    def __init__(self, options: Options, screen: Screen) -> None:
        self._options = options
        self._screen = screen
        self._names: dict[str, str] = {}
        self._unfinished: dict[str, str] = {}
        #: Names of the segments that a signal cut off, by the ids of their exports.
        self._at_work: dict[str, str] = {}

    async def run(self) -> Exit:
        """List, choose, export, sum up."""
        self._options.choice.check()
        if self._options.sandbox:
            return await self._run_on_sandbox()
        report = await self._export_from(account.from_environment())
        return _exit_code(report)

    def say_unfinished(self) -> None:
        """Name what a signal cut off."""
        if self._unfinished:
            done = len(self._names) - len(self._unfinished)
            self._screen.say(
                f"{done} of {counted(len(self._names), 'segment')} had ended; unfinished: "
                f"{summary.unfinished_names(self._unfinished.values())}."
            )
        if self._at_work:
            self._screen.say(
                f"{counted(len(self._at_work), 'export')} at the vendor; "
                "`segments-async download EXPORT_ID --to FILE` fetches one that is complete:"
            )
            for export_id, name in self._at_work.items():
                self._screen.say(f"  {export_id}  {name}")

    async def _run_on_sandbox(self) -> Exit:
        # Its extra may be missing, and is needed here only.
        from segments_async.cli import sandbox as stand_in

        with stand_in.demonstration() as server:
            self._screen.say(f"Exporting from a sandbox on this machine, {server.base_url}")
            report = await self._export_from(stand_in.account(server))
            if report is not None and (wrong := stand_in.differing(report, server.sandbox)):
                names = summary.unfinished_names(self._names[one] for one in wrong)
                self._screen.say(f"Not what the sandbox served: {names}", style="bold red")
                return Exit.SOME_NOT
            if report is not None and report.exported:
                count = counted(len(report.exported), "file")
                self._screen.people.print(f"{count} verified: sha256 equal to the sandbox's own.")
            return _exit_code(report)

    async def _export_from(self, source: account.Account) -> BulkReport[Exported] | None:
        """Export the chosen segments; None where there was nothing to do."""
        options = self._options
        async with source.client(
            pacer=None if options.rate is None else Pacer(rate=options.rate),
            poll_share=options.poll_share,
            max_pending=options.max_pending,
            downloads=options.downloads,
        ) as client:
            chosen = options.choice.among(await client.list_segments())
            self._names = {one: _name(segment) for one, segment in chosen.items()}
            if not chosen:
                self._screen.say("The account has no segments: nothing to export.")
                return None
            if options.dry_run:
                self._show_plan(chosen)
                return None
            return await self._export(client, chosen)

    def _show_plan(self, chosen: Mapping[str, Segment | str]) -> None:
        files = file_names(
            (one, segment.name if isinstance(segment, Segment) else None)
            for one, segment in chosen.items()
        )
        paths = {one: self._options.to / name for one, name in files.items()}
        if self._screen.piped:
            for one, name in self._names.items():
                lines.write({"segment_id": one, "name": name, "file": str(paths[one])})
        else:
            self._screen.people.print(summary.plan_table(self._names, paths))
        self._screen.say(f"Nothing was exported: {counted(len(paths), 'segment')} would be.")

    async def _export(
        self, client: SegmentsClient, chosen: Mapping[str, Segment | str]
    ) -> BulkReport[Exported]:
        options = self._options
        self._unfinished = dict(self._names)
        began = monotonic()
        run = client.open_bulk_export(
            chosen.values(), options.to, timeout=options.timeout, overwrite=options.overwrite
        )
        entered = False
        try:
            async with run, alongside(View(run, self._screen.err).show):
                entered = True
                async for outcome in run:
                    await self._note(outcome, run.name)
        finally:
            if entered:
                await self._note_rest(run)
        report = await run.report()
        summary.print_report(report, self._names, self._screen.people, elapsed=monotonic() - began)
        return report

    async def _note_rest(self, run: BulkRun[Exported]) -> None:
        """Of a run that was left early: what it left at the vendor. Never waits, for it is over."""
        seen = len(self._names) - len(self._unfinished)
        number = 0
        async for outcome in run:
            number += 1
            if number <= seen:
                continue
            if self._screen.piped:
                name = self._names[outcome.segment_id]
                lines.write(outcome_line(outcome, run=run.name, name=name))
            if isinstance(outcome, NotExported) and outcome.export and outcome.resumable:
                self._at_work[outcome.export.export_id] = self._names[outcome.segment_id]

    async def _note(self, outcome: Exported | NotExported, run_name: str) -> None:
        name = self._names[outcome.segment_id]
        del self._unfinished[outcome.segment_id]
        if self._screen.piped:
            await lines.send(outcome_line(outcome, run=run_name, name=name))
        elif isinstance(outcome, NotExported):
            self._screen.say(f"{name}: {outcome.error}", style="red")


def _name(segment: Segment | str) -> str:
    return segment.name if isinstance(segment, Segment) else segment


def _exit_code(report: BulkReport[Exported] | None) -> Exit:
    return Exit.ALL_DONE if report is None or report.ok else Exit.SOME_NOT
