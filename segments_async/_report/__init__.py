"""The page of a run: what it says (pure), and its HTML."""
