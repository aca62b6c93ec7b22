"""Completion of commands and options in a shell."""

from __future__ import annotations

from typing import Literal

from cyclopts import App

from segments_async.cli.exit_codes import Exit, UsageError

Shell = Literal["bash", "zsh", "fish"]

#: Lines at the script's end. Without them, zsh takes the script only as a file of one certain name
#: in `fpath`.
_LAST_LINES: dict[Shell, str] = {
    "zsh": """
if [[ ${funcstack[1]} == _* ]]; then
  _cyclopts_segments-async "$@"
else
  compdef _cyclopts_segments-async segments-async
fi"""
}


def show(app: App, shell: Shell) -> Exit:
    """Print the script."""
    print(app.generate_completion(shell=shell) + _LAST_LINES.get(shell, ""))  # noqa: T201
    return Exit.ALL_DONE


def install(app: App, shell: Shell) -> Exit:
    """Write the script to where the shell finds it.

    Raises:
        UsageError: it can't be written.
    """
    try:
        place = app.install_completion(shell=shell)
    except OSError as error:
        raise UsageError(f"can't write {error.filename}: {error.strerror}") from error
    from segments_async.cli.terminal import Terminal  # not at the top: `show` needs no rich

    Terminal.open().say(f"{place} was written: the next shell that is started uses it.")
    return Exit.ALL_DONE
