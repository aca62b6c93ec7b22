"""The command's messages have options in them, and no names of Python."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

from segments_async import Pacer, SegmentsClient
from segments_async._files.directory import check_target
from segments_async._sansio.files.links import check_link
from segments_async.cli.wording import in_words, reason
from segments_async.errors import APIConnectionError, ExportFailedError

_PYTHON = re.compile(r"\b\w+=|SegmentsClient|\b[a-z]+_[a-z_]+:|file_hosts|base_url|True|False|None")


def _message(raising: Callable[[], Any]) -> str:
    with pytest.raises(Exception) as caught:  # noqa: PT011 - which error it is is not the claim
        raising()
    return str(caught.value)


@pytest.mark.parametrize(
    ("raising", "words"),
    [
        (lambda: SegmentsClient("a:b", "c"), "SEGMENTS_API_KEY: a colon"),
        (lambda: SegmentsClient("a", ""), "SEGMENTS_ACCESS_TOKEN: missing or empty"),
        (lambda: SegmentsClient("a", "b", base_url="foo"), "SEGMENTS_BASE_URL: not an http(s) URL"),
        (lambda: SegmentsClient("a", "b", base_url="https://a/?x"), "SEGMENTS_BASE_URL: no user"),
        (lambda: SegmentsClient("a", "b", base_url="http://a.example"), "give an https:// URL"),
        (lambda: check_target(__file__, overwrite=False), "; --overwrite replaces it"),
        (
            lambda: check_link("https://a.example/x", file_hosts=["*.b"], loopback=False),
            "--file-host a.example admits it",
        ),
        (lambda: Pacer(rate=0), "--rate: requests/s above zero"),
        (lambda: SegmentsClient("a", "b", max_pending=0), "--max-pending: at least 1"),
        (lambda: SegmentsClient("a", "b", poll_share=2), "--poll-share: from 0 to 1"),
    ],
)
def test_the_librarys_messages_in_the_commands_words(
    raising: Callable[[], Any], words: str
) -> None:
    """A keyword's name becomes the option's, or the variable's."""
    said = in_words(_message(raising))
    assert words in said
    assert _PYTHON.search(said) is None, said


def test_a_reason_has_no_ids() -> None:
    """Ids stand beside a reason, so that segments that share it are told together."""
    error = ExportFailedError("segment s-1: the vendor says that export e-1 failed")
    said = reason(error, segment_id="s-1", export_id="e-1")
    assert said == "the vendor says that the export failed"
    broken = APIConnectionError("POST /export/: ReadTimeout", method="POST", path="/", sent=True)
    assert reason(broken, segment_id="s", export_id=None) == "no answer: POST /export/: ReadTimeout"
