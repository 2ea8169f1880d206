"""A worker: owns `threads` runners, supervises them, and stays free for its own mailbox."""

import math
import os
import random
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pykka

from pyemperor.actors.actor import Actor, Down, System
from pyemperor.actors.cgi_runner import Abort, CgiRunner, CoreState, Drain, Hold, Listener
from pyemperor.actors.journal import Journal
from pyemperor.actors.outcome import Outcome
from pyemperor.actors.overseer import flags
from pyemperor.actors.superior import FromParent, Superior, Upward
from pyemperor.actors.supervision import (
    SHUTDOWN,
    Boot,
    ChildSpec,
    Command,
    Event,
    Exited,
    ExitReason,
    Gone,
    Launch,
    Shutdown,
    Started,
    Strategy,
    Supervisor,
    Terminate,
    Wake,
)
from pyemperor.actors.wear import most_requests
from pyemperor.protocol.messages import Accepting, Beat, Birth, Core, Inject, Pause, Ready, Trace, Worn

#: Makes a runner's listeners, and prepares its thread.
Listeners = Callable[[CgiRunner, "Worker"], Sequence[Listener]]
_STUCK = 5.0


@dataclass(frozen=True, slots=True)
class _FirstRequest:
    """A runner has served the first request of this worker."""


@dataclass(frozen=True, slots=True)
class _Worn:
    """This worker has served as many ``requests`` as it was to serve."""

    requests: float


@dataclass(frozen=True, slots=True)
class _NoMercy:
    """The mercy for a stop is over."""


@dataclass(frozen=True, slots=True)
class _Stuck:
    """Runners have not ended although their scripts were killed."""


class Worker(Actor):
    """Ready when its runners run; ends when each has finished the request it had accepted."""

    def __init__(
        self,
        system: System,
        journal: Journal,
        birth: Birth,
        upward: Upward,
        listeners: Listeners,
        prepare: Callable[[], None] = lambda: None,
        served: Callable[[int, Outcome, float], None] = lambda *_: None,
        reap: Callable[[], None] = lambda: None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(system)
        self.exit_code = 0
        self.journal = journal
        self._birth = birth
        self._listeners = listeners
        self._prepare = prepare
        self._log_request = served
        self._reap = reap
        self._cores = [CoreState() for _ in range(birth.vassal.threads)]
        self._loyal = False
        self._most_requests = most_requests(birth.vassal, birth.index)
        self._stopping = False
        self._paused = birth.paused
        self._runners: dict[pykka.ActorRef[CgiRunner], tuple[str, int]] = {}
        self._superior = Superior(self, upward(self), birth.beat, self._beat, self._finish, birth.mercy)
        journal.up = self._superior.link.send if birth.traced else None
        specs = [ChildSpec(str(index), shutdown=birth.mercy) for index in range(len(self._cores))]
        # Runners are strangers to each other: when the worker stops, none of them takes another request.
        runner_flags = replace(
            flags(birth.vassal.supervision), strategy=Strategy.ONE_FOR_ONE, parallel=True
        )
        self._supervisor = Supervisor(runner_flags, specs, random=chance)

    def on_start(self) -> None:
        self._supervise(Boot(), self.system.now())
        self._superior.link.send(Ready())
        self._superior.start(self.system.now())

    def handle(self, message: Any, now: float) -> None:
        if self._superior.take(message, now):
            return
        match message:
            case Down():
                self._runner_down(message, now)
            case _FirstRequest():
                if not self._loyal:
                    self._loyal = True
                    self._superior.link.send(Accepting())
            case _Worn(requests=requests):
                # It serves on, until another one is ready and the master asks it to stop.
                self._superior.link.send(Worn(f"it has served {requests:.0f}, its max-requests"))
            case FromParent(message=Pause(paused=paused)):
                self._paused = paused
                self._tell_all(Hold(paused))
            case _NoMercy():
                self._tell_all(Abort("the server is stopping"))
                self.after(_STUCK, _Stuck())
            case _Stuck():
                self.journal.log("ERROR", "a runner did not end: leaving without it", now)
                self._leave(1)
            case _:
                self._supervise(message, now)

    def inject(self, fault: Inject) -> None:
        """Carry out a scenario's fault that is meant for this worker."""
        if fault.kind == "hang" and fault.target == self.journal.actor:
            self.actor_inbox.hang(fault.seconds)

    # ---- runners ----------------------------------------------------------------------------------------

    def _supervise(self, event: Event, now: float) -> None:
        for command in self._supervisor.handle(event, now):
            self._carry_out(command, now)

    def _carry_out(self, command: Command, now: float) -> None:
        match command:
            case Launch(id=name, generation=generation):
                self._runners[self._start_runner(int(name))] = (name, generation)
                self._supervise(Started(name, generation), now)
            case Terminate(id=name):
                for runner, (its_name, _) in self._runners.items():
                    if its_name == name:
                        runner.tell(Drain())
            case Wake(at=at, due=due):
                self.after(max(0.0, at - now), due)
            case Gone():
                self._leave(0 if self._stopping else 75)

    def _start_runner(self, index: int) -> "pykka.ActorRef[CgiRunner]":
        def served(outcome: Outcome, now: float) -> None:
            if not self._loyal:
                self.actor_ref.tell(_FirstRequest())
            most = self._most_requests
            if most < math.inf and sum(core.requests for core in self._cores) >= most:
                self._most_requests = math.inf
                self.actor_ref.tell(_Worn(most))
            self._log_request(index, outcome, now)
            if self.journal.up is not None:
                path = (
                    ""
                    if outcome.request is None
                    else outcome.request.variables.get(b"REQUEST_URI", b"").decode("latin-1")
                )
                self.journal.trace(
                    Trace(now, self.journal.actor, "request", str(outcome.status), outcome.pid, path)
                )

        return CgiRunner.start(
            self.system,
            self.actor_ref,
            lambda runner: self._listeners(runner, self),
            self._cores[index],
            served,
            self._prepare,
            held=self._paused,
        )

    def _runner_down(self, down: Down, now: float) -> None:
        name, generation = self._runners.pop(down.actor)
        if down.error is not None:
            self.journal.log("ERROR", f"runner {name} failed and is replaced: {down.error!r}", now)
            self._cores[int(name)].busy_since = 0.0
        reason = ExitReason.of(down.error) if down.error else SHUTDOWN
        self._supervise(Exited(name, generation, reason), now)

    def _tell_all(self, message: object) -> None:
        for runner in self._runners:
            runner.tell(message)

    # ---- towards the master ---------------------------------------------------------------------------------

    def _beat(self, seq: int, now: float) -> Beat:
        self._reap()  # a zombie may wait that long
        cores = [
            Core(
                core.busy_since > 0,
                max(0.0, now - core.busy_since) if core.busy_since else 0.0,
                core.requests,
                core.pid,
            )
            for core in self._cores
        ]
        return Beat(seq, now, 0, sum([core.requests for core in cores]), tuple(cores))

    def _finish(self, mercy: float, why: str) -> None:
        if self._stopping:
            return
        self._stopping = True
        self.journal.log("DEBUG", f"{why}: finishing", self.system.now())
        if mercy < math.inf:
            self.after(mercy, _NoMercy())
        self._supervise(Shutdown(), self.system.now())

    def _leave(self, code: int) -> None:
        self.exit_code = code
        self._superior.beat_now(self.system.now())
        self._superior.link.close()
        self.stop()


def reap_adopted(awaited: Container[int] = ()) -> None:
    """Reap what scripts left to this worker, the subreaper; never a runner's own script, nor one of ``awaited``.

    Orphans become children of the main thread, scripts are those of their runner's thread (__WNOTHREAD, wait4(2)).
    """
    wnothread = 0x20000000
    while True:
        try:
            found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT | wnothread)
            if found is None or found.si_pid in awaited:
                return  # its runner reaps it at once, and the next beat those behind it
            os.waitpid(found.si_pid, os.WNOHANG)
        except ChildProcessError:
            return
