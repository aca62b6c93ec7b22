"""Read the file of a link."""

from __future__ import annotations

from collections.abc import Mapping

from segments_async._http.storage import Storage
from segments_async._sansio.files.storage_errors import StorageError, storage_error


async def read(
    storage: Storage, link: str, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Status and body of the answer to the link."""
    async with storage.get(link, headers or {}) as answer:
        return answer.status, b"".join([chunk async for chunk in answer.chunks])


async def refused(storage: Storage, link: str) -> StorageError:
    """The refusal in the answer to the link."""
    async with storage.get(link) as answer:
        body = b"".join([chunk async for chunk in answer.chunks])
        assert answer.status >= 300
        return storage_error(answer.status, answer.headers, body)
