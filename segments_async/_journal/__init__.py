"""The database behind `segments_async.journal`: runs, and the log of each run's exports."""
