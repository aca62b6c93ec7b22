"""The pages of the documentation, and their fenced blocks as Sybil's examples."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import cast

from markdown_it import MarkdownIt
from sybil import Document, Example, Region
from sybil.parsers.markdown.lexers import DirectiveInHTMLCommentLexer, RawFencedCodeBlockLexer
from sybil.typing import Evaluator

from segments_async.testing.account import SandboxOptions

ROOT = Path(__file__).resolve().parents[2]

PAGES = sorted(
    path
    for pattern in ("*.md", "examples/*/README*.md", "docs/*.md")
    for path in ROOT.glob(pattern)
)

#: MyST's directives that have no code in them: what they show is the build's matter.
_DIRECTIVE = re.compile(r"\{(?!code|literalinclude|sourcecode)[\w:-]+\}")

_FENCES = RawFencedCodeBlockLexer(
    info_pattern=re.compile(r"(?P<arguments>[^\n]*)\n"),
    mapping={"arguments": "arguments", "source": "source"},
)
_HIDDEN = DirectiveInHTMLCommentLexer(directive="invisible-code-block", arguments="[a-z]+")

_NOT_RUN = re.compile(r"<!--+ not run: (?P<reason>[^>]+?) *--+>\s*\Z")
_OUTPUT = re.compile(r"<!--+ output *--+>\s*\Z")
_ACCOUNT = re.compile(r"<!--+ account: (?P<options>[^>]+?) *--+>")
_FILE = re.compile(r"\A# (?P<name>[\w./-]+\.[a-z]+)(?P<more>, continued)?\n")


def ids(page: Path) -> str:
    return str(page.relative_to(ROOT)) if page.is_relative_to(ROOT) else str(page)


def document(page: Path, rules: Mapping[str, Evaluator]) -> Document:
    """A page whose blocks are evaluated by the rules of their languages."""

    def blocks(document: Document) -> Iterable[Region]:
        for region in _regions(document):
            region.parsed = region.lexemes["source"]
            region.evaluator = rules.get(language(region), _no_rule)
            yield region

    return Document.parse(str(page), blocks)


def _regions(document: Document) -> Iterator[Region]:
    yield from _HIDDEN(document)
    for region in _FENCES(document):
        if not _DIRECTIVE.match(language(region)):
            yield region


def _no_rule(example: Example) -> str:
    return f"no rule for a block of {language(example.region)!r}; CONTRIBUTING.md has the list"


def language(region: Region) -> str:
    name: str = region.lexemes["arguments"]
    return name.strip()


def is_hidden(example: Example) -> bool:
    """Whether readers don't see the block: it stands in an HTML comment."""
    return "directive" in example.region.lexemes


def reason_not_to_run(example: Example) -> str | None:
    """Of the comment before a block that is read and not run; None: it is run."""
    found = _NOT_RUN.search(example.document.text[: example.start])
    return found["reason"] if found else None


def heading_of(example: Example) -> str | None:
    """The heading of the section (``##``) that the block is in; None: before the first one."""
    above = re.findall(r"^## (.*)$", example.document.text[: example.start], re.MULTILINE)
    return above[-1] if above else None


def is_output(example: Example) -> bool:
    """Whether a comment says that the block shows what the code before it prints."""
    return _OUTPUT.search(example.document.text[: example.start]) is not None


def file_of(example: Example, directory: Path) -> Path | None:
    """The file that a block's first line names (``# nightly.py``), with the block written to it.

    A block that begins with ``# nightly.py, continued`` is appended to the file.
    """
    found = _FILE.match(example.parsed)
    if found is None:
        return None
    file = directory / found["name"]
    with file.open("a" if found["more"] else "w") as opened:
        opened.write(f"\n\n{example.parsed}" if found["more"] else example.parsed)
    return file


def account_options(document: Document) -> SandboxOptions:
    """Options of the page's account, from its comment ``account: segments=3, rows=5``."""
    found = _ACCOUNT.search(document.text)
    if found is None:
        return {}
    call = ast.parse(f"dict({found['options']})", mode="eval").body
    assert isinstance(call, ast.Call)
    values = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    return cast("SandboxOptions", values)


def unmarked_code(page: Path) -> list[str]:
    """Code that has no fence, and so no language: CommonMark's indented blocks."""
    tokens = MarkdownIt("commonmark").parse(page.read_text())
    return [
        f"{page}:{token.map[0] + 1}" for token in tokens if token.type == "code_block" and token.map
    ]


def fences(page: Path) -> int:
    """Number of a page's fenced blocks that show code, as a Markdown parser counts them."""
    tokens = MarkdownIt("commonmark").parse(page.read_text())
    return sum(token.type == "fence" and not _DIRECTIVE.match(token.info) for token in tokens)
