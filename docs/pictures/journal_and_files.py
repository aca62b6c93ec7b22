"""Journal, part, sidecar, file and manifest of one export, in the order in which they are written.

The order is that of `_journal/run_log.py`, `_requests/export_requests.py`, `_files/part.py` and
`_run/outcomes.py`. Names of events and the sidecar's interval come from the code.
"""

from __future__ import annotations

from diagram import SMALL, Colour, Diagram

from segments_async._files.part import SIDECAR_INTERVAL
from segments_async._sansio.jobs.lifecycle import Event

WIDTH, HEIGHT = 520.0, 1099.0
TITLE = "Journal and files, step by step"
DESCRIPTION = (
    "Ten steps of one export in three columns: the journal, the vendor, the directory of files. "
    "The journal has INTENT before the POST, and ACCEPTED after it. Bytes go to a .part with a "
    ".part.json beside it. The part is checked, synced and renamed; then FETCHED is recorded, and "
    "a line is appended to manifest.jsonl. Below: what the next session does after a kill between "
    "two steps."
)

#: The left side and the width of each column.
JOURNAL, VENDOR, FILES = (14.0, 154.0), (186.0, 132.0), (336.0, 170.0)

#: The last step before a kill, the first one after it, and what the next session does.
KILLS = (
    ("1 and 3", "reports it as unknown. No second POST goes."),
    ("3 and 5", "polls for the export by its id."),
    ("5 and 8", "polls for a link, and continues the .part."),
    ("8 and 9", "downloads the file again, and replaces it."),
    ("9 and 10", "repeats the outcome, and writes its line."),
)


def draw() -> str:
    """The picture."""
    diagram = Diagram(WIDTH, HEIGHT, TITLE, DESCRIPTION)
    _draw_columns(diagram)
    _draw_request(diagram)
    _draw_download(diagram)
    _draw_end(diagram)
    _draw_kills(diagram)
    return diagram.svg()


def _draw_columns(diagram: Diagram) -> None:
    columns = (
        (JOURNAL, "Journal", "runs.db", ""),
        (VENDOR, "Vendor", "API, storage", ""),
        (FILES, "Directory of files", "exports/", "code"),
    )
    for (x, width), name, what, look in columns:
        diagram.text(x + width / 2, 30, name, "bold", anchor="middle", size=15)
        look = "code soft" if name == "Journal" else f"{look} soft".strip()
        diagram.text(x + width / 2, 48, what, look, anchor="middle", size=SMALL)
    diagram.rule(14, 60, WIDTH - 14, 60)
    diagram.rule(177, 20, 177, 856)
    diagram.rule(327, 20, 327, 856)


def _draw_request(diagram: Diagram) -> None:
    """Steps 1 to 5: from the intent to the vendor's COMPLETE."""
    _step(
        diagram,
        JOURNAL,
        76,
        f"1  {Event.INTENT.name}",
        "a POST will be sent,",
        "synced to the disk",
    )
    _go(diagram, JOURNAL, 108, VENDOR, 152)
    _step(diagram, VENDOR, 152, "2  POST", "an export begins", colour="plain")
    _go(diagram, VENDOR, 176, JOURNAL, 214)
    _step(diagram, JOURNAL, 214, f"3  {Event.ACCEPTED.name}", "the export's id")
    _go(diagram, JOURNAL, 238, VENDOR, 276)
    _step(diagram, VENDOR, 276, "4  polls", "until COMPLETE", colour="plain")
    _go(diagram, VENDOR, 300, JOURNAL, 338)
    _step(
        diagram,
        JOURNAL,
        338,
        f"5  {Event.COMPLETED.name}",
        "without the link,",
        "that is a credential",
    )


def _draw_download(diagram: Diagram) -> None:
    """Steps 6 to 8: from the first byte to the renamed file."""
    _go(diagram, JOURNAL, 370, VENDOR, 412)
    _step(diagram, VENDOR, 412, "6  storage", "sends the bytes", colour="plain")
    diagram.arrow(((VENDOR[0] + VENDOR[1], 436), (FILES[0], 436)))
    x, width = FILES
    diagram.box(
        x,
        408,
        width,
        [("Name.csv.part", "code"), "bytes so far; locked"],
        colour="green",
        dashed=True,
    )
    sidecar = [
        ("Name.csv.part.json", "code"),
        "which bytes, of which",
        "version, their hash;",
        f"renewed every {SIDECAR_INTERVAL:g} s",
    ]
    height = diagram.box(x, 466, width, sidecar, colour="green", dashed=True)
    below = 466 + height
    diagram.arrow(((x + width / 2, below), (x + width / 2, below + 26)))
    _step(
        diagram,
        FILES,
        below + 26,
        "7  checked",
        "length, and MD5",
        "where announced;",
        ".part synced",
    )
    diagram.arrow(((x + width / 2, below + 107), (x + width / 2, below + 133)))
    _step(
        diagram,
        FILES,
        below + 133,
        "8  renamed",
        ".part.json removed,",
        ".part to Name.csv,",
        "directory synced",
    )


def _draw_end(diagram: Diagram) -> None:
    """Steps 9 and 10: the journal and the manifest know the file."""
    _go(diagram, FILES, 740, JOURNAL, 784)
    _step(diagram, JOURNAL, 784, f"9  {Event.FETCHED.name}", "path, size, sha256")
    diagram.arrow(((JOURNAL[0] + JOURNAL[1], 808), (FILES[0], 808)))
    x, width = FILES
    lines = ["10  a line in", ("manifest.jsonl", "code"), "for the outcome"]
    diagram.box(x, 808 - 24, width, lines, colour="green")


def _draw_kills(diagram: Diagram) -> None:
    diagram.rule(14, 868, WIDTH - 14, 868)
    diagram.text(18, 892, "Killed between", "bold orange")
    diagram.text(146, 892, "the next session of the run", "bold")
    y = 916.0
    for between, then in KILLS:
        diagram.text(18, y, between, "orange", size=SMALL)
        y = diagram.paragraph(146, y, (then,)) + 3
    notes = (
        "Arrows show the order. Dashed: files that are there for a time.",
        "Each row of the journal is synced to the disk.",
        "Beside the files, .segments-async/seen-*.json has the number of the",
        "journal's events. So an older copy of the journal is recognized.",
    )
    diagram.paragraph(18, y + 10, notes, "soft")


def _step(
    diagram: Diagram,
    column: tuple[float, float],
    y: float,
    *lines: str,
    colour: Colour | None = None,
) -> None:
    own: Colour = "blue" if column is JOURNAL else "green"
    diagram.box(column[0], y, column[1], lines, colour=colour or own)


def _go(
    diagram: Diagram,
    source: tuple[float, float],
    y: float,
    target: tuple[float, float],
    to_y: float,
) -> None:
    """An arrow out of a box's side, into the top of a box in another column."""
    rightwards = target[0] > source[0]
    side = source[0] + source[1] if rightwards else source[0]
    middle = target[0] + target[1] / 2
    diagram.arrow(((side, y), (middle, y), (middle, to_y)))
