"""File names from segment names.

A segment's name is free text from a server. It may hold slashes, `..`, NUL, right-to-left marks, or
be empty (CVE-2019-20916: a path from a server's text). The readable part of it goes into the file's
name for people; the segment's id makes names distinct.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable

_UNFIT = re.compile(r"[^A-Za-z0-9._-]+")
_SLUG_LENGTH = 80

#: One slash is enough: pathlib merges the two of a URL. A single letter is a drive.
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]+):/")


def scheme_of(destination: str) -> str | None:
    """``s3`` for ``s3://bucket/x``; None for a path."""
    found = _SCHEME.match(destination)
    return found and found[1]


def slug(name: str) -> str:
    """The name in `[A-Za-z0-9._-]{1,80}`, without a dot or dash at its beginning."""
    plain = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    fit = re.sub(r"\.{2,}", ".", _UNFIT.sub("-", plain))
    return fit[:_SLUG_LENGTH].strip(".-_") or "segment"


def file_name(segment_id: str, name: str | None, *, whole_id: bool = False) -> str:
    """``{slug}-{first 8 of the id}.csv``, or with the whole id; without a name just the id."""
    if name is None:
        # `rm *.csv` would take a name that begins with a dash for an option.
        return f"{'segment' if segment_id.startswith('-') else ''}{segment_id}.csv"
    return f"{slug(name)}-{segment_id if whole_id else segment_id[:8]}.csv"


def file_names(segments: Iterable[tuple[str, str | None]]) -> dict[str, str]:
    """A distinct name for each (segment id, segment name), in file systems that ignore case too.

    Names that would be equal get the whole id. No other name depends on the other segments.
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
    """Number the names that are still equal but for their case, as ids may be."""
    seen: Counter[str] = Counter()
    apart: dict[str, str] = {}
    for sid, name in sorted(names.items()):
        seen[name.casefold()] += 1
        count = seen[name.casefold()]
        apart[sid] = name if count == 1 else f"{name.removesuffix('.csv')}~{count}.csv"
    return apart


def is_in(directory: str, path: str) -> bool:
    """Whether a path, as it is written, names a file in this directory itself."""
    before, slash, name = path.rpartition("/")
    return bool(slash) and before == directory.rstrip("/") and name not in ("", ".", "..")


def moved_path(path: str, directory: str, former: Collection[str]) -> str:
    """The path of a file whose directory was moved: in the present directory, by the same name.

    A path that is in none of the former directories stays as it is.
    """
    if not any(is_in(before, path) for before in former):
        return path
    return f"{directory.rstrip('/')}/{path.rpartition('/')[2]}"
