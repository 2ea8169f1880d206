"""A running CGI script: started with a clean slate, ended with its whole process group."""

import contextlib
import errno
import os
import resource  # noqa: F401  # os.wait4() needs it: too late where the vassal's user may not read it
import signal
from collections.abc import Mapping
from dataclasses import dataclass

from pyemperor.actors.linux import group_lives
from pyemperor.protocol.errors import RequestError

#: A script inherits no disposition, not that of SIGPIPE either, which Python ignores. (To name all of them is
#: also the quickest: for each that is not named, glibc asks the kernel first.)
_DEFAULTED = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})


@dataclass(frozen=True, slots=True)
class Script:
    """What a handler decides: the program, its arguments, its environment and its directory.

    ``path`` is executed; ``name`` is what people call it (the URL's ``SCRIPT_NAME``). ``timeout`` is the seconds
    for which neither side may be silent (uWSGI's ``cgi-timeout``).
    """

    path: bytes
    arguments: tuple[bytes, ...]
    environment: Mapping[bytes, bytes]
    directory: bytes
    name: str
    timeout: float


@dataclass(frozen=True, slots=True)
class Ending:
    """How a script ended: exit code (-1: by ``signal``), CPU seconds, peak memory in bytes (wait4(2))."""

    code: int
    signal: int
    cpu: float
    peak: int


class Process:
    """The script's process: a session and process group of its own, descriptors 0, 1 and 2 and no other."""

    __slots__ = ("ending", "pid")

    def __init__(self, script: Script, stdin: int, stdout: int, stderr: int) -> None:
        """Start ``script``; raises OSError when it cannot be executed (:func:`cannot_run` puts it in words).

        The caller's thread must have its own working directory (``linux.own_working_directory``).
        """
        self.ending: Ending | None = None
        os.chdir(script.directory)
        self.pid = os.posix_spawn(
            script.path,
            script.arguments,
            script.environment,
            file_actions=(
                (os.POSIX_SPAWN_DUP2, stdin, 0),
                (os.POSIX_SPAWN_DUP2, stdout, 1),
                (os.POSIX_SPAWN_DUP2, stderr, 2),
            ),
            setsid=True,
            setsigmask=(),
            setsigdef=_DEFAULTED,
        )

    def signal(self, number: int) -> None:
        """Signal the whole process group; a group that is gone has nothing to hear."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, number)

    def left_behind(self) -> bool:
        """Whether others of the process group have outlived the script."""
        try:
            os.killpg(self.pid, 0)
        except ProcessLookupError:
            return False
        return group_lives(self.pid)  # zombies count for the kernel

    def reap(self) -> Ending | None:
        """How the script ended; None while it runs. Never blocks."""
        if self.ending is None:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                cpu = usage.ru_utime + usage.ru_stime
                self.ending = Ending(max(code, -1), max(-code, 0), cpu, usage.ru_maxrss * 1024)
        return self.ending


def cannot_run(script: Script, error: OSError) -> RequestError:
    """The answer to a request whose script could not be started."""
    file = os.fsdecode(script.path)
    match error.errno:
        case errno.EACCES | errno.EPERM:
            return RequestError(
                f"{script.name} may not be executed",
                status=403,
                remedy=f"chmod +x {file}, and check its #! line",
            )
        case errno.ENOENT | errno.ENOTDIR:
            return RequestError(
                f"{script.name} cannot be started",
                status=500,
                remedy=f"{file}, or the interpreter in its #! line, is missing",
            )
        case errno.ENOEXEC:
            return RequestError(
                f"{script.name} is not a program",
                status=500,
                remedy=f"give {file} a #! line such as #!/bin/sh",
            )
        case errno.EAGAIN | errno.ENOMEM | errno.EMFILE | errno.ENFILE:
            return RequestError(
                f"{script.name} cannot be started now",
                status=503,
                remedy=f"{error.strerror}: raise the limit",
            )
    return RequestError(f"{script.name} cannot be started", status=500, remedy=f"{file}: {error.strerror}")
