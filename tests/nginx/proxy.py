"""nginx as a child process: a reverse proxy with a limit on requests."""

from __future__ import annotations

import os
import socket
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

#: Seconds that nginx may take to start, or to end.
_PATIENCE = 60.0

# One process in the foreground, so that there is nothing to leave behind; every path is below the
# prefix, so that it runs as any user. Debian's build would otherwise want /var/lib/nginx, which
# only root may write to.
_CONFIG = """\
daemon off;
master_process off;
pid nginx.pid;
error_log error.log;

events {{
    worker_connections 256;
}}

http {{
    client_body_temp_path temp/body;
    proxy_temp_path temp/proxy;
    fastcgi_temp_path temp/fastcgi;
    uwsgi_temp_path temp/uwsgi;
    scgi_temp_path temp/scgi;

    log_format requests '$status $request_method $uri';
    access_log access.log requests;

    # Per account, as the vendor's limit is taken to be.
    limit_req_zone $http_authorization zone=account:1m rate={rate}r/s;
    limit_req_status 429;

    server {{
        listen 127.0.0.1:{port};
        location / {{
            limit_req zone=account burst={burst} nodelay;
            proxy_pass {upstream};
        }}
    }}
}}
"""


class LimitingProxy:
    """``with LimitingProxy(...) as proxy:`` and the limited vendor is at ``proxy.base_url``.

    Args:
        upstream: the origin that admitted requests go to.
        prefix: an empty directory for the configuration, logs and temporary files.
        rate: requests/s that are admitted.
        burst: requests that may come at once besides.
    """

    def __init__(self, upstream: str, prefix: Path, *, rate: int, burst: int) -> None:
        self._prefix = prefix
        self._port = _free_port()
        (prefix / "temp").mkdir()
        config = _CONFIG.format(rate=rate, burst=burst, port=self._port, upstream=upstream)
        (prefix / "nginx.conf").write_text(config)

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def answers(self) -> list[tuple[int, str, str]]:
        """Status, method and path of every request in nginx's log, in the answers' order."""
        lines = (self._prefix / "access.log").read_text().splitlines()
        return [
            (int(status), method, path)
            for status, method, path in (line.split(" ", 2) for line in lines)
        ]

    def __enter__(self) -> Self:
        # `-e`: until the configuration is read, messages go to the file that was compiled in.
        command = ["nginx", "-e", "stderr", "-p", f"{self._prefix}{os.sep}", "-c", "nginx.conf"]
        with (self._prefix / "stderr.log").open("wb") as complaints:
            self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=complaints)
        try:
            self._wait_until_it_listens()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stop()

    def _wait_until_it_listens(self) -> None:
        address = urlsplit(self.base_url)
        deadline = time.monotonic() + _PATIENCE
        while True:
            if self._process.poll() is not None:
                raise RuntimeError(f"nginx has left: {self._complaints()}")
            try:
                socket.create_connection((address.hostname, self._port), timeout=1).close()
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)
            else:
                return

    def _stop(self) -> None:
        self._process.terminate()
        try:
            self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _complaints(self) -> str:
        logs = (self._prefix / name for name in ("stderr.log", "error.log"))
        return "".join(log.read_text() for log in logs if log.exists())


def _free_port() -> int:
    """A free port: nginx can't choose one itself."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
