"""One command line: read, carried out, and its errors in a sentence each."""

from __future__ import annotations

from collections.abc import Sequence

from cyclopts import CycloptsError

from segments_async import SegmentsError
from segments_async.cli import environment
from segments_async.cli.app import PROGRAM, app, version
from segments_async.cli.exit_codes import Exit, UsageError, exit_code, sentence
from segments_async.cli.streams import StdoutError


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code."""
    try:
        if list(arguments) == ["--version"]:
            print(version())  # noqa: T201 - cyclopts would import rich to print one line
            return Exit.ALL_DONE
        command, bound, _ = app.parse_args(arguments, exit_on_error=False, print_error=False)
        code: int = command(*bound.args, **bound.kwargs) or Exit.ALL_DONE
    except CycloptsError as error:
        _complain(_with_origin(f"{error} (segments-async --help shows what there is)", arguments))
        return Exit.USAGE
    except UsageError as error:
        _complain(_with_origin(str(error), arguments))
        return Exit.USAGE
    except SegmentsError as error:
        _complain(sentence(error))
        return exit_code(error)
    except StdoutError as error:
        if error.reader_gone:
            return Exit.READER_GONE
        _complain(str(error))
        return Exit.SOME_NOT
    return code


def _with_origin(sentence: str, arguments: Sequence[str]) -> str:
    """The sentence, and the variables that the options may have come from."""
    found = environment.variables(arguments[0]) if arguments else []
    if not found or any(name in sentence for name in found):
        return sentence
    return f"{sentence}; options from the environment: {', '.join(found)}"


def _complain(what: str) -> None:
    from segments_async.cli.terminal import Terminal

    Terminal.open().say(f"{PROGRAM}: {what}", style="red")
