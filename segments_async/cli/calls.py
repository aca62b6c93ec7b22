"""The commands that are one call each: `list`, `status`, `download`."""

from __future__ import annotations

from pathlib import Path

from rich.text import Text

from segments_async.cli import account, lines, summary
from segments_async.cli.arguments import Hosts
from segments_async.cli.exits import Exit
from segments_async.cli.screen import Screen


async def list_segments(screen: Screen) -> Exit:
    """The account's segments."""
    async with account.from_environment().client() as client:
        segments = await client.list_segments()
    if screen.piped:
        await screen.lines.send(*map(lines.segment_line, segments))
    elif segments:
        screen.people.print(summary.segments_table(segments))
    if not segments:
        screen.say("The account has no segments.")
    return Exit.ALL_DONE


async def status(export_id: str, screen: Screen) -> Exit:
    """Where one export stands."""
    async with account.from_environment().client() as client:
        found = await client.get_export(export_id)
    if screen.piped:
        await screen.lines.send(lines.export_line(found))
    else:
        screen.people.print(summary.export_table(found))
    return Exit.ALL_DONE


async def download(export_id: str, to: Path, overwrite: bool, hosts: Hosts, screen: Screen) -> Exit:
    """The file of one complete export."""
    async with account.from_environment().client(file_hosts=hosts.patterns) as client:
        file = await client.download_export(export_id, to, overwrite=overwrite)
    if screen.piped:
        await screen.lines.send(lines.file_line(file))
    screen.people.print(Text(summary.file_line(file)), soft_wrap=True)
    return Exit.ALL_DONE
