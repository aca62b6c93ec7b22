"""The states of an export, and the decisions about it."""
