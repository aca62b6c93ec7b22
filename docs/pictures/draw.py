"""Draws the pictures of the documentation, each from the code or from runs of the real client.

    python docs/pictures/draw.py            # all of them: minutes
    python docs/pictures/draw.py NAME...    # some of them, such as `who-may-send trace-window`
    python docs/pictures/draw.py --list     # their names

The diagrams need nothing but the library. The charts and the pictures of the command need the extra
`bench`. The same code gives the same bytes: no date, no random id, no font of one machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from types import MappingProxyType

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))

import journal_and_files
import life_of_an_export
import who_may_send

Draw = Callable[[], str]

#: Drawn from tables and constants of the code, in milliseconds.
DIAGRAMS: Mapping[str, Draw] = MappingProxyType(
    {
        "life-of-an-export": life_of_an_export.draw,
        "journal-and-files": journal_and_files.draw,
        "who-may-send": who_may_send.draw,
    }
)


def _trace(name: str) -> str:
    import pace_traces  # only here: needs matplotlib

    return pace_traces.draw(name)


#: Runs of the client in virtual time, some of them of thousands of exports.
TRACES = (
    "trace-discovery",
    "trace-moving",
    "trace-window",
    "trace-used-up",
    "trace-away",
)

PICTURES: Mapping[str, Draw] = MappingProxyType(
    {
        **DIAGRAMS,
        **{name: partial(_trace, name) for name in TRACES},
    }
)


def draw(name: str) -> None:
    """Draw one picture into its file."""
    (FOLDER / f"{name}.svg").write_text(PICTURES[name](), encoding="utf-8")
    print(name)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a picture; all by default")
    parser.add_argument("--list", action="store_true", help="print the names")
    options = parser.parse_args()
    names = options.names or list(PICTURES)
    if unknown := set(names) - set(PICTURES):
        parser.error(f"no such picture: {', '.join(sorted(unknown))}")
    if options.list:
        print(*PICTURES, sep="\n")
        return
    # A process for each picture: one run leaves nothing behind for the next one.
    with multiprocessing.get_context("spawn").Pool(2, maxtasksperchild=1) as pool:
        pool.map(draw, names, chunksize=1)


if __name__ == "__main__":
    main()
