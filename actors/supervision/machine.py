"""The supervisor: what follows from an event. Pure; see the package for the rules and for examples."""

from collections.abc import Callable, Iterable

from pyemperor.actors.supervision.administration import Administration
from pyemperor.actors.supervision.children import STARTS, Child, Children, Fate
from pyemperor.actors.supervision.messages import (
    Boot,
    ChildInfo,
    Command,
    Counts,
    Due,
    Event,
    Exited,
    Gone,
    Ignored,
    Ok,
    Phase,
    Refused,
    ReportKind,
    Request,
    Result,
    Shutdown,
    StartChild,
    Started,
    StartFailed,
    TerminateChild,
    Why,
)
from pyemperor.actors.supervision.restart import (
    ENVIRONMENT_BACKOFF,
    NORMAL,
    SHUTDOWN,
    Budget,
    ExitKind,
    ExitReason,
)
from pyemperor.actors.supervision.spec import ChildSpec, Flags, Restart


class Supervisor:
    """One supervisor. :meth:`handle` is the only way in; the rest looks and does not touch.

    ``random`` returns numbers in [0, 1) for the jitter of the back-off.

    Raises :class:`ValueError` for children that do not fit together or do not fit the flags.
    """

    def __init__(
        self, flags: Flags, children: Iterable[ChildSpec] = (), *, random: Callable[[], float]
    ) -> None:
        specs = list(children)
        ids = [spec.id for spec in specs]
        if duplicates := sorted({id for id in ids if ids.count(id) > 1}):
            raise ValueError(f"duplicate child id: {', '.join(duplicates)}")
        for spec in specs:
            if problem := flags.misfit(spec):
                raise ValueError(f"{spec.id}: {problem}")
        if flags.simple and len(specs) != 1:
            raise ValueError(f"simple_one_for_one needs exactly one child spec, not {len(specs)}")
        self.flags = flags
        self._children = Children(flags, () if flags.simple else specs)
        template = specs[0] if flags.simple else None
        self._administration = Administration(flags, self._children, template)
        self._random = random
        #: What all children share, under ``escalate``.
        self._budget = Budget(flags.intensity, flags.period)
        self._booted = False
        self._boot: Boot | None = None
        #: What the boot is answered if the supervisor ends before it is over.
        self._boot_failure = Refused(Why.TERMINATED)
        #: Why it is ending; it is gone when nothing is left to stop.
        self._end_reason: ExitReason | None = None
        self._shutdowns: list[Request] = []
        self._gone = False

    # ---- views ---------------------------------------------------------------------------------------

    @property
    def gone(self) -> ExitReason | None:
        """Why the supervisor has ended; None as long as it has not."""
        return self._end_reason if self._gone else None

    @property
    def next_deadline(self) -> float | None:
        """When the next waiting child is due; None when none is."""
        return min((child.until for child in self._children if child.due), default=None)

    def which_children(self) -> list[ChildInfo]:
        """All children in the order of their start."""
        return self._children.infos()

    def count_children(self) -> Counts:
        """OTP's four numbers: specs, active, supervisors, workers."""
        return self._children.counts()

    def get_childspec(self, id: str) -> ChildSpec | None:
        """The spec of a child; None when there is no such child."""
        child = self._children.get(id)
        return child.spec if child else None

    # ---- events --------------------------------------------------------------------------------------

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take in one event at the time ``now``; the commands are to be carried out in order."""
        match event:
            case Request():
                self._request(event)
            case Due():
                self._children.woken(event, now)
            case _:
                child = self._children.get(event.id)
                # Only the current incarnation has a say; whatever comes late or twice is not it.
                if child is not None and child.generation == event.generation and child.phase.live:
                    self._heard(child, event, now)
        self._children.stop_doomed()
        if self._end_reason:
            self._leave(self._end_reason)
        elif self._booted:
            self._children.start_due(booting=self._boot is not None)
            if self._children.settled:
                self._answer_boot(Ok())
        return self._children.take_commands()

    def _heard(self, child: Child, event: Started | Ignored | StartFailed | Exited, now: float) -> None:
        match event:
            case Started():
                child.handle = event.handle
                if child.phase is Phase.STARTING:
                    self._up(child, now)
            case Ignored():
                self._down(child, NORMAL, now, ignored=True)
            case StartFailed() | Exited():
                self._down(child, event.reason, now)

    def _up(self, child: Child, now: float) -> None:
        child.phase = Phase.UP
        child.up_since = now
        child.initial = False
        child.environment_wait = 0.0
        self._children.report(ReportKind.PROGRESS, child)
        self._children.answer(child, STARTS, Ok(child.spec.id, child.handle))

    def _down(self, child: Child, reason: ExitReason, now: float, *, ignored: bool = False) -> None:
        """The incarnation is over."""
        before, child.phase = child.phase, Phase.DOWN
        child.handle = None
        if child.fate:
            self._stopped(child, child.fate, reason)
        elif ignored:
            self._ignored(child)
        elif before is Phase.STARTING:
            self._start_failed(child, reason, now)
        else:
            self._ended(child, reason, now)

    def _ignored(self, child: Child) -> None:
        child.initial = False
        self._children.answer(child, STARTS, Ok(child.spec.id))
        if self._children.drops(child):
            self._children.forget(child)

    def _start_failed(self, child: Child, reason: ExitReason, now: float) -> None:
        """A start that somebody asked for is his affair when it fails; any other is tried again."""
        self._children.report(ReportKind.START_ERROR, child, reason)
        asked = [type(caller) for caller in child.callers if isinstance(caller, STARTS)]
        self._children.answer(child, STARTS, Refused(Why.FAILED, child.spec.id, reason=reason))
        curse = self.flags.on_exceed == "curse"
        if child.initial and not curse and reason.kind is not ExitKind.ENV:
            self._boot_failure = Refused(Why.FAILED, child.spec.id, reason=reason)
            self._end(ExitReason(ExitKind.SHUTDOWN, f"failed_to_start_child {child.spec.id}: {reason}"))
        elif child.spec.temporary or (StartChild in asked and not curse):
            self._children.forget(child)
        elif curse or not asked:
            self._restart(child, reason, now, alone=bool(asked))

    def _ended(self, child: Child, reason: ExitReason, now: float) -> None:
        """A child that was up ended by itself."""
        self._children.report(ReportKind.CHILD_TERMINATED, child, reason)
        stable = now - child.up_since >= self.flags.stable_after
        if child.spec.temporary:
            self._children.forget(child)
        elif child.spec.restart is Restart.PERMANENT or not reason.expected:
            self._restart(child, reason, now, stable=stable)
            return
        if child.spec.significant:
            self._auto_shutdown()

    def _stopped(self, child: Child, fate: Fate, reason: ExitReason) -> None:
        """A child that was to be stopped is gone, be it by our doing or its own."""
        match reason.kind:
            case ExitKind.SHUTDOWN:
                pass
            case ExitKind.KILLED if child.spec.shutdown == 0:
                pass
            case ExitKind.NORMAL if child.spec.restart is not Restart.PERMANENT:
                pass
            case _:
                self._children.report(ReportKind.SHUTDOWN_ERROR, child, reason)
        child.fate = None
        self._children.answer(child, (TerminateChild,), Ok(child.spec.id))
        if fate is Fate.RESTART:
            self._children.start(child)
            return
        self._children.rest(child)
        if fate is Fate.FORGET:
            self._children.forget(child)

    # ---- restarting ----------------------------------------------------------------------------------

    def _restart(
        self, child: Child, reason: ExitReason, now: float, *, stable: bool = False, alone: bool = False
    ) -> None:
        """Plan the next start of ``child``, and of those that depend on it unless ``alone``."""
        if reason.kind in (ExitKind.CONFIG, ExitKind.EXILE):
            child.phase = Phase.EXILED
            self._children.report(ReportKind.EXILED, child, reason)
        elif (until := self._next_attempt(child, reason, now, stable)) is not None:
            self._children.postpone(child, until, now)
        else:
            self._children.report(ReportKind.REACHED_MAX_RESTART_INTENSITY, child, reason)
            self._end(SHUTDOWN)
            return
        for sibling in () if alone else self._children.depending_on(child):
            self._restart_with(sibling)

    def _next_attempt(self, child: Child, reason: ExitReason, now: float, stable: bool) -> float | None:
        """Charge an attempt and say when it is to be made; None: the budget of all is exceeded."""
        if reason.kind is ExitKind.ENV:
            child.environment_wait = ENVIRONMENT_BACKOFF.after(child.environment_wait)
            return now + ENVIRONMENT_BACKOFF.spread(child.environment_wait, self._random)
        backoff = self.flags.backoff
        child.wait = 0.0 if stable else backoff.after(child.wait)
        child.cursed = child.cursed and not stable
        at = now + backoff.spread(child.wait, self._random)
        if self.flags.on_exceed == "escalate":
            # OTP charges the attempt when it is decided: at the death.
            if self._budget.permitted_at(now) > now:
                return None
            self._budget.charge(now)
            return at
        # Both must permit: the back-off, and the window at the time of the attempt, which is what is charged.
        permitted = child.budget.permitted_at(at)
        if permitted > at:
            child.cursed = True
            self._children.report(ReportKind.CURSED, child, reason)
        child.budget.charge(permitted)
        return permitted

    def _restart_with(self, sibling: Child) -> None:
        """Have a child go down and come back with another; as in OTP, one that was down comes back too."""
        if sibling.phase.live:
            # Whom somebody has terminated meanwhile does not come back (OTP's terminate_child waits for the end).
            if sibling.fate is None:
                sibling.fate = Fate.FORGET if self._children.drops(sibling) else Fate.RESTART
        elif sibling.spec.temporary:
            self._children.rest(sibling)
            self._children.forget(sibling)
        elif sibling.phase is not Phase.EXILED:
            self._children.start(sibling)

    # ---- ending --------------------------------------------------------------------------------------

    def _auto_shutdown(self) -> None:
        """A significant child ended by itself, for good."""
        left = any(
            child.spec.significant and (child.phase.live or child.phase.restarting)
            for child in self._children
        )
        if self.flags.auto_shutdown == "any_significant" or not left:
            self._end(SHUTDOWN)

    def _end(self, reason: ExitReason) -> None:
        if self._end_reason:
            return
        self._end_reason = reason
        for child in self._children:
            if child.phase.live:
                child.fate = Fate.KEEP
            else:
                self._children.rest(child)

    def _leave(self, reason: ExitReason) -> None:
        """End when nothing is left to stop."""
        if self._gone or self._children.any_live:
            return
        self._gone = True
        self._answer_boot(self._boot_failure)
        for request in self._shutdowns:
            self._children.reply(request, Ok())
        self._children.command(Gone(reason))

    # ---- requests ------------------------------------------------------------------------------------

    def _request(self, request: Request) -> None:
        match request:
            case Shutdown() if self._gone:
                self._children.reply(request, Ok())
            case Shutdown():
                self._shutdowns.append(request)
                self._end(SHUTDOWN)
            case Boot() if not self._booted and not self._end_reason:
                self._booted = True
                self._boot = request
            case _ if not self._booted or self._end_reason:
                self._children.reply(request, Refused(Why.NOPROC))
            case Boot():
                self._children.reply(request, Refused(Why.ALREADY_STARTED))
            case _:
                self._administration.handle(request)

    def _answer_boot(self, result: Result) -> None:
        if self._boot:
            self._children.reply(self._boot, result)
            self._boot = None


