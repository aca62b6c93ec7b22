"""`Destination`: the protocol of a place for files that is no directory, such as object storage.

The library's own object storage (``to="s3://bucket/prefix/"``) is one. A program may bring another:
any object with these five methods and the property.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, runtime_checkable

import attrs


@attrs.frozen(kw_only=True)
class StoredFile:
    """A file that is in a destination, whole.

    Attributes:
        size: in bytes.
        metadata: what :meth:`Destination.open` and :meth:`DestinationWriter.commit` were given of
            the file; empty where the destination doesn't keep it.
    """

    size: int
    metadata: Mapping[str, str] = attrs.field(factory=dict[str, str])


class DestinationWriter(Protocol):
    """One file while it is written. Nothing of it is visible before :meth:`commit`.

    Each method may raise :class:`DestinationError`, or OSError; the file is then begun again, or
    given up, after :meth:`abort`.
    """

    async def write(self, data: bytes) -> None:
        """Take the file's next bytes. The time that this takes slows the download down.

        Cancelled, where the run is left; then :meth:`abort` follows.
        """
        ...

    async def commit(self, metadata: Mapping[str, str]) -> None:
        """Make the file visible: all its bytes came, and are those that storage announced.

        Args:
            metadata: of the file: ``sha256`` in hex, of the bytes that were written, and
                ``verified``, ``"true"`` or ``"false"``, as of :class:`ExportedFile`.
        """
        ...

    async def abort(self) -> None:
        """Remove what was written. Called once where :meth:`commit` was not called, or failed."""
        ...


@runtime_checkable
class Destination(Protocol):
    """A place for the files of bulk exports.

    The methods are called from several tasks at once, in one event loop, asyncio's or trio's. Code
    that blocks belongs in ``anyio.to_thread.run_sync``.
    """

    @property
    def location(self) -> str:
        """The place as a URL without a slash at the end, such as ``"s3://bucket/prefix"``.

        The journal keeps it: the same place has to have the same URL in the next process. A URL
        with a user, a password or a query is refused, since the journal and the log show it. A
        file's own location is this, a slash, and the file's name.
        """
        ...

    async def prepare(self) -> None:
        """Check that files can be written. Nothing is asked of the vendor before this has returned.

        Raises:
            DestinationError: none can be.
        """
        ...

    async def find(self, names: Collection[str]) -> Mapping[str, StoredFile]:
        """Those of the names that are files now, by name. ``metadata`` may be left out."""
        ...

    async def stat(self, name: str) -> StoredFile | None:
        """The file of this name, with its metadata as far as the destination keeps it."""
        ...

    async def open(
        self, name: str, *, size: int | None, metadata: Mapping[str, str], replace: bool
    ) -> DestinationWriter:
        """Begin a file.

        Args:
            name: of the file, without a slash.
            size: in bytes; None where storage doesn't tell.
            metadata: of the file: ``exportid``.
            replace: whether a file of this name is replaced. False: the commit raises
                :class:`DestinationError` with ``reason="exists"`` where there is one by then.
        """
        ...

    async def append(self, name: str, lines: Sequence[str]) -> None:
        """Add lines to a text file, which begins with the first one: ``manifest.jsonl``.

        Other processes may add lines to the same file. Where this raises, or takes more than 75 s,
        the same lines come again with later ones.
        """
        ...
