"""What a supervisor of processes stands on: forking, links, signals and evidence, as messages.

:class:`Host` is the interface; :class:`ForkHost` the real one, a client of the fork server;
``actors/simulation`` has the other. Whatever happens to a child arrives in the inbox of the actor that
forked it, tagged with the child's key (its name, and the number of its incarnation), so that late news of
an earlier incarnation is recognised.
"""

import os
import select
import signal
import socket
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Protocol

from loguru import logger

from pyemperor.actors.actor import Inbox
from pyemperor.actors.detector import Evidence
from pyemperor.actors.lifecycle import UNKNOWN_CODE, Born, Died, Key, LinkLost, Said, Stillborn
from pyemperor.actors.linux import process_state
from pyemperor.actors.pipe import Pipe
from pyemperor.protocol.errors import LinkError
from pyemperor.protocol.frames import decode, encode
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
    _ids: int = 0
    _processes: dict[int, _Process] = field(default_factory=dict)
    _of: dict[Key, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.sock is not None:
            self.attach(self.sock)

    def attach(self, sock: socket.socket) -> None:
        """Sit at another office: the fork server was replaced."""
        sock.setblocking(False)
        self.sock = sock
        self.inbox.watch(sock.fileno(), select.EPOLLIN, self._answers)

    def move(self, office: int) -> None:
        """Sit at the office whose descriptor came over the link."""
        self.attach(socket.socket(fileno=office))

    def fork(self, key: Key, birth: Birth) -> None:
        """Fork; the answer is :class:`Born` or :class:`Stillborn`."""
        ours, theirs = socket.socketpair()
        self._ids += 1
        number = self._ids
        link = Pipe(self.inbox, ours, lambda message, _: Said(key, message), lambda why: LinkLost(key, why))
        self._processes[number] = _Process(key, link)
        self._of[key] = number
        with theirs:
            try:
                fds = [theirs.fileno(), *self.sockets(key.name)]
                socket.send_fds(self._office(), [encode(Fork(number, birth))], fds)
            except OSError as error:
                self.inbox.after(0, self._drop(number, error.errno or 0, f"fork server: {error}"))

    def _office(self) -> socket.socket:
        if self.sock is None:
            raise ConnectionResetError("it is being replaced")
        return self.sock

    def _drop(self, number: int, errno: int, reason: str) -> Stillborn:
        process = self._processes.pop(number)
        self._of.pop(process.key, None)
        process.link.close()
        return Stillborn(process.key, errno, reason)

    def _answers(self, _mask: int) -> Iterable[object]:
        messages: list[object] = []
        while True:
            try:
                data, fds, _, _ = socket.recv_fds(self._office(), 65536, 4, socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return messages
            except OSError:
                data, fds = b"", []
            if not data:
                return messages + self._lost()
            try:
                messages += self._answer(decode(data, OfficeMessage), fds)
            except LinkError as error:
                logger.error("the fork server sent nonsense: {}", error)

    def _answer(self, answer: Message, fds: list[int]) -> list[object]:
        if isinstance(answer, Forked):
            born = self._processes[answer.id]
            born.pid, born.pidfd = answer.pid, fds[0]
            return [Born(born.key, answer.pid)]
        if isinstance(answer, ForkFailed):
            return [self._drop(answer.id, answer.errno, answer.reason)]
        if isinstance(answer, Exited) and (process := self._processes.get(answer.id)):
            return [Died(process.key, answer.code, answer.signal, answer.swept, answer.left)]
        return []

    def _lost(self) -> list[object]:
        """The fork server is gone: from here on a child's death is read from its pidfd."""
        office = self._office()
        self.inbox.unwatch(office.fileno())
        office.close()
        self.sock = None
        unborn = [number for number, process in self._processes.items() if process.pidfd < 0]
        messages: list[object] = [HostClosed() if self.closing else HostLost()]
        messages += [self._drop(number, 0, "the fork server died") for number in unborn]
        for process in self._processes.values():
            self.inbox.watch(process.pidfd, select.EPOLLIN, self._gone_unseen(process))
        return messages

    def _gone_unseen(self, process: _Process) -> Callable[[int], Iterable[object]]:
        def source(_mask: int) -> Iterable[object]:
            self.inbox.unwatch(process.pidfd)
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
        """SIGKILL, whatever becomes of the fork server; with ``family`` that kills the workers of a master as well."""
        if family and key in self._of:
            try:
                self._office().send(encode(Kill(self._of[key], family)))
            except OSError as error:
                logger.warning("{}: its workers are left to their mercy: {}", key.name, error)
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
