"""Exports at the vendor, shared by all callers of one client that wait for them."""
