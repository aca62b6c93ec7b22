"""The end of a request's time, in a process that may have stood still.

A process is stopped (Ctrl-Z and `fg`, `docker pause`, a virtual machine that is moved), or one of
its callbacks blocks the event loop. When the process goes on, all timers of the meantime are due at
once, and event loops may run timers before they read their sockets. The answers in the sockets
would be thrown away, and each POST among the requests would end as unknown.

So a request isn't ended by the clock alone. `RequestWatch` looks at the clock at least every `LOOK`
seconds. A look that comes much later than planned shows that the process stood still until now.
Then no request is ended for `MOMENT` seconds, in which the loop reads the answers that have come.
"""

from __future__ import annotations

import math

#: Seconds between two looks, at most.
LOOK = 1.0

#: A look that is later than planned by more seconds than this came after a standstill. A loop
#: that is merely busy is late by less.
LATE = 0.5

#: Seconds for which no request is ended after a standstill. Reading 64 answers takes a tenth of
#: a second of processor time, and more on a host that has just been woken.
MOMENT = 1.0


class Standstill:
    """The last time at which the process is known to have stood still."""

    def __init__(self, now: float) -> None:
        self._planned = now
        self._until = -math.inf

    def plan(self, now: float, due: float) -> float:
        """Seconds to sleep until the next look; the next request's time is over at `due`."""
        end = max(due, self._until + MOMENT)
        self._planned = min(max(end, now), now + LOOK)
        return self._planned - now

    def on_look(self, now: float) -> None:
        """The sleep is over."""
        if now - self._planned > LATE:
            self._until = now

    def is_over(self, due: float, now: float) -> bool:
        """Whether a request whose time is over at `due` has to end now."""
        return now >= due and now - self._until >= MOMENT
