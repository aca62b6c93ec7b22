"""``python -m segments_async``: the command ``segments-async``."""

from segments_async.cli import main

main()
