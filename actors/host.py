"""What a supervisor of processes stands on: forking, links, signals and evidence, as messages.

:class:`Host` is the interface; :class:`ForkHost` the real one, a client of the fork server;
``actors/simulation`` has the other. Whatever happens to a child arrives in the inbox of the actor that
forked it, tagged with the child's key (its name, and the number of its incarnation), so that late news of
an earlier incarnation is recognised.
"""

import errno
import os
import select
import signal
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from loguru import logger
from pykka._envelope import Envelope

from pyemperor.actors.actor import Inbox
from pyemperor.actors.detector import Evidence
from pyemperor.actors.lifecycle import UNKNOWN_CODE, Born, Died, Key, LinkLost, Said, Stillborn
from pyemperor.actors.linux import process_state
from pyemperor.actors.pipe import Pipe
from pyemperor.protocol.errors import LinkError
from pyemperor.protocol.messages import (
    Birth,
    Exited,
    Fork,
    Forked,
    ForkFailed,
    Kill,
    Message,
    Office,
    OfficeMessage,
)


@dataclass(frozen=True, slots=True)
class HostLost:
    """The fork server is gone: what runs goes on, and nothing can be forked until there is another."""


@dataclass(frozen=True, slots=True)
class HostClosed:
    """Every process of the tree is gone, and the fork server after them."""


class Host(Protocol):
    """Forks the children of one supervisor and carries its words to them."""

    def fork(self, key: Key, birth: Birth) -> None: ...
    def send(self, key: Key, message: Message) -> None: ...
    def signal(self, key: Key, number: int) -> None: ...
    def kill(self, key: Key, *, family: bool) -> None: ...
    def evidence(self, key: Key) -> Evidence: ...
    def forget(self, key: Key) -> None: ...
    def move(self, office: int) -> None: ...


@dataclass(slots=True)
class _Process:
    key: Key
    link: Pipe
    pid: int = 0
    pidfd: int = -1


@dataclass(slots=True)
class ForkHost:
    """The real host: asks the fork server at the office ``sock``.

    ``sockets`` gives the listening sockets that a child of that name is to inherit.
    """

    inbox: Inbox
    sock: socket.socket | None
    sockets: Callable[[str], Iterable[int]]
    closing: bool = False
    _office: Pipe | None = None
    _ids: int = 0
    _processes: dict[int, _Process] = field(default_factory=dict)
    _of: dict[Key, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.sock is not None:
            self.attach(self.sock)

    def attach(self, sock: socket.socket) -> None:
        """Sit at another office: the fork server was replaced."""
        self._office = Pipe(self.inbox, sock, self._answer, self._lost, OfficeMessage)

    def move(self, office: int) -> None:
        """Sit at the office whose descriptor came over the link."""
        self.attach(socket.socket(fileno=office))

    def fork(self, key: Key, birth: Birth) -> None:
        """Fork; the answer is :class:`Born` or :class:`Stillborn`."""
        self._ids += 1
        number = self._ids
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            self.inbox.after(0, Stillborn(key, error.errno or 0, f"no link to it: {error.strerror}"))
            return
        link = Pipe(self.inbox, ours, lambda message, _: Said(key, message), lambda why: LinkLost(key, why))
        self._processes[number] = _Process(key, link)
        self._of[key] = number
        with theirs:
            if self._office is None:
                self.inbox.after(0, self._drop(number, 0, "the fork server is being replaced"))
                return
            try:
                self._office.send(Fork(number, birth), (theirs.fileno(), *self.sockets(key.name)))
            except OSError as error:
                self.inbox.after(0, self._drop(number, error.errno or 0, f"fork server: {error.strerror}"))
            except LinkError as error:  # the reader of configurations has its bounds: this one's actor has not
                self.inbox.after(0, self._drop(number, errno.E2BIG, str(error)))

    def _drop(self, number: int, errno: int, reason: str) -> Stillborn:
        process = self._processes.pop(number)
        self._of.pop(process.key, None)
        process.link.close()
        return Stillborn(process.key, errno, reason)

    def _answer(self, answer: Message, fds: list[int]) -> object:
        process = self._processes.get(getattr(answer, "id", 0))
        if process is None:
            for fd in fds:
                os.close(fd)
            return None
        match answer:
            case Forked(pid=pid):
                # Without a descriptor to spare for the pidfd it has to do with what the fork server says.
                process.pid, process.pidfd = pid, fds[0] if fds else -1
                return Born(process.key, pid)
            case ForkFailed(errno=errno, reason=reason):
                return self._drop(answer.id, errno, reason)
            case Exited(code=code, signal=number, swept=swept, left=left):
                self._hear_out(process)
                return Died(process.key, code, number, swept, left)
        return None

    def _hear_out(self, process: _Process) -> None:
        """Deliver what a dead child has said before the news of its death, which may have overtaken it."""
        for said in process.link.rest():
            self.inbox.put(Envelope(said))

    def _lost(self, _reason: str) -> object:
        """The fork server is gone: from here on a child's death is read from its pidfd."""
        self._office = None
        for number, process in list(self._processes.items()):
            if process.pidfd < 0:
                self.inbox.after(0, self._drop(number, 0, "the fork server died"))
            else:
                self.inbox.watch(process.pidfd, select.EPOLLIN, self._gone_unseen(process))
        return HostClosed() if self.closing else HostLost()

    def _gone_unseen(self, process: _Process) -> Callable[[int], Iterable[object]]:
        def source(_mask: int) -> Iterable[object]:
            self.inbox.unwatch(process.pidfd)
            self._hear_out(process)
            try:
                # The Emperor has inherited the children of a dead fork server; a master has not.
                found = os.waitid(os.P_PIDFD, process.pidfd, os.WEXITED | os.WNOHANG)
            except ChildProcessError:
                found = None
            if found is None:
                return [Died(process.key, UNKNOWN_CODE)]
            if found.si_code == os.CLD_EXITED:
                return [Died(process.key, found.si_status)]
            return [Died(process.key, -1, found.si_status)]

        return source

    def _process(self, key: Key) -> _Process | None:
        return self._processes.get(self._of.get(key, 0))

    def send(self, key: Key, message: Message) -> None:
        """Send over the child's link; to a child that is gone, nothing."""
        if process := self._process(key):
            process.link.send(message)

    def hand_over(self, key: Key, office: socket.socket) -> None:
        """Send the child the socket to another fork server."""
        if process := self._process(key):
            process.link.send(Office(), (office.fileno(),))

    def signal(self, key: Key, number: int) -> None:
        """Signal the child itself, never a successor of its pid."""
        if (process := self._process(key)) and process.pidfd >= 0:
            try:
                signal.pidfd_send_signal(process.pidfd, number)
            except ProcessLookupError:
                logger.debug("{} was gone before signal {}", key, number)

    def kill(self, key: Key, *, family: bool) -> None:
        """SIGKILL, also while there is no fork server; with ``family`` that kills a master's workers as well."""
        if self._office is not None and (number := self._of.get(key)):
            self._office.send(Kill(number, family))
        self.signal(key, signal.SIGKILL)

    def evidence(self, key: Key) -> Evidence:
        """What the machine knows of the child now."""
        process = self._process(key)
        if process is None or not process.pid:
            return Evidence("X", 0.0, 0.0, 0, 0, gone=True)
        state, cpu, delay, tracer = process_state(process.pid)
        return Evidence(state, cpu, delay, tracer, process.link.unread(), gone=state in "XZ")

    def forget(self, key: Key) -> None:
        """The child's story is over: release its descriptors."""
        process = self._processes.pop(self._of.pop(key, 0), None)
        if process:
            process.link.close()
            if process.pidfd >= 0:
                self.inbox.unwatch(process.pidfd)
                os.close(process.pidfd)
