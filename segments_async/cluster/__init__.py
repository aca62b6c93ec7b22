"""Bulk exports on the workers of an executor: processes of this machine, or of a cluster.

:func:`export_on` gives the segments of one run out in batches to anything that speaks
:class:`concurrent.futures.Executor`.
"""

from __future__ import annotations

from segments_async.cluster.pool import ProcessPool
from segments_async.cluster.run import ClusterRun, export_on
from segments_async.cluster.task import WorkerOptions

__all__ = ["ClusterRun", "ProcessPool", "WorkerOptions", "export_on"]
