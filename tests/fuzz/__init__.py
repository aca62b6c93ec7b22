"""Hostile input of servers and disks, by the hundred thousand, from a seed."""
