"""The fork server's warm-up: before it forks any, a master and a worker live in it for some milliseconds.

A page of memory is shared until somebody writes to it, and Python writes when code runs for the first times:
it caches what attributes mean, specialises bytecode (PEP 659) and numbers types and dictionaries. What was
learnt before the fork is learnt once, and every process after it has those pages in common.

The two run on the calling thread, with a worker and a fork server that are played here. No thread is started
and no signal handler set; the one program that runs is a CGI program of one line.
"""

import contextlib
import gc
import os
import socket
from collections.abc import Callable, Iterator

import pykka
from loguru import logger

from pyemperor.actors.actor import Actor, EpollInbox, Inbox
from pyemperor.actors.clock import monotonic
from pyemperor.actors.linux import receive_fds, send_fds
from pyemperor.cli.logs import log_to_stderr, unheard
from pyemperor.cli.processes import new_master, new_worker, upward
from pyemperor.protocol.frames import decode, encode
from pyemperor.protocol.messages import Beat, Birth, Core, Exited, Fork, Forked, OfficeMessage, Ready, Stop
from pyemperor.protocol.options import Vassal
from pyemperor.protocol.uwsgi import encode_packet
from pyemperor.protocol.values import Address, Helper, Mount

#: Lives that are lived: the first learns most, and at its eighth run a function's bytecode is specialised.
_LIVES = 9
#: Requests to each of the two listeners in each life.
_REQUESTS = 1
#: Seconds after which it is given up: a cold start is better than a late one.
_LATEST = 1.0

_ANSWER = "Content-Type: text/plain\n\nwarm"
_HTTP = b"GET /warm?up HTTP/1.1\r\nHost: localhost\r\nUser-Agent: warm-up\r\nConnection: close\r\n\r\n"
_UWSGI = encode_packet(
    [
        (b"QUERY_STRING", b"up"),
        (b"REQUEST_METHOD", b"GET"),
        (b"CONTENT_TYPE", b""),
        (b"CONTENT_LENGTH", b""),
        (b"REQUEST_URI", b"/warm?up"),
        (b"PATH_INFO", b"/warm"),
        (b"DOCUMENT_ROOT", b"/"),
        (b"SERVER_PROTOCOL", b"HTTP/1.1"),
        (b"REQUEST_SCHEME", b"http"),
        (b"REMOTE_ADDR", b"127.0.0.1"),
        (b"REMOTE_PORT", b"49152"),
        (b"SERVER_PORT", b"80"),
        (b"SERVER_NAME", b"localhost"),
        (b"HTTP_HOST", b"localhost"),
        (b"HTTP_USER_AGENT", b"warm-up"),
        (b"HTTP_ACCEPT", b"*/*"),
    ],
    modifier1=9,
)


def warm_up(log_style: str, level: str) -> None:
    """Live through what masters and workers do; the log is set up anew after it. Nothing is said by it."""
    begun = monotonic()
    problem: Exception | None = None
    try:
        with _aside():
            for _ in range(_LIVES):
                _worker(log_style, level)
                _master(log_style, level)
    except Exception as error:  # whatever it is: a cold fork server does all that a warm one does
        problem = error
    log_to_stderr(log_style, level=level, actor="fork-server")
    _fill_pools()
    if problem is not None:
        logger.warning("fork server: it stays cold, and costs more memory: {!r}", problem)
    else:
        logger.debug("fork server: warm after {:.0f} ms", (monotonic() - begun) * 1000)


#: What fills them, for good.
_filling: list[object] = []
#: Largest block of Python's own allocator, the step from one size to the next, and bytes of a pool and its header
#: (pymalloc, since 3.10).
_LARGEST, _STEP, _POOL, _HEADER = 512, 16, 16384, 48
#: More blocks than a pool has.
_ENOUGH = 4096


def _fill_pools() -> None:
    """Leave no room in the memory that is shared: what a process makes then lies close together, in its own."""
    gc.collect()
    for size in range(3 * _STEP, _LARGEST + 1, _STEP):
        for _ in range(_ENOUGH):
            block = bytes(size - b"".__sizeof__())
            _filling.append(block)
            if id(block) % _POOL == _HEADER:  # the first of a new pool: all others of this size are full
                break


@contextlib.contextmanager
def _aside() -> Iterator[None]:
    """Keep what is said from the log, and the working directory as it is."""
    with contextlib.ExitStack() as stack:
        here = os.open(".", os.O_PATH | os.O_CLOEXEC)
        stack.callback(os.close, here)
        stack.callback(os.fchdir, here)
        stack.enter_context(unheard())
        yield


class _Inbox(EpollInbox):
    """An inbox that is looked into, and never waited at."""

    def _patience(self, due: float | None) -> float:
        return 0.0

    def look(self) -> None:
        """Take in what has arrived."""
        self._wait()


class _Turns:
    """A system on the calling thread: its actors take turns."""

    now = staticmethod(monotonic)

    def __init__(self) -> None:
        self._actors: list[Actor] = []
        self._deadline = monotonic() + _LATEST

    def inbox(self) -> Inbox:
        """Make an inbox for an actor."""
        return _Inbox()

    def run(self, actor: Actor) -> None:
        """Let an actor take turns."""
        self._actors.append(actor)
        actor.begin()

    def enter(self, actor: Actor) -> None:
        """Run an actor that nobody has started."""
        pykka.ActorRegistry.register(actor.actor_ref)
        self.run(actor)

    def until(self, happened: Callable[[], object]) -> None:
        """Give turns until ``happened()`` is true. Raises TimeoutError."""
        while not happened():
            for actor in self._actors[:]:
                self._turn(actor)
            if monotonic() > self._deadline:
                raise TimeoutError(f"not within {_LATEST:g} s: {happened.__qualname__}")

    def until_all_ended(self) -> None:
        """Give turns until no actor is left. Raises TimeoutError."""
        self.until(lambda: not self._actors)

    def leave(self) -> None:
        """Forget who is still there after an error."""
        for actor in self._actors:
            pykka.ActorRegistry.unregister(actor.actor_ref)
            actor.actor_inbox.close()

    def _turn(self, actor: Actor) -> None:
        inbox = actor.actor_inbox
        assert isinstance(inbox, _Inbox)
        inbox.look()
        while not actor.actor_stopped.is_set():
            if inbox.empty():
                return
            actor.receive(inbox.get())
        self._actors.remove(actor)
        actor._actor_loop_teardown()
        inbox.close()


class _Heard:
    """What an actor says to the one who is played here."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock
        self.said = b""
        self.fds: list[int] = []

    def more(self) -> bool:
        """Whether there is something new, or the end."""
        try:
            self.said, self.fds, _ = receive_fds(self._sock, 300 * 1024, 8)
        except BlockingIOError:
            return False
        return True

    def end(self) -> bool:
        """Whether all has been said."""
        return self.more() and not self.said


def _worker(log_style: str, level: str) -> None:
    system = _Turns()
    with contextlib.ExitStack() as stack:
        stack.callback(system.leave)
        listeners = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(2)]
        for listener in listeners:
            listener.bind("")  # the kernel finds it an abstract name (unix(7))
            listener.listen()
            listener.setblocking(False)
        ours, theirs = map(stack.enter_context, socket.socketpair())
        null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, null)
        birth = Birth("worker", _vassal(), 3600.0, 1, log_style=log_style)
        log_to_stderr(log_style, level=level, birth=birth)
        system.enter(new_worker(system, birth, upward(theirs), listeners, null))
        for listener, request in [*zip(listeners, (_UWSGI, _HTTP), strict=True)] * _REQUESTS:
            with socket.socket(socket.AF_UNIX) as client:
                client.connect(listener.getsockname())
                client.sendall(request)
                system.until(_Heard(client).end)
        ours.sendall(encode(Stop(_LATEST)))
        system.until_all_ended()


def _master(log_style: str, level: str) -> None:
    system = _Turns()
    with contextlib.ExitStack() as stack:
        stack.callback(system.leave)
        office, theirs = map(stack.enter_context, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
        emperor, up = map(stack.enter_context, socket.socketpair())
        birth = Birth("master", _vassal(), 3600.0, log_style=log_style)
        log_to_stderr(log_style, level=level, birth=birth)
        system.enter(new_master(system, birth, upward(up), theirs, []))
        asked, heard = _Heard(office), _Heard(emperor)
        system.until(asked.more)
        fork = decode(asked.said, OfficeMessage)
        assert isinstance(fork, Fork)
        worker = stack.enter_context(socket.socket(fileno=asked.fds[0]))
        # Without a pidfd nobody is signalled.
        send_fds(office, encode(Forked(fork.id, os.getpid())), ())
        beat = Beat(1, monotonic(), 0, 0, (Core(False, 0.0, 0, 0),))
        worker.sendall(encode(Ready()) + encode(beat))
        system.until(heard.more)
        emperor.sendall(encode(Stop(_LATEST)))
        system.until(_Heard(worker).more)
        worker.close()
        send_fds(office, encode(Exited(fork.id, 0)), ())
        system.until_all_ended()


def _vassal() -> Vassal:
    address = Address("unix", path="/warm-up")
    return Vassal(
        name="warm-up",
        socket=(address,),
        http_socket=(address,),
        processes=1,
        threads=1,
        # The path must exist, and is not read.
        cgi=(Mount("/warm", __file__),),
        cgi_helper=(Helper(".py", ("/bin/echo", "-e", _ANSWER)),),
    )
