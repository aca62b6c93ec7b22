"""The environment's proxy, and the hosts that are reached without it.

The variables are read as httpx and urllib read them, with two differences. A variable that can't be
used is refused before anything is sent; the error has its name and not its value, since a proxy's
URL may hold a password. And NO_PROXY is read as curl reads it, with address ranges and brackets; on
some of these, httpx fails each request.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from urllib.parse import urlsplit

import attrs

from segments_async._sansio.api.credentials import Secret

#: The schemes of a proxy's URL that httpx can use.
_PROXY_SCHEMES = ("http", "https", "socks5", "socks5h")


@attrs.frozen
class Proxy:
    """The environment's proxy.

    Attributes:
        variable: the environment variable's name; or a few words, for a proxy of the operating
            system's settings.
        url: of the proxy, perhaps with a user and a password.
    """

    variable: str
    url: Secret

    @property
    def is_socks(self) -> bool:
        return self.url.reveal().lower().startswith("socks")


def proxy_for(scheme: str, found: Mapping[str, str], environ: Mapping[str, str]) -> Proxy | None:
    """The proxy for requests of a scheme, or None.

    Args:
        scheme: ``"https"`` or ``"http"``.
        found: the result of `urllib.request.getproxies`.
    """
    for name in (scheme, "all"):
        if value := found.get(name):
            url = value if "://" in value else f"http://{value}"
            return Proxy(_variable(f"{name}_proxy", value, environ), Secret(url))
    return None


def _variable(name: str, value: str, environ: Mapping[str, str]) -> str:
    """The variable's name as the environment has it; the lower-case name has priority."""
    for spelling in (name, name.upper()):
        if environ.get(spelling) == value:
            return spelling
    matches = [key for key, text in environ.items() if key.lower() == name and text == value]
    return matches[0] if matches else f"the system's proxy settings ({name})"


def proxy_problem(proxy: Proxy) -> str | None:
    """Why the proxy's URL can't be used, without showing it; None if it can."""
    try:
        parts = urlsplit(proxy.url.reveal())
        port = parts.port
    except ValueError:
        return "it can't be read as a URL (its host, or its port)"
    if parts.scheme not in _PROXY_SCHEMES:
        return f"its scheme is none of {', '.join(_PROXY_SCHEMES)}"
    if not parts.hostname:
        return "it names no host"
    if port == 0:
        return "its port is 0"
    if not proxy.url.reveal().isprintable() or " " in proxy.url.reveal():
        return "it holds white space or a control character"
    return None


def bypasses_proxy(no_proxy: str, host: str, port: int) -> bool:
    """Whether NO_PROXY exempts this host from the proxy.

    An entry is ``*``; a host, for this host and its subdomains; ``.host`` or ``*.host``, for the
    subdomains alone; an address, or a range of addresses. It may have a scheme, which is ignored,
    or a port. Any other entry exempts no host.
    """
    address = _address(host)
    return any(
        _exempts(entry.strip().lower(), host.lower().rstrip("."), address, port)
        for entry in no_proxy.split(",")
    )


def _exempts(entry: str, host: str, address: _Address | None, port: int) -> bool:
    entry = entry.partition("://")[2] or entry
    if entry == "*":
        return True
    network = _network(entry)
    if network is None:
        entry, told_port = _split_port(entry)
        if told_port is not None and told_port != port:
            return False
        network = _network(entry)
    if network is not None:
        return address is not None and address in network
    below = entry.removeprefix("*").startswith(".")
    name = entry.lstrip("*.").rstrip(".")
    if not name or address is not None:
        return False
    return host.endswith(f".{name}") or (host == name and not below)


_Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _address(host: str) -> _Address | None:
    try:
        return ipaddress.ip_address(host.strip("[]"))
    except ValueError:
        return None


def _network(entry: str) -> _Network | None:
    """An address, or a range of them, with or without brackets."""
    if entry.startswith("["):
        address, _, length = entry[1:].partition("]")
        entry = f"{address}{length}" if not length or length.startswith("/") else ""
    try:
        return ipaddress.ip_network(entry, strict=False)
    except ValueError:
        return None


def _split_port(entry: str) -> tuple[str, int | None]:
    host, colon, port = entry.rpartition(":")
    return (host, int(port)) if colon and port.isascii() and port.isdigit() else (entry, None)
