"""The command `report`: the page of a run of the journal."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from pathlib import Path

import anyio.to_thread

from segments_async import JournalError
from segments_async.cli import account
from segments_async.cli.destination import To
from segments_async.cli.exit_codes import Exit, UsageError, unknown_run, unwritable
from segments_async.cli.journal import place
from segments_async.cli.terminal import Terminal
from segments_async.results import in_bytes

#: How each page begins; a file that begins otherwise is not replaced.
_PAGE = b"<!doctype html>"
_OURS = b'name="generator" content="segments-async report"'


async def write(
    run: str | None, html: Path, journal: str | None, to: To | None, terminal: Terminal
) -> Exit:
    """Write the page of a run, of the latest one by default."""
    where = place(journal, to)
    await anyio.to_thread.run_sync(_check, html)
    opened = await account.without_token().journal(where)
    if run is None:
        runs = await opened.runs(to)
        if not runs:
            raise UsageError("the journal has no run to report")
        run = runs[0].name
    try:
        page = await opened.report_html(run)
    except JournalError as error:
        if error.reason != "missing":
            raise
        raise unknown_run(run) from error
    content = page.encode()
    written = await anyio.to_thread.run_sync(_put, html, content)
    if terminal.piped:
        await terminal.lines.send({"run": run, "html": str(written), "size": len(content)})
    terminal.note(f"{html}: the page of run {run}, {in_bytes(len(content))}.")
    return Exit.ALL_DONE


def _check(html: Path) -> None:
    """Refuse to replace a file that is no page of this command.

    Raises:
        UsageError: the file is another one, or a directory.
    """
    try:
        if not stat.S_ISREG(html.stat().st_mode):
            raise UsageError(f"{str(html)!r} is no file")
        with html.open("rb") as file:
            head = file.read(2000)
    except FileNotFoundError:
        return
    except OSError as error:
        raise unwritable(html, error) from error
    if not (head.startswith(_PAGE) and _OURS in head):
        raise UsageError(f"{str(html)!r} exists and is not the page of a run; it was not replaced")


def _put(html: Path, page: bytes) -> Path:
    """Write the page, whole or not at all. Returns its absolute path.

    A symbolic link stays one: the file that it names is written. A page that is replaced keeps its
    permissions.
    """
    try:
        target = Path(os.path.realpath(html))
        # Made by this call alone ("x"), under a name that can't be guessed: in a directory of
        # several users, such as /tmp, a link of that name could lead the page over another file.
        new = target.with_name(f".{secrets.token_hex(8)}.segments-report")
        with new.open("xb") as file:
            try:
                with contextlib.suppress(OSError):  # there is no page, or no way to change the mode
                    os.fchmod(file.fileno(), stat.S_IMODE(target.stat().st_mode))
                file.write(page)
                file.flush()
                new.replace(target)
            except BaseException:
                new.unlink(missing_ok=True)
                raise
    except OSError as error:
        raise unwritable(html, error) from error
    return html.absolute()
