"""The failure detector against the catalogue of hangs, pauses and innocents that it must tell apart.

Each case runs in simulated time: a judge with the defaults (tolerance 30 s, probe 5 s), its shell, and
processes that beat, answer, hang, spin, are stopped, traced or starved. Cases that need real processes,
requests or workers (Q02, Q18, Q19, Q21 and the real halves of the others) are tested where those are.
"""

import ast
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from pathlib import Path

import pytest

from pyemperor.actors import detector, judgement
from pyemperor.actors.detector import (
    Answered,
    Ask,
    Cleared,
    Command,
    Continue,
    Convict,
    Credit,
    Due,
    Event,
    Evidence,
    Extended,
    Heard,
    Judge,
    Lease,
    Look,
    Paused,
    Seen,
    Verdict,
    Wake,
    beat_interval,
)

LEASE = Lease(tolerance=30.0, probe=5.0)
STEP = 1 / 16
MINUTE = 60.0
#: The default bound, with the grid of the simulation as the judge's latency.
FOUND = LEASE.tolerance + LEASE.probe + 2 * STEP


@dataclass
class Process:
    """A vassal's master: what it does at a moment is what ``mood`` says.

    Moods: ``well``, ``hung`` (sleeps), ``spins``, ``disk`` (state D), ``stopped``, ``traced``, ``starved``.
    """

    name: str
    requested: float = 0.0
    lease: Lease = LEASE
    mood: Callable[[float], str] = lambda now: "well"
    lose: Callable[[int], bool] = lambda seq: False
    delay: Callable[[int], float] = lambda seq: 0.0
    share: float = 0.01  # of a CPU, when starved
    cost: float = 0.01  # running time that a beat or an answer takes
    next_beat: float = 0.0
    seq: int = 0
    worked: float = 0.0
    cpu: float = 0.0
    run_delay: float = 0.0
    continued: bool = False
    pipe: list[tuple[float, Event]] = field(default_factory=list)
    probes: list[int] = field(default_factory=list)

    def now_does(self, now: float) -> str:
        mood = self.mood(now)
        return "well" if mood == "stopped" and self.continued else mood

    def run(self, now: float) -> None:
        mood = self.now_does(now)
        due = now >= self.next_beat
        if mood == "spins":
            self.cpu += STEP
        elif mood == "well" or (mood == "starved" and (due or self.probes)):
            got = STEP if mood == "well" else STEP * self.share
            self.run_delay += STEP - got
            self.worked += got
            if self.worked >= self.cost:
                self.act(now, due)

    def act(self, now: float, due: bool) -> None:
        self.worked = 0.0
        self.pipe += [(now, Answered(self.name, nonce)) for nonce in self.probes]
        self.probes = []
        if due:
            self.next_beat = now + beat_interval(self.requested, self.lease.tolerance)
            if not self.lose(self.seq):
                self.pipe.append((now + self.delay(self.seq), Heard(self.name, now)))
            self.seq += 1

    def evidence(self, now: float) -> Evidence:
        mood = self.now_does(now)
        state = {"spins": "R", "starved": "R", "disk": "D", "stopped": "T", "traced": "t"}.get(mood, "S")
        return Evidence(state, self.cpu, self.run_delay, tracer=77 if mood == "traced" else 0)


class Town:
    """Processes under one judge: all stand still while time ``stands``, the judge while it ``reads_not``."""

    def __init__(self, *processes: Process) -> None:
        self.processes = {process.name: process for process in processes}
        self.judge = Judge()
        self.timer = inf
        self.now = 0.0
        self.log: list[tuple[float, Command]] = []
        for process in processes:
            self.perform(self.judge.open(process.name, process.lease, 0.0))

    def run(
        self,
        until: float,
        stands: tuple[float, float] = (inf, inf),
        reads_not: tuple[float, float] = (inf, inf),
    ) -> None:
        while self.now < until:
            self.now += STEP
            if stands[0] <= self.now < stands[1]:
                continue
            for process in self.processes.values():
                process.run(self.now)
            if not reads_not[0] <= self.now < reads_not[1]:
                self.turn()

    def turn(self) -> None:
        for process in self.processes.values():
            come = [event for arrives, event in process.pipe if arrives <= self.now]
            process.pipe = [entry for entry in process.pipe if entry[0] > self.now]
            for event in come:
                self.tell(event)
        if self.timer <= self.now:
            planned, self.timer = self.timer, inf
            self.tell(Due(planned))

    def tell(self, event: Event) -> None:
        self.perform(self.judge.handle(event, self.now))

    def perform(self, commands: list[Command]) -> None:
        for command in commands:
            self.log.append((self.now, command))
            match command:
                case Wake(at):
                    self.timer = inf if at is None else at
                case Ask(name, nonce):
                    self.processes[name].probes.append(nonce)
                case Look(name):
                    self.tell(Seen(name, self.processes[name].evidence(self.now)))
                case Continue(name):
                    self.processes[name].continued = True
                case Cleared() | Extended() | Convict() | Credit():
                    pass

    def all(self, kind: type[Command]) -> list[tuple[float, Command]]:
        return [(at, command) for at, command in self.log if isinstance(command, kind)]

    def the_conviction(self) -> tuple[float, Convict]:
        ((at, command),) = self.all(Convict)
        assert isinstance(command, Convict)
        return at, command


def since(start: float, mood: str, until: float = inf) -> Callable[[float], str]:
    return lambda now: mood if start <= now < until else "well"


@pytest.mark.parametrize("requested", [1, 2, 4, 7, 10, 15, 16, 17, 20, 25, 29, 30, 31, 45, 60])
def test_q01_idle(requested: float) -> None:
    """Q01: idle for 10 minutes, whatever heartbeat the vassal asks for: nobody is even asked."""
    town = Town(Process("app", requested=requested))
    town.run(10 * MINUTE)
    assert {type(command) for _, command in town.log} == {Wake}


@pytest.mark.parametrize(("heartbeat", "tolerance"), [(25, 30), (20, 30), (4, 7)])
def test_q03_the_seed(heartbeat: float, tolerance: float) -> None:
    """Q03: heartbeat 25 (or 20) under a tolerance of 30, and 4 under 7: uWSGI killed a healthy vassal.

    Here not even the loss of every other beat leads to a question.
    """
    lease = Lease(tolerance)
    town = Town(Process("app", requested=heartbeat, lease=lease, lose=lambda seq: seq % 2 == 1))
    town.run(10 * MINUTE)
    assert town.all(Ask) == town.all(Convict) == []


@pytest.mark.parametrize("start", [0.5, 3.0, 9.9, 10.1, 100.0])
def test_q04_sleeps_for_ever(start: float) -> None:
    """Q04: a dispatcher that sleeps for ever is convicted within the bound, once, as blocked."""
    town = Town(Process("app", mood=since(start, "hung")))
    town.run(start + 5 * MINUTE)
    at, convict = town.the_conviction()
    assert start + LEASE.tolerance - 10 + LEASE.probe <= at <= start + FOUND
    assert convict.verdict is Verdict.BLOCKED


def test_q05_spins() -> None:
    """Q05: a dispatcher in an endless loop is convicted within the bound, as spinning."""
    town = Town(Process("app", mood=since(50.0, "spins")))
    town.run(3 * MINUTE)
    at, convict = town.the_conviction()
    assert at <= 50.0 + FOUND
    assert convict.verdict is Verdict.SPINNING
    assert convict.evidence_at_end.cpu - convict.evidence_at_probe.cpu == pytest.approx(5.0, abs=0.2)


@pytest.mark.parametrize(("seconds", "killed"), [(20.0, False), (24.9, False), (60.0, True)])
def test_q06_a_c_call_holds_the_interpreter_lock(seconds: float, killed: bool) -> None:
    """Q06: a C call that holds the interpreter's lock: forgiven below T - I + P, else spinning."""
    town = Town(Process("app", mood=since(50.0, "spins", 50.0 + seconds)))
    town.run(5 * MINUTE)
    if killed:
        assert town.the_conviction()[1].verdict is Verdict.SPINNING
    else:
        assert town.all(Convict) == []


def test_q07_sigstop() -> None:
    """Q07: a master that a SIGSTOP hit is continued once, answers and lives."""
    town = Town(Process("app", mood=since(50.0, "stopped")))
    town.run(5 * MINUTE)
    assert [type(c) for _, c in town.log if isinstance(c, Ask | Continue | Cleared | Convict)] == [
        Ask,
        Continue,
        Cleared,
    ]


def test_q08_a_debugger() -> None:
    """Q08: under a debugger for an hour: one word about it, no conviction; cleared once it lets go."""
    town = Town(Process("app", mood=since(50.0, "traced", 50.0 + 60 * MINUTE)))
    town.run(65 * MINUTE)
    ((_, said),) = town.all(Extended)
    assert isinstance(said, Extended)
    assert (said.why, said.starved) == ("traced", False)
    assert town.all(Convict) == []
    assert len(town.all(Cleared)) == 1


def test_q09_the_emperor_is_stopped() -> None:
    """Q09: the Emperor is stopped for 5 minutes with 200 vassals: no probe, no kill."""
    town = Town(*(Process(f"app-{n}", requested=n % 30) for n in range(200)))
    town.run(6.5 * MINUTE, reads_not=(MINUTE, 6 * MINUTE))
    assert town.all(Ask) == town.all(Convict) == []


@pytest.mark.parametrize("pause", [0.3, 1.0, 4.0, 20.0, 29.0, 31.0, 5 * MINUTE])
@pytest.mark.parametrize("after", [-1.0, 0.0, 0.1, 0.25, 0.5, 0.9, 1.0, 2.0])
def test_q10_everything_is_stopped(after: float, pause: float) -> None:
    """Q10: the whole tree is stopped at the worst moments, probes being open: only the hung one dies."""

    def town() -> Town:
        mute = Process("mute", lose=lambda seq: True, cost=1.0)
        return Town(Process("app"), mute, Process("hung", mood=since(60.0, "hung")))

    rehearsal = town()
    rehearsal.run(2 * MINUTE)
    asked = [at for at, c in rehearsal.all(Ask) if isinstance(c, Ask) and c.peer == "mute" and at > MINUTE]
    start = asked[0] + after

    real = town()
    real.run(10 * MINUTE, stands=(start, start + pause))
    at, convict = real.the_conviction()
    assert convict.peer == "hung"
    assert at <= 60.0 + FOUND + pause + (LEASE.tolerance if pause > LEASE.tolerance else 0.25)


def test_q11_suspend() -> None:
    """Q11: after a suspend, which the monotonic clock does not count, everybody starts afresh."""
    town = Town(Process("app"), Process("mute", lose=lambda seq: seq > 1))
    town.run(35.0)
    town.tell(Paused(8 * 60 * MINUTE))
    town.run(35.0 + LEASE.tolerance - 1)
    assert town.all(Ask) == []
    town.run(10 * MINUTE)
    assert town.all(Convict) == []


@pytest.mark.parametrize("module", [detector, judgement])
def test_q12_wall_clock(module: object) -> None:
    """Q12: a step of the wall clock cannot matter: nothing here reads a clock or does any I/O."""
    source = Path(str(getattr(module, "__file__", None))).read_text(encoding="utf-8")
    imported = {
        name.split(".")[0]
        for node in ast.walk(ast.parse(source))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert imported <= {"collections", "dataclasses", "enum", "heapq", "itertools", "math", "pyemperor"}


def test_q13_starved_of_cpu() -> None:
    """Q13: 1 % of a CPU for a minute, beats lost as well: extended, never convicted."""
    town = Town(
        Process("app", mood=since(20.0, "starved", 80.0), lose=lambda seq: seq > 0, share=0.01),
        Process("neighbour"),
    )
    town.run(5 * MINUTE)
    assert town.all(Convict) == []
    assert town.all(Cleared) != []


@pytest.mark.parametrize(
    ("lose", "asked"),
    [
        (lambda seq: seq == 5, False),
        (lambda seq: seq in (5, 6), False),
        (lambda seq: seq in (5, 6, 7), True),
        (lambda seq: seq % 2 == 1, False),
        (lambda seq: seq > 0, True),
    ],
    ids=["one", "two", "three", "half", "all"],
)
def test_q14_lost_beats(lose: Callable[[int], bool], asked: bool) -> None:
    """Q14: of lost beats only three in a row lead to a probe, and it clears."""
    town = Town(Process("app", lose=lose))
    town.run(10 * MINUTE)
    assert bool(town.all(Ask)) == asked
    assert len(town.all(Ask)) == len(town.all(Cleared))
    assert town.all(Convict) == []


@pytest.mark.parametrize("delay", [LEASE.tolerance - 0.5, LEASE.tolerance + 0.5, 5 * LEASE.tolerance])
def test_q14_delayed_beats(delay: float) -> None:
    """Q14: beats that arrive a tolerance late are no life, but probes clear."""
    town = Town(Process("app", delay=lambda seq: delay))
    town.run(10 * MINUTE)
    assert town.all(Ask) != []
    assert town.all(Convict) == []


def test_q15_the_emperor_does_not_read() -> None:
    """Q15: the Emperor reads nothing for 60 s: that is its own lateness; a vassal hung meanwhile is found."""
    town = Town(Process("app"), Process("hung", mood=since(70.0, "hung")))
    town.run(5 * MINUTE, reads_not=(MINUTE, 2 * MINUTE))
    at, convict = town.the_conviction()
    assert convict.peer == "hung"
    assert at <= 2 * MINUTE + FOUND
    assert {c.peer for _, c in town.all(Ask) if isinstance(c, Ask)} == {"hung"}


def test_q16_hung_from_the_start() -> None:
    """Q16: hung right after READY, before the first beat and the first request: found all the same."""
    town = Town(Process("app", mood=since(0.0, "hung")))
    town.run(2 * MINUTE)
    assert town.the_conviction()[0] <= FOUND


def test_q17_stale_beats() -> None:
    """Q17: a pipe full of old beats, delivered one by one for long after the hang, buys no time."""
    town = Town(Process("app", requested=1, mood=since(50.0, "hung"), delay=lambda seq: 0.9 * seq))
    town.run(50.0 + FOUND)
    assert len(town.processes["app"].pipe) > 3, "they still come"
    assert town.the_conviction()[0] <= 50.0 + FOUND


def test_q20_a_reload_that_drains() -> None:
    """Q20: a reload that drains for three tolerances has its own deadline: the lease is closed meanwhile."""
    town = Town(Process("app", mood=since(50.0, "hung", 50.0 + 3 * LEASE.tolerance)))
    town.run(50.0)
    town.perform(town.judge.close("app"))
    town.run(50.0 + 3 * LEASE.tolerance)
    town.perform(town.judge.open("app", LEASE, town.now))
    town.run(10 * MINUTE)
    assert town.all(Ask) == []


def test_unkillable_on_a_dead_disk() -> None:
    """Table of cases, D state: convicted, with a word that says that a kill will have to wait."""
    town = Town(Process("app", mood=since(50.0, "disk")))
    town.run(3 * MINUTE)
    assert town.the_conviction()[1].verdict is Verdict.UNKILLABLE
