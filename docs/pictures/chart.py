"""Charts by matplotlib as SVG files that stand alone, in the colours of the diagrams.

matplotlib writes each colour into each element. A style sheet in the file replaces the colours of
the light scheme by those of the dark one, where the reader's scheme is dark. Programs that don't
know style sheets show the light scheme.
"""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from typing import Any
from xml.sax.saxutils import escape

import matplotlib as mpl
from diagram import DARK, LIGHT
from matplotlib.figure import Figure

#: Inches at 72 dots: as wide as a diagram's 480 pixels.
WIDTH = 5.0

#: Colours of data, light and dark. Those of one chart differ in lightness, too.
ACCEPTED = ("#9fc5e8", "#2f5f8a")
REFUSED = ("#d4570a", "#ff9d4d")
AWAY = ("#6a3d9a", "#c3a5e8")
LIMIT = ("#2a2d31", "#f0f3f6")
RATE = ("#0b62a5", "#7cc4f8")
SERIES = (
    ("#b4bac1", "#59616b"),
    ("#e0902f", "#c07a24"),
    ("#8c6bb1", "#a98bd0"),
    ("#4f9f87", "#5fb59b"),
    ("#0a5c9e", "#6db9f2"),
)

INK, SOFT, EDGE, CARD = (LIGHT[name] for name in ("ink", "soft", "edge", "card"))

_DARK: dict[str, str] = {
    **{LIGHT[name]: DARK[name] for name in ("ink", "soft", "edge", "card")},
    **dict((ACCEPTED, REFUSED, AWAY, LIMIT, RATE, *SERIES)),
}

STYLE: dict[Any, Any] = {
    "svg.hashsalt": "segments-async",
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlecolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": SOFT,
    "ytick.color": SOFT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "grid.color": EDGE,
    "grid.linewidth": 0.7,
    "figure.constrained_layout.h_pad": 0.1,
    "figure.constrained_layout.w_pad": 0.12,
    "legend.frameon": False,
    "legend.fontsize": 10,
    "legend.handlelength": 1.6,
    "legend.columnspacing": 1.2,
    **{f"{part}.facecolor": CARD for part in ("figure", "axes", "savefig")},
}


def svg(figure: Figure, title: str, description: str) -> str:
    """The figure as the text of a file. The same figure gives the same bytes."""
    file = io.StringIO()
    with mpl.rc_context(STYLE):
        # A date, or the version that drew it, would change the file where the picture is the same.
        figure.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg ") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    # Of the fonts that matplotlib names, the reader has another one.
    text = re.sub(r"font: ([^;\"]*?px) [^;\"]*", r"font: \1 sans-serif", text)
    text = re.sub(r"font-family: [^;\"]*", "font-family: sans-serif", text)
    head = (
        f'<title id="title">{escape(title)}</title>\n'
        f'<desc id="description">{escape(description)}</desc>\n'
        f"<style>{_dark_scheme()}</style>\n"
    )
    opening, rest = text.split(">", 1)
    opening += ' role="img" aria-labelledby="title description"'
    lines = (line.rstrip() for line in f"{opening}>\n{head}{rest}".splitlines())
    return "\n".join(line for line in lines if line) + "\n"


def _dark_scheme() -> str:
    rules = [
        f'[style*="{what}: {light}"] {{ {what}: {dark} !important; }}'
        for light, dark in _DARK.items()
        for what in ("fill", "stroke")
    ]
    return "\n@media (prefers-color-scheme: dark) {\n" + "\n".join(rules) + "\n}\n"


def panels(count: int, height: float) -> tuple[Figure, Sequence[Any]]:
    """A figure with so many axes below one another."""
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(WIDTH, height), layout="constrained")
        axes = [figure.add_subplot(count, 1, number + 1) for number in range(count)]
        for one in axes:
            one.grid(axis="y")
            one.set_axisbelow(True)
    return figure, axes
