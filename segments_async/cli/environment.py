"""Settings from the environment: ``SEGMENTS_EXPORT_RATE`` is ``--rate`` of ``export``.

What a command acts on, and whether it deletes or replaces anything, is said in the command line
alone: a variable is set far from the command, and stays set for the next one.

The command is a part of the name, since one option means different things to different commands:
``--to`` is a directory of `export` and a file of `download`. So no option can have the name of a
credential (`account.API_KEY`): no command is called `api`, `access` or `base`.
"""

from __future__ import annotations

import os

from cyclopts import App, ArgumentCollection
from cyclopts.config import Env

from segments_async.cli.exit_codes import UsageError

PREFIX = "SEGMENTS_"

#: Sets options that the command line doesn't have. Not shown: help would be twice as long.
_FROM_ENVIRONMENT = Env(PREFIX, show=False)

#: Options of the command line alone; so are all arguments without a name.
ON_COMMAND_LINE = frozenset(
    {
        *("--all", "--name", "--sandbox", "--run"),  # what is exported, and from where
        *("--dry-run", "--overwrite", "--prune", "--install"),  # what is done, replaced or deleted
        "--html",  # what is written
    }
)


def options(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Set the options of a command that the environment has, and that its arguments don't.

    An empty variable counts as one that isn't set, as for the credentials: containers and CI often
    set variables that way.

    Raises:
        UsageError: the variable of an argument that is taken from the command line alone. Ignoring
            it could start what a person meant to prevent, such as an export in place of a dry run.
    """
    if not commands:
        return
    _FROM_ENVIRONMENT(app, commands, arguments)
    for argument in arguments:
        argument.tokens[:] = [
            token for token in argument.tokens if token.source != "env" or token.value
        ]
        alone = argument.index is not None or argument.name in ON_COMMAND_LINE
        for token in argument.tokens:
            if alone and token.source == "env":
                raise UsageError(
                    f"{token.keyword}: {argument.name} is taken from the command line alone, and "
                    "nothing was done; unset the variable"
                )


def variables(command: str) -> list[str]:
    """The variables that hold options of this command."""
    prefix = f"{PREFIX}{command.upper()}_"
    return sorted(name for name, value in os.environ.items() if name.startswith(prefix) and value)
