"""Processes in simulated time, and the inboxes of their actors: started, stopped, hung, signalled, killed."""

import math
from collections import deque
from collections.abc import Callable, Mapping
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Any

import pykka
from pykka._envelope import Envelope

from pyemperor.actors.actor import Actor, Source
from pyemperor.actors.clock import Timer, Timers
from pyemperor.actors.simulation.machine import Simulation

#: sysexits.h: an actor broke.
EX_SOFTWARE = 70
#: The heap of the machine is its own: what is cancelled here is counted for nobody.
_UNCOUNTED = Timers()
#: What a process does at a signal: a message for its first actor, or nothing. One that is not here ends it.
Reactions = Mapping[int, Callable[[int], object] | None]


class SimulatedInbox:
    """Mail and timers of one actor; what happens while its process is stopped, or it hangs, waits.

    Afterwards it finds first its mail, then all that its links have to say, then the timers that are due:
    the order of the real one.
    """

    __slots__ = (
        "_due", "_held", "_hung_until", "_mail", "_process", "_queued", "actor", "blocked", "closed",
        "simulation", "sources",
    )  # fmt: skip

    def __init__(self, process: "SimulatedProcess") -> None:
        self.simulation = process.simulation
        self.actor: Actor | None = None
        #: Whether nobody looks into it: not started, hung, or in a stopped process.
        self.blocked = True
        self.closed = False
        #: Called when somebody looks into it again: what waited outside comes in.
        self.sources: dict[object, Callable[[], None]] = {}
        self._process = process
        self._mail: deque[Envelope[Any]] = deque()
        self._held: list[object] = []
        self._due: list[Timer] = []
        self._hung_until = 0.0
        self._queued = False

    # ---- what an actor sees ---------------------------------------------------------------------------

    def put(self, envelope: "Envelope[Any]", /) -> None:
        if not self.closed:
            self._mail.append(envelope)
            self._make_ready()

    def get(self) -> "Envelope[Any]":
        return self._mail.popleft()

    def empty(self) -> bool:
        return not self._mail

    def after(self, seconds: float, message: object) -> Timer:
        timer = Timer(self.simulation.time + seconds, message, _UNCOUNTED)
        if seconds < math.inf:
            self.simulation.at(timer.at, self._fire, timer)
        return timer

    def watch(self, fd: int, mask: int, source: Source) -> None:
        raise NotImplementedError("a descriptor of the real machine means nothing in simulated time")

    def unwatch(self, fd: int) -> None:
        raise NotImplementedError("a descriptor of the real machine means nothing in simulated time")

    def hang(self, seconds: float) -> None:
        """Do not look into it for ``seconds``; 0 means for ever."""
        self._hung_until = max(self._hung_until, self.simulation.time + (seconds or math.inf))
        self.blocked = True
        if self._hung_until < math.inf:
            self.simulation.at(self._hung_until, SimulatedInbox.wake, self)

    def close(self) -> None:
        self.closed = self.blocked = True
        self._mail.clear()
        self.sources.clear()

    # ---- what the machine does ------------------------------------------------------------------------

    def notify(self, message: object) -> None:
        """A descriptor became ready, which means ``message``."""
        if self.blocked:
            self._held.append(message)
        else:
            self._mail.append(Envelope(message))
            if not self._queued:
                self._queued = True
                self.simulation.make_ready(self)

    def _fire(self, timer: Timer) -> None:
        if timer.message is None:
            return
        if self.blocked:
            self._due.append(timer)
        else:
            self.notify(timer.message)

    def wake(self) -> None:
        """Look into it again, unless there is another reason not to."""
        self.blocked = self.closed or self._process.stopped or self.simulation.time < self._hung_until
        if self.blocked:
            return
        for source in tuple(self.sources.values()):
            source()
        due = [timer.message for timer in self._due if timer.message is not None]
        self._mail.extend([Envelope(message) for message in self._held + due])
        self._held.clear()
        self._due.clear()
        self._make_ready()

    def _make_ready(self) -> None:
        if not (self._queued or self.blocked):
            self._queued = True
            self.simulation.make_ready(self)

    def start(self, actor: Actor) -> None:
        """Begin to deliver to ``actor``; it starts with its first turn."""
        self.actor = actor
        self._mail.appendleft(Envelope(_BEGIN))
        self.wake()

    def step(self) -> None:
        """Have the actor handle one message."""
        self._queued = False
        actor = self.actor
        if self.blocked or actor is None or not self._mail:
            return
        envelope = self._mail.popleft()
        if envelope.message is _BEGIN:
            actor.begin()
        else:
            actor.receive(envelope)
        if actor.actor_stopped.is_set():
            self._end(actor)
        elif self._mail:
            self._make_ready()

    def _end(self, actor: Actor) -> None:
        if not self.closed:
            actor._actor_loop_teardown()
            self.close()
            self._process.ended(self, actor)

    def abandon(self) -> None:
        """The process is gone, and the actor with it; nobody is told."""
        self.close()
        if self.actor is not None:
            self.actor.actor_stopped.set()
            pykka.ActorRegistry.unregister(self.actor.actor_ref)


#: Stands for an actor's ``on_start``.
_BEGIN = object()


class SimulatedProcess:
    """A process: the system of its actors. It ends with the first of them, or by a signal.

    Its first actor begins after ``boot`` seconds.
    """

    def __init__(self, simulation: Simulation, name: str, signals: Reactions, boot: float = 0.0) -> None:
        self.simulation = simulation
        #: Its address in scenarios.
        self.name = name
        self.pid = simulation.new_pid()
        self.stopped = False
        self.exit: tuple[int, int] | None = None
        #: How many processes died with it.
        self.swept = 0
        self.on_exit: list[Callable[[SimulatedProcess], object]] = []
        self._signals = signals
        self._boot = boot
        self._pending: list[int] = []
        self._inboxes: list[SimulatedInbox] = []
        self._belongings: dict[object, Callable[[], object]] = {}
        simulation.processes[self.pid] = self

    # ---- the system of its actors ---------------------------------------------------------------------

    def now(self) -> float:
        return self.simulation.time

    def inbox(self) -> SimulatedInbox:
        return SimulatedInbox(self)

    def run(self, actor: Actor) -> None:
        inbox = actor.actor_inbox
        assert isinstance(inbox, SimulatedInbox)
        self._inboxes.append(inbox)
        if len(self._inboxes) == 1 and self._boot:
            inbox.hang(self._boot)
        inbox.start(actor)

    # ---- what the machine does ------------------------------------------------------------------------

    @property
    def alive(self) -> bool:
        return self.exit is None

    def own(self, thing: object, close: Callable[[], object]) -> None:
        """Have ``close()`` called when the process ends, unless it disowns ``thing`` before."""
        self._belongings[thing] = close

    def disown(self, thing: object) -> None:
        """It is not this process's any more."""
        self._belongings.pop(thing, None)

    def notify(self, message: object) -> None:
        """Tell its first actor, as a descriptor that became ready."""
        if self._inboxes:
            self._inboxes[0].notify(message)

    def signal(self, number: int) -> None:
        """kill(2)."""
        if not self.alive:
            return
        if number == SIGSTOP:
            self.stopped = True
            for inbox in self._inboxes:
                inbox.blocked = True
        elif number == SIGCONT:
            self._continue()
        elif self.stopped and number != SIGKILL:
            self._pending.append(number)
        elif number not in self._signals:
            self.die(-1, number)
        elif reaction := self._signals[number]:
            self.notify(reaction(number))

    def _continue(self) -> None:
        if self.stopped:
            self.stopped = False
            pending, self._pending = self._pending, []
            for number in pending:
                self.signal(number)
            self.resumed()

    def resumed(self) -> None:
        """It runs again after a SIGSTOP."""
        for inbox in list(self._inboxes):
            inbox.wake()

    def ended(self, inbox: SimulatedInbox, actor: Actor) -> None:
        """One of its actors has ended."""
        if inbox is self._inboxes[0]:
            code = getattr(actor, "exit_code", 0) if actor.failure is None else EX_SOFTWARE
            self.die(code)
        else:
            self._inboxes.remove(inbox)

    def die(self, code: int, signal: int = 0) -> None:
        """End at once: its descriptors close, its actors are no more, nothing is finished."""
        if self.exit is not None:
            return
        self.exit = code, signal
        del self.simulation.processes[self.pid]
        for inbox in self._inboxes:
            inbox.abandon()
        for close in list(self._belongings.values()):
            close()
        for call in self.on_exit:
            call(self)
