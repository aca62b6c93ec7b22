"""A proxy before the S3 server that has the faults of other stores, and of networks."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal
from urllib.parse import parse_qs, urlsplit

import attrs

#: A purpose of a request to S3.
Kind = Literal["put", "part", "create", "complete", "abort", "head", "list", "get"]


@attrs.frozen
class Answer:
    """What the proxy does with a request.

    Attributes:
        status: answered in the server's place; 0 for no answer at all.
        body: of that answer.
        acts: whether the server gets the request all the same.
    """

    status: int = 0
    body: str = ""
    acts: bool = False


def refusal(status: int, code: str, more: str = "") -> Answer:
    """An error as S3 words it."""
    text = f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>of the test</Message>{more}'
    return Answer(status, f"{text}</Error>")


class FaultyS3:
    """The server's side of the faults.

    Attributes:
        faults: answers to the next requests of a kind, in their order.
        always: the answer to each request of a kind.
        ignores_conditions: whether writes happen whatever they are conditional on.
        requests: the kind and the path of each request.
    """

    def __init__(self, server: str) -> None:
        self.server = urlsplit(server).netloc
        self.faults: list[tuple[Kind, Answer]] = []
        self.always: dict[Kind, Answer] = {}
        self.ignores_conditions = False
        self.requests: list[tuple[Kind, str]] = []
        self.on_request: Callable[[Kind, str], None] = lambda kind, path: None

    def count(self, kind: Kind) -> int:
        return [one for one, _ in self.requests].count(kind)

    def answer(self, kind: Kind, path: str) -> Answer | None:
        self.requests.append((kind, path))
        self.on_request(kind, path)
        for fault in self.faults:
            if fault[0] == kind and "/probe" not in path and "manifest" not in path:
                self.faults.remove(fault)
                return fault[1]
        return self.always.get(kind)

    @contextlib.contextmanager
    def serving(self) -> Iterator[str]:
        """The proxy's URL."""
        proxy = self

        class Handler(_Handler):
            faulty = proxy

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    faulty: FaultyS3
    protocol_version = "HTTP/1.1"

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        fault = self.faulty.answer(self._kind(), self.path)
        if fault is not None and not fault.acts:
            self._say(fault.status, {}, fault.body.encode())
            return
        status, headers, answer = self._forward(body)
        if fault is not None:
            status, headers, answer = fault.status, {}, fault.body.encode()
        self._say(status, headers, answer)

    do_GET = do_PUT = do_POST = do_DELETE = do_HEAD = handle_any  # noqa: N815

    def _kind(self) -> Kind:
        query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)
        kinds: dict[str, Kind] = {"POST": "complete", "DELETE": "abort", "HEAD": "head"}
        if self.command == "PUT":
            return "part" if "partNumber" in query else "put"
        if self.command == "POST" and "uploads" in query:
            return "create"
        if self.command == "GET":
            return "list" if "list-type" in query else "get"
        return kinds[self.command]

    def _forward(self, body: bytes) -> tuple[int, dict[str, str], bytes]:
        headers = dict(self.headers.items())
        if self.faulty.ignores_conditions:
            headers = {k: v for k, v in headers.items() if not k.lower().startswith("if-")}
        there = http.client.HTTPConnection(self.faulty.server)
        there.request(self.command, self.path, body, headers)
        answer = there.getresponse()
        text = answer.read()
        kept = {k: v for k, v in answer.getheaders() if k.lower() not in _HOP_BY_HOP}
        there.close()
        return answer.status, kept, text

    def _say(self, status: int, headers: dict[str, str], body: bytes) -> None:
        if not status:
            self.close_connection = True
            return
        self.send_response_only(status)
        for name, value in headers.items():
            if self.command == "HEAD" or name.lower() != "content-length":
                self.send_header(name, value)
        if self.command != "HEAD":
            self.send_header("content-length", str(len(body)))
        elif "content-length" not in {name.lower() for name in headers}:
            self.send_header("content-length", "0")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's
        """Nothing."""


_HOP_BY_HOP = frozenset({"connection", "transfer-encoding", "keep-alive", "server", "date"})
