"""A supervisor of processes: the actor that lends its hands to three machines that only decide.

``supervision`` decides what starts, stops and restarts; a ``lifecycle.Life`` a child leads each incarnation
from the fork to the empty tree; the ``detector`` judges silence. Each gives commands, this actor carries
them out on its host, and what comes of it goes back in as events. The Emperor is one and every vassal master
is one: one implementation at both levels.
"""

import random
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from pyemperor.actors import detector, lifecycle, supervision
from pyemperor.actors.actor import Actor, System
from pyemperor.actors.clock import Timer
from pyemperor.actors.faults import LinkFaults, addresses
from pyemperor.actors.host import Host
from pyemperor.actors.journal import Journal
from pyemperor.actors.lifecycle import Born, Died, Key, Life, LinkLost, Said, Stillborn, Terms
from pyemperor.protocol.messages import (
    Alive,
    Beat,
    Birth,
    Inject,
    Message,
    Probe,
    State,
    Trace,
)
from pyemperor.protocol.options import Supervision


@dataclass(frozen=True, slots=True)
class _LifeDue:
    key: Key
    due: lifecycle.Due


@dataclass(frozen=True, slots=True)
class _SupervisorDue:
    group: str
    due: supervision.Due


@dataclass(frozen=True, slots=True)
class _Delayed:
    """A message that a fault holds back: to the child, or from it."""

    key: Key
    message: Message
    inward: bool


@dataclass(slots=True)
class Child:
    """What is known of one child."""

    key: Key
    group: str
    birth: Birth
    life: Life
    #: How often it was started again.
    restarts: int = 0
    #: Where it stands, also between two incarnations, and why.
    state: State = State.SPAWNING
    reason: str = ""
    #: How its last incarnation ended.
    ended: supervision.ExitReason = supervision.NORMAL


def flags(settings: Supervision) -> supervision.Flags:
    """The supervision flags that a configuration asks for."""
    return supervision.Flags(
        strategy=supervision.Strategy(settings.strategy),
        intensity=settings.intensity,
        period=settings.period,
        on_exceed=settings.on_exceed,
        stable_after=settings.stable_after,
        backoff=supervision.Backoff(
            initial=min(settings.backoff.initial, settings.backoff.max),
            factor=settings.backoff.factor,
            max=settings.backoff.max,
            jitter=settings.backoff.jitter,
        ),
    )


class Overseer(Actor):
    """Supervises processes in groups: each group has one supervisor with its own strategy and budget.

    Subclasses say what happens when a child comes up, speaks or ends (:meth:`child_up`, :meth:`child_said`,
    :meth:`child_down`), and when a group has ended (:meth:`group_gone`).
    """

    def __init__(
        self,
        system: System,
        host: "Callable[[Overseer], Host]",
        journal: Journal,
        lease: detector.Lease,
        chance: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(system)
        self.journal = journal
        self.lease = lease
        self.host = host(self)
        self._chance = chance
        self._groups: dict[str, supervision.Supervisor] = {}
        self._children: dict[str, Child] = {}
        self._judge = detector.Judge()
        self._judge_timer: Timer | None = None
        self._timers: dict[tuple[str, object], Timer] = {}
        self._faults = LinkFaults(chance)
        self._now = system.now()

    # ---- for subclasses -------------------------------------------------------------------------------

    def add_group(self, name: str, supervisor: supervision.Supervisor) -> None:
        """Have ``supervisor`` start its children; their ``start`` is a :class:`Birth`."""
        self._groups[name] = supervisor
        self.supervise(name, supervision.Boot())

    def supervise(self, group: str, event: supervision.Event) -> None:
        """Give the supervisor of ``group`` an event and carry out what it commands."""
        if supervisor := self._groups.get(group):
            for command in supervisor.handle(event, self._now):
                self._carry_out(group, command)

    def tell_child(self, name: str, message: Message) -> None:
        """Send a message to the present incarnation of a child, if there is one."""
        if child := self._children.get(name):
            self._send(child.key, message)

    def child_enters(self, child: str) -> None:
        """A child has come to another :attr:`Child.state`."""

    def child_up(self, child: str) -> None:
        """A child can do its work."""

    def child_said(self, child: str, message: Message) -> None:
        """A child said something that is not about its own life."""

    def child_down(self, child: str) -> None:
        """A child is gone; it may come back. What it died of is in its :attr:`Child.ended`."""

    def child_gone(self, child: str) -> None:
        """A child that was to be terminated is gone for good."""

    def child_refused(self, child: str, reason: str) -> None:
        """A child that was to be started beside the others could not start; it is forgotten."""

    def child_waits(self, child: str, until: float) -> None:
        """A child is not started again before ``until``."""

    def group_gone(self, group: str, reason: str) -> None:
        """The supervisor of ``group`` has ended, after all its children."""

    def child(self, name: str) -> Child | None:
        """The child of that name; None when it was never started, or its group has ended."""
        return self._children.get(name)

    @property
    def groups(self) -> Iterable[str]:
        return self._groups

    @property
    def children_up(self) -> int:
        """How many children are ready."""
        return sum(child.life.up for child in self._children.values())

    # ---- events -----------------------------------------------------------------------------------------

    def handle(self, message: Any, now: float) -> Any:
        self._now = now
        match message:
            case Said(key=key, message=said):
                if self._faults:
                    self._late(key, said, inward=True)
                else:
                    self._said(key, said)
            case _Delayed(key=key, message=delayed, inward=inward):
                self._said(key, delayed) if inward else self.host.send(key, delayed)
            case Born() | Stillborn() | LinkLost() | Died():
                self._live(message.key, message)
            case _LifeDue():
                self._live(message.key, message.due)
            case _SupervisorDue():
                self._timers.pop((message.group, message.due), None)
                self.supervise(message.group, message.due)
            case detector.Due():
                self._consult(self._judge.handle(message, now))

    def _said(self, key: Key, message: Message) -> None:
        child = self._children.get(key.name)
        if child is None or child.key != key:
            return
        match message:
            case Beat(sent_at=sent_at):
                self._consult(self._judge.handle(detector.Heard(key.name, sent_at), self._now))
                if self.journal.up is not None:
                    self.journal.trace(Trace(self._now, child.birth.actor, "beat", "", child.life.pid))
                self.child_said(key.name, message)
            case Alive(nonce=nonce):
                self._consult(self._judge.handle(detector.Answered(key.name, nonce), self._now))
            case Trace():
                self.journal.trace(message)
            case _:
                self._live(key, Said(key, message))
                self.child_said(key.name, message)

    # ---- faults ---------------------------------------------------------------------------------------

    def inject(self, fault: Inject) -> None:
        """Carry out a scenario's fault, here or further down."""
        self._faults.apply(fault)
        if fault.kind == "hang" and addresses(fault.target, self.journal.actor):
            self.actor_inbox.hang(fault.seconds)
            return
        for child in self._children.values():
            self.host.send(child.key, fault)

    def _send(self, key: Key, message: Message) -> None:
        if self._faults:
            self._late(key, message, inward=False)
        else:
            self.host.send(key, message)

    def _late(self, key: Key, message: Message, *, inward: bool) -> None:
        child = self._children.get(key.name)
        ours, theirs = self.journal.actor, child.birth.actor if child else ""
        late = self._faults.delay(*((theirs, ours) if inward else (ours, theirs)), message)
        if late is not None:
            self.after(late, _Delayed(key, message, inward))

    # ---- one incarnation ----------------------------------------------------------------------------------

    def _launch(self, group: str, name: str, generation: int, birth: Birth) -> None:
        key = Key(name, generation)
        settings = birth.vassal.supervision
        life = Life(Terms(settings.start_timeout, settings.stable_after, birth.mercy))
        previous = self._children.get(name)
        restarts = previous.restarts + 1 if previous else 0
        child = self._children[name] = Child(key, group, birth, life, restarts)
        self.journal.event(birth.actor, "restart" if previous else "start", self._now)
        self._enter(child, State.SPAWNING)
        self.host.fork(key, birth)

    def _live(self, key: Key, event: lifecycle.Event) -> None:
        child = self._children.get(key.name)
        if child is not None and child.key == key:
            for command in child.life.handle(event):
                self._do(child, command)

    def _do(self, child: Child, command: lifecycle.Command) -> None:
        actor, key, now = child.birth.actor, child.key, self._now
        match command:
            case lifecycle.Enter(state=state, reason=reason):
                if not child.life.up:
                    self._consult(self._judge.close(key.name))
                self._enter(child, state, reason, child.life.pid)
            case lifecycle.Send(message=message):
                self._send(key, message)
            case lifecycle.Wake(seconds=seconds, due=due):
                self.after(seconds, _LifeDue(key, due))
            case lifecycle.Dump():
                self.host.signal(key, signal.SIGCONT)
                self.host.signal(key, signal.SIGUSR2)
            case lifecycle.Kill(reason=reason, family=family):
                self.journal.event(actor, "kill", now, child.life.pid, reason, level="WARNING")
                self.host.kill(key, family=family)
            case lifecycle.Up():
                self._consult(self._judge.open(key.name, self.lease, now))
                self.supervise(child.group, supervision.Started(key.name, key.generation))
                self.child_up(key.name)
            case lifecycle.Down(kind=kind, detail=detail, started=started):
                why = child.ended = supervision.ExitReason(supervision.ExitKind(kind), detail)
                self.host.forget(key)
                self.journal.event(actor, "exit", now, child.life.pid, detail)
                self.child_down(key.name)
                if started:
                    self.supervise(child.group, supervision.Exited(key.name, key.generation, why))
                else:
                    self.supervise(child.group, supervision.StartFailed(key.name, key.generation, why))

    def _enter(self, child: Child, state: State, reason: str = "", pid: int = 0, *, later: str = "") -> None:
        """Log that ``child`` is in ``state``, and why; ``later`` is for who has not read the line before."""
        child.state, child.reason = state, later or reason
        self.journal.state(child.birth.actor, state, self._now, pid, reason)
        self.child_enters(child.key.name)

    # ---- supervision --------------------------------------------------------------------------------------

    def _carry_out(self, group: str, command: supervision.Command) -> None:
        match command:
            case supervision.Launch(id=name, generation=generation, spec=spec):
                assert isinstance(spec.start, Birth)
                self._launch(group, name, generation, spec.start)
            case supervision.Terminate(id=name, shutdown=shutdown):
                if child := self._children.get(name):
                    self._live(child.key, lifecycle.StopAsked(shutdown))
            case supervision.Wake(at=at, due=due):
                self._timers[group, due] = self.after(max(0.0, at - self._now), _SupervisorDue(group, due))
            case supervision.CancelWake(due=due):
                if timer := self._timers.pop((group, due), None):
                    timer.cancel()
            case supervision.Waiting(id=name, until=until, cursed=cursed):
                child = self._children[name]
                state = State.CURSED if cursed else State.BACKOFF
                delay = until - self._now
                later = "; ".join(filter(None, (child.ended.detail, f"next start {delay:.1f} s later")))
                self._enter(child, state, f"next start in {delay:.1f} s", later=later)
                self.child_waits(name, until)
            case supervision.Report():
                self._report(group, command)
            case supervision.Reply(event=supervision.TerminateChild(id=name), result=supervision.Ok()):
                self.supervise(group, supervision.DeleteChild(name))
                self._children.pop(name, None)
                self.child_gone(name)
            case supervision.Reply(
                event=supervision.StartChild(spec=spec), result=supervision.Refused(reason=reason)
            ) if spec is not None:
                self._children.pop(spec.id, None)
                self.child_refused(spec.id, str(reason or "it was stopped"))
            case supervision.Gone(reason=reason):
                self._groups.pop(group)
                self._children = {n: child for n, child in self._children.items() if child.group != group}
                self.group_gone(group, str(reason))

    def _report(self, group: str, report: supervision.Report) -> None:
        child = self._children.get(report.id)
        if report.kind is supervision.ReportKind.EXILED and child is not None:
            why = report.reason.detail if report.reason else ""
            self._enter(child, State.EXILED, why)
        else:
            self.journal.log("DEBUG", f"{group}: {report}", self._now)

    # ---- judgement ------------------------------------------------------------------------------------------

    def _consult(self, commands: Iterable[detector.Command]) -> None:
        for command in commands:
            self._obey_judge(command)

    def _obey_judge(self, command: detector.Command) -> None:
        now = self._now
        match command:
            case detector.Wake(at=at):
                if self._judge_timer:
                    self._judge_timer.cancel()
                self._judge_timer = None if at is None else self.after(max(0.0, at - now), detector.Due(at))
                return
            case detector.Credit(seconds=seconds):
                reason = f"{seconds:.2f} s of our own lateness were given to everybody"
                self.journal.event(self.journal.actor, "credit", now, reason=reason)
                return
        child = self._children[command.peer]
        actor, pid = child.birth.actor, child.life.pid
        match command:
            case detector.Ask(nonce=nonce):
                self._live(child.key, lifecycle.Suspected())
                self.journal.event(actor, "probe.sent", now, pid)
                self._send(child.key, Probe(nonce))
            case detector.Cleared(after_seconds=seconds):
                self.journal.event(actor, "probe.cleared", now, pid, f"after {seconds:.2f} s")
                self._live(child.key, lifecycle.Cleared())
            case detector.Look(peer=peer):
                evidence = self.host.evidence(child.key)
                self._consult(self._judge.handle(detector.Seen(peer, evidence), now))
            case detector.Continue():
                self.host.signal(child.key, signal.SIGCONT)
            case detector.Extended(why=why):
                self.journal.event(actor, "starved" if why == "starved" else "credit", now, pid, why)
            case detector.Convict():
                role = "vassal" if child.birth.kind == "master" else child.birth.kind
                self._live(child.key, lifecycle.Convicted(detector.explain(command, pid, role)))

    def kill_all(self) -> None:
        """No mercy any more: kill whatever child there is."""
        for child in self._children.values():
            self._live(child.key, lifecycle.StopAsked(0))
