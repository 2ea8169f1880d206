"""Forking in simulated time: the fork server as an actor.

It follows ``actors/fork_server`` in what it answers and when: one fork at a time, a death is reported when
nothing is left of it, workers without a master have their mercy and are then killed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from signal import SIGKILL
from typing import Any

from pyemperor.actors.actor import Actor
from pyemperor.actors.simulation.links import End, pair
from pyemperor.actors.simulation.processes import SimulatedInbox, SimulatedProcess
from pyemperor.protocol.messages import Adopt, Birth, Exited, Fork, Forked, Kill, Message

#: Makes the process of a birth; its ends: the link to its parent and, for a master, its office.
Spawn = Callable[[Birth, End, End | None], SimulatedProcess]

#: Seconds for a cold start of the fork server, for a fork, for a sweep (medians of the real ones).
BOOT, FORK, SWEEP = 0.09, 0.002, 0.002
#: Seconds beyond their own mercy that workers without a master get.
SLACK = 2.0


@dataclass(eq=False, slots=True)
class _Office:
    end: End
    #: None for the Emperor's.
    vassal: Birth | None = None
    #: The id of the master that sits here.
    id: int = 0
    closed: bool = False


@dataclass(eq=False, slots=True)
class _Child:
    office: _Office
    id: int
    process: SimulatedProcess
    mercy: float


@dataclass(frozen=True, slots=True)
class _Asked:
    office: _Office
    request: Message
    fds: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class _Done:
    """The fork that was asked for is done."""

    asked: _Asked
    fork: Fork


@dataclass(frozen=True, slots=True)
class _OfficeClosed:
    office: _Office


@dataclass(frozen=True, slots=True)
class _MercyOver:
    child: _Child


@dataclass(frozen=True, slots=True)
class _Ended:
    """SIGCHLD."""

    child: _Child


@dataclass(frozen=True, slots=True)
class _Swept:
    child: _Child


class SimulatedForkServer(Actor):
    """Forks what its offices ask for, until the Emperor's is closed and no child is left."""

    def __init__(self, process: SimulatedProcess, office: End, spawn: Spawn) -> None:
        super().__init__(process)
        self._process = process
        self._spawn = spawn
        self._children: dict[int, _Child] = {}
        self._busy_until = 0.0
        self._emperor = self._open_office(office)

    actor_inbox: SimulatedInbox

    def handle(self, message: Any, now: float) -> None:
        match message:
            case _Asked(request=Fork() as fork):
                took = self._process.simulation.latency(FORK)
                self._busy_until = max(now, self._busy_until) + took
                self.after(self._busy_until - now, _Done(message, fork))
            case _Asked(office=office, request=Kill() as kill):
                self._kill(office, kill)
            case _Asked(request=Adopt(id=id, birth=birth), fds=fds):
                self._open_office(self._process.simulation.take(fds[0]), birth, id)
            case _Done(asked=asked, fork=fork):
                self._fork(asked, fork)
            case _OfficeClosed(office=office):
                self._orphan(office)
            case _MercyOver(child=child):
                child.process.signal(SIGKILL)
            case _Ended(child=child):
                self.after(self._process.simulation.latency(SWEEP), _Swept(child))
            case _Swept(child=child):
                self._report(child)

    def _open_office(self, end: End, vassal: Birth | None = None, id: int = 0) -> _Office:
        office = _Office(end, vassal, id)
        end.attach(
            self._process,
            self.actor_inbox,
            lambda request, fds: _Asked(office, request, fds),
            lambda _why: _OfficeClosed(office),
        )
        return office

    def _fork(self, asked: _Asked, fork: Fork) -> None:
        simulation, birth, office = self._process.simulation, fork.birth, asked.office
        theirs = None
        if birth.kind == "master":
            ours, theirs = pair(simulation)
            self._open_office(ours, birth, fork.id)
        process = self._spawn(birth, simulation.take(asked.fds[0]), theirs)
        child = _Child(office, fork.id, process, birth.mercy)
        self._children[process.pid] = child
        process.on_exit.append(lambda _: self.actor_inbox.notify(_Ended(child)))
        office.end.send(Forked(fork.id, process.pid))
        if office.closed:
            self._leave_to_itself(child)

    def _kill(self, office: _Office, kill: Kill) -> None:
        # The master may be dead already: its workers are known by the office.
        family = kill.id if kill.family and office is self._emperor else -1
        for child in list(self._children.values()):
            if (child.office is office and child.id == kill.id) or child.office.id == family:
                child.process.signal(SIGKILL)

    def _orphan(self, office: _Office) -> None:
        office.closed = True
        for child in self._children.values():
            if child.office is office:
                self._leave_to_itself(child)
        self._end_if_idle()

    def _leave_to_itself(self, child: _Child) -> None:
        self.after(child.mercy + SLACK, _MercyOver(child))

    def _report(self, child: _Child) -> None:
        process = child.process
        assert process.exit is not None
        code, signal = process.exit
        del self._children[process.pid]
        child.office.end.send(Exited(child.id, code, signal, process.swept))
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        if self._emperor.closed and not self._children:
            self.stop()
