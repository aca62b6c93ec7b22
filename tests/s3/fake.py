"""A small S3 that refuses the requests that S3 refuses and moto accepts.

It checks signatures with botocore, on its own side, over the path as it came. It records what it
was sent.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

import attrs
from botocore.auth import S3SigV4QueryAuth  # type: ignore[import-untyped] # it has no types
from botocore.awsrequest import AWSRequest  # type: ignore[import-untyped] # it has no types
from botocore.credentials import Credentials  # type: ignore[import-untyped] # it has no types

ACCESS_KEY = "AKIAFAKEFAKEFAKEFAKE"
SECRET_KEY = "fake/secret/5ec4e7"

#: Of S3, for requests whose clock is wrong.
TOLERANCE = timedelta(minutes=15)


@attrs.frozen
class Asked:
    """One request and its answer."""

    target: str
    headers: dict[str, str]
    status: int
    code: str

    @property
    def query(self) -> dict[str, str]:
        return {name: values[0] for name, values in parse_qs(urlsplit(self.target).query).items()}

    @property
    def region(self) -> str | None:
        """The region of the signature; None without one."""
        scope = self.query.get("X-Amz-Credential")
        return scope.split("/")[2] if scope else None


@attrs.frozen
class Answer:
    status: int
    body: bytes = b""
    headers: dict[str, str] = attrs.field(factory=dict)
    code: str = ""


@attrs.define
class FakeS3:
    """One account's S3. All attributes may be changed while it serves.

    Attributes:
        objects: by bucket and key.
        region: where the buckets are.
        moved: asked for another region, it answers 301 instead of 400.
        public: without a signature, too.
        listable: whether a missing key is 404; else 403.
        offset: of its clock to this machine's.
        token: the session token that the credentials come with.
        instead: answers for the next requests, whatever they are.
        asked: what came.
    """

    objects: dict[tuple[str, str], bytes] = attrs.field(factory=dict)
    region: str = "us-east-1"
    moved: bool = False
    public: bool = False
    listable: bool = True
    offset: timedelta = timedelta()
    token: str | None = None
    instead: list[Answer] = attrs.field(factory=list)
    asked: list[Asked] = attrs.field(factory=list)
    url: str = ""

    @property
    def codes(self) -> list[tuple[int, str]]:
        return [(one.status, one.code) for one in self.asked]

    def answer(self, target: str, headers: dict[str, str]) -> Answer:
        answer = self.instead.pop(0) if self.instead else self._judged(target, headers)
        self.asked.append(Asked(target, headers, answer.status, answer.code))
        return answer

    def _judged(self, target: str, headers: dict[str, str]) -> Answer:
        parts = urlsplit(target)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        bucket, _, key = unquote(parts.path).removeprefix("/").partition("/")
        return self._refused(query, parts.path, headers) or self._found(bucket, key, headers)

    def _refused(self, query: dict[str, str], path: str, headers: dict[str, str]) -> Answer | None:
        if "X-Amz-Algorithm" not in query:
            if self.moved:
                return self._elsewhere()
            return None if self.public else error(403, "AccessDenied", "Access Denied")
        if "authorization" in headers:
            return error(400, "InvalidArgument", "Only one auth mechanism allowed; only the ...")
        key, _, region = query["X-Amz-Credential"].split("/")[:3]
        if key != ACCESS_KEY or query.get("X-Amz-Security-Token") != self.token:
            return error(403, "InvalidAccessKeyId", "The AWS Access Key Id does not exist")
        if region != self.region:
            if self.moved:
                return self._elsewhere()
            message = f"Error parsing the X-Amz-Credential; the region '{region}' is wrong"
            return error(400, "AuthorizationQueryParametersError", message, Region=self.region)
        return self._out_of_time(query) or self._forged(query, path, headers, region)

    def _elsewhere(self) -> Answer:
        answer = error(301, "PermanentRedirect", "must be addressed using the endpoint")
        return attrs.evolve(answer, headers={"x-amz-bucket-region": self.region})

    def _out_of_time(self, query: dict[str, str]) -> Answer | None:
        now = datetime.now(UTC) + self.offset
        begin = datetime.strptime(query["X-Amz-Date"], "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
        if begin > now + TOLERANCE:
            return error(403, "RequestTimeTooSkewed", "The difference ... is too large.")
        if begin + timedelta(seconds=int(query["X-Amz-Expires"])) <= now:
            return error(403, "AccessDenied", "Request has expired")
        return None

    def _forged(
        self, query: dict[str, str], path: str, headers: dict[str, str], region: str
    ) -> Answer | None:
        signed = {name: value for name, value in query.items() if name != "X-Amz-Signature"}
        encoded = "&".join(f"{name}={quote(value, safe='-_.~')}" for name, value in signed.items())
        request = AWSRequest(method="GET", url=f"http://{headers['host']}{path}?{encoded}")
        request.context["timestamp"] = query["X-Amz-Date"]
        auth = S3SigV4QueryAuth(Credentials(ACCESS_KEY, SECRET_KEY, self.token), "s3", region)
        text = auth.string_to_sign(request, auth.canonical_request(request))
        if auth.signature(text, request) == query["X-Amz-Signature"]:
            return None
        return error(403, "SignatureDoesNotMatch", "The request signature we calculated ...")

    def _found(self, bucket: str, key: str, headers: dict[str, str]) -> Answer:
        if bucket not in {name for name, _ in self.objects}:
            return error(404, "NoSuchBucket", "The specified bucket does not exist")
        content = self.objects.get((bucket, key))
        if content is not None:
            return Answer(200, content, {"etag": '"one"'})
        if self.listable:
            return error(404, "NoSuchKey", "The specified key does not exist.")
        return error(403, "AccessDenied", "Access Denied")


def error(status: int, code: str, message: str = "", **more: str) -> Answer:
    """An error as S3 prints it."""
    facts = {"Code": code, "Message": message, **more, "RequestId": "FAKE", "HostId": "fake"}
    inside = "".join(f"<{name}>{text}</{name}>" for name, text in facts.items())
    body = f'<?xml version="1.0" encoding="UTF-8"?>\n<Error>{inside}</Error>'
    return Answer(status, body.encode(), code=code)


@contextmanager
def serving(fake: FakeS3) -> Iterator[FakeS3]:
    """Serve it on loopback, on a free port."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            headers = {name.lower(): value for name, value in self.headers.items()}
            answer = fake.answer(self.path, headers)
            self.send_response(answer.status)
            for name, value in answer.headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(answer.body)))
            self.end_headers()
            self.wfile.write(answer.body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as its base has it
            """Log nothing: the record has the request."""

    class Server(ThreadingHTTPServer):
        daemon_threads = True

    with Server(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        fake.url = f"http://127.0.0.1:{server.server_port}"
        try:
            yield fake
        finally:
            server.shutdown()
            thread.join()
