"""A machine in simulated time: a clock that jumps, processes that are objects, and the loop that runs actors.

Everything that happens is an event at a time. Between two events those actors run that have mail, one
message at a time, in an order drawn from the seed. So one seed is one run, whatever the machine underneath
does: there is no thread, no real clock, and no order that comes from hashes or from pykka's random names. A
handler takes no simulated time.
"""

import itertools
import math
import random
from collections.abc import Callable
from heapq import heappop, heappush
from signal import SIGKILL
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pyemperor.actors.simulation.processes import SimulatedInbox, SimulatedProcess

#: Share of all latencies that are long, as when whoever is to run does not get a CPU, and how long (s).
_LONG, _LONGEST = 1 / 64, 0.005


class Simulation:
    """The machine: time (s, from 0), randomness, processes by pid."""

    def __init__(self, seed: int) -> None:
        self.time = 0.0
        self.random = random.Random(seed)
        #: Those that are alive.
        self.processes: dict[int, SimulatedProcess] = {}
        self._events: list[tuple[float, int, Callable[[Any], object], Any]] = []
        self._order = itertools.count()
        self._ready: list[SimulatedInbox] = []
        self._pids = itertools.count(1001)
        self._descriptors: dict[int, Any] = {}
        self._numbers = itertools.count(3)

    def at(self, when: float, call: Callable[[Any], object], argument: Any) -> None:
        """Have ``call(argument)`` called at ``when``; calls of one instant come in the order of this."""
        heappush(self._events, (when, next(self._order), call, argument))

    def latency(self, usual: float) -> float:
        """Draw how long something takes that takes ``usual`` seconds at least."""
        drawn = self.random.random()
        return usual * (1 + drawn) if drawn >= _LONG else usual + drawn * _LONGEST / _LONG

    def run_until(self, at: float, done: Callable[[], bool] | None = None) -> bool:
        """Run until ``at``, or until ``done()``, which is asked after each instant; say whether it was."""
        events, ready = self._events, self._ready
        while True:
            while ready:
                self._next_ready().step()
            if done is not None and done():
                return True
            if not events or events[0][0] > at:
                break
            self.time = instant = events[0][0]
            while events and events[0][0] == instant:
                _, _, call, argument = heappop(events)
                call(argument)
        if at < math.inf:
            self.time = max(self.time, float(at))
        return False

    def _next_ready(self) -> "SimulatedInbox":
        ready = self._ready
        chosen = ready.pop()
        if ready:
            index = int(self.random.random() * (len(ready) + 1))
            if index < len(ready):
                ready[index], chosen = chosen, ready[index]
        return chosen

    def make_ready(self, inbox: "SimulatedInbox") -> None:
        """Let the actor of ``inbox`` have its turn."""
        self._ready.append(inbox)

    def new_pid(self) -> int:
        """A pid that was never used."""
        return next(self._pids)

    def pass_on(self, thing: Any) -> int:
        """A descriptor number under which ``thing`` travels over a link; :meth:`take` it once."""
        number = next(self._numbers)
        self._descriptors[number] = thing
        return number

    def take(self, fd: int) -> Any:
        """What came over a link as descriptor ``fd``."""
        return self._descriptors.pop(fd)

    def close(self) -> None:
        """End every process: nothing of them remains, in pykka's registry either."""
        while self.processes:
            for process in list(self.processes.values()):
                process.die(-1, SIGKILL)
        self._events.clear()
        self._ready.clear()
