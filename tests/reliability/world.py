"""A vendor, a directory and a journal, and sessions of one run between them, in virtual time."""

from __future__ import annotations

import contextlib
import random
import threading
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Any, Literal
from unittest import mock

import anyio
import anyio.lowlevel
import anyio.to_thread
import attrs
import httpx
from client.vendor import adds_up, assert_at_rest

from reliability.judge import Contents, Told, half_files, hammered, told_credentials
from reliability.mortal import Life, MortalTransport
from segments_async import (
    Exported,
    NotExported,
    SegmentsClient,
    SegmentsError,
    results,
)
from segments_async._journal import opened_run, outages, run_log
from segments_async._run import downloads, engine, recorder, session, start
from segments_async.client import statistics_of
from segments_async.sandbox import API_ORIGIN, PAGE_ACCESS_TOKEN, PAGE_API_KEY, Sandbox

#: How a session ends, if its run doesn't end before: the caller leaves its block, is cancelled,
#: gave a `timeout`; or the process dies.
Way = Literal["end", "leave", "cancel", "timeout", "kill"]

#: The modules that look at the wall clock.
_WALL_CLOCKS = (
    engine, downloads, recorder, session, start, opened_run, outages, results,
    run_log,
)  # fmt: skip


@attrs.frozen
class Plan:
    """One session.

    Attributes:
        way: how the session ends, if the run doesn't end before.
        after: seconds until then.
        gap: seconds since the last session.
        jump: seconds by which the wall clock jumps at the session's beginning...
        jump_later: ...and once more after half of `after`.
        options: of the run.
    """

    way: Way = "end"
    after: float = 1e6
    gap: float = 0.0
    jump: float = 0.0
    jump_later: float = 0.0
    options: Mapping[str, Any] = attrs.field(factory=dict[str, Any])


async def _take(disk: random.Random) -> None:
    """Seconds of a call to the disk: short, sometimes none, now and then those of a slow disk."""
    await anyio.lowlevel.cancel_shielded_checkpoint()
    if disk.random() < 0.5:
        await anyio.sleep(disk.choice([0.001, 0.01, 0.3]))


class World:
    """One vendor and one machine, on which sessions of a run follow one another.

    Args:
        sandbox: the vendor.
        directory: of the files; the journal is beside it, unless `journal` says where.
        journal: a path or URL.
        careless: the caller's HTTP clients take the end of a connection for the end of a body.
        disk: draws the virtual seconds of each call in a worker thread. None: real threads, and so
            no two runs are the same.
    """

    def __init__(
        self,
        sandbox: Sandbox,
        directory: Path,
        journal: str | None = None,
        *,
        careless: bool = False,
        disk: random.Random | None = None,
    ) -> None:
        self.sandbox = sandbox
        self._disk = disk
        self._careless = careless
        self.directory = directory / "exports"
        self.journal = journal or str(directory / "runs.db")
        self.contents = Contents(sandbox)
        self.clock_error = 0.0
        #: From there on, 500s are known by the journal: unless the process died before it told
        #: of them, was cancelled before it had heard of them, or the clock jumped since.
        self._guarded_since = 0
        self.complaints: list[str] = []
        self.killed = False
        #: Of the last session, whatever ended it.
        self.outcomes: list[Told] = []
        self.error: BaseException | None = None
        #: Of the session that is lived: its process, its caller, and the caller's loop.
        self.life = Life()
        self.caller: anyio.CancelScope | None = None
        self.loop: anyio.CancelScope | None = None
        self._now: Callable[[], float] = lambda: 0.0
        self._loop_thread = 0
        self._seen = 0.0

    def wall(self) -> datetime:
        """The machine's wall time."""
        if threading.get_ident() == self._loop_thread:
            with contextlib.suppress(RuntimeError):
                self._seen = self._now()
        return self.sandbox.epoch + timedelta(seconds=self._seen + self.clock_error)

    @contextlib.contextmanager
    def told_the_time(self) -> Generator[None]:
        """While the modules that read the wall clock see this machine's."""
        world = self

        class Wall(datetime):
            @classmethod
            def now(cls, tz: tzinfo | None = None) -> datetime:  # type: ignore[override]
                moment = world.wall()
                return moment if tz is None else moment.astimezone(tz)

        with contextlib.ExitStack() as stack:
            for module in _WALL_CLOCKS:
                stack.enter_context(mock.patch.object(module, "datetime", Wall))
            if self._disk is not None:
                stack.enter_context(mock.patch.object(anyio.to_thread, "run_sync", self._on_disk))
            yield

    async def _on_disk(
        self, call: Callable[..., Any], *arguments: Any, abandon_on_cancel: bool = False
    ) -> Any:
        """Run a worker thread's call in virtual time, so that a seed repeats the same order."""
        disk = self._disk
        assert disk is not None
        await anyio.lowlevel.checkpoint_if_cancelled()
        with anyio.CancelScope(shield=not abandon_on_cancel):
            try:
                await _take(disk)
            except BaseException:
                call(*arguments)  # the thread goes on by itself
                raise
            try:
                return call(*arguments)
            finally:
                with anyio.CancelScope(shield=True):
                    await _take(disk)

    @contextlib.asynccontextmanager
    async def client(self, life: Life, **options: Any) -> AsyncGenerator[SegmentsClient]:
        transport = MortalTransport(self.sandbox, life, careless=self._careless)
        self._loop_thread = threading.get_ident()
        self._now = transport.now
        async with (
            httpx.AsyncClient(transport=transport) as http,
            httpx.AsyncClient(transport=transport) as files,
            SegmentsClient(
                PAGE_API_KEY,
                PAGE_ACCESS_TOKEN,
                base_url=API_ORIGIN,
                http_client=http,
                file_http_client=files,
                **options,
            ) as client,
        ):
            yield client

    async def pause(self, seconds: float) -> None:
        """Let time pass between two sessions."""
        transport = MortalTransport(self.sandbox, Life())
        transport.now()
        await anyio.sleep(seconds)
        transport.now()

    async def session(self, plan: Plan) -> None:
        """Run one session, and collect the judge's complaints."""
        await self.pause(plan.gap)
        self.clock_error += plan.jump
        before = len(self.sandbox.record)
        if plan.jump or plan.jump_later:
            self._guarded_since = before
        self.outcomes, self.error = [], None
        self.life = life = Life()
        with life.lived():
            async with self.client(life) as client:
                await self._live(client, life, plan)
                self.caller = self.loop = None
                if not life.dead:
                    assert_at_rest(client, self.sandbox)
                heard = statistics_of(client)[0].internal_errors
        self.killed |= life.dead
        self.complaints += [
            *half_files(self.contents, self.directory),
            *hammered(self.sandbox.record, since=before, guarded_since=self._guarded_since),
            *told_credentials(self.sandbox.record),
        ]
        said = sum(e.status == 500 for e in self.sandbox.record.api() if e.number > before)
        if life.dead or plan.jump_later or heard < said:
            self._guarded_since = len(self.sandbox.record)

    async def _live(self, client: SegmentsClient, life: Life, plan: Plan) -> None:
        self.caller = outer = anyio.CancelScope()

        async def end() -> None:
            await anyio.sleep(plan.after / 2)
            self.clock_error += plan.jump_later
            await anyio.sleep(plan.after / 2)
            if plan.way == "kill":
                life.die()
            if plan.way in ("kill", "cancel"):
                outer.cancel()

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(end)
            with outer:
                await self._run(client, plan)
            tasks.cancel_scope.cancel()

    async def _run(self, client: SegmentsClient, plan: Plan) -> None:
        options: dict[str, Any] = {"run": "nightly", **plan.options}
        bulk = client.open_bulk_export(
            self.sandbox.segment_ids,
            self.directory,
            journal=self.journal,
            timeout=plan.after if plan.way == "timeout" else None,
            **options,
        )
        try:
            async with bulk as run:
                with anyio.move_on_after(plan.after if plan.way == "leave" else None) as self.loop:
                    async for outcome in run:
                        self._note(run.progress, outcome)
            if not adds_up(run.progress):
                self.complaints.append(f"at the end: {run.progress}")
        except SegmentsError as exc:
            self.error = exc

    def _note(self, progress: results.Progress, outcome: Exported | NotExported) -> None:
        self.outcomes.append(Told.of(outcome))
        if not adds_up(progress):
            self.complaints.append(f"after {len(self.outcomes)} outcomes: {progress}")
