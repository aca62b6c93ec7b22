"""Deliberately broken variants of the library, patched in at run time. Tests have to catch them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Mapping
from contextlib import AbstractContextManager
from typing import Any
from unittest import mock

import attrs

from segments_async._files import download
from segments_async._http import storage
from segments_async._requests.export_requests import ExportRequests
from segments_async._requests.gate import Gate
from segments_async._requests.permits import Permit
from segments_async._requests.shared_export import SharedExport
from segments_async._sansio.api.credentials import authorization
from segments_async._sansio.api.wire import ApiAnswer, ApiRequest
from segments_async._sansio.files.ranges import ObjectVersion, read_answer
from segments_async._sansio.jobs.lifecycle import Event
from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY


@contextlib.contextmanager
def intent_after_the_post() -> Generator[None]:
    """INTENT is recorded once the POST has been answered, or has broken."""
    notify = ExportRequests.notify
    send = Gate.send

    async def notify_of_all_but_intent(
        requests: ExportRequests, shared: SharedExport, event: Event
    ) -> None:
        if event is Event.INTENT:
            shared.posting = True
        else:
            await notify(requests, shared, event)

    async def send_then_tell(
        gate: Gate, permit: Permit, request: ApiRequest, **keywords: Any
    ) -> ApiAnswer:
        try:
            return await send(gate, permit, request, **keywords)
        finally:
            shared = permit.queued.target
            if request.body is not None and isinstance(shared, SharedExport):
                for follower in tuple(shared.followers):
                    await follower.record(shared, Event.INTENT)

    with (
        mock.patch.object(ExportRequests, "notify", notify_of_all_but_intent),
        mock.patch.object(Gate, "send", send_then_tell),
    ):
        yield


@contextlib.contextmanager
def no_length_check() -> Generator[None]:
    """The length that storage announces is ignored."""

    def read_without_length(*arguments: Any) -> Any:
        meaning = read_answer(*arguments)
        return attrs.evolve(meaning, total=None) if isinstance(meaning, ObjectVersion) else meaning

    with mock.patch.object(download, "read_answer", read_without_length):
        yield


@contextlib.contextmanager
def credentials_to_storage() -> Generator[None]:
    """The API's credentials are sent to storage."""

    def add_credentials(outgoing: Any) -> Any:
        outgoing.headers["authorization"] = authorization(PAGE_API_KEY, PAGE_ACCESS_TOKEN).reveal()
        return outgoing

    with mock.patch.object(storage, "_no_credentials", add_credentials):
        yield


#: By name: the variant, and a part of the complaint that has to catch it.
VARIANTS: Mapping[str, tuple[Callable[[], AbstractContextManager[None]], str]] = {
    "INTENT after the POST": (intent_after_the_post, "POSTs for"),
    "no length check": (no_length_check, "is not whole"),
    "credentials to storage": (credentials_to_storage, "credentials went to"),
}
