"""Proxies in the environment, and the hosts that are exempt from them."""

from __future__ import annotations

import pytest

from segments_async._sansio.api.credentials import Secret
from segments_async._sansio.api.proxies import Proxy, bypasses_proxy, proxy_for, proxy_problem

HOST = "query.vendor.example"


def test_the_proxy_of_the_scheme_comes_first() -> None:
    """ALL_PROXY is for schemes without a proxy; the proxy of another scheme doesn't count."""
    found = {"http": "http://h:1", "https": "http://s:1", "all": "http://a:1"}
    https = proxy_for("https", found, {"HTTPS_PROXY": "http://s:1"})
    assert https is not None
    assert (https.variable, https.url.reveal()) == ("HTTPS_PROXY", "http://s:1")
    every = proxy_for("https", {"http": "x", "all": "a:1"}, {"all_proxy": "a:1"})
    assert every is not None
    assert (every.variable, every.url.reveal()) == ("all_proxy", "http://a:1")
    assert proxy_for("https", {"http": "socks4://unused"}, {}) is None


def test_a_proxy_of_the_system_has_a_name() -> None:
    """On macOS and Windows the system's settings may name the proxy."""
    proxy = proxy_for("https", {"https": "http://s:1"}, {})
    assert proxy is not None
    assert proxy.variable == "the system's proxy settings (https_proxy)"


def test_a_proxy_is_shown_without_its_password() -> None:
    """A proxy's URL isn't in its repr."""
    assert "hunter2" not in repr(proxy_for("https", {"all": "http://me:hunter2@proxy:3128"}, {}))


@pytest.mark.parametrize(
    "url",
    ["http://p", "https://me:pass@p:8080", "socks5://127.0.0.1:1080", "socks5h://[::1]:1"],
)
def test_proxies_that_will_do(url: str) -> None:
    """HTTP and SOCKS5 proxies are accepted, with or without user and port."""
    assert proxy_problem(Proxy("ALL_PROXY", Secret(url))) is None


@pytest.mark.parametrize(
    "url",
    [
        "socks4://hunter2:1080",
        "socks://hunter2",
        "ftp://hunter2",
        "http://me:hunter2@p:port",
        "http://me:hunter2@p:99999",
        "http://me:hunter2@p:0",
        "http://[hunter2",
        "http://:3128",
        "http://",
        "http://hunter2 p:1",
        "http://hunter2\n",
    ],
)
def test_proxies_that_wont(url: str) -> None:
    """Each unusable URL of a proxy has a reason, and the reason shows no part of the URL."""
    problem = proxy_problem(Proxy("ALL_PROXY", Secret(url)))
    assert problem
    assert "hunter2" not in problem


@pytest.mark.parametrize(
    ("no_proxy", "host"),
    [
        ("*", HOST),
        (HOST, HOST),
        ("vendor.example", HOST),
        (".vendor.example", HOST),
        ("*.vendor.example", HOST),
        ("other, Vendor.Example ", HOST),
        ("vendor.example:443", HOST),
        ("https://vendor.example", HOST),
        ("10.1.2.3", "10.1.2.3"),
        ("10.0.0.0/8", "10.1.2.3"),
        ("10.1.2.3:443", "10.1.2.3"),
        ("::1", "::1"),
        ("[::1]", "::1"),
        ("[::1]:443", "::1"),
        ("fd07:b51a:cc66:f0::/64", "fd07:b51a:cc66:f0::5"),
    ],
)
def test_hosts_past_the_proxy(no_proxy: str, host: str) -> None:
    """NO_PROXY is read as curl reads it: names with their subdomains, addresses, ranges, ports."""
    assert bypasses_proxy(no_proxy, host, 443)


@pytest.mark.parametrize(
    "no_proxy",
    [
        "",
        ",,",
        "localhost,[::1],fd07:b51a:cc66:f0::/64,127.0.0.0/8",
        "myvendor.example",
        "vendor.example:8443",
        ".query.vendor.example",
        "[",
        "]:x",
        "http://",
        "%zz é \x00",
        "10.0.0.0/99",
        ":443",
        ".",
        "**",
    ],
)
def test_hosts_not_past_the_proxy(no_proxy: str) -> None:
    """Entries for other hosts, or invalid ones, exempt no host and are no error."""
    assert not bypasses_proxy(no_proxy, HOST, 443)
