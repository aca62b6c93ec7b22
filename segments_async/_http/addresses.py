"""The addresses of a host, as this machine's resolver knows them."""

from __future__ import annotations

import socket

import anyio


async def addresses_of(host: str) -> list[str]:
    """The addresses that the host's name resolves to; none if it doesn't resolve."""
    try:
        found = await anyio.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [address[0] for *_, address in found]
