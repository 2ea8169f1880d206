"""The master of one vassal: supervises its workers, beats to the Emperor, and never depends on a request."""

import math
import random
import signal
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pyemperor.actors.actor import System
from pyemperor.actors.clock import wall
from pyemperor.actors.crew import Crew, Gauges
from pyemperor.actors.host import Host, HostLost
from pyemperor.actors.journal import Journal
from pyemperor.actors.lifecycle import Said
from pyemperor.actors.overseer import Overseer
from pyemperor.actors.retinue import Retinue
from pyemperor.actors.superior import FromParent, ParentLost, Superior, Terminated, Upward
from pyemperor.protocol.messages import (
    Accepting,
    Attended,
    Birth,
    Extend,
    Idle,
    Message,
    NotReady,
    Office,
    Ready,
    Reloading,
    Renew,
    RenewWorkers,
    Stop,
)

#: sysexits.h: the workers died faster than the budget allows; the Emperor decides.
EX_TEMPFAIL = 75


@dataclass(frozen=True, slots=True)
class _NoMercy:
    """The mercy for a stop is over."""


class VassalMaster(Crew):
    """Ready when its first workers are; ends with its workers, or when they exceed their restart budget."""

    def __init__(
        self,
        system: System,
        host: Callable[[Overseer], Host],
        journal: Journal,
        birth: Birth,
        upward: Upward,
        chance: Callable[[], float] = random.random,
        gauges: Gauges = Gauges(),  # noqa: B008  # frozen
        clock: Callable[[], float] = wall,
    ) -> None:
        super().__init__(system, host, journal, birth, chance, gauges)
        self.exit_code = 0
        self._ready = False
        self._stopping = ""
        self._loyal = False
        self._superior = Superior(self, upward(self), birth.beat, self.count, self._finish, birth.mercy)
        journal.up = self._superior.link.send if birth.traced else None
        self._retinue = Retinue(self, self, birth, chance, clock)

    def on_start(self) -> None:
        self._retinue.prepare()

    def workers_may_start(self) -> None:
        """The hooks of the start have succeeded."""
        self.enlist()
        self._look_whether_ready()

    def handle(self, message: Any, now: float) -> Any:
        self._now = now
        match message:
            case Said():
                super().handle(message, now)
                return
            case Terminated(signal=signal.SIGHUP):
                self._superior.link.send(Renew())
                return
            case Terminated(signal=signal.SIGTSTP):
                self.pause()
                if self._ready:
                    self._superior.beat_now(now)
                return
            case FromParent(message=Stop()):
                self._retinue.run_phase("emperor-stop")
            case FromParent(message=Reloading()):
                self._retinue.run_phase("emperor-reload")
                return
            case ParentLost():
                self._retinue.run_phase("emperor-lost")
        if self._superior.take(message, now) or self._retinue.take(message):
            return
        match message:
            case FromParent(message=RenewWorkers(reason=reason)):
                self.renew_workers(reason)
            case FromParent(message=Office(), fds=fds):
                self.host.move(fds[0])
            case HostLost():
                self.journal.log("WARNING", "the fork server is gone; the Emperor will send another", now)
            case _NoMercy():
                self._retinue.hurry()
                self.kill_all()
            case _:
                super().handle(message, now)

    # ---- what children do -----------------------------------------------------------------------------------

    def child_enters(self, child: str) -> None:
        if self._retinue.owns(child):
            self._retinue.child_enters(child)

    def child_up(self, child: str) -> None:
        if self._retinue.owns(child):
            return
        super().child_up(child)
        if found := self.child(child):
            self._retinue.worker_up(found.birth.index)
        self._look_whether_ready()

    def _look_whether_ready(self) -> None:
        if not self._ready and not self._stopping and self.enlisted:
            self._ready = True
            self._superior.link.send(Ready())
            self._superior.start(self._now)
            self._retinue.serve()

    def child_said(self, child: str, message: Message) -> None:
        if self._retinue.owns(child):
            return
        if isinstance(message, Accepting) and not self._loyal:
            self._loyal = True
            self._superior.link.send(message)
        else:
            super().child_said(child, message)

    def child_down(self, child: str) -> None:
        if self._retinue.owns(child):
            self._retinue.child_down(child)
        else:
            super().child_down(child)

    def group_gone(self, group: str, reason: str) -> None:
        if self._retinue.owns(group):
            self._retinue.group_gone(group)
            return
        if not self._stopping:
            self.exit_code = EX_TEMPFAIL
            self._superior.link.send(NotReady(f"its workers keep failing: {reason}"))
            self.journal.log("ERROR", f"giving up, the workers keep failing: {reason}", self._now)
        self._retinue.dismiss()

    def idle(self) -> None:
        if self._birth.vassal.die_on_idle:
            self._superior.link.send(Idle())
        else:
            super().idle()

    # ---- the end ----------------------------------------------------------------------------------------------

    def _finish(self, mercy: float, why: str) -> None:
        if self._stopping:
            return
        self._stopping = why
        self.journal.log("DEBUG", f"{why}: stopping the workers", self._now)
        if mercy < math.inf:
            self.after(mercy, _NoMercy())
        self._retinue.rest()
        if not self.disband():
            self._retinue.dismiss()

    def give_up(self, why: str) -> None:
        """What the vassal cannot do without has failed: end, and have the Emperor decide."""
        if not self._stopping:
            self.exit_code = EX_TEMPFAIL
            self._superior.link.send(NotReady(why))
            self.journal.log("ERROR", f"giving up: {why}", self._now)
            self._finish(self._birth.mercy, "giving up")

    def report(self, message: Attended | Extend) -> None:
        """Have the Emperor know what the attendants do, and how long they may take."""
        self._superior.link.send(message)

    def retinue_gone(self) -> None:
        """Nobody is left."""
        self._superior.link.close()
        self.stop()
