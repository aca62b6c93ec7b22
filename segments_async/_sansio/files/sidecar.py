"""The file beside a part: the version of the object, and which of its bytes the part has.

It holds no link, nor any part of one: a signed link is a credential.
"""

from __future__ import annotations

import json
from typing import Any, cast

import attrs

from segments_async._sansio.files.range_allocator import Ranges, prefix_of, with_range
from segments_async._sansio.files.ranges import ObjectVersion, is_sendable, is_strong

#: Bytes of every sidecar. A kill can't interrupt a single write of one page.
SIZE = 4096

_FORMAT = 1

#: Ranges listed at most. Bytes in other ranges are fetched again.
_MOST_RANGES = 64


@attrs.frozen
class PrefixHash:
    """The SHA-256, in hex, of the first `size` bytes of a part."""

    size: int
    sha256: str


@attrs.frozen(kw_only=True)
class Sidecar:
    """The state of one part, when the sidecar was written.

    Attributes:
        export_id: the export whose file the part is of.
        version: of the object in storage.
        held: the ranges of bytes that are in the part.
        boot_id: of the system when the sidecar was written; None where the system has none.
        synced: whether these bytes were made durable before the sidecar was written.
        inode: the number of the part's file; None in a sidecar of an earlier version.
        hashed: the bytes that had been hashed, and their hash; None where there were none.
    """

    export_id: str
    version: ObjectVersion
    held: Ranges
    boot_id: str | None
    synced: bool
    inode: int | None = None
    hashed: PrefixHash | None = None

    def held_in(self, inode: int) -> Ranges:
        """The ranges that a part of this inode has.

        A file with another inode may be a copy of the part, or a foreign file. Of such a file
        only the hashed bytes count, which the next download compares with their hash.
        """
        if self.inode is None or self.inode == inode:
            return self.held
        return with_range((), 0, self.hashed.size) if self.hashed and self.hashed.size else ()

    def trusted(self, boot_id: str | None) -> bool:
        """Whether the listed bytes are in the part for certain.

        After a kill the system still has the written bytes in its cache; after a power failure it
        doesn't.
        """
        return self.synced or (self.boot_id is not None and self.boot_id == boot_id)

    def dump(self) -> bytes:
        """The sidecar's bytes."""
        document = {
            "version": _FORMAT,
            "export": self.export_id,
            "total": self.version.total,
            "etag": self.version.etag,
            "modified": self.version.modified,
            "md5": self.version.md5,
            "held": [number for pair in self.held[:_MOST_RANGES] for number in pair],
            "boot": self.boot_id,
            "synced": self.synced,
            "inode": self.inode,
            "hashed": None if self.hashed is None else [self.hashed.size, self.hashed.sha256],
        }
        data = json.dumps(document, separators=(",", ":")).encode()
        return data.ljust(SIZE - 1) + b"\n"


def load(data: bytes) -> Sidecar | None:
    """The sidecar; None if the bytes aren't one."""
    try:
        document: object = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or len(data) != SIZE:
        return None
    return _checked(cast("dict[str, Any]", document))


def _checked(document: dict[str, Any]) -> Sidecar | None:
    version, held = _version_in(document), _ranges(document.get("held"))
    export_id, boot_id = document.get("export"), document.get("boot")
    inode, hashed = document.get("inode"), _hashed(document.get("hashed"))
    if version is None or held is None or not isinstance(export_id, str):
        return None
    if not isinstance(boot_id, str | None) or not (inode is None or _is_count(inode)):
        return None
    if held and held[-1][1] > (version.total or 0):
        return None
    if hashed is not None and hashed.size > prefix_of(held):
        hashed = None  # the hash covers bytes that the sidecar doesn't list
    return Sidecar(
        export_id=export_id,
        version=version,
        held=held,
        boot_id=boot_id,
        synced=document.get("synced") is True,
        inode=inode,
        hashed=hashed,
    )


def _version_in(document: dict[str, Any]) -> ObjectVersion | None:
    if document.get("version") != _FORMAT or not _is_count(document.get("total")):
        return None
    etag, modified, md5 = (document.get(name) for name in ("etag", "modified", "md5"))
    if not all(isinstance(text, str | None) for text in (etag, modified, md5)):
        return None
    # `etag` and `modified` go into request headers, where httpx raises for other characters.
    if (etag is not None and not is_strong(etag)) or not is_sendable(modified or "-"):
        return None
    version = ObjectVersion(
        total=document["total"], etag=etag, modified=modified, ranges=True, md5=md5
    )
    return version if version.resumable else None


def _hashed(value: object) -> PrefixHash | None:
    match value:
        case [int(size), str(sha256)] if _is_count(size) and size:
            return PrefixHash(size, sha256)
        case _:
            return None


def _ranges(value: object) -> Ranges | None:
    if not isinstance(value, list) or len(cast("list[object]", value)) % 2:
        return None
    if not all(_is_count(number) for number in cast("list[object]", value)):
        return None
    numbers = cast("list[int]", value)
    ranges: Ranges = ()
    for start, stop in zip(numbers[::2], numbers[1::2], strict=True):
        ranges = with_range(ranges, start, stop)
    return ranges


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 2**63
