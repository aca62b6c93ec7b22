"""Object storage as the destination of files: Amazon S3 and what speaks its protocol, GCS, Azure.

obstore's functions are called in daemon threads, since its asynchronous ones work on asyncio alone.
obstore finds the credentials by itself, and renews temporary ones.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import anyio
import attrs

from segments_async._files.byte_budget import ByteBudget
from segments_async._files.daemon_thread import RustPanic, run_in_daemon
from segments_async._files.destination import StoredFile
from segments_async._files.object_lines import ObjectLines
from segments_async._files.object_writer import ObjectWriter
from segments_async._sansio.files.objects import part_size, store_error
from segments_async._sansio.files.urls import ObjectPlace
from segments_async.errors import ConfigurationError, DestinationError

try:
    import obstore
    from obstore import store as stores
    from obstore.exceptions import AlreadyExistsError, BaseError, PreconditionError
except ImportError as missing:
    raise ConfigurationError(
        "files in object storage need the extra `objects`: pip install 'segments-async[objects]'"
    ) from missing

if TYPE_CHECKING:
    from obstore import PutMode, UpdateVersion

logger: logging.Logger = logging.getLogger("segments_async")

T = TypeVar("T")

#: Bytes of all objects that are being written, in memory. An upload in parts has one part that is
#: sent and one that is filled.
MEMORY = 30 * 1024 * 1024

#: Parts sent at once of an upload that is alone.
_PARTS_OF_ONE = 2

#: Names up to which each is asked for. Of more, the prefix is listed, a thousand names a request.
_ASKED_EACH = 50
_ASKED_AT_ONCE = 16

#: An empty object, written before the first export is asked for. It stays: to delete it would need
#: one more right.
_PROBE = ".segments-async/probe"

_CLASSES: Mapping[str, str] = {"s3": "S3Store", "gs": "GCSStore", "az": "AzureStore"}

#: Time for a request with one part of 5 MiB on a slow line. obstore's 30 s would need 1.4 Mbit/s.
#: These settings join those of the environment: `client_options` would replace the environment's.
_CLIENT: Mapping[str, Any] = {"timeout": "180s", "connect_timeout": "10s"}

#: How long obstore repeats a request. After that the file waits, and is begun again.
_RETRY: Mapping[str, Any] = {
    "max_retries": 8,
    "retry_timeout": timedelta(seconds=60),
    "backoff": {
        "init_backoff": timedelta(milliseconds=100),
        "max_backoff": timedelta(seconds=10),
        "base": 2,
    },
}


@attrs.frozen
class Found:
    """An object in the store.

    Attributes:
        size: in bytes.
        version: its ETag, and its number where the store has one. GCS heeds that one alone.
        metadata: the user's.
    """

    size: int
    version: UpdateVersion
    metadata: Mapping[str, str]


class ObjectStorage:
    """A `Destination` in a bucket.

    Args:
        store: obstore's, with the prefix of the keys.
        location: the URL of bucket and prefix, without a slash at its end.

    Attributes:
        store: obstore's.
        memory: of the objects that are being written.
        conditional: whether the store heeds a write's condition; known once it was prepared.
    """

    def __init__(self, store: Any, location: str) -> None:
        self.store = store
        self._location = location
        self.memory: ByteBudget = ByteBudget(MEMORY)
        self._prepared = False
        self._lines: dict[str, ObjectLines] = {}
        self.conditional = True

    @classmethod
    def at(cls, place: ObjectPlace) -> ObjectStorage:
        """The storage of a URL, with the credentials and the endpoint of the environment.

        Raises:
            ConfigurationError: the environment's settings can't work.
        """
        _check_environment(place.scheme)
        prefix = {"prefix": place.prefix} if place.prefix else {}
        make: Callable[..., Any] = getattr(stores, _CLASSES[place.scheme])
        try:
            return cls(make(place.bucket, retry_config=_RETRY, **_CLIENT, **prefix), place.location)
        except (BaseError, ValueError) as exc:
            what = store_error(type(exc).__name__, str(exc)).text
        # Raised outside of the `except`: obstore's text may repeat a setting, such as a credential.
        raise ConfigurationError(
            f"{place.location}: the environment's settings for this store can't be used: {what}"
        )

    @property
    def location(self) -> str:
        return self._location

    async def prepare(self) -> None:
        """Write an empty object twice: are writes allowed, and are their conditions heeded?"""
        if self._prepared:
            return
        await self.put(_PROBE, b"", attributes={}, create=False)
        try:
            await self.put(_PROBE, b"", attributes={}, create=True)
        except DestinationError as exc:
            if exc.reason not in ("exists", "broken"):
                raise
            self.conditional = exc.reason == "exists"
        else:
            self.conditional = False
        if not self.conditional:
            logger.warning(
                "%s: the store ignores the conditions of a write. Two programs that write the same "
                "object may replace each other's, and lines of manifest.jsonl",
                self._location,
            )
        self._prepared = True

    async def find(self, names: Collection[str]) -> Mapping[str, StoredFile]:
        if len(names) > _ASKED_EACH:
            return await self.call(partial(self._listed, frozenset(names)), "", "listing")
        found: dict[str, StoredFile] = {}
        limiter = anyio.Semaphore(_ASKED_AT_ONCE)
        failed: list[DestinationError] = []

        async def ask(name: str) -> None:
            async with limiter:
                try:
                    head = await self._head(name)
                except DestinationError as exc:
                    failed.append(exc)
                    return
            if head is not None:
                found[name] = StoredFile(size=head["size"])

        async with anyio.create_task_group() as tasks:
            for name in names:
                tasks.start_soon(ask, name)
        if failed:
            raise failed[0]
        return found

    async def stat(self, name: str) -> StoredFile | None:
        found = await self.look(name)
        return None if found is None else StoredFile(size=found.size, metadata=found.metadata)

    async def open(
        self, name: str, *, size: int | None, metadata: Mapping[str, str], replace: bool
    ) -> ObjectWriter:
        part = part_size(size)
        at_once = _PARTS_OF_ONE if self.memory.free == MEMORY else 1
        wanted = size if size is not None and size <= part else (at_once + 1) * part
        reserved = await self.memory.acquire(wanted)
        return ObjectWriter(
            self,
            name,
            part_size=part,
            parts_at_once=at_once,
            reserved=reserved,
            metadata=metadata,
            replace=replace,
        )

    async def append(self, name: str, lines: Sequence[str]) -> None:
        log = self._lines.get(name)
        if log is None:
            log = self._lines[name] = ObjectLines(self, name)
        await log.add(lines)

    # ----------------------------------------------------------------- for writers

    async def put(
        self, name: str, data: bytes, *, attributes: Mapping[str, str], create: bool
    ) -> UpdateVersion:
        """Write an object by one request. Returns its version.

        Args:
            create: fail where there is one, if the store heeds that.
        """
        mode: PutMode = "create" if create and self.conditional else "overwrite"
        return await self._put(name, data, attributes, mode)

    async def replace(self, name: str, data: bytes, version: UpdateVersion) -> UpdateVersion:
        """Replace this version of an object.

        Raises:
            DestinationError: ``exists``: it has another version now, or was deleted.
        """
        return await self._put(name, data, {}, version if self.conditional else "overwrite")

    async def _put(
        self, name: str, data: bytes, attributes: Mapping[str, str], mode: PutMode
    ) -> UpdateVersion:
        def put() -> UpdateVersion:
            try:
                return _version(
                    obstore.put(
                        self.store,
                        name,
                        data,
                        attributes=dict(attributes),
                        mode=mode,
                        use_multipart=False,
                    )
                )
            except FileNotFoundError as exc:
                _check_bucket(exc)
            at = f"{self._location}/{name}"
            raise DestinationError(f"{at} was deleted meanwhile", reason="exists")

        return await self.call(put, name, "writing")

    async def read(self, name: str) -> tuple[bytes, UpdateVersion] | None:
        """An object's bytes and version; None where there is none."""

        def get() -> tuple[bytes, UpdateVersion]:
            result = obstore.get(self.store, name)
            return bytes(result.bytes()), _version(result.meta)

        return await self._found(get, name)

    async def look(self, name: str) -> Found | None:
        """An object's size, version and metadata; None where there is none."""

        def get() -> Found:
            result = obstore.get(self.store, name, options={"head": True})
            meta = {str(key): str(value) for key, value in result.attributes.items()}
            return Found(result.meta["size"], _version(result.meta), meta)

        return await self._found(get, name)

    async def version(self, name: str) -> UpdateVersion | None:
        """An object's version; None where there is none."""
        head = await self._head(name)
        return None if head is None else _version(head)

    async def _head(self, name: str) -> Any:
        return await self._found(partial(obstore.head, self.store, name), name)

    async def _found(self, get: Callable[[], T], name: str) -> T | None:
        """The result of `get`, which reads an object; None where there is no such object."""

        def found() -> T | None:
            try:
                return get()
            except FileNotFoundError as exc:
                _check_bucket(exc)
                return None

        return await self.call(found, name, "reading")

    def _listed(self, names: frozenset[str]) -> Mapping[str, StoredFile]:
        # One of its overloads has types of pyarrow.
        chunks: Iterable[Any] = obstore.list(self.store)  # pyright: ignore[reportUnknownMemberType]
        return {
            meta["path"]: StoredFile(size=meta["size"])
            for chunk in chunks
            for meta in chunk
            if meta["path"] in names
        }

    async def call(self, function: Callable[[], T], name: str, doing: str) -> T:
        """Call a function of obstore's in a daemon thread.

        Raises:
            DestinationError: what its error means.
        """
        try:
            return await run_in_daemon(function)
        except (BaseError, OSError, ValueError, DestinationError, RustPanic) as exc:
            error = self.error(exc, name, doing)
        raise error

    def error(self, exc: BaseException, name: str, doing: str) -> DestinationError:
        """What an error means.

        Raise it after the handler of the other one: obstore's text has the request's URL, which may
        be signed, or have a password, and a context that is hidden by `from None` is still there.
        """
        if isinstance(exc, DestinationError):
            return exc
        at = f"{self._location}/{name}" if name else self._location
        if isinstance(exc, AlreadyExistsError | PreconditionError):
            return DestinationError(
                f"{at} exists: another program has written it; it was kept", reason="exists"
            )
        meaning = store_error(type(exc).__name__, str(exc))
        return DestinationError(f"{doing} {at}: {meaning.text}", reason=meaning.reason)


#: Settings that go into requests as they are, by scheme. obstore panics at a newline in one.
_SENT = {
    "s3": (
        *("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION"),
        *("AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"),
    ),
    "gs": (),
    "az": ("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_SAS_KEY"),
}


def _check_environment(scheme: str) -> None:
    for name in _SENT[scheme]:
        value = os.environ.get(name, "")
        if value != value.strip() or not value.isprintable():
            del value  # error reporters show this frame's variables
            raise ConfigurationError(
                f"{name}: begins or ends with white space, or has a control character (a trailing "
                "newline?). Nothing was sent"
            )


def _version(meta: Mapping[str, Any]) -> UpdateVersion:
    version: UpdateVersion = {}
    if meta["e_tag"] is not None:
        version["e_tag"] = meta["e_tag"]
    if meta["version"] is not None:
        version["version"] = meta["version"]
    return version


def _check_bucket(exc: FileNotFoundError) -> None:
    """Raise the error again where the bucket is absent, not the object alone."""
    if store_error("FileNotFoundError", str(exc)).reason == "missing":
        raise exc
