"""A process that forks writers to be killed, so that each of them starts at once.

An order, `[where, destination, record, generation]` as JSON, forks a writer. The answers are the
pid of the writer, and "gone" once the writer has ended. A writer appends a line to the
file `record` before it calls record(), and another line after record() has returned: text that the
kernel has received survives the death of the process.
"""

from __future__ import annotations

import json
import os
import sys
from functools import partial
from typing import TextIO

import anyio

from journal.lives import GOES_WELL, export_of, opened, payload_for, run_of
from segments_async._journal.run_log import RunLog

TASKS = 6


async def write(where: str, destination: str, record: str, generation: int) -> None:
    """Write lives until killed."""
    descriptor = os.open(record, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def tell(*words: str) -> None:
        os.write(descriptor, (" ".join(words) + "\n").encode())

    async def lives(log: RunLog, task: int) -> None:
        for number in range(1_000_000):
            segment_id = f"g{generation}-{task}-{number}"
            log.run_state.add(segment_id)
            for event in GOES_WELL:
                facts = payload_for(event, export_of(segment_id))
                tell("called", segment_id, event.value)
                await log.record(segment_id, event, facts)
                tell("returned", segment_id, event.value)

    journal = await opened(where)
    async with (
        run_of(journal, destination=destination) as log,
        anyio.create_task_group() as tasks,
    ):
        for task in range(TASKS):
            tasks.start_soon(lives, log, task)


def serve(orders: TextIO, answers: TextIO) -> None:
    """Fork a writer for each line."""
    for line in orders:
        arguments = json.loads(line)
        pid = os.fork()
        if pid == 0:
            try:
                anyio.run(partial(write, *arguments))
            except BaseException as exc:  # noqa: BLE001 - told to the test
                sys.stderr.write(f"writer: {exc!r}\n")
            os._exit(1)
        print(pid, file=answers, flush=True)
        os.waitpid(pid, 0)
        print("gone", file=answers, flush=True)
