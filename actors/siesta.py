"""When nobody asks a vassal for anything, so that its workers, or all of it, need not run. Pure.

The workers' heartbeats say what they have served and whether they are busy. What they do not say yet costs
nothing but a worker's start: one that is asked to end finishes what it has accepted, and whoever comes next
waits at the socket, where it wakes others.

>>> siesta = Siesta(idle=60.0, now=0.0)
>>> siesta.heard(Beat(1, 50.0, requests=7), now=50.0)
>>> siesta.due(100.0), siesta.due(110.0)
(False, True)
"""

from pyemperor.protocol.messages import Beat

#: Beats of a worker in the time after which it may be idle, at least.
_BEATS = 4


def beat_of_worker(beat: float, idle: float) -> float:
    """Seconds between two beats of a worker that has ``beat`` and may be found idle after ``idle`` (0: never)."""
    return min(beat, idle / _BEATS) if idle else beat


class Siesta:
    """Whether nobody has asked for anything for ``idle`` seconds (0: it never comes to that)."""

    def __init__(self, idle: float, now: float) -> None:
        self._idle = idle
        self._busy_at = now
        self._requests = 0

    def heard(self, beat: Beat, now: float) -> None:
        """Take in the beat of all workers."""
        if beat.requests != self._requests or any(core.busy for core in beat.cores):
            self._busy_at = now
        self._requests = beat.requests

    def due(self, now: float) -> bool:
        """Whether it has come to that; it then takes as long again."""
        if not self._idle or now < self._busy_at + self._idle:
            return False
        self._busy_at = now
        return True

    def woken(self, now: float) -> None:
        """Somebody has asked for something."""
        self._busy_at = now
