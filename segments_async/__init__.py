"""Export many user segments at once from mParticle Analytics' User Segments Export API.

PYTEST_DONT_REWRITE: pytest rewrites assertions in each package that has a plugin, and warns of one
that was imported before.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from segments_async._files.body import ExportBody
    from segments_async._files.destination import Destination, DestinationWriter, StoredFile
    from segments_async._run.bulk_run import BulkRun, file_names
    from segments_async._run.journal import Journal, RunSpec, RunStatus
    from segments_async._run.report import BulkExportError, BulkReport
    from segments_async._sansio.files.links import S3_HOSTS, without_secret
    from segments_async._sansio.pace.pacer import Pacer
    from segments_async.client import SegmentsClient
    from segments_async.errors import (
        APIConnectionError,
        APIError,
        APIStatusError,
        APITimeoutError,
        AuthenticationError,
        ConfigurationError,
        DecodeError,
        DestinationError,
        DownloadError,
        ExportError,
        ExportExpiredError,
        ExportFailedError,
        ExportTimeoutError,
        JournalError,
        NotFoundError,
        NotSubmittedError,
        PermissionDeniedError,
        RateLimitedError,
        SegmentsError,
        ServerError,
        SubmitUnknownError,
        TargetExistsError,
    )
    from segments_async.models import Export, ExportStatus, OutputFormat, Segment, SegmentType
    from segments_async.results import (
        Activity,
        Completed,
        Exported,
        ExportedFile,
        Held,
        HeldReason,
        NotExported,
        Progress,
    )

__all__ = [
    "S3_HOSTS",
    "APIConnectionError",
    "APIError",
    "APIStatusError",
    "APITimeoutError",
    "Activity",
    "AuthenticationError",
    "BulkExportError",
    "BulkReport",
    "BulkRun",
    "Completed",
    "ConfigurationError",
    "DecodeError",
    "Destination",
    "DestinationError",
    "DestinationWriter",
    "DownloadError",
    "Export",
    "ExportBody",
    "ExportError",
    "ExportExpiredError",
    "ExportFailedError",
    "ExportStatus",
    "ExportTimeoutError",
    "Exported",
    "ExportedFile",
    "Held",
    "HeldReason",
    "Journal",
    "JournalError",
    "NotExported",
    "NotFoundError",
    "NotSubmittedError",
    "OutputFormat",
    "Pacer",
    "PermissionDeniedError",
    "Progress",
    "RateLimitedError",
    "RunSpec",
    "RunStatus",
    "Segment",
    "SegmentType",
    "SegmentsClient",
    "SegmentsError",
    "ServerError",
    "StoredFile",
    "SubmitUnknownError",
    "TargetExistsError",
    "file_names",
    "without_secret",
]

#: Modules, each with its public names. A module is imported when one of its names is first used:
#: all of them take more processor time than `import httpx`, and an error to catch, or a segment to
#: pass on, needs no client. Two more rooms are entered later: httpx when a client is made
#: (`_http/client_maker.py`), the engine when a bulk run is entered (`_run/open_session.py`).
_MODULES = {
    "segments_async._files.body": ("ExportBody",),
    "segments_async._files.destination": ("Destination", "DestinationWriter", "StoredFile"),
    "segments_async._run.bulk_run": ("BulkRun", "file_names"),
    "segments_async._run.journal": ("Journal", "RunSpec", "RunStatus"),
    "segments_async._run.report": ("BulkExportError", "BulkReport"),
    "segments_async._sansio.files.links": ("S3_HOSTS", "without_secret"),
    "segments_async._sansio.pace.pacer": ("Pacer",),
    "segments_async.client": ("SegmentsClient",),
    "segments_async.errors": (
        "APIConnectionError",
        "APIError",
        "APIStatusError",
        "APITimeoutError",
        "AuthenticationError",
        "ConfigurationError",
        "DecodeError",
        "DestinationError",
        "DownloadError",
        "ExportError",
        "ExportExpiredError",
        "ExportFailedError",
        "ExportTimeoutError",
        "JournalError",
        "NotFoundError",
        "NotSubmittedError",
        "PermissionDeniedError",
        "RateLimitedError",
        "SegmentsError",
        "ServerError",
        "SubmitUnknownError",
        "TargetExistsError",
    ),
    "segments_async.models": (
        "Export",
        "ExportStatus",
        "OutputFormat",
        "Segment",
        "SegmentType",
    ),
    "segments_async.results": (
        "Activity",
        "Completed",
        "Exported",
        "ExportedFile",
        "Held",
        "HeldReason",
        "NotExported",
        "Progress",
    ),
}
_MODULE_OF = {name: module for module, names in _MODULES.items() for name in names}

#: Modules that are attributes of the package without being imported before.
_SUBMODULES = frozenset({"client", "errors", "models", "results"})

__version__: str


def _version() -> str:
    """`__version__`, read when it is asked for: to read it takes longer than most imports."""
    from importlib import metadata

    try:
        return metadata.version("segments-async")
    except metadata.PackageNotFoundError:  # imported from a copy of the sources
        return "0+unknown"


if not TYPE_CHECKING:  # for a type checker, each attribute would be one of the package's

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name in _SUBMODULES:
            return import_module(f"{__name__}.{name}")
        if name == "__version__":
            return _version()
        if name not in _MODULE_OF:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(_MODULE_OF[name]), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *_MODULE_OF, *_SUBMODULES} - {"TYPE_CHECKING", "annotations"})
