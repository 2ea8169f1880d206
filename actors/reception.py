"""A reception: an actor at a listening socket, whose visitors want something of the Emperor.

Nobody waits for a visitor: who says nothing in time, or does not take what he is sent, loses the connection, and
nobody else notices.
"""

import select
import socket
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pykka
from loguru import logger
from pykka._envelope import Envelope

from pyemperor.actors.actor import Actor, Mail, System
from pyemperor.actors.clock import Timer

#: Seconds in which a visitor must have spoken, and in which an answer must be taken.
_DEADLINE = 5.0
#: Seconds without accepting, when there are no descriptors left.
_PAUSE = 1.0


@dataclass(frozen=True, slots=True)
class _Acceptable:
    """A connection waits."""


@dataclass(frozen=True, slots=True)
class _Resume:
    """Try again to accept."""


@dataclass(frozen=True, slots=True)
class _Late:
    """A visitor took too long."""

    visitor: "Visitor"


class Reception(Actor):
    """Serves the listening socket ``sock``, which stays its owner's: it is neither made nor closed here."""

    #: What the log calls it.
    place = "reception"

    def __init__(
        self,
        system: System,
        emperor: pykka.ActorRef[Any],
        sock: socket.socket,
        owner: pykka.ActorRef[Any] | None = None,
    ) -> None:
        super().__init__(system, owner)
        self.visitors: set[Visitor] = set()
        self._emperor = emperor
        self._sock = sock

    def welcome(self, sock: socket.socket) -> None:
        """Somebody has come."""
        raise NotImplementedError

    def ask(self, message: object, reply_to: Mail | None = None) -> bool:
        """Ask the Emperor, without waiting; False when he has ended."""
        alive = self._emperor.is_alive()
        if alive:
            self._emperor.actor_inbox.put(Envelope(message, reply_to=reply_to))
        return alive

    def on_start(self) -> None:
        self._sock.setblocking(False)
        self._listen()

    def handle(self, message: Any, now: float) -> None:
        match message:
            case _Acceptable():
                self._accept()
            case _Resume():
                self._listen()
            case _Late(visitor=visitor):
                visitor.close()

    def _listen(self) -> None:
        self.actor_inbox.watch(self._sock.fileno(), select.EPOLLIN, lambda _: (_Acceptable(),))

    def _accept(self) -> None:
        try:
            sock, _ = self._sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            self.actor_inbox.unwatch(self._sock.fileno())
            self.after(_PAUSE, _Resume())
            logger.warning("{}: {}; next try in {:g} s", self.place, error.strerror, _PAUSE)
            return
        self.welcome(sock)

    def on_stop(self) -> None:
        self.actor_inbox.unwatch(self._sock.fileno())
        for visitor in list(self.visitors):
            visitor.close()

    def on_failure(self, *_: object) -> None:
        self.on_stop()  # whoever waits for an answer is not to wait for ever


class Visitor:
    """One connection, which is told something and closed."""

    def __init__(self, reception: Reception, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._reception = reception
        self._sock = sock
        self._unsent = memoryview(b"")
        self._deadline: Timer | None = None
        self._hurry()
        reception.visitors.add(self)

    def send(self, data: bytes) -> None:
        """Send ``data``, as the visitor reads it."""
        if self._sock.fileno() >= 0:
            self._unsent = memoryview(data)
            self._hurry()
            self._send()

    def sent(self) -> None:
        """All is sent."""
        self.close()

    def ready(self, mask: int) -> Iterable[object]:
        """The connection can be written to, or read from where that was asked for; messages for the reception."""
        self._send()
        return ()

    def close(self) -> None:
        """End the connection."""
        self.rest()
        self._reception.visitors.discard(self)
        if self._sock.fileno() >= 0:
            self._reception.actor_inbox.unwatch(self._sock.fileno())
            self._sock.close()

    def watch(self, mask: int) -> None:
        """Call :meth:`ready` when the connection is; with no mask when it has ended."""
        self._reception.actor_inbox.watch(self._sock.fileno(), mask, self.ready)

    def rest(self) -> None:
        """There is no hurry."""
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _hurry(self) -> None:
        self.rest()
        self._deadline = self._reception.after(_DEADLINE, _Late(self))

    def _send(self) -> None:
        try:
            sent = self._sock.send(self._unsent, socket.MSG_NOSIGNAL) if self._unsent else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()  # it is gone
            return
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self.watch(select.EPOLLOUT)
        else:
            self.sent()
