"""The hash of a part's bytes, from its beginning on: SHA-256, and MD5 if storage announced one."""

from __future__ import annotations

import hashlib
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from segments_async._sansio.files.sidecar import PrefixHash

#: Data to write: immutable bytes, or memory that is reused afterwards.
Bytes = bytes | memoryview

#: Bytes from which on a piece is hashed in a thread of its own while it is written. For smaller
#: pieces the hand-over between the threads takes longer than the hashing.
PARALLEL_HASH_FROM = 1024 * 1024


class RunningHash(Protocol):
    """A hash of hashlib's that takes more data."""

    def update(self, data: Bytes, /) -> None: ...
    def hexdigest(self) -> str: ...


def md5() -> RunningHash | None:
    """A running MD5; None on systems that forbid it for any purpose (FIPS)."""
    try:
        return hashlib.md5(usedforsecurity=False)
    except ValueError:
        return None


class PrefixDigest:
    """Hashes pieces in their order.

    Attributes:
        size: bytes that are hashed, or are being hashed in the other thread.
        completed: the hash of the bytes that are hashed, for the sidecar, which doesn't wait.
        running: the hashing of the last large piece; None once :meth:`wait` was called.
    """

    def __init__(self) -> None:
        self._sha256 = hashlib.sha256()
        self._md5 = md5()
        self._thread: ThreadPoolExecutor | None = None
        self.size = 0
        self.completed = PrefixHash(0, "")
        self.running: Future[None] | None = None

    def add(self, data: Bytes, *, with_md5: bool) -> None:
        """Hash the next piece."""
        self.wait()
        self.size += len(data)
        self.update(data, with_md5)

    def add_in_parallel(self, data: Bytes, *, with_md5: bool) -> None:
        """Hash the next piece. A large one is still read when this returns: see `running`."""
        if len(data) < PARALLEL_HASH_FROM:
            self.add(data, with_md5=with_md5)
            return
        self.size += len(data)
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, "segments-async-hash")
        try:
            self.running = self._thread.submit(self.update, data, with_md5)
        except RuntimeError:
            # No thread can be started now. The pool has queued the piece all the same.
            self._thread.shutdown(wait=False, cancel_futures=True)
            self._thread = None
            self.update(data, with_md5)

    def update(self, data: Bytes, with_md5: bool) -> None:
        self._sha256.update(data)
        self.completed = PrefixHash(self.completed.size + len(data), self._sha256.hexdigest())
        if with_md5 and self._md5 is not None:
            self._md5.update(data)

    def wait(self) -> None:
        """Wait until all pieces are hashed."""
        running, self.running = self.running, None
        if running is not None:
            running.result()

    def sha256(self) -> str:
        return self._sha256.hexdigest()

    def has_md5(self, expected: str | None) -> bool:
        """Whether the MD5 is the expected one; True if there is none to compare."""
        return expected is None or self._md5 is None or self._md5.hexdigest() == expected

    def close(self) -> None:
        if self._thread is not None:
            self._thread.shutdown(wait=False)
