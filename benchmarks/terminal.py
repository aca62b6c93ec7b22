"""Processor time of the command on a terminal, against the same into a pipe.

`segments-async export --all` of many segments, against a sandbox in another process. On a terminal
(a pseudo-terminal whose reader discards everything) the command draws its progress and its tables.
Into a pipe it writes JSON lines. The table has the user and system time of the command's process,
in interleaved rounds; exits 1 where the medians' ratio is above the limit.

    python benchmarks/terminal.py                  # 500 segments, three rounds
    python benchmarks/terminal.py --segments 100 --rounds 1
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import termios
from threading import Thread

import attrs

LIMIT = 1.3
COMMAND = (sys.executable, "-m", "segments_async")


@attrs.frozen
class Cost:
    """Of one export."""

    user: float
    system: float
    written: int

    @property
    def seconds(self) -> float:
        return self.user + self.system


def export(account: dict[str, str], columns: int | None) -> Cost:
    """Export everything; on a terminal as wide as that, or into a pipe."""
    environment = {**os.environ, **account, "TERM": "xterm-256color"}
    environment.pop("COLUMNS", None)
    ours, theirs = os.pipe() if columns is None else pty.openpty()
    if columns is not None:
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    written: list[int] = []
    with tempfile.TemporaryDirectory() as folder:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        process = subprocess.Popen(
            [*COMMAND, "export", "--all", "--to", folder],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        reader = Thread(target=_discard, args=(ours, written))
        reader.start()
        code = process.wait()
        reader.join()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if code:
        raise SystemExit(f"the export ended with {code}")
    return Cost(after.ru_utime - before.ru_utime, after.ru_stime - before.ru_stime, sum(written))


def _discard(descriptor: int, written: list[int]) -> None:
    while True:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:  # Linux says so that nobody writes any more
            piece = b""
        if not piece:
            os.close(descriptor)
            return
        written.append(len(piece))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--segments", type=int, default=500)
    parser.add_argument("--rate", type=float, default=50)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--columns", type=int, default=120)
    options = parser.parse_args()
    costs: dict[str, list[Cost]] = {"pipe": [], "terminal": []}
    arguments = [f"--segments={options.segments}", f"--rate={options.rate:g}"]
    arguments += [f"--burst={options.rate:g}", "--port=0", "--retry-after=seconds"]
    with subprocess.Popen(
        [*COMMAND, "sandbox", *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    ) as sandbox:
        assert sandbox.stdout is not None
        announced = json.loads(sandbox.stdout.readline())
        account = {
            "SEGMENTS_BASE_URL": announced["base_url"],
            "SEGMENTS_API_KEY": announced["api_key"],
            "SEGMENTS_ACCESS_TOKEN": announced["access_token"],
        }
        for _ in range(options.rounds):
            costs["pipe"].append(export(account, None))
            costs["terminal"].append(export(account, options.columns))
        sandbox.terminate()
    print(
        f"{options.segments} segments at {options.rate:g} requests/s, medians of {options.rounds}"
    )
    print(f"{'':10}{'user':>8}{'system':>8}{'sum':>8}{'written':>12}")
    for name, every in costs.items():
        user, system, whole, size = (
            statistics.median(getattr(cost, part) for cost in every)
            for part in ("user", "system", "seconds", "written")
        )
        print(f"{name:10}{user:7.2f}s{system:7.2f}s{whole:7.2f}s{size / 1000:9.0f} kB")
    pipe, terminal = (statistics.median(cost.seconds for cost in every) for every in costs.values())
    print(f"terminal / pipe: {terminal / pipe:.2f} (at most {LIMIT})")
    sys.exit(terminal / pipe > LIMIT)


if __name__ == "__main__":
    main()
