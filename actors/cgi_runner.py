"""One core of a worker: takes a connection when it is idle, and serves one request at a time.

An idle runner watches the listening sockets itself, in the same wait as its mailbox, so that a request costs
no hop between threads; a busy one does not, and connections wait in the kernel's backlog, where other
workers see them. The worker stays free for its own mailbox.
"""

import contextlib
import errno
import os
import select
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pykka
from loguru import logger

from pyemperor.actors.actor import Actor, Inbox, System
from pyemperor.actors.exchange import Gone
from pyemperor.actors.outcome import Outcome
from pyemperor.actors.process import Ready


class Exchange(Protocol):
    """One request being served (``actors/exchange``, or a simulated one)."""

    outcome: Outcome

    def handle(self, ready: Any, now: float) -> bool: ...
    def abort(self, why: str, now: float) -> bool: ...
    def client_gone(self, why: str, now: float) -> None: ...
    def release(self) -> None: ...


class Listener(Protocol):
    """A listening socket, real or simulated."""

    def watch(self, inbox: Inbox, message: object) -> None: ...
    def unwatch(self, inbox: Inbox) -> None: ...
    def accept(self) -> Any:
        """A connection; None when another worker was faster."""

    def serve(self, connection: Any, now: float) -> Exchange | Outcome:
        """What became of its request if that is over, else what goes on with it."""


#: Errors of accept() that are the machine's: the connection stays in the queue.
_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
#: Seconds until the next try then.
_PAUSE = 0.5


@dataclass(frozen=True, slots=True)
class _Resume:
    """The pause is over."""


@dataclass(frozen=True, slots=True)
class Acceptable:
    """A connection waits at this listener."""

    listener: Listener


@dataclass(frozen=True, slots=True)
class Drain:
    """Accept nothing more; end when idle."""


@dataclass(frozen=True, slots=True)
class Hold:
    """Accept nothing while ``held``; what is in hand is finished."""

    held: bool


@dataclass(frozen=True, slots=True)
class Abort:
    """End now: the request in hand is cut, its script killed."""

    why: str


@dataclass(slots=True)
class CoreState:
    """What a core does, written by its runner and read by its worker: plain attributes, no lock needed."""

    busy_since: float = 0.0
    requests: int = 0
    pid: int = 0


class CgiRunner(Actor):
    """Idle and watching, or busy with one exchange.

    ``listeners`` makes the runner's own view of the sockets; ``served`` is called on this thread with the
    outcome of every request. One that is ``held`` accepts nothing until it is told to.
    """

    def __init__(
        self,
        system: System,
        owner: pykka.ActorRef[Any] | None,
        listeners: "Callable[[CgiRunner], Sequence[Listener]]",
        core: CoreState,
        served: Callable[[Outcome, float], None],
        prepare: Callable[[], None] = lambda: None,
        *,
        held: bool = False,
    ) -> None:
        super().__init__(system, owner)
        self._listeners: Sequence[Listener] = ()
        self._make_listeners = listeners
        self._core = core
        self._served = served
        self._prepare = prepare
        self._exchange: Exchange | None = None
        self._draining = False
        self._held = held
        self._watching = False
        #: What is given back when this runner ends, in whatever way.
        self.belongings = contextlib.ExitStack()

    def on_start(self) -> None:
        self._prepare()
        self._listeners = self._make_listeners(self)
        if not self._held:
            self._watch()

    def handle(self, message: Any, now: float) -> None:
        if type(message) is Ready:
            if self._exchange is not None:
                self._step(self._exchange.handle(message, now), now)
            return
        match message:
            case Acceptable(listener=listener):
                if self._exchange is None and not (self._draining or self._held):
                    self._serve((listener,))
            case Gone(exchange=exchange):
                if exchange is self._exchange:
                    self._exchange.client_gone("it closed the connection", now)
                    self._step(self._exchange.handle(Ready.TICK, now), now)
            case _Resume():
                self._look()
            case Hold(held=held):
                self._held = held
                if held:
                    self._unwatch()
                else:
                    self._look()
            case Drain():
                self._draining = True
                if self._exchange is None and not self._held:
                    # The kernel may have woken this runner alone for a connection: nobody else looks for it.
                    self._serve(self._listeners)
                self._unwatch()
                if self._exchange is None:
                    self.stop()
            case Abort(why=why):
                self._draining = True
                if self._exchange is None:
                    self.stop()
                else:
                    self._step(self._exchange.abort(why, now), now)
            case _:
                if self._exchange is not None:
                    self._step(self._exchange.handle(message, now), now)

    def _look(self) -> None:
        """See whether somebody waits, if there is time for them."""
        if self._exchange is None and not (self._draining or self._held):
            self._serve(self._listeners)

    def _serve(self, listeners: Iterable[Listener]) -> None:
        """Take one connection, if there is one; watch for the next unless it keeps this runner busy."""
        core, now = self._core, self.system.now()  # a message may have taken its time
        core.busy_since = now
        for listener in listeners:
            try:
                connection = listener.accept()
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    raise
                core.busy_since = 0.0
                self._pause(error)
                return
            if connection is None:
                continue
            taken = listener.serve(connection, now)
            if isinstance(taken, Outcome):
                self._account(taken)
                break
            self._exchange = taken
            core.pid = taken.outcome.pid
            self._unwatch()
            return
        core.busy_since = 0.0
        self._watch()

    def _pause(self, error: OSError) -> None:
        """Let the connection wait where it is; to look again at once would only take the CPU from the others."""
        self._unwatch()
        self.after(_PAUSE, _Resume())
        logger.warning(
            "connections wait: {}; next try in {:g} s. Raise the limit (`ulimit -n`, systemd's LimitNOFILE=)",
            error.strerror,
            _PAUSE,
        )

    def _step(self, over: bool, now: float) -> None:
        if not over or self._exchange is None:
            return
        outcome = self._exchange.outcome
        self._exchange = None
        self._core.busy_since = 0.0
        self._core.pid = 0
        self._account(outcome)
        if self._draining:
            self.stop()
        elif not self._held:
            # Under load the next one waits already: neither a poll nor a change of what is watched.
            self._serve(self._listeners)

    def _account(self, outcome: Outcome) -> None:
        if outcome.request is not None or outcome.problem:
            self._core.requests += 1
            self._served(outcome, self.system.now())

    def _watch(self) -> None:
        if not self._watching:
            self._watching = True
            for listener in self._listeners:
                listener.watch(self.actor_inbox, Acceptable(listener))

    def _unwatch(self) -> None:
        if self._watching:
            self._watching = False
            for listener in self._listeners:
                listener.unwatch(self.actor_inbox)

    def on_stop(self) -> None:
        self._unwatch()
        self.belongings.close()

    def on_failure(self, *_: Any) -> None:
        self._unwatch()
        if self._exchange is not None:
            self._exchange.release()
        self.belongings.close()


class ErrorPipe:
    """The stderr of a runner's scripts, line by line to the log with its request's id; one pipe for all of them.

    A line longer than :data:`LINE` bytes is logged in parts; the script never waits for the log.
    """

    #: With what the log adds, a part is no more than PIPE_BUF: a pipe takes it whole, or not at all (pipe(7)).
    LINE = 3072

    def __init__(self, inbox: Inbox, log: Callable[[str, str], None]) -> None:
        self._read, self.fd = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read, False)
        self._inbox = inbox
        self._log = log
        self._script = self._id = ""
        self._partial = b""
        inbox.watch(self._read, select.EPOLLIN, self._ready)
        self._poll = select.poll()
        self._poll.register(self._read, select.POLLIN)

    def begin(self, script: str, request_id: str) -> None:
        """From now on ``script`` speaks, for the request of this id."""
        self._script, self._id = f"{script}: ", request_id
        os.set_blocking(self.fd, True)  # one before may have left it otherwise: it is the same pipe

    def end(self) -> None:
        """Log what the script has said; whoever speaks from now on is one that it has left behind."""
        if self._poll.poll(0):  # most say nothing, and an error costs more than a question
            self.drain()
        if self._partial:
            self._say(self._partial)
            self._partial = b""
        self._script = self._id = ""

    def _ready(self, _mask: int) -> Iterable[object]:
        self.drain()
        return ()

    def drain(self) -> None:
        """Log the lines that are whole."""
        try:
            data = os.read(self._read, 65536)
        except BlockingIOError:
            return
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            self._say(line)
        if len(self._partial) > self.LINE:
            self._say(self._partial)
            self._partial = b""

    def _say(self, line: bytes) -> None:
        for start in range(0, max(1, len(line)), self.LINE):
            text = line[start : start + self.LINE].decode("utf-8", "backslashreplace")
            self._log(self._script + text, self._id)

    def close(self) -> None:
        """Close both ends."""
        self._inbox.unwatch(self._read)
        os.close(self._read)
        os.close(self.fd)
