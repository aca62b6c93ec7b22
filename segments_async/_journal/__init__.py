"""The journal: the log of what happened to the exports of one run."""
