"""Requests to the sandbox without a transport, for its tests."""

from __future__ import annotations

import base64
import json
from typing import Any

from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY, Answer, Sandbox

LIST = "/service/v1/segments/list"
EXPORT = "/service/v1/segments/export/"
PAGE_AUTH = (PAGE_API_KEY, PAGE_ACCESS_TOKEN)


def headers(user: str = PAGE_API_KEY, password: str = PAGE_ACCESS_TOKEN) -> dict[str, str]:
    value = base64.b64encode(f"{user}:{password}".encode()).decode()
    return {"authorization": f"Basic {value}", "content-type": "application/json"}


def get(sandbox: Sandbox, path: str = LIST, now: float = 0.0) -> Answer:
    return sandbox.answer("GET", path, headers(), b"", now)


def post(sandbox: Sandbox, segment_id: str | None = None, now: float = 0.0) -> Answer:
    document = {"segmentId": segment_id or sandbox.segment_ids[0], "outputFormat": "csv"}
    return sandbox.answer("POST", EXPORT, headers(), json.dumps(document).encode(), now)


def read(answer: Answer) -> Any:
    return json.loads(b"".join(answer.pieces()))


def finished(sandbox: Sandbox, now: float = 100.0) -> tuple[str, str]:
    """The id and the file's path, with query, of an export of the first segment."""
    export_id = read(post(sandbox))["exportId"]
    link = read(get(sandbox, EXPORT + export_id, now))["filename"]
    return export_id, link.removeprefix(sandbox.files_origin)


def fetch(sandbox: Sandbox, path: str, now: float = 100.0, **conditions: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in conditions.items()}
    return sandbox.answer_file("GET", path, named, now)
