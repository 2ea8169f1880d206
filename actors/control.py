"""The Emperor's ear: an actor of its own that listens at the control socket, asks the Emperor, and answers.

It waits for clients and for the Emperor at the same time, and nobody waits for it. Who says too much, or nothing
that makes sense, is told so.
"""

import os
import select
import socket
import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
from loguru import logger

from pyemperor.actors import administration as asked
from pyemperor.actors.actor import Mail
from pyemperor.actors.reception import Reception, Visitor
from pyemperor.protocol import control
from pyemperor.protocol.errors import LinkError
from pyemperor.protocol.escapes import encodable
from pyemperor.protocol.report import suggest

#: Connections at a time; most of them wait for a reload.
MOST = 64
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


class Control(Reception):
    """Serves the control socket for the Emperor; its own user and root may ask."""

    place = "control socket"

    def handle(self, message: Any, now: float) -> None:
        match message:
            case _Heard():
                mail = Mail(lambda statuses: self.actor_ref.tell(_Known(message, statuses)))
                self._ask(message.client, asked.Status(), mail)
            case _Known(heard=heard, statuses=statuses):
                self._serve(heard.client, heard.request, statuses)
            case _Over(client=client, outcomes=outcomes):
                client.answer(_outcomes(outcomes))
            case _:
                super().handle(message, now)

    def welcome(self, sock: socket.socket) -> None:
        client = _Client(self, sock)
        credentials = sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
        pid, uid, _ = _CREDENTIALS.unpack(credentials)
        if uid not in (0, os.geteuid()):
            logger.warning("control socket: refused process {} of user {}", pid, uid)
            client.answer(control.Refusal("only root and the Emperor's own user may ask", "try it with sudo"))
        elif len(self.visitors) > MOST:
            client.answer(control.Refusal(f"{MOST} others are being served", "try again later"))

    def _ask(self, client: "_Client", message: object, reply_to: Mail | None = None) -> None:
        if not self.ask(message, reply_to):
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

def _outcomes(outcomes: Sequence[asked.Outcome]) -> control.Outcomes:
    return control.Outcomes(tuple(control.Done(one.name, one.ok, one.reason) for one in outcomes))


class _Client(Visitor):
    """One connection: a request comes, an answer goes. ``keep`` leaves it open after the answer."""

    def __init__(self, control: Control, sock: socket.socket) -> None:
        super().__init__(control, sock)
        self.keep = False
        self._read = b""
        self._asked = False
        self.watch(select.EPOLLIN)

    def ready(self, mask: int) -> Iterable[object]:
        if self._unsent and mask & select.EPOLLOUT:
            return super().ready(mask)
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
        self._await_end()
        try:
            if len(line) > control.MAX_REQUEST:
                raise LinkError(f"a request has at most {control.MAX_REQUEST} bytes")
            return (_Heard(self, control.decode_request(line)),)
        except LinkError as error:
            self.answer(control.Refusal(str(error)))
            return ()

    def _await_end(self) -> None:
        self._asked = True
        self.rest()
        self.watch(0)  # what else it says is not read, only that it goes

    def answer(self, answer: control.Answer) -> None:
        """Send ``answer``, as the client reads it, and close."""
        self._asked = True
        self.send(control.encode(answer))

    def sent(self) -> None:
        if self.keep:
            self._await_end()
        else:
            self.close()
