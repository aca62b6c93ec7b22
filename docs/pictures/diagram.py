"""Boxes, arrows and texts as one SVG file that stands alone: no script, no font, no request.

Texts stay texts. The colours follow the reader's light or dark scheme; the diagram has a background
of its own, so that it can be read on any page. The same calls give the same bytes.
"""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Sequence
from typing import Literal

#: Blue, green and orange are told apart by colour-blind readers, too (after Okabe and Ito). No
#: meaning has a colour alone: ends are worded, and events of a later session are dashed.
LIGHT = {
    "card": "#ffffff",
    "edge": "#d0d7de",
    "ink": "#1f2328",
    "soft": "#57606a",
    "plain": "#f3f5f7",
    "blue": "#0065a9",
    "blue-fill": "#e3f1fb",
    "green": "#00704f",
    "green-fill": "#ddf4ea",
    "orange": "#a84300",
    "orange-fill": "#fdeee0",
}
DARK = {
    "card": "#15191f",
    "edge": "#3d444d",
    "ink": "#e8edf2",
    "soft": "#a9b4c0",
    "plain": "#222830",
    "blue": "#6cbcf5",
    "blue-fill": "#12304a",
    "green": "#45cf9c",
    "green-fill": "#0f3a2d",
    "orange": "#ffa45c",
    "orange-fill": "#46280f",
}
Colour = Literal["plain", "blue", "green", "orange"]
Anchor = Literal["start", "middle", "end"]
Point = tuple[float, float]

#: Sizes of text in the SVG's units. A diagram is 480 units wide, so that the smaller text is still
#: 9 pixels high on a telephone that is 360 pixels wide.
TEXT, SMALL = 14.0, 13.0

#: The width of a character in a wide sans-serif font, as a part of the font's size.
_CHARACTER = {"": 0.56, "bold": 0.65, "code": 0.602}


class DoesNotFit(ValueError):
    """A text is wider than the room that the layout gives it."""


def style(light: dict[str, str] = LIGHT, dark: dict[str, str] = DARK) -> str:
    """The style sheet of a diagram, for both colour schemes."""
    return (
        f"{_rules(light)}\n"
        "text { font-family: sans-serif; }\n"
        ".bold { font-weight: bold; }\n"
        ".code { font-family: monospace; }\n"
        ".line { fill: none; stroke-width: 1.6; }\n"
        ".dashed { stroke-dasharray: 5 4; }\n"
        f"@media (prefers-color-scheme: dark) {{\n{_rules(dark)}\n}}"
    )


def _rules(colours: dict[str, str]) -> str:
    """The rules that have colours. A text has the card's colour around it where lines pass."""
    rules = [
        f".card {{ fill: {colours['card']}; stroke: {colours['edge']}; }}",
        f"text {{ fill: {colours['ink']}; }}",
        f"text.soft {{ fill: {colours['soft']}; }}",
        f".halo {{ paint-order: stroke; stroke: {colours['card']}; stroke-width: 5; "
        "stroke-linejoin: round; }",
        f".rule {{ stroke: {colours['edge']}; }}",
        f".box.plain {{ fill: {colours['plain']}; stroke: {colours['soft']}; }}",
        f".line.plain {{ stroke: {colours['soft']}; }}",
        f".head.plain {{ fill: {colours['soft']}; }}",
        f"text.plain {{ fill: {colours['ink']}; }}",
    ]
    for name in ("blue", "green", "orange"):
        rules += [
            f".box.{name} {{ fill: {colours[f'{name}-fill']}; stroke: {colours[name]}; }}",
            f".line.{name} {{ stroke: {colours[name]}; }}",
            f".head.{name}, text.{name} {{ fill: {colours[name]}; }}",
        ]
    return "\n".join(rules)


def width_of(text: str, size: float, look: str = "") -> float:
    """About how wide the text is in a wide font."""
    return len(text) * size * _CHARACTER[look if look in _CHARACTER else ""]


class Diagram:
    """A drawing of this width and height.

    Args:
        width: in the SVG's units, which are pixels where the picture is shown in its own size.
        height: the same.
        title: a few words, for those who can't see the picture.
        description: what the picture shows, in sentences.
    """

    def __init__(self, width: float, height: float, title: str, description: str) -> None:
        self.width, self.height = width, height
        self._svg = ET.Element(
            "svg",
            {
                "xmlns": "http://www.w3.org/2000/svg",
                "width": _number(width),
                "height": _number(height),
                "viewBox": f"0 0 {_number(width)} {_number(height)}",
                "role": "img",
                "aria-labelledby": "title description",
            },
        )
        self._add("title", {"id": "title"}, title)
        self._add("desc", {"id": "description"}, description)
        self._add("style", {}, style())
        self._add_heads()
        self._rectangle("card", 0.5, 0.5, width - 1, height - 1, 10)

    def box(
        self,
        x: float,
        y: float,
        width: float,
        lines: Sequence[str | tuple[str, str]],
        *,
        colour: Colour = "plain",
        height: float | None = None,
        dashed: bool = False,
    ) -> float:
        """Draw a box with lines of text in it, and return the box's height.

        A line is a text, which is bold in the first line, or a text and its look: `bold`, `code`,
        `soft` or nothing.
        """
        looks = [self._look(line, number) for number, line in enumerate(lines)]
        needed = 12 + sum(size + 4 for _, _, size in looks)
        height = needed if height is None else height
        look = f"box {colour} dashed" if dashed else f"box {colour}"
        self._rectangle(look, x, y, width, height, 6)
        at = y + (height - needed) / 2 + 4
        for text, look, size in looks:
            at += size + 4
            self._check_room(text, size, look, width - 6)
            self.text(x + width / 2, at - 2, text, look, anchor="middle", size=size)
        return height

    def text(
        self,
        x: float,
        y: float,
        text: str,
        look: str = "",
        *,
        anchor: Anchor = "start",
        size: float = TEXT,
    ) -> None:
        """Draw a text, whose base line is at y."""
        attributes = {"x": _number(x), "y": _number(y), "font-size": _number(size)}
        if anchor != "start":
            attributes["text-anchor"] = anchor
        if look:
            attributes["class"] = look
        self._add("text", attributes, text)

    def paragraph(self, x: float, y: float, lines: Sequence[str], look: str = "") -> float:
        """Draw lines of small text below one another; returns the base line of the next one."""
        for line in lines:
            self._check_room(line, SMALL, look, self.width - x - 4)
            self.text(x, y, line, look, size=SMALL)
            y += SMALL + 4
        return y

    def arrow(
        self,
        points: Sequence[Point],
        *,
        colour: Colour = "plain",
        dashed: bool = False,
        head: bool = True,
    ) -> None:
        """Draw a line through the points, with a head at its end."""
        path = "M" + " L".join(f"{_number(x)} {_number(y)}" for x, y in points)
        look = f"line {colour} dashed" if dashed else f"line {colour}"
        attributes = {"class": look, "d": path}
        if head:
            attributes["marker-end"] = f"url(#head-{colour})"
        self._add("path", attributes)

    def label(
        self,
        x: float,
        y: float,
        lines: Sequence[str],
        look: str = "",
        *,
        anchor: Anchor = "middle",
    ) -> None:
        """Draw the label of an arrow, its lines centred at y, on a halo that hides lines below."""
        y -= (len(lines) - 1) * (SMALL + 3) / 2 - SMALL * 0.35
        room = self.width - x - 4 if anchor == "start" else 2 * min(x, self.width - x)
        for line in lines:
            self._check_room(line, SMALL, look, room)
            self.text(x, y, line, f"halo {look}".strip(), anchor=anchor, size=SMALL)
            y += SMALL + 3

    def rule(self, x: float, y: float, to_x: float, to_y: float) -> None:
        """Draw a thin line, which divides parts of the picture."""
        ends = {"x1": x, "y1": y, "x2": to_x, "y2": to_y}
        self._add("line", {"class": "rule", **{key: _number(at) for key, at in ends.items()}})

    def svg(self) -> str:
        """The file's text."""
        ET.indent(self._svg, " ")
        return ET.tostring(self._svg, encoding="unicode") + "\n"

    def _add(self, tag: str, attributes: dict[str, str], text: str | None = None) -> None:
        ET.SubElement(self._svg, tag, attributes).text = text

    def _add_heads(self) -> None:
        definitions = ET.SubElement(self._svg, "defs")
        for colour in ("plain", "blue", "green", "orange"):
            marker = ET.SubElement(
                definitions,
                "marker",
                {
                    "id": f"head-{colour}",
                    "viewBox": "0 0 10 10",
                    "refX": "9",
                    "refY": "5",
                    "markerWidth": "9",
                    "markerHeight": "9",
                    "markerUnits": "userSpaceOnUse",
                    "orient": "auto",
                },
            )
            ET.SubElement(marker, "path", {"class": f"head {colour}", "d": "M0 0 L10 5 L0 10 z"})

    def _rectangle(
        self, look: str, x: float, y: float, width: float, height: float, radius: float
    ) -> None:
        sides = {"x": x, "y": y, "width": width, "height": height, "rx": radius}
        self._add("rect", {"class": look, **{key: _number(side) for key, side in sides.items()}})

    @staticmethod
    def _look(line: str | tuple[str, str], number: int) -> tuple[str, str, float]:
        if isinstance(line, tuple):
            return (*line, SMALL)
        return (line, "bold", TEXT) if number == 0 else (line, "", SMALL)

    @staticmethod
    def _check_room(text: str, size: float, look: str, room: float) -> None:
        if (needed := width_of(text, size, look)) > room:
            raise DoesNotFit(f"{text!r} is about {needed:.0f} wide, and has {room:.0f}")


def _number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".")
