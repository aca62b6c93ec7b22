"""What is written beside a part: of what it is a part, and which of its bytes are there.

No link, and nothing of one: a signed link is a credential.
"""

from __future__ import annotations

import json
from typing import Any, cast

import attrs

from segments_async._sansio.files.range_allocator import Ranges, with_range
from segments_async._sansio.files.ranges import ObjectVersion, is_sendable, is_strong

#: Bytes of a sidecar, always: a page, which a kill can't tear when it is written at once.
SIZE = 4096

_VERSION = 1

#: Ranges noted at most. What isn't noted is fetched again.
_MOST_RANGES = 64


@attrs.frozen
class PrefixHash:
    """What the beginning of a part hashes to: `size` bytes, and their SHA-256 in hex."""

    size: int
    sha256: str


@attrs.frozen(kw_only=True)
class Sidecar:
    """One part's state.

    Attributes:
        export_id: the export whose file it is.
        stored: the version of the file.
        held: the bytes that are there.
        boot_id: of the system when it was written; None where the system has none.
        synced: whether the bytes were made durable before this was written.
        inode: the number of the part's file; None where an earlier version wrote this.
        hashed: of the bytes that had been hashed; None likewise.
    """

    export_id: str
    version: ObjectVersion
    held: Ranges
    boot_id: str | None
    synced: bool
    inode: int | None = None
    hashed: PrefixHash | None = None

    def held_in(self, inode: int) -> Ranges:
        """The bytes that are there, if the part's file has this number.

        Another file in the part's place may be a copy of it, of which the hash speaks, as far as
        that goes, or somebody else's.
        """
        if self.inode is None or self.inode == inode:
            return self.held
        return with_range((), 0, self.hashed.size) if self.hashed and self.hashed.size else ()

    def trusted(self, boot_id: str | None) -> bool:
        """Whether the bytes are there for sure.

        A kill leaves what was written in the system's cache, a power failure doesn't.
        """
        return self.synced or (self.boot_id is not None and self.boot_id == boot_id)

    def dump(self) -> bytes:
        """As it is written."""
        document = {
            "version": _VERSION,
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
    """A sidecar as it was written; None where this isn't one."""
    try:
        document: object = json.loads(data)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or len(data) != SIZE:
        return None
    return _checked(cast("dict[str, Any]", document))


def _checked(document: dict[str, Any]) -> Sidecar | None:
    total, held = document.get("total"), _ranges(document.get("held"))
    texts = [document.get(name) for name in ("etag", "modified", "md5", "boot")]
    export_id = document.get("export")
    if (
        document.get("version") != _VERSION
        or not isinstance(export_id, str)
        or not isinstance(total, int)
        or not _is_count(total)
        or not all(text is None or isinstance(text, str) for text in texts)
        or held is None
        or (held and held[-1][1] > total)
    ):
        return None
    etag, modified, md5, boot_id = texts
    # Both go into request headers, where anything else would be refused as nobody's error.
    if (etag is not None and not is_strong(etag)) or (modified and not is_sendable(modified)):
        return None
    version = ObjectVersion(total=total, etag=etag, modified=modified, ranges=True, md5=md5)
    synced = document.get("synced") is True
    hashed, inode = _hashed(document.get("hashed")), document.get("inode")
    if not version.resumable or (inode is not None and not _is_count(inode)):
        return None
    if hashed is not None and (not held or held[0][0] or hashed.size > held[0][1]):
        hashed = None  # of bytes that it doesn't say are there
    return Sidecar(
        export_id=export_id,
        version=version,
        held=held,
        boot_id=boot_id,
        synced=synced,
        inode=inode,
        hashed=hashed,
    )


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
