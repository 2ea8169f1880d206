"""An attendant: a process beside the workers that runs programs for its vassal, and does nothing else.

It is one of three: an *errand* carries out steps one after the other and ends (hooks, cron), a *service* keeps one
program running (daemons), a *watch* has an errand for each file that is touched. Its master starts, restarts and
judges it as it does with a worker. So a hung program hangs nobody, and one that forks, whatever it hides behind,
stays below its attendant, a child subreaper: what is left when that ends is killed.
"""

import math
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec

from pyemperor.actors.actor import Actor, System
from pyemperor.actors.journal import Journal
from pyemperor.actors.program import ProgramEnded
from pyemperor.actors.superior import Superior, Upward
from pyemperor.protocol.daemons import Daemon
from pyemperor.protocol.hooks import Step
from pyemperor.protocol.messages import Beat, Birth, NotReady, Ready

_SIGTERM, _SIGKILL = 15, 9
#: Seconds between two looks: for a pidfile or for who is left, and for files that are touched.
_LOOK, _TOUCH = 0.05, 1.0
#: Seconds for a program that goes to the background to write its pidfile.
_PIDFILE = 10.0


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
class _Late:
    """The limit of the step of this number is over."""

    number: int


@dataclass(frozen=True, slots=True)
class _Look:
    """Time to look: for a pidfile, until ``until``."""

    until: float = math.inf


@dataclass(frozen=True, slots=True)
class _TouchDue:
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
            self.after(_LOOK, _Leaving(until))


class Errand(Attendant):
    """Carries out ``steps`` in order, each within ``limit`` seconds (0: none); ends with the first that fails."""

    def __init__(self, *args: Any, steps: Iterable[Step], limit: float) -> None:
        super().__init__(*args)
        self._steps = deque(steps)
        self._limit = limit
        self._step: Step | None = None
        self._number = 0
        self._overdue = False

    def begin_work(self) -> None:
        self._next()

    def _next(self) -> None:
        while self._steps:
            step = self._step = self._steps.popleft()
            self._number += 1
            self.log("INFO", f"running {step}")
            runs = step.verb in ("exec", "safeexec", "program")
            why = self.run(self._argv(step)) if runs else self._perform(step)
            if not self._go_on(step, why):
                return
            if runs and not why:
                self._overdue = False
                if self._limit:
                    self.after(self._limit, _Late(self._number))
                return
        self.done()

    def _go_on(self, step: Step, why: str) -> bool:
        """Whether what went wrong with a step, "" for nothing, lets the next one be carried out."""
        if why and step.verb not in ("safeexec", "program"):
            self.fail(f"{step}: {why}")
            return False
        if why:
            self.log("WARNING", f"{step}: {why}")
        return True

    def done(self) -> None:
        """All steps have been carried out."""
        self.leave(0)

    def _argv(self, step: Step) -> list[str]:
        if step.verb == "program":
            return [step.argument, self.birth.vassal.name]
        return ["/bin/sh", "-c", step.argument]

    def _perform(self, step: Step) -> str:
        """Do what needs no program; the value is what went wrong."""
        match step.verb:
            case "print":
                self.log("INFO", step.argument)
            case "exit":
                return "it ends the start"
            case "unix_signal":
                self.log("DEBUG", f"{step}: it is always so")
            case _:
                try:
                    self.hands.perform(step)
                except OSError as error:
                    return error.strerror or str(error)
        return ""

    def ended(self, pid: int, how: str) -> None:
        assert self._step is not None
        if self._overdue:
            how = f"it did not end within {self._limit:g} s"
        if self._go_on(self._step, how):
            self._next()

    def work(self, message: Any) -> None:
        if isinstance(message, _Late) and message.number == self._number and self.pid:
            self._overdue = True
            self.hands.signal(self.pid, _SIGKILL)


class Watch(Errand):
    """Looks at the files of the vassal's ``hook-touch`` and ``touch-exec``, and does what is to be done."""

    def __init__(self, *args: Any, **errand: Any) -> None:
        super().__init__(*args, **errand)
        touches = self.birth.vassal.touches
        self._stamps = {touch.file: self.hands.stamp(touch.file) for touch in touches}

    def begin_work(self) -> None:
        self.after(_TOUCH, _TouchDue())

    def done(self) -> None:
        """Wait for the next file that is touched."""

    def fail(self, why: str) -> None:
        """Log it, and go on with the others."""
        self.log("ERROR", why)
        self._next()

    def work(self, message: Any) -> None:
        if isinstance(message, _TouchDue):
            self.after(_TOUCH, _TouchDue())
            self._look()
        else:
            super().work(message)

    def _look(self) -> None:
        touched = set()
        for file, before in self._stamps.items():
            stamp = self._stamps[file] = self.hands.stamp(file)
            if stamp != before:
                touched.add(file)
        for touch in self.birth.vassal.touches:
            if touch.file in touched:
                self._steps.append(msgspec.structs.replace(touch.step, option=f"touched {touch.file}"))
        if not self.pid:
            self._next()


class Service(Attendant):
    """Keeps one program running, and ends with it."""

    def __init__(self, *args: Any, daemon: Daemon) -> None:
        super().__init__(*args)
        self._daemon = daemon
        #: Whether it belongs to somebody else: then it is waited for, and left alone.
        self._foreign = False
        self._stamps = {file: self.hands.stamp(file) for file in daemon.touch}

    def begin_work(self) -> None:
        if self._stamps:
            self.after(_TOUCH, _TouchDue())
        self._start()

    def _start(self) -> None:
        daemon = self._daemon
        if daemon.pidfile and (pid := self.hands.pid_in(daemon.pidfile)) and self._follow(pid):
            self._foreign = True
            self.log("INFO", f"{daemon.command}: runs already, says {daemon.pidfile}: pid {pid}")
            return
        self._foreign = False
        if why := self.run(["/bin/sh", "-c", daemon.command], daemon.chdir):
            self.fail(f"{daemon.command}: {why}")
            return
        self.log("INFO", f"{daemon.command}: started, pid {self.pid}")
        if daemon.pidfile and daemon.foreground:
            try:
                self.hands.write_pid(daemon.pidfile, self.pid)
            except OSError as error:
                self.fail(f"{daemon.pidfile}: {error.strerror}")

    def _follow(self, pid: int) -> bool:
        try:
            self.hands.follow(pid)
        except ProcessLookupError:
            return False
        self.pid = pid
        return True

    def ended(self, pid: int, how: str) -> None:
        daemon = self._daemon
        if self._foreign:
            self._start()
        elif daemon.pidfile and not daemon.foreground and not how:
            self._find(self._now + _PIDFILE)
        else:
            self.fail(f"{daemon.command}: {how or 'exit code 0'}{self._advice(how)}")

    def _advice(self, how: str) -> str:
        if how or self._daemon.pidfile or not self.hands.left():
            return ""
        return "; it went to the background: tell it to stay, or use smart-attach-daemon"

    def _find(self, until: float) -> None:
        """The program has gone to the background: its pidfile says which process it is now."""
        pidfile = self._daemon.pidfile
        if (pid := self.hands.pid_in(pidfile)) and self._follow(pid):
            self.log("INFO", f"{self._daemon.command}: runs in the background, pid {pid}")
        elif self._now < until:
            self.after(_LOOK, _Look(until))
        else:
            self.fail(f"{self._daemon.command}: it ended, and {pidfile} names no process that lives")

    def work(self, message: Any) -> None:
        match message:
            case _Look(until=until):
                self._find(until)
            case _TouchDue():
                self.after(_TOUCH, _TouchDue())
                self._look()

    def _look(self) -> None:
        stamps = {file: self.hands.stamp(file) for file in self._stamps}
        touched = [file for file, stamp in stamps.items() if stamp != self._stamps[file]]
        self._stamps = stamps
        if touched and self.pid and not self._foreign:
            self.log("INFO", f"{touched[0]} was touched: ending pid {self.pid}, to be started again")
            self.hands.signal(self.pid, self._daemon.reload_signal or self._daemon.stop_signal)

    def stop_program(self) -> None:
        if self._foreign:
            self.pid = 0
        else:
            self.hands.signal(self.pid, self._daemon.stop_signal)


def new_attendant(
    system: System, journal: Journal, birth: Birth, upward: Upward, hands: Callable[[Actor], Hands]
) -> Attendant:
    """Make the attendant that ``birth`` describes."""
    vassal = birth.vassal
    common = (system, journal, birth, upward, hands)
    match birth.kind:
        case "daemon":
            return Service(*common, daemon=vassal.daemons[birth.index - 1])
        case "cron":
            cron = vassal.crons[birth.index - 1]
            limit = vassal.cron_harakiri if cron.harakiri is None else cron.harakiri
            return Errand(*common, steps=[Step("exec", cron.command, option="cron")], limit=limit)
        case "touch":
            return Watch(*common, steps=(), limit=vassal.hook_timeout)
    return Errand(*common, steps=birth.steps, limit=vassal.hook_timeout)
