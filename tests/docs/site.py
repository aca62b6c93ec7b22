"""The documentation's site, built once for all tests, and what a reader finds in it."""

from __future__ import annotations

import fcntl
import re
import subprocess
import sys
import zlib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import attrs

from .pages import ROOT

SOURCE = ROOT / "docs"

#: Warnings are errors, and so is each type and each link that leads nowhere.
COMMAND = ("-m", "sphinx", "-q", "-W", "--keep-going", "-n", "-b", "html")

#: What `.ci/run` builds as well, and what takes half of the build's time: Markdown for llms.txt.
LEFT_OUT = ("-D", "llms_txt_enabled=0")


def build(shared: Path) -> Path:
    """The site's folder; the first of the processes that ask builds it, the others wait."""
    site = shared / "site"
    with (shared / "site.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not site.exists():
            built = subprocess.run(
                [sys.executable, *COMMAND, *LEFT_OUT, "-d", shared / "doctrees", SOURCE, site],
                capture_output=True,
                text=True,
                check=False,
            )
            (site / "warnings.txt").write_text(built.stderr if built.returncode else "")
    return site


def names(site: Path) -> set[str]:
    """The Python names that have an entry on a page."""
    *_header, packed = (site / "objects.inv").read_bytes().split(b"\n", 4)
    entries = [line.split() for line in zlib.decompress(packed).decode().splitlines()]
    return {name for name, role, *_ in entries if role.startswith("py:")}


def parts() -> dict[str, list[str]]:
    """The pages of each part of the index, by the part's caption."""
    found: dict[str, list[str]] = {}
    for block in re.findall(r"^```\{toctree\}\n(.*?)^```", _index(), re.MULTILINE | re.DOTALL):
        caption = re.search(r"^:caption: (.*)$", block, re.MULTILINE)
        assert caption is not None
        entries = [line for line in block.splitlines() if line and not line.startswith(":")]
        found[caption[1]] = [re.sub(r".*<(.*)>", r"\1", entry) for entry in entries]
    return found


def _index() -> str:
    return (SOURCE / "index.md").read_text()


@attrs.define
class Rendered(HTMLParser):
    """A page of the site: its text, the places it has, and the links it makes."""

    words: int = 0
    anchors: set[str] = attrs.field(factory=set[str])
    links: list[str] = attrs.field(factory=list[str])
    _articles: int = 0

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self._articles += tag == "article"
        if given.get("id"):
            self.anchors.add(given["id"] or "")
        if tag == "a" and given.get("href"):
            self.links.append(given["href"] or "")

    def handle_endtag(self, tag: str) -> None:
        self._articles -= tag == "article"

    def handle_data(self, data: str) -> None:
        if self._articles:
            self.words += len(data.split())


def rendered(page: Path) -> Rendered:
    parser = Rendered()
    parser.feed(page.read_text())
    return parser


def words(site: Path, pages: list[str]) -> int:
    return sum(rendered(site / f"{page}.html").words for page in pages)


def dead_links(site: Path) -> Iterator[str]:
    """Links from page to page, or within one, that lead nowhere."""
    pages = {page: rendered(page) for page in site.glob("*.html")}
    for page, content in pages.items():
        for link in content.links:
            if re.match(r"[a-z]+:", link):
                continue
            path, _, anchor = link.partition("#")
            target = (page.parent / path).resolve() if path else page
            missing = target in pages and anchor and anchor not in pages[target].anchors
            if missing or not target.exists():
                yield f"{page.name}: {link}"
