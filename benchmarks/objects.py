"""The cost of object storage as the destination: throughput beside a local disk, resident memory.

Starts two servers on loopback, in processes of their own: one serves a file from memory by
sendfile, as the vendor's storage; the other is a sink that speaks as much of S3 as an upload needs.
The sink reads each part and discards it: it neither hashes nor stores, so that it is no bottleneck,
and a real store is slower. Rounds are interleaved; the ratio is the median of the rounds' ratios.
Prints one table, and exits 1 when a goal is missed. Some two minutes.

    python benchmarks/objects.py                      # 1 GiB, five rounds
    python benchmarks/objects.py --size 256 --repeat 3 --directory /mnt/disk
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Sequence
from pathlib import Path

import anyio

sys.path.insert(0, str(Path(__file__).parent))

from download_clients import export_at

from segments_async import SegmentsClient
from segments_async._files.open_place import open_place

MIB = 1024 * 1024

#: Into objects over onto the disk, at least; resident MiB of the process, at most.
LEAST_OVER_DISK = 0.7
MOST_RESIDENT = 150

#: Files at once.
CASES = {"one file": 1, "eight files": 8}

_LENGTH = re.compile(rb"(?i)content-length: *(\d+)")
_RANGE = re.compile(rb"(?i)range: *bytes=(\d+)-(\d*)")


async def download(url: str, to: str, count: int) -> None:
    """So many files at once, to a directory or a URL, as a bulk export fetches them."""
    async with SegmentsClient("key", "token", base_url="http://127.0.0.1:9") as client:
        place = open_place(to, [(f"segment-{n}", None) for n in range(count)], overwrite=True)
        await place.obstacles(())
        files = client._files  # pyright: ignore[reportPrivateUsage]

        async def one(segment_id: str) -> None:
            file = await files.fetch(export_at(url), place.target(segment_id))
            if not file.verified:
                raise RuntimeError("the length was not told")

        async with anyio.create_task_group() as tasks:
            for segment_id in place.names:
                tasks.start_soon(one, segment_id)


def measure(url: str, to: str, count: int) -> tuple[float, float]:
    """Seconds of the downloads, and the process's highest resident memory in MiB."""
    command = [sys.executable, __file__, "--client", url, to, str(count)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, resident = done.stdout.split()
    return float(seconds), int(resident) / 1024


def client(url: str, to: str, count: int) -> int:
    began = time.perf_counter()
    anyio.run(download, url, to, count)
    seconds = time.perf_counter() - began
    status = Path("/proc/self/status").read_text()
    # Not ru_maxrss, which exec() hands on from the parent (Linux: setmax_mm_hiwater_rss).
    print(seconds, status.partition("VmHWM:")[2].split()[0])
    return 0


# --------------------------------------------------------------------- the servers


def serve(answer: Callable[[socket.socket, bytes], None]) -> int:
    """Serve on a free port, which is printed, until the parent ends."""
    server = socket.create_server(("127.0.0.1", 0), backlog=64)
    print(server.getsockname()[1], flush=True)
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    while True:
        connection, _ = server.accept()
        threading.Thread(target=_converse, args=(connection, answer), daemon=True).start()


def _converse(connection: socket.socket, answer: Callable[[socket.socket, bytes], None]) -> None:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    received = b""
    with connection, contextlib.suppress(OSError):
        while True:
            while b"\r\n\r\n" not in received:
                more = connection.recv(65_536)
                if not more:
                    return
                received += more
            head, _, rest = received.partition(b"\r\n\r\n")
            if b"100-continue" in head:
                connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
            length = _LENGTH.search(head)
            _discard(connection, int(length[1]) - len(rest) if length else 0)
            received = b""
            answer(connection, head)


def _discard(connection: socket.socket, size: int) -> None:
    buffer = memoryview(bytearray(MIB))
    while size > 0:
        got = connection.recv_into(buffer[: min(size, MIB)])
        if not got:
            raise OSError
        size -= got


def _sink(connection: socket.socket, head: bytes) -> None:
    method, path, _ = head.split(b" ", 2)
    body, etag, status = b"", b'ETag: "an-etag"\r\n', b"200 OK"
    if method == b"POST" and b"uploads" in path:
        name = b"InitiateMultipartUploadResult"
        body = b"<%s><UploadId>an-upload</UploadId></%s>" % (name, name)
    elif method == b"POST":
        name = b"CompleteMultipartUploadResult"
        body = b'<%s><ETag>"an-etag"</ETag></%s>' % (name, name)
    elif method in (b"HEAD", b"GET"):
        status = b"404 Not Found"
    connection.sendall(
        b"HTTP/1.1 %s\r\n%sContent-Length: %d\r\n\r\n%s" % (status, etag, len(body), body)
    )


def _file(path: str) -> Callable[[socket.socket, bytes], None]:
    size = Path(path).stat().st_size

    def answer(connection: socket.socket, head: bytes) -> None:
        asked = _RANGE.search(head)
        start = int(asked[1]) if asked else 0
        stop = int(asked[2]) + 1 if asked and asked[2] else size
        status = b"206 Partial Content" if asked else b"200 OK"
        ranges = b"Content-Range: bytes %d-%d/%d\r\n" % (start, stop - 1, size) if asked else b""
        connection.sendall(
            b'HTTP/1.1 %s\r\nETag: "a-version"\r\nAccept-Ranges: bytes\r\n%s'
            b"Content-Length: %d\r\n\r\n" % (status, ranges, stop - start)
        )
        with Path(path).open("rb") as file:
            while start < stop:
                start += os.sendfile(connection.fileno(), file.fileno(), start, stop - start)

    return answer


@contextlib.contextmanager
def server(*arguments: str) -> Generator[str]:
    """A server in a process of its own; its URL."""
    command = [sys.executable, __file__, "--serve", *arguments]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            port = process.stdout.readline().strip() if process.stdout else ""
            yield f"http://127.0.0.1:{port}"
        finally:
            process.kill()


# --------------------------------------------------------------------- the table


def compare(size: int, repeat: int, directory: Path) -> bool:
    """Print the table. Whether every goal is reached."""
    memory = "/dev/shm" if Path("/dev/shm").is_dir() else None
    reached = True
    print(f"{size} MiB in all, {repeat} rounds; the store is a sink on loopback\n")
    print("                 disk MiB/s   objects MiB/s   ratio   resident MiB, disk / objects")
    for title, count in CASES.items():
        with tempfile.NamedTemporaryFile(dir=memory) as content:
            block = os.urandom(MIB)
            for _ in range(size // count):
                content.write(block)
            content.flush()
            with server("file", content.name) as url, server("sink") as sink:
                rounds = list(_rounds(f"{url}/file.csv", sink, count, repeat, directory))
        ratio = statistics.median(disk[0] / objects[0] for disk, objects in rounds)
        disk, objects = (
            statistics.median(size / one[which][0] for one in rounds) for which in (0, 1)
        )
        resident = [max(one[which][1] for one in rounds) for which in (0, 1)]
        good = ratio >= LEAST_OVER_DISK and resident[1] <= MOST_RESIDENT
        reached = reached and good
        print(
            f"{title:<14} {disk:>12.0f} {objects:>15.0f} {ratio:>7.2f} "
            f"{resident[0]:>12.0f} / {resident[1]:.0f}{'' if good else '   missed'}"
        )
    print(f"\ngoals: ratio at least {LEAST_OVER_DISK}, at most {MOST_RESIDENT} MiB resident")
    return reached


def _rounds(
    url: str, sink: str, count: int, repeat: int, directory: Path
) -> Generator[tuple[tuple[float, float], tuple[float, float]]]:
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "a-key",
        "AWS_SECRET_ACCESS_KEY": "a-secret",
        "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": sink,
        "AWS_ALLOW_HTTP": "true",
    }
    for _ in range(repeat):
        with tempfile.TemporaryDirectory(dir=directory) as target:
            disk = measure(url, target, count)
        os.sync()  # the disk's writes are no burden of the next download
        yield disk, measure(url, "s3://a-bucket/a-prefix", count)


def main(arguments: Sequence[str]) -> int:
    if arguments[:1] == ["--client"]:
        return client(arguments[1], arguments[2], int(arguments[3]))
    if arguments[:1] == ["--serve"]:
        return serve(_sink if arguments[1] == "sink" else _file(arguments[2]))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=1024, help="MiB in all")
    parser.add_argument("--repeat", type=int, default=5, help="rounds")
    parser.add_argument("--directory", type=Path, default=Path.cwd(), help="on the disk to compare")
    given = parser.parse_args(arguments)
    return 0 if compare(given.size, given.repeat, given.directory) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
