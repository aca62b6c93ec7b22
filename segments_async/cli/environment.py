"""Options from the environment: ``SEGMENTS_EXPORT_RATE`` is ``--rate`` of ``export``.

The command is a part of the name, since one option means different things to different commands:
``--to`` is a directory of `export` and a file of `download`. So no option can have the name of a
credential (`account.API_KEY`): no command is called `api`, `access` or `base`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from cyclopts import App, ArgumentCollection
from cyclopts.config import Env

PREFIX = "SEGMENTS_"

#: Sets options that the command line doesn't have. Not shown: help would be twice as long.
_FROM_ENVIRONMENT = Env(PREFIX, show=False)


def options(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Set the options of a command that the environment has, and that its arguments don't.

    An empty variable counts as one that isn't set, as for the credentials: containers and CI often
    set variables that way.
    """
    if not commands:
        return
    _FROM_ENVIRONMENT(app, commands, arguments)
    for argument in arguments:
        argument.tokens[:] = [
            token for token in argument.tokens if token.source != "env" or token.value
        ]


def variables(command: str, environment: Mapping[str, str] = os.environ) -> list[str]:
    """The variables that hold options of this command."""
    prefix = f"{PREFIX}{command.upper()}_"
    return sorted(name for name, value in environment.items() if name.startswith(prefix) and value)
