"""One bulk run."""
