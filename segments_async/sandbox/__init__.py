"""A stand-in for the vendor's User Segments Export API, written from the vendor's page.

`Sandbox` is the vendor as a pure function of requests and time. `SandboxTransport` puts a sandbox
behind an `httpx.AsyncClient`; `segments_async.sandbox.server.SandboxServer` (extra `sandbox`) puts
one behind two loopback ports. Nothing here imports the client.
"""

from __future__ import annotations

from .answer import Answer, BrokenBody, Reply
from .exports import DurationLaw, Durations
from .faults import Fault
from .limits import ContendedLimit, FixedWindow, TokenBucket
from .model import Sandbox
from .page import (
    API_ORIGIN,
    FILES_ORIGIN,
    FREE_ACCESS_TOKEN,
    FREE_API_KEY,
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    PAGE_EXPORT_ID,
    PAGE_SEGMENT_ID,
)
from .record import Entry, Record
from .segments import Segment
from .storage import FileHost
from .transport import SandboxTransport

__all__ = [
    "API_ORIGIN",
    "FILES_ORIGIN",
    "FREE_ACCESS_TOKEN",
    "FREE_API_KEY",
    "PAGE_ACCESS_TOKEN",
    "PAGE_API_KEY",
    "PAGE_EXPORT_ID",
    "PAGE_SEGMENT_ID",
    "Answer",
    "BrokenBody",
    "ContendedLimit",
    "DurationLaw",
    "Durations",
    "Entry",
    "Fault",
    "FileHost",
    "FixedWindow",
    "Record",
    "Reply",
    "Sandbox",
    "SandboxTransport",
    "Segment",
    "TokenBucket",
]
