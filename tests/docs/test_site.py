"""Claims about the documentation's site: it is whole, and it is mostly for users."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import segments_async
import segments_async.cluster
import segments_async.sandbox
import segments_async.testing

from . import site as build
from .pages import ROOT, ids

PUBLIC = (segments_async, segments_async.cluster, segments_async.sandbox, segments_async.testing)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    shared = tmp_path_factory.getbasetemp()
    return build.build(shared.parent if shared.name.startswith("popen-") else shared)


def public_names(module: ModuleType) -> Iterator[str]:
    """The names of a module, and of each of its classes the names of the class's own members."""
    for name in module.__all__:
        value = getattr(module, name)
        yield f"{module.__name__}.{name}"
        if inspect.isclass(value):
            for member in (*vars(value), *inspect.get_annotations(value)):
                if not member.startswith("_"):
                    yield f"{module.__name__}.{name}.{member}"


@pytest.mark.whole
def test_the_site_builds_without_a_warning(site: Path) -> None:
    """The build has no warning: each link, anchor and type on a page leads somewhere."""
    assert (site / "warnings.txt").read_text() == ""


@pytest.mark.whole
@pytest.mark.parametrize("module", PUBLIC, ids=lambda module: module.__name__)
def test_every_public_name_is_on_a_page(site: Path, module: ModuleType) -> None:
    """The reference has every public name, and every public member of a public class."""
    assert sorted(set(public_names(module)) - build.names(site)) == []


@pytest.mark.whole
def test_no_link_is_dead(site: Path) -> None:
    """Every link within the site leads to a page, and to a place on that page."""
    assert list(build.dead_links(site)) == []
    assert len(list(site.glob("*.html"))) > 20


@pytest.mark.whole
def test_the_index_has_every_page(site: Path) -> None:
    """Each page of docs/ is in exactly one part of the index."""
    listed = [page for pages in build.parts().values() for page in pages]
    there = {path.stem for path in (ROOT / "docs").glob("*.md")} - {"index"}
    assert sorted(listed) == sorted(there)


@pytest.mark.whole
def test_most_of_the_site_is_for_users(site: Path) -> None:
    """There are at least twice as many words for users as for reviewers, as rendered."""
    parts = build.parts()
    reviewers = build.words(site, parts.pop("For reviewers"))
    del parts["Project"]
    users = build.words(site, [page for pages in parts.values() for page in pages])
    assert users >= 2 * reviewers, f"{users} words for users, {reviewers} for reviewers"


def test_pages_that_code_names_exist() -> None:
    """Each page that a file of code or of settings names (`docs/files.md#links`) is there."""
    named = {
        (ids(path), page, anchor)
        for folder in ("segments_async", "tests", "benchmarks", "examples", ".ci")
        for path in (ROOT / folder).rglob("*")
        if path.is_file() and path.suffix in {".py", ".sh", ".md", ""}
        for page, anchor in re.findall(r"\bdocs/([a-z-]+)\.md(?:#([\w-]+))?", path.read_text())
    }
    assert len(named) > 20
    assert [each for each in named if not _is_there(*each[1:])] == []


def _is_there(page: str, anchor: str) -> bool:
    path = ROOT / "docs" / f"{page}.md"
    return path.exists() and (not anchor or anchor in _anchors(path))


def _anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}
