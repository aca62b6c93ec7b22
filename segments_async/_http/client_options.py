"""The keywords of a client, for type checkers."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import TypedDict

from segments_async._http.clients import HttpClient
from segments_async._sansio.pace.pacer import Pacer


class ClientOptions(TypedDict, total=False):
    """The keywords of `SegmentsClient`, which says what they mean."""

    base_url: str
    pacer: Pacer | None
    poll_share: float
    max_pending: int | None
    downloads: int
    request_timeout: float
    file_hosts: Sequence[str]
    http_client: HttpClient | None
    file_http_client: HttpClient | None
    ssl_context: ssl.SSLContext | None
    allow_insecure: bool
