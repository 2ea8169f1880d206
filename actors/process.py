"""A running script, as an exchange has it: fed, heard, and ended with its whole process group."""

import contextlib
import errno
import os
import select
import signal
from enum import Enum, auto

from pyemperor.actors.actor import Inbox, Source
from pyemperor.actors.linux import group_doing, group_lives, widen
from pyemperor.actors.refusals import cannot_run
from pyemperor.actors.script import GRACE, Child, Ending, Script, Spawn, execute, fork_warm, reap
from pyemperor.actors.spool import CHUNK, NOTHING, Spool

#: Bytes that the pipe of a large output holds; the kernel's limit for ordinary users.
WIDE = 1 << 20
#: Seconds between two looks at what a script has left behind.
LOOK = 0.05
#: Errors that are the machine's: there is no descriptor, or no memory, left now.
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)
#: There is nobody, or nobody of ours: a stranger can have joined the group.
_NOBODY = (ProcessLookupError, PermissionError)


class Ready(Enum):
    """What an exchange waits for: each is a message of the runner's inbox."""

    CLIENT = auto()
    INPUT = auto()
    OUTPUT = auto()
    EXIT = auto()
    TICK = auto()


def _says(ready: Ready) -> Source:
    messages = (ready,)
    return lambda _mask: messages


_SAYS = {ready: _says(ready) for ready in Ready}


class Process:
    """The script's side of an exchange: its body goes in, its output comes out, and it ends with its group.

    It leads a process group of its own, as a rule in a session of its own, and has the descriptors 0, 1 and 2 and
    no other.
    """

    __slots__ = (
        "_child", "_exit", "_grace", "_group", "_inbox", "_input", "_output", "_said", "_wide",
        "asked_at", "ending", "pending", "pid", "script",
    )  # fmt: skip

    pid: int

    def __init__(self, inbox: Inbox, script: Script) -> None:
        self._inbox = inbox
        self.script = script
        self.ending: Ending | None = None
        #: When it was asked to end (seconds, monotonic).
        self.asked_at: float | None = None
        self._grace = GRACE
        self._group = False  # others of its group have outlived it, and have the rest of its time
        #: Bytes of the request's body that the script has not taken yet.
        self.pending = NOTHING
        self._input = self._output = -1
        #: What tells of its end: a pidfd, or the child's own.
        self._exit = -1
        self._child: Child | None = None
        self._wide = False
        self._said = b""

    @classmethod
    def start(
        cls, inbox: Inbox, script: Script, *, stdin: int | None, stderr: int, warm: Spawn | None = None
    ) -> "Process":
        """Start ``script``; raises RequestError when it cannot be executed.

        ``stdin`` is None for a pipe that :meth:`feed` fills; ``warm`` starts what need not be executed. The
        caller's thread must have its own working directory (``linux.own_working_directory``).
        """
        self = cls(inbox, script)
        theirs = []
        try:
            if stdin is None:
                stdin, self._input = os.pipe2(os.O_CLOEXEC)
                theirs.append(stdin)
                os.set_blocking(self._input, False)
                self.pending = Spool()
            self._output, stdout = os.pipe2(os.O_CLOEXEC)
            theirs.append(stdout)
            os.set_blocking(self._output, False)
            self.pid, self._child = _started(script, (stdin, stdout, stderr), warm)
        except OSError as error:
            self.close()
            raise cannot_run(script.name, os.fsdecode(script.path), error) from None
        finally:
            for fd in theirs:
                os.close(fd)
        return self

    @classmethod
    def running(
        cls,
        inbox: Inbox,
        script: Script,
        pid: int,
        child: Child | None,
        output: int,
        said: bytes,
        ending: Ending | None,
    ) -> "Process":
        """The process that runs ``script`` without input, and has ``said`` something to ``output``."""
        self = cls(inbox, script)
        self.pid, self._child = pid, child
        self.ending = ending
        self._output, self._said = output, said
        os.set_blocking(output, False)
        return self

    # ---- its pipes --------------------------------------------------------------------------------------

    @property
    def listens(self) -> bool:
        """Whether its stdin is a pipe that is still open."""
        return self._input >= 0

    @property
    def talks(self) -> bool:
        """Whether its stdout has not ended."""
        return self._output >= 0

    def feed(self, data: bytes = b"", *, last: bool) -> int:
        """Write ``data`` after what is pending; the number of bytes taken now. Raises OSError for a full disk.

        The input ends behind the ``last`` bytes. A script need not read it (RFC 3875 §4.2): then it is dropped.
        """
        if self._input < 0:
            return 0
        self.pending.put(data)
        taken = 0
        try:
            while self.pending.next:
                written = os.write(self._input, self.pending.next)
                self.pending.taken(written)
                taken += written
        except BlockingIOError:
            return taken
        except BrokenPipeError:
            last = True
        if last:
            self.close_input()
        return taken

    @property
    def has_spoken(self) -> bool:
        """Whether something that it has said is here to be read."""
        return bool(self._said)

    def read(self) -> bytes | None:
        """Output; None if there is none now, b"" at its end."""
        if self._said:
            said, self._said = self._said, b""
            return said
        try:
            return os.read(self._output, CHUNK)
        except BlockingIOError:
            return None

    def stream(self) -> int:
        """The descriptor of its output, for splice(2): much is to come, so its pipe is made wide."""
        if not self._wide:
            self._wide = True
            widen(self._output, WIDE)
        return self._output

    def watch(self, output: int) -> None:
        """Wait for what it can do next: take more, and say more, as far as the mask ``output`` goes.

        EPOLLIN for all that it says, 0 for its end alone; a negative one waits for nothing, or a peer that has
        closed would be reported for ever.
        """
        if self._input >= 0:
            self._watch(self._input, select.EPOLLOUT if self.pending.next else -1, Ready.INPUT)
        if self._output >= 0:
            self._watch(self._output, output, Ready.OUTPUT)

    def _watch(self, fd: int, mask: int, ready: Ready) -> None:
        if mask < 0:
            self._inbox.unwatch(fd)
        else:
            self._inbox.watch(fd, mask, _SAYS[ready])

    def watch_exit(self) -> bool:
        """Wait for its end; False when there is no descriptor for that: then somebody has to look."""
        if self._exit < 0:
            try:
                self._exit = self._child.watched() if self._child else os.pidfd_open(self.pid)
            except OSError as error:
                if error.errno not in EXHAUSTED:
                    raise
                return False
            self._watch(self._exit, select.EPOLLIN, Ready.EXIT)
        return True

    def _close(self, fd: int) -> int:
        if fd >= 0:
            self._inbox.unwatch(fd)
            os.close(fd)
        return -1

    def close_input(self) -> None:
        """End its input."""
        self.pending.clear()
        self._input = self._close(self._input)

    def close_output(self) -> None:
        """Read nothing more from it."""
        self._output = self._close(self._output)

    def make_room(self) -> None:
        """Let the mount have its next request."""
        if self.script.slot:
            self.script.slot.release()

    def close(self) -> None:
        """Give back every descriptor, and its place in the mount."""
        if self._input >= 0:
            self.close_input()
        if self._output >= 0:
            self.close_output()
        self._forget_exit()
        self.make_room()

    def _forget_exit(self) -> None:
        if self._child:
            if self._exit >= 0:
                self._inbox.unwatch(self._exit)
            self._child.close()
            self._child, self._exit = None, -1
        else:
            self._exit = self._close(self._exit)

    # ---- its end ----------------------------------------------------------------------------------------

    def signal(self, number: int) -> None:
        """Signal the whole process group, and a script that has left it; who is gone has nothing to hear."""
        with contextlib.suppress(*_NOBODY):
            os.killpg(self.pid, number)
        with contextlib.suppress(*_NOBODY):
            if self.reap() is None and os.getpgid(self.pid) != self.pid:
                os.kill(self.pid, number)

    def end(self, now: float, number: int, grace: float) -> None:
        """Ask the group to end by the signal ``number``, within ``grace`` seconds; then :meth:`insist`."""
        self.signal(number)
        self.asked_at, self._grace = now, grace

    def insist(self, now: float) -> float:
        """Look whether the group that was asked to end has done so, and kill it after its grace.

        The value is the time in seconds after which to look again.
        """
        assert self.asked_at is not None
        if now >= self.asked_at + self._grace:
            self.signal(signal.SIGKILL)
            self._group = False
            return GRACE
        self._group = self._left_behind()
        return LOOK if self.ending else self.asked_at + self._grace - now

    def doing(self) -> str:
        """What every process of its group does at the moment, in words."""
        try:
            return group_doing(self.pid)
        except OSError as error:
            return f"nobody can tell now: {error.strerror}"

    def _left_behind(self) -> bool:
        try:
            os.killpg(self.pid, 0)
        except _NOBODY:
            return False
        try:
            return group_lives(self.pid)  # zombies count for the kernel
        except OSError as error:
            if error.errno not in EXHAUSTED:
                raise
            return True  # nobody can tell now

    @property
    def gone(self) -> bool:
        """Whether nothing is left of it: it is reaped, and its group has ended if that was asked for."""
        return self.ending is not None and not self._group

    def reap(self) -> Ending | None:
        """How the script ended; None while it runs. Never blocks."""
        if self.ending is None:
            self.ending = reap(self.pid, self._child)
            if self.ending is not None:
                self._forget_exit()
        return self.ending


def _started(script: Script, fds: tuple[int, int, int], warm: Spawn | None) -> tuple[int, Child | None]:
    child = fork_warm(script, *fds, warm)
    if child:
        with contextlib.suppress(OSError):  # it does not run; exec can do it as well
            return child.begin(), child
    return execute(script, *fds), None
