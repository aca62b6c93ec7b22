"""Export many user segments at once from mParticle Analytics' User Segments Export API."""

from segments_async._files.body import ExportBody
from segments_async._sansio.files.links import S3_HOSTS, without_secret
from segments_async._sansio.pace.pacer import Pacer
from segments_async.client import SegmentsClient
from segments_async.errors import (
    APIConnectionError,
    APIError,
    APIStatusError,
    AuthenticationError,
    ConfigurationError,
    DecodeError,
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
from segments_async.journal import Journal, RunSpec, RunStatus
from segments_async.models import Export, ExportStatus, OutputFormat, Segment, SegmentType
from segments_async.results import (
    BulkExportError,
    BulkReport,
    Completed,
    Exported,
    ExportedFile,
    Held,
    HeldReason,
    NotExported,
    Progress,
)
from segments_async.run import Activity, BulkRun, file_names

__all__ = [
    "S3_HOSTS",
    "APIConnectionError",
    "APIError",
    "APIStatusError",
    "Activity",
    "AuthenticationError",
    "BulkExportError",
    "BulkReport",
    "BulkRun",
    "Completed",
    "ConfigurationError",
    "DecodeError",
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
    "SubmitUnknownError",
    "TargetExistsError",
    "file_names",
    "without_secret",
]

__version__: str


def __getattr__(name: str) -> str:
    """`__version__`, read when it is asked for: to read it takes longer than most imports."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import metadata

    try:
        return metadata.version("segments-async")
    except metadata.PackageNotFoundError:  # imported from a copy of the sources
        return "0+unknown"
