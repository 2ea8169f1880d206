"""An attendant that keeps one program running: a daemon beside the workers."""

from dataclasses import dataclass
from typing import Any

from pyemperor.actors.attendants.attendant import LOOK, TOUCH, Attendant, TouchDue
from pyemperor.protocol.daemons import Daemon

#: Seconds for a program that goes to the background to write its pidfile.
_PIDFILE = 10.0


@dataclass(frozen=True, slots=True)
class _Look:
    """Time to look: for a pidfile, until ``until``."""

    until: float


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
            self.after(TOUCH, TouchDue())
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
            self.after(LOOK, _Look(until))
        else:
            self.fail(f"{self._daemon.command}: it ended, and {pidfile} names no process that lives")

    def work(self, message: Any) -> None:
        match message:
            case _Look(until=until):
                self._find(until)
            case TouchDue():
                self.after(TOUCH, TouchDue())
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
