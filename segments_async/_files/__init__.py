"""Files: fetched from storage, whole under their name or not at all."""
