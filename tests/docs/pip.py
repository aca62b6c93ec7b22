"""`pip install NAME...` on a page: whether the environment has it, in a tenth of pip's own time.

All that a page installs is in the environment already. Without an index, pip only finds that out.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, distribution

from packaging.requirements import InvalidRequirement, Requirement


def lacking(wanted: Requirement) -> Iterator[str]:
    """What the environment lacks of a package and its extras."""
    try:
        found = distribution(wanted.name)
    except PackageNotFoundError:
        yield wanted.name
        return
    if not wanted.specifier.contains(found.version, prereleases=True):
        yield f"{wanted} (there is {found.version})"
    for extra in wanted.extras:
        if extra not in found.metadata.get_all("Provides-Extra", ()):
            yield f"{wanted.name}[{extra}]"
        for line in found.requires or ():
            needed = Requirement(line)
            marker = needed.marker
            if marker and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""}):
                yield from lacking(needed)


def main() -> None:
    try:
        names = [Requirement(one) for one in sys.argv[2:] if one not in ("-q", "--quiet")]
    except InvalidRequirement:  # a directory, or an option
        names = []
    if sys.argv[1:2] != ["install"] or not names:
        os.execv(sys.executable, [sys.executable, "-m", "pip", *sys.argv[1:]])
    if missing := [one for name in names for one in lacking(name)]:
        sys.exit(f"not installed: {', '.join(missing)}")


if __name__ == "__main__":
    main()
