"""``python -m segments_async.cli``."""

from segments_async.cli import main

main()
