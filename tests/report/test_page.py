"""The HTML of a run's page: what it holds, and what it can't hold."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from datetime import timedelta
from html.parser import HTMLParser
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from report.made import HOSTILE, NIGHT, SIGNED, Night
from segments_async._run.report import BulkReport
from segments_async._run.report.data import script_json
from segments_async._run.report.page import FIRST_NAMED, MOST_NAMED
from segments_async._run.report.rows import shown
from segments_async.errors import DownloadError, ExportFailedError, TargetExistsError
from segments_async.models import Segment
from segments_async.results import Exported, NotExported, Progress

#: Attributes by which a page requests something.
REQUESTING = {"src", "srcset", "data", "action", "formaction", "poster", "background", "ping"}


class Page(HTMLParser):
    """A page as a browser without scripts reads it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.text = ""
        self._inside = ""
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag if tag in self.raw else ""

    def handle_endtag(self, tag: str) -> None:
        self._inside = "" if tag == self._inside else self._inside

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.raw[self._inside].append(data)
        else:
            self.text += data

    @property
    def data(self) -> dict[str, Any]:
        """The data for the page's script."""
        found: dict[str, Any] = json.loads(self.raw["script"][0])
        return found


def page_of(report: BulkReport[Any]) -> Page:
    return Page(report.to_html())


@pytest.fixture(scope="module")
def hostile() -> Page:
    return page_of(Night(30, names=HOSTILE, faults=0.5).report())


def test_a_page_asks_nothing_of_anybody(hostile: Page) -> None:
    """No element names a place elsewhere, and the policy admits none."""
    for tag, attributes in hostile.tags:
        assert not REQUESTING & attributes.keys(), (tag, attributes)
        assert attributes.get("href", "#") in ("data:,", "#exports", "#")
        assert not any(name.startswith("on") or name == "style" for name in attributes)
    assert {tag for tag, _ in hostile.tags} & {"base", "iframe", "object", "form", "img"} == set()
    assert "url(" not in hostile.raw["style"][0]
    assert "@import" not in hostile.raw["style"][0]


def test_the_policy_admits_the_page_s_own_script_and_style_alone(hostile: Page) -> None:
    """The Content-Security-Policy has the hashes of the two inline elements, and nothing else."""
    [policy] = [
        attributes["content"] or ""
        for _, attributes in hostile.tags
        if attributes.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))

    def hash_of(text: str) -> str:
        return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"

    assert rules == {
        "default-src": "'none'",
        "style-src": hash_of(hostile.raw["style"][0]),
        "script-src": hash_of(hostile.raw["script"][1]),
        "img-src": "data:",
        "base-uri": "'none'",
        "form-action": "'none'",
    }


def test_names_are_texts(hostile: Page) -> None:
    """A name with markup adds no element, and the data has each name as it is shown."""
    assert len(hostile.raw["script"]) == 2
    names = hostile.data["name"]
    assert names[: len(HOSTILE[:5])] == list(HOSTILE[:5])
    assert "\\x1b" in names[11]
    assert "\\u202e" in names[8]
    assert len(names[13]) < 500
    assert "owned" not in hostile.raw["script"][1]
    harmless = page_of(Night(30, names=["plain"] * len(HOSTILE), faults=0.5).report())
    assert [tag for tag, _ in hostile.tags] == [tag for tag, _ in harmless.tags]


def test_a_page_has_no_secret(hostile: Page) -> None:
    """The links of the exports, and those in names and errors, are not in the page."""
    report = Night(3).report()
    first = report.exported[0]
    error = DownloadError(f"segment x: GET {SIGNED}: 403", reason="denied", export=first.export)
    bad = NotExported("x", first.export, error, "yes", resumable=True)
    html = attrs.evolve(report, not_exported=[bad]).to_html()
    for text in (html, "".join(hostile.raw["script"]), hostile.text):
        for secret in ("5ec4e7f00d", "AKIA", "Signature="):
            assert secret not in text
    assert "GET https://bucket.s3.amazonaws.com/a.csv?..." in html


@pytest.mark.parametrize("equals", ["=", "%3D", "\\u003d", "&#61;", "&#x3D;"])
def test_a_signature_is_found_in_any_coding(equals: str) -> None:
    """Whatever the `=` of a signature was made by quoting, what follows it isn't shown."""
    text = shown(f"see X-Amz-Signature{equals}5ec4e7f00d there")
    assert "5ec4e7f00d" not in text
    assert text.endswith(" there")


def test_without_scripts_totals_and_failures_are_there() -> None:
    """The markup alone has the totals, each reason with what to do, and a note about the rest."""
    report = Night(500).report()
    page = page_of(report)
    failed = [one for one in report.not_exported if isinstance(one.error, ExportFailedError)]
    assert f"{len(failed)} segments not exported: the vendor says FAILED" in page.text
    assert "--retry-failed 1" in page.text
    for outcome in failed:
        assert outcome.export is not None
        assert f"export {outcome.export.export_id}" in page.text
    assert "Segments500" in page.text.replace("\n", "")
    assert [tag for tag, _ in page.tags].count("noscript") == 2
    assert "manifest.jsonl" in page.text


def test_a_thousand_failures_for_one_reason() -> None:
    """Some are named at once, more on request, and the table has all: the page stays small."""
    report = Night(1000, faults=1.0).report()
    html = report.to_html()
    page = Page(html)
    assert page.text.count("the vendor says FAILED") == 1
    blocks = re.findall(r"<h3>.*?</div>", html, re.DOTALL)
    assert max(block.count("<li>") for block in blocks) == MOST_NAMED
    first = next(block for block in blocks if "FAILED" in block)
    assert first.partition("<details>")[0].count("<li>") == FIRST_NAMED
    assert len(page.data["id"]) == 1000


def test_a_thousand_files_that_were_kept() -> None:
    """Files that were there already are one reason, whatever their paths; no path is shown."""
    made = Night(1000, faults=0.0).report()
    kept: list[NotExported] = []
    for outcome in made.exported:
        path = outcome.file.location
        error = TargetExistsError(f"{path} exists; overwrite=True replaces it", path=path)
        kept.append(NotExported(outcome.segment_id, None, error, "no", resumable=True))
    page = page_of(attrs.evolve(made, exported=[], not_exported=kept))
    assert page.data["problems"] == [
        "the file exists; overwrite=True replaces it (TargetExistsError)"
    ]
    assert "1\u202f000 segments not exported, a file was kept" in page.text
    assert "/srv/exports/" not in json.dumps(page.data)


def test_each_id_and_name_is_in_the_data_once() -> None:
    """10 000 exports are at most 3 MB: ids and names are not repeated."""
    report = Night(1000, faults=0.0).report()
    html = report.to_html()
    slow = html[html.index('id="h-slow"') : html.index('id="h-exports"')]
    for outcome in report.exported:
        assert html.count(outcome.segment_id) == 1
        assert html.count(outcome.export.export_id) == 1
        shown = json.dumps(outcome.export.segment.name)
        assert html.count(shown) == 1 or shown[1:-1] in slow
    whole = len(html.encode())
    fixed = len(Night(1, faults=0.0).report().to_html().encode())
    assert (whole - fixed) * 10 + fixed < 3_000_000


@pytest.mark.parametrize("count", [0, 1])
def test_a_run_of_hardly_anything(count: int) -> None:
    """A run of no segment, or of one, has a page, too."""
    page = page_of(Night(count, faults=0.0).report())
    assert ("The run had no segments." in page.text) == (count == 0)
    assert page.data["id"] == page.data["id"][:count]


def test_a_report_that_a_program_made() -> None:
    """A report without a history has a page without times."""
    made = Night(5, faults=0.0).report()
    progress = Progress(5, 0, 0, 0, 5, 0, 0, 9, 21, 4, None, None, 0.0)
    report = BulkReport[Exported](
        "mine", made.exported, (), NIGHT, NIGHT + timedelta(seconds=3), progress
    )
    page = page_of(report)
    assert "All 5 segments are done, after 3 s." in page.text
    assert "The pace was not recorded" in page.text
    assert set(page.data["a"]) == {-1}
    assert page.data["pace"] == []


def test_a_name_in_another_place() -> None:
    """The run's name and its directory are texts, too."""
    night = Night(2, faults=0.0)
    made = night.report()
    evil = "<b>&\"'</b>"
    assert night.history is not None
    history = attrs.evolve(night.history, destination=f"/{evil}")
    html = attrs.evolve(made, name=evil, history=history).to_html()
    assert "<b>" not in html
    assert html.count("&lt;b&gt;&amp;&quot;&#x27;&lt;/b&gt;") == 3


@given(st.recursive(st.text() | st.integers(), lambda inner: st.lists(inner, max_size=3)))
def test_data_ends_no_script(value: Any) -> None:
    """Whatever the data: they hold no character that HTML or old JavaScript would end them at."""
    text = script_json(value)
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == value


def test_a_segment_without_a_name() -> None:
    """Where only the id is known, the page shows the id."""
    made = Night(1, faults=0.0).report()
    [outcome] = made.exported
    nameless = attrs.evolve(
        outcome.export, segment=Segment(outcome.segment_id, None, "p", None, None)
    )
    report = attrs.evolve(made, exported=[attrs.evolve(outcome, export=nameless)], history=None)
    page = page_of(report)
    assert page.data["name"] == [0]
    assert page.data["id"] == [outcome.segment_id]
