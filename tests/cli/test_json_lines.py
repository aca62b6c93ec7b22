"""JSON lines: links without their signatures."""

from __future__ import annotations

import pytest

from segments_async.cli.json_lines import unsigned

S3 = "https://b.s3.us-east-1.amazonaws.com"


@pytest.mark.parametrize(
    ("link", "shown"),
    [
        (None, None),
        ("s3://bucket/a.csv", "s3://bucket/a.csv"),
        (f"{S3}/k?X-Amz-Signature=5ec4e7&x='&token=5ec4e7#f", f"{S3}/k"),
        (f"{S3}/k;token=5ec4e7", f"{S3}/k;..."),
        (f"{S3}/k#token=5ec4e7", f"{S3}/k"),
        (f"{S3}/k%3FX-Amz-Signature%3D5ec4e7", f"{S3}/k%3FX-Amz-Signature: ..."),
        ("https://user:5ec4e7@b/k?X-Amz-Signature=5ec4e7#f", "https://b/..."),
        ("https://files.example/5ec4e7/k", "https://files.example/..."),
        ("https://files.example:8443/k;5ec4e7", "https://files.example:8443/..."),
        ("https://[b/k?X-Amz-Signature=5ec4e7", "https://[b/k?..."),  # no URL
    ],
)
def test_a_link_is_shown_without_its_signature(link: str | None, shown: str | None) -> None:
    """A link is shown without its signature; of hosts other than S3, without its path, too."""
    assert unsigned(link) == shown
