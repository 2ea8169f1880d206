"""The workers of one vassal: started, replaced when they have done enough, more or fewer by ``cheaper``, or none.

``workforce`` decides who comes and who goes, ``cheaper`` how many there are to be, ``wear`` when one has done
enough, ``siesta`` when nobody asks for them; ``supervision`` what becomes of those that die. A planned end is no
failure: it is charged to no budget, and nothing waits for it.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from pyemperor.actors.actor import System
from pyemperor.actors.cheaper import Cheaper, View
from pyemperor.actors.detector import Lease
from pyemperor.actors.doorbell import Doorbell
from pyemperor.actors.host import Host
from pyemperor.actors.journal import Journal
from pyemperor.actors.lifecycle import Key, StopAsked
from pyemperor.actors.overseer import Overseer, flags
from pyemperor.actors.siesta import Siesta, beat_of_worker
from pyemperor.actors.supervision import ChildSpec, Shutdown, StartChild, Supervisor, TerminateChild
from pyemperor.actors.wear import Memory, excess, limits_memory, longest_life
from pyemperor.actors.workforce import Command, Dismiss, Hire, Kill, Workforce
from pyemperor.protocol.messages import Beat, Birth, Core, Message, Pause, Worn

_WORKERS = "workers"
#: Seconds between two looks of ``cheaper``, uWSGI's master cycle; workers beat twice in that time.
_LOOK = 1.0
#: Seconds after which a worker that could not be hired is hired again.
_AGAIN = 2.0


@dataclass(frozen=True, slots=True)
class Gauges:
    """What a master learns of the machine."""

    #: Connections that wait at the vassal's sockets.
    waiting: Callable[[], int] = lambda: 0
    #: What the process of this pid uses.
    memory: Callable[[int], Memory] = lambda _pid: Memory()
    #: Rings when a connection waits, for workers that rest (``cheap``, ``idle``).
    doorbell: Doorbell | None = None


@dataclass(frozen=True, slots=True)
class _Look:
    """Time to see whether the number of workers is right."""


@dataclass(frozen=True, slots=True)
class _Weigh:
    """Time to see what the workers use."""


@dataclass(frozen=True, slots=True)
class _Rung:
    """A connection waits, and the workers rest."""


@dataclass(frozen=True, slots=True)
class _Retire:
    """This incarnation of a worker has done enough."""

    key: Key
    why: str


@dataclass(frozen=True, slots=True)
class _Mend:
    """Time to try again what was refused."""


class Crew(Overseer):
    """Runs the workers of ``birth``, a master's."""

    def __init__(
        self,
        system: System,
        host: Callable[[Overseer], Host],
        journal: Journal,
        birth: Birth,
        chance: Callable[[], float],
        gauges: Gauges,
    ) -> None:
        super().__init__(system, host, journal, Lease(birth.tolerance, birth.probe), chance)
        vassal = self._vassal = birth.vassal
        self._birth = birth
        self._gauges = gauges
        self._cheaper = Cheaper(vassal) if vassal.cheaper else None
        #: The workers to start with, by id; none while nobody asks for any.
        self._first = {str(index): index for index in range(1, vassal.first_workers + 1)}
        if vassal.cheap and gauges.doorbell is not None:
            self._first = {}
        self._workforce = Workforce(self._first, vassal.cheaper or vassal.processes, vassal.processes)
        self._siesta = Siesta(vassal.idle, self._now)
        self._resting = False
        #: By id, when it became ready, and its last heartbeat.
        self._ready_at: dict[str, float] = {}
        self._beats: dict[str, Beat] = {}
        #: Who was once below the limits of memory; whether it was said that these are too low.
        self._light: set[str] = set()
        self._warned = False
        #: Requests of those that are gone.
        self._served = 0
        self._disbanding = False
        self._paused = False
        self._mending = False

    def enlist(self) -> None:
        """Start the first workers, and begin to watch them."""
        vassal = self._vassal
        settings = vassal.supervision
        # Real escalation, as in OTP: a master whose workers keep dying gives up, and the Emperor takes over.
        budget = max(settings.intensity, 2 * vassal.processes)
        worker_flags = flags(settings)
        # Workers that are strangers to each other need not wait for each other, neither to start nor to stop.
        worker_flags = replace(
            worker_flags, on_exceed="escalate", intensity=budget, parallel=not worker_flags.grouped
        )
        specs = [self._spec(id, index) for id, index in self._first.items()]
        self.add_group(_WORKERS, Supervisor(worker_flags, specs, random=self._chance))
        if not specs:
            self._rest("no worker before the first connection")
        if self._cheaper is not None:
            self.after(_LOOK, _Look())
        if limits_memory(vassal):
            self.after(vassal.mem_collector_freq, _Weigh())

    def disband(self) -> bool:
        """Stop them all; False when there never were any."""
        self._disbanding = True
        self._rise()
        enlisted = _WORKERS in self.groups
        self.supervise(_WORKERS, Shutdown())
        return enlisted

    def pause(self) -> None:
        """Have the workers take no new connection, or take them again (uWSGI's SIGTSTP)."""
        self._paused = not self._paused
        self._siesta.woken(self._now)
        event = "pause" if self._paused else "resume"
        text = "every connection waits until SIGTSTP comes again" if self._paused else "takes connections again"
        self.journal.log("INFO", text, self._now, event=event)
        for name, child in self._children.items():
            if child.group == _WORKERS:
                self.tell_child(name, Pause(self._paused))

    def _launch(self, group: str, name: str, generation: int, birth: Birth) -> None:
        super()._launch(group, name, generation, msgspec.structs.replace(birth, paused=self._paused))

    def renew_workers(self, why: str) -> None:
        """Replace every worker, one after the other."""
        for id in self._workforce.serving:
            self._retire(id, why)

    @property
    def enlisted(self) -> bool:
        """Whether the first workers are ready."""
        return self._resting or len(self._ready_at) >= self._vassal.first_workers

    def handle(self, message: Any, now: float) -> Any:
        self._now = now
        match message:
            case _Look():
                self.after(_LOOK, message)
                self._look()
            case _Weigh():
                self.after(self._vassal.mem_collector_freq, message)
                self._weigh()
            case _Retire(key=key, why=why):
                if (child := self.child(key.name)) and child.key == key:
                    self._retire(key.name, why)
            case _Mend():
                self._mending = False
                if not self._resting:
                    self._carry_on(self._workforce.mend())
            case _Rung():
                self._wake()
            case _:
                return super().handle(message, now)
        return None

    # ---- what happens to them -------------------------------------------------------------------------------

    def child_up(self, child: str) -> None:
        self._ready_at[child] = self._now
        self._siesta.woken(self._now)
        if found := self.child(child):
            life = longest_life(self._vassal, found.birth.index)
            if life < math.inf:
                self._later(child, life, f"it is {life:g} s old, its max-worker-lifetime")
        self._carry_on(self._workforce.up(child))

    def child_said(self, child: str, message: Message) -> None:
        match message:
            case Beat():
                self._beats[child] = message
                if self._vassal.idle:
                    self._see_whether_idle()
            case Worn(reason=reason):
                self._when_old_enough(child, reason)

    def child_down(self, child: str) -> None:
        if beat := self._beats.pop(child, None):
            self._served += beat.requests
        self._ready_at.pop(child, None)
        self._light.discard(child)
        self._workforce.down(child)

    def child_gone(self, child: str) -> None:
        self._carry_on(self._workforce.gone(child))

    def child_refused(self, child: str, reason: str) -> None:
        self._workforce.refused(child)
        if not self._disbanding:
            self.journal.log("WARNING", f"another worker could not start, the others go on: {reason}", self._now)
            if not self._mending:
                self._mending = True
                self.after(_AGAIN, _Mend())

    def count(self, seq: int, now: float) -> Beat:
        """The heartbeat of all of them."""
        requests = self._served
        cores: list[Core] = []
        for beat in self._beats.values():
            requests += beat.requests
            cores += beat.cores
        return Beat(seq, now, len(self._ready_at), requests, tuple(cores), self._paused)

    # ---- none while nobody asks -----------------------------------------------------------------------------

    def _see_whether_idle(self) -> None:
        self._siesta.heard(self.count(0, self._now), self._now)
        if self.enlisted and not (self._resting or self._paused) and self._siesta.due(self._now):
            self.idle()

    def idle(self) -> None:
        """Nobody has asked for anything for as long as ``idle`` says: rest until somebody does."""
        if self._gauges.doorbell is not None and not self._disbanding:
            self._carry_on(self._workforce.rest())
            self._rest(f"nobody has asked for anything for {self._vassal.idle:g} s: no worker until somebody does")

    def _rest(self, why: str) -> None:
        if self._gauges.doorbell is not None:
            self._resting = True
            self.journal.log("INFO", why, self._now, event="rest")
            self._gauges.doorbell.watch(self.actor_inbox, _Rung())

    def _rise(self) -> None:
        if self._resting and self._gauges.doorbell is not None:
            self._resting = False
            self._gauges.doorbell.unwatch(self.actor_inbox)

    def _wake(self) -> None:
        if self._resting and not self._disbanding:
            self._rise()
            self._siesta.woken(self._now)
            self._carry_on(self._workforce.wake(self._vassal.first_workers))

    # ---- what is to become of them ----------------------------------------------------------------------------

    def _look(self) -> None:
        if self._cheaper is None or self._disbanding or self._resting or self._paused or not self._ready_at:
            return
        workforce = self._workforce
        cores = {id: self._beats[id].cores for id in workforce.serving if id in self._beats}
        full = [id for id, its in cores.items() if its and all(core.busy for core in its)]
        idle = [id for id, its in cores.items() if not any(core.busy for core in its)]
        waiting = self._gauges.waiting()
        view = View(workforce.size, len(full), len(idle), waiting, self._resident())
        # Who still finishes keeps his number, and so his place.
        if (change := self._cheaper.decide(view)) and (commands := workforce.resize(change, idle)):
            why = f"{len(full)} of {view.workers} workers are full, {len(idle)} idle, {waiting} connections wait"
            change = len(commands) if change > 0 else -1
            self.journal.event(self.journal.actor, "resize", self._now, reason=f"{change:+d}: {why}")
            self._carry_on(commands)

    def _resident(self) -> int:
        if not (self._vassal.cheaper_rss_limit_soft or self._vassal.cheaper_rss_limit_hard):
            return 0
        return sum(self._gauges.memory(pid).rss for _, pid in self._pids())

    def _weigh(self) -> None:
        for id, pid in self._pids():
            exceeded = excess(self._vassal, self._gauges.memory(pid))
            if exceeded is None:
                self._light.add(id)
            elif exceeded.evil:
                self._evict(id, exceeded.why)
            elif id in self._light or self._has_served(id):
                self._when_old_enough(id, exceeded.why)
            elif not self._warned:
                # uWSGI weighs a worker when it has served: its successor would be no lighter.
                self._warned = True
                text = f"a worker that has served nothing is replaced for no memory: {exceeded.why}; raise it"
                self.journal.log("WARNING", text, self._now)

    def _has_served(self, id: str) -> bool:
        """Whether its last heartbeat said so."""
        return id in self._beats and self._beats[id].requests > 0

    def _pids(self) -> Iterable[tuple[str, int]]:
        children = ((id, self.child(id)) for id in self._workforce.serving)
        return [(id, child.life.pid) for id, child in children if child is not None]

    def _when_old_enough(self, id: str, why: str) -> None:
        """Retire it, but not before its ``min-worker-lifetime``."""
        if (ready_at := self._ready_at.get(id)) is not None:
            self._later(id, max(0.0, ready_at + self._vassal.min_worker_lifetime - self._now), why)

    def _later(self, id: str, seconds: float, why: str) -> None:
        child = self.child(id)
        if child is None:
            return
        if seconds > 0:
            self.after(seconds, _Retire(child.key, why))
        else:
            self._retire(id, why)

    def _retire(self, id: str, why: str) -> None:
        if id in self._workforce.serving and id not in self._workforce.worn:
            self._note(id, why)
            self._carry_on(self._workforce.retire(id))

    def _evict(self, id: str, why: str) -> None:
        self._note(id, why, "WARNING")
        self._carry_on(self._workforce.evict(id))

    def _note(self, id: str, why: str, level: str = "INFO") -> None:
        if child := self.child(id):
            self.journal.event(child.birth.actor, "retire", self._now, child.life.pid, why, level=level)

    def _carry_on(self, commands: Iterable[Command]) -> None:
        if self._disbanding:
            return
        for command in commands:
            match command:
                case Hire(id=id, index=index):
                    self.supervise(_WORKERS, StartChild(self._spec(id, index)))
                case Dismiss(id=id):
                    self.supervise(_WORKERS, TerminateChild(id))
                case Kill(id=id):
                    child = self.child(id)
                    self.supervise(_WORKERS, TerminateChild(id))
                    if child is not None:
                        self._live(child.key, StopAsked(0))

    def _spec(self, id: str, index: int) -> ChildSpec:
        beat = beat_of_worker(self._birth.beat, self._vassal.idle)
        if self._cheaper is not None:
            beat = min(beat, _LOOK / 2)
        birth = msgspec.structs.replace(self._birth, kind="worker", index=index, beat=beat)
        return ChildSpec(id, start=birth, shutdown=birth.mercy)
