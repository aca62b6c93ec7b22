"""The command ``segments-async``. Needs the extra ``cli``; see ``docs/cli.md``."""

from __future__ import annotations

import sys

__all__ = ["main"]

_EXTRAS = {
    "cyclopts": "cli",
    "rich": "cli",
    "starlette": "sandbox",
    "uvicorn": "sandbox",
}


def main() -> None:
    """Run the command line, and exit with its code."""
    from segments_async.cli import streams

    streams.prepare()
    try:
        # Imported here, so that a missing extra, or Ctrl-C during the import, is one sentence.
        from segments_async.cli.command_line import run

        code = run(sys.argv[1:])
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)  # noqa: T201
        code = 130
    except ModuleNotFoundError as missing:
        extra = _EXTRAS.get((missing.name or "").partition(".")[0])
        if extra is None:
            raise
        print(  # noqa: T201
            f"segments-async: {missing.name} is not installed. "
            f"Run: pip install 'segments-async[{extra}]'",
            file=sys.stderr,
        )
        code = 2
    sys.exit(code)
