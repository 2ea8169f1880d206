"""A supervisor for pykka actors: OTP's, for any actor class as it is.

A child spec's ``start`` names an actor class (or ``Class.start``, or a ``functools.partial`` of either):

>>> import pykka, queue
>>> class Counter(pykka.ThreadingActor):
...     def __init__(self, count=0):
...         super().__init__()
...         self.count = count
...     def on_receive(self, message):
...         self.count += message
...         return self.count

>>> reports = queue.Queue()
>>> supervisor = SupervisorActor.boot(
...     Flags(intensity=3, period=10),
...     [ChildSpec("counter", start=Counter, args=(10,))],
...     report=reports.put,
... )
>>> reports.get(timeout=5)
Report(kind=<ReportKind.PROGRESS: 'progress'>, id='counter', reason=None)

A restarted actor is a new one with a new ref, so ask for it by its name:

>>> counter = supervisor.ask(WhereIs("counter"))
>>> counter.ask(1)
11
>>> counter.tell("one")  # a TypeError, of which pykka lets the actor die
>>> [reports.get(timeout=5) for _ in range(3)]
[Report(...CHILD_TERMINATED...'counter'...), Waiting(...), Report(...PROGRESS...)]
>>> supervisor.ask(WhereIs("counter")).ask(1)
11

The requests of ``supervision`` are answered with a future, because starts and stops take their time and the
supervisor serves others meanwhile:

>>> supervisor.ask(StartChild(ChildSpec("other", start=Counter, restart="temporary"))).get(timeout=5)
Ok(id='other', handle=<ActorRef for Counter (urn:...)>)
>>> supervisor.ask(TerminateChild("counter")).get(timeout=5)
Ok(id='counter', handle=None)
>>> supervisor.ask(CountChildren())
Counts(specs=2, active=1, supervisors=0, workers=2)
>>> supervisor.stop()  # all children, right to left, then itself
True

What a supervised actor should know:

* It is started when its ``on_start`` has returned (or later, see :class:`~.observation.StartsLater`); its
  ``__init__`` runs in the supervisor's thread and had better be short. Either may raise ``Ignore``.
* It ended ``normal`` when it stopped, ``abnormal`` after an error in ``on_start``, a told message or
  ``on_stop``; with an attribute ``exit_reason`` it can say otherwise. An error while somebody *asks* it goes
  to the asker and it lives on, as always in pykka.
* ``sys.exit()`` ends this actor alone, where pykka would stop every actor of the process.
* A thread cannot be killed. An actor that does not stop in time is cut off from its mailbox, reported
  ``abandoned``, and taken for ``killed``; if it is stuck in a message its thread remains.
* A supervisor is an actor and can be a child: give it ``type="supervisor"``.
"""

import contextlib
import math
import random as standard_random
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any, Self

import pykka
from loguru import logger

from pyemperor.actors.observation import Ignore, StartsLater, Watch, observed
from pyemperor.actors.scheduler import Scheduler, shared
from pyemperor.actors.supervision import (
    SHUTDOWN,
    Boot,
    CancelWake,
    ChildSpec,
    Command,
    Due,
    Event,
    Exited,
    ExitKind,
    ExitReason,
    Flags,
    Gone,
    Ignored,
    Launch,
    Ok,
    Refused,
    Reply,
    Report,
    ReportKind,
    Request,
    Shutdown,
    StartChild,
    Started,
    StartFailed,
    Supervisor,
    Terminate,
    TerminateChild,
    Waiting,
    Wake,
)
from pyemperor.protocol.errors import PyEmperorError

__all__ = [
    "BootFailed", "ChildSpec", "CountChildren", "Flags", "Ignore", "StartChild", "StartsLater",
    "SupervisorActor", "TerminateChild", "WhereIs", "WhichChildren", "log_report",
]


@dataclass(frozen=True, slots=True)
class WhereIs:
    """Ask for the ``ActorRef`` of a child as it is now; None when it is not up."""

    id: str


@dataclass(frozen=True, slots=True)
class WhichChildren:
    """Ask for a ``ChildInfo`` of every child, in the order of their start."""


@dataclass(frozen=True, slots=True)
class CountChildren:
    """Ask for the :class:`~.supervision.Counts`."""


class BootFailed(PyEmperorError):
    """The supervisor has ended because the child ``id`` did not start, for ``reason``."""

    def __init__(self, id: str, reason: ExitReason | None) -> None:
        super().__init__(f"the supervisor did not start: {id}: {reason}")
        self.id = id
        self.reason = reason


@dataclass(frozen=True, slots=True)
class _Overdue:
    """An actor did not stop in time."""

    generation: int


@dataclass(slots=True)
class _Incarnation:
    id: str
    ref: pykka.ActorRef[Any]
    asked: bool = False
    cancel_deadline: Callable[[], None] = lambda: None


def log_report(report: Report | Waiting) -> None:
    """Log what a supervisor reports."""
    match report:
        case Waiting(id=id, cursed=cursed):
            logger.debug("{} waits for its next start{}", id, ", in quarantine" if cursed else "")
        case Report(kind=ReportKind.PROGRESS, id=id):
            logger.debug("{} is up", id)
        case Report(kind=kind, id=id, reason=reason):
            logger.warning("{}: {} ({})", id, kind.replace("_", " "), reason)


class SupervisorActor(StartsLater, pykka.ThreadingActor):
    """Supervises actors by the rules of ``supervision``; it stops when its supervision has ended.

    ``report`` is called in the supervisor's thread with whatever there is to log. ``scheduler`` is its clock
    and its timers, ``random`` the source of jitter. ``booted`` gets ``Ok`` or ``Refused`` after the boot.
    ``exit_reason`` says in the end why it ended.

    Raises :class:`ValueError` for children that do not fit together or do not fit the flags.
    """

    def __init__(
        self,
        flags: Flags,
        children: Iterable[ChildSpec] = (),
        *,
        report: Callable[[Report | Waiting], None] = log_report,
        scheduler: Scheduler | None = None,
        random: Callable[[], float] = standard_random.random,
        booted: "pykka.Future[Any] | None" = None,
    ) -> None:
        super().__init__()
        self.exit_reason: ExitReason | None = None
        self._supervisor = Supervisor(flags, children, random=random)
        self._report = report
        self._scheduler = scheduler or shared()
        self._boot = booted or self._create_future()
        self._unanswered: set[pykka.Future[Any]] = {self._boot}
        self._events: deque[Event] = deque()
        #: By generation.
        self._incarnations: dict[int, _Incarnation] = {}
        self._cancel_wake: dict[Due, Callable[[], None]] = {}

    @classmethod
    def boot(cls, *args: Any, timeout: float | None = None, **kwargs: Any) -> "pykka.ActorRef[Self]":
        """Start a supervisor, and return when all its children are up: OTP's ``start_link``.

        Takes what the class takes, and ``timeout`` in seconds, after which it is stopped again.
        Raises :class:`BootFailed`, :class:`pykka.Timeout`.
        """
        booted = cls._create_future()
        ref = cls.start(*args, booted=booted, **kwargs)
        try:
            result = booted.get(timeout=timeout)
        except pykka.Timeout:
            ref.stop(block=False)
            raise
        if isinstance(result, Refused):
            raise BootFailed(result.id, result.reason)
        return ref

    # ---- mailbox ------------------------------------------------------------------------------------

    def on_start(self) -> None:
        self._feed(Boot(sender=self._boot))

    def on_receive(self, message: Any) -> Any:
        match message:
            case Due():
                self._cancel_wake.pop(message, None)
                self._feed(message)
            case Started() | Ignored():
                self._feed(message)
            case Exited():
                self._exited(message)
            case _Overdue():
                self._overdue(message.generation)
            case WhereIs(id=id):
                infos = self._supervisor.which_children()
                return next((info.handle for info in infos if info.id == id), None)
            case WhichChildren():
                return self._supervisor.which_children()
            case CountChildren():
                return self._supervisor.count_children()
            case Request():
                future = self._create_future()
                self._unanswered.add(future)
                self._feed(replace(message, sender=future))
                return future
            case _:
                return super().on_receive(message)
        return None

    def _stop(self) -> None:
        # pykka's poison pill: all children first. The mailbox, which their ends arrive in, is served until
        # the supervision is gone and stops this actor.
        if not self._supervisor.gone:
            self._feed(Shutdown())
            self._actor_loop_running()

    def _actor_loop_teardown(self) -> None:
        super()._actor_loop_teardown()
        # Something is left here only after a crash of the supervisor itself. As with links, none survives it.
        for incarnation in self._incarnations.values():
            incarnation.ref.stop(block=False)
        for future in self._unanswered:
            future.set_exception((pykka.ActorDeadError, pykka.ActorDeadError(f"{self} stopped"), None))

    # ---- commands -----------------------------------------------------------------------------------

    def _feed(self, event: Event) -> None:
        self._events.append(event)
        if len(self._events) > 1:
            return  # A command gave it. Its turn comes when all commands before it are carried out.
        try:
            while self._events:
                for command in self._supervisor.handle(self._events[0], self._scheduler.now()):
                    self._perform(command)
                self._events.popleft()
        finally:
            self._events.clear()

    def _perform(self, command: Command) -> None:
        match command:
            case Launch():
                self._launch(command)
            case Terminate():
                self._terminate(command)
            case Wake(at=at, due=due):
                self._cancel_wake[due] = self._later(at, due)
            case CancelWake(due=due):
                self._cancel_wake.pop(due)()
            case Report() | Waiting():
                self._report(command)
            case Reply(event=Request(sender=pykka.Future() as future), result=result):
                self._unanswered.discard(future)
                future.set(result)
                if future is self._boot and isinstance(result, Ok):
                    self.report_started()
            case Gone(reason=reason):
                self.exit_reason = reason
                super()._stop()

    def _later(self, at: float, message: object) -> Callable[[], None]:
        ref = self.actor_ref

        def call() -> None:
            with contextlib.suppress(pykka.ActorDeadError):
                ref.tell(message)

        return self._scheduler.at(at, call)

    def _launch(self, launch: Launch) -> None:
        id, generation, spec = launch.id, launch.generation, launch.spec
        start = observed(spec.start, Watch(id, generation, self.actor_ref))
        if start is None:
            problem = f"start must be an actor class, its start or a partial of one, not {spec.start!r}"
            self._feed(StartFailed(id, generation, ExitReason(ExitKind.CONFIG, problem)))
            return
        try:
            ref = start(*spec.args)
        except Ignore:
            self._feed(Ignored(id, generation))
        except BaseException as error:
            self._feed(StartFailed(id, generation, ExitReason.of(error)))
        else:
            self._incarnations[generation] = _Incarnation(id, ref)

    def _terminate(self, terminate: Terminate) -> None:
        incarnation = self._incarnations.get(terminate.generation)
        if incarnation is None:
            return  # Its constructor failed, and that is already among the events.
        incarnation.asked = True
        incarnation.ref.stop(block=False)
        if terminate.shutdown == 0:
            self._kill(terminate.generation, incarnation, "brutal kill")
        elif terminate.shutdown < math.inf:
            at = self._scheduler.now() + terminate.shutdown
            incarnation.cancel_deadline = self._later(at, _Overdue(terminate.generation))

    def _overdue(self, generation: int) -> None:
        if incarnation := self._incarnations.get(generation):
            reason = ExitReason(ExitKind.KILLED, "it did not stop in time, and a thread cannot be killed")
            self._report(Report(ReportKind.ABANDONED, incarnation.id, reason))
            self._kill(generation, incarnation, reason.detail)

    def _kill(self, generation: int, incarnation: _Incarnation, why: str) -> None:
        """Cut an actor off: it handles no further message, and is gone for us."""
        pykka.ActorRegistry.unregister(incarnation.ref)
        incarnation.ref.actor_stopped.set()
        del self._incarnations[generation]
        self._feed(Exited(incarnation.id, generation, ExitReason(ExitKind.KILLED, why)))

    def _exited(self, exited: Exited) -> None:
        incarnation = self._incarnations.pop(exited.generation, None)
        if incarnation is None:
            return  # It was abandoned, and ended after all.
        incarnation.cancel_deadline()
        asked = incarnation.asked and exited.reason.kind is ExitKind.NORMAL
        self._feed(replace(exited, reason=SHUTDOWN) if asked else exited)
