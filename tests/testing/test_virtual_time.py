"""Virtual time on both backends: exact, for any length, and with threads."""

from __future__ import annotations

import asyncio
import time

import anyio
import anyio.to_thread
import pytest

from segments_async.testing import VirtualTimeLoop, virtual_time

BACKENDS = ["asyncio", "trio"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seconds", [0.001, 1.0, 14_400.0, 4e7, 1e9, 3e11])
def test_any_sleep_ends(backend: str, seconds: float) -> None:
    """A sleep of a millisecond, of a year and of a thousand years ends at its time."""

    async def sleep() -> float:
        began = anyio.current_time()
        await anyio.sleep(seconds)
        await anyio.sleep(seconds / 3)
        return anyio.current_time() - began

    name, options = virtual_time(backend)
    if seconds > 1e9 and backend == "asyncio":
        seconds = 1e9  # asyncio waits for a day at a time
    assert anyio.run(sleep, backend=name, backend_options=options) == pytest.approx(seconds * 4 / 3)


@pytest.mark.parametrize("backend", BACKENDS)
def test_timers_end_in_their_order(backend: str) -> None:
    """Many tasks that sleep end in the order of their times, each at its own."""
    ended: list[tuple[float, float]] = []

    async def one(seconds: float) -> None:
        await anyio.sleep(seconds)
        ended.append((seconds, anyio.current_time()))

    async def main() -> float:
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            for number in range(200):
                tasks.start_soon(one, (number * 37 % 101) * 0.1)
        return began

    name, options = virtual_time(backend)
    began = anyio.run(main, backend=name, backend_options=options)
    assert ended == sorted(ended)
    assert all(at - began == pytest.approx(seconds) for seconds, at in ended)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_thread_is_waited_for(backend: str) -> None:
    """A deadline of virtual seconds doesn't pass while a worker thread works in real ones."""

    async def main() -> float:
        began = anyio.current_time()
        with anyio.fail_after(0.001):
            await anyio.to_thread.run_sync(time.sleep, 0.1)
        return anyio.current_time() - began

    name, options = virtual_time(backend)
    assert anyio.run(main, backend=name, backend_options=options) < 0.001


def test_the_loops_own_executor_is_waited_for() -> None:
    """`asyncio.to_thread` and `getaddrinfo` run in the loop's executor."""

    async def main() -> float:
        async with asyncio.timeout(0.001):
            await asyncio.to_thread(time.sleep, 0.1)
        return asyncio.get_running_loop().time()

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert runner.run(main()) < 0.001


def test_a_thread_whose_future_was_cancelled_is_waited_for() -> None:
    """A thread that goes on after its caller has gone still holds the clock."""

    async def main() -> float:
        job = asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.2)
        await asyncio.sleep(0)
        job.cancel()
        real = time.monotonic()
        await asyncio.sleep(60)
        return time.monotonic() - real

    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        assert runner.run(main()) > 0.1


@pytest.mark.parametrize("backend", BACKENDS)
def test_waiting_until_all_tasks_wait_takes_no_time(backend: str) -> None:
    """`wait_all_tasks_blocked` returns before the clock jumps, also beside a task that sleeps."""

    async def sleep_on() -> None:
        for _ in range(10**9):
            await anyio.sleep(1000)

    async def main() -> float:
        began = anyio.current_time()
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(sleep_on)
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
        return anyio.current_time() - began

    name, options = virtual_time(backend)
    assert anyio.run(main, backend=name, backend_options=options) == 0


@pytest.mark.parametrize("backend", BACKENDS)
def test_each_run_begins_at_0(backend: str) -> None:
    """Also where the value of the fixture `anyio_backend` is used for several tests."""

    async def main() -> float:
        began = anyio.current_time()
        await anyio.sleep(3600)
        return began

    name, options = virtual_time(backend)
    for _ in range(2):
        assert anyio.run(main, backend=name, backend_options=options) == 0
