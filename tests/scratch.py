"""Where tests put their temporary files: in memory, since no test is about power failures.

On a disk, each transaction of a journal waits for the disk, which other programs use too.
"""

from __future__ import annotations

import shutil
from pathlib import Path

_MEMORY = Path("/dev/shm")

#: Bytes that have to be free there. Containers often have 64 MB.
_ENOUGH = 2 * 1024**3


def fast() -> str | None:
    """A directory in memory; None where the system has none, or a small one."""
    if _MEMORY.is_dir() and shutil.disk_usage(_MEMORY).free >= _ENOUGH:
        return str(_MEMORY)
    return None
