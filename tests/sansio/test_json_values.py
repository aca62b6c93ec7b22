"""Bytes of an answer: what of them is JSON, and whether it is whole."""

from __future__ import annotations

import pytest

from segments_async._sansio.api.json_values import is_whole

ENCODINGS = ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"]


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("text", ['{"a": "}"}', '[{"a": 1}]\r\n', "{} \t\n", "[]"])
def test_an_object_and_a_list_are_whole_in_each_encoding(text: str, encoding: str) -> None:
    """White space behind the JSON, and a byte order mark before it, are no part of it."""
    assert is_whole(text.encode(encoding))


@pytest.mark.parametrize(
    "body", [b"", b" ", b"{", b'{"a": "}', b'[{"a": 1}', b"12", b"null", b'"}"', b"{}}", b"<html>}"]
)
def test_what_more_bytes_would_change_is_not_whole(body: bytes) -> None:
    """A number may go on, and an object or a list has an end."""
    assert not is_whole(body)
