"""What runs in each process of the tree: the lives of masters, workers and the fork server itself."""

import os
import select
import signal
import socket
from collections.abc import Callable, Iterable

from loguru import logger
from setproctitle import setproctitle

from pyemperor.actors.actor import Actor, Inbox, Threads
from pyemperor.actors.cgi_runner import CgiRunner, ErrorPipe
from pyemperor.actors.exchange import Exchange, Handler, Outcome
from pyemperor.actors.fork_server import ForkServer
from pyemperor.actors.host import ForkHost
from pyemperor.actors.journal import Journal
from pyemperor.actors.linux import own_working_directory
from pyemperor.actors.listeners import Listener
from pyemperor.actors.pipe import Pipe
from pyemperor.actors.superior import FromParent, ParentLost, Terminated, Upward
from pyemperor.actors.vassal_master import VassalMaster
from pyemperor.actors.wires import HttpWire, UwsgiWire
from pyemperor.actors.worker import Worker, reap_adopted
from pyemperor.cli.handlers import handlers_of, load_registered
from pyemperor.cli.logs import log_request, log_to_stderr
from pyemperor.protocol.messages import Birth


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


def _upward(link: socket.socket) -> Upward:
    def connect(actor: Actor) -> Pipe:
        watch_signals(actor.actor_inbox, Terminated, signal.SIGTERM, signal.SIGINT)
        return Pipe(actor.actor_inbox, link, lambda message, fds: FromParent(message, tuple(fds)), ParentLost)

    return connect


def live_as_master(
    birth: Birth, link: socket.socket, office: socket.socket | None, listeners: list[socket.socket]
) -> int:
    """Run a VassalMaster until it ends; the value is the exit code."""
    assert office is not None
    log_to_stderr(birth.log_style, level=log_level(birth.traced), birth=birth)
    fds = [sock.fileno() for sock in listeners]
    master = VassalMaster(
        Threads(),
        lambda actor: ForkHost(actor.actor_inbox, office, lambda _name: fds),
        Journal(birth.actor),
        birth,
        _upward(link),
    )
    return _run(master)


def live_as_worker(
    birth: Birth, link: socket.socket, _office: socket.socket | None, listeners: list[socket.socket]
) -> int:
    """Run a Worker until it ends; the value is the exit code."""
    log_to_stderr(birth.log_style, level=log_level(birth.traced), birth=birth)
    vassal = birth.vassal
    handlers = handlers_of(vassal)
    null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def runners_listeners(runner: CgiRunner, _worker: Worker) -> list[Listener]:
        return _runners_listeners(runner, birth, handlers, null, listeners)

    def served(core: int, outcome: Outcome, now: float) -> None:
        log_request(birth, core, outcome, now, enabled=not vassal.disable_logging)

    worker = Worker(
        Threads(),
        Journal(birth.actor),
        birth,
        _upward(link),
        runners_listeners,
        own_working_directory,
        served,
        reap_adopted,
    )
    return _run(worker)


def _runners_listeners(
    runner: CgiRunner, birth: Birth, handlers: dict[int, Handler], null: int, socks: list[socket.socket]
) -> list[Listener]:
    vassal = birth.vassal
    inbox = runner.actor_inbox
    log = logger.bind(actor=birth.actor, event="stderr")
    errors = ErrorPipe(inbox, lambda line: log.warning("{}: {}", vassal.name, line))

    def uwsgi(sock: socket.socket) -> Exchange:
        wire = UwsgiWire(vassal.buffer_size)
        return Exchange(inbox, sock, wire, handlers, errors, null, vassal.socket_timeout)

    def http(sock: socket.socket) -> Exchange:
        return Exchange(inbox, sock, HttpWire(sock), handlers, errors, null, vassal.socket_timeout)

    kinds = [uwsgi] * len(vassal.socket) + [http] * len(vassal.http_socket)
    return [Listener(sock, serve) for sock, serve in zip(socks, kinds, strict=True)]


def _run(actor: VassalMaster | Worker) -> int:
    actor.run_here()
    return actor.exit_code if actor.failure is None else 70  # EX_SOFTWARE


def fork_server(fd: int, log_style: str, level: str, registered: Iterable[str] = ()) -> int:
    """Run the fork server at the Emperor's office ``fd``."""
    setproctitle("pyemperor fork-server")
    log_to_stderr(log_style, level=level, actor="fork-server")
    load_registered(registered)
    lives = {"master": live_as_master, "worker": live_as_worker}
    return ForkServer(socket.socket(fileno=fd), lives).serve()
