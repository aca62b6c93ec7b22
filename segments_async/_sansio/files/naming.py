"""File names from segment names.

A segment's name is free text from a server. It may hold slashes, `..`, NUL, right-to-left marks, or
be empty (CVE-2019-20916: a path from a server's text). The readable part of it goes into the file's
name for people; the segment's id makes names distinct.
"""

from __future__ import annotations

import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable

#: ASCII characters of no use in a file's name.
_UNFIT = re.compile(r"[\x00-,/:-@\[-^`{-\x7f]+")
_SLUG_LENGTH = 80
#: With the longest id, `.csv`, a number and `.part`, a name has 255 bytes at the most.
_SLUG_BYTES = 108
#: Letters and marks that nobody sees: a joiner and the fillers of Hangul and Khmer.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u3164\uffa0")

#: One slash is enough: pathlib merges the two of a URL. A single letter is a drive. Where a scheme
#: can't be meant as a directory's name, no slash is needed: rclone and restic write `s3:bucket/x`.
_SCHEME = re.compile(
    r"([A-Za-z][A-Za-z0-9+.-]+(?=:/)|(?i:s3[an]?|gc?s|az(?:ure)?|abfss?|wasbs?|sftp|file)):"
)


def scheme_of(destination: str) -> str | None:
    """``s3`` for ``s3://bucket/x``; None for a path."""
    found = _SCHEME.match(destination)
    return found and found[1]


def slug(name: str, encoding: str = "utf-8") -> str:
    """The readable part of a file's name: 80 characters at most, and 108 bytes in UTF-8.

    Of Latin letters, ASCII alone is left (`Köln` is `Koln`): so file names are typed anywhere.
    Letters and digits of other scripts stay as they are, in normal form C. Whatever else isn't one
    of `A-Za-z0-9._-` goes, or is a dash: control characters, marks of direction, emoji. No dot or
    dash is at the beginning.

    Args:
        encoding: of file names on this machine; characters that it lacks go, too.
    """
    kept = ""
    for char in unicodedata.normalize("NFC", name):
        plain = unicodedata.normalize("NFKD", char).encode("ascii", "ignore").decode()
        if plain:
            kept += plain
        elif _is_of_another_script(char, after=kept[-1:]) and char.encode(encoding, "ignore"):
            kept += char
    fit = re.sub(r"\.{2,}", ".", _UNFIT.sub("-", kept))
    return _shortened(fit).strip(".-_") or "segment"


def _is_of_another_script(char: str, *, after: str) -> bool:
    """Whether a letter, a digit, or a mark on one, of a script other than Latin."""
    if ord(char) < 0x80 or char in _INVISIBLE:
        return False
    kind = unicodedata.category(char)
    if kind[0] == "M":  # after a Latin letter, whose accents were removed, the mark goes too
        return not after.isascii() and not unicodedata.name(char, "").startswith("VARIATION")
    return (kind[0] == "L" and "LATIN" not in unicodedata.name(char, "LATIN")) or kind == "Nd"


def _shortened(text: str) -> str:
    cut = text[:_SLUG_LENGTH].encode()[:_SLUG_BYTES].decode(errors="ignore")
    if len(cut) < len(text) and unicodedata.category(text[len(cut)])[0] == "M":
        # A letter without its mark would be another letter.
        cut = cut.rstrip("".join(c for c in set(cut) if unicodedata.category(c)[0] == "M"))[:-1]
    return cut


def file_name(
    segment_id: str, name: str | None, *, whole_id: bool = False, encoding: str = "utf-8"
) -> str:
    """``{slug}-{first 8 of the id}.csv``, or with the whole id; without a name just the id."""
    if name is None:
        # `rm *.csv` would take a name that begins with a dash for an option.
        return f"{'segment' if segment_id.startswith('-') else ''}{segment_id}.csv"
    return f"{slug(name, encoding)}-{segment_id if whole_id else segment_id[:8]}.csv"


def file_names(
    segments: Iterable[tuple[str, str | None]], *, encoding: str = "utf-8"
) -> dict[str, str]:
    """A distinct name for each (segment id, segment name), in file systems that ignore case too.

    Names that would be equal get the whole id. No other name depends on the other segments.
    """
    pairs = list(segments)
    short = {sid: file_name(sid, name, encoding=encoding) for sid, name in pairs}
    taken = Counter(map(alike, short.values()))
    return _apart(
        {
            sid: file_name(sid, name, encoding=encoding, whole_id=taken[alike(short[sid])] > 1)
            for sid, name in pairs
        }
    )


def alike(name: str) -> str:
    """Equal for names that a file system may take for one: it may ignore case, or normal forms."""
    return unicodedata.normalize("NFC", name.casefold())


def _apart(names: dict[str, str]) -> dict[str, str]:
    """Number the names that are still equal but for their case, as ids may be."""
    seen: Counter[str] = Counter()
    apart: dict[str, str] = {}
    for sid, name in sorted(names.items()):
        seen[alike(name)] += 1
        count = seen[alike(name)]
        apart[sid] = name if count == 1 else f"{name.removesuffix('.csv')}~{count}.csv"
    return apart


def free_name(name: str, segment_id: str, taken: Collection[str]) -> str:
    """The name, or another one where a file of the same directory has it.

    Args:
        taken: names that other files have, each as `alike` gives it.
    """
    if alike(name) not in taken:
        return name
    stem = name.removesuffix(".csv")
    short = segment_id[:8]
    whole = f"{stem.removesuffix(short)}{segment_id}" if stem.endswith(f"-{short}") else stem
    for count in itertools.count(1):
        candidate = f"{whole}.csv" if count == 1 else f"{whole}~{count}.csv"
        if alike(candidate) not in taken:
            return candidate
    raise AssertionError("count() ends never")


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
