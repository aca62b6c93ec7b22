"""JSON lines: what of a server's text goes into them."""

from __future__ import annotations

import pytest

from segments_async.cli.lines import unsigned


@pytest.mark.parametrize(
    ("link", "shown"),
    [
        (None, None),
        ("s3://bucket/a.csv", "s3://bucket/a.csv"),
        ("https://user:5ec4e7@b/k?X-Amz-Signature=5ec4e7#f", "https://b/k"),
        ("https://b/k%3FX-Amz-Signature%3D5ec4e7", "https://b/k%3FX-Amz-Signature: ..."),
        ("https://[b/k?X-Amz-Signature=5ec4e7", "https://[b/k?..."),  # no URL
    ],
)
def test_a_link_is_shown_without_its_signature(link: str | None, shown: str | None) -> None:
    """Whoever has the signature in it has the file; what is no URL is no reason to fail."""
    assert unsigned(link) == shown
