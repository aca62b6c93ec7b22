"""The account of a command: credentials from the environment or a prompt, not from arguments."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from getpass import getpass
from pathlib import Path
from typing import Any

import attrs

from segments_async import Journal, SegmentsClient
from segments_async.cli.ending import Interrupted, ending_signals
from segments_async.cli.exit_codes import UsageError

API_KEY = "SEGMENTS_API_KEY"
ACCESS_TOKEN = "SEGMENTS_ACCESS_TOKEN"  # noqa: S105 - the name of a variable
BASE_URL = "SEGMENTS_BASE_URL"


@attrs.frozen
class Account:
    """An account of the vendor.

    Attributes:
        api_key: the user name of Basic authentication.
        access_token: its password.
        base_url: of the API; None for the vendor's own.
    """

    api_key: str
    access_token: str = attrs.field(repr=False)
    base_url: str | None = None

    async def journal(self, where: Path | str) -> Journal:
        """The account's journal. None is created.

        Raises:
            JournalError: ``missing``, or the journal can't be used.
        """
        place = {} if self.base_url is None else {"base_url": self.base_url}
        return await Journal.open(where, api_key=self.api_key, **place)

    def client(self, **options: Any) -> SegmentsClient:
        """A client for the account; an option that is None is left to its default."""
        keywords: dict[str, Any] = {"base_url": self.base_url, **options}
        return SegmentsClient(
            self.api_key,
            self.access_token,
            **{name: value for name, value in keywords.items() if value is not None},
        )


def from_environment() -> Account:
    """The account that the environment names. In a terminal a missing credential is asked for.

    Raises:
        UsageError: a credential is missing, and stdin is no terminal.
    """
    return Account(
        _given(API_KEY, "API key"),
        _given(ACCESS_TOKEN, "Access token"),
        os.environ.get(BASE_URL) or None,
    )


def without_token() -> Account:
    """The account that the environment names, for its journal alone: no access token is needed.

    Raises:
        UsageError: the API key is missing, and stdin is no terminal.
    """
    return Account(_given(API_KEY, "API key"), "", os.environ.get(BASE_URL) or None)


def _given(variable: str, what: str) -> str:
    if value := os.environ.get(variable):
        return value
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(
            f"{variable} is not set. Credentials come from {API_KEY} and {ACCESS_TOKEN}, "
            "or from a prompt in a terminal."
        )
    try:
        # The text is not echoed. The prompt goes to stderr, since stdout may be a pipe.
        with _signals_at_once():
            value = getpass(f"{what} ({variable} is not set): ", stream=sys.stderr).strip()
    except EOFError:
        value = ""
    if not value:
        raise UsageError(f"{variable}: nothing was entered")
    return value


@contextmanager
def _signals_at_once() -> Generator[None]:
    """Let a signal end a prompt. The event loop can't: it stands still while getpass() reads."""

    def leave(number: int, _: object) -> None:
        raise Interrupted(number)

    before = {number: signal.signal(number, leave) for number in ending_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
