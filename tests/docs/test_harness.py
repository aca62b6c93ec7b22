"""Claims about the harness of the pages itself: a wrong block fails."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from forked import ForkServer
from sybil import Example
from sybil.example import SybilFailure

from segments_async.testing import SegmentsSandbox

from .formats import PARSERS
from .pages import account_options, document, unmarked_code
from .python import Program
from .shell import Shell, matches
from .test_pages import Page

FENCE = "```"


@pytest.fixture
def page(
    fork_server: ForkServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Page]:
    """A page without a server: no block of these tests asks the vendor anything."""
    directory, state = tmp_path / "page", tmp_path / "state"
    directory.mkdir()
    state.mkdir()
    monkeypatch.chdir(directory)
    account = SegmentsSandbox()
    with (
        account.answering(),
        Program(account, monkeypatch) as program,
        Shell(directory, state, {"SEGMENTS_API_KEY": "key"}, [1234, 5678], fork_server) as shell,
    ):
        yield Page(program, shell)


def evaluate(page: Page, *blocks: str) -> None:
    path = Path("page.md")
    path.write_text("\n\n".join(blocks) + "\n")
    for example in examples(page, path):
        example.evaluate()


def examples(page: Page, path: Path) -> list[Example]:
    return list(document(path, page.rules()))


def block(language: str, text: str) -> str:
    return f"{FENCE}{language}\n{text}\n{FENCE}"


@pytest.mark.parametrize(
    "wrong",
    [
        block("", "print(1)"),
        block("pyhton", "print(1)"),
        block("{code-block} python", "print(1)"),
        block("console", "$ false"),
        block("console", "$ echo 1\n2"),
        block("console", "$ (exit 3)\n$ echo $?\n4"),
        block("console", "$ pip install -q 'segments-async[cli]' nothing-such"),
        block("console", "$ pip install -q 'segments-async[cli,nothing-such]'"),
        block("console", "$ pip install 'segments-async>=99'"),
        block("sh", "false\ntrue"),
        "<!--- not run: hours --->\n\n" + block("sh", "if true"),
        block("python", "print(1)") + "\n\n<!--- output --->\n\n" + block("text", "2"),
        block("python", "def test_false():\n    assert 1 == 2"),
    ],
)
def test_a_wrong_block_fails(page: Page, wrong: str) -> None:
    """An unknown language, a failed command, and an output other than the one shown fail."""
    with pytest.raises(SybilFailure):
        evaluate(page, wrong)


def test_a_page_is_one_program_in_virtual_time(page: Page) -> None:
    """Blocks share a namespace, a loop and a directory, and no loop waits for the clock."""
    evaluate(
        page,
        block("python", "import anyio\n\nevent = anyio.Event()\nawait anyio.sleep(9000)"),
        block(
            "python", "assert not event.is_set()\nasync with anyio.create_task_group():\n    ..."
        ),
        block("python", "anyio.run(anyio.sleep, 9000)"),
        block("python", "# saved.py\nnumber = 7"),
        block("python", "# saved.py, continued\nnumber += 1"),
        block("python", "import saved\n\nprint(saved.number)"),
        "<!--- output --->\n\n" + block("text", "8"),
        block("console", "$ cat saved.py\n# saved.py\n...\n$ export A=5\n$ mkdir sub; cd sub"),
        block("console", "$ echo 8420 127.0.0.1:8000 18420\n1234 127.0.0.1:5678 18420"),
        block("console", "$ echo $A $SEGMENTS_API_KEY\n5 key\n$ (exit 3)\n$ echo $?\n3"),
        block("sh", 'test "$(basename "$PWD")" = sub'),
        block("python", "# test_saved.py\nimport saved\n\ndef test_it():\n    assert saved.number"),
    )


def test_hidden_code_alone_has_the_account(page: Page) -> None:
    """`segments_sandbox` is there in a hidden block, and not in one that readers see."""
    hidden = "<!--- invisible-code-block: python\nsegments_sandbox.throttle()\n--->"
    evaluate(page, hidden)
    with pytest.raises(NameError):
        evaluate(page, hidden, block("python", "segments_sandbox"))


def test_code_without_a_fence_and_an_account_are_found(page: Page) -> None:
    """Indented code is found, and so are the options of a page's account."""
    path = Path("page.md")
    path.write_text("Text:\n\n    code\n\n<!--- account: segments=3, failed=0.5 --->\n")
    assert len(unmarked_code(path)) == 1
    assert account_options(document(path, {})) == {"segments": 3, "failed": 0.5}


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("json", "{'a': 1}"),
        ("jsonl", '{"a": 1}\nb'),
        ("toml", "a = b"),
        ("yaml", "a: [1"),
        ("ini", "a = 1"),
        ("systemd", "[Service]\nExecStart=sh -c 'a"),
        ("crontab", "0 25 * * * command"),
        ("dockerfile", "FROM a\nRUNS b"),
        ("sql", "CREATE TABEL a"),
        ("csv", "a,b\n1"),
    ],
)
def test_a_format_is_read(name: str, wrong: str) -> None:
    """Each format's parser refuses what isn't of the format."""
    with pytest.raises((AssertionError, ValueError, Exception)):
        PARSERS[name](wrong)


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("1 of ... files\n", "1 of 12 files  \n", True),
        ("a\n...\nd\n", "a\nb\nc\nd\n", True),
        ("a\n", "a\nb\n", False),
        ("a.c\n", "abc\n", False),
    ],
)
def test_dots_stand_for_any_text(shown: str, printed: str, same: bool) -> None:
    """`...` stands for any text, a line's spaces at its end don't count, all else does."""
    assert matches(shown, printed) is same
