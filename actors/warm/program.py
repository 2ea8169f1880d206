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
import _operator
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
from importlib.machinery import SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType
    from typing import Any, NoReturn

    from pyemperor.actors.warm.rebirth import Job, Origin, dress, finish, report, show

    Identity = tuple[int, int, int, int, int]

#: Seconds that a compilation or an import may take; then SIGALRM ends the template, and scripts run by exec.
_COMPILE = 0.8
#: Scripts whose code is kept, and the bytes that one may have.
_SCRIPTS = 512
_LARGEST = 4 << 20
#: Nanoseconds for which a file must have been left alone before its times tell one version from the next.
_SETTLED = 100_000_000
#: How the names of files end that can be imported.
_MODULE = (".py", ".pyc", ".so")
_PACKET = 256 * 1024
_FOUR = struct.Struct("4i")
_STARTED = struct.Struct("=cI")
_FAILED = struct.Struct("=ci")
_ENDED = struct.Struct("=cidQ")

#: The modules of an interpreter that was just started: given by whoever executes this.
bare: frozenset[str] = globals()["bare"]


class Source:
    """A script's code, and what is the same for each run of it: made once, by the template."""

    __slots__ = ("_is_link", "_names", "_place", "code", "file", "folder", "name")

    def __init__(self, origin: Origin, code: CodeType, path: bytes) -> None:
        self.code = code
        self.file = os.fsdecode(path)
        self.name = os.path.basename(path)[:15]
        #: With links resolved, as ``sys.path[0]`` is.
        self.folder = ""
        self._is_link = False
        self._place = (0, 0)
        loader = SourceFileLoader("__main__", self.file)
        self._names = {**origin.main, "__file__": self.file, "__cached__": None, "__loader__": loader}

    def main(self) -> dict[str, Any]:
        """The names of a new ``__main__``: one that was frozen with its template would never be collected."""
        module = sys.modules["__main__"] = type(sys)("__main__")
        names = vars(module)
        names.update(self._names)
        if "__annotations__" in names:
            names["__annotations__"] = {}
        return names

    def look_around(self, folders: Folders) -> bool:
        """Find the folder, and say whether what lies there can be imported from there. Raises OSError."""
        found = os.stat(os.path.dirname(self.file))
        place = (found.st_dev, found.st_ino)
        if place != self._place:  # a link on the way may lead to another release
            self.folder = os.path.dirname(os.path.realpath(self.file))
            self._is_link = self.folder != os.path.realpath(os.path.dirname(self.file))
            self._place = place
        return folders.are_open(self.folder, os.stat(self.folder) if self._is_link else found)


class Folders:
    """Knows of folders of scripts whether a module there would be hidden by one of ours that has its name."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        #: By folder: when it had changed, for how many of our modules it was looked at, and the verdict.
        self._known: dict[str, tuple[int, int, bool]] = {}

    def are_open(self, folder: str, found: os.stat_result) -> bool:
        """Whether a script there imports what it would import after a cold start. Raises OSError."""
        origin = self._origin
        if origin.safe_path:
            return True
        changed, beyond = found.st_mtime_ns, len(origin.beyond)
        known = self._known.get(folder)
        if known is not None and known[:2] == (changed, beyond):
            return known[2]
        try:
            names = [name for name in os.listdir(folder) if name.partition(".")[0] in origin.beyond]
        except PermissionError:
            names = []  # nobody finds a module there
        packages = [name for name in names if "." not in name]
        is_open = not any(name.endswith(_MODULE) for name in names) and not any(
            file.startswith("__init__.") for name in packages for file in _list(os.path.join(folder, name))
        )
        # A folder says nothing of what changes in those within it; and not yet of what changes now.
        if not packages and changed < time.time_ns() - _SETTLED:
            if len(self._known) >= _SCRIPTS:
                self._known.clear()
            self._known[folder] = (changed, beyond, is_open)
        return is_open


def _list(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (NotADirectoryError, PermissionError):
        return []


class Sources:
    """The scripts' code, compiled once for each version of a file: the least recently used goes first."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._folders = Folders(origin)
        self._known: OrderedDict[tuple[bytes, Identity], Source | None] = OrderedDict()

    def find(self, path: bytes, identity: Identity) -> Source:
        """The code of the file.

        Raises OSError for whatever a cold start should report (ENOEXEC: errors of syntax, warnings, a file that
        has changed since), or find: a module beside it that is not the one that is imported here (ENOTUNIQ).
        """
        key = (path, identity)
        if key in self._known:
            self._known.move_to_end(key)
            found = self._known[key]
        else:
            found = self._compile(path, identity)
            if identity[4] < time.time_ns() - _SETTLED:
                self._known[key] = found
                if len(self._known) > _SCRIPTS:
                    self._known.popitem(last=False)
                gc.freeze()
        if found is None:
            raise OSError(errno.ENOEXEC, "a cold start is to say why")
        if not found.look_around(self._folders):
            raise OSError(errno.ENOTUNIQ, "a module beside it has the name of one of ours")
        return found

    def _compile(self, path: bytes, identity: Identity) -> Source | None:
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
        return None if said else Source(self._origin, code, path)


def _identity(found: os.stat_result) -> Identity:
    """What tells one version of a file from another."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class Template:
    """Serves the office until it closes and no child is left; :meth:`serve` returns in each child."""

    def __init__(self, office: socket.socket, origin: Origin) -> None:
        self._origin = origin
        self._office = office
        self._buffer = bytearray(_PACKET)
        self._sources = Sources(origin)
        #: The lines of the children that run.
        self._lines: dict[int, int] = {}
        self._bell, ring = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.signal(signal.SIGCHLD, _operator.is_)  # anything will do; a function in Python costs more
        signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
        #: Where scripts leave the names of modules that it would have paid to have here; which are to be imported.
        self._news, told = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self._wanted: set[str] = set()
        origin.tell_to(told)
        self._poll = select.poll()
        self._poll.register(self._news, select.POLLIN)
        self._poll.register(self._bell, select.POLLIN)
        self._poll.register(office, select.POLLIN)
        self._open = True
        self._highest = max(map(int, os.listdir("/proc/self/fd")))

    def serve(self) -> Job:
        """Serve; the value is what this process, a child, is to do."""
        while self._open or self._lines:
            learns = self._wanted and not self._lines  # whose scripts run needs us for their end
            for fd, _ in self._poll.poll(0 if learns else None):
                if fd == self._bell:
                    _read(fd)
                    self._reap()
                elif fd == self._news:
                    self._wanted |= self._origin.common.intersection(_read(fd).split())
                else:
                    job = self._receive()
                    if job is not None:
                        return job
            if learns and not self._lines:
                self._import_one()
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
        rights = ancillary[0][2] if ancillary else b""
        if len(rights) != _FOUR.size:
            # There is no descriptor left: whoever asks sees the line hung up.
            for (fd,) in struct.iter_unpack("i", rights):
                os.close(fd)
            return None
        fds = _FOUR.unpack(rights)
        self._highest = max(self._highest, *fds)
        line, theirs = fds[3], fds[:3]
        try:
            job = self._fork(line, fds, *marshal.loads(memoryview(self._buffer)[:size]))
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
        fds: tuple[int, ...],
        path: bytes,
        identity: Identity,
        arguments: tuple[bytes, ...],
        environment: dict[bytes, bytes],
        directory: bytes,
        kinds: tuple[tuple[int, int], ...],
    ) -> Job | None:
        job = Job(self._origin, self._sources.find(path, identity), arguments, environment, kinds)
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

    def _become(self, line: int, fds: tuple[int, ...], directory: bytes) -> None:
        """Be a process of one's own, with three descriptors; raises OSError if that, or the line, fails."""
        os.setsid()
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._office.detach()
        dup2 = os.dup2
        dup2(fds[0], 0)
        dup2(fds[1], 1)
        dup2(fds[2], 2)
        os.chdir(directory)
        os.write(line, _STARTED.pack(b"S", os.getpid()))
        os.closerange(3, self._highest + 1)

    def _import_one(self) -> None:
        """Import what a script had to import itself: the next one finds it here. Nobody waits for two."""
        name = self._wanted.pop()
        show(self._origin.environment)  # nothing of a request is in what it makes of it
        signal.setitimer(signal.ITIMER_REAL, _COMPILE)
        _preload([name])
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._origin.look_at_modules()
        self._origin.common = self._origin.common.difference(sys.modules, [name])
        self._wanted &= self._origin.common
        gc.collect()
        gc.freeze()

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


def _read(pipe: int) -> str:
    try:
        return os.read(pipe, 65536).decode("ascii", "replace")
    except BlockingIOError:
        return ""  # somebody else has read it: a script may do what its user may


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


def _live() -> NoReturn:
    """Be the template, then a script."""
    os.chdir("/")
    office = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET, 0, 3)
    given, modules, common, command, kinds = marshal.loads(office.recv(_PACKET))
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
    gc.collect()
    gc.disable()
    gc.freeze()
    template = Template(office, origin)  # kept until the end: a child that frees it copies its memory first
    job = template.serve()
    dress(job, origin)
    code, names, error = job.source.code, job.names, None
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
