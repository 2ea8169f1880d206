"""Time as messages: a heap of timers, and the only place that reads the machine's clock."""

import heapq
import itertools
import time
from collections.abc import Iterator

#: Seconds of CLOCK_MONOTONIC: shared by all processes of the machine, never stepped, stands still in suspend.
monotonic = time.monotonic


class Timer:
    """One message that is due at ``at``; :meth:`cancel` works any time, also after it fired."""

    __slots__ = ("at", "message")

    def __init__(self, at: float, message: object) -> None:
        self.at = at
        self.message: object | None = message

    def cancel(self) -> None:
        """Never deliver the message."""
        self.message = None


class Timers:
    """Timers in order of their due time; those of one instant fire in the order they were set."""

    __slots__ = ("_heap", "_order")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()

    def set(self, at: float, message: object) -> Timer:
        """Deliver ``message`` at ``at``."""
        timer = Timer(at, message)
        heapq.heappush(self._heap, (at, next(self._order), timer))
        return timer

    def next_at(self) -> float | None:
        """When the earliest live timer is due; None when there is none."""
        heap = self._heap
        while heap and heap[0][2].message is None:
            heapq.heappop(heap)
        return heap[0][0] if heap else None

    def due(self, now: float) -> Iterator[object]:
        """Take out and yield the messages that are due at ``now``, earliest first."""
        heap = self._heap
        while heap and heap[0][0] <= now:
            message = heapq.heappop(heap)[2].message
            if message is not None:
                yield message
