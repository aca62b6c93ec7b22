"""The stand-in for the vendor, in `sandbox` and `export --sandbox`. Needs the extra `sandbox`."""

from __future__ import annotations

import shlex
import sys

import attrs
from rich.text import Text

from segments_async import BulkReport, Exported
from segments_async.cli.account import ACCESS_TOKEN, API_KEY, BASE_URL, Account
from segments_async.cli.arguments import SandboxOptions
from segments_async.cli.ending import Interrupted
from segments_async.cli.exit_codes import UsageError
from segments_async.cli.streams import json_text
from segments_async.cli.terminal import Terminal, counted
from segments_async.sandbox import (
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    PAGE_EXPORT_ID,
    PAGE_SEGMENT_ID,
    Durations,
    FixedWindow,
    Sandbox,
    TokenBucket,
)
from segments_async.sandbox.server import SandboxServer, serve


def _sandbox(options: SandboxOptions) -> Sandbox:
    """A sandbox with these options.

    Raises:
        UsageError: the options contradict each other.
    """
    keywords = attrs.asdict(options)
    for name in ("duration", "rate", "burst", "window"):
        del keywords[name]
    try:
        durations, limit = Durations(median=options.duration), _limit(options)
        return Sandbox(**keywords, durations=durations, limit=limit)
    except ValueError as error:
        raise UsageError(str(error)) from error


def _limit(options: SandboxOptions) -> TokenBucket | FixedWindow | None:
    if options.window is not None:
        if options.rate is not None:
            raise UsageError("--rate and --window are two kinds of limit: give one")
        return _window(options.window)
    return None if options.rate is None else TokenBucket(rate=options.rate, burst=options.burst)


def _window(text: str) -> FixedWindow:
    requests, _, seconds = text.partition("/")
    try:
        return FixedWindow(int(requests), float(seconds))
    except ValueError:
        raise UsageError(f"--window is REQUESTS/SECONDS, such as 600/60, not {text!r}") from None


def demonstration() -> SandboxServer:
    """The stand-in of `export --sandbox`: its exports take some seconds, long enough to watch."""
    return SandboxServer(Sandbox(segments=12, rows=5000))


def account(server: SandboxServer) -> Account:
    """The account of the vendor's page, at the stand-in."""
    return Account(PAGE_API_KEY, PAGE_ACCESS_TOKEN, server.base_url)


def differing(report: BulkReport[Exported], sandbox: Sandbox) -> list[str]:
    """The ids of exported segments whose file isn't the one that the sandbox served."""
    return [
        outcome.segment_id
        for outcome in report.exported
        if outcome.file.sha256 != sandbox.sha256(outcome.segment_id)
    ]


def run(options: SandboxOptions, *, port: int, files_port: int, terminal: Terminal) -> int:
    """Serve until a signal, and return its exit code."""
    sandbox = _sandbox(options)
    try:
        number = serve(
            sandbox,
            port=port,
            files_port=files_port,
            ready=lambda server: _announce(server, terminal),
        )
    except OSError as error:
        ports = " and ".join(str(one) for one in (port, files_port) if one)
        raise UsageError(
            f"can't listen on 127.0.0.1, port {ports or 'of any number'}: "
            f"{error.strerror or error}; --port 0 takes a port that is free"
        ) from error
    stop = Interrupted(number)
    terminal.note(f"{stop.sentence} {counted(len(sandbox.record), 'request')} served.")
    return stop.exit_code


def _announce(server: SandboxServer, terminal: Terminal) -> None:
    if terminal.piped:
        line = {
            "base_url": server.base_url,
            "files_url": server.files_url,
            "api_key": PAGE_API_KEY,
            "access_token": PAGE_ACCESS_TOKEN,
        }
        sys.stdout.write(json_text(line))
    if not terminal.quiet:
        terminal.people.print(Text(_manual(server)), soft_wrap=True)


def _manual(server: SandboxServer) -> str:
    """How to use the sandbox. The curl commands are those of the vendor's page."""
    base = server.base_url
    user = shlex.quote(f"{PAGE_API_KEY}:{PAGE_ACCESS_TOKEN}")
    body = shlex.quote(f'{{"segmentId": "{PAGE_SEGMENT_ID}", "outputFormat": "csv"}}')
    return f"""\
The sandbox serves the API at {base},
and its files at {server.files_url}. Ctrl-C stops it.

  export {BASE_URL}={base}
  export {API_KEY}={PAGE_API_KEY}
  export {ACCESS_TOKEN}={PAGE_ACCESS_TOKEN}
  segments-async list

The vendor's three examples:

  curl -s -u {user} {base}/service/v1/segments/list

  curl -s -u {user} -H 'Content-Type: application/json' \\
    {base}/service/v1/segments/export/ -d {body}

  curl -s -u {user} {base}/service/v1/segments/export/{PAGE_EXPORT_ID}
"""
