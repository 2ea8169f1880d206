"""Time as messages: a heap of timers, and the only place that reads the machine's clock."""

import heapq
import itertools
import time

#: Seconds of CLOCK_MONOTONIC: shared by all processes of the machine, never stepped, stands still in suspend.
monotonic = time.monotonic


def wall() -> float:
    """Seconds since 1970-01-01 00:00 as the clock on the wall shows it, in the time zone of this process."""
    now = time.time()
    return now + time.localtime(now).tm_gmtoff


class Timer:
    """One message that is due at ``at``; :meth:`cancel` works any time, also after it fired."""

    __slots__ = ("_timers", "at", "message")

    def __init__(self, at: float, message: object, timers: "Timers") -> None:
        self.at = at
        self.message: object | None = message
        self._timers = timers

    def cancel(self) -> None:
        """Never deliver the message."""
        if self.message is not None:
            self.message = None
            self._timers.cancelled += 1


class Timers:
    """Timers in order of their due time; those of one instant fire in the order they were set.

    Most timers are deadlines that are cancelled long before they are due. They stay in the heap until they
    are as many as the others, then all are thrown out at once: the heap stays small, the cost of each constant.
    """

    __slots__ = ("_heap", "_order", "cancelled")

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        #: Timers in the heap that have been cancelled.
        self.cancelled = 0

    def set(self, at: float, message: object) -> Timer:
        """Deliver ``message`` at ``at``."""
        timer = Timer(at, message, self)
        heapq.heappush(self._heap, (at, next(self._order), timer))
        if self.cancelled > _FEW and 2 * self.cancelled > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].message is not None]
            heapq.heapify(self._heap)
            self.cancelled = 0
        return timer

    def next_at(self) -> float | None:
        """When the earliest live timer is due; None when there is none."""
        heap = self._heap
        while heap and heap[0][2].message is None:
            heapq.heappop(heap)
            self.cancelled -= 1
        return heap[0][0] if heap else None

    def due(self, now: float) -> list[object]:
        """Take out the messages that are due at ``now``, earliest first."""
        messages: list[object] = []
        while (at := self.next_at()) is not None and at <= now:
            timer = heapq.heappop(self._heap)[2]
            messages.append(timer.message)
            timer.message = None
        return messages


#: So few cancelled timers are not worth a look.
_FEW = 32
