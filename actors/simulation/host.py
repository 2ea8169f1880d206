"""What supervisors stand on in simulated time (``actors/host``): forking, links, signals, evidence."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field
from signal import SIGHUP, SIGINT, SIGKILL, SIGTERM
from typing import Any

from pyemperor.actors.detector import Evidence
from pyemperor.actors.host import HostClosed, HostLost
from pyemperor.actors.lifecycle import UNKNOWN_CODE, Born, Died, Key, LinkLost, Said, Stillborn
from pyemperor.actors.simulation.fork_server import BOOT, SimulatedForkServer, Spawn
from pyemperor.actors.simulation.links import FRAME, End, pair
from pyemperor.actors.simulation.machine import Simulation
from pyemperor.actors.simulation.processes import Reactions, SimulatedInbox, SimulatedProcess
from pyemperor.protocol.messages import Adopt, Birth, Exited, Fork, Kill, Message, Office


@dataclass(eq=False, slots=True)
class _Process:
    key: Key
    link: End
    born: SimulatedProcess | None = None


@dataclass(eq=False, slots=True)
class SimulatedHost:
    """What a supervisor in ``process`` stands on (``actors/host``), with its office at the fork server."""

    process: SimulatedProcess
    inbox: SimulatedInbox
    office: End | None = None
    closing: bool = False
    _ids: int = 0
    _processes: dict[int, _Process] = field(default_factory=dict)
    _of: dict[Key, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.office is not None:
            self.attach(self.office)

    @property
    def _simulation(self) -> Simulation:
        return self.process.simulation

    def attach(self, office: End) -> None:
        """Sit at another office: the fork server was replaced."""
        self.office = office
        office.attach(self.process, self.inbox, self._answer, self._lost)

    def move(self, fd: int) -> None:
        """Sit at the office that came over the link."""
        self.attach(self._simulation.take(fd))

    def fork(self, key: Key, birth: Birth) -> None:
        ours, theirs = pair(self._simulation)
        ours.attach(
            self.process, self.inbox, lambda message, _: Said(key, message), lambda why: LinkLost(key, why)
        )
        self._ids += 1
        self._processes[self._ids] = _Process(key, ours)
        self._of[key] = self._ids
        if self.office is None:
            self._drop(self._ids, errno.ECONNRESET, "fork server: it is being replaced")
        else:
            self.office.send(Fork(self._ids, birth), (self._simulation.pass_on(theirs),))

    def _drop(self, number: int, error: int, reason: str) -> None:
        process = self._processes.pop(number)
        del self._of[process.key]
        process.link.close()
        self.inbox.after(0, Stillborn(process.key, error, reason))

    def _answer(self, answer: Any, _fds: tuple[int, ...]) -> object:
        process = self._processes.get(answer.id)
        if process is None:
            return None
        if isinstance(answer, Exited):
            return Died(process.key, answer.code, answer.signal, answer.swept)
        process.born = self._simulation.processes.get(answer.pid)
        return Born(process.key, answer.pid)

    def _lost(self, _why: str) -> object:
        """The fork server is gone: from here on this host sees for itself that a child dies."""
        if self.office is not None:
            self.office.close()
            self.office = None
        for number, process in list(self._processes.items()):
            if process.born is None:
                self._drop(number, 0, "the fork server died")
            else:
                self._watch(process, process.born)
        return HostClosed() if self.closing else HostLost()

    def _watch(self, process: _Process, born: SimulatedProcess) -> None:
        def gone(_: SimulatedProcess) -> None:
            self.inbox.notify(self._gone_unseen(process.key, born))

        if born.alive:
            born.on_exit.append(gone)
        else:
            self.inbox.after(0, self._gone_unseen(process.key, born))

    def _gone_unseen(self, key: Key, _process: SimulatedProcess) -> Died:
        return Died(key, UNKNOWN_CODE)

    def _process(self, key: Key) -> _Process | None:
        return self._processes.get(self._of.get(key, 0))

    def send(self, key: Key, message: Message) -> None:
        if process := self._process(key):
            process.link.send(message)

    def signal(self, key: Key, number: int) -> None:
        if (process := self._process(key)) and process.born:
            process.born.signal(number)

    def kill(self, key: Key, *, family: bool) -> None:
        if self.office is not None and key in self._of:
            self.office.send(Kill(self._of[key], family))
        self.signal(key, SIGKILL)

    def evidence(self, key: Key) -> Evidence:
        process = self._process(key)
        if process is None or process.born is None or not process.born.alive:
            return Evidence("X", 0.0, 0.0, gone=True)
        state = "T" if process.born.stopped else "S"
        return Evidence(state, 0.0, 0.0, unread=process.link.unread * FRAME)

    def forget(self, key: Key) -> None:
        if process := self._processes.pop(self._of.pop(key, 0), None):
            process.link.close()


@dataclass(eq=False, slots=True)
class SimulatedImperialHost(SimulatedHost):
    """A host that also starts the fork server, replaces it, and is the last to see it go."""

    spawn: Spawn = field(kw_only=True)

    def start(self) -> int:
        """Start the fork server; its pid."""
        ours, theirs = pair(self._simulation)
        simulation = self._simulation
        signals: Reactions = dict.fromkeys((SIGINT, SIGTERM, SIGHUP), None)
        server = SimulatedProcess(simulation, "fork-server", signals, simulation.latency(BOOT))
        SimulatedForkServer.start(server, theirs, self.spawn)
        self.attach(ours)
        return server.pid

    def restart(self, masters: Mapping[str, Birth]) -> int:
        """Start another, and give every living master an office at it."""
        pid = self.start()
        assert self.office is not None
        for number, process in self._processes.items():
            if process.key.name not in masters:
                continue
            ours, theirs = pair(self._simulation)
            adopt = Adopt(number, masters[process.key.name])
            self.office.send(adopt, (self._simulation.pass_on(theirs),))
            process.link.send(Office(), (self._simulation.pass_on(ours),))
        return pid

    def reap(self) -> None:
        """Simulated processes leave no zombies."""

    def kill_rest(self) -> None:
        """SIGKILL every process of the tree, also those that nobody supervises any more."""
        for process in list(self._simulation.processes.values()):
            if process.name.startswith(("master:", "worker:")):
                process.signal(SIGKILL)

    def close(self) -> None:
        """Ask the fork server to end after its last child; ``HostClosed`` follows."""
        self.closing = True
        if self.office is None:
            self.inbox.after(0, HostClosed())
        else:
            self.office.finish()

    def _gone_unseen(self, key: Key, process: SimulatedProcess) -> Died:
        # The Emperor has inherited the children of a dead fork server, and reads how they ended.
        assert process.exit is not None
        return Died(key, *process.exit)
