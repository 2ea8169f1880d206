"""The Emperor's ear: an actor of its own that listens at the control socket, asks the Emperor, and answers.

It waits for clients and for the Emperor at the same time, and nobody waits for it: who says nothing in time,
too much, or nothing that makes sense, loses the connection, and nobody else notices.
"""

import os
import select
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pykka
from loguru import logger
from pykka._envelope import Envelope

from pyemperor.actors import administration as asked
from pyemperor.actors.actor import Actor, Mail, System
from pyemperor.actors.clock import Timer
from pyemperor.protocol import control
from pyemperor.protocol.errors import LinkError
from pyemperor.protocol.escapes import encodable
from pyemperor.protocol.report import suggest

#: Connections at a time; most of them wait for a reload.
MOST = 64
#: Seconds in which a request must be here, and in which an answer must be taken.
_DEADLINE = 5.0
#: Seconds without accepting, when there are no descriptors left.
_PAUSE = 1.0
_CHUNK = 65536
_CREDENTIALS = struct.Struct("iII")  # pid, uid, gid: unix(7), SO_PEERCRED


@dataclass(frozen=True, slots=True)
class _Heard:
    """A client's request is complete."""

    client: "_Client"
    request: control.Request


@dataclass(frozen=True, slots=True)
class _Known:
    """The Emperor says how its vassals are: a sequence of statuses, or the error that it had instead."""

    heard: _Heard
    statuses: Any


@dataclass(frozen=True, slots=True)
class _Over:
    """The Emperor has done what was asked."""

    client: "_Client"
    outcomes: Sequence[asked.Outcome]


@dataclass(frozen=True, slots=True)
class _Late:
    """A client took too long."""

    client: "_Client"


@dataclass(frozen=True, slots=True)
class _Acceptable:
    """A connection waits."""


@dataclass(frozen=True, slots=True)
class _Resume:
    """Try again to accept."""


class Control(Actor):
    """Serves the listening socket ``sock`` for the Emperor; its own user and root may ask.

    The socket stays its owner's: it is neither made nor closed here.
    """

    def __init__(
        self,
        system: System,
        emperor: pykka.ActorRef[Any],
        sock: socket.socket,
        owner: pykka.ActorRef[Any] | None = None,
    ) -> None:
        super().__init__(system, owner)
        self._emperor = emperor
        self._sock = sock
        self._clients: set[_Client] = set()

    def on_start(self) -> None:
        self._sock.setblocking(False)
        self._listen()

    def _listen(self) -> None:
        self.actor_inbox.watch(self._sock.fileno(), select.EPOLLIN, lambda _: (_Acceptable(),))

    def handle(self, message: Any, now: float) -> None:
        match message:
            case _Acceptable():
                self._accept()
            case _Resume():
                self._listen()
            case _Heard():
                mail = Mail(lambda statuses: self.actor_ref.tell(_Known(message, statuses)))
                self._ask(message.client, asked.Status(), mail)
            case _Known(heard=heard, statuses=statuses):
                self._serve(heard.client, heard.request, statuses)
            case _Over(client=client, outcomes=outcomes):
                client.answer(_outcomes(outcomes))
            case _Late(client=client):
                client.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._sock.accept()
        except BlockingIOError:
            return
        except OSError as error:
            self.actor_inbox.unwatch(self._sock.fileno())
            self.after(_PAUSE, _Resume())
            logger.warning("control socket: {}; next try in {:g} s", error.strerror, _PAUSE)
            return
        client = _Client(self, sock, self._clients)
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(credentials)
        if uid not in (0, os.geteuid()):
            logger.warning("control socket: refused process {} of user {}", pid, uid)
            client.answer(control.Refusal("only root and the Emperor's own user may ask", "try it with sudo"))
        elif len(self._clients) > MOST:
            client.answer(control.Refusal(f"{MOST} others are being served", "try again later"))

    def _ask(self, client: "_Client", message: object, reply_to: Mail | None = None) -> None:
        if self._emperor.is_alive():
            self._emperor.actor_inbox.put(Envelope(message, reply_to=reply_to))
        else:
            client.answer(control.Refusal("the Emperor is ending"))

    def _serve(self, client: "_Client", request: control.Request, statuses: Any) -> None:
        if statuses is None:
            client.answer(control.Refusal("the Emperor cannot say how its vassals are", "its log says why"))
            return
        names = {encodable(status.name): status.name for status in statuses}
        known = list(names)
        if request.name is not None and encodable(request.name) not in names:
            asked_for = encodable(request.name)
            meant = suggest(asked_for, known)
            there_are = f"there are: {', '.join(known)}"
            client.answer(control.Refusal(f"there is no vassal {asked_for}", meant or there_are))
            return
        name = None if request.name is None else names[encodable(request.name)]

        def over(outcomes: Sequence[asked.Outcome]) -> None:
            self.actor_ref.tell(_Over(client, outcomes))

        match request:
            case control.Status():
                chosen = [one for one in statuses if name in (None, one.name)]
                reports = msgspec.convert(chosen, tuple[control.VassalReport, ...], from_attributes=True)
                client.answer(control.Statuses(os.getpid(), reports))
            case control.Reload(wait=True):
                self._ask(client, asked.Reload(name, over))
            case control.Reload():
                self._ask(client, asked.Reload(name, lambda _: None))
                client.answer(control.Begun(tuple(names.values()) if name is None else (name,)))
            case control.Stop(name=None):
                client.keep = True
                self._ask(client, asked.Stop(None, over))
            case control.Stop():
                self._ask(client, asked.Stop(name, over))
            case control.Absolve():
                self._ask(client, asked.Absolve(names[encodable(request.name)], over))

    def on_stop(self) -> None:
        self.actor_inbox.unwatch(self._sock.fileno())
        for client in list(self._clients):
            client.close()

    def on_failure(self, *_: object) -> None:
        self.on_stop()  # whoever waits for an answer is not to wait for ever


def _outcomes(outcomes: Sequence[asked.Outcome]) -> control.Outcomes:
    return control.Outcomes(tuple(control.Done(one.name, one.ok, one.reason) for one in outcomes))


class _Client:
    """One connection: a request comes, an answer goes. ``keep`` leaves it open after the answer."""

    def __init__(self, owner: Control, sock: socket.socket, among: "set[_Client]") -> None:
        sock.setblocking(False)
        self.keep = False
        self._owner = owner
        self._sock = sock
        self._among = among
        self._read = b""
        self._unsent = b""
        self._asked = False
        self._deadline: Timer | None = owner.after(_DEADLINE, _Late(self))
        among.add(self)
        self._watch(select.EPOLLIN)

    def _watch(self, mask: int) -> None:
        self._owner.actor_inbox.watch(self._sock.fileno(), mask, self._ready)

    def _ready(self, mask: int) -> Iterable[object]:
        if self._unsent and mask & select.EPOLLOUT:
            self._send()
            return ()
        if self._asked:
            self.close()  # it is gone
            return ()
        try:
            data = self._sock.recv(_CHUNK)
        except BlockingIOError:
            return ()
        except OSError:
            data = b""
        if not data:
            self.close()
            return ()
        self._read += data
        line, end, _ = self._read.partition(b"\n")
        if not end and len(line) <= control.MAX_REQUEST:
            return ()
        return self._complete(line)

    def _complete(self, line: bytes) -> Iterable[object]:
        self._asked = True
        self._rest()
        self._watch(0)  # what else it says is not read, only that it goes
        try:
            if len(line) > control.MAX_REQUEST:
                raise LinkError(f"a request has at most {control.MAX_REQUEST} bytes")
            return (_Heard(self, control.decode_request(line)),)
        except LinkError as error:
            self.answer(control.Refusal(str(error)))
            return ()

    def _rest(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def answer(self, answer: control.Answer) -> None:
        """Send ``answer``, as the client reads it, and close."""
        if self._sock.fileno() < 0:
            return
        self._asked = True
        self._unsent = control.encode(answer)
        self._rest()
        self._deadline = self._owner.after(_DEADLINE, _Late(self))
        self._send()

    def _send(self) -> None:
        try:
            sent = self._sock.send(self._unsent, socket.MSG_NOSIGNAL)
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()
            return
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._watch(select.EPOLLOUT)
        elif self.keep:
            self._rest()
            self._watch(0)
        else:
            self.close()

    def close(self) -> None:
        """End the connection."""
        self._rest()
        self._among.discard(self)
        if self._sock.fileno() >= 0:
            self._owner.actor_inbox.unwatch(self._sock.fileno())
            self._sock.close()
