"""The Emperor's host: it also starts the fork server, replaces it, and is the last to see it go."""

import os
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from pyemperor.actors.host import ForkHost
from pyemperor.actors.linux import become_subreaper, zombies
from pyemperor.protocol.frames import encode
from pyemperor.protocol.messages import Adopt, Birth

#: How the fork server is started; its office's descriptor follows.
COMMAND = (sys.executable, "-P", "-m", "pyemperor.cli.processes", "fork-server")


@dataclass(slots=True)
class ImperialForkHost(ForkHost):
    """A :class:`ForkHost` that owns its fork server."""

    log_style: str = "pretty"
    _server: "subprocess.Popen[bytes] | None" = None

    def start(self) -> int:
        """Start the fork server; its pid."""
        become_subreaper()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [*COMMAND, str(theirs.fileno()), self.log_style]
            self._server = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()], start_new_session=True
            )
        self.attach(ours)
        return self._server.pid

    def restart(self, masters: Mapping[str, Birth]) -> int:
        """Start another, and give every living master an office at it."""
        assert self._server is not None
        self._server.wait()
        pid = self.start()
        for process in self._processes.values():
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with ours, theirs:
                adopt = encode(Adopt(masters[process.key.name]))
                socket.send_fds(self._office(), [adopt], [theirs.fileno()])
                self.hand_over(process.key, ours)
        return pid

    def close(self) -> None:
        """Ask the fork server to end after its last child; ``HostClosed`` follows."""
        self.closing = True
        self._office().shutdown(socket.SHUT_WR)

    def reap(self) -> None:
        """Reap what a dead fork server left to us (we are the subreaper) and nobody else waits for."""
        known = {process.pid for process in self._processes.values()}
        if self._server is not None:
            known.add(self._server.pid)
        for pid in zombies(os.getpid()):
            if pid not in known:
                os.waitpid(pid, os.WNOHANG)

    def _lost(self) -> list[object]:
        messages = ForkHost._lost(self)  # no super() in a class with slots=True: dataclass makes another class
        if self.closing and self._server is not None:
            self._server.wait()  # closing the office was its last act
        return messages
