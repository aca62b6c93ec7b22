"""The secrets in an error: local variables of all its frames, and of its causes' frames."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx

from segments_async import SegmentsClient
from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY, PAGE_EXPORT_ID, PAGE_SEGMENT_ID

TESTS = str(Path(__file__).parent)

BASIC = base64.b64encode(f"{PAGE_API_KEY}:{PAGE_ACCESS_TOKEN}".encode()).decode()
SIGNATURE = "f00dfacec0ffee"
LINK = f"https://b.s3.amazonaws.com/a.csv?X-Amz-Credential=AKIA&X-Amz-Signature={SIGNATURE}"

Answering = Callable[[httpx.Request], httpx.Response]


def an_export(filename: str | None = LINK, **changed: Any) -> dict[str, Any]:
    """A COMPLETE export as the vendor writes it."""
    segment = {
        "segmentId": PAGE_SEGMENT_ID,
        "name": "My Segment",
        "projectId": "a-project",
        "type": "Static",
    }
    return {
        "exportId": PAGE_EXPORT_ID,
        "segment": segment,
        "status": "COMPLETE",
        "startTime": "2026-04-09T14:45:07.000Z",
        "filename": filename,
        **changed,
    }


class Transport(httpx.AsyncBaseTransport):
    """Answers from a list; the vendor's answers have a body that is still to be read."""

    def __init__(self, answer: Answering) -> None:
        self._answer = answer

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await anyio.lowlevel.checkpoint()
        return self._answer(request)


@contextlib.asynccontextmanager
async def client_of(
    api: Answering, files: Answering, **options: Any
) -> AsyncIterator[SegmentsClient]:
    """A client with two such transports."""
    async with (
        httpx.AsyncClient(transport=Transport(api)) as api_http,
        httpx.AsyncClient(transport=Transport(files)) as files_http,
        SegmentsClient(
            PAGE_API_KEY,
            PAGE_ACCESS_TOKEN,
            http_client=api_http,
            file_http_client=files_http,
            **options,
        ) as client,
    ):
        yield client


def chain(error: BaseException) -> Iterator[BaseException]:
    """The error, its causes and contexts, hidden ones too, and the members of groups."""
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        todo += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            todo += one.exceptions


def given_away(error: BaseException) -> str:
    """All that an error reporter could show of an error, without the tests' own frames.

    More than reporters show: a context that is hidden by ``from None``, and attributes of errors.
    """
    shown = ""
    for one in chain(error):
        shown += f"{type(one).__name__} {one} {vars(one)} {getattr(one, '__notes__', '')}\n"
        traceback = one.__traceback__
        while traceback is not None:
            frame, traceback = traceback.tb_frame, traceback.tb_next
            if frame.f_code.co_filename.startswith(TESTS):
                continue
            for name, value in frame.f_locals.items():
                shown += f"{frame.f_code.co_filename} {frame.f_code.co_name} {name}={value!r}\n"
    return shown
