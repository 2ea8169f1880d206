"""One template process, as its worker sees it: started, asked for forks, never waited for without a deadline."""

import contextlib
import errno
import marshal
import os
import signal
import socket
import stat
import struct
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple, Protocol

from pyemperor.actors.clock import monotonic
from pyemperor.actors.linux import send_fds
from pyemperor.actors.warm.child import ENDED, readable
from pyemperor.actors.warm.shebang import Identity

#: Bytes of the longest request that a template takes.
_PACKET = 256 * 1024
#: Seconds in which a template must have answered; then it is taken for hung.
PATIENCE = 1.0
#: Seconds in which it must be up, with everything imported.
_STARTUP = 60.0

# Read here, as whoever installed it: the vassal's user may not be able to.
_PARTS = ("rebirth.py", "sources.py", "program.py")
_SOURCES = [Path(__file__).with_name(name).read_bytes() for name in _PARTS]
#: The folder of the last script is nowhere to look for modules: that goes first. What the compiler takes of the
#: heap for this is hardly given back, a fifth of all that a fork would have to copy: so another process compiles.
_BOOT = f"""\
import sys
bare = frozenset(sys.modules) - {{"linecache"}}  # which only -c brings
if not getattr(sys.flags, "safe_path", sys.flags.isolated): del sys.path[0]
if sys.version_info < (3, 8): sys.exit("too old")
import marshal, os
there, back = os.pipe()
pid = os.fork()
if not pid:
    with open(back, "wb") as pipe:
        marshal.dump([compile(os.read(3, 1 << 20), part, "exec") for part in {_PARTS}], pipe)
    os._exit(0)
os.close(back)
with open(there, "rb") as pipe: code = marshal.load(pipe)
try: os.waitpid(pid, 0)
except ChildProcessError: pass  # whoever ignores SIGCHLD has it reaped
names = {{"__name__": "pyemperor template", "bare": bare}}
while code: exec(code.pop(0), names)
"""


def _kind(found: os.stat_result) -> tuple[int, int]:
    """What kind of file a descriptor is: for one kind, Python's streams begin alike."""
    mode = stat.S_IFMT(found.st_mode)
    return mode, found.st_rdev if mode == stat.S_IFCHR else 0


def _place(folder: bytes) -> tuple[bytes, tuple[int, int, int]]:
    """Where a folder really is, and its state: all that says whether modules are found there as they were."""
    fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        found = os.fstat(fd)
        return os.readlink(b"/proc/self/fd/%d" % fd), (found.st_dev, found.st_ino, found.st_ctime_ns)
    finally:
        os.close(fd)


#: The streams that a template is started with, as most scripts are.
_KINDS = (_kind(os.stat(os.devnull)), (stat.S_IFIFO, 0), (stat.S_IFIFO, 0))
_PATIENT = struct.pack("ll", int(PATIENCE), 0)
_STARTED = struct.Struct("=cI")
_FAILED = struct.Struct("=ci")


class Program(Protocol):
    """What is needed of a script (``script.Script``)."""

    @property
    def path(self) -> bytes: ...
    @property
    def arguments(self) -> tuple[bytes, ...]: ...
    @property
    def environment(self) -> Mapping[bytes, bytes]: ...
    @property
    def directory(self) -> bytes: ...


class Key(NamedTuple):
    """What templates differ in: an interpreter (and its version on disk), its flags, and what it started with."""

    interpreter: str
    identity: Identity
    flags: tuple[str, ...]
    environment: tuple[tuple[bytes, bytes], ...]


class Failed(OSError):
    """The template itself is of no use any more."""


class Stricken(Failed):
    """It came to harm while it had this request, and maybe others."""


class Template:
    """One interpreter, up or on its way; used by several threads at once."""

    def __init__(
        self, key: Key, environment: dict[bytes, bytes], modules: Iterable[str], common: Iterable[str] = ()
    ) -> None:
        """Start it, and do not wait; raises OSError."""
        self.key = key
        #: What it said when it was up: its version, what could not be imported, the number of its threads.
        self.greeting: tuple[tuple[int, int, int], list[str], int] | None = None
        self._since = monotonic()
        command = (key.interpreter, *key.flags)
        self._office, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._office.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
                self._office.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _PATIENT)
                settings = (environment, list(modules), list(common), list(command), _KINDS)
                for packet in (*_SOURCES, marshal.dumps(settings, 2)):
                    self._office.sendall(packet)
                # Or each fork would have to look for what of the C library only forks call (ld.so(8)).
                prompt = {b"LD_BIND_NOW": b"1", **environment}
                self.pid = _launch((*command, "-c", _BOOT), prompt, theirs.fileno())
            self._pidfd = os.pidfd_open(self.pid)
        except OSError:
            self._office.close()
            raise

    def up(self) -> bool:
        """Whether it serves; raises :class:`Failed` when it never will. Never blocks."""
        if self.greeting is None:
            try:
                answer = self._office.recv(65536, socket.MSG_DONTWAIT)
            except BlockingIOError:
                if monotonic() > self._since + _STARTUP:
                    raise Failed(errno.ETIMEDOUT, f"it was not up after {_STARTUP:g} s") from None
                return False
            except OSError:
                answer = b""
            if not answer:
                why = "it ended before it was up: is it a Python, 3.8 or newer, and may it fork?"
                raise Failed(errno.ENOEXEC, why)
            self.greeting = marshal.loads(answer)
            if self.greeting[2] > 1:
                raise Failed(errno.ENOTSUP, "a module of cgi-warm-preload starts threads, which no fork inherits")
        return True

    def wait(self, seconds: float) -> bool:
        """Wait until :meth:`up` has something to say, at most for ``seconds``."""
        return self.greeting is not None or readable(self._office.fileno(), seconds)

    def ask(self, script: Program, identity: Identity, fds: tuple[int, int, int]) -> socket.socket:
        """Have a child forked for the request; the line to it. Raises OSError; Failed if nothing will any more."""
        kinds = tuple(_kind(os.fstat(fd)) for fd in fds)
        version = marshal.dumps((script.path, identity), 2)
        place = marshal.dumps(_place(os.path.dirname(script.path)), 2)
        rest = marshal.dumps((script.arguments, dict(script.environment), script.directory, kinds), 2)
        request = marshal.dumps((version, place, rest), 2)  # of what is no news to it, it looks into nothing
        if len(request) > _PACKET:
            raise OSError(errno.EMSGSIZE, os.strerror(errno.EMSGSIZE))
        line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            with theirs:
                self._send(request, (*fds, theirs.fileno()))
        except BaseException:
            line.close()
            raise
        return line

    def _send(self, request: bytes, fds: tuple[int, ...]) -> None:
        try:
            # May wait: the queue of such a socket is short (net.unix.max_dgram_qlen).
            send_fds(self._office, request, fds, socket.MSG_NOSIGNAL)
        except (BrokenPipeError, ConnectionResetError):
            raise Failed(errno.EPIPE, "it is dead") from None
        except BlockingIOError:
            raise Failed(errno.ETIMEDOUT, "it hangs") from None

    def await_word(self, line: socket.socket) -> int:
        """The pid of the child that runs the script; raises OSError if none will, Stricken if none ever can."""
        late = False
        try:
            try:
                answer = line.recv(ENDED.size, socket.MSG_DONTWAIT)
            except BlockingIOError:
                line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _PATIENT)
                answer = line.recv(ENDED.size)
        except BlockingIOError:
            # From now on the child cannot say that it begins; if it has just said so, it runs.
            line.shutdown(socket.SHUT_RD)
            answer, late = line.recv(ENDED.size), True
        except ConnectionResetError:
            answer = b""
        if answer[:1] == b"S":
            return int(_STARTED.unpack(answer)[1])
        if answer[:1] == b"F":
            number = _FAILED.unpack(answer)[1]
            raise OSError(number, os.strerror(number))
        if answer[:1] == b"E":
            raise OSError(errno.EAGAIN, "the child died before it began")
        raise Stricken(errno.ETIMEDOUT, "it hangs") if late else Stricken(errno.EPIPE, "it died")

    def close(self) -> None:
        """Let it go: it ends when its scripts have."""
        self._office.close()

    def kill(self) -> None:
        """End it now; its scripts live on."""
        self.close()
        with contextlib.suppress(ProcessLookupError):  # the worker reaps what it does not know
            signal.pidfd_send_signal(self._pidfd, signal.SIGKILL)

    def wait_until_gone(self, seconds: float) -> bool:
        """Wait until it has ended, at most for ``seconds``."""
        return readable(self._pidfd, seconds)

    def gone(self) -> bool:
        """Whether it has ended; then nothing is left of it."""
        try:
            if os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED | os.WNOHANG) is None:
                return False
        except ChildProcessError:
            pass  # the worker has done so
        os.close(self._pidfd)
        return True


def _launch(command: tuple[str, ...], environment: dict[bytes, bytes], office: int) -> int:
    """Start the interpreter; only a program of its own, not a wrapper that would choose one for each folder."""
    with open(command[0], "rb") as file:
        if file.read(4) != b"\x7fELF":
            raise OSError(errno.ENOEXEC, f"{command[0]} is a script")
    # Streams of _KINDS. Whatever the interpreter itself has to say, it says to nobody.
    unread, pipe = os.pipe2(os.O_CLOEXEC)
    try:
        return os.posix_spawn(
            command[0],
            command,
            environment,
            file_actions=(
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_DUP2, pipe, 1),
                (os.POSIX_SPAWN_DUP2, pipe, 2),
                (os.POSIX_SPAWN_DUP2, office, 3),
            ),
            setpgroup=0,
            setsigmask=(),
            setsigdef=tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}),
        )
    finally:
        os.close(unread)
        os.close(pipe)
