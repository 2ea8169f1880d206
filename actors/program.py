"""A command of an attendant: started with a clean slate, heard line by line, signalled with its process group."""

import contextlib
import os
import select
import signal
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from pyemperor.actors.actor import Inbox
from pyemperor.actors.cgi_runner import ErrorPipe
from pyemperor.actors.linux import living_descendants, process_state
from pyemperor.protocol.hooks import Step

#: A program inherits no disposition.
_DEFAULTED = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})
#: Of the environment of this process, what is ours alone.
_OURS = "PYEMPEROR_"


@dataclass(frozen=True, slots=True)
class ProgramEnded:
    """The process ``pid`` has ended; ``how`` in words, "" for exit code 0."""

    pid: int
    how: str


class Hands:
    """What an attendant does to the machine. Its process must have one thread, and be a child subreaper."""

    def __init__(self, inbox: Inbox, environment: Mapping[str, str], log: Callable[[str], None]) -> None:
        self._inbox = inbox
        ours = {name: value for name, value in os.environ.items() if not name.startswith(_OURS)}
        self._environment = ours | dict(environment)
        self._output = ErrorPipe(inbox, lambda line, _request: log(line))
        self._null = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)

    def run(self, argv: list[str], directory: str = "") -> int:
        """Start a program in a session of its own, found by PATH; its pid. :class:`ProgramEnded` follows.

        Raises OSError.
        """
        if directory:
            os.chdir(directory)
        pid = os.posix_spawnp(
            argv[0],
            argv,
            self._environment,
            file_actions=(
                (os.POSIX_SPAWN_DUP2, self._null, 0),
                (os.POSIX_SPAWN_DUP2, self._output.fd, 1),
                (os.POSIX_SPAWN_DUP2, self._output.fd, 2),
            ),
            setsid=True,
            setsigmask=(),
            setsigdef=_DEFAULTED,
        )
        self.follow(pid)
        return pid

    def follow(self, pid: int) -> None:
        """Have the end of ``pid`` told, also if it is nobody's child here. Raises ProcessLookupError."""
        pidfd = os.pidfd_open(pid)

        def source(_mask: int) -> Iterable[object]:
            self._inbox.unwatch(pidfd)
            os.close(pidfd)
            ended = ProgramEnded(pid, _how(pid))
            if self.left():
                self._output.drain()  # who is left may finish the line
            else:
                self._output.end()
            return [ended]

        self._inbox.watch(pidfd, select.EPOLLIN, source)

    def signal(self, pid: int, number: int) -> None:
        """Signal the group that ``pid`` leads, else the process alone; who is gone has nothing to hear."""
        with contextlib.suppress(ProcessLookupError):
            if os.getpgid(pid) == pid:
                os.killpg(pid, number)
            else:
                os.kill(pid, number)

    def left(self) -> bool:
        """Whether any descendant of this process lives."""
        return bool(living_descendants([os.getpid()]))

    def bury(self, running: int) -> None:
        """Reap what programs left to this process, the subreaper; not the program that ``running`` is."""
        with contextlib.suppress(ChildProcessError):
            while found := os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                if found.si_pid == running:
                    return
                os.waitpid(found.si_pid, 0)

    # ---- files ------------------------------------------------------------------------------------------

    def pid_in(self, pidfile: str) -> int:
        """The process that ``pidfile`` names, if it lives; else 0."""
        try:
            with open(pidfile, "rb") as file:
                word = file.read(32).strip()
        except OSError:
            return 0  # not there yet, or not ours to read: nobody that we know lives
        pid = int(word) if word.isdigit() and len(word) < 10 else 0
        return pid if pid > 0 and process_state(pid)[0] not in "XZ" else 0

    def write_pid(self, pidfile: str, pid: int) -> None:
        """Write a pidfile. Raises OSError."""
        with open(pidfile, "w", encoding="ascii") as file:
            file.write(f"{pid}\n")

    def stamp(self, file: str) -> tuple[int, int]:
        """What changes when ``file`` is touched, appears or vanishes."""
        try:
            found = os.stat(file)
        except OSError:
            return 0, 0
        return found.st_mtime_ns, found.st_ino

    def perform(self, step: Step) -> None:
        """Do what needs no program. Raises OSError."""
        file, text = step.file_and_text
        match step.verb:
            case "mkdir":
                os.makedirs(step.argument, exist_ok=True)
            case "create":
                _write(step.argument, "", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            case "unlink":
                os.unlink(step.argument)
            case "write" | "writen":
                _write(file, text + "\n" * (step.verb == "writen"), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            case "append" | "appendn":
                _write(file, text + "\n" * (step.verb == "appendn"), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            case "writefifo":
                _write(file, text, os.O_WRONLY | os.O_NONBLOCK)


def _write(file: str, text: str, flags: int) -> None:
    fd = os.open(file, flags | os.O_CLOEXEC, 0o666)
    try:
        os.write(fd, text.encode("utf-8", "surrogateescape"))
    finally:
        os.close(fd)


def _how(pid: int) -> str:
    try:
        _, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return "gone, exit code unknown"  # it was somebody else's child
    code = os.waitstatus_to_exitcode(status)
    return f"killed by signal {-code}" if code < 0 else f"exit code {code}" if code else ""
