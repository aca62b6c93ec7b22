"""The page of a run in a browser: sorted, filtered, zoomed, read, with and without a mouse."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from axe_playwright_python.sync_playwright import Axe

from report.browser import Shown, Tabs, chromium
from report.made import HOSTILE, Night

pytestmark = pytest.mark.needs("Chromium")

#: Page names, and how each is made.
PAGES = {
    "few": lambda: Night(12, faults=0.3),
    "many": lambda: Night(500),
    "hostile": lambda: Night(30, names=HOSTILE, faults=0.5),
    "empty": lambda: Night(0),
}


@pytest.fixture(scope="module")
def tabs() -> Iterator[Tabs]:
    with chromium() as browser:
        yield Tabs(browser)


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    made = {name: folder / f"{name}.html" for name in PAGES}
    for name, path in made.items():
        path.write_text(PAGES[name]().report().to_html(), "utf-8")
    return made


@pytest.fixture
def many(tabs: Tabs, pages: dict[str, Path]) -> Iterator[Shown]:
    with tabs.showing(pages["many"]) as shown:
        yield shown


@pytest.mark.parametrize("name", PAGES)
def test_nothing_is_requested_and_nothing_refused(
    tabs: Tabs, pages: dict[str, Path], name: str
) -> None:
    """The browser requests the file itself, and has no complaint about scripts or the policy."""
    with tabs.showing(pages[name]) as shown:
        shown.page.locator("#theme").click()
        assert [url for url in shown.requests if url != "data:,"] == [pages[name].as_uri()]
        assert shown.complaints == []


def test_sorting(many: Shown) -> None:
    """A heading's button sorts by its column, again the other way; `aria-sort` says so."""
    assert many.page.locator("#table th[aria-sort=ascending]").count() == 1
    for column, by in enumerate(("name", "state", "asked")):
        many.heading(by).click()
        heading = many.page.locator(f"#table thead th:nth-child({column + 1})")
        assert heading.get_attribute("aria-sort") == "ascending"
        first = many.rows(column)
        many.heading(by).click()
        assert heading.get_attribute("aria-sort") == "descending"
        assert many.page.locator("#table thead th:not([aria-sort=none])").count() == 1
        assert many.rows(column) != first
    many.heading("name").click()
    names = many.rows()
    assert names == sorted(names, key=lambda name: (name.lower().rstrip("0123456789"), _last(name)))
    many.heading("size").click()
    many.heading("size").click()
    sizes = many.rows(5)
    megabytes = [float(size.removesuffix(" MB")) for size in sizes]
    assert megabytes == sorted(megabytes, reverse=True)
    assert "–" not in sizes, "what has no size comes last in either direction"  # noqa: RUF001 - as shown


def _last(name: str) -> int:
    word = name.rpartition(" ")[2]
    return int(word) if word.isdigit() else 0


def test_filtering(many: Shown) -> None:
    """The state and the search each leave what matches, and a live region tells how many."""
    count = many.page.locator("#count")
    assert (count.get_attribute("role"), count.text_content()) == ("status", "500 of 500 exports")
    many.page.locator("#state").select_option("not_exported")
    failed = many.rows(1)
    assert set(failed) == {"Not exported"}
    assert many.text("#count") == f"{len(failed)} of 500 exports"
    many.page.locator("#search").fill("vendor says failed")
    assert 0 < len(many.rows()) < len(failed)
    many.page.locator("#state").select_option("")
    export_id = many.page.locator("#table tbody .outcome .id").first.text_content()
    assert export_id
    many.page.locator("#search").fill(export_id.upper())
    assert many.text("#count") == "1 of 500 exports"
    many.page.locator("#search").fill("no such export")
    assert many.text("#count") == "0 of 500 exports"
    assert many.rows() == []


def test_pages_of_the_table(many: Shown) -> None:
    """500 exports are ten pages of 50; the buttons turn them, and stop at the ends."""
    assert many.text("#page") == "Page 1 of 10"
    assert many.page.locator("#previous").is_disabled()
    seen = many.rows()
    while not many.page.locator("#next").is_disabled():
        many.page.locator("#next").click()
        seen += many.rows()
    assert (len(seen), many.text("#page")) == (500, "Page 10 of 10")
    many.page.locator("#first").click()
    many.page.locator("#size").select_option("1000")
    assert (sorted(many.rows()), many.text("#page")) == (sorted(seen), "Page 1 of 1")


def test_the_keyboard_alone(many: Shown) -> None:
    """Everything is reached by Tab: the link to the table, a sort, the pictures' zoom."""
    press = many.page.keyboard.press
    press("Tab")
    press("Enter")
    press("Tab")
    assert _focused(many) == "search"
    many.page.keyboard.type("newsletter")
    found = many.text("#count")
    for _ in range(4):  # the state, the rows, the scrolled region, the first heading
        press("Tab")
    press("Enter")
    assert many.page.locator("#table th[aria-sort=ascending] [data-by=name]").count() == 1
    assert many.text("#count") == found
    many.page.locator("#lanes").focus()
    whole = many.text("#window")
    press("+")
    half = many.text("#window")
    press("ArrowRight")
    assert len({whole, half, many.text("#window")}) == 3
    press("Home")
    assert many.text("#window") == whole


def _focused(shown: Shown) -> str:
    found: str = shown.page.evaluate("document.activeElement.id")
    return found


def test_time_is_selected_in_the_pictures(many: Shown) -> None:
    """Buttons zoom and move all pictures; dragging selects a time; two clicks show all of it."""
    whole, picture = many.text("#window"), _picture(many, "pace")
    many.page.locator("#in").click()
    assert many.text("#window") != whole
    assert _picture(many, "pace") != picture
    many.page.locator("#all").click()
    assert (many.text("#window"), _picture(many, "pace")) == (whole, picture)
    assert many.page.locator("#all").is_disabled()
    box = many.page.locator("#stages").bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    many.page.mouse.move(box["x"] + 300, middle)
    many.page.mouse.down()
    many.page.mouse.move(box["x"] + 500, middle, steps=4)
    many.page.mouse.up()
    assert many.text("#window") != whole
    many.page.mouse.dblclick(box["x"] + 400, middle)
    assert many.text("#window") == whole


def _picture(shown: Shown, name: str) -> str:
    shown.page.evaluate("new Promise(done => requestAnimationFrame(() => setTimeout(done)))")
    found: str = shown.page.evaluate(f"document.getElementById('{name}').toDataURL()")
    return found


def test_an_export_under_the_mouse_is_named(tabs: Tabs, pages: dict[str, Path]) -> None:
    """Of the export that the mouse is on, name, state and times are shown."""
    with tabs.showing(pages["few"]) as shown:
        shown.page.locator("#lanes").hover(position={"x": 400, "y": 12})
        name = shown.text(".tip strong")
        assert name in shown.rows()
        row = shown.page.locator("#table tbody tr").filter(has_text=name)
        assert f"requested at {row.locator('.num').first.text_content()}" in shown.text(".tip")


@pytest.mark.parametrize("dark", [False, True])
def test_the_theme(tabs: Tabs, pages: dict[str, Path], dark: bool) -> None:
    """The page has the system's theme, and a button for the other one, pictures included."""
    colour = "getComputedStyle(document.body).backgroundColor"
    with tabs.showing(pages["few"], dark=dark) as shown:
        before, picture = shown.page.evaluate(colour), _picture(shown, "stages")
        assert (before == "rgb(255, 255, 255)") != dark
        assert shown.text("#theme") == ("Light theme" if dark else "Dark theme")
        shown.page.locator("#theme").click()
        after = shown.page.evaluate(colour)
        assert (after == "rgb(255, 255, 255)") == dark
        assert _picture(shown, "stages") != picture
        shown.page.locator("#theme").click()
        assert (shown.page.evaluate(colour), _picture(shown, "stages")) == (before, picture)


@pytest.mark.parametrize("name", PAGES)
def test_a_phone_scrolls_down_only(tabs: Tabs, pages: dict[str, Path], name: str) -> None:
    """At 360 pixels the document is not wider than the window, with every part of it open."""
    with tabs.showing(pages[name], width=360) as shown:
        for summary in shown.page.locator("summary").all():
            summary.click()
        assert shown.width <= 360


def test_hostile_names_are_texts(tabs: Tabs, pages: dict[str, Path]) -> None:
    """Each name is shown as the characters that it has, and nothing of it is run."""
    with tabs.showing(pages["hostile"]) as shown:
        names = shown.rows()
        for name in HOSTILE[:5]:
            assert name in names
            shown.page.locator("#search").fill(name)
            assert name in shown.rows()
        shown.page.locator("#search").fill("")
        assert shown.page.title() == "Run 2026-11-23T02-00-00Z"
        assert shown.page.locator("img, iframe, object, svg:not(.bar)").count() == 0
        assert shown.page.locator("script").count() == 2
        shown.page.locator("#lanes").hover(position={"x": 200, "y": 10})
        assert shown.complaints == []


@pytest.mark.parametrize(
    ("name", "width", "dark"),
    [
        ("few", 1200, False),
        pytest.param("few", 360, True, marks=pytest.mark.whole),
        pytest.param("hostile", 1200, True, marks=pytest.mark.whole),
        ("hostile", 360, True),
        pytest.param("hostile", 360, False, marks=pytest.mark.whole),
    ],
)
def test_axe_finds_no_fault(
    tabs: Tabs, pages: dict[str, Path], name: str, width: int, dark: bool
) -> None:
    """axe-core finds no violation of its rules of accessibility."""
    with tabs.showing(pages[name], width=width, dark=dark) as shown:
        for details in shown.page.locator("details").all():
            details.evaluate("it => it.open = true")
        results = Axe().run(shown.page)
        assert results.violations_count == 0, results.generate_report()


def test_without_scripts(tabs: Tabs, pages: dict[str, Path]) -> None:
    """Totals, reasons and the slowest exports are there; what needs a script is not shown."""
    with tabs.showing(pages["many"], java_script_enabled=False) as shown:
        page = shown.page
        assert all(note.is_visible() for note in page.locator("noscript p").all())
        assert "of 500 segments are done" in shown.text(".lead")
        assert page.locator(".states dd").first.is_visible()
        assert page.get_by_text("the vendor says FAILED").first.is_visible()
        assert page.locator("#h-slow + .scroll tbody tr").count() == 10
        for hidden in ("#browser", "#theme", "#tools", "canvas >> nth=0"):
            assert not page.locator(hidden).is_visible()
