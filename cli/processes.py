"""What runs in each process of the tree: the lives of masters, workers and the fork server itself."""

import contextlib
import os
import select
import signal
import socket
from collections.abc import Callable, Iterable
from functools import partial

from loguru import logger
from setproctitle import setproctitle

from pyemperor.actors.actor import Actor, EpollInbox, Inbox, System, Threads
from pyemperor.actors.attendants import Attendant, new_attendant
from pyemperor.actors.cgi_runner import CgiRunner, ErrorPipe
from pyemperor.actors.crew import Gauges
from pyemperor.actors.doorbell import SocketDoorbell
from pyemperor.actors.exchange import Exchange, Handler
from pyemperor.actors.express import Express
from pyemperor.actors.fork_server import ForkServer
from pyemperor.actors.host import ForkHost
from pyemperor.actors.journal import Journal
from pyemperor.actors.linux import memory, own_working_directory, waiting_connections
from pyemperor.actors.listeners import Listener
from pyemperor.actors.outcome import Outcome
from pyemperor.actors.pipe import Pipe
from pyemperor.actors.program import Hands
from pyemperor.actors.script import Spawn
from pyemperor.actors.superior import FromParent, ParentLost, Terminated, Upward
from pyemperor.actors.vassal_master import VassalMaster
from pyemperor.actors.warm import COMMON, Templates, awaited
from pyemperor.actors.wear import Memory
from pyemperor.actors.wires import HttpWire, UwsgiWire, Wire
from pyemperor.actors.worker import Worker, reap_adopted
from pyemperor.cli.handlers import handlers_of, load_registered
from pyemperor.cli.logs import log_request, log_to_stderr, open_log
from pyemperor.protocol.cgi import base_environment
from pyemperor.protocol.messages import Birth
from pyemperor.protocol.uwsgi import Modifier

#: An operator's wish that a process ends.
_ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


def log_level(traced: bool) -> str:
    """Where a timeline tells what happens, the log keeps to what is wrong."""
    return "WARNING" if traced else "INFO"


def watch_signals(inbox: Inbox, message: Callable[[int], object], *numbers: int) -> None:
    """Deliver ``message(number)`` for each of the signals; the handler itself does nothing."""
    bell, ring = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)

    def source(_mask: int) -> Iterable[object]:
        return [message(number) for number in os.read(bell, 64) if number in numbers]

    for number in numbers:
        signal.signal(number, lambda *_: None)
    signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
    inbox.watch(bell, select.EPOLLIN, source)


def upward(link: socket.socket, *signals: int) -> Upward:
    """Let an actor hear its parent, and the signals that an operator may send to its process."""

    def connect(actor: Actor) -> Pipe:
        if signals:
            watch_signals(actor.actor_inbox, Terminated, *signals)
        return Pipe(actor.actor_inbox, link, lambda message, fds: FromParent(message, tuple(fds)), ParentLost)

    return connect


def live_as_master(
    birth: Birth, link: socket.socket, office: socket.socket | None, listeners: list[socket.socket]
) -> int:
    """Run a VassalMaster until it ends; the value is the exit code."""
    assert office is not None
    log_to_stderr(birth.log_style, level=log_level(birth.traced), birth=birth)
    hears = upward(link, *_ENDS, signal.SIGHUP, signal.SIGTSTP)
    return _run(new_master(Threads(), birth, hears, office, listeners))


def new_master(
    system: System, birth: Birth, upward: Upward, office: socket.socket, listeners: list[socket.socket]
) -> VassalMaster:
    """Make the VassalMaster that sits at ``office``; its workers get the ``listeners``."""
    fds = [sock.fileno() for sock in listeners]
    return VassalMaster(
        system,
        # Workers are numbered; attendants have no business with the sockets.
        lambda actor: ForkHost(actor.actor_inbox, office, lambda name: fds if name[0].isdigit() else ()),
        Journal(birth.actor),
        birth,
        upward,
        gauges=Gauges(
            waiting=lambda: sum(map(waiting_connections, listeners)),
            memory=lambda pid: Memory(*memory(pid)),
            doorbell=SocketDoorbell(fds),
        ),
    )


def live_as_attendant(
    birth: Birth, link: socket.socket, _office: socket.socket | None, _listeners: list[socket.socket]
) -> int:
    """Run an Attendant until it ends; the value is the exit code."""
    log_to_stderr(birth.log_style, level=log_level(birth.traced), birth=birth)
    log = logger.bind(actor=birth.actor, event="output").info
    environment = dict(birth.vassal.env)
    for name in birth.vassal.unenv:
        os.environ.pop(name, None)

    def hands(actor: Actor) -> Hands:
        return Hands(actor.actor_inbox, environment, lambda line: log("{}", line))

    return _run(new_attendant(Threads(), Journal(birth.actor), birth, upward(link, *_ENDS), hands))


def live_as_worker(
    birth: Birth, link: socket.socket, _office: socket.socket | None, listeners: list[socket.socket]
) -> int:
    """Run a Worker until it ends; the value is the exit code."""
    log_to_stderr(birth.log_style, level=log_level(birth.traced), birth=birth)
    # A script may end while its runner still starts it, and so blocks signals: then the kernel does not ignore
    # SIGCHLD but wakes another thread with it, for nothing. Blocked by all, it wakes nobody; wait4() needs it not.
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
    with contextlib.ExitStack() as stack:
        warm = stack.enter_context(contextlib.closing(_templates(birth))).spawn if birth.vassal.cgi_warm else None
        reap = partial(reap_adopted, awaited)
        return _run(new_worker(Threads(), birth, upward(link, *_ENDS), listeners, null, reap, warm))


def _templates(birth: Birth) -> Templates:
    """The warm interpreters of a worker."""
    vassal = birth.vassal
    log = logger.bind(actor=birth.actor, event="warm").info
    environment = base_environment(dict(vassal.env), server_software="")
    common = COMMON if vassal.cgi_warm_learn else ()
    return Templates(lambda line: log("{}", line), environment, vassal.cgi_warm_preload, common)


def new_worker(
    system: System,
    birth: Birth,
    upward: Upward,
    listeners: list[socket.socket],
    null: int,
    reap: Callable[[], None] = lambda: None,
    warm: Spawn | None = None,
) -> Worker:
    """Make the Worker whose runners serve ``listeners``.

    Scripts read ``null`` where a request has no body; ``reap`` buries what they leave behind; ``warm`` starts
    what need not be executed.
    """
    vassal = birth.vassal
    handlers = handlers_of(vassal)

    def runners_listeners(runner: CgiRunner, _worker: Worker) -> list[Listener]:
        return _runners_listeners(runner, birth, handlers, null, listeners, warm)

    def served(core: int, outcome: Outcome, now: float) -> None:
        log_request(birth, core, outcome, now, enabled=not vassal.disable_logging)

    return Worker(
        system, Journal(birth.actor), birth, upward, runners_listeners, own_working_directory, served, reap
    )


def _runners_listeners(
    runner: CgiRunner,
    birth: Birth,
    handlers: dict[int, Handler],
    null: int,
    socks: list[socket.socket],
    warm: Spawn | None = None,
) -> list[Listener]:
    vassal = birth.vassal
    inbox = runner.actor_inbox
    assert isinstance(inbox, EpollInbox)
    log = logger.bind(actor=birth.actor, event="stderr")

    def stderr(line: str, request: str) -> None:
        log.bind(request_id=request).warning("{}: {}", vassal.name, line)

    errors = ErrorPipe(inbox, stderr)
    runner.belongings.callback(errors.close)

    def exchange(sock: socket.SocketType, wire: Wire, outcome: Outcome) -> Exchange:
        timeout, buffering = vassal.socket_timeout, vassal.post_buffering > 0
        return Exchange(
            inbox, sock, wire, outcome, handlers, errors, null, timeout, warm, post_buffering=buffering
        )

    def uwsgi(sock: socket.SocketType, outcome: Outcome) -> Exchange:
        return exchange(sock, UwsgiWire(vassal.buffer_size), outcome)

    def http(sock: socket.SocketType, now: float) -> Outcome | Exchange:
        begun = exchange(sock, HttpWire(sock), Outcome())
        return begun.outcome if begun.start(now) else begun

    express = Express(
        inbox, handlers[Modifier.CGI], errors, null, warm, vassal.buffer_size, runner.system.now, uwsgi
    )
    kinds = [express.serve] * len(vassal.socket) + [http] * len(vassal.http_socket)
    return [Listener(sock, serve) for sock, serve in zip(socks, kinds, strict=True)]


def _run(actor: VassalMaster | Worker | Attendant) -> int:
    actor.run_here()
    return actor.exit_code if actor.failure is None else 70  # EX_SOFTWARE


def fork_server(
    fd: int,
    log_style: str,
    level: str,
    registered: Iterable[str] = (),
    warm_up: Callable[[str, str], None] = lambda *_: None,
    files: tuple[int, int] | None = None,
) -> int:
    """Run the fork server at the Emperor's office ``fd``; ``warm_up`` is what it does before it forks.

    ``files`` is the limit of open files, soft and hard, of what it forks; its own stays as it is.
    """
    setproctitle("pyemperor fork-server")
    log_to_stderr(log_style, level=level, actor="fork-server")
    load_registered(registered)
    warm_up(log_style, level)
    log_to_stderr(log_style, level=level, actor="fork-server")
    lives = {
        "master": live_as_master,
        "worker": live_as_worker,
        **dict.fromkeys(("daemon", "cron", "hook", "touch"), live_as_attendant),
    }
    return ForkServer(socket.socket(fileno=fd), lives, open_log, files).serve()
