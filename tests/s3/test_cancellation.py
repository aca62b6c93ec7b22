"""Cancelled at every await of a signed download, it leaves no response open."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import anyio
import anyio.lowlevel
import httpx
import pytest
from client.test_cancellation import Counted

from s3.fake import error
from s3.reading import read
from segments_async._files.s3 import S3Signer
from segments_async._http.clients import CallersClient
from segments_async._http.storage import Storage
from segments_async._sansio.files.links import check_link

ELSEWHERE = error(400, "AuthorizationHeaderMalformed", Region="eu-central-1").body


class Body(httpx.AsyncByteStream):
    """A few bytes at a time."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        self.closed = False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._content), 50):
            await anyio.lowlevel.checkpoint()
            yield self._content[at : at + 50]

    async def aclose(self) -> None:
        self.closed = True


@pytest.mark.usefixtures("credentials")
async def test_at_every_suspension() -> None:
    """While signing, asking, reading where the bucket is, signing again, or reading the file."""
    number = 0
    for number in range(1, 200):
        bodies: list[Body] = []
        got = None

        async def answer(request: httpx.Request, bodies: list[Body] = bodies) -> httpx.Response:
            await anyio.lowlevel.checkpoint()
            right = "eu-central-1" in request.url.host
            bodies.append(Body(b"user_id\n1\n" if right else ELSEWHERE))
            return httpx.Response(200 if right else 400, stream=bodies[-1])

        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            storage = Storage(
                CallersClient(http),
                partial(check_link, file_hosts=("*.amazonaws.com",), loopback=False),
                redirects=3,
                timeout=10.0,
                signer=S3Signer(),
            )
            with anyio.CancelScope() as scope:
                got = await Counted(read(storage, "s3://bucket/a.csv"), number, scope.cancel)
        assert all(body.closed for body in bodies)
        if not scope.cancel_called:
            assert got == (200, b"user_id\n1\n")
            assert len(bodies) == 2
            break
    assert 10 < number < 199
