"""What a start costs: processor time of the package's imports and of the command's short answers.

    python benchmarks/start.py [--rounds N] [--other CHECKOUT]

Each program runs in a new interpreter with compiled bytecode. The programs take turns, so that a
busy machine is busy for all of them. The table has the medians. The last column is the time without
that of a bare interpreter, as a multiple of that of `import httpx`.

`--other` measures a second checkout, such as one of an earlier commit, in the same turns.
"""

from __future__ import annotations

import argparse
import os
import resource
import statistics
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

BARE, HTTPX = "a bare interpreter", "import httpx"

#: Programs without the package, and with it.
OTHERS = {
    BARE: "pass",
    HTTPX: "import httpx",
    "import httpx, and a client made": "import httpx; httpx.AsyncClient()",
}
NAMED = "from segments_async import SegmentsClient"
MADE = f"{NAMED}; client = SegmentsClient('key', 'token')"
OURS = {
    "import segments_async": "import segments_async",
    NAMED: NAMED,
    "the same, and a client made": MADE,
    "the same, and the engine of runs": f"{MADE}; import segments_async._run.open_session",
}
COMMANDS = ("--version", "--help", "export --help", "completion bash")

_COMMAND = "import sys; from segments_async.cli import main; sys.argv[0] = 'segments-async'; main()"


def processor_time(checkout: Path, *arguments: str) -> float:
    """Seconds that a new interpreter takes, in user and system mode."""
    env = {name: text for name, text in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(
        [sys.executable, "-c", *arguments],
        env={**env, "PYTHONPATH": str(checkout)},
        cwd="/",
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=False,  # without a run's modules, an earlier checkout fails at the engine
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def programs(checkout: Path) -> dict[str, tuple[Path, tuple[str, ...]]]:
    """The programs with the package, by name."""
    found: dict[str, tuple[Path, tuple[str, ...]]]
    found = {name: (checkout, (code,)) for name, code in OURS.items()}
    found |= {
        f"segments-async {command}": (checkout, (_COMMAND, *command.split()))
        for command in COMMANDS
    }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--other", type=Path, help="a second checkout")
    options = parser.parse_args()
    everything: dict[str, tuple[Path, tuple[str, ...]]]
    everything = {name: (ROOT, (code,)) for name, code in OTHERS.items()}
    everything |= programs(ROOT)
    if options.other is not None:
        other = options.other.resolve()
        everything |= {f"other: {name}": one for name, one in programs(other).items()}
    for checkout, arguments in everything.values():
        processor_time(checkout, *arguments)  # compiles the bytecode
    times: dict[str, list[float]] = {name: [] for name in everything}
    for _ in range(options.rounds):
        for name, (checkout, arguments) in everything.items():
            times[name].append(processor_time(checkout, *arguments))
    medians = {name: statistics.median(found) for name, found in times.items()}
    unit = medians[HTTPX] - medians[BARE]
    print("| program | seconds | over `import httpx` |\n|---|--:|--:|")
    for name, seconds in medians.items():
        print(f"| `{name}` | {seconds:.3f} | {(seconds - medians[BARE]) / unit:.2f} |")


if __name__ == "__main__":
    main()
