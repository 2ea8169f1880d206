"""Calls at a given time, for pykka actors that have no timers of their own."""

import functools
import heapq
import itertools
import threading
from collections.abc import Callable
from typing import Protocol

from pyemperor.actors.clock import monotonic


class Scheduler(Protocol):
    """A clock, and calls at times on that clock (seconds)."""

    def now(self) -> float: ...

    def at(self, when: float, call: Callable[[], None]) -> Callable[[], None]:
        """Have ``call`` called at ``when``; what comes back cancels that, at any time.

        ``call`` must be short and must not raise: tell an actor.
        """
        ...


class ThreadScheduler:
    """One daemon thread with a heap, on the machine's monotonic clock."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._order = itertools.count()
        self._heap: list[tuple[float, int]] = []
        self._calls: dict[int, Callable[[], None]] = {}
        self._thread: threading.Thread | None = None

    def now(self) -> float:
        return monotonic()

    def at(self, when: float, call: Callable[[], None]) -> Callable[[], None]:
        with self._changed:
            number = next(self._order)
            self._calls[number] = call
            heapq.heappush(self._heap, (when, number))
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="scheduler", daemon=True)
                self._thread.start()
            self._changed.notify()
        return lambda: self._cancel(number)

    def _cancel(self, number: int) -> None:
        with self._changed:
            self._calls.pop(number, None)

    def _run(self) -> None:
        while True:
            self._next()()

    def _next(self) -> Callable[[], None]:
        """Wait for the next call that is due and take it out."""
        with self._changed:
            while True:
                while self._heap and self._heap[0][1] not in self._calls:
                    heapq.heappop(self._heap)
                remaining = self._heap[0][0] - monotonic() if self._heap else None
                if remaining is not None and remaining <= 0:
                    return self._calls.pop(heapq.heappop(self._heap)[1])
                self._changed.wait(remaining)


@functools.cache
def shared() -> ThreadScheduler:
    """Return the scheduler that all supervisors of the process share."""
    return ThreadScheduler()
