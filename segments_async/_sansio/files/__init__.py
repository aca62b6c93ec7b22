"""Links, ranges of bytes, names, storage's answers."""
