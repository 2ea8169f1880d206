"""A whole installation in simulated time: the Emperor and all below it, as the actors that run in earnest."""

import functools
from collections.abc import Callable
from fnmatch import fnmatchcase
from signal import SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR2, Signals

from pyemperor.actors.actor import Actor
from pyemperor.actors.administration import Reload
from pyemperor.actors.attendants import new_attendant
from pyemperor.actors.cgi_runner import CgiRunner
from pyemperor.actors.crew import Gauges
from pyemperor.actors.emperor import Emperor, Govern, Quit
from pyemperor.actors.journal import Journal
from pyemperor.actors.overseer import Overseer
from pyemperor.actors.simulation.hands import SimulatedHands
from pyemperor.actors.simulation.host import SimulatedHost, SimulatedImperialHost
from pyemperor.actors.simulation.links import LATENCY, End
from pyemperor.actors.simulation.machine import Simulation
from pyemperor.actors.simulation.processes import Reactions, SimulatedInbox, SimulatedProcess
from pyemperor.actors.simulation.sockets import (
    Answered,
    Connection,
    SimulatedDoorbell,
    SimulatedListener,
    SimulatedSockets,
)
from pyemperor.actors.superior import FromParent, ParentLost, Terminated, Upward
from pyemperor.actors.vassal_master import VassalMaster
from pyemperor.actors.worker import Worker
from pyemperor.protocol.messages import Birth, Inject, Trace
from pyemperor.protocol.scenario import Scenario


def _quit(number: int) -> Quit:
    return Quit(Signals(number).name)


_EMPERORS_SIGNALS: Reactions = {
    **dict.fromkeys((SIGTERM, SIGINT, SIGQUIT), _quit),
    SIGHUP: lambda _: Reload(),
}
#: SIGUSR2 prints the stacks, which are not there.
_CHILDS_SIGNALS: Reactions = {**dict.fromkeys((SIGTERM, SIGINT, SIGQUIT), Terminated), SIGUSR2: None}
#: Seconds from a fork to the first message that the child handles.
_BOOT = 0.0005


class World:
    """A scenario's Emperor and vassals, started at time 0; it stands still except in :meth:`run_until`.

    ``up`` gets every trace when the Emperor has it. The same ``scenario``, ``seed`` and calls give the same
    traces. Close it at the end, or use it as a context manager.
    """

    def __init__(
        self, scenario: Scenario, seed: int, up: Callable[[Trace], None] = lambda _: None
    ) -> None:
        self._simulation = Simulation(seed)
        self._sockets = SimulatedSockets(self._simulation)
        self._emperor = SimulatedProcess(self._simulation, "emperor", _EMPERORS_SIGNALS)
        Emperor.start(
            self._emperor,
            lambda actor: SimulatedImperialHost(self._emperor, _inbox(actor), spawn=self._spawn),
            Journal("emperor", up),
            scenario.emperor,
            self._sockets,
            [Govern(vassal) for vassal in scenario.vassals],
            chance=self._simulation.random.random,
        )

    def __enter__(self) -> "World":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def now(self) -> float:
        """Seconds since the start."""
        return self._simulation.time

    @property
    def pid(self) -> int:
        """The Emperor's pid."""
        return self._emperor.pid

    @property
    def exit_code(self) -> int | None:
        """The Emperor's exit code, or minus the signal that ended it; None while it runs."""
        if self._emperor.exit is None:
            return None
        code, signal = self._emperor.exit
        return -signal or code

    def run_until(self, at: float, done: Callable[[], bool] | None = None) -> bool:
        """Let time pass until ``at``, or until ``done()``, asked after each instant; say whether it was."""
        return self._simulation.run_until(at, done)

    def at(self, when: float, call: Callable[[], object]) -> None:
        """Have ``call()`` called at ``when``."""
        self._simulation.at(when, lambda _: call(), None)

    def inject(self, fault: Inject) -> None:
        """Send a fault to the Emperor, over its link to whoever plays the scenario."""
        self._later(lambda: self._emperor.notify(FromParent(fault)))

    def tell(self, message: object) -> None:
        """Tell the Emperor something of ``actors/administration``."""
        self._later(lambda: self._emperor.notify(message))

    def signal(self, address: str, number: int) -> None:
        """Signal whatever runs at ``address``, which may be a glob.

        ``emperor``, ``fork-server``, ``master:NAME``, ``worker:NAME/N``, or ``cgi:NAME/N``, that worker's
        scripts.
        """
        self.at(self.now, lambda: self._signal(address, number))

    def _signal(self, address: str, number: int) -> None:
        for process in list(self._simulation.processes.values()):
            if fnmatchcase(process.name, address):
                process.signal(number)

    def connect(self, vassal: str, path: str, takes: float, done: Answered) -> Connection:
        """Make a request whose script takes ``takes`` seconds; ``done(status, at)`` when it is answered.

        502 stands for a connection that was refused or cut.
        """
        connection = Connection(self._simulation, path, takes, done)
        self._later(lambda: self._sockets.connect(vassal, connection))
        return connection

    def scripts(self, worker: int) -> list[int]:
        """Pids of the scripts that the worker with this pid runs now."""
        process = self._simulation.processes.get(worker)
        name = process and f"cgi{process.name.removeprefix('worker')}"
        return [pid for pid, script in self._simulation.processes.items() if script.name == name]

    def quit(self) -> None:
        """SIGTERM to the Emperor: it stops everything."""
        self.signal("emperor", SIGTERM)

    def left_over(self) -> list[str]:
        """What there is: addresses of living processes, ``socket:NAME`` for bound sockets."""
        processes = [process.name for process in self._simulation.processes.values()]
        return processes + [f"socket:{name}" for name in self._sockets.bound]

    def close(self) -> None:
        """End it, whatever still runs."""
        self._simulation.close()

    def _later(self, call: Callable[[], object]) -> None:
        self.at(self.now + self._simulation.latency(LATENCY), call)

    # ---- what is forked -----------------------------------------------------------------------------------

    def _spawn(self, birth: Birth, link: End, office: End | None) -> SimulatedProcess:
        boot = self._simulation.latency(_BOOT)
        process = SimulatedProcess(self._simulation, birth.actor, _CHILDS_SIGNALS, boot)
        upward = functools.partial(_upward, process, link)
        if birth.kind == "master":
            self._start_master(process, birth, upward, office)
        elif birth.kind != "worker":
            self._start_attendant(process, birth, upward)
        else:
            self._start_worker(process, birth, upward)
        return process

    def _start_master(
        self, process: SimulatedProcess, birth: Birth, upward: Upward, office: End | None
    ) -> None:
        def host(actor: Overseer) -> SimulatedHost:
            return SimulatedHost(process, _inbox(actor), office)

        chance = self._simulation.random.random
        journal = Journal(birth.actor)
        socket = self._sockets.bound[birth.vassal.name]
        gauges = Gauges(
            waiting=lambda: self._sockets.queue(birth.vassal.name), doorbell=SimulatedDoorbell(socket)
        )
        VassalMaster.start(process, host, journal, birth, upward, chance, gauges, clock=lambda: self.now)

    def _start_attendant(self, process: SimulatedProcess, birth: Birth, upward: Upward) -> None:
        def hands(actor: Actor) -> SimulatedHands:
            return SimulatedHands(_inbox(actor), lasting=birth.kind == "daemon")

        process.run(new_attendant(process, Journal(birth.actor), birth, upward, hands))

    def _start_worker(self, process: SimulatedProcess, birth: Birth, upward: Upward) -> None:
        socket = self._sockets.bound[birth.vassal.name]

        def listeners(_runner: CgiRunner, _worker: Worker) -> list[SimulatedListener]:
            return [SimulatedListener(socket, process, birth.vassal)]

        chance = self._simulation.random.random
        Worker.start(process, Journal(birth.actor), birth, upward, listeners, chance=chance)


def _upward(process: SimulatedProcess, link: End, actor: Actor) -> End:
    link.attach(process, _inbox(actor), FromParent, ParentLost)
    return link


def _inbox(actor: Actor) -> SimulatedInbox:
    assert isinstance(actor.actor_inbox, SimulatedInbox)
    return actor.actor_inbox
