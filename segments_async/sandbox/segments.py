"""The account's segments, and their JSON as the page prints it."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

from attrs import field, frozen

from . import chance
from .clock import stamp
from .page import PAGE_PROJECT_ID, PAGE_SEGMENT_ID

_NAMES = (
    "Recent Registrants",
    "Registrations in the Last 7 Days",
    "Buyers / Europe",
    "Köln & Düsseldorf",
    "Trial users, 50% off",
    "日本のユーザー",
    "Churned",
    'VIP "Gold"',
    "Newsletter",
    "Cart > 100 €",
    "Android 14",
    "Lapsed (90 days)",
    "A/B test: variant B",
    "Big spenders",
    "Power users",
    "Invited by a friend",
)
_CATEGORIES = ("Marketing", "Product", "Growth", "Soporte técnico")
_FIRST_RUN = datetime(2025, 1, 1, tzinfo=UTC)
_YEAR = 365 * 86400


def quoted(text: str | None) -> str:
    """JSON of a string or null. UTF-8 isn't escaped: a client has to read it."""
    return "null" if text is None else json.dumps(text, ensure_ascii=False)


@frozen
class Segment:
    """A User Segment; the fields of the page's "User Segment Object Response".

    Attributes:
        segment_id: the id.
        name: for people.
        description: for people; None for none.
        category: for people; None for none.
        type: ``"Static"`` or ``"Dynamic"``.
        last_run: as printed; None where it never ran.
        project_id: of the account.
        text: the segment's JSON, as the page prints it.
    """

    segment_id: str
    name: str
    description: str | None
    category: str | None
    type: str
    last_run: str | None
    project_id: str = PAGE_PROJECT_ID
    text: str = field(init=False, repr=False, eq=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "text", self._printed())  # once: every answer has this text

    def _printed(self) -> str:
        """The segment's JSON, which the page indents alike in a list and in an export."""
        return (
            f'{{\n    "segmentId": {quoted(self.segment_id)},\n'
            f'    "name": {quoted(self.name)},\n'
            f'    "description": {quoted(self.description)},\n'
            f'    "category": {quoted(self.category)},\n'
            f'    "projectId": {quoted(self.project_id)},\n'
            f'    "type": {quoted(self.type)},\n'
            f'    "lastRun": {quoted(self.last_run)}\n  }}'
        )


PAGE_SEGMENT = Segment(
    PAGE_SEGMENT_ID,
    name="My Segment",
    description="This is my segment",
    category=None,
    type="Static",
    last_run="2019-04-09T12:25:06.000Z",
)


def make_segments(count: int, seed: int) -> list[Segment]:
    """`count` segments, the page's own first."""
    return [PAGE_SEGMENT, *(_make(n, seed) for n in range(1, count))][:count]


def list_json(segments: list[Segment]) -> bytes:
    """The list answer."""
    if not segments:
        return b"[]"
    return ("[\n  " + ",\n  ".join(s.text for s in segments) + "\n]").encode()


def _make(number: int, seed: int) -> Segment:
    a, b, c, d, e, *_ = chance.digest(seed, "segment", number)
    name = _NAMES[a % len(_NAMES)]
    # One name in sixteen gets no number, so that it comes twice: names aren't unique, ids are.
    return Segment(
        chance.uuid(seed, "segment id", number),
        name=name if b < 16 else f"{name} {number}",
        description=None if c < 64 else f"{name}, segment {number}",
        category=None if d < 64 else _CATEGORIES[d % len(_CATEGORIES)],
        type="Dynamic" if e % 2 else "Static",
        last_run=None if a < 16 else stamp(_last_run(seed, number)),
    )


def _last_run(seed: int, number: int) -> datetime:
    seconds = chance.uniform(seed, "run", number) * _YEAR
    return _FIRST_RUN + timedelta(milliseconds=int(seconds * 1000))
