"""The page of a run: its size, the processor time to make it, the time until it can be used.

The pages are opened in the system's Chromium (`/usr/bin/chromium` and the like). "Usable" is the
time from the navigation until pictures and table are drawn; the three others are from an action to
the next frame after it. Prints a table, and exits 1 when a goal is missed at 10 000 exports.

    python benchmarks/report.py
    python benchmarks/report.py --rounds 9 --large
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import attrs

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from playwright.sync_api import Browser
from report.browser import Tabs, chromium, program
from report.made import Night

COUNTS = (12, 500, 10_000)

#: At the largest count, at most: bytes, and seconds.
MOST_BYTES = 3_000_000
MOST_SECONDS = 2.0

#: Milliseconds from an action until the frame after it is drawn.
_TIMED = """async (act) => {
  const frame = () => new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
  await frame();
  const begin = performance.now();
  new Function(act)();
  await frame();
  return performance.now() - begin;
}"""
ACTIONS = {
    "search": """const search = document.getElementById("search");
        search.value = "newsletter 1"; search.dispatchEvent(new Event("input"));""",
    "sort": 'document.querySelector("#table [data-by=name]").click();',
    "zoom": 'document.getElementById("in").click();',
}


@attrs.frozen
class Measured:
    """One page: seconds, but for the size in bytes."""

    count: int
    size: int
    made: float
    usable: float
    slowest: float
    actions: dict[str, float]


def measured(count: int, browser: Browser, folder: Path, rounds: int) -> Measured:
    report = Night(count).report()
    made, usable = [], []
    actions: dict[str, list[float]] = {name: [] for name in ACTIONS}
    path = folder / f"{count}.html"
    for _ in range(rounds):
        begin = time.process_time()
        html = report.to_html()
        made.append(time.process_time() - begin)
        path.write_text(html, "utf-8")
        # The page's own policy has to be put aside for `new Function` above.
        with Tabs(browser).showing(path, bypass_csp=True) as shown:
            drawn: Any = shown.page.evaluate("performance.getEntriesByName('drawn')[0].startTime")
            usable.append(drawn / 1000)
            for name, act in ACTIONS.items():
                actions[name].append(shown.page.evaluate(_TIMED, act) / 1000)
    return Measured(
        count,
        path.stat().st_size,
        statistics.median(made),
        statistics.median(usable),
        max(usable),
        {name: statistics.median(seconds) for name, seconds in actions.items()},
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--large", action="store_true", help="100 000 exports, too")
    arguments = parser.parse_args()
    rounds, counts = arguments.rounds, (*COUNTS, *((100_000,) if arguments.large else ()))
    if program() is None:
        print("Chromium is not installed")
        return 2
    with chromium() as browser, tempfile.TemporaryDirectory() as folder:
        print(f"Chromium {browser.version}, medians of {rounds} rounds\n")
        found = [measured(count, browser, Path(folder), rounds) for count in counts]
    print(
        "| exports | size | made in (processor) | usable after | slowest | search | sort | zoom |"
    )
    print("|--:|--:|--:|--:|--:|--:|--:|--:|")
    for one in found:
        acts = " | ".join(f"{1000 * seconds:.0f} ms" for seconds in one.actions.values())
        print(
            f"| {one.count:,} | {one.size / 1e6:.2f} MB | {one.made:.2f} s | {one.usable:.2f} s "
            f"| {one.slowest:.2f} s | {acts} |".replace(",", " ")
        )
    last = found[len(COUNTS) - 1]
    kept = last.size <= MOST_BYTES and last.usable <= MOST_SECONDS
    print(
        f"\nAsked at {last.count} exports: at most {MOST_BYTES / 1e6:g} MB, usable within "
        f"{MOST_SECONDS:g} s: {'kept' if kept else 'MISSED'}"
    )
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
