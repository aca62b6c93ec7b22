"""A bulk export on an executor: by the sandbox's record, no segment is requested twice."""

from __future__ import annotations

import json
import math
import pickle
import threading
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import pytest
from frames import given_away

from segments_async import (
    APIStatusError,
    AuthenticationError,
    ConfigurationError,
    Exported,
    JournalError,
    NotExported,
    NotSubmittedError,
)
from segments_async._sansio.jobs import batches as decisions
from segments_async.cluster import ClusterRun, coordinator, export_on
from segments_async.cluster.task import Batch, portable
from segments_async.errors import SegmentsError
from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY, Durations, Fault, Sandbox

from .executors import Faulty, Remembering, Submit, broken, endless, once_broken

pytestmark = pytest.mark.real_time

#: Of tests whose subject knows no event loop.
ONE_BACKEND = pytest.mark.parametrize("anyio_backend", ["asyncio"])

Outcomes = list[Exported | NotExported]


def cluster_run(
    executor: Executor, sandbox: Sandbox, directory: Path, **options: Any
) -> ClusterRun:
    keywords: dict[str, Any] = {
        "journal": directory / "runs.db",
        "run": "nightly",
        "batch": 4,
        "client": {"file_hosts": ["127.0.0.1"]},
        **options,
    }
    return export_on(executor, sandbox.segment_ids, directory / "out", **keywords)


async def work_through(run: ClusterRun) -> Outcomes:
    async with run:
        with anyio.fail_after(120):
            return [outcome async for outcome in run]


def ids(outcomes: Sequence[Exported | NotExported]) -> list[str]:
    return sorted(outcome.segment_id for outcome in outcomes)


def all_exported(sandbox: Sandbox, outcomes: Outcomes) -> bool:
    """Whether each segment has one outcome, one export, and a whole file."""
    return ids(outcomes) == sorted(sandbox.segment_ids) and all(
        isinstance(one, Exported) and one.file.sha256 == sandbox.sha256(one.segment_id)
        for one in outcomes
    )


def posted_once(sandbox: Sandbox) -> bool:
    """Whether no segment has two POSTs, apart from those that were refused with 429."""
    submits = [entry for entry in sandbox.record.submits() if entry.status != 429]
    posts = Counter(entry.segment_id for entry in submits)
    return sandbox.record.duplicates() == {} and set(posts.values()) <= {1}


async def test_each_segment_is_exported_once(sandbox: Sandbox, tmp_path: Path) -> None:
    """Outcomes, report, progress and manifest are of the whole run; a second call repeats them."""
    with ThreadPoolExecutor(2) as executor:
        run = cluster_run(executor, sandbox, tmp_path)
        outcomes = await work_through(run)
        report = await run.report()
        assert posted_once(sandbox)
        assert all_exported(sandbox, outcomes)
        assert {one.source for one in outcomes if isinstance(one, Exported)} == {"exported"}
        assert report.ok
        assert (report.progress.exported, report.progress.total) == (16, 16)
        assert report.progress.bytes == sum(one.file.size for one in report.exported)
        lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
        assert sorted(json.loads(line)["segment_id"] for line in lines) == ids(outcomes)
        before = len(sandbox.record.api())
        again = await work_through(cluster_run(executor, sandbox, tmp_path))
        assert all_exported(sandbox, again)
        assert {one.source for one in again if isinstance(one, Exported)} == {"resumed"}
        assert len(sandbox.record.api()) == before


async def test_a_run_that_is_left_goes_on_later(
    sandbox: Sandbox, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """On leaving, the tasks end within seconds and the rest is resumable; the next call goes on."""
    sandbox.durations = Durations(0.05, 0.0)
    with Remembering(1) as executor:  # one batch after the other
        run = cluster_run(executor, sandbox, tmp_path)
        async with run:
            async for _ in run:
                break
            left_at = anyio.current_time()
        assert anyio.current_time() - left_at < coordinator.LEAVING
        requests = len(sandbox.record.api())
        assert all(future.done() for future in executor.futures)
        outcomes = [outcome async for outcome in run]
        missing = [one for one in outcomes if isinstance(one, NotExported)]
        assert ids(outcomes) == sorted(sandbox.segment_ids)
        assert missing
        assert all(one.resumable for one in missing)
        assert (await run.report()).progress.not_exported == len(missing)
        await anyio.sleep(0.3)
        assert len(sandbox.record.api()) == requests  # no task outlives the block
        rest = await work_through(cluster_run(executor, sandbox, tmp_path))
    assert all_exported(sandbox, rest)
    assert posted_once(sandbox)
    assert "exception calling callback" not in caplog.text


async def test_a_batch_that_is_called_lost_runs_twice_at_once(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """A scheduler that loses touch with a live worker starts its task again: no second POST."""
    with Faulty(once_broken(), workers=4) as executor:
        outcomes = await work_through(cluster_run(executor, sandbox, tmp_path))
        assert all_exported(sandbox, outcomes)
        assert posted_once(sandbox)


async def test_the_run_does_not_wait_for_a_future_that_never_ends(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """The journal says that the batches are done, though no future ends (distributed#3196)."""

    def fault(batch: Batch, _: int, submit: Submit) -> Future[Any]:
        return endless(submit(coordinator.work, batch))

    with Faulty(fault) as executor:
        outcomes = await work_through(cluster_run(executor, sandbox, tmp_path))
        assert all_exported(sandbox, outcomes)
        assert len(executor.batches) == 4


async def test_a_task_that_the_executor_cancels_is_given_out_again(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """A CancelledError for a batch that none has begun (a restart of Dask) costs an attempt."""

    def fault(batch: Batch, number: int, submit: Submit) -> Future[Any]:
        if number > 6:
            return submit(coordinator.work, batch)
        future: Future[Any] = Future()
        future.cancel()  # and not notified: cpython#136655
        return future

    with Faulty(fault) as executor:
        outcomes = await work_through(cluster_run(executor, sandbox, tmp_path, retries=0))
        assert all_exported(sandbox, outcomes)
        assert posted_once(sandbox)


@ONE_BACKEND
async def test_a_batch_that_no_worker_survives_is_given_up(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its segments are told as resumable, with the reason, and the other batches go on."""
    poison = sandbox.segment_ids[0]

    def fault(batch: Batch, _: int, submit: Submit) -> Future[Any]:
        if poison not in batch.files:
            return submit(coordinator.work, batch)
        # sys.exit() in a worker: SystemExit is the future's exception, and ends nothing here.
        future: Future[Any] = Future()
        future.set_exception(SystemExit(3))
        return future

    monkeypatch.setattr(decisions, "MOST_UNBEGUN", 2)
    with Faulty(fault) as executor:
        run = cluster_run(executor, sandbox, tmp_path)
        outcomes = await work_through(run)
        missing = [one for one in outcomes if isinstance(one, NotExported)]
        assert ids(outcomes) == sorted(sandbox.segment_ids)
        assert len(missing) == 4
        assert poison in ids(missing)
        assert all(one.resumable and "SystemExit: 3" in str(one.error) for one in missing)
        assert all(isinstance(one.error, NotSubmittedError) for one in missing)
        # The manifest has their lines, too.
        lines = (tmp_path / "out" / "manifest.jsonl").read_text().splitlines()
        assert sorted(json.loads(line)["segment_id"] for line in lines) == ids(outcomes)
    with ThreadPoolExecutor(2) as healthy:
        rest = await work_through(cluster_run(healthy, sandbox, tmp_path))
    assert all_exported(sandbox, rest)
    assert posted_once(sandbox)


@ONE_BACKEND
async def test_a_broken_executor_ends_the_run_as_resumable(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """A broken pool accepts nothing more: what is unfinished says so, and nothing is raised."""

    class Broken(Faulty):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            if len(self.batches) == 4:
                raise RuntimeError("cannot schedule new futures after shutdown")
            return super().submit(fn, *args, **kwargs)

    with Broken(lambda *_: broken()) as executor:
        run = cluster_run(executor, sandbox, tmp_path)
        outcomes = await work_through(run)
        assert ids(outcomes) == sorted(sandbox.segment_ids)
        assert all(isinstance(one, NotExported) and one.resumable for one in outcomes)
        assert "after shutdown" in str((await run.report()).not_exported[0].error)


@ONE_BACKEND
async def test_a_wrong_token_ends_the_run(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The 401 of a worker is raised to the caller, as in any run."""
    monkeypatch.setenv("SEGMENTS_ACCESS_TOKEN", "wrong")
    with ThreadPoolExecutor(2) as executor:
        run = cluster_run(executor, sandbox, tmp_path)
        with pytest.raises(AuthenticationError):
            await work_through(run)
        with pytest.raises(AuthenticationError):
            await run.report()


@ONE_BACKEND
@pytest.mark.parametrize("status", [302, 308])
async def test_a_redirect_ends_the_run(status: int, sandbox: Sandbox, tmp_path: Path) -> None:
    """A worker's redirect is raised to the caller, and no batch is given out again for it."""
    elsewhere = Fault.status(status, headers={"location": "https://elsewhere.example/"})
    sandbox.inject(elsewhere, method="POST", times=math.inf)
    with ThreadPoolExecutor(2) as executor:
        run = cluster_run(executor, sandbox, tmp_path, client={"rate": 5})
        with pytest.raises(APIStatusError, match=r"elsewhere\.example"):
            await work_through(run)
    assert len(sandbox.record.submits()) < 8  # of 16 segments


@ONE_BACKEND
async def test_a_timeout_ends_the_run(sandbox: Sandbox, tmp_path: Path) -> None:
    """`timeout` bounds the whole call; the rest is told as resumable, with the reason."""
    with Faulty(lambda *_: endless()) as executor:
        outcomes = await work_through(cluster_run(executor, sandbox, tmp_path, timeout=1.5))
        assert len(outcomes) == 16
        assert all(
            isinstance(one, NotExported) and one.resumable and "1.5 s" in str(one.error)
            for one in outcomes
        )
        assert sandbox.record.api() == []


# Refusals: nothing is sent.


@ONE_BACKEND
async def test_workers_without_credentials_are_refused(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The variable is named, and nothing is sent or left in the directory of the journal."""
    monkeypatch.delenv("SEGMENTS_ACCESS_TOKEN")
    refused = pytest.raises(ConfigurationError, match="SEGMENTS_ACCESS_TOKEN is not set")
    with ThreadPoolExecutor(2) as executor, refused:
        await work_through(cluster_run(executor, sandbox, tmp_path))
    assert sandbox.record.api() == []
    assert not (tmp_path / "runs.db").exists()
    assert list((tmp_path / "out" / ".segments-async").iterdir()) == []


@ONE_BACKEND
async def test_workers_of_another_account_than_the_journals_are_refused(
    sandbox: Sandbox, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The journal is of the account that it was made for."""
    with ThreadPoolExecutor(2) as executor:
        await work_through(cluster_run(executor, sandbox, tmp_path))
        before = len(sandbox.record.api())
        monkeypatch.setenv("SEGMENTS_API_KEY", "another")
        with pytest.raises(JournalError) as caught:
            await work_through(cluster_run(executor, sandbox, tmp_path))
    assert caught.value.reason == "foreign"
    assert len(sandbox.record.api()) == before


@ONE_BACKEND
async def test_a_run_has_one_coordinator(sandbox: Sandbox, tmp_path: Path) -> None:
    """A second call with the same run is refused while the first one lives."""
    with Faulty(lambda *_: endless()) as first, ThreadPoolExecutor(2) as second:
        async with cluster_run(first, sandbox, tmp_path):
            with pytest.raises(JournalError, match="another live process") as caught:
                await work_through(cluster_run(second, sandbox, tmp_path))
            assert caught.value.reason == "locked"
        assert all_exported(sandbox, await work_through(cluster_run(second, sandbox, tmp_path)))


@ONE_BACKEND
async def test_a_call_that_is_refused_takes_nothing_from_the_first(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """The workers of the first call still recognise the directory, and so do another run's."""
    refused = threading.Event()

    def fault(batch: Batch, _: int, submit: Submit) -> Future[Any]:
        return submit(_after, refused, batch)

    with Faulty(fault) as first, ThreadPoolExecutor(2) as second:
        async with cluster_run(first, sandbox, tmp_path) as run:
            with pytest.raises(JournalError, match="another live process"):
                await work_through(cluster_run(second, sandbox, tmp_path))
            only = {"run": "another", "overwrite": True}
            assert len(await work_through(cluster_run(second, sandbox, tmp_path, **only))) == 16
            refused.set()
            with anyio.fail_after(120):
                outcomes = [outcome async for outcome in run]
    assert ids(outcomes) == sorted(sandbox.segment_ids)
    assert all(isinstance(one, Exported) for one in outcomes)
    assert list((tmp_path / "out" / ".segments-async").glob("coordinator*")) == []


def _after(event: threading.Event, batch: Batch) -> Any:
    event.wait(60)
    return coordinator.work(batch)


async def test_leaving_waits_for_workers_whose_tasks_the_executor_calls_cancelled(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """Dask cancels the future of a task whose function runs on: the journal shows the worker."""
    sandbox.durations = Durations(0.8, 2.0, longest=4.0)

    def fault(batch: Batch, _: int, submit: Submit) -> Future[Any]:
        return _mirrored(submit(coordinator.work, batch))

    with Faulty(fault, workers=1) as executor:
        run = cluster_run(executor, sandbox, tmp_path, batch=16)
        async with run:
            async for _ in run:
                break
        requests = len(sandbox.record.api())
        await anyio.sleep(1.5)
        assert len(sandbox.record.api()) == requests
        rest = await work_through(cluster_run(executor, sandbox, tmp_path))
    assert all_exported(sandbox, rest)
    assert posted_once(sandbox)


def _mirrored(running: Future[Any]) -> Future[Any]:
    """A future that is never told that its task runs, as Dask's."""
    mirror: Future[Any] = Future()

    def end(done: Future[Any]) -> None:
        if mirror.set_running_or_notify_cancel():
            mirror.set_result(done.result())

    running.add_done_callback(end)
    return mirror


async def test_the_counts_of_each_batch_are_taken(sandbox: Sandbox, tmp_path: Path) -> None:
    """Also of a task whose result comes a while after the journal has the ends of its segments."""

    def fault(batch: Batch, _: int, submit: Submit) -> Future[Any]:
        return submit(_slowly, batch)

    with Faulty(fault) as executor:
        run = cluster_run(executor, sandbox, tmp_path)
        await work_through(run)
        assert (await run.report()).progress.requests == len(sandbox.record.api())


def _slowly(batch: Batch) -> Any:
    end = coordinator.work(batch)
    time.sleep(1.5)
    return end


@ONE_BACKEND
async def test_a_call_that_is_left_at_its_start_leaves_nothing(
    sandbox: Sandbox, tmp_path: Path
) -> None:
    """Neither where no worker is free, nor where the executor takes a task only once one is."""
    free = threading.Event()

    class Idle(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            return endless()

    class Full(Executor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            free.wait(30)
            return endless()

    for executor in (Idle(), Full()):
        left_at = anyio.current_time()
        with anyio.move_on_after(0.5):
            await work_through(cluster_run(executor, sandbox, tmp_path))
        assert anyio.current_time() - left_at < 20
        assert list((tmp_path / "out" / ".segments-async").iterdir()) == []
    free.set()


@ONE_BACKEND
async def test_workers_that_lack_the_library_are_refused(sandbox: Sandbox, tmp_path: Path) -> None:
    """A task that can't be loaded in the worker says so before anything is sent."""

    class Elsewhere(ThreadPoolExecutor):
        def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Future[Any]:
            future: Future[Any] = Future()
            future.set_exception(ModuleNotFoundError("No module named 'segments_async'"))
            return future

    refused = pytest.raises(ConfigurationError, match="No module named 'segments_async'")
    with Elsewhere(1) as executor, refused:
        await work_through(cluster_run(executor, sandbox, tmp_path))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch": 0}, "batch: at least 1"),
        ({"batch": 2001}, "batch: at most 2000"),
        ({"retries": -1}, "retries: 0 or more"),
        ({"client": {"downlods": 4}}, "client: no keyword 'downlods'"),
        ({"client": {"access_token": "hush"}}, "client: no keyword 'access_token'"),
        ({"client": {"downloads": 0}}, "downloads: at least 1, not 0"),
        ({"client": {"rate": -1.0}}, "rate: requests/s above zero"),
        ({"journal": "postgresql://me:hush@db/runs"}, "the URL has a password"),
        ({"journal": "postgresql://db/runs?password=hush"}, "the URL has a password"),
        ({"journal": "postgresql://me:hush#@db/runs"}, "the URL has a password"),
        ({"journal": "postgresql://me:hush/@db/runs"}, "the URL has a password"),
        ({"journal": "postgresql://me:hush?@db/runs"}, "the URL has a password"),
        ({"journal": "postgresql://db/runs?a=#&sslpassword=hush"}, "the URL has a password"),
        ({"journal": "postgresql://db/runs?oauth_client_secret=hush"}, "the URL has a password"),
        ({"journal": "postgresql://db/runs?scram%5Fclient_key=hush"}, "the URL has a password"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: dict[str, Any], words: str, tmp_path: Path
) -> None:
    """Before the run is entered; a password in the journal's URL would travel, and isn't shown."""
    keywords: dict[str, Any] = {"journal": tmp_path / "runs.db", "run": "nightly", **options}
    with pytest.raises(ConfigurationError, match=words) as caught:
        export_on(ThreadPoolExecutor(1), ["a"], tmp_path, **keywords)
    assert "hush" not in str(caught.value)
    if "journal" in options:
        assert "hush" not in given_away(caught.value)


@ONE_BACKEND
async def test_no_credential_travels(sandbox: Sandbox, tmp_path: Path) -> None:
    """Neither a batch, pickled or shown, nor its end has the key or the token."""
    ends: list[Any] = []

    def fault(batch: Batch, _: int, submit: Submit) -> Future[Any]:
        future = submit(coordinator.work, batch)
        future.add_done_callback(lambda done: ends.append(done.result()))
        return future

    with Faulty(fault) as executor:
        await work_through(cluster_run(executor, sandbox, tmp_path))
        assert len(executor.batches) == len(ends) == 4
        for one in (*executor.batches, *ends):
            text = pickle.dumps(one) + repr(one).encode()
            assert pickle.loads(pickle.dumps(one)) == one
            assert len(text) < 20_000
            assert PAGE_ACCESS_TOKEN.encode() not in text
            assert PAGE_API_KEY.encode() not in text


class _Unloadable(SegmentsError):
    def __reduce__(self) -> tuple[Any, ...]:
        return _fails, ()


def _fails() -> None:
    raise ValueError("this process can't load it")


@pytest.mark.parametrize(
    "error",
    [
        _Unloadable("a fact that can't travel"),
        SegmentsError("a fact that can't travel", lock=open),
        ValueError("a fact that can't travel"),
    ],
)
def test_an_error_that_can_not_be_loaded_travels_as_its_text(error: Exception) -> None:
    """The result of a batch can be loaded, whatever ended it."""
    travelled = pickle.loads(pickle.dumps(portable(error)))
    assert isinstance(travelled, SegmentsError)
    assert "a fact that can't travel" in str(travelled)


def test_a_huge_error_is_cut() -> None:
    """The text of a foreign error is at most a few hundred characters."""
    assert len(str(portable(ValueError("x" * 10_000_000)))) < 1000
