"""Hostile answers: what a server or a disk might say, by the hundred thousand, from a seed."""
