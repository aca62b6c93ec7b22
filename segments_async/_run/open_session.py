"""Opens the session of a bulk run: of the whole run, or of this process's parts of a shared one.

A `BulkRun` imports this module when it is entered: a program that only names `SegmentsClient`, or
makes single exports, needs no engine, no recorder and no worker pool.
"""

from __future__ import annotations

from typing import Any

from segments_async._run.request import RunRequest
from segments_async._run.resources import Resources
from segments_async._run.run_session import RunSession
from segments_async._run.session import Session
from segments_async._run.shared_session import SharedSession, join_run
from segments_async._run.start import start_run


async def open_session(resources: Resources, request: RunRequest) -> RunSession[Any]:
    """Check everything that can be checked before the first request, and open the session."""
    if request.shared:
        shared, wanted = await join_run(resources, request)
        return SharedSession(resources, request, shared, wanted)
    return Session(resources, request, await start_run(resources, request))
