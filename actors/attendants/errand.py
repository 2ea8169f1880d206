"""Attendants that carry out steps, one after the other: hooks, commands of cron, what a touched file sets off."""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from pyemperor.actors.attendants.attendant import TOUCH, Attendant, TouchDue
from pyemperor.protocol.hooks import Step

_SIGKILL = 9


@dataclass(frozen=True, slots=True)
class _Late:
    """The limit of the step of this number is over."""

    number: int


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
        self.after(TOUCH, TouchDue())

    def done(self) -> None:
        """Wait for the next file that is touched."""

    def fail(self, why: str) -> None:
        """Log it, and go on with the others."""
        self.log("ERROR", why)
        self._next()

    def work(self, message: Any) -> None:
        if isinstance(message, TouchDue):
            self.after(TOUCH, TouchDue())
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
