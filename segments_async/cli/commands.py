"""The commands `list`, `status` and `download`: one call of the client each.

`app` declares their options.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from segments_async.cli import account, json_lines, summary
from segments_async.cli.arguments import Hosts
from segments_async.cli.destination import To
from segments_async.cli.exit_codes import Exit
from segments_async.cli.selection import Selection
from segments_async.cli.terminal import Terminal


async def list_segments(names: Sequence[str], terminal: Terminal) -> Exit:
    """List the account's segments; with names, those that match one of them."""
    async with account.from_environment().client() as client:
        found = await client.list_segments()
    selection = Selection(names=names, every=not names)
    segments = selection.among(found)
    if terminal.piped:
        await terminal.lines.send(*(segment.to_dict() for segment in segments))
    elif segments:
        terminal.people.print(summary.segments_table(segments, width=terminal.people.width))
    if not segments:
        terminal.note("The account has no segments.")
    return Exit.ALL_DONE


async def status(export_id: str, terminal: Terminal) -> Exit:
    """Show the state of one export."""
    async with account.from_environment().client() as client:
        found = await client.get_export(export_id)
    if terminal.piped:
        await terminal.lines.send(json_lines.export_line(found))
    else:
        terminal.people.print(summary.export_table(found))
    return Exit.ALL_DONE


async def download(
    export_id: str, to: To, overwrite: bool, hosts: Hosts, terminal: Terminal
) -> Exit:
    """Fetch the file of one complete export."""
    async with account.from_environment().client(file_hosts=hosts.patterns) as client:
        file = await client.download_export(export_id, to, overwrite=overwrite)
    if terminal.piped:
        await terminal.lines.send(file.to_dict())
    if not terminal.quiet:
        terminal.people.print(Text(summary.file_line(file)), soft_wrap=True)
    return Exit.ALL_DONE
