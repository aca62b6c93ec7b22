"""Certificates and proxies of the environment, read once, before anything is sent.

A variable that can't be used is a `ConfigurationError` with the variable's name. If the fault
appeared only while a POST is sent, the POST would count as one that may have left.
"""

from __future__ import annotations

import os
import re
import ssl
from importlib import import_module
from pathlib import Path
from urllib.request import getproxies

import httpcore
import httpx

from segments_async._sansio.api.proxies import Proxy, bypasses_proxy, proxy_for, proxy_problem
from segments_async.errors import ConfigurationError

#: OpenSSL's names of certificates in a directory; it ignores files of other names.
_HASHED = re.compile(r"[0-9a-f]{8}\.[0-9]+")


def read_certificates() -> ssl.SSLContext:
    """The trusted certificates, as httpx reads them. Takes some 20 ms.

    Raises:
        ConfigurationError: the file or directory in SSL_CERT_FILE, SSL_CERT_DIR or SSLKEYLOGFILE
            can't be used.
    """
    variable = next((name for name in ("SSL_CERT_FILE", "SSL_CERT_DIR") if _set(name)), None)
    problem = None
    if variable == "SSL_CERT_DIR" and not _holds_certificates(os.environ[variable]):
        # OpenSSL would accept the directory and trust no certificate; each connection would fail.
        problem = "no directory with certificates in it under their hashed names (openssl rehash)"
    if problem is None:
        try:
            context = httpx.create_ssl_context()
        except OSError as exc:  # ssl.SSLError is one
            problem = exc.strerror or type(exc).__name__
        else:
            if variable != "SSL_CERT_FILE" or context.cert_store_stats()["x509"]:
                return context
            problem = "no certificate in it"
        if _set("SSLKEYLOGFILE") and not _takes_keys():
            variable = "SSLKEYLOGFILE"
    name = variable or "the certificates of the package certifi"
    raise ConfigurationError(
        f"{name}: it can't be used: {problem}. Nothing was sent; correct the variable or unset it"
    )


def _set(name: str) -> bool:
    return bool(os.environ.get(name))


def _holds_certificates(directories: str) -> bool:
    for directory in directories.split(os.pathsep):
        try:
            if any(_HASHED.fullmatch(entry.name) for entry in Path(directory).iterdir()):
                return True
        except OSError:
            continue
    return False


def _takes_keys() -> bool:
    """Whether the file to which Python writes the keys of TLS connections can be written."""
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).keylog_filename = os.environ["SSLKEYLOGFILE"]
    except OSError:
        return False
    return True


class Route:
    """Which requests go through the environment's proxy, and which go to their hosts directly.

    Args:
        scheme: of the requests.

    Raises:
        ConfigurationError: the variable of the proxy has no usable URL.
    """

    def __init__(self, scheme: str) -> None:
        # No local variable has the URL: error reporters show those, and it may have a password.
        self.proxy: Proxy | None = proxy_for(scheme, getproxies(), os.environ)
        self._no_proxy = getproxies().get("no", "")
        problem = None if self.proxy is None else proxy_problem(self.proxy)
        if self.proxy is not None and problem is not None:
            raise ConfigurationError(_refusal(self.proxy, problem))

    def is_direct(self, host: str, port: int) -> bool:
        """Whether a request to this host goes there directly."""
        return self.proxy is None or bypasses_proxy(self._no_proxy, host, port)

    def proxy_pool(
        self, ssl_context: ssl.SSLContext, keepalive: float
    ) -> httpcore.AsyncConnectionPool | None:
        """One connection through the proxy; None if there is no proxy.

        Raises:
            ConfigurationError: httpx or httpcore can't use this proxy.
        """
        if self.proxy is None:
            return None
        problem = "httpx doesn't take it"
        try:
            return _pool_through(self.proxy, ssl_context, keepalive)
        except ImportError:
            problem = "a SOCKS proxy needs the package socksio: pip install 'httpx[socks]'"
        except (ValueError, TypeError, httpx.InvalidURL):
            pass  # the error's text has the URL
        # Raised after the `except` block, or the error's context would hold the URL in its frames.
        raise ConfigurationError(_refusal(self.proxy, problem))


def _pool_through(
    proxy: Proxy, ssl_context: ssl.SSLContext, keepalive: float
) -> httpcore.AsyncConnectionPool:
    found = httpx.Proxy(proxy.url.reveal())  # separates user and password from the URL
    url = httpcore.URL(
        scheme=found.url.raw_scheme,
        host=found.url.raw_host,
        port=found.url.port,
        target=found.url.raw_path,
    )
    if proxy.is_socks:
        import_module("socksio")
        return httpcore.AsyncSOCKSProxy(
            url,
            found.raw_auth,
            ssl_context=ssl_context,
            max_connections=1,
            keepalive_expiry=keepalive,
        )
    return httpcore.AsyncHTTPProxy(
        url,
        found.raw_auth,
        ssl_context=ssl_context,
        # httpcore refuses a TLS context for a proxy that is reached without TLS.
        proxy_ssl_context=ssl_context if found.url.scheme == "https" else None,
        max_connections=1,
        keepalive_expiry=keepalive,
    )


def _refusal(proxy: Proxy, problem: str) -> str:
    return (
        f"{proxy.variable}: not a proxy that can be used: {problem}. Nothing was sent; correct "
        "the variable or unset it (its value isn't shown: it may hold a password)"
    )
