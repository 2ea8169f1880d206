"""An attendant: a process beside the workers that runs programs for its vassal, and does nothing else.

It is one of three: an *errand* carries out steps one after the other and ends (hooks, cron), a *service* keeps one
program running (daemons), a *watch* has an errand for each file that is touched. Its master starts, restarts and
judges it as it does with a worker. So a hung program hangs nobody, and one that forks, whatever it hides behind,
stays below its attendant, a child subreaper: what is left when that ends is killed.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from pyemperor.actors.actor import Actor, System
from pyemperor.actors.journal import Journal
from pyemperor.actors.program import ProgramEnded
from pyemperor.actors.superior import Superior, Upward
from pyemperor.protocol.hooks import Step
from pyemperor.protocol.messages import Beat, Birth, NotReady, Ready

_SIGTERM = 15
#: Seconds between two looks: for a pidfile or for who is left, and for files that are touched.
LOOK, TOUCH = 0.05, 1.0


class Hands(Protocol):
    """What an attendant does to the machine (``program.Hands``, or simulated ones)."""

    def run(self, argv: list[str], directory: str = "") -> int: ...
    def follow(self, pid: int) -> None: ...
    def signal(self, pid: int, number: int) -> None: ...
    def left(self) -> bool: ...
    def bury(self, running: int) -> None: ...
    def pid_in(self, pidfile: str) -> int: ...
    def write_pid(self, pidfile: str, pid: int) -> None: ...
    def stamp(self, file: str) -> tuple[int, int]: ...
    def perform(self, step: Step) -> None: ...


@dataclass(frozen=True, slots=True)
class TouchDue:
    """Time to look at the files that may be touched."""


@dataclass(frozen=True, slots=True)
class _Leaving:
    """Time to see who is left, until ``until``."""

    until: float


class Attendant(Actor):
    """Base of the three: one program at a time, heard and asked to end like any other process of the tree."""

    def __init__(
        self, system: System, journal: Journal, birth: Birth, upward: Upward, hands: Callable[[Actor], Hands]
    ) -> None:
        super().__init__(system)
        self.exit_code = 0
        self.journal = journal
        self.birth = birth
        self.hands = hands(self)
        #: The program that runs; 0: none.
        self.pid = 0
        self._now = system.now()
        self._stopping = False
        self._left = False
        self._superior = Superior(self, upward(self), birth.beat, self._beat, self._finish, birth.mercy)
        journal.up = self._superior.link.send if birth.traced else None

    def on_start(self) -> None:
        self._superior.link.send(Ready())
        self._superior.start(self._now)
        self.begin_work()

    def handle(self, message: Any, now: float) -> None:
        self._now = now
        if self._left or self._superior.take(message, now):
            return
        match message:
            case ProgramEnded(pid=pid, how=how) if pid == self.pid:
                self.pid = 0
                if self._stopping:
                    self._see_who_is_left(now)
                else:
                    self.ended(pid, how)
            case _Leaving(until=until):
                self._see_who_is_left(until)
            case _:
                if not self._stopping:
                    self.work(message)

    # ---- for the three ----------------------------------------------------------------------------------

    def begin_work(self) -> None:
        """Do the first thing."""
        raise NotImplementedError

    def ended(self, pid: int, how: str) -> None:
        """The program has ended unasked, ``how`` in words; "" for exit code 0."""

    def work(self, message: Any) -> None:
        """Handle what is neither an order nor the end of a program."""

    def stop_program(self) -> None:
        """Ask the program to end."""
        self.hands.signal(self.pid, _SIGTERM)

    def log(self, level: str, text: str) -> None:
        """Log, as this attendant."""
        self.journal.log(level, text, self._now)

    def run(self, argv: list[str], directory: str = "") -> str:
        """Run a program; the value is why it cannot be started, "" when it was."""
        try:
            self.pid = self.hands.run(argv, directory)
        except OSError as error:
            where = f"{error.filename}: " if error.filename else ""
            return f"{where}{error.strerror}"
        return ""

    def fail(self, why: str) -> None:
        """Tell the master why this cannot go on, and end."""
        self._superior.link.send(NotReady(why))
        self.leave(1)

    def leave(self, code: int) -> None:
        """End; what is left below is killed by whoever inherits it."""
        self._left = True
        self.exit_code = code
        self._superior.link.close()
        self.stop()

    # ---- towards the master -----------------------------------------------------------------------------

    def _beat(self, seq: int, now: float) -> Beat:
        self.hands.bury(self.pid)
        return Beat(seq, now)

    def _finish(self, mercy: float, why: str) -> None:
        if self._stopping or self._left:
            return
        self._stopping = True
        until = self._now + mercy
        if self.pid:
            self.stop_program()
        self.after(mercy, _Leaving(until))
        if not self.pid:
            self._see_who_is_left(until)

    def _see_who_is_left(self, until: float) -> None:
        """End when nobody is left below, or it is time."""
        if self._now >= until or not self.hands.left():
            self.leave(0)
        elif not self.pid:
            self.after(LOOK, _Leaving(until))
