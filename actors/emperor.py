"""The Emperor: supervises one master per vassal, owns the listening sockets, judges the masters."""

import contextlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import msgspec
import pykka

from pyemperor.actors.actor import Down, System
from pyemperor.actors.administration import Dismiss, Govern, Outcome, Refuse, Reload, Stop
from pyemperor.actors.chores import Chores
from pyemperor.actors.detector import Lease, beat_interval
from pyemperor.actors.generations import Sockets
from pyemperor.actors.herald import Herald
from pyemperor.actors.host import Host, HostClosed, HostLost
from pyemperor.actors.journal import Journal
from pyemperor.actors.overseer import Overseer
from pyemperor.actors.superior import FromParent, ParentLost
from pyemperor.actors.supervision import ExitKind, Shutdown
from pyemperor.actors.supervision.restart import Budget
from pyemperor.protocol.messages import Birth, Inject
from pyemperor.protocol.options import EmperorOptions, Vassal

__all__ = ["ChildEnded", "Emperor", "Govern", "ImperialHost", "Quit", "Sockets"]


@dataclass(frozen=True, slots=True)
class Quit:
    """Stop everything gracefully and end; a second one: at once."""

    why: str


@dataclass(frozen=True, slots=True)
class ChildEnded:
    """SIGCHLD: some child of the Emperor's process has ended."""


@dataclass(frozen=True, slots=True)
class _HostDue:
    """Time to start another fork server."""


#: Seconds within which a second signal to quit is the same as the first.
_SAME = 0.5
#: How often whoever is left is killed at the end, and the seconds after each time.
_ATTEMPTS, _ATTEMPT = 2, 7.0
#: Fork servers that may die within so many seconds before the next one waits.
_HOSTS, _HOSTS_PERIOD = 3, 10.0
#: Failures of a companion within so many seconds before the next one waits.
_FAILURES, _FAILURES_PERIOD = 1, 10.0

#: Starts an actor that serves the Emperor, who is its owner.
Engage = Callable[[], pykka.ActorRef[Any]]


class Companion:
    """An actor beside the Emperor that is no process's: started anew when it fails."""

    def __init__(self, name: str, engage: Engage) -> None:
        self.name = name
        self.engage = engage
        self.budget = Budget(_FAILURES, _FAILURES_PERIOD)
        self.actor: pykka.ActorRef[Any] | None = None

    def tell(self, message: object) -> None:
        """Tell whoever attends at the moment; nobody hears it between two."""
        if self.actor is not None:
            with contextlib.suppress(pykka.ActorDeadError):
                self.actor.tell(message)

    def stop(self) -> None:
        """Ask it to stop, and do not wait: it may hang."""
        if self.actor is not None:
            self.actor.stop(block=False)


@dataclass(frozen=True, slots=True)
class _CompanionDue:
    """Time to start another one."""

    companion: Companion


@dataclass(frozen=True, slots=True)
class _NoMercy:
    """The mercy of whoever is left without a supervisor is over, for so many times."""

    times: int = 0


class ImperialHost(Host, Protocol):
    """A host that the Emperor starts, replaces and closes."""

    def start(self) -> int: ...
    def restart(self, masters: Mapping[str, Birth]) -> int: ...
    def close(self) -> None: ...
    def reap(self) -> None: ...
    def kill_rest(self) -> None: ...


class Emperor(Herald):
    """Governs vassals until it is told to quit; a cursed one never harms its neighbours."""

    def __init__(
        self,
        system: System,
        host: Callable[[Overseer], ImperialHost],
        journal: Journal,
        options: EmperorOptions,
        sockets: Sockets,
        vassals: Iterable[Govern] = (),
        **more: Any,
    ) -> None:
        lease = Lease(options.emperor_required_heartbeat, options.heartbeat_probe)
        super().__init__(system, host, journal, lease, sockets=sockets, **more)
        self._options = options
        self.exit_code = 0
        #: What was wanted before ``hook-emperor-start`` was done.
        self._first: list[Govern | Refuse | Dismiss] = list(vassals)
        self._starting = ""
        self._quitting = False
        self._quit_at = 0.0
        self._closed = False
        self._longest_mercy = 0.0
        self._hosts = Budget(_HOSTS, _HOSTS_PERIOD)
        self._companions: list[Companion] = []
        self._chores = Chores(self)

    host: ImperialHost

    def on_start(self) -> None:
        self.journal.event("fork-server", "start", self._now, self.host.start())
        if steps := self._options.at_start:
            self._starting = self._chores.send(self.birth_of(Vassal("emperor")), "start", steps)
        else:
            self._begin_rule()

    def _begin_rule(self) -> None:
        first, self._first = self._first, []
        for wanted in first:
            self.handle(wanted, self._now)
        self.announce()

    def _started(self, child: str) -> None:
        """``hook-emperor-start`` has been carried out, or has failed: then there is no Emperor."""
        self._starting = ""
        hook = self.child(child)
        if self._quitting or hook is None:
            return
        if hook.ended.kind is ExitKind.NORMAL:
            self._begin_rule()
        else:
            self.exit_code = 1
            self.journal.log("ERROR", f"there is no Emperor: {hook.ended.detail}", self._now)
            self._quit("its start failed")

    def handle(self, message: Any, now: float) -> Any:
        self._now = now
        match message:
            case Govern() | Refuse() | Dismiss() | Reload() if self._quitting:
                return self._too_late(message)
            case Govern() | Refuse() | Dismiss() if self._starting:
                self._first.append(message)
            case Stop(name=None):
                return self._stop_all(message)
            case Quit():
                self._quit(message.why)
            case HostLost():
                self._host_lost()
            case _HostDue():
                if not self._closed:
                    self.journal.event("fork-server", "restart", now, self.host.restart(self._births))
            case _NoMercy(times=times):
                self._end_rest(times)
            case HostClosed():
                self.stop()
            case ChildEnded():
                self.host.reap()
            case FromParent(message=Inject() as fault):
                self.inject(fault)
            case ParentLost():
                self._quit("whoever played the scenario is gone")
            case Down(actor=actor, error=error):
                if error is not None:
                    self._companion_lost(actor, error)
            case _CompanionDue(companion=companion):
                if not self._quitting:
                    self._engage(companion)
            case _:
                return super().handle(message, now)
        return None

    def birth_of(self, vassal: Vassal) -> Birth:
        env = self._options.environment_of(vassal)
        birth = Birth(
            kind="master",
            vassal=vassal if env == vassal.env else msgspec.structs.replace(vassal, env=env),
            beat=beat_interval(vassal.heartbeat, self.lease.tolerance),
            tolerance=self.lease.tolerance,
            probe=self.lease.probe,
            log_style=self._options.log_style,
            traced=self.journal.up is not None,
            before=self._options.before_vassals,
        )
        if vassal.heartbeat > birth.beat:
            text = (
                f"vassal {vassal.name}: heartbeat = {vassal.heartbeat:g} with a tolerance of "
                f"{self.lease.tolerance:g} s leaves too little room; it will beat every {birth.beat:g} s"
            )
            self.journal.log("INFO", text, self._now)
        self._longest_mercy = max(self._longest_mercy, birth.mercy)
        return birth

    def accompany(self, name: str, engage: Engage) -> Companion:
        """Start an actor that serves this one, called ``name`` in the log, and again whenever it fails.

        To be called before this actor runs.
        """
        companion = Companion(name, engage)
        self._companions.append(companion)
        companion.actor = engage()
        return companion

    def _companion_lost(self, actor: pykka.ActorRef[Any], error: BaseException) -> None:
        companion = next((one for one in self._companions if one.actor == actor), None)
        if companion is not None:
            self._engage_again(companion, error)
        else:
            self.journal.log("ERROR", f"{actor.actor_class.__name__} failed: {error!r}", self._now)

    def _engage_again(self, companion: Companion, error: BaseException) -> None:
        at = companion.budget.permitted_at(self._now)
        companion.budget.charge(at)
        text = f"the {companion.name} failed, another one starts in {at - self._now:.1f} s: {error!r}"
        self.journal.log("ERROR", text, self._now)
        self.after(at - self._now, _CompanionDue(companion))

    def _engage(self, companion: Companion) -> None:
        try:
            companion.actor = companion.engage()
        except (OSError, RuntimeError) as error:  # no descriptor or no thread is left at the moment
            self._engage_again(companion, error)

    def _host_lost(self) -> None:
        now = self._now
        self.journal.event("fork-server", "exit", now, reason="nothing that runs is harmed", level="ERROR")
        at = self._hosts.permitted_at(now)
        self._hosts.charge(at)
        self.after(at - now, _HostDue())

    def _end_rest(self, times: int) -> None:
        """Kill whoever is left, and leave in the end: what hangs in the kernel must not hold the Emperor."""
        if times < _ATTEMPTS:
            self.host.kill_rest()
            self.after(_ATTEMPT, _NoMercy(times + 1))
        else:
            self.journal.log("ERROR", "some processes do not die of SIGKILL: leaving without them", self._now)
            self.stop()

    def _too_late(self, message: Govern | Refuse | Dismiss | Reload) -> Any:
        if not isinstance(message, Reload):
            return None
        asked = self._asked(1, message.answer)
        asked.note(Outcome(message.name or "emperor", False, "everything is being stopped"))
        return asked.future

    def _stop_all(self, stop: Stop) -> Any:
        asked = self._asked(len(self._provinces), stop.answer)
        for name in self._provinces:
            asked.note(Outcome(name, True, "it is being stopped"))
        self._quit("asked to stop")
        return asked.future

    def _quit(self, why: str) -> None:
        if self._quitting and self._now - self._quit_at < _SAME:
            return  # `timeout` and terminals signal the process and its group: that is one wish
        if self._quitting:
            self.journal.log("WARNING", f"{why} again: stopping at once", self._now)
            self.kill_all()
            self.host.kill_rest()
            return
        self._quitting = True
        self._quit_at = self._now
        self.journal.log("INFO", f"{why}: stopping every vassal", self._now, event="quit")
        self.take_leave()
        self.supervise(self._starting, Shutdown())
        self.halt_all()
        self._finish()

    def child_down(self, child: str) -> None:
        self._chores.child_down(child)
        if child == self._starting:
            self._started(child)
        super().child_down(child)

    def group_gone(self, group: str, reason: str) -> None:
        if not self._chores.group_gone(group):
            birth, (province, _) = self._births[group], self._owners[group]
            super().group_gone(group, reason)
            if not province.claims:
                self._chores.send(birth, "ended", self._options.after_vassals)
        self._finish()

    def _finish(self) -> None:
        if self._quitting and not self.groups and not self._closed:
            self._closed = True
            self.host.close()
            # Who lost both its supervisor and the fork server that forked it has only this to end it.
            self.after(self._longest_mercy, _NoMercy())
