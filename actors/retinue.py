"""The attendants of one vassal: which there are, and when. The master has one and tells it what happens.

The hooks of a start run first, and workers start when they have succeeded. Daemons live as long as the workers
and a little longer, so that a request that is being finished still finds them. Commands of cron and files to
watch are attended to once the vassal is ready. Each attendant is a group of its own, so that one that keeps
failing has its own back-off and budget, and harms nobody.
"""

import itertools
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import msgspec

from pyemperor.actors.overseer import Child, Overseer, flags
from pyemperor.actors.supervision import ChildSpec, ExitKind, Restart, Shutdown, Strategy, Supervisor
from pyemperor.protocol.control import AttendantReport
from pyemperor.protocol.cron import Crontab
from pyemperor.protocol.hooks import steps
from pyemperor.protocol.messages import Attended, Birth, Extend, State

_MINUTE = 60.0
#: Seconds by which a look at the clock comes after the minute has begun.
_AFTER = 0.02


@dataclass(frozen=True, slots=True)
class _Minute:
    """A minute has begun, if nobody has set the clock."""


class Master(Protocol):
    """What a retinue asks of its master."""

    def workers_may_start(self) -> None: ...
    def give_up(self, why: str) -> None: ...
    def report(self, message: Attended | Extend) -> None: ...
    def retinue_gone(self) -> None: ...


class Retinue:
    """The attendants of ``birth``'s vassal, as children of ``overseer``; ``wall`` is the clock on the wall."""

    def __init__(
        self,
        overseer: Overseer,
        master: Master,
        birth: Birth,
        chance: Callable[[], float],
        wall: Callable[[], float],
    ) -> None:
        self._overseer = overseer
        self._master = master
        self._birth = birth
        self._chance = chance
        self._wall = wall
        self._numbers = itertools.count(1)
        #: Groups of attendants that have not ended, with their births.
        self._groups: dict[str, Birth] = {}
        #: Of the hooks of a start, those that are still to run, and the one that does.
        self._start = deque(phase for phase in ("root", "user") if self._birth_of("hook", phase=phase).steps)
        self._starting = ""
        self._started = False
        self._ready = False
        self._leaving = False
        #: Whether all is done that is to be done.
        self._over = False
        self._first_worker = True
        self._once: set[int] = set()
        self._crontab: Crontab | None = None

    # ---- what the master tells --------------------------------------------------------------------------

    def prepare(self) -> None:
        """Run the hooks of the start; the workers may start when all have succeeded."""
        if self._leaving:
            return
        if not self._start:
            self._started = True
            if self._starting:
                self._master.report(Extend(self._birth.vassal.start_timeout))
            self._attach_daemons()
            self._master.workers_may_start()
            return
        phase = self._start.popleft()
        birth = self._birth_of("hook", phase=phase)
        vassal = birth.vassal
        self._master.report(Extend(len(birth.steps) * vassal.hook_timeout + vassal.start_timeout))
        self._starting = self._send(birth)

    def serve(self) -> None:
        """The vassal is ready."""
        if self._ready or self._leaving:
            return
        self._ready = True
        if self._birth.vassal.touches:
            self._keep("touch", self._birth_of("touch"))
        if self._birth.vassal.crons:
            self._crontab = Crontab(self._birth.vassal.crons, int(self._wall() // _MINUTE))
            self._await_minute()

    def worker_up(self, number: int) -> None:
        """The worker of this number, from 1, can serve."""
        phases = ["worker"]
        if number not in self._once:
            self._once.add(number)
            phases.append("worker-once")
        if number == 1:
            phases.append("first-worker")
            if self._first_worker:
                self._first_worker = False
                phases.append("first-worker-once")
        for phase in phases:
            self.run_phase(phase)

    def run_phase(self, phase: str) -> None:
        """Carry out the hooks of this phase, if the start has come that far."""
        if self._started and not self._over and steps(self._birth.vassal, phase):
            self._send(self._birth_of("hook", phase=phase))

    def rest(self) -> None:
        """The vassal is ending: nothing new is to be started."""
        self._start.clear()
        self._crontab = None

    def hurry(self) -> None:
        """There is no mercy any more: nothing is to be done at the end."""
        self._over = True

    def dismiss(self) -> None:
        """The workers are gone: end all attendants, then do what is to be done at the end."""
        if not self._leaving:
            self._leaving = True
            for group in list(self._groups):
                # What the Emperor's word has set off is to be carried out.
                if not self._groups[group].phase.startswith("emperor-"):
                    self._overseer.supervise(group, Shutdown())
            self._end_if_alone()

    def take(self, message: object) -> bool:
        """Handle ``message`` if it is the retinue's; say whether it was."""
        if isinstance(message, _Minute):
            self._look_at_the_clock()
            return True
        return False

    # ---- what the overseer tells ------------------------------------------------------------------------

    def owns(self, name: str) -> bool:
        """Whether a child, or a group, of this name is one of the attendants."""
        return name in self._groups

    @property
    def up(self) -> int:
        """How many attendants are there."""
        children = map(self._overseer.child, self._groups)
        return sum(child is not None and child.life.up for child in children)

    def child_enters(self, name: str) -> None:
        """An attendant has come to another state."""
        self._tell()

    def child_down(self, name: str) -> None:
        """An attendant has ended."""
        birth, child = self._groups[name], self._overseer.child(name)
        assert child is not None
        vassal, ended = birth.vassal, child.ended
        failed = ended.kind is not ExitKind.NORMAL and not self._leaving
        if birth.kind == "daemon" and vassal.daemons[birth.index - 1].control:
            self._overseer.supervise(name, Shutdown())
            if not self._leaving:
                self._master.give_up(f"its control daemon has ended: {ended.detail}")
        elif birth.kind in ("hook", "cron"):
            self._overseer.supervise(name, Shutdown())
            if name == self._starting and failed:
                self._start.clear()
                self._starting = ""
                self._master.give_up(ended.detail)

    def group_gone(self, group: str) -> None:
        """An attendant has ended for good."""
        del self._groups[group]
        self._tell()
        if self._leaving:
            self._end_if_alone()
        elif group == self._starting:
            self.prepare()

    def _tell(self) -> None:
        """Have the Emperor know who is there."""
        found = ((birth, self._overseer.child(name)) for name, birth in self._groups.items())
        self._master.report(Attended(tuple(_attending(birth, child) for birth, child in found if child)))

    # ---- attendants -------------------------------------------------------------------------------------

    def _birth_of(self, kind: str, *, index: int = 0, phase: str = "") -> Birth:
        return msgspec.structs.replace(self._birth, kind=kind, index=index, phase=phase)

    def _attach_daemons(self) -> None:
        for index in range(1, len(self._birth.vassal.daemons) + 1):
            self._keep(f"daemon/{index}", self._birth_of("daemon", index=index))

    def _send(self, birth: Birth) -> str:
        """Have something done once; the name of its group."""
        name = f"{birth.kind}/{birth.phase or birth.index}#{next(self._numbers)}"
        self._keep(name, birth)
        return name

    def _keep(self, name: str, birth: Birth) -> None:
        self._groups[name] = birth
        own = replace(flags(birth.vassal.supervision), strategy=Strategy.ONE_FOR_ONE, on_exceed="curse")
        spec = ChildSpec(name, start=birth, restart=Restart.PERMANENT, shutdown=birth.mercy)
        self._overseer.add_group(name, Supervisor(own, [spec], random=self._chance))

    def _end_if_alone(self) -> None:
        if self._groups:
            return
        self.run_phase("end")
        self._over = True
        if not self._groups:
            self._master.retinue_gone()

    # ---- cron -------------------------------------------------------------------------------------------

    def _await_minute(self) -> None:
        self._overseer.after(_MINUTE - self._wall() % _MINUTE + _AFTER, _Minute())

    def _look_at_the_clock(self) -> None:
        if self._crontab is None:
            return
        self._await_minute()
        crons = self._birth.vassal.crons
        for index in self._crontab.due(int(self._wall() // _MINUTE)):
            birth = self._birth_of("cron", index=index + 1)
            if crons[index].unique and birth in self._groups.values():
                text = f"{birth.actor}: still runs, and is not run twice at a time"
                self._overseer.journal.log("INFO", text, self._overseer.system.now())
            else:
                self._send(birth)


def _attending(birth: Birth, child: Child) -> AttendantReport:
    part = birth.phase or birth.index
    return AttendantReport(
        f"{birth.kind}/{part}" if part else birth.kind,
        child.state,
        child.life.pid if child.life.state != State.ABSENT else 0,
        child.reason,
        child.restarts,
    )
