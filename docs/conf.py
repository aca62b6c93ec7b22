"""The documentation's site: `sphinx-build -W --keep-going -n -b html docs docs/_build/html`.

The build asks no network. Types of other libraries are linked by `external.txt`, a list of the few
that the public signatures name, instead of by the inventories that intersphinx would download: a
name that is in neither list is a warning, and so an error.
"""

from __future__ import annotations

import builtins
import re
import zlib
from importlib import metadata
from pathlib import Path
from typing import Any

from docutils import nodes
from pygments.lexers.shell import BashLexer
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.pycode import ModuleAnalyzer
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform

from segments_async import S3_HOSTS

HERE = Path(__file__).parent
ROOT = HERE.parent

project = "segments-async"
author = "the segments-async authors"
copyright = f"2026, {author}"  # noqa: A001
release = version = metadata.version("segments-async")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_copybutton",
    "sphinx_llm.txt",
]
exclude_patterns = ["_build"]
nitpicky = True
smartquotes = False

myst_heading_anchors = 4

# `name` in a docstring is a link where there is such a name, and code where there is none.
default_role = "py:obj"
nitpick_ignore_regex = [("py:obj", ".*")]
# Type variables, and types that the parts of the sandbox and of the client pass to one another.
nitpick_ignore = [
    ("py:class", "_Args"),
    ("py:class", "segments_async._sansio.pace.limit_headers.Hint"),
    ("py:class", "segments_async._sansio.pace.shared_limit.Share"),
    ("py:class", "segments_async.sandbox.content.Compressed"),
    ("py:class", "segments_async.sandbox.content.Content"),
    ("py:class", "segments_async.sandbox.limits.Counter"),
    ("py:class", "segments_async.sandbox.limits._Budget"),
    ("py:class", "segments_async.cluster.pool.T"),
    ("py:class", "segments_async.testing.loop._Result"),
]

autoclass_content = "class"
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
intersphinx_mapping: dict[str, tuple[str, str]] = {}
autodoc_default_options = {"members": True, "exclude-members": "__init__"}
python_maximum_signature_line_length = 88
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
napoleon_attr_annotations = True

html_theme = "furo"
html_title = "segments-async"
html_static_path = ["static"]
html_css_files = ["site.css"]
html_copy_source = False
copybutton_exclude = ".linenos, .gp, .go"

llms_txt_suffix_mode = "replace"
llms_txt_description = metadata.metadata("segments-async")["Summary"]

#: Pages beside the README are pages of the site, too: their file in the repository, and here.
ROOT_PAGES = {
    "README.md": "readme",
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
    "SECURITY.md": "security",
}


#: Types that signatures name without their module, and where they are explained or documented.
TYPES = {
    "segments_async._http.client_options.ClientOptions": "ClientOptions",
    "segments_async._http.clients.HttpClient": "HttpClient",
    "segments_async._run.request.StrPath": "StrPath",
    "segments_async.results.OutcomeT": "OutcomeT",
    "segments_async.testing.account.HasSegmentId": "HasSegmentId",
    "segments_async.testing.account.SandboxOptions": "SandboxOptions",
    "_asyncio.Future": "asyncio.Future",
    "concurrent.futures._base.Executor": "concurrent.futures.Executor",
    "concurrent.futures._base.Future": "concurrent.futures.Future",
    "segments_async.cluster.tasks.AnyExecutor": "concurrent.futures.Executor",
    "datetime": "datetime.datetime",
}


class TypeLinks(SphinxTransform):
    """Links of types: a built-in one is never an attribute of the same name in the class."""

    default_priority = 200

    def apply(self, **_: Any) -> None:
        """Name each type of a signature in full."""
        for node in self.document.findall(addnodes.pending_xref):
            if node.get("refdomain") == "py" and node.get("reftype") == "class":
                node["reftarget"] = TYPES.get(node["reftarget"], node["reftarget"])
                if hasattr(builtins, node["reftarget"]):
                    node["reftarget"] = f"builtins.{node['reftarget']}"


class Dashes(SphinxTransform):
    """An en dash between an argument's name and its meaning, where Sphinx writes two hyphens."""

    default_priority = 200

    def apply(self, **_: Any) -> None:
        """Replace the hyphens."""
        for text in list(self.document.findall(nodes.Text)):
            if text == " -- ":
                text.parent.replace(text, nodes.Text(" \N{EN DASH} "))


class Stars(SphinxPostTransform):
    """In Markdown, the `*` before keyword-only arguments: it has an explanation only HTML shows."""

    default_priority = 10
    formats = ("markdown",)

    def run(self, **_: Any) -> None:
        """Leave the star, without its explanation."""
        for star in list(self.document.findall(nodes.abbreviation)):
            star.replace_self(star.children)


class RepositoryLinks(SphinxTransform):
    """Links to files of the repository, which are relative so that they work in the repository.

    One of the pages beside the README becomes a link to its page here. Any other file outside of
    this folder is served with the site.
    """

    default_priority = 200

    def apply(self, **_: Any) -> None:
        """Turn each of the page's links to files into one that works here."""
        folder = ROOT if self.env.docname in ROOT_PAGES.values() else HERE
        known = {str(ROOT / name): page for name, page in ROOT_PAGES.items()}
        for node in [*self.document.findall(addnodes.pending_xref), *self._downloads()]:
            if node.get("reftype") != "myst":
                continue
            if node.get("refdomain") is None:
                self._resolve(node, folder)
            elif f"{node['reftarget']}.md" in known:  # MyST took it for a page of this folder
                node["reftarget"] = known[f"{node['reftarget']}.md"]

    def _downloads(self) -> list[addnodes.download_reference]:
        return list(self.document.findall(addnodes.download_reference))

    def _resolve(self, node: nodes.Element, folder: Path) -> None:
        name, _, anchor = node["reftarget"].partition("#")
        target = (folder / name).resolve()
        if not name or not target.is_file() or not target.is_relative_to(ROOT):
            return
        page = self._page(target)
        if page is not None:
            place = {"refdomain": "doc", "reftarget": page, "reftargetid": anchor or None}
            link = addnodes.pending_xref(**self._linked(place))
        else:
            place = {"refdomain": None, "reftarget": f"/../{target.relative_to(ROOT)}"}
            link = addnodes.download_reference(**self._linked(place))
        link += node.children
        node.replace_self(link)

    def _linked(self, place: dict[str, str | None]) -> dict[str, Any]:
        return {"reftype": "myst", "refexplicit": True, "refdoc": self.env.docname, **place}

    def _page(self, target: Path) -> str | None:
        if target.is_relative_to(HERE):
            return self.env.path2doc(str(target))
        return ROOT_PAGES.get(str(target.relative_to(ROOT)))


def link_external_types(app: Sphinx, _: Config) -> None:
    """Give intersphinx an inventory of the names in `external.txt`."""
    folder = app.doctreedir / "external"
    folder.mkdir(parents=True, exist_ok=True)
    for block in (HERE / "external.txt").read_text().strip().split("\n\n"):
        head, *lines = [line for line in block.splitlines() if not line.startswith("#")]
        library, url = head.split()
        entries = [f"{name} py:{role} 1 {place} -\n" for role, name, place in map(str.split, lines)]
        file = folder / f"{library}.inv"
        header = f"# Sphinx inventory version 2\n# Project: {library}\n# Version: \n"
        packed = zlib.compress("".join(entries).encode())
        file.write_bytes(f"{header}# The remainder is compressed using zlib.\n".encode() + packed)
        app.config.intersphinx_mapping[library] = (url, str(file))


def show_keywords(_: Sphinx) -> None:
    """Show `bulk_export` with its keywords, which its overloads for type checkers don't have."""
    analyzer = ModuleAnalyzer.for_module("segments_async.client")
    analyzer.analyze()
    analyzer.overloads.clear()


#: Classes that a program gets and never makes: their arguments are the library's own matter.
GIVEN = {
    *("Activity", "Answer", "BulkReport", "BulkRun", "ClusterRun", "Completed", "Entry"),
    *(
        "ExportBody",
        "Exported",
        "ExportedFile",
        "Held",
        "Journal",
        "NotExported",
        "Progress",
        "Record",
    ),
    *("RunSpec", "RunStatus"),
}


def shorten_signature(
    _app: Sphinx, what: str, name: str, _object: Any, _options: Any, signature: str, result: str
) -> tuple[str | None, str]:
    """Show the name alone of an error, and of a class that a program never makes."""
    if what == "exception" or (what == "class" and name.rpartition(".")[2] in GIVEN):
        return "", result
    return signature and signature.replace(repr(S3_HOSTS), "S3_HOSTS"), result


def write_docstring(
    _app: Sphinx, _what: str, _name: str, _object: Any, _options: Any, lines: list[str]
) -> None:
    """Show an attribute's type beside its name, and link the pages that docstrings name."""
    text = "\n".join(lines)
    text = re.sub(
        r"^(\.\. attribute:: .*\n)((?: .*\n|\n)*?)\n(   :type: .*)$",
        r"\1\3\n\2",
        text,
        flags=re.MULTILINE,
    )
    lines[:] = re.sub(r"docs/([a-z-]+)\.md", r":doc:`/\1`", text).split("\n")


def setup(app: Sphinx) -> None:
    """Register what only this site needs."""
    app.add_transform(RepositoryLinks)
    app.add_transform(TypeLinks)
    app.add_transform(Dashes)
    app.add_post_transform(Stars)
    app.connect("config-inited", link_external_types, priority=100)
    app.connect("builder-inited", show_keywords)
    app.connect("autodoc-process-signature", shorten_signature)
    app.connect("autodoc-process-docstring", write_docstring, priority=900)
    app.add_lexer("crontab", BashLexer)
