"""A scenario being played: from the first ready vassal to the last stopped process. Pure.

::

    starting ─► steady ─► settling ─► stopping ─► ebbing ─► over

With ``for`` in [run] it stops then, without settling. It ebbs when the Emperor is gone and clients still wait.

It is told what happened and says what to do; ``cli/player`` does it on the machine, ``cli/play`` in simulated
time. Times in a scenario count from the steady state: every vassal was ready, or failed, for the first time.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from pyemperor.cli.havoc import Census, Havoc, Heal, Later, Note, Send, Signal, Strike
from pyemperor.cli.traffic import Answered, Next, Traffic, Turn
from pyemperor.cli.verdict import Course, judge
from pyemperor.protocol.load import Load
from pyemperor.protocol.messages import State, Trace
from pyemperor.protocol.scenario import Scenario

#: Seconds after the last fault and the last answer in which what must not happen may still show.
SETTLE = 1.0
#: Seconds, beyond the longest mercy, in which the Emperor must have stopped.
_STOP_MARGIN = 10.0
_SETTLED = (State.READY, State.BACKOFF, State.CURSED, State.EXILED, State.SLEEPING)


# ---- events ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Start:
    """The Emperor's process ``pid`` was started."""

    pid: int


@dataclass(frozen=True, slots=True)
class Heard:
    """The tree reported an entry of the timeline."""

    trace: Trace


@dataclass(frozen=True, slots=True)
class Ended:
    """The Emperor's process is gone: ``code`` is its exit code, or minus the signal that ended it."""

    code: int


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The user wants to stop."""

    why: str


@dataclass(frozen=True, slots=True)
class Deadline:
    """A time has come: ``what`` is "timeout", "end", "settle", "stop" or "ebb"."""

    what: str


Event = Start | Heard | Answered | Turn | Strike | Heal | Deadline | Ended | Interrupted


# ---- commands ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Show:
    """A new entry of the timeline, for the user."""

    trace: Trace


@dataclass(frozen=True, slots=True)
class Wake:
    """Come back with ``event`` at ``at``."""

    at: float
    event: Event


@dataclass(frozen=True, slots=True)
class Ask:
    """Send a request of ``load``; :class:`Answered` with ``turn`` comes back."""

    turn: Turn
    load: Load


@dataclass(frozen=True, slots=True)
class Quit:
    """Have the Emperor stop everything gracefully."""


@dataclass(frozen=True, slots=True)
class Abandon:
    """Kill every process that is left."""


@dataclass(frozen=True, slots=True)
class Over:
    """Nothing more is to come."""


Command = Show | Wake | Ask | Signal | Send | Quit | Abandon | Over


class Timeline:
    """One run. ``scripts`` gives the pids of the scripts that the worker with a pid runs now.

    When it commands :class:`Over`, ``course`` holds what happened (but for what is left over then), and
    ``problems`` what went wrong with the run itself.
    """

    def __init__(self, scenario: Scenario, scripts: Callable[[int], Iterable[int]]) -> None:
        self.course = Course()
        self.problems: list[str] = []
        self.traffic = Traffic(scenario.loads)
        self._scenario = scenario
        self._census = Census(scripts)
        self._havoc = Havoc(scenario.faults, self._census)
        self._awaited = {f"master:{vassal.name}" for vassal in scenario.vassals}
        self._phase = "starting"
        self._commands: list[Command] = []
        mercy = max(vassal.reload_mercy for vassal in scenario.vassals)
        self._stop_patience = mercy + _STOP_MARGIN
        emperor = scenario.emperor
        judgement = emperor.emperor_required_heartbeat + 3 * emperor.heartbeat_probe
        #: Seconds for what is expected to come true after the last fault and the last answer.
        self._patience = max(judgement, 10 * scenario.scale, 5.0)
        self._patient_until = 0.0

    def handle(self, event: Event, now: float) -> Sequence[Command]:
        """Take in one event; the commands are to be carried out in order."""
        if self._phase == "over":
            return ()
        self._commands = []
        match event:
            case Start(pid=pid):
                self._wake(now + self._scenario.run.timeout, Deadline("timeout"))
                self._record(Trace(now, "emperor", "start", "", pid), now)
            case Heard(trace=trace):
                self._record(trace, now)
            case Turn():
                self._ask(event)
            case Answered(turn=turn, status=status):
                path = self.traffic.path(turn.load)
                self._next(self.traffic.answered(event, now))
                self._record(Trace(now, f"load:{turn.load}", "request", status, 0, path), now)
                if self._phase == "ebbing" and not self.traffic.open:
                    self._finish()
            case Strike():
                if not self._closing:
                    self._obey(self._havoc.strike(event, now), now)
            case Heal():
                self._obey(self._havoc.heal(event, now), now)
            case Deadline(what=what):
                self._due(what, now)
            case Interrupted(why=why):
                self._interrupted(why, now)
            case Ended(code=code):
                self._ended(code, now)
        if self._phase == "steady" and not self._scenario.run.duration:
            self._look_for_end(now)
        return self._commands

    # ---- the steady state ------------------------------------------------------------------------------

    def _record(self, trace: Trace, now: float) -> None:
        self.course.traces.append(trace)
        self._commands.append(Show(trace))
        self._census.hear(trace)
        if self._phase == "starting" and trace.event == "state" and trace.state in _SETTLED:
            self._awaited.discard(trace.actor)
            if not self._awaited:
                self._begin(now)
        if not self._closing:
            self._obey(self._havoc.hear(trace, now), now)

    def _begin(self, now: float) -> None:
        self._phase = "steady"
        self.course.begun_at = now
        if self._scenario.run.duration:
            self._wake(now + self._scenario.run.duration, Deadline("end"))
        self._next(self.traffic.begin(now))
        self._obey(self._havoc.begin(now), now)

    def _ask(self, turn: Turn) -> None:
        if not self._closing:
            load, following = self.traffic.ask(turn)
            self._commands.append(Ask(turn, load))
            self._next(following)

    def _next(self, turns: Iterable[Next]) -> None:
        for following in turns:
            self._wake(following.at, following.turn)

    def _obey(self, commands: Iterable[Later | Signal | Send | Note], now: float) -> None:
        for command in commands:
            match command:
                case Note(trace=trace):
                    self._record(trace, now)
                case Later(at=at, due=due):
                    self._wake(at, due)
                case _:
                    self._commands.append(command)

    def _wake(self, at: float, event: Event) -> None:
        self._commands.append(Wake(at, event))

    # ---- the end -----------------------------------------------------------------------------------------

    def _due(self, what: str, now: float) -> None:
        match what, self._phase:
            case "timeout", phase if not self._closing:
                limit = self._scenario.run.timeout
                where = "not every vassal was ready" if phase == "starting" else "it was not over"
                self._give_up(f"timeout: {where} after {limit:g} s", now)
            case "end", "steady":
                self._stop(now)
            case "settle", "settling":
                self._settle(now)
            case "stop", "stopping":
                self.problems.append(f"the Emperor did not stop within {self._stop_patience:g} s")
                self._commands.append(Abandon())
            case "ebb", "ebbing":
                self._finish()

    def _look_for_end(self, now: float) -> None:
        if self.traffic.over and self._havoc.over:
            self._phase = "settling"
            self._patient_until = now + self._patience
            self._wake(now + SETTLE, Deadline("settle"))

    def _settle(self, now: float) -> None:
        """Stop when all is as expected; a fault or an effect that still is to come gets some time for it."""
        if not (self.traffic.over and self._havoc.over):
            self._phase = "steady"
        elif now < self._patient_until and (self._havoc.never or self._pending()):
            self._wake(now + SETTLE, Deadline("settle"))
        else:
            self._stop(now)

    def _pending(self) -> bool:
        return any(finding.pending for finding in judge(self._scenario.expects, self.course))

    def _interrupted(self, why: str, now: float) -> None:
        if self._phase == "ebbing":
            self._finish()
        elif self._phase == "stopping":
            self._commands.append(Abandon())
        else:
            self._give_up(f"interrupted ({why})", now)

    def _give_up(self, problem: str, now: float) -> None:
        self.problems.append(problem)
        self._stop(now)

    def _stop(self, now: float) -> None:
        self._phase = "stopping"
        self.course.over_at = now
        self._obey(self._havoc.heal_all(now), now)
        self._commands.append(Quit())
        self._wake(now + self._stop_patience, Deadline("stop"))

    def _ended(self, code: int, now: float) -> None:
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        self._record(Trace(now, "emperor", "exit", "", 0, how), now)
        asked = self._phase == "stopping" or self._havoc.struck("kill", "emperor")
        if self._phase == "starting":
            self.problems.append(f"the Emperor ended ({how}) before every vassal was ready")
        elif not asked or (code and self._phase == "stopping" and not self.problems):
            self.problems.append(f"the Emperor ended with {how}")
        self.course.over_at = min(self.course.over_at, now)
        self._obey(self._havoc.heal_all(now), now)
        if not self.problems:
            self.problems += [f"fault {fault} was never injected" for fault in self._havoc.never]
        self._phase = "ebbing"
        self._wake(now + self._stop_patience, Deadline("ebb"))
        if not self.traffic.open:
            self._finish()

    def _finish(self) -> None:
        self._phase = "over"
        self._commands.append(Over())

    @property
    def _closing(self) -> bool:
        """Whether nothing new is to be done to the tree."""
        return self._phase in ("stopping", "ebbing")
