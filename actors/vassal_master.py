"""The master of one vassal: supervises its workers, beats to the Emperor, and never depends on a request."""

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from signal import SIGHUP
from typing import Any

from pyemperor.actors.actor import System
from pyemperor.actors.crew import Crew, Gauges
from pyemperor.actors.host import Host, HostLost
from pyemperor.actors.journal import Journal
from pyemperor.actors.overseer import Overseer
from pyemperor.actors.superior import FromParent, Superior, Terminated, Upward
from pyemperor.protocol.messages import (
    Accepting,
    Birth,
    Idle,
    Message,
    NotReady,
    Office,
    Ready,
    Renew,
    RenewWorkers,
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
    ) -> None:
        super().__init__(system, host, journal, birth, chance, gauges)
        self.exit_code = 0
        self._ready = False
        self._stopping = ""
        self._loyal = False
        self._superior = Superior(self, upward(self), birth.beat, self.count, self._finish, birth.mercy)
        journal.up = self._superior.link.send if birth.traced else None

    def on_start(self) -> None:
        self.enlist()
        self._look_whether_ready()

    def handle(self, message: Any, now: float) -> Any:
        self._now = now
        if message == Terminated(SIGHUP):
            self._superior.link.send(Renew())
            return
        if self._superior.take(message, now):
            return
        match message:
            case FromParent(message=RenewWorkers(reason=reason)):
                self.renew_workers(reason)
            case FromParent(message=Office(), fds=fds):
                self.host.move(fds[0])
            case HostLost():
                self.journal.log("WARNING", "the fork server is gone; the Emperor will send another", now)
            case _NoMercy():
                self.kill_all()
            case _:
                super().handle(message, now)

    def child_up(self, child: str) -> None:
        super().child_up(child)
        self._look_whether_ready()

    def _look_whether_ready(self) -> None:
        if not self._ready and not self._stopping and self.enlisted:
            self._ready = True
            self._superior.link.send(Ready())
            self._superior.start(self._now)

    def child_said(self, child: str, message: Message) -> None:
        if isinstance(message, Accepting) and not self._loyal:
            self._loyal = True
            self._superior.link.send(message)
        else:
            super().child_said(child, message)

    def idle(self) -> None:
        if self._birth.vassal.die_on_idle:
            self._superior.link.send(Idle())
        else:
            super().idle()

    def _finish(self, mercy: float, why: str) -> None:
        if self._stopping:
            return
        self._stopping = why
        self.journal.log("DEBUG", f"{why}: stopping the workers", self._now)
        if mercy < math.inf:
            self.after(mercy, _NoMercy())
        self.disband()

    def group_gone(self, group: str, reason: str) -> None:
        if not self._stopping:
            self.exit_code = EX_TEMPFAIL
            self._superior.link.send(NotReady(f"its workers keep failing: {reason}"))
            self.journal.log("ERROR", f"giving up, the workers keep failing: {reason}", self._now)
        self._superior.link.close()
        self.stop()
