"""The DAG in Airflow itself: parsed, and run for two nights against a sandbox.

Airflow pins the versions of its dependencies, so it has an environment of its own: `.ci/airflow`
makes one, and runs this file there. Elsewhere this file is skipped.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from segments_async.sandbox import PAGE_ACCESS_TOKEN, PAGE_API_KEY, Durations, Fault, Sandbox
from segments_async.sandbox.server import SandboxServer

#: Airflow isn't imported here: it reads its configuration when it is imported.
pytestmark = pytest.mark.skipif(
    not list(distributions(name="apache-airflow-core")),
    reason="Airflow has an environment of its own: .ci/airflow",
)

if TYPE_CHECKING:
    from airflow.sdk import DAG

QUICK = Durations(median=0.1, sigma=0)


@pytest.fixture(scope="module")
def dag(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DAG]:
    """The DAG as Airflow's parser finds it, in an Airflow that has this DAG alone."""
    home = tmp_path_factory.mktemp("airflow")
    folder = home / "dags"
    folder.mkdir()
    shutil.copy(Path(__file__).with_name("segments_nightly.py"), folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_HOME", str(home))
        patch.setenv("AIRFLOW__CORE__LOAD_EXAMPLES", "False")
        subprocess.run([sys.executable, "-m", "airflow", "db", "migrate"], check=True)
        from airflow.dag_processing.dagbag import DagBag

        bag = DagBag(dag_folder=folder)
        assert bag.import_errors == {}
        assert list(bag.dags) == ["segments_nightly"]
        yield bag.dags["segments_nightly"]


def test_is_parsed(dag: DAG) -> None:
    """Airflow finds the DAG, and takes its task for an async one."""
    (task,) = dag.tasks
    assert task.is_async
    assert task.retries == 3
    assert (dag.catchup, dag.max_active_runs) == (False, 1)


def test_two_nights(dag: DAG, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A night exports everything, the next one what has run since; a failure fails the task."""
    sandbox = Sandbox(segments=4, rows=3, durations=QUICK)
    with SandboxServer(sandbox) as server:
        monkeypatch.setenv("AIRFLOW_CONN_SEGMENTS", connection(server, tmp_path / "exports"))
        sandbox.inject(Fault.status(404), method="POST", segment_id=sandbox.segment_ids[2])
        assert night(dag) == "failed"
        assert len(list((tmp_path / "exports").glob("*.csv"))) == 3
        assert night(dag) == "success"
        files = list((tmp_path / "exports").glob("*.csv"))
        assert {f.read_bytes() for f in files} == {sandbox.content(s) for s in sandbox.segment_ids}
        assert night(dag) == "success"
    dynamic = {s.segment_id for s in sandbox.segments if s.type == "Dynamic"}
    assert sandbox.record.duplicates().keys() <= dynamic


def connection(server: SandboxServer, to: Path) -> str:
    return json.dumps(
        {
            "conn_type": "generic",
            "host": server.base_url,
            "login": PAGE_API_KEY,
            "password": PAGE_ACCESS_TOKEN,
            "extra": {"to": str(to)},
        }
    )


def night(dag: DAG) -> Any:
    """One run of the DAG in this process, each task tried once; its state."""
    for task in dag.tasks:
        task.retries = 0
    return dag.test().state
