"""Blocks of data: each is read by its format's own parser."""

from __future__ import annotations

import configparser
import csv
import io
import json
import shlex
import tomllib
from collections.abc import Callable, Mapping
from typing import Any, cast

import pglast
import yaml
from croniter import croniter
from dockerfile_parse import DockerfileParser

#: What a line of a Dockerfile begins with.
_INSTRUCTIONS = frozenset(
    {
        *("ADD", "ARG", "CMD", "COMMENT", "COPY", "ENTRYPOINT", "ENV", "EXPOSE", "FROM"),
        *("HEALTHCHECK", "LABEL", "ONBUILD", "RUN", "SHELL", "STOPSIGNAL", "USER", "VOLUME"),
        "WORKDIR",
    }
)


def _json(text: str) -> None:
    json.loads(text)


def _jsonl(text: str) -> None:
    for line in text.splitlines():
        json.loads(line)


def _toml(text: str) -> None:
    tomllib.loads(text)


def _yaml(text: str) -> None:
    assert any(part is not None for part in yaml.safe_load_all(text))


def _ini(text: str) -> None:
    assert _sections(text)


def _systemd(text: str) -> None:
    """A unit: an option may be given more than once, and its commands are words of a shell."""
    for section in _sections(text).values():
        for name, value in section.items():
            if name.startswith("Exec"):
                assert shlex.split(value)


def _sections(text: str) -> dict[str, configparser.SectionProxy]:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read_string(text)
    return {name: parser[name] for name in parser.sections()}


def _crontab(text: str) -> None:
    for line in text.splitlines():
        if not line.strip() or line.startswith("#") or _is_variable(line):
            continue
        *times, command = line.split(maxsplit=5)
        assert croniter.is_valid(" ".join(times)), line
        assert shlex.split(command), line


def _is_variable(line: str) -> bool:
    name, equals, _ = line.partition("=")
    return bool(equals) and name.strip().isidentifier()


def _dockerfile(text: str) -> None:
    lines = DockerfileParser(fileobj=cast(Any, io.BytesIO(text.encode()))).structure
    instructions = [line["instruction"] for line in lines]
    assert "FROM" in instructions
    assert set(instructions) <= _INSTRUCTIONS, sorted(set(instructions) - _INSTRUCTIONS)


def _sql(text: str) -> None:
    assert pglast.parse_sql(str(text))  # it takes no subclass of str


def _csv(text: str) -> None:
    rows = list(csv.reader(io.StringIO(text), strict=True))
    assert len({len(row) for row in rows}) == 1


PARSERS: Mapping[str, Callable[[str], None]] = {
    "json": _json,
    "jsonl": _jsonl,
    "toml": _toml,
    "yaml": _yaml,
    "ini": _ini,
    "systemd": _systemd,
    "crontab": _crontab,
    "dockerfile": _dockerfile,
    "sql": _sql,
    "csv": _csv,
}
