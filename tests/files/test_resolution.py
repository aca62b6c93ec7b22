"""The addresses of a link's host are judged before anything is sent to the host."""

from __future__ import annotations

import json
import math
import socket
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from frames import an_export

from segments_async import DownloadError, SegmentsClient
from segments_async._http.clients import CallersClient
from segments_async._http.storage import Storage
from segments_async._http.storage_body import StorageBroken
from segments_async._sansio.api.decoding import read_status
from segments_async._sansio.api.wire import ApiAnswer, ApiRequest
from segments_async._sansio.files.links import LinkRefused, check_addresses, check_link
from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY, PAGE_EXPORT_ID

BUCKET = "https://b.s3.amazonaws.com/a.csv"
OTHER = "https://other.s3.amazonaws.com/a.csv"

Names = dict[str, list[str]]


class Place:
    """A storage that records requested hosts, with names that resolve to given addresses."""

    def __init__(self, names: Names, answer: Callable[[str], httpx.Response]) -> None:
        self.names = names
        self.answer = answer
        self.looked_up: list[str] = []
        self.asked: list[str] = []

    async def look_up(self, host: str, *_: Any, **__: Any) -> list[Any]:
        self.looked_up.append(host)
        if host not in self.names:
            raise socket.gaierror(socket.EAI_NONAME, "not known")
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0))
            for address in self.names[host]
        ]

    async def handle(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(str(request.url))
        return self.answer(str(request.url))

    async def get(
        self, link: str, clients: type[CallersClient] = CallersClient, **options: Any
    ) -> int:
        places: dict[str, Any] = {"check_addresses": partial(check_addresses, loopback=False)}
        async with httpx.AsyncClient(transport=httpx.MockTransport(self.handle)) as http:
            storage = Storage(
                clients(http),
                partial(check_link, file_hosts=("*.amazonaws.com",), loopback=False),
                redirects=3,
                timeout=10.0,
                **places | options,
            )
            async with storage.get(link) as answer:
                return answer.status


def place(
    monkeypatch: pytest.MonkeyPatch,
    names: Names,
    answer: Callable[[str], httpx.Response] = lambda _: httpx.Response(200),
) -> Place:
    made = Place(names, answer)
    monkeypatch.setattr(anyio, "getaddrinfo", made.look_up)
    return made


@pytest.mark.alternating
@pytest.mark.parametrize("addresses", [["169.254.169.254"], ["52.1.1.1", "::1"], ["::ffff:7f00:1"]])
async def test_a_host_that_resolves_to_no_place_for_files(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One bad address refuses the host, and nothing is sent."""
    world = place(monkeypatch, {"b.s3.amazonaws.com": addresses})
    with pytest.raises(LinkRefused, match="resolves to"):
        await world.get(BUCKET)
    assert world.asked == []


@pytest.mark.alternating
async def test_each_hop_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect's host is resolved and checked like a link's."""

    def answer(url: str) -> httpx.Response:
        return httpx.Response(302, headers={"location": OTHER})

    names = {"b.s3.amazonaws.com": ["10.0.0.1"], "other.s3.amazonaws.com": ["169.254.170.2"]}
    world = place(monkeypatch, names, answer)
    with pytest.raises(LinkRefused):
        await world.get(BUCKET)
    assert world.looked_up == list(names)
    assert world.asked == [BUCKET]


@pytest.mark.alternating
async def test_a_private_address_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Private addresses are admitted, for S3 PrivateLink."""
    world = place(monkeypatch, {"b.s3.amazonaws.com": ["10.1.2.3", "fd12::1"]})
    assert await world.get(BUCKET) == 200


class Proxied(CallersClient):
    """Clients whose requests go through a proxy."""

    def resolves_here(self, host: str, port: int) -> bool:
        return (host, port) != ("b.s3.amazonaws.com", 443)


@pytest.mark.alternating
async def test_a_name_that_does_not_resolve_is_asked_through_a_proxy_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Only a proxy may know the name; a direct connection without a checked address is refused."""
    world = place(monkeypatch, {})
    assert await world.get(BUCKET, clients=Proxied) == 200
    with pytest.raises(StorageBroken, match="doesn't resolve"):
        await world.get(OTHER, clients=Proxied)
    with pytest.raises(StorageBroken, match="doesn't resolve"):
        await world.get(BUCKET)
    assert (world.looked_up[0], world.asked) == ("b.s3.amazonaws.com", [BUCKET])


@pytest.mark.alternating
async def test_a_resolver_that_hangs_is_no_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The resolver has as long as a connection; after that nothing is sent."""
    world = place(monkeypatch, {})

    async def hang(*_: Any, **__: Any) -> Any:
        await anyio.sleep(math.inf)

    monkeypatch.setattr(anyio, "getaddrinfo", hang)
    begin = anyio.current_time()
    with pytest.raises(StorageBroken, match="in time"):
        await world.get(BUCKET)
    assert anyio.current_time() - begin == pytest.approx(10.0)
    assert world.asked == []
    assert await world.get(BUCKET, clients=Proxied) == 200


@pytest.mark.real_time
async def test_the_address_that_was_reached_is_judged(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A name that is public when it is checked, and this machine when it is connected to."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        found = read_status(
            ApiRequest("GET", "/x"),
            ApiAnswer(200, {}, json.dumps(an_export(f"https://rebinds.example:{port}/a")).encode()),
            export_id=PAGE_EXPORT_ID,
        )
        answers = iter(["52.1.1.1"])

        async def once(*_: Any, **__: Any) -> list[Any]:
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (next(answers), 0))]

        real = anyio.connect_tcp
        monkeypatch.setattr(anyio, "getaddrinfo", once)
        monkeypatch.setattr(anyio, "connect_tcp", lambda **_: real("127.0.0.1", port))
        for variable in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.delenv(variable, raising=False)
        async with SegmentsClient(
            PAGE_API_KEY, PAGE_ACCESS_TOKEN, file_hosts=["rebinds.example"]
        ) as client:
            with pytest.raises(DownloadError, match="this machine") as caught:
                await client.download_export(found, tmp_path / "a.csv")
        assert caught.value.reason == "link_refused"
        connection, _ = server.accept()
        with connection:
            assert connection.recv(1) == b""  # not even the first byte of TLS


@pytest.mark.alternating
async def test_names_of_a_callers_transport_are_not_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without `check_addresses`, as for the sandbox's hosts, there is no look-up."""
    world = place(monkeypatch, {})
    assert await world.get(BUCKET, check_addresses=None) == 200
    assert world.looked_up == []


@pytest.mark.alternating
async def test_a_refused_host_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's text makes no DNS query beyond the hosts that the user listed."""
    world = place(monkeypatch, {})
    with pytest.raises(LinkRefused):
        await world.get("https://secret-data.evil.example/a.csv")
    assert world.looked_up == []


@pytest.mark.alternating
async def test_a_host_that_httpx_cannot_read() -> None:
    """Invalid punycode with NO_PROXY set is not an error of the idna package."""

    def unused(_: httpx.Request) -> httpx.Response:
        raise AssertionError

    mounts = {"all://internal.example": httpx.MockTransport(unused)}
    async with httpx.AsyncClient(mounts=mounts, trust_env=False) as http:
        storage = Storage(CallersClient(http), str, redirects=3, timeout=10.0)
        with pytest.raises(StorageBroken):
            async with storage.get("https://xn--a.s3.amazonaws.com/a.csv"):
                pass
