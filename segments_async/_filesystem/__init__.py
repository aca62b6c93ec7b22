"""Locks, durable renames, trust in files, and worker threads: for downloads and the journal."""
