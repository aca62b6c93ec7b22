"""File names from segment names.

A segment's name is free text from a server: it may hold slashes, `..`, NUL, right-to-left marks, or
nothing at all (CVE-2019-20916: a path from server text). What remains of it here is for people;
what tells files apart is the id.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
_SLUG_LENGTH = 80

#: Also of what pathlib makes of a URL, by taking one of its slashes. One letter is a drive.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")


def scheme_of(destination: str) -> str | None:
    """``s3`` of ``s3://bucket/x``, and None of a path."""
    found = _SCHEME.match(destination)
    return found and found[1]


def slug(name: str) -> str:
    """The name in `[A-Za-z0-9._-]{1,80}`, neither hidden nor looking like an option."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    fit = re.sub(r"\.{2,}", ".", _UNFIT.sub("-", plain))
    return fit[:_SLUG_LENGTH].strip(".-_") or "segment"


def file_name(segment_id: str, name: str | None, *, whole_id: bool = False) -> str:
    """``{slug}-{first 8 of the id}.csv``, or with the whole id; without a name just the id."""
    if name is None:
        # To `rm *.csv`, a name that begins with a dash is an option.
        return f"{'segment' if segment_id.startswith('-') else ''}{segment_id}.csv"
    return f"{slug(name)}-{segment_id if whole_id else segment_id[:8]}.csv"


def file_names(segments: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """A name for each (segment id, segment name), no two alike, also where case doesn't count.

    A name depends on the others only where two would collide: both then get the whole id.
    """
    pairs = list(segments)
    short = {sid: file_name(sid, name) for sid, name in pairs}
    taken = Counter(value.casefold() for value in short.values())
    return _apart(
        {
            sid: file_name(sid, name, whole_id=taken[short[sid].casefold()] > 1)
            for sid, name in pairs
        }
    )


def _apart(names: dict[str, str]) -> dict[str, str]:
    """Number what still collides: ids that differ in case only, where a file system ignores it."""
    seen: Counter[str] = Counter()
    apart: dict[str, str] = {}
    for sid, name in sorted(names.items()):
        seen[name.casefold()] += 1
        count = seen[name.casefold()]
        apart[sid] = name if count == 1 else f"{name.removesuffix('.csv')}~{count}.csv"
    return apart


def is_in(directory: str, path: str) -> bool:
    """Whether a path is, as it is written, that of a file in this very directory."""
    before, slash, name = path.rpartition("/")
    return bool(slash) and before == directory.rstrip("/") and name not in ("", ".", "..")
