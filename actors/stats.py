"""The Emperor's statistics as uWSGI's Emperor serves them (``emperor-stats``): one JSON document a connection.

An actor of its own: who connects and does not read waits alone, and however many ask, the Emperor is asked once at
a time. What uWSGI has and we do not know is 0, "never" in its words; what only we know stands beside it.
"""

import os
import select
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pykka
from loguru import logger
from pykka._envelope import Envelope

from pyemperor import __version__
from pyemperor.actors.actor import Actor, Mail, System
from pyemperor.actors.administration import Census, Moments, VassalStatus
from pyemperor.actors.clock import Timer
from pyemperor.actors.linux import started_at
from pyemperor.protocol.messages import State
from pyemperor.protocol.options import EmperorOptions

#: Connections at a time; more are closed at once.
MOST = 32
#: Seconds in which a document must have been taken.
_DEADLINE = 5.0
#: Seconds without accepting, when there are no descriptors left.
_PAUSE = 1.0
_SERVES = frozenset({State.READY, State.STABLE, State.SUSPECT})
_WAITS = frozenset({State.BACKOFF, State.CURSED, State.EXILED})

Found = Sequence[tuple[VassalStatus, Moments]]


@dataclass(frozen=True, slots=True)
class _Acceptable:
    """A connection waits."""


@dataclass(frozen=True, slots=True)
class _Resume:
    """Try again to accept."""


@dataclass(frozen=True, slots=True)
class _Known:
    """The Emperor says how its vassals are; None: it cannot."""

    found: Found | None


@dataclass(frozen=True, slots=True)
class _Late:
    """A client took too long."""

    client: "_Client"


class Stats(Actor):
    """Serves the listening socket ``sock``, which stays its owner's; ``wall`` is seconds since 1970."""

    def __init__(
        self,
        system: System,
        emperor: pykka.ActorRef[Any],
        sock: socket.socket,
        options: EmperorOptions,
        wall: Callable[[], float],
    ) -> None:
        super().__init__(system)
        self._emperor = emperor
        self._sock = sock
        self._options = options
        self._wall = wall
        self.clients: set[_Client] = set()
        #: Those who came since the Emperor was asked last, and whether its answer is still to come.
        self._waiting: list[_Client] = []
        self._asked: list[_Client] = []

    def on_start(self) -> None:
        self._listen()

    def _listen(self) -> None:
        self.actor_inbox.watch(self._sock.fileno(), select.EPOLLIN, lambda _: (_Acceptable(),))

    def handle(self, message: Any, now: float) -> None:
        match message:
            case _Acceptable():
                self._accept()
            case _Resume():
                self._listen()
            case _Known(found=found):
                self._serve(found, now)
            case _Late(client=client):
                client.close()

    def _accept(self) -> None:
        try:
            sock, _ = self._sock.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        except OSError as error:
            self.actor_inbox.unwatch(self._sock.fileno())
            self.after(_PAUSE, _Resume())
            logger.warning("emperor-stats: {}; next try in {:g} s", error.strerror, _PAUSE)
            return
        if len(self.clients) >= MOST:
            sock.close()
            return
        self._waiting.append(_Client(self, sock))
        self._ask()

    def _ask(self) -> None:
        if self._asked or not self._waiting:
            return
        self._asked, self._waiting = self._waiting, []
        if self._emperor.is_alive():
            mail = Mail(lambda found: self.actor_ref.tell(_Known(found)))
            self._emperor.actor_inbox.put(Envelope(Census(), reply_to=mail))
        else:
            self._serve(None, 0.0)

    def _serve(self, found: Found | None, now: float) -> None:
        asked, self._asked = self._asked, []
        data = b"" if found is None else document(found, self._options, self._wall() - now)
        for client in asked:
            client.send(data)
        self._ask()

    def on_stop(self) -> None:
        self.actor_inbox.unwatch(self._sock.fileno())
        for client in list(self.clients):
            client.close()


class _Client:
    """One connection, which is told everything and closed."""

    def __init__(self, owner: Stats, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._owner = owner
        self._sock = sock
        self._unsent = memoryview(b"")
        self._deadline: Timer = owner.after(_DEADLINE, _Late(self))
        owner.clients.add(self)

    def send(self, data: bytes) -> None:
        """Send ``data``, as the client reads it."""
        self._unsent = memoryview(data)
        if self._sock.fileno() >= 0:
            self._send(0)

    def _send(self, _mask: int) -> Iterable[object]:
        try:
            sent = self._sock.send(self._unsent, socket.MSG_NOSIGNAL) if self._unsent else 0
        except BlockingIOError:
            sent = 0
        except OSError:
            self.close()  # it is gone
            return ()
        self._unsent = self._unsent[sent:]
        if self._unsent:
            self._owner.actor_inbox.watch(self._sock.fileno(), select.EPOLLOUT, self._send)
        else:
            self.close()
        return ()

    def close(self) -> None:
        """End the connection."""
        self._deadline.cancel()
        self._owner.clients.discard(self)
        if self._sock.fileno() >= 0:
            self._owner.actor_inbox.unwatch(self._sock.fileno())
            self._sock.close()


# ---- the document -------------------------------------------------------------------------------------------


def document(found: Found, options: EmperorOptions, offset: float) -> bytes:
    """The statistics, with uWSGI's keys and types; ``offset`` makes monotonic seconds those since 1970."""
    everything = {
        "version": __version__,
        "pid": os.getpid(),
        "uid": os.geteuid(),
        "gid": os.getegid(),
        "cwd": os.getcwd(),
        "emperor": list(options.emperor),
        "emperor_tyrant": int(options.emperor_tyrant),
        "throttle_level": 0,
        "vassals": [_vassal(status, moments, offset) for status, moments in found],
        "blacklist": [_listed(status, moments, offset) for status, moments in found if status.state in _WAITS],
    }
    return msgspec.json.format(msgspec.json.encode(everything), indent=1) + b"\n"


def _vassal(status: VassalStatus, moments: Moments, offset: float) -> dict[str, object]:
    pid = status.pids[0] if status.pids else -1
    uid, gid = _owner(pid)
    serves = status.state in _SERVES
    return {
        "id": status.name,
        "pid": pid,
        "born": 0,
        "last_mod": 0,
        "last_heartbeat": _epoch(moments.heartbeat, offset),
        "loyal": int(status.loyal),
        "ready": int(serves or status.state == "PAUSED"),
        "accepting": int(bool(serves and status.ready)),
        "last_loyal": _epoch(moments.loyal, offset),
        "last_ready": _epoch(moments.ready, offset),
        "last_accepting": _epoch(moments.ready, offset),
        "first_run": _epoch(moments.first_run, offset),
        "last_run": int(started_at(pid) or 0) if pid > 0 else 0,
        "cursed": _epoch(moments.wait_began, offset) if status.state == State.CURSED else 0,
        "zerg": 0,
        "on_demand": "",
        "uid": uid,
        "gid": gid,
        "monitor": "",
        "respawns": status.restarts,
        # ours
        "state": status.state,
        "generation": status.generation,
        "workers_ready": status.ready,
        "requests": status.requests,
        "reason": status.reason or status.refused,
    }


def _listed(status: VassalStatus, moments: Moments, offset: float) -> dict[str, object]:
    return {
        "id": status.name,
        "throttle_level": round(moments.wait * 1000),
        "attempt": status.restarts,
        "first_attempt": _epoch(moments.first_run, offset),
        "last_attempt": _epoch(moments.wait_began, offset),
    }


def _epoch(at: float | None, offset: float) -> int:
    return 0 if at is None else int(at + offset)


def _owner(pid: int) -> tuple[int, int]:
    """Whom a process runs as; ours when there is none."""
    try:
        found = os.stat(f"/proc/{pid}")
    except OSError:
        return os.geteuid(), os.getegid()
    return found.st_uid, found.st_gid
