"""One client belongs to one event loop of one process: its connections do."""

from __future__ import annotations

import os

import anyio.lowlevel

from segments_async._http.clients import CLOSED
from segments_async.errors import ConfigurationError


class Binding:
    """Where a client was first used; it is refused everywhere else.

    A client that was only made is bound to nothing, so it may be made before `asyncio.run()`, or
    before a fork. asyncio's connections hang in another loop, or fail there with whatever comes
    first; and two processes that write into one connection mix their requests.
    """

    def __init__(self) -> None:
        # The token itself, and no id of it: another loop could get the same one.
        self._loop: object = None
        self._process = 0
        self._closed = False

    def check(self) -> None:
        """Called by each operation before it does anything.

        Raises:
            ConfigurationError: the client is closed, or was used elsewhere before.
        """
        if self._closed:
            raise ConfigurationError(CLOSED)
        if self._loop is not None and os.getpid() != self._process:
            # Asked first: asyncio tells a child of a running loop that there is none.
            raise ConfigurationError(
                "the client was used before this process was forked, and its connections are the "
                "parent's: nothing was sent; make a client in each process"
            )
        token = anyio.lowlevel.current_token()
        if self._loop is None:
            self._loop, self._process = token, os.getpid()
        elif token != self._loop:
            raise ConfigurationError(
                "the client was used in another event loop before, and its connections belong to "
                "that one: nothing was sent; make a client in each event loop (every "
                "asyncio.run() starts a new one)"
            )

    def close(self) -> bool:
        """The client is closed. Returns whether its connections can be closed here."""
        self._closed = True
        return self._loop is None or (
            self._process == os.getpid() and self._loop == anyio.lowlevel.current_token()
        )
