"""Whether the workers of an executor can work at a run: pure functions."""

from __future__ import annotations

import attrs


@attrs.frozen(kw_only=True)
class Machine:
    """Where a process runs, and which code it runs.

    Attributes:
        host: equal for the processes of one running kernel, and for no others.
        name: of the machine, for messages.
        version: of this library.
    """

    host: str
    name: str
    version: str


@attrs.frozen(kw_only=True)
class WorkerFacts:
    """What a worker says before it gets work.

    Attributes:
        machine: the worker's.
        account: a digest of the account that the worker's environment names; None where `problem`
            says why there is none.
        problem: why the worker can't make a client; None where it can.
        sees_files: whether the worker sees the run's directory.
        sees_journal: whether the worker sees the journal's file; None for a database server.
    """

    machine: Machine
    account: str | None
    problem: str | None
    sees_files: bool
    sees_journal: bool | None


def refusal(here: Machine, worker: WorkerFacts, *, account: str | None = None) -> str | None:
    """Why this worker can't work at the run, as a sentence; None where it can.

    Args:
        here: the machine of the process that gives out the work.
        account: of the run, where it is known.
    """
    there, name = worker.machine, worker.machine.name
    if there.version != here.version:
        return (
            f"the worker on {name} has segments-async {there.version}, and this process "
            f"{here.version}: install the same version"
        )
    if worker.problem is not None:
        return (
            f"the worker on {name} can't make a client: {worker.problem}. Credentials come from "
            "each worker's own environment, and are never sent to it: set SEGMENTS_API_KEY and "
            "SEGMENTS_ACCESS_TOKEN where the worker is started"
        )
    if account is not None and worker.account != account:
        return (
            f"the worker on {name} has the credentials or the base URL of another account "
            "(SEGMENTS_API_KEY, SEGMENTS_BASE_URL)"
        )
    if worker.sees_journal is not None and there.host != here.host:
        return (
            f"a worker runs on another machine, {name}, and a journal in a SQLite file is for the "
            "processes of one machine: give the URL of a PostgreSQL database (journal=...)"
        )
    if worker.sees_journal is False:
        return f"the worker on {name} doesn't see the journal's directory (a container without it?)"
    if not worker.sees_files:
        return (
            f"the worker on {name} doesn't see the run's directory: its files would be where "
            "nobody looks for them. Give a directory that all machines share"
        )
    return None
