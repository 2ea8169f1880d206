"""The template: a Python interpreter that is up, and becomes one script after another by fork(2).

This is a program of its own, run by whatever interpreter a script's ``#!`` line names, 3.8 or newer: it imports
the standard library and nothing else. It never executes a script itself. It compiles (``sources``), forks, reaps;
the child takes the request's descriptors, environment and directory, and runs the code as ``__main__``
(``rebirth``). Both are executed in the same namespace before.

Whatever either of the two writes to after a fork is copied, by the page, 4 kB in 1.5 us: also the reference counts
of what it merely uses. That is most of what a request costs, and why some of this is written as it is.

Descriptor 3 is the office, a SOCK_SEQPACKET socket. The first packets are the three sources, the next the
settings; the answer is a greeting. Then each packet is one request with four descriptors: stdin, stdout, stderr
and the *line*, on which this one request is answered:

    S pid                    the child's word, once nothing can keep it from running the script
    F errno                  the script was not started, and will not be
    E status cpu peak        how it ended: wait status, CPU seconds, peak memory in bytes (wait4(2))

Who has hung up the line in time gets no script: the child's word fails, and it leaves without a trace.
"""

from __future__ import annotations

# Of these two the public modules are mostly Python, and each page that a child touches there is copied.
import _operator
import _signal as signal  # type: ignore[import-not-found]
import _socket as socket
import gc
import marshal
import os
import resource  # noqa: F401  # os.wait4() needs it
import select
import struct
import sys
from marshal import loads
from os import close, fork, read, wait4, write

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from pyemperor.actors.warm.rebirth import Origin, begin, finish, flushed, pack_failed, report, say, show
    from pyemperor.actors.warm.sources import PATIENCE, Source, Sources

_PACKET = 256 * 1024
#: So often is rehearsed what each child does, to have the interpreter's caches full (PEP 659 wants eight).
_REHEARSALS = 16
_RIGHTS = struct.calcsize("4i")
_ROOM = socket.CMSG_SPACE(_RIGHTS)
_AT_ONCE = os.WNOHANG
_unpack_rights = struct.Struct("4i").unpack
_pack_ended = struct.Struct("=cidQ").pack

#: The modules of an interpreter that was just started: given by whoever executes this.
bare: frozenset[str] = globals()["bare"]


class Template:
    """Serves the office until it closes and no child is left; a child never comes back from there."""

    def __init__(self, office: socket.socket, origin: Origin) -> None:
        self._origin = origin
        self._office = office
        self._buffers = [bytearray(_PACKET)]
        self._sources = Sources(origin)
        self._known = self._sources.known
        #: The lines of the children that run.
        self._lines: dict[int, int] = {}
        self._bell, ring = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, _operator.is_)  # anything will do; a function in Python costs more
        signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
        #: Where scripts leave the names of modules that it would have paid to have here; which are to be imported.
        self._news, told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wanted: set[str] = set()
        origin.tell_to(told)
        #: Where the kernel has this process' name, and that.
        self._comm, self._name = _open_comm()
        self._poll = select.poll()
        self._poll.register(self._news, select.POLLIN)
        self._poll.register(self._bell, select.POLLIN)
        self._poll.register(office, select.POLLIN)
        self._open = True
        self._highest = max(map(int, os.listdir("/proc/self/fd")))

    def serve(self) -> NoReturn:
        """Serve; a child becomes its script here."""
        while self._open or self._lines:
            learns = self._wanted and not self._lines  # whose scripts run needs us for their end
            for fd, _ in self._poll.poll(0 if learns else None):
                if fd == self._bell:
                    _read(fd, 64)
                    self._reap()
                elif fd == self._news:
                    words = _read(fd, 65536).decode("ascii", "replace").split()
                    self._wanted |= self._origin.common.intersection(words)
                else:
                    self._receive()
            if learns and not self._lines:
                self._import_one()
        os._exit(0)

    def _receive(self) -> None:
        try:
            size, ancillary, _, _ = self._office.recvmsg_into(self._buffers, _ROOM, socket.MSG_CMSG_CLOEXEC)
        except ConnectionResetError:
            size, ancillary = 0, []
        if size == 0:
            self._poll.unregister(self._office)
            self._open = False
            return
        rights = ancillary[0][2] if ancillary else b""
        if len(rights) != _RIGHTS:
            # There is no descriptor left: whoever asks sees the line hung up.
            for (fd,) in struct.iter_unpack("i", rights):
                close(fd)
            return
        fds = _unpack_rights(rights)
        self._highest = max(self._highest, *fds)
        try:
            version, place, rest = loads(self._buffers[0])
            source = self._known.get(version)
            if source is None or source.place != place:
                source = self._sources.find(version, place)
            self._call_oneself(source.name)  # the child inherits it
            pid = fork()
        except OSError as error:
            say(fds[3], pack_failed(b"F", error.errno or 0))
            close(fds[3])
        else:
            if pid == 0:
                self._run(source, fds, rest)  # and never come back
            self._lines[pid] = fds[3]
        self._call_oneself(self._name)
        close(fds[0])
        close(fds[1])
        close(fds[2])

    def _call_oneself(self, name: bytes) -> None:
        if self._comm >= 0:
            write(self._comm, name)

    def _run(self, source: Source, fds: tuple[int, int, int, int], rest: bytes) -> NoReturn:
        """Be the script. What came before stays as it is: to free it would be to copy it."""
        names, error = begin(source, fds, rest, self._highest, self._origin), None
        try:
            exec(source.code, names)
        except BaseException as raised:
            error = raised
        status, interrupted = report(error) if error is not None else 0, type(error) is KeyboardInterrupt
        del names, error
        finish(status, interrupted, self._origin, source.names)
        self._office.detach()  # this descriptor may be the script's by now
        raise SystemExit(status)

    def _import_one(self) -> None:
        """Import what a script had to import itself: the next one finds it here. Nobody waits for two."""
        name = self._wanted.pop()
        show(dict(self._origin.environment))  # nothing of a request is in what it makes of it
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        _preload([name])
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._origin.look_at_modules()
        self._origin.common = self._origin.common.difference(sys.modules, [name])
        self._wanted &= self._origin.common
        self._sources.look_again()
        gc.collect()
        gc.freeze()
        if not self._wanted:
            _fill_holes()

    def _reap(self) -> None:
        while self._lines:
            pid, status, usage = wait4(-1, _AT_ONCE)
            if pid == 0:
                return
            line = self._lines.pop(pid, None)
            if line is not None:
                say(line, _pack_ended(b"E", status, usage[0] + usage[1], usage[2] * 1024))
                close(line)


def _read(pipe: int, most: int) -> bytes:
    try:
        return read(pipe, most)
    except BlockingIOError:
        return b""  # somebody else has read it: a script may do what its user may


def _open_comm() -> tuple[int, bytes]:
    """A descriptor to change the name that ps and top show, and the name; (-1, b"") where that cannot be."""
    try:
        comm = os.open("/proc/self/comm", os.O_RDWR | os.O_CLOEXEC)
    except OSError:
        return -1, b""
    return comm, os.read(comm, 64).rstrip(b"\n")


def _preload(names: list[str]) -> list[str]:
    """Import the modules; the value says which could not be, and why. What they print is nobody's response."""
    failed = []
    nowhere, out, err = os.open(os.devnull, os.O_WRONLY), os.dup(1), os.dup(2)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    for name in names:
        try:
            __import__(name)
        except BaseException as error:  # SystemExit as well: there are such modules
            failed.append(f"{name} ({type(error).__name__}: {error})")
    flushed()
    os.dup2(out, 1)
    os.dup2(err, 2)
    for fd in (nowhere, out, err):
        close(fd)
    return failed


def _have_text_copied() -> None:
    """Have forks begin with the interpreter's code mapped: a page fault for each 64 kB of it costs them more.

    fork(2) copies the page table of a mapping of a file only if a page of it was ever written to, privately.
    """
    try:
        with open("/proc/self/maps", "rb") as maps, open("/proc/self/mem", "r+b", 0) as memory:
            for line in maps:
                addresses, access, _, _, _, *path = line.split()
                if access == b"r-xp" and path and os.path.basename(path[0]).startswith((b"python", b"libpython")):
                    at = int(addresses.split(b"-")[0], 16)
                    memory.seek(at)
                    byte = memory.read(1)
                    memory.seek(at)
                    memory.write(byte)
    except OSError:
        pass  # not allowed here


def _rehearse() -> None:
    """Do what most scripts do, so that the interpreter's caches know it: each child would copy what it learns."""
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        for _ in range(_REHEARSALS):
            print("", end="", file=nowhere, flush=True)
            os.environ.get("REQUEST_METHOD")
            flushed()


def _fill_holes() -> None:
    """Have what setenv(3) takes of the heap lie side by side in children, not in holes all over it.

    The C library never gives back what it has taken for an environment: so the holes are filled by one, with words
    that it has not had before. That is some 20 kB, each time that the template has learnt.
    """
    for size in range(8, 264, 16):
        for number in range(8):
            os.putenv("PYEMPEROR", f"{len(sys.modules)} {number}".ljust(size))
    os.unsetenv("PYEMPEROR")


def _live() -> NoReturn:
    """Be the template."""
    os.chdir("/")
    office = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, 3)
    given, modules, common, command, kinds = marshal.loads(office.recv(_PACKET))
    for name in os.environb.keys() - given.keys() - {b"LC_CTYPE"}:
        del os.environb[name]  # ours, and the dynamic linker has read it
    failed = _preload(modules)
    try:
        import setproctitle
    except ImportError:
        pass  # then ps shows an interpreter with a long -c
    else:
        setproctitle.setproctitle("pyemperor template: " + " ".join(command))
    origin = Origin(command, given, common, kinds, bare)
    threads = len(os.listdir("/proc/self/task"))
    office.send(marshal.dumps((tuple(sys.version_info[:3]), failed, threads), 2))
    _have_text_copied()
    _rehearse()
    gc.collect()
    gc.disable()
    gc.freeze()
    _fill_holes()
    Template(office, origin).serve()


if __name__ == "pyemperor template":
    _live()
