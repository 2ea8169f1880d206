"""The Emperor's process as its options want it: in the background, under its own name, with its files.

In uWSGI's order, for as long as there is privilege: the log file is opened, ``pidfile`` written and the control
socket bound; then the identity is taken, and what follows is done by the Emperor's own user. Nothing here may run
after the first thread has started: it forks.
"""

import contextlib
import os
import select
import socket
import sys
from collections.abc import Iterable, Iterator
from typing import NoReturn

from pyemperor.actors.actor import Inbox
from pyemperor.cli.blame import blaming, placing
from pyemperor.cli.control_socket import control_socket
from pyemperor.cli.identity import Identity, identity_of
from pyemperor.cli.log_options import file_of
from pyemperor.cli.logs import log_to_stderr
from pyemperor.cli.pid_file import PidFile
from pyemperor.protocol.options import EmperorOptions

#: Exit code of a start that failed, as without ``daemonize``.
_FAILED = 1
#: What a pipe takes at once, with room for the exit code.
_PIPE = 4000


class Settled:
    """The process once it is as wanted; ``control`` listens at the control socket, None where there is none."""

    def __init__(
        self, control: socket.socket | None, pids: "_PidFiles", parent: "Background | None"
    ) -> None:
        self.control = control
        self._pids = pids
        self._parent = parent

    def up_with(self, inbox: Inbox) -> None:
        """Say that the Emperor is up as soon as its actor has begun to wait for something."""
        bell = os.eventfd(1, os.EFD_CLOEXEC)

        def running(_mask: int) -> Iterable[object]:
            inbox.unwatch(bell)
            os.close(bell)
            self.up()
            return ()

        inbox.watch(bell, select.EPOLLIN, running)

    def up(self) -> None:
        """Say that the Emperor is up: writes ``safe-pidfile``, and whoever waits at the terminal may go."""
        self._pids.write("safe_pidfile")
        self._pids.write("safe_pidfile2")
        if self._parent is not None:
            self._parent.up()


@contextlib.contextmanager
def settled(options: EmperorOptions, *, level: str = "INFO") -> Iterator[Settled]:
    """Make this process the Emperor's and start its log; at the end, remove its process id and control socket.

    With ``daemonize`` the caller's process does not return from here: it waits until the other one is up, and
    exits 0, or says what was wrong and exits 1. Raises ConfigError, each with the name of the option.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(placing(options))
        identity = identity_of(options.uid, options.gid, options.add_gid, initgroups=not options.no_initgroups)
        pids = stack.enter_context(contextlib.closing(_PidFiles(options, identity)))
        parent = stack.enter_context(into_background()) if _background(options) else None
        stack.enter_context(placing(options))  # once more: who waits at the terminal hears it as it is here
        for name in options.unenv:
            os.environ.pop(name, None)
        if options.umask is not None:
            os.umask(options.umask)
        _start_log(options, level)
        pids.write("pidfile")
        control = stack.enter_context(control_socket(options, identity))
        if identity is not None:
            identity.take()
        if options.chdir:
            with blaming("chdir", options.chdir):
                os.chdir(options.chdir)
        pids.write("pidfile2")
        pids.write("emperor_pidfile")
        yield Settled(control, pids, parent)


class _PidFiles:
    """The files for the process id, by option; two options may name the same file."""

    def __init__(self, options: EmperorOptions, owner: Identity | None) -> None:
        self._files: dict[str, PidFile] = {}
        for option in ("pidfile", "pidfile2", "emperor_pidfile", "safe_pidfile", "safe_pidfile2"):
            path = getattr(options, option)
            if path and path not in self._files:
                self._files[path] = PidFile(option.replace("_", "-"), path, owner)
        self._options = options
        try:
            for file in self._files.values():
                file.open()
        except BaseException:
            self.close()
            raise

    def write(self, option: str) -> None:
        """Write that of ``option``, if it was given."""
        if path := getattr(self._options, option):
            self._files[path].write()

    def close(self) -> None:
        """Remove them."""
        for file in self._files.values():
            file.remove()


def _background(options: EmperorOptions) -> bool:
    return bool(options.daemonize or options.daemonize2)


def _start_log(options: EmperorOptions, level: str) -> None:
    file = file_of(options)
    option = "daemonize" if options.daemonize else "daemonize2" if options.daemonize2 else "logto"
    with blaming(option, file.path if file else ""):
        log_to_stderr(options.log_style, level=level, file=file, date=options.log_date)
    if file is not None:
        os.dup2(2, 1)


# ---- the background ---------------------------------------------------------------------------------------


class Background(contextlib.AbstractContextManager["Background"]):
    """The daemon's way back to whoever waits for it at the terminal, until it is up or failed."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._said = False

    def up(self) -> None:
        """Let the one who waits exit 0."""
        self._say(0, "")
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __exit__(self, _type: object, error: BaseException | None, _traceback: object) -> None:
        if error is not None and not isinstance(error, SystemExit):
            self._say(_FAILED, str(error) or repr(error))
        self._say(_FAILED, "pyemperor: the Emperor ended before it was up; its log says why")

    def _say(self, code: int, text: str) -> None:
        """The first word counts; whoever waits hears all of it when this process closes the pipe, or has ended."""
        if self._fd >= 0 and not self._said:
            self._said = True
            with contextlib.suppress(BrokenPipeError):  # nobody waits any more
                os.write(self._fd, bytes([code]) + text.encode("utf-8", "backslashreplace")[:_PIPE])


def into_background() -> Background:
    """Go on as a daemon: a session of its own, no terminal, stdin from nowhere (daemon(7)).

    The process that called never comes back; it ends as the daemon says.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    hears, says = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child:
        os.close(says)
        os.waitpid(child, 0)
        _wait_at_the_terminal(hears)
    os.close(hears)
    os.setsid()
    if os.fork():  # no leader of a session: it can never get a terminal again
        os._exit(0)
    # Nothing reaches the terminal but through the one who waits; there is no log yet.
    null = os.open(os.devnull, os.O_RDWR)
    for fd in (0, 1, 2):
        os.dup2(null, fd)
    os.close(null)
    return Background(says)


def _wait_at_the_terminal(fd: int) -> NoReturn:
    with open(fd, "rb") as pipe:
        said = pipe.read() or bytes([_FAILED]) + b"pyemperor: the Emperor died before it was up"
    if len(said) > 1:
        sys.stderr.write(said[1:].decode("utf-8", "replace") + "\n")
        sys.stderr.flush()
    os._exit(said[0])
