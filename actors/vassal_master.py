"""The master of one vassal: supervises its workers, beats to the Emperor, and never depends on a request."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from signal import SIGHUP
from typing import Any

import msgspec

from pyemperor.actors.actor import System
from pyemperor.actors.clock import wall
from pyemperor.actors.detector import Lease
from pyemperor.actors.host import Host, HostLost
from pyemperor.actors.journal import Journal
from pyemperor.actors.overseer import Overseer, flags
from pyemperor.actors.retinue import Retinue
from pyemperor.actors.superior import FromParent, ParentLost, Superior, Terminated, Upward
from pyemperor.actors.supervision import ChildSpec, Shutdown, Supervisor
from pyemperor.protocol.messages import (
    Accepting,
    Beat,
    Birth,
    Core,
    Extend,
    Message,
    NotReady,
    Office,
    Ready,
    Renew,
    Stop,
)

_WORKERS = "workers"
#: sysexits.h: the workers died faster than the budget allows; the Emperor decides.
EX_TEMPFAIL = 75


@dataclass(frozen=True, slots=True)
class _NoMercy:
    """The mercy for a stop is over."""


class VassalMaster(Overseer):
    """Ready when all its workers are; ends with its workers, or when they exceed their restart budget."""

    def __init__(
        self,
        system: System,
        host: Callable[[Overseer], Host],
        journal: Journal,
        birth: Birth,
        upward: Upward,
        chance: Callable[[], float] = random.random,
        clock: Callable[[], float] = wall,
    ) -> None:
        super().__init__(system, host, journal, Lease(birth.tolerance, birth.probe), chance)
        self.exit_code = 0
        self._birth = birth
        self._ready = False
        self._stopping = ""
        self._loyal = False
        self._beats: dict[str, Beat] = {}
        self._superior = Superior(
            self, upward(self), birth.beat, self._report_beat, self._finish, birth.mercy
        )
        journal.up = self._superior.link.send if birth.traced else None
        self._retinue = Retinue(self, self, birth, chance, clock)

    def on_start(self) -> None:
        self._retinue.prepare()

    def workers_may_start(self) -> None:
        """The hooks of the start have succeeded."""
        vassal = self._birth.vassal
        settings = self._birth.vassal.supervision
        # Real escalation, as in OTP: a master whose workers keep dying gives up, and the Emperor takes over.
        budget = max(settings.intensity, 2 * vassal.processes)
        worker_flags = flags(settings)
        # Workers that are strangers to each other need not wait for each other, neither to start nor to stop.
        worker_flags = replace(
            worker_flags, on_exceed="escalate", intensity=budget, parallel=not worker_flags.grouped
        )
        births = [
            msgspec.structs.replace(self._birth, kind="worker", index=index)
            for index in range(1, vassal.processes + 1)
        ]
        specs = [ChildSpec(str(birth.index), start=birth, shutdown=birth.mercy) for birth in births]
        self.add_group(_WORKERS, Supervisor(worker_flags, specs, random=self._chance))

    def handle(self, message: Any, now: float) -> Any:
        self._now = now
        if message == Terminated(SIGHUP):
            self._superior.link.send(Renew())
            return
        match message:
            case FromParent(message=Stop()):
                self._retinue.run_phase("emperor-stop")
            case ParentLost():
                self._retinue.run_phase("emperor-lost")
        if self._superior.take(message, now) or self._retinue.take(message):
            return
        match message:
            case FromParent(message=Office(), fds=fds):
                self.host.move(fds[0])
            case HostLost():
                self.journal.log("WARNING", "the fork server is gone; the Emperor will send another", now)
            case _NoMercy():
                self._retinue.hurry()
                self.kill_all()
            case _:
                super().handle(message, now)

    @property
    def _workers_up(self) -> int:
        return self.children_up - self._retinue.up

    def child_up(self, child: str) -> None:
        if self._retinue.owns(child):
            return
        self._retinue.worker_up(child)
        if not self._ready and not self._stopping and self._workers_up == self._birth.vassal.processes:
            self._ready = True
            self._superior.link.send(Ready())
            self._superior.start(self._now)
            self._retinue.serve()

    def child_said(self, child: str, message: Message) -> None:
        if self._retinue.owns(child):
            return
        if isinstance(message, Beat):
            self._beats[child] = message
        elif isinstance(message, Accepting) and not self._loyal:
            self._loyal = True
            self._superior.link.send(message)

    def child_down(self, child: str) -> None:
        self._beats.pop(child, None)
        if self._retinue.owns(child):
            self._retinue.child_down(child)

    def _report_beat(self, seq: int, now: float) -> Beat:
        beats = self._beats.values()
        cores: tuple[Core, ...] = tuple(core for beat in beats for core in beat.cores)
        return Beat(seq, now, self._workers_up, sum(beat.requests for beat in beats), cores)

    def _finish(self, mercy: float, why: str) -> None:
        if self._stopping:
            return
        self._stopping = why
        self.journal.log("DEBUG", f"{why}: stopping the workers", self._now)
        if mercy < math.inf:
            self.after(mercy, _NoMercy())
        self._retinue.rest()
        if _WORKERS in self.groups:
            self.supervise(_WORKERS, Shutdown())
        else:
            self._retinue.dismiss()

    def give_up(self, why: str) -> None:
        """What the vassal cannot do without has failed: end, and have the Emperor decide."""
        if not self._stopping:
            self.exit_code = EX_TEMPFAIL
            self._superior.link.send(NotReady(why))
            self.journal.log("ERROR", f"giving up: {why}", self._now)
            self._finish(self._birth.mercy, "giving up")

    def extend(self, message: Extend) -> None:
        """A hook of the start may take so long."""
        self._superior.link.send(message)

    def group_gone(self, group: str, reason: str) -> None:
        if self._retinue.owns(group):
            self._retinue.group_gone(group)
            return
        if not self._stopping:
            self.exit_code = EX_TEMPFAIL
            self._superior.link.send(NotReady(f"its workers keep failing: {reason}"))
            self.journal.log("ERROR", f"giving up, the workers keep failing: {reason}", self._now)
        self._retinue.dismiss()

    def retinue_gone(self) -> None:
        """Nobody is left."""
        self._superior.link.close()
        self.stop()
