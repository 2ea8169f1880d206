"""What a handler decides is to be run, and how it is started and reaped."""

import contextlib
import os
import resource  # noqa: F401  # os.wait4() needs it: too late where the vassal's user may not read it
import signal
from collections.abc import Callable, Mapping
from typing import Any, Literal, Protocol

import msgspec

#: Seconds between the signal that asks a script to end, SIGTERM, and SIGKILL.
GRACE = 2.0
#: A script inherits no disposition, not that of SIGPIPE either, which Python ignores. (To name all of them is
#: also the quickest: for each that is not named, glibc asks the kernel first.)
_DEFAULTED = tuple(signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP})

#: Linux may schedule by sessions (autogroup, sched(7)): with one for each, the slowest scripts are slower.
_OWN_GROUP: dict[str, Any] = {"setpgroup": 0}
_OWN_SESSION: dict[str, Any] = {"setsid": True}


class Terms(msgspec.Struct, frozen=True):
    """What a vassal lets its scripts do.

    ``timeout`` is the seconds for which neither side may be silent (uWSGI's ``cgi-timeout``), ``first_byte``
    those until a response begins and ``total`` those until its end (0: no limit). ``head_limit`` bounds its
    header in bytes (``cgi-buffer-size``). ``redirect`` is what becomes of a local redirect (RFC 3875 §6.2.2).
    ``persistent`` lets a script finish when the client has left (``cgi-do-not-kill-on-error``); ``session``
    gives it a session of its own. Past ``total`` it gets the signal ``farewell``, and SIGKILL after ``grace``
    seconds; ``explain`` has it said what it waited for (uWSGI's ``harakiri-graceful-*``, ``harakiri-verbose``).
    """

    timeout: float
    first_byte: float = 0.0
    total: float = 0.0
    head_limit: int = 65536
    redirect: Literal["internal", "accel", "302"] = "internal"
    persistent: bool = False
    session: bool = False
    farewell: int = signal.SIGTERM
    grace: float = GRACE
    explain: bool = False


class Script(msgspec.Struct, frozen=True):
    """What a handler decides: the program, its arguments, its environment and its directory.

    ``path`` is executed; ``name`` is what people call it (the URL's ``SCRIPT_NAME``). ``warm`` runs it in a
    fork of the vassal's warm interpreter.
    """

    path: bytes
    arguments: tuple[bytes, ...]
    environment: Mapping[bytes, bytes]
    directory: bytes
    name: str
    terms: Terms
    warm: bool = False
    #: Taken by the handler; :class:`Process` gives it back (:class:`slots.Slot`).
    slot: Any = None

    @property
    def nph(self) -> bool:
        """Whether its name promises a response that is not to be parsed (RFC 3875 §5)."""
        return self.name.rpartition("/")[2].startswith("nph-")


class Ending(msgspec.Struct, frozen=True):
    """How a script ended: exit code (-1: by ``signal``), CPU seconds, peak memory in bytes (wait4(2))."""

    code: int
    signal: int
    cpu: float
    peak: int


#: Of a script whose template took its exit status along.
UNKNOWN = Ending(-1, 0, 0.0, 0)


class Child(Protocol):
    """A script that is not started by exec: readable when :meth:`reap` has something to say.

    Whether it runs is known from :meth:`begin` on, which waits for that: its pid, or OSError. :attr:`line` hangs
    up when it has ended, if not before. :meth:`fileno` is for one wait, :meth:`watched` (it raises OSError) for as
    many as it takes. Its exit is a wait status (None: nobody knows), CPU seconds and peak memory in bytes.
    """

    @property
    def line(self) -> int: ...
    def begin(self) -> int: ...
    def fileno(self) -> int: ...
    def watched(self) -> int: ...
    def reap(self) -> tuple[int | None, float, int] | None: ...
    def close(self) -> None: ...


#: Starts a script with these descriptors as 0, 1 and 2 in another way than exec; raises OSError where it cannot.
Spawn = Callable[[Script, int, int, int], Child]


def fork_warm(script: Script, stdin: int, stdout: int, stderr: int, warm: Spawn | None) -> Child | None:
    """Start ``script`` with these descriptors as 0, 1 and 2, if it may be warm; else None: execute it."""
    if script.warm and warm:
        with contextlib.suppress(OSError):  # it has said why; exec can do it as well
            return warm(script, stdin, stdout, stderr)
    return None


def execute(script: Script, stdin: int, stdout: int, stderr: int) -> int:
    """Start ``script`` with these descriptors as 0, 1 and 2; its pid. Raises OSError."""
    os.chdir(script.directory)
    return os.posix_spawn(
        script.path,
        script.arguments,
        script.environment,
        file_actions=(
            (os.POSIX_SPAWN_DUP2, stdin, 0),
            (os.POSIX_SPAWN_DUP2, stdout, 1),
            (os.POSIX_SPAWN_DUP2, stderr, 2),
        ),
        setsigmask=(),
        setsigdef=_DEFAULTED,
        **(_OWN_SESSION if script.terms.session else _OWN_GROUP),
    )


def reap(pid: int, child: Child | None) -> Ending | None:
    """How a script of this thread ended; None while it runs. Never blocks."""
    if child is None:
        pid, status, usage = os.wait4(pid, os.WNOHANG)
        return _ending(status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024) if pid else None
    found = child.reap()
    if found is None:
        return None
    status_or_none, cpu, peak = found
    return UNKNOWN if status_or_none is None else _ending(status_or_none, cpu, peak)


def _ending(status: int, cpu: float, peak: int) -> Ending:
    code = os.waitstatus_to_exitcode(status)
    return Ending(code, 0, cpu, peak) if code >= 0 else Ending(-1, -code, cpu, peak)
