"""What a link's host resolves to is looked at before anything is sent there."""

from __future__ import annotations

import math
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

import anyio
import httpx
import pytest

from segments_async._http import CallersClient
from segments_async._sansio.links import LinkRefused, check_addresses, check_link
from segments_async._storage import Storage, StorageBroken

BUCKET = "https://b.s3.amazonaws.com/a.csv"
OTHER = "https://other.s3.amazonaws.com/a.csv"

Names = dict[str, list[str]]


class Place:
    """A storage that takes note of who it asks, and names that resolve as told."""

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

    async def get(self, link: str, **options: Any) -> int:
        places: dict[str, Any] = {"check_addresses": partial(check_addresses, loopback=False)}
        async with httpx.AsyncClient(transport=httpx.MockTransport(self.handle)) as http:
            storage = Storage(
                CallersClient(http),
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


@pytest.mark.parametrize("addresses", [["169.254.169.254"], ["52.1.1.1", "::1"], ["::ffff:7f00:1"]])
async def test_a_host_that_resolves_to_no_place_for_files(
    addresses: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is refused by any one of its addresses, and nothing is sent."""
    world = place(monkeypatch, {"b.s3.amazonaws.com": addresses})
    with pytest.raises(LinkRefused, match="resolves to"):
        await world.get(BUCKET)
    assert world.asked == []


async def test_each_hop_is_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A redirect leads no further than a link."""

    def answer(url: str) -> httpx.Response:
        return httpx.Response(302, headers={"location": OTHER})

    names = {"b.s3.amazonaws.com": ["10.0.0.1"], "other.s3.amazonaws.com": ["169.254.170.2"]}
    world = place(monkeypatch, names, answer)
    with pytest.raises(LinkRefused):
        await world.get(BUCKET)
    assert world.looked_up == list(names)
    assert world.asked == [BUCKET]


async def test_a_private_address_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 PrivateLink."""
    world = place(monkeypatch, {"b.s3.amazonaws.com": ["10.1.2.3", "fd12::1"]})
    assert await world.get(BUCKET) == 200


async def test_a_name_that_does_not_resolve_is_left_to_the_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Behind a proxy, only the proxy may know the name."""
    world = place(monkeypatch, {})
    assert await world.get(BUCKET) == 200
    assert world.looked_up == ["b.s3.amazonaws.com"]


async def test_a_resolver_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """It gets as long as a connection gets."""
    world = place(monkeypatch, {})

    async def hang(*_: Any, **__: Any) -> Any:
        await anyio.sleep(math.inf)

    monkeypatch.setattr(anyio, "getaddrinfo", hang)
    begin = anyio.current_time()
    assert await world.get(BUCKET) == 200
    assert anyio.current_time() - begin == pytest.approx(10.0)


async def test_names_of_a_callers_transport_are_not_looked_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without `check_addresses`, as for the sandbox's hosts, there is no look-up."""
    world = place(monkeypatch, {})
    assert await world.get(BUCKET, check_addresses=None) == 200
    assert world.looked_up == []


async def test_a_refused_host_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server's text makes no DNS query beyond the hosts that the user listed."""
    world = place(monkeypatch, {})
    with pytest.raises(LinkRefused):
        await world.get("https://secret-data.evil.example/a.csv")
    assert world.looked_up == []


async def test_a_host_that_httpx_cannot_read() -> None:
    """Punycode that is none, where proxies are chosen by host: no error of the idna package."""

    def unused(_: httpx.Request) -> httpx.Response:
        raise AssertionError

    mounts = {"all://internal.example": httpx.MockTransport(unused)}
    async with httpx.AsyncClient(mounts=mounts, trust_env=False) as http:
        storage = Storage(CallersClient(http), str, redirects=3, timeout=10.0)
        with pytest.raises(StorageBroken):
            async with storage.get("https://xn--a.s3.amazonaws.com/a.csv"):
                pass
