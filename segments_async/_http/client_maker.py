"""Makes the library's own httpx clients. Imported where the first is made.

With httpcore, trio, h11 and h2, httpx takes more time to import than all of this package. So this
module is imported where an `OwnClients` is made, and a program that only names `SegmentsClient`
doesn't wait for it.
"""

from __future__ import annotations

import ssl
from typing import Any, cast

import httpx

from segments_async._http.clients import USER_AGENT, HttpClient
from segments_async._http.environment import Route, read_certificates
from segments_async._http.fast_transport import CheckAddresses
from segments_async._http.transport import OneConnection


class ClientMaker:
    """Makes clients that have one connection each.

    Args:
        ssl_context: the caller's; None for the certificates of the environment.
        keepalive: seconds for which an idle connection is kept.
        loopback: whether the vendor is on this machine.
        scheme: of the requests.
        check_peer: as of :class:`OneConnection`; None accepts every address.
    """

    def __init__(
        self,
        ssl_context: ssl.SSLContext | None,
        keepalive: float,
        *,
        loopback: bool,
        scheme: str,
        check_peer: CheckAddresses | None,
    ) -> None:
        self._ssl_context = ssl_context
        self._keepalive = keepalive
        self._loopback = loopback
        self._scheme = scheme
        self._check_peer = check_peer
        self._route: Route | None = None
        self._headers = {"User-Agent": USER_AGENT}

    def resolves_here(self, host: str, port: int) -> bool:
        """See `Clients.resolves_here`."""
        return self._route is None or self._route.is_direct(host, port)

    def make(self) -> tuple[HttpClient, OneConnection]:
        """A client, and its transport.

        Raises:
            ConfigurationError: the environment's certificates or proxies can't be used.
        """
        if self._ssl_context is None:
            self._ssl_context = read_certificates()
        if self._route is None and not self._loopback:
            # Never for loopback: the environment's proxy is on another machine, and would receive
            # plain HTTP.
            self._route = Route(self._scheme)
        transport = OneConnection(
            self._ssl_context, self._keepalive, route=self._route, check_peer=self._check_peer
        )
        made: Any = httpx.AsyncClient(transport=transport, headers=self._headers, trust_env=False)
        return cast(HttpClient, made), transport
