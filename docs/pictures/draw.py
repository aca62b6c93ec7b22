"""Draws the pictures of the documentation, each from the code or from runs of the real client.

    python docs/pictures/draw.py            # all of them: minutes
    python docs/pictures/draw.py NAME...    # some of them, such as `who-may-send trace-window`
    python docs/pictures/draw.py --list     # their names

The diagrams need nothing but the library, the pictures of the command the extra `dev`, and the
charts the extra `bench`. The dashboard needs both, and the programs `prometheus` and `promtool`.
The same code gives the same bytes: no date, no random id, no font of one machine.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from types import MappingProxyType

FOLDER = Path(__file__).resolve().parent
sys.path.insert(0, str(FOLDER))

import journal_and_files
import life_of_an_export
import who_may_send

#: Drawn from tables and constants of the code, in milliseconds.
DIAGRAMS: Mapping[str, Callable[[], str]] = MappingProxyType(
    {
        "life-of-an-export": life_of_an_export.draw,
        "journal-and-files": journal_and_files.draw,
        "who-may-send": who_may_send.draw,
    }
)

#: What the command prints, in virtual time: a second or two for each.
TERMINALS = (
    "cli-help",
    "cli-list",
    "cli-export",
    "cli-held",
    "cli-summary-with-failures",
    "cli-runs",
)

#: Runs of the client in virtual time, some of them of thousands of exports: a minute.
TRACES = (
    "trace-discovery",
    "trace-moving",
    "trace-window",
    "trace-used-up",
    "trace-away",
)

#: Clients of benchmarks/pacing.py: both pictures from the same runs, some minutes.
COMPARISONS = ("makespan", "throttled")

#: docs/grafana.json over a run in virtual time, by a Prometheus of its own: half a minute.
DASHBOARD = "dashboard"

NAMES = (*DIAGRAMS, *TERMINALS, *TRACES, DASHBOARD, *COMPARISONS)


def draw(name: str) -> dict[str, str]:
    """The files' texts, by their names: of one picture, or of two that have the same runs."""
    if name in DIAGRAMS:
        return {name: DIAGRAMS[name]()}
    # Imported here: these need packages that the diagrams don't need.
    if name in TERMINALS:
        import terminal

        return {name: terminal.draw(name)}
    if name in TRACES:
        import pace_traces

        return {name: pace_traces.draw(name)}
    if name == DASHBOARD:
        import dashboard

        return dashboard.draw()
    import pace_compared

    return pace_compared.draw()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help="of a picture; all by default")
    parser.add_argument("--list", action="store_true", help="print the names")
    options = parser.parse_args()
    if unknown := set(options.names) - set(NAMES):
        parser.error(f"no such picture: {', '.join(sorted(unknown))}")
    if options.list:
        print(*NAMES, sep="\n")
        return
    chosen = [name for name in NAMES if name in (options.names or NAMES)]
    if set(COMPARISONS) <= set(chosen):
        chosen.remove(COMPARISONS[1])
    # A process for each picture: one run leaves nothing behind for the next one.
    with ProcessPoolExecutor(2, get_context("spawn"), max_tasks_per_child=1) as processes:
        for files in processes.map(draw, chosen):
            for name, text in files.items():
                (FOLDER / f"{name}.svg").write_text(text, encoding="utf-8")
                print(name)


if __name__ == "__main__":
    main()
