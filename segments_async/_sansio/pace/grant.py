"""The answers of `Admission` to the question whether a request may go: a grant, or a wait."""

from __future__ import annotations

from typing import Generic

import attrs

from segments_async._sansio.pace.scheduler import Kind, QueuedRequest, Target


@attrs.frozen
class Grant(Generic[Target]):
    """Leave to send one request now.

    Attributes:
        at: when it was granted, in seconds.
        epoch: the pacer's, which has to know it with the result.
        guard_probe: whether the request is the ticket guard's probe.
        instead: whether a list has to be sent in place of the queued submit. The vendor may be
            away, and an answer to the submit that isn't the vendor's own would leave unknown
            whether an export runs.
    """

    queued: QueuedRequest[Target]
    at: float
    epoch: int
    guard_probe: bool
    instead: bool

    @property
    def kind(self) -> Kind:
        """The kind of the request that is really sent."""
        return Kind.CALL if self.instead else self.queued.kind


@attrs.frozen
class Wait:
    """No request may go now.

    Attributes:
        at: when to ask again, in seconds; inf where only a result can change anything.
        paced: whether the pacer alone delays the next request.
    """

    at: float
    paced: bool = False
