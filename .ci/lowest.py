"""Prints pip constraints: of each dependency in pyproject.toml, the lowest version it may have.

    python3 .ci/lowest.py >lowest.txt && pip install -c lowest.txt '.[test]'

What none of them is pinned to stays pip's choice: the dependencies of dependencies.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

#: Extras that no test needs.
NOT_TESTED = {"all", "bench", "dev"}

project = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
extras = project["optional-dependencies"]
lines = [*project["dependencies"]]
for name in extras.keys() - NOT_TESTED:
    lines += extras[name]
for line in sorted(lines):
    if line.startswith(project["name"] + "["):
        continue
    found = re.match(r"([\w.-]+)(?:\[[\w,-]+\])?>=([^,;\s]+)", line)
    if found is None:
        raise SystemExit(f"pyproject.toml: no lower bound: {line}")
    print(f"{found[1]}=={found[2]}")  # noqa: T201
