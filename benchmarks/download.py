"""The cost of downloads: throughput beside curl, resident memory, and rows/s.

Starts its own nginx, which serves one CSV file on loopback: over HTTP, over TLS with a certificate
made for the occasion, and over HTTP with 50 MiB/s for each connection, as storage has its limits
(by nginx for each request, and on Linux by the kernel for each connection). All clients write to
one disk, in interleaved rounds; a ratio is the median of the rounds' ratios. Before each download
the disk has finished the writes of the one before. Prints one table, and exits 1 when a goal is
missed. Needs nginx, curl and openssl, ten times `--size` on the disk, and some 15 minutes for all
parts.

    python benchmarks/download.py                      # 1 GiB, seven rounds
    python benchmarks/download.py --quick              # 256 MiB, three rounds
    python benchmarks/download.py --only tls rows      # or: http, parts, memory
    python benchmarks/download.py --size 512 --repeat 5 --directory /mnt/disk

Ours syncs its file, and the others don't: "ours, not synced" does the same work as curl and
SHA-256; "curl, then fsync" does the same work as ours without SHA-256. "A bare socket" has sockets,
threads and system calls alone, with SHA-256 and fsync: the highest throughput that Python can
reach.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import io
import os
import random
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Generator, Mapping, Sequence
from pathlib import Path

import anyio
import attrs

sys.path.insert(0, str(Path(__file__).parent))

from download_clients import (
    CURL,
    NOT_SYNCED,
    OTHERS,
    OURS,
    PATIENCE,
    Contender,
    Place,
    export_at,
    ours,
)

from segments_async.client import ExportBody

MIB = 1024 * 1024

#: Ours over curl, at least; the last one with eight connections to curl's one.
LEAST_OVER_CURL = {"http": 0.6, "tls": 0.4, "parts": 6.0}

#: MiB/s that each connection gets for `parts`.
LIMITED = 50

#: Bytes/s of a socket (Linux: asm-generic/socket.h); Python's socket module hasn't got it.
SO_MAX_PACING_RATE = 47

#: Peak resident MiB of a process that downloads so many files at once, at most.
MOST_RESIDENT = 120
AT_ONCE = 8

#: rows() over bare csv.DictReader, at least; and of how many MiB of the file.
LEAST_OVER_DICT_READER = 0.7
ROWS_OF = 64

TITLES = {
    "http": "HTTP",
    "tls": "TLS",
    "parts": f"{LIMITED} MiB/s per connection",
    "memory": "memory",
    "rows": "rows",
}

# --------------------------------------------------------------------- storage

# As in tests/nginx/proxy.py, every path is below the prefix. With a master process, though: nginx
# 1.22 crashes where it inherits sockets without one. Its worker keeps the user who started it.
_CONFIG = """\
daemon off;
worker_processes 1;
{user}
pid nginx.pid;
error_log error.log;
events {{ worker_connections 256; }}
http {{
    client_body_temp_path temp/body;
    proxy_temp_path temp/proxy;
    fastcgi_temp_path temp/fastcgi;
    uwsgi_temp_path temp/uwsgi;
    scgi_temp_path temp/scgi;
    access_log off;
    sendfile on;
    root served;
    default_type text/csv;
    server {{ listen 127.0.0.1:{http}; }}
    server {{ listen 127.0.0.1:{parts}; limit_rate {limited}m; }}
    server {{
        listen 127.0.0.1:{tls} ssl;
        ssl_certificate certificate.pem;
        ssl_certificate_key key.pem;
    }}
}}
"""


@attrs.frozen
class Storage:
    """nginx, and the file that it serves."""

    file: Path
    certificate: Path
    ports: dict[str, int]

    def place(self, way: str, target: Path) -> Place:
        scheme = "https" if way == "tls" else "http"
        url = f"{scheme}://127.0.0.1:{self.ports[way]}/{self.file.name}"
        return Place(url, self.certificate if way == "tls" else None, target)


@contextlib.contextmanager
def storage(prefix: Path, size: int) -> Generator[Storage]:
    """Serve a file of `size` bytes, and up to a row more."""
    (prefix / "temp").mkdir()
    (prefix / "served").mkdir()
    file = prefix / "served" / "file.csv"
    write_csv(file, size)
    certificate = make_certificate(prefix)
    with contextlib.ExitStack() as listening:
        sockets = {way: listening.enter_context(listener(way)) for way in LEAST_OVER_CURL}
        ports = {way: found.getsockname()[1] for way, found in sockets.items()}
        process = start_nginx(prefix, ports, [found.fileno() for found in sockets.values()])
    try:
        yield Storage(file, certificate, ports)
    finally:
        process.terminate()
        process.wait(10)


def listener(way: str) -> socket.socket:
    """A socket for nginx to accept from; connections that come early wait in its backlog."""
    listening = socket.socket()
    if way == "parts" and sys.platform == "linux":
        # Connections inherit it. nginx's own limit is one for each request, and lets a second's
        # worth pass at once: requests for less than 50 MiB would not be held up at all.
        listening.setsockopt(socket.SOL_SOCKET, SO_MAX_PACING_RATE, LIMITED * MIB)
    listening.bind(("127.0.0.1", 0))
    listening.listen(511)
    listening.setblocking(False)
    return listening


def start_nginx(
    prefix: Path, ports: Mapping[str, int], descriptors: Sequence[int]
) -> subprocess.Popen[bytes]:
    user = "user root;" if os.geteuid() == 0 else ""  # which others may not even say
    (prefix / "nginx.conf").write_text(_CONFIG.format(user=user, limited=LIMITED, **ports))
    # Debian keeps it where only root looks.
    program = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin")
    command = [program or "nginx", "-e", "stderr", "-p", f"{prefix}{os.sep}", "-c", "nginx.conf"]
    # As it hands its sockets to its successor when it is upgraded.
    inherited = {"NGINX": "".join(f"{descriptor};" for descriptor in descriptors)}
    with (prefix / "stderr.log").open("wb") as complaints:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stderr=complaints,
            pass_fds=descriptors,
            env=os.environ | inherited,
        )


def write_csv(path: Path, size: int) -> None:
    """Rows like the vendor's: some quoted, some not ASCII, none with a newline."""
    chance = random.Random(20_261_123)
    notes = ["", "", "", "vip, since 2019", 'said "hi"', "Ren\u00e9"]
    block = io.StringIO(newline="")
    lines = csv.writer(block)
    for number in range(20_000):
        email = f"user{number}@example.com"
        lines.writerow([f"{chance.getrandbits(64):x}", email, "2026-11-23", chance.choice(notes)])
    text = block.getvalue()
    with path.open("w", newline="", encoding="utf-8") as file:
        file.write("user_id,email,last_seen,note\r\n")
        while (left := size - file.tell()) > 0:
            file.write(text if left >= len(text) else text[: text.index("\n", left - 1) + 1])


def make_certificate(prefix: Path) -> Path:
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    kind = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    files = ["-keyout", str(prefix / "key.pem"), "-out", str(prefix / "certificate.pem")]
    subprocess.run(
        ["openssl", "req", "-x509", *kind, *names, *files], check=True, capture_output=True
    )
    return prefix / "certificate.pem"


# --------------------------------------------------------------------- the table


@attrs.frozen
class Line:
    """A row of the table; `met` is None where there is no goal."""

    what: str
    measured: str
    ratio: str = ""
    goal: str = ""
    met: bool | None = None

    def show(self) -> None:
        verdict = "" if self.met is None else "met" if self.met else "**not met**"
        cells = (self.what, self.measured, self.ratio, self.goal, verdict)
        print("| " + " | ".join(cells) + " |", flush=True)


def median_ratio(above: Sequence[float], below: Sequence[float]) -> float:
    """The median of the rounds' ratios: a slow round changes both sides of its ratio."""
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def throughput(served: Storage, way: str, repeat: int) -> Generator[Line]:
    """All clients beside curl, in one of nginx's three ways."""
    # One connection each at 50 MiB/s would only take long.
    others = () if way == "parts" else OTHERS
    not_synced = () if way == "parts" else NOT_SYNCED
    contenders = [CURL, *(other for other in others if other.installed), *not_synced, *OURS]
    seconds: dict[str, list[float]] = {contender.name: [] for contender in contenders}
    for turn in range(repeat):
        # A shuffled order: no client always comes after curl.
        shift = turn % len(contenders)
        for contender in contenders[shift:] + contenders[:shift]:
            seconds[contender.name].append(seconds_of(contender, served, way))
    size = served.file.stat().st_size
    for contender in contenders:
        taken = seconds[contender.name]
        ratio = median_ratio(seconds[CURL.name], taken)
        goal = LEAST_OVER_CURL[way] if contender.has_goal else None
        yield Line(
            f"{TITLES[way]}: {contender.name}",
            f"{size / MIB / statistics.median(taken):.0f} MiB/s",
            f"{ratio:.2f} of curl",
            "" if goal is None else f"≥ {goal}",
            None if goal is None else ratio >= goal,
        )
    for other in others:
        if not other.installed:
            yield Line(f"{TITLES[way]}: {other.name}", "not installed")


def seconds_of(contender: Contender, served: Storage, way: str) -> float:
    """The seconds of one download, whose file is checked for its size and removed."""
    with tempfile.TemporaryDirectory(dir=served.file.parents[2]) as directory:
        place = served.place(way, Path(directory) / "file.csv")
        os.sync()  # or one client would wait for the writes of another

        async def download() -> float:
            began = time.perf_counter()
            with anyio.fail_after(PATIENCE):
                await contender.download(place)
            return time.perf_counter() - began

        taken = anyio.run(download, backend=contender.backend)
        if place.target.stat().st_size != served.file.stat().st_size:
            raise RuntimeError(f"{contender.name}: not the whole file")
        return taken


def memory(served: Storage) -> Generator[Line]:
    """The peak memory of a process that downloads the file eight times at once."""
    size = served.file.stat().st_size / MIB
    for contender in OURS:
        with tempfile.TemporaryDirectory(dir=served.file.parents[2]) as directory:
            url = served.place("http", Path(directory)).url
            command = [sys.executable, __file__, "--child", contender.backend, url, directory]
            child = subprocess.run(
                command, check=True, stdout=subprocess.PIPE, text=True, timeout=AT_ONCE * PATIENCE
            )
        resident = int(child.stdout) / 1024
        yield Line(
            f"{AT_ONCE} x {size:.0f} MiB at once ({contender.backend}): peak resident memory",
            f"{resident:.0f} MiB",
            "",
            f"≤ {MOST_RESIDENT} MiB",
            resident <= MOST_RESIDENT,
        )


def child(backend: str, url: str, directory: str) -> int:
    """Download, then print the peak of resident KiB."""
    targets = [Path(directory) / f"{number}.csv" for number in range(AT_ONCE)]

    async def download() -> None:
        with anyio.fail_after(AT_ONCE * PATIENCE):
            await ours(Place(url, None, Path(directory)), targets=targets)

    anyio.run(download, backend=backend)
    status = Path("/proc/self/status").read_text()
    # Not ru_maxrss, which exec() hands on from the parent (Linux: setmax_mm_hiwater_rss).
    print(status.partition("VmHWM:")[2].split()[0])
    return 0


class InMemory:
    """A body in chunks of 64 KiB, as httpx has them."""

    def __init__(self, body: bytes) -> None:
        self._chunks = [body[start : start + 65_536] for start in range(0, len(body), 65_536)]
        self._rest = iter(self._chunks)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for chunk in self._rest:
            return chunk
        raise StopAsyncIteration


def rows_per_second(served: Storage, repeat: int) -> Generator[Line]:
    """Ours over chunks in memory beside csv.DictReader over a file that is in the page cache."""
    part = served.file.with_name("rows.csv")
    write_csv(part, min(ROWS_OF * MIB, served.file.stat().st_size))
    body = part.read_bytes()
    bare: list[float] = []
    taken: dict[str, list[float]] = {contender.backend: [] for contender in OURS}
    count = 0
    for _ in range(repeat):
        seconds, count = dict_reader(part)
        bare.append(seconds)
        for backend, seconds_taken in taken.items():
            seconds, found = anyio.run(ours_rows, body, backend=backend)
            if found != count:
                raise RuntimeError(f"{found} rows where csv.DictReader has {count}")
            seconds_taken.append(seconds)
    yield Line("rows: csv.DictReader", f"{count / statistics.median(bare):,.0f} rows/s")
    for backend, seconds_taken in taken.items():
        ratio = median_ratio(bare, seconds_taken)
        yield Line(
            f"rows: ours ({backend})",
            f"{count / statistics.median(seconds_taken):,.0f} rows/s",
            f"{ratio:.2f} of csv.DictReader",
            f"≥ {LEAST_OVER_DICT_READER}",
            ratio >= LEAST_OVER_DICT_READER,
        )


def dict_reader(path: Path) -> tuple[float, int]:
    began, count = time.perf_counter(), 0
    with path.open(newline="", encoding="utf-8-sig") as file:
        for _ in csv.DictReader(file):
            count += 1
    return time.perf_counter() - began, count


async def ours_rows(body: bytes) -> tuple[float, int]:
    chunks = InMemory(body)
    began, count = time.perf_counter(), 0
    async for _ in ExportBody(chunks, export_at("")).rows():
        count += 1
    return time.perf_counter() - began, count


def measure(directory: Path, only: Sequence[str], size: int, repeat: int) -> bool:
    met = True
    with tempfile.TemporaryDirectory(dir=directory, prefix="download-") as scratch:
        prefix = Path(scratch) / "nginx"
        prefix.mkdir()
        with storage(prefix, size * MIB) as served:
            for part in only:
                lines = {"memory": memory(served), "rows": rows_per_second(served, repeat)}.get(
                    part
                )
                for line in lines or throughput(served, part, repeat):
                    line.show()
                    met &= line.met is not False
    return met


def main() -> int:
    if sys.argv[1:2] == ["--child"]:
        return child(*sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--only", nargs="+", choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--size", type=int, help="of the file, in MiB (1024)")
    parser.add_argument("--repeat", type=int, help="rounds (7)")
    parser.add_argument("--quick", action="store_true", help="256 MiB and 3 rounds")
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    options = parser.parse_args()
    size = options.size or (256 if options.quick else 1024)
    repeat = options.repeat or (3 if options.quick else 7)
    files = 1 + (AT_ONCE if "memory" in options.only else 1)
    if shutil.disk_usage(options.directory).free < (files + 1) * size * MIB:
        parser.error(f"{options.directory} has no room for {files} files of {size} MiB")
    print(f"\n{size} MiB from nginx on loopback to disk; medians of {repeat} interleaved rounds.\n")
    print("| | measured | ratio | goal | |\n|---|---|---|---|---|", flush=True)
    return 0 if measure(options.directory, options.only, size, repeat) else 1


if __name__ == "__main__":
    sys.exit(main())
