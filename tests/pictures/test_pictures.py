"""Claims about the pictures of the documentation: they are up to date, and stand alone."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import attrs
import draw
import life_of_an_export
import pytest
import terminal
import who_may_send
from diagram import Diagram, DoesNotFit
from forked import Forked, ForkServer

from segments_async._sansio.jobs.lifecycle import Event, State

DOCS = Path(draw.FOLDER).parent
PAGES = [*DOCS.glob("*.md"), DOCS.parent / "README.md"]
SVG = "{http://www.w3.org/2000/svg}"

#: The help's layout is that of cyclopts, and another version's may differ.
REDRAWN = [name for name in draw.TERMINALS if name != "cli-help"]

#: Fonts that every system has under these names.
GENERIC = {"sans-serif", "monospace"}


def text_of(name: str) -> str:
    return (draw.FOLDER / f"{name}.svg").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", list(draw.DIAGRAMS))
def test_a_diagram_is_what_the_code_says_today(name: str) -> None:
    """A committed diagram is what its script draws from today's code, to the byte."""
    assert text_of(name) == draw.DIAGRAMS[name]()


@pytest.mark.parametrize("name", REDRAWN)
def test_a_picture_of_the_command_is_what_it_prints_today(
    name: str, fork_server: ForkServer
) -> None:
    """A committed picture of the terminal has the texts that the command prints today."""

    def start(command: list[str], **streams: Any) -> Forked:
        _, program, *arguments = command
        return Forked(fork_server, *arguments, program=program, cwd=Path.cwd(), **streams)

    assert _texts(text_of(name)) == _texts(terminal.draw(name, start))


def test_every_picture_has_a_script_and_a_place() -> None:
    """Each file in docs/pictures is drawn by a script, and a page shows it with a description."""
    files = {path.stem for path in draw.FOLDER.glob("*.svg")}
    assert files == set(draw.NAMES)
    pages = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    found = re.findall(r"!\[([^\]]+)\]\([^)]*pictures/([\w-]+)\.svg\)", pages)
    shown = {name: " ".join(words.split()) for words, name in found}
    assert {name for name, words in shown.items() if len(words) > 20} == files


@pytest.mark.parametrize("name", draw.NAMES)
def test_a_picture_stands_alone(name: str) -> None:
    """A picture asks for no font, file or script, and names no font of one machine."""
    text = text_of(name)
    assert not re.search(r"@import|@font-face|<script|<image|<foreignObject|\bon\w+=", text)
    links = [*re.findall(r"href=\"([^\"]*)\"", text), *re.findall(r"url\(([^)]*)\)", text)]
    assert all(link.startswith("#") for link in links)
    assert set(re.findall(r"https?://[^\"' ]*", text)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    families = re.findall(r"font-family: ?([^;}\"]+)", text)
    families += re.findall(r"font: [^;\"]*?px ([^;\"]+)", text)
    assert {family.strip() for family in families} <= GENERIC
    assert len(text) < 100_000


@pytest.mark.parametrize("name", draw.NAMES)
def test_a_picture_can_be_read_by_everyone(name: str) -> None:
    """A picture has a title and a description, texts as texts, and a background of its own."""
    root = ET.fromstring(text_of(name))
    for tag in ("title", "desc"):
        found = root.find(f"{SVG}{tag}")
        assert found is not None
        assert found.text is not None
        assert len(found.text) > 10
        assert found.get("id") in (root.get("aria-labelledby") or "").split()
    assert len(list(root.iter(f"{SVG}text"))) > 4
    assert root.get("role") == "img"
    assert "prefers-color-scheme: dark" in text_of(name) or name in draw.TERMINALS


@pytest.mark.parametrize("name", [*draw.DIAGRAMS, *draw.TERMINALS])
def test_a_picture_is_legible_on_a_telephone(name: str) -> None:
    """In 328 pixels, as a page on a telephone has, no text is smaller than 8 pixels."""
    text = text_of(name)
    width = float(ET.fromstring(text).attrib["viewBox"].split()[2])
    sizes = [float(size) for size in re.findall(r"font-size(?:=\"|: )([\d.]+)", text)]
    columns = terminal.WINDOWS[name].columns if name in terminal.WINDOWS else 0
    assert min(sizes) * 328 / width > (7.2 if columns > 64 else 8.0)


def test_a_state_without_a_place_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The life of an export isn't drawn where a state or an event has no place in it."""
    life_of_an_export.check()
    fewer = {
        state: place for state, place in life_of_an_export.PLACES.items() if state != State.DONE
    }
    with monkeypatch.context() as patch:
        patch.setattr(life_of_an_export, "PLACES", fewer)
        with pytest.raises(life_of_an_export.Incomplete, match="done"):
            life_of_an_export.draw()
    key = (State.NEW, Event.ADOPTED)
    ways = {one: way for one, way in life_of_an_export.WAYS.items() if one != key}
    with monkeypatch.context() as patch:
        patch.setattr(life_of_an_export, "WAYS", ways)
        with pytest.raises(life_of_an_export.Incomplete, match="adopted"):
            life_of_an_export.draw()
    expired = life_of_an_export.PLACES[State.EXPIRED]
    forgotten = {**life_of_an_export.PLACES, State.EXPIRED: attrs.evolve(expired, later={})}
    monkeypatch.setattr(life_of_an_export, "PLACES", forgotten)
    with pytest.raises(life_of_an_export.Incomplete, match="opted_in"):
        life_of_an_export.draw()


def test_a_reason_without_a_place_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who may send now isn't drawn where a reason of `Held` has no place in it."""
    monkeypatch.setattr(who_may_send, "SUBMITS_WAIT", who_may_send.SUBMITS_WAIT[1:])
    with pytest.raises(who_may_send.Incomplete, match="job_cap"):
        who_may_send.draw()


def test_a_text_that_does_not_fit_is_noticed() -> None:
    """A text that is wider than its box, or than the picture, ends the drawing with an error."""
    diagram = Diagram(200, 100, "a title", "a description")
    with pytest.raises(DoesNotFit, match="quite a long line"):
        diagram.box(10, 10, 80, ("short", "quite a long line"))
    with pytest.raises(DoesNotFit, match="a label"):
        diagram.label(180, 50, ("a label at the edge",))


def _texts(svg: str) -> list[str]:
    return [one.text or "" for one in ET.fromstring(svg).iter(f"{SVG}text")]
