"""The Emperor's statistics as uWSGI's Emperor serves them (``emperor-stats``): one JSON document a connection.

An actor of its own: who connects and does not read waits alone, and however many ask, the Emperor is asked once at
a time. What uWSGI has and we do not know is 0, "never" in its words; what only we know stands beside it.
"""

import os
import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import pykka

from pyemperor import __version__
from pyemperor.actors.actor import Mail, System
from pyemperor.actors.administration import Census, Record
from pyemperor.actors.linux import started_at
from pyemperor.actors.reception import Reception, Visitor
from pyemperor.protocol.messages import State
from pyemperor.protocol.options import EmperorOptions

#: Connections at a time; more are closed at once.
MOST = 32
_SERVES = frozenset({State.READY, State.STABLE, State.SUSPECT})
_WAITS = frozenset({State.BACKOFF, State.CURSED, State.EXILED})

Found = Sequence[Record]


@dataclass(frozen=True, slots=True)
class _Known:
    """The Emperor says how its vassals are; None: it cannot."""

    found: Found | None


class Stats(Reception):
    """Serves the statistics; ``wall`` is seconds since 1970."""

    place = "emperor-stats"

    def __init__(
        self,
        system: System,
        emperor: pykka.ActorRef[Any],
        sock: socket.socket,
        options: EmperorOptions,
        wall: Callable[[], float],
    ) -> None:
        super().__init__(system, emperor, sock)
        self._options = options
        self._wall = wall
        #: Those who came since the Emperor was asked last, and whether its answer is still to come.
        self._waiting: list[Visitor] = []
        self._asked: list[Visitor] = []

    def handle(self, message: Any, now: float) -> None:
        match message:
            case _Known(found=found):
                self._serve(found, now)
            case _:
                super().handle(message, now)

    def welcome(self, sock: socket.socket) -> None:
        if len(self.visitors) >= MOST:
            sock.close()
            return
        self._waiting.append(Visitor(self, sock))
        self._inquire()

    def _inquire(self) -> None:
        if self._asked or not self._waiting:
            return
        self._asked, self._waiting = self._waiting, []
        if not self.ask(Census(), Mail(lambda found: self.actor_ref.tell(_Known(found)))):
            self._serve(None, 0.0)

    def _serve(self, found: Found | None, now: float) -> None:
        asked, self._asked = self._asked, []
        data = b"" if found is None else document(found, self._options, self._wall() - now)
        for visitor in asked:
            visitor.send(data)
        self._inquire()


# ---- the document -------------------------------------------------------------------------------------------


def document(found: Found, options: EmperorOptions, offset: float) -> bytes:
    """The statistics, with uWSGI's keys and types; ``offset`` makes monotonic seconds those since 1970."""
    everything = {
        "version": __version__,
        "pid": os.getpid(),
        "uid": os.geteuid(),
        "gid": os.getegid(),
        "cwd": os.getcwd(),
        "emperor": [uri.rpartition("://")[2] for uri in options.emperor],
        "emperor_tyrant": int(options.emperor_tyrant),
        "throttle_level": 0,
        "vassals": [_vassal(one, offset) for one in found],
        "blacklist": [_listed(one, offset) for one in found if one.status.state in _WAITS],
    }
    return msgspec.json.format(msgspec.json.encode(everything), indent=1) + b"\n"


def _vassal(record: Record, offset: float) -> dict[str, object]:
    status, moments, origin = record.status, record.moments, record.origin
    pid = status.pids[0] if status.pids else -1
    uid, gid = _owner(pid)
    serves = status.state in _SERVES
    return {
        "id": origin.id,
        "pid": pid,
        "born": _epoch(moments.born, offset),
        "last_mod": int(origin.modified),
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
        "on_demand": record.on_demand,
        "uid": uid,
        "gid": gid,
        "monitor": origin.monitor,
        "respawns": status.restarts,
        # ours
        "name": status.name,
        "state": status.state,
        "generation": status.generation,
        "workers_ready": status.ready,
        "requests": status.requests,
        "reason": status.reason or status.refused,
    }


def _listed(record: Record, offset: float) -> dict[str, object]:
    status, moments = record.status, record.moments
    return {
        "id": record.origin.id,
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
