"""Cancellation at every await: no duplicate, no half file, no caller left waiting."""

from __future__ import annotations

import itertools
import math
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Any

import anyio
import pytest

from client.vendor import (
    all_whole,
    assert_at_rest,
    connected,
    http_clients_made,
    is_whole,
    names_in,
    turns,
)
from segments_async import Pacer, SegmentsClient
from segments_async.sandbox import (
    PAGE_ACCESS_TOKEN,
    PAGE_API_KEY,
    Durations,
    Fault,
    Sandbox,
)
from segments_async.sandbox.server import SandboxServer

Call = Callable[[SegmentsClient, list[str], Path], Awaitable[Any]]


async def export(client: SegmentsClient, ids: list[str], to: Path) -> None:
    await client.export(ids[0], to / "a.csv", timeout=100)


async def bulk(client: SegmentsClient, ids: list[str], to: Path) -> None:
    async with client.open_bulk_export(ids, to) as run:
        async for _ in run:
            pass
        await run.report()


async def step_by_step(client: SegmentsClient, ids: list[str], to: Path) -> None:
    await client.list_segments()
    requested = await client.request_export(ids[0])
    complete = await client.wait_for_export(requested)
    await client.get_export(complete)
    await client.download_export(complete, to / "a.csv")
    async with client.open_export(complete) as body:
        async for _ in body.rows():
            pass


CALLS = {"export": export, "bulk": bulk}


def vendor() -> Sandbox:
    """A vendor with two segments, and one failure each of a submit, a poll and a file."""
    sandbox = Sandbox(
        segments=2, rows=1200, latency=0.1, durations=Durations(median=1.2, sigma=0.2)
    )
    sandbox.inject(Fault.status(429), method="POST")
    sandbox.inject(Fault.status(502), method="GET", path="export/")
    sandbox.inject(Fault.cut(100_000), origin="files")
    return sandbox


class Counted:
    """Awaits a coroutine, and calls `act` when it suspends for the `number`-th time."""

    def __init__(self, coroutine: Any, number: int, act: Callable[[], object]) -> None:
        self._coroutine = coroutine
        self._left = number
        self._act = act

    def __await__(self) -> Generator[Any, Any, Any]:
        steps = self._coroutine.__await__()
        proceed: Callable[[], Any] = lambda: next(steps)  # noqa: E731 (it is replaced below)
        while True:
            try:
                trap = proceed()
            except StopIteration as end:
                return end.value
            self._left -= 1
            if self._left == 0:
                self._act()
            try:
                value = yield trap
                proceed = lambda v=value: steps.send(v)  # noqa: E731
            except BaseException as exc:  # noqa: BLE001 (handed on to the coroutine)
                proceed = lambda e=exc: steps.throw(e)  # noqa: E731


async def assert_nothing_is_lost(client: SegmentsClient, sandbox: Sandbox, to: Path) -> None:
    """No file is a half one right after the cancellation, and none is lost in a second try."""
    assert_at_rest(client, sandbox)
    sent = len(sandbox.record)
    await anyio.sleep(5)
    assert len(sandbox.record) == sent
    for name in names_in(to):
        assert (
            name == "manifest.jsonl"
            or _is_resumable(to, name)
            or any(is_whole(sandbox, to / name, s) for s in sandbox.segment_ids)
        )
    assert sandbox.record.duplicates() == {}
    finished = {s for s in sandbox.segment_ids if _was_seen_complete(sandbox, s)}
    report = await client.bulk_export(sandbox.segment_ids, to.parent / (to.name + "-again"))
    assert report.ok
    assert all_whole(sandbox, [o for o in report.exported if o.segment_id not in finished])
    assert set(sandbox.record.duplicates()) <= finished
    assert_at_rest(client, sandbox)


def _is_resumable(to: Path, name: str) -> bool:
    """Whether the part and the sidecar exist, and not one of them alone."""
    stem = name.removesuffix(".json").removesuffix(".part")
    both = [to / f"{stem}.part", to / f"{stem}.part.json"]
    return to / name in both and all(path.exists() for path in both)


def _was_seen_complete(sandbox: Sandbox, segment_id: str) -> bool:
    """Whether a poll came after the export's end: then the next caller requests a new one."""
    made = [e for e in sandbox.record.submits(segment_id) if e.acted]
    if not made:
        return False
    ends = made[0].at + sandbox.duration(segment_id)
    return any(e.at >= ends - 0.001 for e in sandbox.record.polls(made[0].export_id))


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_at_every_suspension_of_the_caller(call: Call, tmp_path: Path) -> None:
    """The caller is cancelled at its first await, its second, and so on, until it completes."""
    number = 0
    for number in range(1, 1000):
        sandbox, to = vendor(), tmp_path / str(number)
        to.mkdir()
        async with connected(sandbox) as client:
            with anyio.CancelScope() as scope:
                await Counted(call(client, sandbox.segment_ids, to), number, scope.cancel)
            await assert_nothing_is_lost(client, sandbox, to)
        if not scope.cancel_called:
            break
    else:
        pytest.fail("it never completes")
    assert number > 5


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
@pytest.mark.counted(every=5, of="turns after an event")
async def test_at_every_turn_of_the_event_loop(call: Call, tmp_path: Path, every: int) -> None:
    """Another task cancels the caller some turns after each event."""
    sandbox = vendor()
    async with connected(sandbox) as client:
        began = anyio.current_time()
        (tmp_path / "whole").mkdir()
        await call(client, sandbox.segment_ids, tmp_path / "whole")
    moments = {e.at for e in sandbox.record} | {e.ended_at or 0.0 for e in sandbox.record}
    instants = sorted(round(moment, 6) for moment in moments)
    assert began == 0.0
    cases = itertools.product(enumerate(instants), (0, 1, 2, 3, 5, 8))
    for (number, instant), turn in itertools.islice(cases, 0, None, every):
        sandbox, to = vendor(), tmp_path / f"{number}-{turn}"
        to.mkdir()
        async with connected(sandbox) as client:
            scope = anyio.CancelScope()
            began = anyio.current_time()

            async def cancel(
                scope: anyio.CancelScope = scope,
                at: float = began + instant,
                turn: int = turn,
            ) -> None:
                await anyio.sleep_until(at)
                await turns(turn)
                scope.cancel()

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(cancel)
                with scope:
                    await call(client, sandbox.segment_ids, to)
            await assert_nothing_is_lost(client, sandbox, to)


async def test_at_every_suspension_of_the_single_steps(tmp_path: Path) -> None:
    """List, request, wait, get, download, open: the gate is at rest, and no half file is left."""
    number = 0
    for number in range(1, 1000):
        sandbox, to = vendor(), tmp_path / str(number)
        to.mkdir()
        async with connected(sandbox) as client:
            with anyio.CancelScope() as scope:
                await Counted(step_by_step(client, sandbox.segment_ids, to), number, scope.cancel)
            assert_at_rest(client, sandbox)
            sent = len(sandbox.record)
            await anyio.sleep(5)
            assert len(sandbox.record) == sent
            assert sandbox.record.duplicates() == {}
            assert all(
                _is_resumable(to, n) or is_whole(sandbox, to / n, sandbox.segment_ids[0])
                for n in names_in(to)
            )
        if not scope.cancel_called:
            break
    assert number > 20


@pytest.mark.parametrize("who", ["first", "second"])
async def test_at_every_suspension_of_one_who_shares(who: str, tmp_path: Path) -> None:
    """One of two callers of an export is cancelled at each await; the other gets its file."""
    number = 0
    for number in range(1, 1000):
        sandbox, to = vendor(), tmp_path / str(number)
        to.mkdir()
        (segment_id, _) = sandbox.segment_ids
        async with connected(sandbox) as client:
            scope = anyio.CancelScope()

            async def doomed(
                client: SegmentsClient = client,
                to: Path = to,
                scope: anyio.CancelScope = scope,
                number: int = number,
                segment_id: str = segment_id,
            ) -> None:
                with scope:
                    call = client.export(segment_id, to / "doomed.csv")
                    await Counted(call, number, scope.cancel)

            async with anyio.create_task_group() as tasks:
                if who == "first":
                    tasks.start_soon(doomed)
                    await anyio.sleep(0.01)
                tasks.start_soon(client.export, segment_id, to / "other.csv")
                if who == "second":
                    await anyio.sleep(0.01)
                    tasks.start_soon(doomed)
            assert_at_rest(client, sandbox)
        assert is_whole(sandbox, to / "other.csv", segment_id)
        assert all(n in ("other.csv", "doomed.csv") or _is_resumable(to, n) for n in names_in(to))
        assert sandbox.record.duplicates() == {}
        if not scope.cancel_called:
            break
    assert number > 5


@pytest.mark.real_time
async def test_requests_cancelled_while_they_connect_leave_nothing_behind(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The library makes no more HTTP clients than requests at once, and they still work."""
    made = http_clients_made(monkeypatch)
    with SandboxServer(Sandbox(segments=3)) as server:
        async with SegmentsClient(
            PAGE_API_KEY, PAGE_ACCESS_TOKEN, base_url=server.base_url, pacer=Pacer(rate=math.inf)
        ) as client:
            for turn in range(60):
                async with anyio.create_task_group() as tasks:
                    for _ in range(3):
                        tasks.start_soon(client.list_segments)
                    await turns(turn % 15)
                    tasks.cancel_scope.cancel()
            assert len(made) <= 3
            assert len(await client.list_segments()) == 3
