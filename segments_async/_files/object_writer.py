"""One object while it is written: a small one by one request, a large one in parts."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from segments_async._files.object_upload import MultipartUpload
from segments_async._filesystem.threads import NoThread
from segments_async.errors import DestinationError

if TYPE_CHECKING:
    from obstore import UpdateVersion

    from segments_async._files.object_storage import ObjectStorage

logger: logging.Logger = logging.getLogger("segments_async")

CONTENT_TYPE = {"Content-Type": "text/csv"}


class ObjectWriter:
    """Writes one object, for `ObjectStorage.open`.

    Args:
        part_size: bytes of each part.
        parts_at_once: parts that are sent at the same time.
        reserved: bytes of the storage's memory, given back at the end.
        replace: whether an object of this name may be replaced.
    """

    def __init__(
        self,
        storage: ObjectStorage,
        name: str,
        *,
        part_size: int,
        parts_at_once: int,
        reserved: int,
        metadata: Mapping[str, str],
        replace: bool,
    ) -> None:
        self._storage = storage
        self._name = name
        self._part_size = part_size
        self._parts_at_once = parts_at_once
        self._reserved = reserved
        self._metadata = metadata
        self._replace = replace
        self._buffer: list[bytes] = []
        self._size = 0
        self._upload: MultipartUpload | None = None
        #: The version that an upload in parts replaces; None where there was none.
        self._before: UpdateVersion | None = None

    async def write(self, data: bytes) -> None:
        """Take the next bytes; wait where the store is slower than they come."""
        self._size += len(data)
        if self._upload is None:
            self._buffer.append(data)
            if self._size <= self._part_size:
                return
            await self._start()
            return
        await self._put(self._upload, data)

    async def _start(self) -> None:
        """More than one part: begin an upload."""
        storage = self._storage
        self._before = await storage.version(self._name)
        try:
            self._upload = MultipartUpload(
                storage.store,
                self._name,
                {**CONTENT_TYPE, **self._metadata},
                part_size=self._part_size,
                parts_at_once=self._parts_at_once,
            )
        except NoThread as exc:
            raise storage.error(exc, self._name, "writing") from exc
        pieces, self._buffer = self._buffer, []
        for piece in pieces:
            await self._put(self._upload, piece)

    async def _put(self, upload: MultipartUpload, data: bytes) -> None:
        try:
            await upload.put(data)
        except Exception as exc:  # noqa: BLE001 - raised as what it means
            error = self._storage.error(exc, self._name, "writing")
        else:
            return
        raise error

    async def commit(self, metadata: Mapping[str, str]) -> None:
        """Make the object visible, whole."""
        if self._upload is None:
            await self._put_whole(metadata)
        else:
            await self._complete(self._upload)
        self._release()

    async def _put_whole(self, metadata: Mapping[str, str]) -> None:
        """An object of one part: one request, which has a condition where the store knows them."""
        wanted = {**self._metadata, **metadata}
        content, self._buffer = b"".join(self._buffer), []
        try:
            if not self._replace and not self._storage.conditional:
                await self._check_free()
            await self._storage.put(
                self._name,
                content,
                attributes={**CONTENT_TYPE, **wanted},
                create=not self._replace,
            )
        except DestinationError as exc:
            # A request whose answer was lost is repeated by obstore, and finds its own object.
            if exc.reason == "denied" or not await self._is_there(wanted):
                raise

    async def _complete(self, upload: MultipartUpload) -> None:
        if not self._replace:
            # No condition can be given for an upload in parts: another one may still come between.
            try:
                await self._check_free()
            except DestinationError as exc:
                if exc.reason != "exists" or not await self._is_there(self._metadata):
                    raise
                # An earlier attempt's, whose answer was lost while the store was away.
                await self._abort_upload(upload)
                return
        try:
            await upload.finish()
        except Exception as exc:  # noqa: BLE001 - raised below, as what it means
            error = self._storage.error(exc, self._name, "completing")
        else:
            return
        # The answer may have been lost: then the object is there, and the upload gone.
        if not await self._is_there(self._metadata, unlike=self._before):
            raise error
        logger.info("%s: the answer was lost, and the object is there", error)

    async def _check_free(self) -> None:
        if await self._storage.version(self._name) is not None:
            at = f"{self._storage.location}/{self._name}"
            raise DestinationError(
                f"{at} exists, although it did not when the run began; it was kept", reason="exists"
            )

    async def _is_there(
        self, metadata: Mapping[str, str], *, unlike: UpdateVersion | None = None
    ) -> bool:
        """Whether the object in the store is this one."""
        try:
            found = await self._storage.look(self._name)
        except DestinationError:
            return False
        return (
            found is not None
            and found.size == self._size
            and metadata.items() <= found.metadata.items()
            and (unlike is None or found.version != unlike)
        )

    async def abort(self) -> None:
        """Remove the parts that were uploaded."""
        upload, self._upload = self._upload, None
        self._buffer = []
        try:
            if upload is not None:
                await self._abort_upload(upload)
        finally:
            self._release()

    async def _abort_upload(self, upload: MultipartUpload) -> None:
        if not await upload.abort():
            logger.warning(
                "%s/%s: the parts of an unfinished upload could not be removed; they stay until "
                "the bucket's rule for incomplete multipart uploads removes them",
                self._storage.location,
                self._name,
            )

    def _release(self) -> None:
        reserved, self._reserved = self._reserved, 0
        if reserved:
            self._storage.memory.release(reserved)
