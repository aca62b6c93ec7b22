"""Where the journal of a command is."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from segments_async import Journal
from segments_async.cli.destination import To
from segments_async.cli.exit_codes import UsageError, unwritable


def place(journal: str | None, to: To | None) -> Path | str:
    """The place of the journal: that of `--journal`, otherwise one in the directory of the files.

    Raises:
        UsageError: neither is given, or the URL has a password.
        ConfigurationError: a URL that may hold a credential.
    """
    if journal is None:
        if to is None:
            raise UsageError("which journal? Give --to DIR, or --journal PATH_OR_URL")
        if isinstance(to, str):
            Journal.location_of(to)
            raise UsageError(
                "object storage can't hold the journal: give --journal PATH_OR_URL, or "
                "`export --no-journal` for none"
            )
        return Journal.path_in(to)
    if not journal:
        raise UsageError("--journal: the path is empty, and nothing was done")
    if "://" not in journal:
        return Path(journal)
    if (problem := _problem(journal)) is not None:
        raise UsageError(
            f"--journal: {problem}. Every user of the machine can read the arguments of a command; "
            "give the password in PGPASSWORD, ~/.pgpass or a service file"
        )
    return journal


#: Parameters of a URL that hold no secret. Any other may hold one: `conninfo` holds a whole list.
#: https://www.postgresql.org/docs/current/libpq-connect.html
_HARMLESS = frozenset(
    {
        "application_name", "channel_binding", "client_encoding", "connect_timeout",
        "fallback_application_name", "gssencmode", "host", "hostaddr", "keepalives",
        "keepalives_count", "keepalives_idle", "keepalives_interval", "krbsrvname",
        "load_balance_methods", "options", "passfile", "port", "require_auth", "requirepeer",
        "service", "sslcert", "sslcrl", "sslcrldir", "sslkey", "sslmode", "sslnegotiation",
        "sslrootcert", "ssl_min_protocol_version", "ssl_max_protocol_version",
        "target_session_attrs", "tcp_user_timeout", "user",
    }
)  # fmt: skip


#: A password, after the URL's `://`, as SQLAlchemy reads it: up to the @, whatever is in it. For
#: `urlsplit` the host ends at a `/`, `?` or `#` in the password.
_PASSWORD = re.compile(r"[^:/]*:[^@]*@")

#: A password in a parameter that holds a list of parameters.
_CONNINFO = re.compile(r"(?i)password\s*=")


def _problem(url: str) -> str | None:
    if _PASSWORD.match(url.partition("://")[2]):
        return "the URL has a password"
    try:
        parts = urlsplit(url)
        given = parse_qsl(parts.query, keep_blank_values=True)
        texts = [unquote(parts.path), *(value for _, value in given)]
    except ValueError:
        # The library refuses the URL, without repeating it.
        return "a URL with an @ that can't be read" if "@" in url else None
    if parts.password is not None or any(_CONNINFO.search(text) for text in texts):
        return "the URL has a password"
    if any(name not in _HARMLESS for name, _ in given) or parts.fragment:
        # The name is not repeated: it is part of a password that has a bare & or # in it.
        return (
            "the URL has a parameter that may hold a password; accepted are "
            f"{', '.join(sorted(_HARMLESS))}"
        )
    return None


def make_private_directory(to: Path) -> None:
    """Create the directory of the files, and in it the journal's, which is for its owner alone.

    Raises:
        UsageError: a directory can't be created.
    """
    directory = Journal.path_in(to).parent
    try:
        # Whatever the umask: a journal is refused where others may write to a directory on its way.
        for parent in reversed(directory.parents):
            if not parent.is_dir():
                parent.mkdir(mode=0o755, exist_ok=True)
        directory.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise unwritable(to, error) from error
