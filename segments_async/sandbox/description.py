"""The OpenAPI description of the vendor's API, as this sandbox serves it.

The description itself is `openapi.json`, beside this module. docs/openapi.md says what of it is the
vendor's, and what is assumed.
"""

from __future__ import annotations

import json
from functools import cache
from importlib import resources
from typing import Any


@cache
def _description() -> dict[str, Any]:
    return dict(
        json.loads((resources.files("segments_async.sandbox") / "openapi.json").read_bytes())
    )


def openapi_json(origin: str) -> bytes:
    """The description, with `origin` for its only server.

    The file names the vendor's host. A tool that reads the description from a sandbox has to send
    its requests to that sandbox.
    """
    servers = [{"url": origin, "description": "A sandbox of segments-async."}]
    return json.dumps({**_description(), "servers": servers}, ensure_ascii=False).encode()
