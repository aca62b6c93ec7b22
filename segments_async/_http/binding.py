"""Binds a client to one event loop of one process, since its connections belong to that loop."""

from __future__ import annotations

import os

import anyio.lowlevel

from segments_async._http.clients import CLOSED
from segments_async.errors import ConfigurationError


class Binding:
    """The event loop and process of a client's first use; any other use is refused.

    A client may be created before `asyncio.run()`, or before a fork. In another loop, asyncio's
    connections hang, or fail with an unrelated error; and two processes that write into one
    connection mix their requests.
    """

    def __init__(self) -> None:
        # The token itself: its id() could be reused for another loop.
        self._loop: object = None
        self._process = 0
        self._closed = False

    def check(self) -> None:
        """Refuse another event loop or process than the first one. Each operation calls this first.

        Raises:
            ConfigurationError: the client is closed, or was used elsewhere before.
        """
        if self._closed:
            raise ConfigurationError(CLOSED)
        if self._loop is not None and os.getpid() != self._process:
            # Checked first: in a child of a running loop, asyncio says that no loop runs.
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
        """Mark the client as closed. Returns whether its connections can be closed here."""
        self._closed = True
        return self._loop is None or (
            self._process == os.getpid() and self._loop == anyio.lowlevel.current_token()
        )
