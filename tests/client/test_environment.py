"""An environment in which no connection can be made: the error comes before any request."""

from __future__ import annotations

import contextlib
import ssl
import traceback
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import certifi
import httpx
import pytest

from segments_async import APIConnectionError, ConfigurationError, SegmentsClient

pytestmark = pytest.mark.alternating

PASSWORD = "hunter2-of-the-proxy"

#: Broken variables, by a name: where it is a path, of something in the test's directory.
BROKEN: dict[str, tuple[str, str]] = {
    "no certificates": ("SSL_CERT_FILE", "{tmp}/nowhere.pem"),
    "empty certificates": ("SSL_CERT_FILE", "{tmp}/empty"),
    "garbage for certificates": ("SSL_CERT_FILE", "{tmp}/garbage"),
    "a directory for certificates": ("SSL_CERT_FILE", "{tmp}"),
    "no directory of certificates": ("SSL_CERT_DIR", "{tmp}/nowhere"),
    "a directory without certificates": ("SSL_CERT_DIR", "{tmp}"),
    "keys to nowhere": ("SSLKEYLOGFILE", "{tmp}/nowhere/keys"),
    "socks4": ("ALL_PROXY", f"socks4://me:{PASSWORD}@127.0.0.1:1080"),
    "socks": ("https_proxy", f"socks://me:{PASSWORD}@127.0.0.1:1080"),
    "ftp": ("HTTPS_PROXY", f"ftp://me:{PASSWORD}@127.0.0.1"),
    "a port that is none": ("HTTPS_PROXY", f"http://me:{PASSWORD}@127.0.0.1:port"),
    "a port too high": ("all_proxy", f"http://me:{PASSWORD}@127.0.0.1:99999"),
    "no host": ("HTTPS_PROXY", f"http://me:{PASSWORD}@:3128"),
    "a bracket": ("HTTPS_PROXY", f"http://me:{PASSWORD}@[127.0.0.1"),
    "what httpx alone refuses": ("HTTPS_PROXY", f"http://{PASSWORD}.{'a' * 64}é:1"),
}


@pytest.fixture(params=BROKEN)
def broken(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The name of a variable that can't be used."""
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)  # this machine's own, of which one has priority
    variable, value = BROKEN[request.param]
    place = tmp_path / "environment"
    place.mkdir()
    (place / "empty").touch()
    (place / "garbage").write_text("no certificate")
    monkeypatch.setenv(variable, value.format(tmp=place))
    return variable


def _client(**options: Any) -> SegmentsClient:
    return SegmentsClient("key", "a-long-access-token", **options)


def _is_told(error: ConfigurationError, variable: str, tmp_path: Path) -> None:
    text = str(error)
    assert text.startswith(f"{variable}: ")
    assert "Nothing was sent" in text
    assert str(tmp_path) not in text
    shown = traceback.TracebackException.from_exception(error, capture_locals=True)
    assert PASSWORD not in "".join(shown.format())


async def test_a_run_begins_with_a_sound_environment(broken: str, tmp_path: Path) -> None:
    """The error names the variable and not its value, and no journal is made."""
    journal = tmp_path / "runs.db"
    for _ in range(3):
        with pytest.raises(ConfigurationError) as caught:
            async with (
                _client() as client,
                client.open_bulk_export(["s1", "s2"], None, journal=journal, run="night"),
            ):
                raise AssertionError("the run was entered")
        _is_told(caught.value, broken, tmp_path)
    assert not journal.exists()


OPERATIONS: dict[str, Callable[[SegmentsClient, Path], Awaitable[Any]]] = {
    "list_segments": lambda client, _: client.list_segments(),
    "request_export": lambda client, _: client.request_export("s1"),
    "get_export": lambda client, _: client.get_export("e1"),
    "wait_for_export": lambda client, _: client.wait_for_export("e1"),
    "download_export": lambda client, to: client.download_export("e1", to / "a.csv"),
    "open_export": lambda client, _: client.open_export("e1").__aenter__(),
    "export": lambda client, to: client.export("s1", to / "a.csv"),
    "bulk_export": lambda client, to: client.bulk_export(["s1"], to / "files"),
}


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
async def test_each_operation_says_it(
    operation: Callable[[SegmentsClient, Path], Awaitable[Any]],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Each operation raises the same error about the environment."""
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nowhere.pem"))
    async with _client() as client:
        with pytest.raises(ConfigurationError) as caught:
            await operation(client, tmp_path)
        _is_told(caught.value, "SSL_CERT_FILE", tmp_path)


async def test_storage_is_looked_after_before_a_post(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a caller's API client, storage's broken proxy is an error before the first POST."""
    monkeypatch.setenv("HTTPS_PROXY", f"socks4://me:{PASSWORD}@127.0.0.1:1080")
    requests: list[httpx.Request] = []

    def vendor(request: httpx.Request) -> httpx.Response:
        requests.append(request)
        return httpx.Response(500)

    async with (
        httpx.AsyncClient(transport=httpx.MockTransport(vendor)) as http,
        _client(http_client=http) as client,
    ):
        for ask in (client.request_export("s1"), client.bulk_export(["s1"], tmp_path / "files")):
            with pytest.raises(ConfigurationError) as caught:
                await ask
            _is_told(caught.value, "HTTPS_PROXY", tmp_path)
    assert requests == []


async def test_a_closed_client_of_the_callers_is_told(tmp_path: Path) -> None:
    """A closed client is an error that names the argument."""
    closed, other = httpx.AsyncClient(), httpx.AsyncClient()
    await closed.aclose()
    async with other:
        for name, clients in {
            "http_client": (closed, other),
            "file_http_client": (other, closed),
        }.items():
            api, files = clients
            async with _client(http_client=api, file_http_client=files) as client:
                with pytest.raises(ConfigurationError, match=rf"^{name}: it is closed"):
                    await client.request_export("s1")


async def test_socks_needs_a_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the package, the error names the variable and the package."""
    monkeypatch.setenv("ALL_PROXY", f"socks5://me:{PASSWORD}@127.0.0.1:1080")
    monkeypatch.setitem(__import__("sys").modules, "socksio", None)
    async with _client() as client:
        with pytest.raises(ConfigurationError, match=r"^ALL_PROXY: .*httpx\[socks\]"):
            await client.list_segments()


def test_the_constructor_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The constructor is cheap, and works outside of any loop."""
    monkeypatch.setenv("SSL_CERT_FILE", "/nowhere/ca.pem")
    monkeypatch.setenv("ALL_PROXY", "socks4://127.0.0.1")
    _client()


@pytest.mark.real_time
async def test_what_is_of_no_use_is_not_refused(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """With a caller's context no certificates are read, and https needs no HTTP_PROXY.

    NO_PROXY is read as curl reads it, which httpx refuses.
    """
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "nowhere.pem"))
    monkeypatch.setenv("HTTP_PROXY", "socks4://127.0.0.1:1080")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "localhost,[::1],fd07:b51a:cc66:f0::/64,10.0.0.0/8,%,é")
    context = ssl.create_default_context(cafile=certifi.where())
    async with _client(ssl_context=context) as client:
        # The environment is read before the first request, which fails: no proxy is at port 9.
        with anyio.move_on_after(0.2), contextlib.suppress(APIConnectionError):
            await client.list_segments()
