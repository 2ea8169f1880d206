"""Requests in simulated time: sockets with a backlog, connections, scripts that take a given time."""

from collections import deque
from collections.abc import Callable, Collection
from dataclasses import dataclass
from signal import SIGKILL

from pyemperor.actors.actor import Inbox
from pyemperor.actors.clock import Timer
from pyemperor.actors.exchange import Gone
from pyemperor.actors.outcome import Outcome
from pyemperor.actors.simulation.links import LATENCY
from pyemperor.actors.simulation.machine import Simulation
from pyemperor.actors.simulation.processes import SimulatedInbox, SimulatedProcess
from pyemperor.actors.wires import Request
from pyemperor.protocol.options import Vassal
from pyemperor.protocol.uwsgi import Modifier

#: Seconds from the request to the first instruction of a script.
SPAWN = 0.0005
#: What a web server answers when the one behind it refuses the connection or cuts it.
BAD_GATEWAY = 502
#: A client that has left.
LEFT = 499

#: The longest queue of waiting connections (Linux: net.core.somaxconn).
_SOMAXCONN = 4096

#: Called once with the status of the answer and its time.
Answered = Callable[[int, float], None]


class Connection:
    """One request of a client, whose script takes ``takes`` seconds (``math.inf``: for ever)."""

    __slots__ = ("_done", "_simulation", "exchange", "path", "takes")

    def __init__(self, simulation: Simulation, path: str, takes: float, done: Answered) -> None:
        self._simulation = simulation
        self.path = path
        self.takes = takes
        self._done: Answered | None = done
        self.exchange: SimulatedExchange | None = None

    @property
    def over(self) -> bool:
        """Whether it was answered, or the client has left."""
        return self._done is None

    def answer(self, status: int) -> None:
        """Have the client told ``status``; the first answer counts."""
        done, self._done = self._done, None
        if done is not None:
            at = self._simulation.time + self._simulation.latency(LATENCY)
            self._simulation.at(at, lambda _: done(status, at), None)

    def abandon(self) -> None:
        """The client leaves: it is told nothing."""
        if not self.over:
            self._done = None
            if self.exchange is not None:
                self.exchange.hang_up()


class SimulatedSocket:
    """The listening socket of one vassal: it wakes one of those that wait, as the kernel does."""

    def __init__(self, simulation: Simulation, limit: int) -> None:
        self._simulation = simulation
        self._limit = limit
        self._backlog: deque[Connection] = deque()
        self._waiting: dict[SimulatedListener, None] = {}
        self._bells: dict[SimulatedDoorbell, None] = {}
        self.closed = False

    def connect(self, connection: Connection) -> None:
        """A connection comes in; refused when the backlog is full (Linux: holds one more than its length)."""
        if self.closed or len(self._backlog) > self._limit:
            connection.answer(BAD_GATEWAY)
        else:
            self._backlog.append(connection)
            self.ring()
            self.rouse()

    def take(self) -> Connection | None:
        """accept(2)."""
        while self._backlog:
            connection = self._backlog.popleft()
            if not connection.over:
                return connection
        return None

    @property
    def queue(self) -> int:
        """How many connections wait."""
        return sum(not connection.over for connection in self._backlog)

    def join(self, listener: "SimulatedListener") -> None:
        """Wait for a connection."""
        self._waiting[listener] = None
        self.rouse()

    def leave(self, listener: "SimulatedListener") -> None:
        """Do not wait any more: whatever it was woken for is somebody else's."""
        self._waiting.pop(listener, None)
        self.rouse()

    def put_up(self, bell: "SimulatedDoorbell") -> None:
        """Have it ring whenever a connection waits."""
        self._bells[bell] = None
        if self._backlog:
            bell.ring()

    def take_down(self, bell: "SimulatedDoorbell") -> None:
        """Have it ring no more."""
        self._bells.pop(bell, None)

    def ring(self) -> None:
        """Tell whoever only wants to know."""
        for bell in tuple(self._bells):
            bell.ring()

    def rouse(self) -> None:
        """Wake as many as there are connections."""
        woken = sum(listener.woken for listener in self._waiting)
        while len(self._backlog) > woken:
            idle = [listener for listener in self._waiting if listener.can_wake]
            if not idle:
                return
            self._simulation.random.choice(idle).wake()
            woken += 1

    def close(self) -> None:
        """Refuse whoever waits in the backlog."""
        self.closed = True
        while self._backlog:
            self._backlog.popleft().answer(BAD_GATEWAY)


class SimulatedSockets:
    """The Emperor's sockets."""

    def __init__(self, simulation: Simulation) -> None:
        self._simulation = simulation
        self._claims: dict[str, tuple[str, SimulatedSocket]] = {}

    @property
    def bound(self) -> dict[str, SimulatedSocket]:
        """The sockets by the names of their vassals."""
        return dict(self._claims.values())

    def bind(self, vassal: Vassal, claim: str = "", sharing: Collection[str] = ()) -> None:
        kept = [self._claims[other][1] for other in sharing if other in self._claims]
        socket = kept[-1] if kept else SimulatedSocket(self._simulation, vassal.listen or _SOMAXCONN)
        self._claims.setdefault(claim or vassal.name, (vassal.name, socket))

    def release(self, claim: str) -> None:
        _, socket = self._claims.pop(claim, ("", None))
        if socket is not None and all(other is not socket for _, other in self._claims.values()):
            socket.close()

    def doorbell(self, claim: str) -> "SimulatedDoorbell":
        """What rings when a connection waits at the socket of ``claim``."""
        return SimulatedDoorbell(self._claims[claim][1])

    def queue(self, vassal: str) -> int:
        """How many connections wait for a vassal."""
        socket = self.bound.get(vassal)
        return 0 if socket is None else socket.queue

    def connect(self, vassal: str, connection: Connection) -> None:
        """Connect to a vassal; refused when it is not there."""
        if socket := self.bound.get(vassal):
            socket.connect(connection)
        else:
            connection.answer(BAD_GATEWAY)


class SimulatedDoorbell:
    """What rings when a connection waits, and leaves it to others to accept it (``actors/doorbell``)."""

    def __init__(self, socket: SimulatedSocket) -> None:
        self._socket = socket
        self._inbox: SimulatedInbox | None = None
        self._message: object = None

    def ring(self) -> None:
        if self._inbox is not None:
            self._inbox.notify(self._message)

    def watch(self, inbox: Inbox, message: object) -> None:
        assert isinstance(inbox, SimulatedInbox)
        self._inbox, self._message = inbox, message
        self._socket.put_up(self)

    def unwatch(self, _inbox: Inbox) -> None:
        self._socket.take_down(self)


class SimulatedListener:
    """One runner's view of the socket of its vassal (``actors/listeners``)."""

    def __init__(self, socket: SimulatedSocket, process: SimulatedProcess, vassal: Vassal) -> None:
        self.woken = False
        self._socket = socket
        self._process = process
        self._vassal = vassal
        self._inbox: SimulatedInbox | None = None
        self._message: object = None

    @property
    def can_wake(self) -> bool:
        return not self.woken and self._inbox is not None and not self._inbox.blocked

    def wake(self) -> None:
        assert self._inbox is not None
        self.woken = True
        self._inbox.notify(self._message)

    def watch(self, inbox: Inbox, message: object) -> None:
        assert isinstance(inbox, SimulatedInbox)
        self._inbox, self._message = inbox, message
        inbox.sources[self] = self._socket.rouse
        self._process.own(self, lambda: self.unwatch(inbox))
        self._socket.join(self)

    def unwatch(self, inbox: Inbox) -> None:
        assert isinstance(inbox, SimulatedInbox)
        inbox.sources.pop(self, None)
        self._process.disown(self)
        self.woken = False
        self._socket.leave(self)

    def accept(self) -> Connection | None:
        self.woken = False
        return self._socket.take() if self._inbox is not None else None

    def serve(self, connection: Connection, now: float) -> "SimulatedExchange":
        assert self._inbox is not None
        exchange = SimulatedExchange(self._inbox, self._process, self._vassal, connection)
        exchange.start(now)
        return exchange


@dataclass(frozen=True, slots=True)
class _ScriptEnded:
    script: "SimulatedScript"


@dataclass(frozen=True, slots=True)
class _TooLong:
    """cgi-timeout."""

    exchange: "SimulatedExchange"


class SimulatedScript(SimulatedProcess):
    """A script: sleeps ``takes`` seconds, answers, and exits 0. Stopped, it does so when it is continued."""

    def __init__(self, simulation: Simulation, name: str, takes: float) -> None:
        super().__init__(simulation, name, {})
        self._over = False
        if takes < float("inf"):
            simulation.at(simulation.time + simulation.latency(SPAWN) + takes, SimulatedScript._awake, self)

    def _awake(self) -> None:
        self._over = True
        self.resumed()

    def resumed(self) -> None:
        if self._over and not self.stopped:
            self.die(0)


class SimulatedExchange:
    """One request in service (``actors/exchange``)."""

    def __init__(
        self, inbox: SimulatedInbox, process: SimulatedProcess, vassal: Vassal, connection: Connection
    ) -> None:
        self.outcome = Outcome()
        self._inbox = inbox
        self._process = process
        self._vassal = vassal
        self._connection = connection
        self._script: SimulatedScript | None = None
        self._limit: Timer | None = None
        self._over = False

    def start(self, now: float) -> None:
        """Start the script."""
        connection, process = self._connection, self._process
        connection.exchange = self
        variables = {b"REQUEST_METHOD": b"GET", b"REQUEST_URI": connection.path.encode()}
        # The worker's address, worker:NAME/N, as its scripts have it: cgi:NAME/N.
        script = SimulatedScript(process.simulation, f"cgi{process.name.removeprefix('worker')}", connection.takes)
        script.on_exit.append(lambda _: self._inbox.notify(_ScriptEnded(script)))
        self._script = script
        self.outcome = Outcome(
            Request(Modifier.CGI, 0, variables, 0), script=connection.path, pid=script.pid, started_at=now
        )
        self._limit = self._inbox.after(self._vassal.cgi_timeout, _TooLong(self))
        process.own(self, self._cut)

    def handle(self, ready: object, _now: float) -> bool:
        match ready:
            case _ScriptEnded(script=script) if script is self._script and not self._over:
                self._finish(200 if script.exit == (0, 0) else BAD_GATEWAY)
            case _TooLong(exchange=exchange) if exchange is self:
                self._finish(504)
        return self._over

    def abort(self, _why: str, _now: float) -> bool:
        self._finish(503)
        return True

    def hang_up(self) -> None:
        """The client is gone."""
        self._inbox.notify(Gone(self))  # type: ignore[arg-type]  # the runner looks only whether it is its own

    def client_gone(self, why: str, _now: float) -> None:
        self.outcome.problem = f"the client left: {why}"
        self._finish(LEFT)

    def release(self) -> None:
        self._finish(BAD_GATEWAY)

    def _cut(self) -> None:
        """The worker died: the connection breaks, and the script goes with it."""
        if self._script is not None and self._script.alive:
            self._process.swept += 1
        self._finish(BAD_GATEWAY)

    def _finish(self, status: int) -> None:
        if self._over:
            return
        self._over = True
        self._process.disown(self)
        self.outcome.status = status
        self._connection.answer(status)
        if self._limit is not None:
            self._limit.cancel()
        if self._script is not None:
            self._script.signal(SIGKILL)
