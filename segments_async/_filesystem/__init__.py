"""Locks, durable renames, and trust in files: for downloads and for the journal."""
