"""The master of one vassal: supervises its workers, beats to the Emperor, and never depends on a request."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from signal import SIGHUP
from typing import Any

import msgspec

from pyemperor.actors.actor import System
from pyemperor.actors.detector import Lease
from pyemperor.actors.doorbell import Doorbell
from pyemperor.actors.host import Host, HostLost
from pyemperor.actors.journal import Journal
from pyemperor.actors.overseer import Overseer, flags
from pyemperor.actors.siesta import Siesta, beat_of_worker
from pyemperor.actors.superior import FromParent, Superior, Terminated, Upward
from pyemperor.actors.supervision import ChildSpec, RestartChild, Shutdown, Supervisor, TerminateChild
from pyemperor.protocol.messages import (
    Accepting,
    Beat,
    Birth,
    Core,
    Idle,
    Message,
    NotReady,
    Office,
    Ready,
    Renew,
    State,
)

_WORKERS = "workers"
#: sysexits.h: the workers died faster than the budget allows; the Emperor decides.
EX_TEMPFAIL = 75


@dataclass(frozen=True, slots=True)
class _NoMercy:
    """The mercy for a stop is over."""


@dataclass(frozen=True, slots=True)
class _Rung:
    """A connection waits, and the workers rest."""


@dataclass(frozen=True, slots=True)
class _Return:
    """A worker that rested too late has ended, and may start again."""

    worker: str


class VassalMaster(Overseer):
    """Ready when all its workers are; ends with its workers, or when they exceed their restart budget.

    ``doorbell`` rings at the vassal's sockets: workers that rest (``cheap``, ``idle``) start when it does.
    """

    def __init__(
        self,
        system: System,
        host: Callable[[Overseer], Host],
        journal: Journal,
        birth: Birth,
        upward: Upward,
        chance: Callable[[], float] = random.random,
        doorbell: Doorbell | None = None,
    ) -> None:
        super().__init__(system, host, journal, Lease(birth.tolerance, birth.probe), chance)
        self.exit_code = 0
        self._birth = birth
        self._ready = False
        self._stopping = ""
        self._loyal = False
        self._beats: dict[str, Beat] = {}
        self._doorbell = doorbell
        self._siesta = Siesta(birth.vassal.idle, self._now)
        self._resting = False
        #: Workers that are wanted again, and have not ended yet.
        self._returning: set[str] = set()
        self._superior = Superior(
            self, upward(self), birth.beat, self._report_beat, self._finish, birth.mercy
        )
        journal.up = self._superior.link.send if birth.traced else None

    def on_start(self) -> None:
        if self._birth.vassal.cheap and self._doorbell is not None:
            self._is_ready()
            self._rest("no worker before the first connection")
        else:
            self._start_workers()

    def _start_workers(self) -> None:
        vassal = self._birth.vassal
        settings = self._birth.vassal.supervision
        # Real escalation, as in OTP: a master whose workers keep dying gives up, and the Emperor takes over.
        budget = max(settings.intensity, 2 * vassal.processes)
        worker_flags = flags(settings)
        # Workers that are strangers to each other need not wait for each other, neither to start nor to stop.
        worker_flags = replace(
            worker_flags, on_exceed="escalate", intensity=budget, parallel=not worker_flags.grouped
        )
        beat = beat_of_worker(self._birth.beat, vassal.idle)
        births = [
            msgspec.structs.replace(self._birth, kind="worker", index=index, beat=beat)
            for index in range(1, vassal.processes + 1)
        ]
        specs = [ChildSpec(str(birth.index), start=birth, shutdown=birth.mercy) for birth in births]
        self.add_group(_WORKERS, Supervisor(worker_flags, specs, random=self._chance))

    def handle(self, message: Any, now: float) -> Any:
        self._now = now
        if message == Terminated(SIGHUP):
            self._superior.link.send(Renew())
            return
        if self._superior.take(message, now):
            return
        match message:
            case FromParent(message=Office(), fds=fds):
                self.host.move(fds[0])
            case HostLost():
                self.journal.log("WARNING", "the fork server is gone; the Emperor will send another", now)
            case _NoMercy():
                self.kill_all()
            case _Rung():
                self._wake()
            case _Return(worker=worker):
                self.supervise(_WORKERS, RestartChild(worker))
            case _:
                super().handle(message, now)

    def child_up(self, child: str) -> None:
        if not self._ready and not self._stopping and self.children_up == self._birth.vassal.processes:
            self._is_ready()

    def _is_ready(self) -> None:
        self._ready = True
        self._siesta.woken(self._now)
        self._superior.link.send(Ready())
        self._superior.start(self._now)

    def child_said(self, child: str, message: Message) -> None:
        if isinstance(message, Beat):
            self._beats[child] = message
            self._siesta.heard(child, message, self._now)
            self._look_whether_idle()
        elif isinstance(message, Accepting) and not self._loyal:
            self._loyal = True
            self._superior.link.send(message)

    def child_down(self, child: str) -> None:
        self._beats.pop(child, None)
        if child in self._returning:
            self._returning.discard(child)
            self.after(0, _Return(child))  # when its supervisor knows as well

    # ---- without workers --------------------------------------------------------------------------------

    def _look_whether_idle(self) -> None:
        if self._resting or self._stopping or not self._ready or not self._siesta.due(self._now):
            return
        idle = self._birth.vassal.idle
        if self._birth.vassal.die_on_idle:
            self._superior.link.send(Idle())
        elif self._doorbell is not None:
            self._returning.clear()
            for worker in self._workers:
                self.supervise(_WORKERS, TerminateChild(worker))
            self._rest(f"nobody has asked for anything for {idle:g} s: no worker until somebody does")

    def _rest(self, why: str) -> None:
        assert self._doorbell is not None
        self._resting = True
        self.journal.log("INFO", why, self._now, event="rest")
        self._doorbell.watch(self.actor_inbox, _Rung())

    def _rise(self) -> None:
        if self._resting and self._doorbell is not None:
            self._resting = False
            self._doorbell.unwatch(self.actor_inbox)

    def _wake(self) -> None:
        """Start the workers; of those that still end, another as soon as they have."""
        if not self._resting or self._stopping:
            return
        self._rise()
        self._siesta.woken(self._now)
        if _WORKERS not in self.groups:
            self._start_workers()
            return
        for worker in self._workers:
            child = self.child(worker)
            if child is not None and child.life.state is not State.ABSENT:
                self._returning.add(worker)
            else:
                self.supervise(_WORKERS, RestartChild(worker))

    @property
    def _workers(self) -> list[str]:
        return [str(index) for index in range(1, self._birth.vassal.processes + 1)]

    # ---- towards the Emperor --------------------------------------------------------------------------------

    def _report_beat(self, seq: int, now: float) -> Beat:
        beats = self._beats.values()
        cores: tuple[Core, ...] = tuple(core for beat in beats for core in beat.cores)
        return Beat(seq, now, self.children_up, sum(beat.requests for beat in beats), cores)

    def _finish(self, mercy: float, why: str) -> None:
        if self._stopping:
            return
        self._stopping = why
        self.journal.log("DEBUG", f"{why}: stopping the workers", self._now)
        if mercy < math.inf:
            self.after(mercy, _NoMercy())
        self._rise()
        if _WORKERS in self.groups:
            self.supervise(_WORKERS, Shutdown())
        else:
            self.group_gone(_WORKERS, why)

    def group_gone(self, group: str, reason: str) -> None:
        if not self._stopping:
            self.exit_code = EX_TEMPFAIL
            self._superior.link.send(NotReady(f"its workers keep failing: {reason}"))
            self.journal.log("ERROR", f"giving up, the workers keep failing: {reason}", self._now)
        self._superior.link.close()
        self.stop()
