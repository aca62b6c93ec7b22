"""HTTP clients: the library's own, and one that the caller passed.

httpx2 continues httpx with the same API and other classes, so a caller's client is typed by the
methods that are used of it.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import Generator
from typing import TYPE_CHECKING, Any, Protocol

import attrs

from segments_async.errors import ConfigurationError

if TYPE_CHECKING:
    from segments_async._http.fast_transport import CheckAddresses
    from segments_async._http.transport import OneConnection

#: Seconds an idle connection is kept. A POST sent into a connection that the server is just closing
#: ends as "unknown", so ours close before the common 5 s of servers do.
KEEPALIVE = 4.0

USER_AGENT = "segments-async"

#: The message of each operation after `aclose`.
CLOSED = "the client is closed: nothing was sent; make another one"

#: Seconds by which the wall clock may run ahead of the monotonic clock before a sleep of the
#: machine is assumed.
_CLOCK_SKEW = 1.0


class HttpClient(Protocol):
    """The methods of httpx's and httpx2's ``AsyncClient`` that this package calls."""

    # Any arguments: httpx declares more of them than this package passes.
    def build_request(self, *args: Any, **kwargs: Any) -> Any: ...
    async def send(self, *args: Any, **kwargs: Any) -> Any: ...
    async def aclose(self) -> None: ...


@attrs.frozen
class StandIn:
    """Clients that answer in the place of the vendor and of storage; see `segments_async.testing`.

    Attributes:
        api: takes all requests to the API.
        files: takes all requests to storage.
    """

    api: HttpClient
    files: HttpClient


#: Answers the requests of all own clients of this process, also of clients made before it. None:
#: the requests go to the network.
_stand_in: StandIn | None = None


@contextlib.contextmanager
def requests_go_to(stand_in: StandIn) -> Generator[None]:
    """During the block, `stand_in` answers the requests of all own clients of this process."""
    global _stand_in
    before, _stand_in = _stand_in, stand_in
    try:
        yield
    finally:
        _stand_in = before


def stands_in() -> bool:
    """Whether something answers in the place of the vendor and of storage."""
    return _stand_in is not None


class Clients(Protocol):
    """The source of the client for each request."""

    @property
    def own(self) -> bool:
        """Whether the library made the clients; a caller's client has its own pool and hooks."""
        ...

    def prepare(self) -> None:
        """Have a client ready, so that a misconfiguration is raised before any request.

        Raises:
            ConfigurationError: no client can be made. Nothing was sent.
        """
        ...

    def resolves_here(self, host: str, port: int) -> bool:
        """Whether this machine, not a proxy, resolves the host's name."""
        ...

    def borrow(self) -> HttpClient: ...
    def give_back(self, client: HttpClient) -> None: ...


class CallersClient:
    """The caller's own client: used, never closed, never changed.

    Args:
        client: httpx's or httpx2's.
        name: of the argument by which the caller passed the client.

    Raises:
        ConfigurationError: the client is a synchronous one, or none of httpx's kind.
    """

    own = False

    def __init__(self, client: HttpClient, name: str = "http_client") -> None:
        classes = {(c.__module__.partition(".")[0], c.__name__) for c in type(client).__mro__}
        usable = hasattr(client, "build_request") and hasattr(client, "send")
        if not usable or classes & {("httpx", "Client"), ("httpx2", "Client")}:
            what = f"{type(client).__module__}.{type(client).__name__}"
            raise ConfigurationError(f"{name}: an httpx.AsyncClient, not {what}")
        self._client = client
        self._name = name

    def prepare(self) -> None:
        if getattr(self._client, "is_closed", False):
            raise ConfigurationError(f"{self._name}: it is closed already. Nothing was sent")

    def resolves_here(self, host: str, port: int) -> bool:  # noqa: ARG002 - unknown of this client
        return True

    def borrow(self) -> HttpClient:
        return self._client

    def give_back(self, client: HttpClient) -> None:
        """Nothing to do: requests share the client."""


class OwnClients:
    """Clients of our own, each with one connection, each for one request at a time.

    httpcore's pool looks at all its connections, and at all of them again for each idle one, twice
    a request: with 64 connections it falls from 600 requests/s to 130. A pool of one has nothing to
    search. The gate's slots limit the number of clients. The client used last is lent first, so
    that no more connections are kept open than are needed.

    Args:
        ssl_context: the caller's; None for the certificates of the environment.
        keepalive: seconds for which an idle connection is kept.
        loopback: whether the vendor is on this machine.
        scheme: of the requests.
        check_peer: as of :class:`OneConnection`; None accepts every address.
        files: whether the requests are to storage.
    """

    def __init__(
        self,
        ssl_context: ssl.SSLContext | None,
        keepalive: float,
        *,
        loopback: bool,
        scheme: str = "https",
        check_peer: CheckAddresses | None = None,
        files: bool = False,
    ) -> None:
        self._files = files
        #: Whether a stand-in has answered requests.
        self._was_answered = False
        from segments_async._http.client_maker import ClientMaker  # not at the top: see its head

        self._ssl_context = _verifying(ssl_context)
        self._maker = ClientMaker(
            ssl_context, keepalive, loopback=loopback, scheme=scheme, check_peer=check_peer
        )
        self._idle: list[HttpClient] = []
        self._wall_clock_lead = _wall_clock_lead()
        self._transports: dict[HttpClient, OneConnection] = {}
        self._closed = False

    @property
    def own(self) -> bool:
        return _stand_in is None

    def prepare(self) -> None:
        if self._closed:
            raise ConfigurationError(CLOSED)
        if _stand_in is not None:
            self._was_answered = True
            return
        if self._was_answered:
            # A stand-in has answered: a test is over. Its requests must not reach the real vendor.
            raise ConfigurationError(
                "a test's account answered this client, and that test has ended: nothing was sent"
            )
        _verifying(self._ssl_context)  # each time: the caller may have changed the context since
        if not self._transports:
            self._idle.append(self._new())

    def borrow(self) -> HttpClient:
        if _stand_in is not None:
            self.prepare()
            return _stand_in.files if self._files else _stand_in.api
        lead = _wall_clock_lead()
        if abs(lead - self._wall_clock_lead) > _CLOCK_SKEW:
            # The machine slept. The monotonic clock, by which idle connections expire, stood still
            # meanwhile. A POST into a connection that is long dead would end as unknown.
            self._wall_clock_lead = lead
            for transport in self._transports.values():
                transport.must_reconnect = True
        self.prepare()
        return self._idle.pop() if self._idle else self._new()

    def resolves_here(self, host: str, port: int) -> bool:
        return self._maker.resolves_here(host, port)

    def give_back(self, client: HttpClient) -> None:
        transport = self._transports.get(client)
        if transport is None:
            return
        if not transport.is_idle:
            # A cancellation interrupted the closing: httpcore's pool keeps the connection for ever.
            transport.must_reconnect = True
        self._idle.append(client)

    def _new(self) -> HttpClient:
        client, transport = self._maker.make()
        self._transports[client] = transport
        return client

    async def aclose(self) -> None:
        """Close all connections. Requests fail from now on."""
        self._closed = True
        self._idle.clear()
        while self._transports:
            client, _ = self._transports.popitem()
            await client.aclose()

    def forget(self) -> None:
        """Forget all connections, where this event loop or process can't close them."""
        self._closed = True
        self._idle.clear()
        self._transports.clear()


def _wall_clock_lead() -> float:
    """Seconds between the wall clock and the monotonic clock; they change when a machine sleeps.

    A jump of the wall clock alone changes them, too; then connections are replaced needlessly.
    """
    return time.time() - time.monotonic()


def _verifying(context: object) -> ssl.SSLContext | None:
    """The caller's context, if it verifies. httpx would accept False, and verify nothing."""
    if context is None:
        return None
    if not isinstance(context, ssl.SSLContext):
        raise ConfigurationError("ssl_context: an ssl.SSLContext, or None for the system's trust")
    if context.verify_mode is not ssl.CERT_REQUIRED or not context.check_hostname:
        raise ConfigurationError("ssl_context: it has to verify certificates and host names")
    return context
