"""The library's error messages in the words of the command line: options instead of keywords."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from segments_async import APIConnectionError, SegmentsError

#: What the library's messages say, and what the command's say instead.
_WORDS: Sequence[tuple[str, str | Callable[[re.Match[str]], str]]] = [
    (r"overwrite=True(?: \(--overwrite\))? replaces", "--overwrite replaces"),
    (r"; allow_insecure=True admits it", ". Nothing was sent; give an https:// URL"),
    (
        r"is not among file_hosts; to admit it, pass file_hosts=\[\.\.\., '([^']*)'\] to "
        r"SegmentsClient",
        r"is not a host of files; --file-host \1 admits it",
    ),
    (r"\bfile_hosts\b", "--file-host"),
    (r"shared=True joins the run", "--join joins the run"),
    (r"\bapi_key:", "SEGMENTS_API_KEY:"),
    (r"\baccess_token:", "SEGMENTS_ACCESS_TOKEN:"),
    (r"base_url: not an http\(s\) URL: .*", "SEGMENTS_BASE_URL: not an http(s) URL"),
    (r"\bbase_url\b", "SEGMENTS_BASE_URL"),
    (r" \(file_http_client, a proxy\)", " (a proxy)"),
    (
        r"\b(only_changed|retry_failed|on_unknown|on_expired|export_timeout|max_pending"
        r"|poll_share|rate|timeout|downloads|run):(?= )",
        lambda found: f"--{found[1].replace('_', '-')}:",
    ),
]


def in_words(text: str) -> str:
    """A message of the library, in the command's words."""
    for pattern, words in _WORDS:
        text = re.sub(pattern, words, text)
    return text


def reason(error: SegmentsError, *, segment_id: str, export_id: str | None) -> str:
    """Why one segment isn't exported: without its ids, which stand beside the reason."""
    text = str(error).removeprefix(f"segment {segment_id}: ")
    if export_id is not None:
        text = text.replace(f"export {export_id}", "the export")
    text = text.removeprefix("the export: ")
    return in_words(f"no answer: {text}" if isinstance(error, APIConnectionError) else text)
