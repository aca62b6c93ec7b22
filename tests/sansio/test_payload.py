"""Facts of the journal, read back strictly."""

from __future__ import annotations

import traceback
from typing import Any

import pytest

from segments_async._sansio.jobs.payload import UnreadablePayload, payload_from_json

LINK = "https://b/k?X-Amz-Signature=5ec4e7"
ENDING = {"type": "ServerError", "message": "", "resumable": False, "details": {}}


@pytest.mark.parametrize(
    "payload",
    [
        {LINK: 7},
        {"a" * 10_000: 7},
        {"error": {**ENDING, "submitted": LINK}},
        {"error": {**ENDING, "submitted": []}},
        {"export": {"exportId": LINK}},
    ],
)
def test_a_refusal_does_not_repeat_what_it_read(payload: dict[str, Any]) -> None:
    """However damaged a journal is, the error is short, and no traceback shows a signed link."""
    with pytest.raises(UnreadablePayload) as caught:
        payload_from_json("a-segment", payload)
    assert len(str(caught.value)) < 300
    assert "5ec4e7" not in "".join(traceback.format_exception(caught.value))
