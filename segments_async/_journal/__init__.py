"""The database behind `Journal`: runs, and the log of each run's exports."""
