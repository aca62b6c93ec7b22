"""The HTML of a run's page: one file, which requests nothing from anywhere.

The page's template, style and script are files of this package. Every text of a run is escaped: by
`html.escape` in markup, by `script_json` in the data. The page's own policy allows the two inline
elements by their hashes, and nothing else.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import cache
from html import escape
from importlib.resources import files
from string import Template

from segments_async._run.report import content
from segments_async._run.report.advice import advice, unfinished_advice
from segments_async._run.report.content import RunView
from segments_async._run.report.data import page_data, script_json
from segments_async._run.report.moments import moments
from segments_async._run.report.rows import Row, RowState, shown
from segments_async._run.report.words import counted, in_time, number
from segments_async._sansio.pace.trace import thinned

#: Segments that are named for each reason: some at once, more on request. The table has all.
FIRST_NAMED = 8
MOST_NAMED = 200

#: Reasons of failures that are listed; the rest are counted.
MOST_REASONS = 20


def page_html(view: RunView) -> str:
    """The page of a run."""
    template, style, script = (_part(name) for name in ("page.html", "page.css", "page.js"))
    return Template(template).substitute(
        style_hash=_hash(style),
        script_hash=_hash(script),
        style=style,
        script=script,
        data=script_json(page_data(view)),
        title=escape(f"Run {view.name}"),
        run=escape(view.name),
        when=_when(view),
        sentence=escape(content.sentence(view)),
        bar=_bar(view),
        states=_states(view),
        figures=_figures(view),
        failures=_failures(view),
        moments=_moments(view),
        pace=_pace(view),
        held=_held(view),
        slowest=_slowest(view),
        rows_hint=_rows_hint(view),
        footer=_footer(view),
    )


@cache
def _part(name: str) -> str:
    return (files("segments_async._run.report") / name).read_text("utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"


# --------------------------------------------------------------------- the head


def _when(view: RunView) -> str:
    begin, end = view.begin, view.end
    until = "" if view.ended_at is None and not view.pace else f" \N{EN DASH} {_time(end, begin)}"
    to = "" if view.destination is None else f" · <bdi>{escape(shown(view.destination))}</bdi>"
    return f"{_time(begin)}{until} UTC{to}"


def _time(at: datetime, after: datetime | None = None) -> str:
    """A time; without its date if `after`, which the reader has just read, is of the same day."""
    at = at.astimezone(UTC)
    same_day = after is not None and at.date() == after.astimezone(UTC).date()
    text = f"{at:%H:%M:%S}" if same_day else f"{at:%Y-%m-%d %H:%M:%S}"
    return f'<time datetime="{at.isoformat(timespec="seconds")}">{text}</time>'


def _bar(view: RunView) -> str:
    """The states as parts of one bar."""
    total, left = len(view.rows), 0.0
    parts: list[str] = []
    for state, count in content.shown_states(view):
        width = 1000 * count / total if total else 0.0
        if count:
            # At least 2 of 1000 units wide: a few failures among thousands stay visible.
            parts.append(
                f'<rect class="fill-{state.value}" x="{left:.2f}" y="0" '
                f'width="{max(width, 2):.2f}" height="14"/>'
            )
        left += width
    words = ", ".join(f"{n} {content.STATE_WORDS[s]}" for s, n in content.shown_states(view) if n)
    return (
        f'<svg class="bar" viewBox="0 0 1000 14" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(words)}">{"".join(parts)}</svg>'
    )


def _states(view: RunView) -> str:
    return "".join(
        f'<div><dt class="dot {state.value}" title="{content.STATE_MEANINGS[state]}">'
        f"{content.STATE_WORDS[state]}</dt><dd>{number(count)}</dd></div>"
        for state, count in content.shown_states(view)
    )


def _figures(view: RunView) -> str:
    return "".join(
        f"<div><dt>{name}</dt><dd>{escape(value)}</dd></div>"
        for name, value in content.figures(view)
    )


# --------------------------------------------------------------------- what went wrong


def _failures(view: RunView) -> str:
    groups = content.failures(view)
    blocks = [
        _failure(
            f"{counted(len(group.rows), 'segment')} {_verb(group.rows)}: "
            f"{group.problem.text} ({group.problem.kind})",
            advice(group.problem),
            group.rows,
        )
        for group in groups[:MOST_REASONS]
    ]
    if len(groups) > MOST_REASONS:
        more = counted(len(groups) - MOST_REASONS, "more reason")
        blocks.append(f"<p>And {more}: the table below has every segment's.</p>")
    if left := content.unfinished(view):
        title = f"{counted(len(left), 'segment')} {'is' if len(left) == 1 else 'are'} unfinished"
        blocks.append(_failure(title, unfinished_advice(left), left))
    if not blocks:
        return ""
    return (
        '<section aria-labelledby="h-failures"><h2 id="h-failures">Without a file, and what to do'
        f"</h2>{''.join(blocks)}</section>"
    )


def _verb(rows: Sequence[Row]) -> str:
    return {RowState.UNFINISHED: "unfinished", RowState.KEPT: "not exported, a file was kept"}.get(
        rows[0].state, "not exported"
    )


def _failure(title: str, hint: str, rows: Sequence[Row]) -> str:
    names, more = _list(rows[:FIRST_NAMED]), ""
    if len(rows) > FIRST_NAMED:
        others = _list(rows[FIRST_NAMED:MOST_NAMED])
        hidden = len(rows) - MOST_NAMED
        rest = f"<p>And {number(hidden)} more, in the table below.</p>" if hidden > 0 else ""
        count = number(len(rows) - FIRST_NAMED)
        more = f"<details><summary>And {count} more</summary>{others}{rest}</details>"
    kind = "failure unfinished" if rows[0].state is not RowState.NOT_EXPORTED else "failure"
    return (
        f'<div class="{kind}"><h3>{escape(title)}</h3><p>{_with_code(hint)}</p>{names}{more}</div>'
    )


def _list(rows: Sequence[Row]) -> str:
    return f"<ul>{''.join(f'<li>{_name(row)}</li>' for row in rows)}</ul>"


def _name(row: Row) -> str:
    """A segment's name, and the id of its export, which people copy."""
    name = f"<bdi>{escape(row.name or row.segment_id)}</bdi>"
    return f"{name}, export <code>{escape(row.export_id)}</code>" if row.export_id else name


def _with_code(text: str) -> str:
    """The text, with what stands between backticks as code."""
    parts = escape(text).split("`")
    return "".join(f"<code>{p}</code>" if n % 2 else p for n, p in enumerate(parts))


# --------------------------------------------------------------------- pictures in numbers


def _moments(view: RunView) -> str:
    rows = [
        [in_time(m.at), *(number(n) for n in (m.waiting, m.pending, m.fetching, m.done, m.failed))]
        for m in moments(view)
    ]
    heads = ["After", "Waiting", "At the vendor", "Fetching", "Done", "Not exported"]
    return _table("How many exports were where", heads, rows)


def _pace(view: RunView) -> str:
    if not view.pace:
        return f"<p>{_NO_PACE}</p>"
    zero = view.begin.timestamp()
    rows = [
        [
            f"{in_time(point.begin - zero)} \N{EN DASH} {in_time(point.end - zero)}",
            number(point.requests),
            number(point.throttled),
            "no limit" if point.rate is None else f"{point.rate:.3g}/s",
        ]
        for point in thinned(view.pace, content.MOMENTS)
    ]
    heads = ["Time", "Requests", "Answered 429", "At most, at its end"]
    return _table("Requests to the vendor", heads, rows)


_NO_PACE = "The pace was not recorded: an earlier version of segments-async made this run."


def _held(view: RunView) -> str:
    if not view.pace:
        return f'<p class="quiet-text">{_NO_PACE}</p>'
    holds = content.holds(view.pace)
    if not holds:
        return '<p class="quiet-text">Nothing held the run for long enough to be seen.</p>'
    zero = view.begin.timestamp()
    rows = [
        [
            f"{hold.words.label}\n{hold.words.meaning}",
            in_time(hold.seconds),
            in_time(hold.first - zero),
            in_time(hold.last - zero),
        ]
        for hold in holds
    ]
    heads = ["Reason", "In all", "First seen after", "Last seen after"]
    return _table("What held the run", heads, rows)


def _slowest(view: RunView) -> str:
    slowest = content.slowest(view)
    if not slowest:
        return '<p class="quiet-text">No export has ended yet.</p>'
    rows = [
        [
            row.name or row.segment_id,
            _seconds(content.total_seconds(row)),
            _seconds(content.vendor_seconds(row)),
            _seconds(content.fetch_seconds(row)),
            content.STATE_WORDS[row.state],
        ]
        for row in slowest
    ]
    heads = ["Segment", "From request to end", "At the vendor", "Fetching", "State"]
    return _table("Slowest exports", heads, rows, numbers=(1, 2, 3))


def _heading(text: str) -> str:
    first, _, second = text.partition("\n")
    below = f'<span class="sub">{escape(second)}</span>' if second else ""
    return f"<bdi>{escape(first)}</bdi>{below}"


def _seconds(value: float | None) -> str:
    return "\N{EN DASH}" if value is None else in_time(value)


def _table(
    caption: str,
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    numbers: Sequence[int] | None = None,
) -> str:
    """A table whose first column has the rows' headings, in two lines where they have two.

    Args:
        numbers: which columns are numbers; None: all but the first.
    """
    right = set(range(1, len(heads)) if numbers is None else numbers)
    classes = [' class="num"' if n in right else "" for n in range(len(heads))]
    head = "".join(
        f'<th scope="col"{kind}>{escape(text)}</th>'
        for text, kind in zip(heads, classes, strict=True)
    )
    body = "".join(
        f'<tr><th scope="row">{_heading(row[0])}</th>'
        + "".join(
            f"<td{kind}>{escape(text)}</td>"
            for text, kind in zip(row[1:], classes[1:], strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="Table: {caption}">'
        f'<table><caption class="unseen">{caption}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


# --------------------------------------------------------------------- the rest


def _rows_hint(view: RunView) -> str:
    if view.destination is None:
        return "The outcomes of the run are in its journal."
    return "<code>manifest.jsonl</code> beside the files has the same outcomes, one in a line."


def _footer(view: RunView) -> str:
    missing = (
        ""
        if view.complete
        else " The journal doesn't say which segments the run has: those to which nothing has "
        "happened yet are missing here."
    )
    return (
        "Made by segments-async. The page holds no link, no credential and nothing from elsewhere: "
        f"it can be mailed and kept. Times are by the clock of the exporting machine.{missing}"
    )
