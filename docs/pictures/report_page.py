"""Draws docs/pictures/report.png: the page of a night's run that never was, in Chromium.

    python docs/pictures/report_page.py

Needs the extra `dev`, and Chromium. The night is the one that the page's tests have
(tests/report/made.py): 300 exports, an answer of 500, some 429s, and a few failures.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from report.browser import Tabs, chromium
from report.made import Night

PICTURE = ROOT / "docs/pictures/report.png"
WIDTH, HEIGHT = 1000, 1500


def main() -> None:
    with chromium() as browser, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        path.write_text(Night(300, faults=0.012).report().to_html(), "utf-8")
        with Tabs(browser).showing(path, width=WIDTH) as shown:
            shown.page.set_viewport_size({"width": WIDTH, "height": HEIGHT})
            frame = "new Promise(done => requestAnimationFrame(() => setTimeout(done)))"
            shown.page.evaluate(frame)
            shown.page.screenshot(path=PICTURE)
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main()
