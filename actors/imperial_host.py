"""The Emperor's host: it also starts the fork server, replaces it, and is the last to see it go.

The Emperor is a child subreaper, so it inherits from a fork server that dies: first the masters and workers
that this had forked, and later whatever one of these workers leaves behind when it ends. Such remnants are
killed here, as the fork server does it with those of its own children.
"""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from pyemperor.actors.fork_server import AT_ONCE
from pyemperor.actors.host import ForkHost, HostClosed, HostLost
from pyemperor.actors.linux import become_subreaper, children, has_terminal
from pyemperor.protocol.messages import Adopt, Birth


@dataclass(slots=True)
class ImperialForkHost(ForkHost):
    """A :class:`ForkHost` that owns its fork server."""

    #: How the fork server is started; ``{fd}`` in it becomes the descriptor of its office.
    command: Sequence[str] = ()
    _server: "subprocess.Popen[bytes] | None" = None
    #: Children of this process that have nothing to do with the tree.
    _foreign: frozenset[int] = frozenset()
    #: Pids of the workers that dead fork servers left to us.
    _wards: set[int] = field(default_factory=set)
    _inherited: bool = False
    _killing: bool = False

    def start(self) -> int:
        """Start the fork server; its pid."""
        become_subreaper()
        if self._server is None:
            self._foreign = frozenset(pid for pid, _ in children(os.getpid()))
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [word.replace("{fd}", str(theirs.fileno())) for word in self.command]
            # One session for all below it, and none with a terminal; each process leads a group of its own.
            apart = has_terminal()
            self._server = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()],
                start_new_session=apart,
                process_group=None if apart else 0,
            )
        self.attach(ours)
        return self._server.pid

    def restart(self, masters: Mapping[str, Birth]) -> int:
        """Start another, and give every living master an office at it."""
        pid = self.start()
        assert self._office is not None
        for number, process in self._processes.items():
            if process.key.name not in masters:
                continue  # a hook, which forks nothing
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with ours, theirs:
                self._office.send(Adopt(number, masters[process.key.name]), (theirs.fileno(),))
                self.hand_over(process.key, ours)
        return pid

    def close(self) -> None:
        """Ask the fork server to end after its last child; ``HostClosed`` follows when nothing is left."""
        self.closing = True
        if self._office is not None:
            self._office.finish()
        else:
            self._close_if_empty()

    def kill_rest(self) -> None:
        """SIGKILL every process of the tree, also those that nobody supervises; next time the fork server too."""
        if self._server is not None:
            self._server.send_signal(signal.SIGKILL if self._killing else AT_ONCE)
            self._server.send_signal(signal.SIGCONT)
        self._killing = True
        self._kill_wards()

    def _kill_wards(self) -> None:
        for pid in self._wards:
            os.kill(pid, signal.SIGKILL)

    # ---- what a dead fork server leaves ---------------------------------------------------------------

    def _lost(self, reason: str) -> object:
        assert self._server is not None
        self._server.wait()  # closing the office was its last act; now its children are ours
        self._inherited = True
        self._wards.update(pid for pid, _ in self._strangers())
        if self._killing:
            self._kill_wards()
        # No super() in a class with slots=True: dataclass makes another class.
        lost = ForkHost._lost(self, reason)
        self.reap()
        return lost if isinstance(lost, HostLost) else None

    def _strangers(self) -> Iterator[tuple[int, str]]:
        """Children of this process that nobody else waits for, with their state letter."""
        known = {process.pid for process in self._processes.values()} | self._foreign
        if self._server is not None:
            known.add(self._server.pid)
        for pid, state in children(os.getpid()):
            if pid not in known:
                yield pid, state

    def reap(self) -> None:
        """A child of this process has ended: reap wards, and kill what they left behind."""
        if not self._inherited:
            return
        for pid, state in self._strangers():
            if state == "Z":
                os.waitpid(pid, os.WNOHANG)
                self._wards.discard(pid)
            elif pid not in self._wards:
                os.kill(pid, signal.SIGKILL)
        self._close_if_empty()

    def _close_if_empty(self) -> None:
        if self.closing and self._office is None and not any(self._strangers()):
            self.inbox.after(0, HostClosed())
