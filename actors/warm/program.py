"""The template: a Python interpreter that is up, and becomes one script after another by fork(2).

This is a program of its own, run by whatever interpreter a script's ``#!`` line names, 3.8 or newer: it imports
the standard library and nothing else. It never executes a script itself. It compiles, forks, reaps; the child
takes the request's descriptors, environment and directory, and runs the code as ``__main__`` (``rebirth``, which
is executed in the same namespace before).

Descriptor 3 is the office, a SOCK_SEQPACKET socket. The first packets are the two sources, the next the settings;
the answer is a greeting. Then each packet is one request with four descriptors: stdin, stdout, stderr and the
*line*, on which this one request is answered:

    S pid                    the child's word, once nothing can keep it from running the script
    F errno                  the script was not started, and will not be
    E status cpu peak        how it ended: wait status, CPU seconds, peak memory in bytes (wait4(2))

Who has hung up the line in time gets no script: the child's word fails, and it leaves without a trace.
"""

from __future__ import annotations

# Of these two the public modules are mostly Python, and each page that a child touches there is copied.
import _signal as signal  # type: ignore[import-not-found]
import _socket as socket
import errno
import gc
import marshal
import os
import resource  # noqa: F401  # os.wait4() needs it
import select
import struct
import sys
import time
import warnings
from collections import OrderedDict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import NoReturn

    from pyemperor.actors.warm.rebirth import Job, Origin, dress, finish, report

    Identity = tuple[int, int, int, int, int]

#: Seconds that a compilation may take; then SIGALRM ends the template, and the script runs by exec.
_COMPILE = 0.8
#: Scripts whose code is kept, and the bytes that one may have.
_SCRIPTS = 512
_LARGEST = 4 << 20
#: Nanoseconds for which a file must have been left alone before its times tell one version from the next.
_SETTLED = 100_000_000
_PACKET = 256 * 1024
_STARTED = struct.Struct("=cI")
_FAILED = struct.Struct("=ci")
_ENDED = struct.Struct("=cidQ")


class Sources:
    """The scripts' code, compiled once for each version of a file: the least recently used goes first."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[bytes, Identity], tuple[CodeType, str] | None] = OrderedDict()

    def code(self, path: bytes, identity: Identity) -> tuple[CodeType, str]:
        """The code of the file, and its folder with links resolved (what ``sys.path[0]`` is).

        Raises OSError (ENOEXEC) for whatever a cold start should report: errors of syntax, warnings, a file that
        has changed since.
        """
        key = (path, identity)
        if key in self._known:
            self._known.move_to_end(key)
            found = self._known[key]
        else:
            found = self._compile(path, identity)
            if identity[4] < time.time_ns() - _SETTLED:  # the next version could look the same until then
                self._known[key] = found
                if len(self._known) > _SCRIPTS:
                    self._known.popitem(last=False)
                gc.freeze()
        if found is None:
            raise OSError(errno.ENOEXEC, "a cold start is to say why")
        return found

    def _compile(self, path: bytes, identity: Identity) -> tuple[CodeType, str] | None:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            if _identity(found) != identity or found.st_size > _LARGEST:
                return None
            source = file.read(_LARGEST)
        name = os.fsdecode(path)
        signal.setitimer(signal.ITIMER_REAL, _COMPILE)
        try:
            with warnings.catch_warnings(record=True) as said:
                code = compile(source, name, "exec", dont_inherit=True)
        except (SyntaxError, ValueError, MemoryError, RecursionError, OverflowError):
            return None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return None if said else (code, os.path.dirname(os.path.realpath(name)))


def _identity(found: os.stat_result) -> Identity:
    """What tells one version of a file from another."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class Template:
    """Serves the office until it closes and no child is left; :meth:`serve` returns in each child."""

    def __init__(self, office: socket.socket, origin: Origin) -> None:
        self._origin = origin
        self._office = office
        self._buffer = bytearray(_PACKET)
        self._sources = Sources()
        #: The lines of the children that run.
        self._lines: dict[int, int] = {}
        self._bell, ring = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        self._poll.register(office, select.POLLIN)
        self._open = True
        self._highest = max(map(int, os.listdir("/proc/self/fd")))

    def serve(self) -> Job:
        """Serve; the value is what this process, a child, is to do."""
        while self._open or self._lines:
            for fd, _ in self._poll.poll():
                if fd == self._bell:
                    os.read(fd, 4096)
                    self._reap()
                else:
                    job = self._receive()
                    if job is not None:
                        return job
        os._exit(0)

    def _receive(self) -> Job | None:
        try:
            size, ancillary, _, _ = self._office.recvmsg_into(
                [self._buffer], socket.CMSG_SPACE(16), socket.MSG_CMSG_CLOEXEC
            )
        except ConnectionResetError:
            size, ancillary = 0, []
        if size == 0:
            self._poll.unregister(self._office)
            self._open = False
            return None
        fds = [fd for _, _, rights in ancillary for fd in struct.unpack(f"{len(rights) // 4}i", rights)]
        if len(fds) != 4:
            for fd in fds:  # there is no descriptor left: whoever asks sees the line hung up
                os.close(fd)
            return None
        self._highest = max(self._highest, *fds)
        *theirs, line = fds
        try:
            job = self._fork(line, theirs, *marshal.loads(memoryview(self._buffer)[:size]))
        except OSError as error:
            _say(line, _FAILED.pack(b"F", error.errno or 0))
            os.close(line)
            job = None
        if job is None:
            for fd in theirs:
                os.close(fd)
        return job

    def _fork(
        self,
        line: int,
        fds: list[int],
        path: bytes,
        identity: Identity,
        arguments: tuple[bytes, ...],
        environment: dict[bytes, bytes],
        directory: bytes,
    ) -> Job | None:
        job = Job(self._origin, *self._sources.code(path, identity), path, arguments, environment)
        pid = os.fork()
        if pid:
            self._lines[pid] = line
            return None
        try:
            self._become(line, fds, directory)
        except OSError as error:
            _say(line, _FAILED.pack(b"F", error.errno or 0))
            os._exit(127)
        return job

    def _become(self, line: int, fds: list[int], directory: bytes) -> None:
        """Be a process of one's own, with three descriptors; raises OSError if that, or the line, fails."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._office.detach()
        for number in (0, 1, 2):
            os.dup2(fds[number], number)
        os.chdir(directory)
        os.write(line, _STARTED.pack(b"S", os.getpid()))
        os.closerange(3, self._highest + 1)

    def _reap(self) -> None:
        while self._lines:
            pid, status, usage = os.wait4(-1, os.WNOHANG)
            if pid == 0:
                return
            line = self._lines.pop(pid, None)
            if line is not None:
                cpu = usage.ru_utime + usage.ru_stime
                _say(line, _ENDED.pack(b"E", status, cpu, usage.ru_maxrss * 1024))
                os.close(line)


def _say(line: int, packet: bytes) -> None:
    try:
        os.write(line, packet)
    except OSError:
        return  # whoever has hung up needs no answer


def _preload(names: list[str]) -> list[str]:
    """Import the modules; the value says which could not be, and why."""
    failed = []
    for name in names:
        try:
            __import__(name)
        except BaseException as error:  # SystemExit as well: there are such modules
            failed.append(f"{name} ({type(error).__name__}: {error})")
    return failed


def _live() -> NoReturn:
    """Be the template, then a script."""
    os.chdir("/")
    office = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, 3)
    given, modules, command = marshal.loads(office.recv(_PACKET))
    failed = _preload(modules)
    try:
        import setproctitle
    except ImportError:
        pass  # then ps shows an interpreter with a long -c
    else:
        setproctitle.setproctitle("pyemperor template: " + " ".join(command))
    origin = Origin(command, given)
    threads = len(os.listdir("/proc/self/task"))
    office.send(marshal.dumps((tuple(sys.version_info[:3]), failed, threads), 2))
    gc.collect()
    gc.disable()
    gc.freeze()
    template = Template(office, origin)  # kept until the end: a child that frees it copies its memory first
    job = template.serve()
    dress(job, origin)
    code, names, error = job.code, job.names, None
    del job
    try:
        exec(code, names)
    except BaseException as raised:
        error = raised
    status, interrupted = report(error) if error else 0, type(error) is KeyboardInterrupt
    del names, error
    finish(status, interrupted, origin)


if __name__ == "pyemperor template":
    _live()
