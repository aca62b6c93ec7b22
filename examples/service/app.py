"""A FastAPI service that exports segments in the background, and shows their progress on a page.

    pip install 'segments-async[journal]' fastapi uvicorn
    export SEGMENTS_API_KEY=... SEGMENTS_ACCESS_TOKEN=...
    uvicorn app:app --timeout-graceful-shutdown 5

The page is at http://127.0.0.1:8000/. `POST /exports/{name}` starts the run of that name, or goes
on with it after a restart or an error. `GET /exports/{name}` returns its progress, and
`GET /exports/{name}/events` streams it as server-sent events.

The service asks nobody for a password: put it behind the one that you have. Without
`--timeout-graceful-shutdown`, uvicorn waits at its end for each open stream of events, so for the
run's end; with `--reload` at each change of a file, too. Run one process (no `--workers`): the jobs
are in its memory, and another worker that is asked for a running export fails with "held by a live
process".
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any

import anyio
import fastapi
from anyio.abc import TaskGroup
from fastapi import Depends, FastAPI, HTTPException
from fastapi.responses import FileResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from segments_async import BulkReport, BulkRun, Exported, SegmentsClient, SegmentsError

logger = logging.getLogger(__name__)

#: Jobs that are remembered. One that has ended and is forgotten is still in the journal.
MOST_JOBS = 100

#: A name is a directory beside the journal `runs.db`: it has no dot and no slash.
Name = Annotated[str, fastapi.Path(pattern="^[a-z0-9][a-z0-9-]{0,63}$")]


class Job:
    """One run of the service, which any request may look at."""

    def __init__(self) -> None:
        self.run: BulkRun[Exported] | None = None
        self.report: BulkReport[Exported] | None = None
        self.error: str | None = None
        self.started = anyio.Event()
        self.ended = anyio.Event()

    @property
    def state(self) -> str:
        """running, ended (every segment has its outcome), or failed (the run broke off)."""
        if not self.ended.is_set():
            return "running"
        return "failed" if self.error is not None else "ended"

    def to_dict(self) -> dict[str, Any]:
        """The job as a response."""
        return {
            "state": self.state,
            "error": self.error,
            "progress": None if self.run is None else self.run.progress.to_dict(),
            "not_exported": [o.to_dict() for o in self.report.not_exported] if self.report else [],
        }


class Exports:
    """The jobs of one process. One client serves all of them, so that they share the rate limit."""

    def __init__(self, client: SegmentsClient, tasks: TaskGroup, directory: Path) -> None:
        self._client = client
        self._tasks = tasks
        self._directory = directory
        self.jobs: dict[str, Job] = {}

    def start(self, name: str) -> Job:
        """Start the run, unless this process has it already. After an error it goes on."""
        job = self.jobs.get(name)
        if job is None or job.state == "failed":
            self.jobs.pop(name, None)
            self._make_room()
            job = self.jobs[name] = Job()
            self._tasks.start_soon(self._work, name, job)
        return job

    def _make_room(self) -> None:
        if len(self.jobs) >= MOST_JOBS:
            over = next((name for name, job in self.jobs.items() if job.state != "running"), None)
            if over is None:
                raise HTTPException(503, f"{MOST_JOBS} exports are running; try again later")
            del self.jobs[over]

    async def _work(self, name: str, job: Job) -> None:
        try:
            segments = await self._client.list_segments()
            async with self._client.open_bulk_export(
                segments, self._directory / name, journal=self._directory / "runs.db", run=name
            ) as run:
                job.run = run
                job.started.set()
                job.report = await run.report()
        except SegmentsError as error:  # of the account: errors of segments are in the report
            job.error = str(error)
        except anyio.get_cancelled_exc_class():
            job.error = "the service stopped; POST again, and the export goes on"
            raise
        except Exception as error:  # other jobs go on
            logger.exception("export %s broke off", name)
            job.error = type(error).__name__
        finally:
            job.started.set()
            job.ended.set()


@contextlib.asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """The client and its jobs live as long as the service. A job that is cut off goes on later."""
    async with SegmentsClient.from_env() as client, anyio.create_task_group() as tasks:
        directory = Path(os.environ.get("EXPORTS", "exports"))
        await anyio.Path(directory).mkdir(mode=0o700, exist_ok=True)
        app.state.exports = Exports(client, tasks, directory)
        yield
        tasks.cancel_scope.cancel()


app = FastAPI(lifespan=lifespan)


def job_named(name: Name) -> Job:
    """The job, or 404."""
    jobs: dict[str, Job] = app.state.exports.jobs
    if name not in jobs:
        raise HTTPException(404, f"no export named {name}")
    return jobs[name]


@app.get("/", include_in_schema=False)
async def page() -> FileResponse:
    """The page that shows all exports."""
    return FileResponse(Path(__file__).with_name("page.html"))


@app.get("/exports")
async def jobs() -> dict[str, dict[str, Any]]:
    """The exports of this process, by name."""
    return {name: job.to_dict() for name, job in app.state.exports.jobs.items()}


@app.post("/exports/{name}", status_code=202)
async def start(name: Name) -> dict[str, Any]:
    """Start an export of all segments, or find the one of this name."""
    job: Job = app.state.exports.start(name)
    return job.to_dict()


@app.get("/exports/{name}")
async def status(job: Annotated[Job, Depends(job_named)]) -> dict[str, Any]:
    """An export's progress, and why nothing moves."""
    return job.to_dict()


@app.get("/exports/{name}/events", response_class=EventSourceResponse)
async def events(job: Annotated[Job, Depends(job_named)]) -> AsyncIterator[ServerSentEvent]:
    """The same as server-sent events, at most one a second; the last is of the type `end`."""
    await job.started.wait()
    if job.run is not None:
        async for _ in job.run.changes(1.0):
            yield ServerSentEvent(data=job.to_dict())
    await job.ended.wait()
    yield ServerSentEvent(data=job.to_dict(), event="end")
