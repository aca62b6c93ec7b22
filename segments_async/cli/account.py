"""Whose segments: credentials from the environment or a prompt, never from an argument."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from getpass import getpass
from typing import Any

import attrs

from segments_async import SegmentsClient
from segments_async._run.start import account_of
from segments_async.cli.exit_codes import Interrupted, UsageError, ending_signals
from segments_async.client import BASE_URL as VENDOR

API_KEY = "SEGMENTS_API_KEY"
ACCESS_TOKEN = "SEGMENTS_ACCESS_TOKEN"  # noqa: S105 - the name of a variable
BASE_URL = "SEGMENTS_BASE_URL"


@attrs.frozen
class Account:
    """An account at a vendor's place.

    Attributes:
        api_key: the user name of Basic authentication.
        access_token: its password.
        base_url: None for the vendor's own.
    """

    api_key: str
    access_token: str = attrs.field(repr=False)
    base_url: str | None = None

    @property
    def digest(self) -> str:
        """Which account a journal is of."""
        return account_of(self.base_url or VENDOR, self.api_key)

    def client(self, **options: Any) -> SegmentsClient:
        """A client for it; an option that is None is left to its default."""
        told: dict[str, Any] = {"base_url": self.base_url, **options}
        return SegmentsClient(
            self.api_key,
            self.access_token,
            **{name: value for name, value in told.items() if value is not None},
        )


def from_environment(environment: Mapping[str, str] = os.environ) -> Account:
    """The account that the environment names; asks for what is missing where a person can answer.

    Raises:
        UsageError: something is missing, and nobody is there to ask.
    """
    return Account(
        _given(environment, API_KEY, "API key"),
        _given(environment, ACCESS_TOKEN, "Access token"),
        environment.get(BASE_URL) or None,
    )


def journal_account(environment: Mapping[str, str] = os.environ) -> str:
    """Whose journal it would be: of the API key at its place, and no access token is asked for.

    Raises:
        UsageError: the key is missing, and nobody is there to ask.
    """
    return Account(
        _given(environment, API_KEY, "API key"), "", environment.get(BASE_URL) or None
    ).digest


def _given(environment: Mapping[str, str], variable: str, what: str) -> str:
    if value := environment.get(variable):
        return value
    if sys.stdin is None or not sys.stdin.isatty():
        raise UsageError(
            f"{variable} is not set. Credentials come from {API_KEY} and {ACCESS_TOKEN}, "
            "or from a prompt in a terminal."
        )
    try:
        # Not shown while it is typed, and on stderr: stdout may be a pipe.
        with _signals_at_once():
            value = getpass(f"{what} ({variable} is not set): ", stream=sys.stderr).strip()
    except EOFError:
        value = ""
    if not value:
        raise UsageError(f"{variable}: nothing was entered")
    return value


@contextmanager
def _signals_at_once() -> Generator[None]:
    """Let a signal end a prompt: the event loop, which waits for it, can't."""

    def leave(number: int, _: object) -> None:
        raise Interrupted(number)

    before = {number: signal.signal(number, leave) for number in ending_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
