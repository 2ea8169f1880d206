"""The children of one supervisor in the order of their start, and whose turn it is. Pure.

What has happened is written into the phases and fates of the children; :meth:`Children.advance` looks at
nothing else and gives the commands that may be given now. So no order of events can derail a restart of many.
"""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from enum import Enum, auto

from pyemperor.actors.supervision.messages import (
    CancelWake,
    ChildInfo,
    Command,
    Counts,
    Due,
    Launch,
    Phase,
    Refused,
    Reply,
    Report,
    ReportKind,
    Request,
    RestartChild,
    Result,
    StartChild,
    Terminate,
    Waiting,
    Wake,
    Why,
)
from pyemperor.actors.supervision.restart import Budget, ExitReason
from pyemperor.actors.supervision.spec import ChildSpec, Flags, Strategy

#: The requests that wait for a child to be up.
STARTS = (StartChild, RestartChild)


class Fate(Enum):
    """What becomes of a child that is to be stopped."""

    #: Nothing: it is down until somebody starts it.
    KEEP = auto()
    #: It starts again, together with those that it was stopped with.
    RESTART = auto()
    #: Its spec is dropped.
    FORGET = auto()


@dataclass(slots=True, eq=False)
class Child:
    """What is known of one child; ``budget`` is its own, under ``curse``."""

    spec: ChildSpec
    budget: Budget
    phase: Phase = Phase.DUE
    #: Set as long as it is to be stopped.
    fate: Fate | None = None
    #: It belongs to the boot, and has not been up yet.
    initial: bool = False
    generation: int = 0
    handle: object = None
    up_since: float = 0.0
    #: Requests that are answered when it is up or gone.
    callers: list[Request] = field(default_factory=list)
    #: The last waits, without jitter; 0 when there was none.
    wait: float = 0.0
    environment_wait: float = 0.0
    cursed: bool = False
    #: When the next attempt is, and how we are woken for it.
    until: float = math.inf
    due: Due | None = None


class Children:
    """All children of a supervisor, left to right."""

    def __init__(self, flags: Flags, initial: Iterable[ChildSpec]) -> None:
        self._flags = flags
        self._all: dict[str, Child] = {}
        self._number = 0
        self._commands: list[Command] = []
        for spec in initial:
            self.add(spec).initial = True

    def __iter__(self) -> Iterator[Child]:
        return iter(list(self._all.values()))

    def __len__(self) -> int:
        return len(self._all)

    def get(self, id: str) -> Child | None:
        """Return the child of that id."""
        return self._all.get(id)

    def add(self, spec: ChildSpec) -> Child:
        """Append a child; it starts when its turn comes."""
        child = Child(spec, Budget(self._flags.intensity, self._flags.period))
        self._all[spec.id] = child
        return child

    def forget(self, child: Child) -> None:
        """Drop a child that is not running."""
        del self._all[child.spec.id]

    def drops(self, child: Child) -> bool:
        """Whether its spec goes when it is stopped for good."""
        return child.spec.temporary or self._flags.simple

    def depending_on(self, child: Child) -> list[Child]:
        """Return those that are restarted together with ``child``."""
        everybody = list(self)
        match self._flags.strategy:
            case Strategy.ONE_FOR_ALL:
                return [other for other in everybody if other is not child]
            case Strategy.REST_FOR_ONE:
                return everybody[everybody.index(child) + 1 :]
            case _:
                return []

    # ---- views --------------------------------------------------------------------------------------

    def infos(self) -> list[ChildInfo]:
        """One line a child."""
        return [
            ChildInfo(c.spec.id, c.phase, c.handle, c.generation, c.spec.type, c.until) for c in self
        ]

    def counts(self) -> Counts:
        """OTP's four numbers."""
        active = sum(child.phase.live for child in self)
        supervisors = sum(child.spec.type == "supervisor" for child in self)
        return Counts(len(self), active, supervisors, len(self) - supervisors)

    # ---- plans for one child ------------------------------------------------------------------------

    def start(self, child: Child) -> None:
        """Have a child that is not running start as soon as its turn comes."""
        self._cancel(child)
        child.phase = Phase.DUE

    def postpone(self, child: Child, until: float, now: float) -> None:
        """Have it start at ``until``."""
        if until <= now:
            self.start(child)
            return
        child.phase = Phase.CURSED if child.cursed else Phase.BACKOFF
        child.until = until
        if until < math.inf:
            child.due = Due(child.spec.id, self._next_number())
            self._commands.append(Wake(until, child.due))
        self._commands.append(Waiting(child.spec.id, until, child.cursed))

    def woken(self, due: Due, now: float) -> None:
        """Take in a wake-up; one that was cancelled has no effect, one that is early is set again."""
        child = self.get(due.id)
        if child is None or child.due != due:
            return
        if now < child.until:
            self._commands.append(Wake(child.until, due))
        else:
            child.until, child.due = math.inf, None
            child.phase = Phase.DUE

    def rest(self, child: Child) -> None:
        """Take a child that is not running out of all plans; who waits for its start is told."""
        self._cancel(child)
        child.phase = Phase.DOWN
        self.answer(child, STARTS, Refused(Why.TERMINATED, child.spec.id))

    def absolve(self, child: Child) -> None:
        """Forget its failures; if it waits or is in exile, it starts as soon as its turn comes."""
        child.wait = child.environment_wait = 0.0
        child.budget.stamps.clear()
        child.cursed = False
        if child.phase.waiting or child.phase is Phase.EXILED:
            self.start(child)

    def stop(self, child: Child) -> None:
        """Ask a running child to stop, once."""
        if child.phase is not Phase.STOPPING:
            child.phase = Phase.STOPPING
            self._commands.append(Terminate(child.spec.id, child.generation, child.spec.shutdown))

    def _cancel(self, child: Child) -> None:
        if child.due:
            self._commands.append(CancelWake(child.due))
        child.until, child.due = math.inf, None

    # ---- turns --------------------------------------------------------------------------------------

    @property
    def settled(self) -> bool:
        """Whether no child is on its way up or is to be stopped."""
        return not any(child.fate or child.phase in (Phase.DUE, Phase.STARTING) for child in self)

    @property
    def any_live(self) -> bool:
        """Whether there is anything left to stop."""
        return any(child.phase.live for child in self)

    def stop_doomed(self) -> None:
        """Stop those with a fate: right to left, one after the other is gone; parallel ones at once."""
        for child in reversed(list(self)):
            if child.fate:
                self.stop(child)
                if not (self._flags.parallel or self._flags.simple):
                    return

    def start_due(self, *, booting: bool) -> None:
        """Start those that are due: left to right.

        Each waits for the one before it to be up at boot, and where children depend on each other. There it
        also waits until all that is to be stopped is gone, and for those before it that cannot start yet
        (``one_for_all``: for anybody who cannot).
        """
        grouped = self._flags.grouped
        ordered = grouped or (booting and not self._flags.parallel)
        held = {Phase.BACKOFF, Phase.CURSED, Phase.EXILED} if grouped else set()
        phases = {child.phase for child in self}
        if grouped and any(child.fate for child in self):
            return
        if ordered and Phase.STARTING in phases:
            return
        if self._flags.strategy is Strategy.ONE_FOR_ALL and phases & held:
            return
        for child in self:
            if child.phase in held:
                return
            if child.phase is Phase.DUE:
                self._launch(child)
                if ordered:
                    return

    def _launch(self, child: Child) -> None:
        child.phase = Phase.STARTING
        child.generation = self._next_number()
        self._commands.append(Launch(child.spec.id, child.generation, child.spec))
        if child.spec.temporary:
            # It is never started again, and what it was started with may be large.
            child.spec = replace(child.spec, start=None, args=())

    # ---- commands -----------------------------------------------------------------------------------

    def command(self, command: Command) -> None:
        """Add a command."""
        self._commands.append(command)

    def report(self, kind: ReportKind, child: Child, reason: ExitReason | None = None) -> None:
        """Add a report about a child."""
        self._commands.append(Report(kind, child.spec.id, reason))

    def reply(self, request: Request, result: Result) -> None:
        """Add the answer to a request."""
        self._commands.append(Reply(request, result))

    def answer(self, child: Child, kinds: tuple[type[Request], ...], result: Result) -> None:
        """Answer the callers of these kinds that wait for the child."""
        answered = [caller for caller in child.callers if isinstance(caller, kinds)]
        child.callers = [caller for caller in child.callers if not isinstance(caller, kinds)]
        for caller in answered:
            self.reply(caller, result)

    def take_commands(self) -> list[Command]:
        """Hand over the commands of one event."""
        commands, self._commands = self._commands, []
        return commands

    def _next_number(self) -> int:
        self._number += 1
        return self._number
