"""When and whom the faults of a scenario hit. Pure: the same in real and in simulated time."""

import signal
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from pyemperor.protocol.fault import Fault
from pyemperor.protocol.messages import Inject, State, Trace
from pyemperor.protocol.patterns import Target

#: Seconds between two looks for a script to hit: scripts are in no trace.
_LOOK = 0.01


@dataclass(frozen=True, slots=True)
class Strike:
    """Inject the fault ``id`` for the ``number``-th time, from 0."""

    id: str
    number: int = 0


@dataclass(frozen=True, slots=True)
class Heal:
    """Take back what the ``number``-th injection of ``id`` did, to these processes."""

    id: str
    number: int
    victims: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Later:
    """Come back with ``due`` at ``at``."""

    at: float
    due: Strike | Heal


@dataclass(frozen=True, slots=True)
class Signal:
    """Send the signal ``number`` to process ``pid``, which is ``actor``."""

    actor: str
    pid: int
    number: int


@dataclass(frozen=True, slots=True)
class Send:
    """Send an order down the tree."""

    inject: Inject


@dataclass(frozen=True, slots=True)
class Note:
    """Put an entry into the timeline."""

    trace: Trace


Command = Later | Signal | Send | Note


class Census:
    """Who lives, by what the traces say. ``scripts`` gives the pids of the scripts that a worker runs now."""

    def __init__(self, scripts: Callable[[int], Iterable[int]]) -> None:
        self._scripts = scripts
        self._pids: dict[str, int] = {}

    def hear(self, trace: Trace) -> None:
        """Take in an entry of the timeline."""
        if trace.event == "exit" or trace.state == State.ABSENT:
            self._pids.pop(trace.actor, None)
            if trace.actor.startswith("master:"):
                # Its workers end on their own, and nobody is left to report it.
                family = trace.actor.replace("master:", "worker:") + "/"
                self._pids = {actor: pid for actor, pid in self._pids.items() if not actor.startswith(family)}
        elif trace.pid and trace.event in ("state", "start", "restart"):
            self._pids[trace.actor] = trace.pid

    def find(self, target: Target) -> tuple[tuple[str, int], ...]:
        """Address and pid of every living process that ``target`` means."""
        if target.kind == "cgi":
            workers = self.find(Target(f"worker:{target.name}/{target.index}", "worker"))
            return tuple((target.text, script) for _, pid in workers for script in self._scripts(pid))
        return tuple((actor, pid) for actor, pid in self._pids.items() if target.matches(actor))


class Havoc:
    """All faults of a scenario. A fault whose target does not live waits until it does."""

    def __init__(self, faults: Iterable[Fault], census: Census) -> None:
        self._faults = {fault.id: fault for fault in faults}
        self._census = census
        self._planned: set[Strike] = set()
        self._waiting: list[Strike] = []
        self._triggered: set[str] = set()
        self._struck: set[str] = set()
        self._wounds: dict[tuple[str, int], Heal] = {}

    @property
    def over(self) -> bool:
        """Whether no fault is to come that does not wait for an event, or for its target."""
        return not self._planned and not any(self._faults[heal.id].duration for heal in self._wounds.values())

    @property
    def never(self) -> list[str]:
        """The ids of faults that were not injected, in the order of the file."""
        return [fault for fault in self._faults if fault not in self._struck]

    def struck(self, kind: str, target: Literal["emperor", "fork-server"]) -> bool:
        """Whether such a fault was injected."""
        faults = (self._faults[fault] for fault in self._struck)
        return any(fault.kind == kind and fault.target.kind == target for fault in faults)

    def begin(self, now: float) -> list[Command]:
        """The steady state has begun."""
        return [
            self._plan(now + fault.at, Strike(fault.id))
            for fault in self._faults.values()
            if fault.at is not None
        ]

    def hear(self, trace: Trace, now: float) -> list[Command]:
        """An entry of the timeline: it may be what a fault waits for, or its target come to life."""
        commands: list[Command] = []
        for fault in self._faults.values():
            if fault.on is not None and fault.id not in self._triggered and fault.on.matches(trace):
                self._triggered.add(fault.id)
                commands += self.strike(Strike(fault.id), now)
        if trace.event in ("state", "start", "restart") and self._waiting:
            waiting, self._waiting = self._waiting, []
            for strike in waiting:
                commands += self.strike(strike, now)
        return commands

    def strike(self, strike: Strike, now: float) -> list[Command]:
        """Inject a fault now, or as soon as its target lives."""
        fault = self._faults[strike.id]
        self._planned.discard(strike)
        victims = () if fault.target.kind == "link" else self._census.find(fault.target)
        if not victims and fault.target.kind == "cgi":
            return [Later(now + _LOOK, strike)]
        if not victims and fault.target.kind != "link":
            self._waiting.append(strike)
            return []
        first = strike.id not in self._struck
        self._struck.add(strike.id)
        pid = victims[0][1] if len(victims) == 1 else 0
        whom = ", ".join(dict(victims)) or fault.target.text
        trace = Trace(now, f"fault:{fault.id}", "fault", fault.kind, pid, _words(fault, whom))
        commands: list[Command] = [Note(trace)]
        commands += _blow(fault, victims)
        commands += self._then(fault, strike, victims, now)
        if first:
            commands += [
                self._plan(now + other.after.offset, Strike(other.id))
                for other in self._faults.values()
                if other.after is not None and other.after.fault == fault.id
            ]
        return commands

    def _then(
        self, fault: Fault, strike: Strike, victims: tuple[tuple[str, int], ...], now: float
    ) -> list[Command]:
        """What follows from the injection of a fault at its time: its end, and the next one."""
        commands: list[Command] = []
        if fault.kind in ("stop", "hang", "drop", "delay"):
            heal = Heal(fault.id, strike.number, victims)
            self._wounds[fault.id, strike.number] = heal
            if fault.duration:
                commands.append(Later(now + fault.duration, heal))
        if strike.number + 1 < fault.times:
            commands.append(self._plan(now + fault.every, Strike(fault.id, strike.number + 1)))
        return commands

    def heal(self, heal: Heal, now: float) -> list[Command]:
        """Take a fault back, unless that is done; of processes only those that still live."""
        if self._wounds.pop((heal.id, heal.number), None) is None:
            return []
        fault = self._faults[heal.id]
        note = Note(Trace(now, f"fault:{fault.id}", "heal", fault.kind, 0, fault.target.text))
        if fault.kind == "stop":
            alive = [victim for victim in self._census.find(fault.target) if victim in heal.victims]
            return [note, *(Signal(actor, pid, signal.SIGCONT) for actor, pid in alive)]
        if fault.kind == "hang":
            return [note]  # it was told how long
        return [note, Send(Inject(fault.id, "heal", fault.target.text))]

    def heal_all(self, now: float) -> list[Command]:
        """Take everything back that can be; a hang for ever cannot."""
        return [
            command
            for heal in list(self._wounds.values())
            if self._faults[heal.id].kind != "hang"
            for command in self.heal(heal, now)
        ]

    def _plan(self, at: float, strike: Strike) -> Later:
        self._planned.add(strike)
        return Later(at, strike)


def _blow(fault: Fault, victims: Sequence[tuple[str, int]]) -> list[Command]:
    match fault.kind:
        case "kill":
            return [Signal(actor, pid, fault.signal) for actor, pid in victims]
        case "stop":
            return [Signal(actor, pid, signal.SIGSTOP) for actor, pid in victims]
        case "cont":
            return [Signal(actor, pid, signal.SIGCONT) for actor, pid in victims]
        case "hang":
            return [Send(Inject(fault.id, "hang", actor, fault.duration)) for actor, _ in victims]
        case "drop" | "delay":
            inject = Inject(
                fault.id, fault.kind, fault.target.text, fault.delay, fault.probability, fault.match
            )
            return [Send(inject)]


def _words(fault: Fault, whom: str) -> str:
    """The fault in words for the timeline."""
    match fault.kind:
        case "kill":
            text = f"{signal.Signals(fault.signal).name} to {whom}"
        case "stop" | "cont":
            text = f"SIG{fault.kind.upper()} to {whom}"
        case "hang":
            text = f"{whom} hangs"
        case "drop" | "delay":
            what = f"{fault.match} messages" if fault.match else "messages"
            share = f" {fault.probability:.0%} of" if fault.probability < 1 else ""
            late = f" by {fault.delay:g} s" if fault.kind == "delay" else ""
            text = f"{fault.kind}{share} {what}{late} on {whom}"
    return text + (f" for {fault.duration:g} s" if fault.duration else "")
