"""What a log line can say, and its JSON form; the forms for people are in their own modules.

A style turns an :class:`Entry` or a :class:`Served` into text. What comes from outside (clients, scripts) is
in them as it came; every style makes it harmless: one line stays one line, and no terminal obeys it.
"""

import os
import re
import time
import traceback
from datetime import datetime
from functools import lru_cache
from typing import Any, Protocol

import msgspec

from pyemperor.actors.outcome import Outcome
from pyemperor.actors.refusals import signal_name
from pyemperor.protocol.escapes import encodable
from pyemperor.protocol.messages import Birth, State

#: What addresses of attendants begin with (``actors/attendants``).
ATTENDANTS = frozenset({"daemon", "cron", "hook", "touch"})


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One record of the log; ``at`` is a monotonic time in seconds. The JSON style has its fields as keys."""

    level: str
    actor: str = ""
    vassal: str = ""
    worker: int = 0
    event: str = ""
    state: str = ""
    pid: int = 0
    reason: str = ""
    request_id: str = ""
    message: str = ""
    at: float | None = None
    traceback: str = ""

    @classmethod
    def of(cls, record: Any, actor: str) -> "Entry":
        """The entry for a record of loguru; ``actor`` speaks where the record names nobody."""
        extra = record["extra"]
        speaker = str(extra.get("actor") or actor)
        vassal, worker = parts(speaker)
        return cls(
            level=record["level"].name,
            actor=encodable(speaker),
            vassal=encodable(vassal),
            worker=worker,
            event=encodable(str(extra.get("event", ""))),
            state=encodable(str(extra.get("state", ""))),
            pid=int(extra.get("pid", 0)),
            reason=encodable(str(extra.get("reason", ""))),
            request_id=encodable(str(extra.get("request_id", ""))),
            message=encodable(record["message"]),
            at=round(float(extra["at"]), 6) if "at" in extra else None,
            traceback=encodable(_traceback(record["exception"])),
        )

    @property
    def attendant(self) -> bool:
        """Whether this is said of a process beside the workers."""
        return self.actor.partition(":")[0] in ATTENDANTS


def _traceback(error: Any) -> str:
    return "".join(traceback.format_exception(*error)) if error and error.value else ""


class Served(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request that is over. Names are those of uWSGI's ``log-format``.

    ``pid`` is the worker's, ``script_pid`` the script's. ``rsize`` counts the body's bytes, ``hsize`` the
    head's; ``vars`` and ``pktsize`` are number and size of the request's variables; ``number`` counts the
    requests of this worker. ``exit`` is the script's exit code, or ``signal`` what killed it, ``cpu`` its CPU
    seconds and ``maxrss`` its peak memory in bytes, with all that it waited for (wait4(2)).
    """

    level: str
    event: str
    vassal: str
    worker: int
    core: int
    pid: int
    at: float
    status: int
    rsize: int
    msecs: float
    message: str
    number: int
    headers: int
    hsize: int
    vars: int
    pktsize: int
    actor: str = ""
    method: str = ""
    uri: str = ""
    proto: str = ""
    addr: str = ""
    user: str = ""
    host: str = ""
    uagent: str = ""
    referer: str = ""
    request_id: str = ""
    script: str = ""
    script_pid: int = 0
    exit: int | None = None
    signal: str = ""
    cpu: float | None = None
    maxrss: int = 0
    redirects: int = 0
    harakiri: bool = False
    problem: str = ""
    remedy: str = ""

    @classmethod
    def of(
        cls,
        birth: Birth,
        core: int,
        outcome: Outcome,
        now: float,
        *,
        pid: int,
        number: int,
        x_forwarded_for: bool = False,
    ) -> "Served":
        """What ``outcome`` says at ``now``, the end of the request on the monotonic clock.

        With ``x_forwarded_for`` the address is the one in that field of the request, if it has one.
        """
        variables = outcome.request.variables if outcome.request else {}
        get = variables.get
        method, uri = _text(get(b"REQUEST_METHOD")), _text(get(b"REQUEST_URI"))
        rsize = max(0, outcome.sent - outcome.head_size)
        msecs = round(max(0.0, now - outcome.started_at) * 1000, 1)
        ending = outcome.ending
        return cls(
            level="WARNING" if outcome.problem else "INFO",
            event="request",
            actor=birth.actor,
            vassal=birth.vassal.name,
            worker=birth.index,
            core=core,
            pid=pid,
            at=round(now, 6),
            status=outcome.status,
            rsize=rsize,
            msecs=msecs,
            message=f"{method or '-'} {uri or '-'} {outcome.status} {size(rsize)} {duration(msecs)}",
            number=number,
            headers=outcome.head_fields,
            hsize=outcome.head_size,
            vars=len(variables),
            # uwsgi protocol: two lengths of two bytes for each variable
            pktsize=sum(map(len, variables)) + sum(map(len, variables.values())) + 4 * len(variables),
            method=method,
            uri=uri,
            proto=_text(get(b"SERVER_PROTOCOL")),
            addr=_text((x_forwarded_for and get(b"HTTP_X_FORWARDED_FOR")) or get(b"REMOTE_ADDR")),
            user=_text(get(b"REMOTE_USER")),
            host=_text(get(b"HTTP_HOST")),
            uagent=_text(get(b"HTTP_USER_AGENT")),
            referer=_text(get(b"HTTP_REFERER")),
            request_id=encodable(outcome.id),
            script=encodable(outcome.script),
            script_pid=outcome.pid,
            exit=ending.code if ending and not ending.signal else None,
            signal=signal_name(ending.signal) if ending and ending.signal else "",
            cpu=round(ending.cpu, 6) if ending else None,
            maxrss=ending.peak if ending else 0,
            redirects=outcome.redirects,
            harakiri=outcome.harakiri,
            problem=encodable(outcome.problem),
            remedy=encodable(outcome.remedy),
        )


class Style(Protocol):
    """How lines look. ``wall`` is the time of day, in seconds since 1970, of the record or the request's end.

    The text ends in a newline, or is "" where this style has nothing to say.
    """

    def entry(self, entry: Entry, wall: float) -> str: ...
    def served(self, served: Served, wall: float) -> str: ...


class Json:
    """One flat object a line; keys without a value are left out."""

    def entry(self, entry: Entry, wall: float) -> str:
        return _json_line(entry, wall)

    def served(self, served: Served, wall: float) -> str:
        return _json_line(served, wall)


_encode = msgspec.json.Encoder().encode
#: JSON allows them in a string, but terminals obey C1 controls, and some readers take the rest for newlines.
_RISKY = re.compile(rb"\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xa8\xa9]")


def _json_line(struct: Entry | Served, wall: float) -> str:
    second = int(wall)
    day, zone = _iso(second)
    body = _encode(struct)
    if _RISKY.search(body):
        body = _RISKY.sub(lambda match: b"\\u%04x" % ord(match[0].decode()), body)
    return f'{{"time":"{day}.{int((wall - second) * 1000):03d}{zone}",{body[1:].decode()}\n'


@lru_cache(maxsize=4)
def _iso(second: int) -> tuple[str, str]:
    text = datetime.fromtimestamp(second).astimezone().isoformat()
    return text[:19], text[19:]


# ---- what styles share ----------------------------------------------------------------------------------

#: SGR parameters (ECMA-48 §8.3.117), of the sixteen colours that every theme keeps readable.
BOLD, DIM, RED, GREEN, YELLOW, MAGENTA, CYAN = "1", "2", "31", "32", "33", "35", "36"


def paint(text: str, colour: str) -> str:
    """``text`` in ``colour`` on a terminal."""
    return f"\x1b[{colour}m{text}\x1b[0m"


def colourful(fd: int) -> bool:
    """Whether colours are welcome at ``fd`` (no-color.org)."""
    return os.isatty(fd) and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _text(value: bytes | None) -> str:
    return value.decode("utf-8", "backslashreplace") if value else ""


@lru_cache(maxsize=8)
def strftime(text: str, second: int) -> str:
    """The second since 1970, on the clock on the wall, as ``text`` has it: strftime(3)."""
    return time.strftime(text, time.localtime(second))


@lru_cache(maxsize=8)
def ctime(second: int) -> str:
    """The second since 1970 as ctime(3) has it, without the newline."""
    return time.ctime(second)


def parts(actor: str) -> tuple[str, int]:
    """The vassal of an address such as ``worker:NAME/2``, and the number of the worker or 0."""
    kind, _, name = actor.partition(":")
    if kind in ATTENDANTS:
        return name.rpartition("/")[0] or name, 0
    if kind == "worker":
        vassal, _, index = name.rpartition("/")
        return (vassal, int(index)) if index.isdecimal() else (name, 0)
    return (name if kind == "master" else ""), 0


def called(actor: str) -> str:
    """``app`` for ``master:app``, ``app/1`` for its first worker, ``app/daemon/1`` for its first daemon."""
    kind, _, name = actor.partition(":")
    if kind not in ATTENDANTS:
        return name or actor
    vassal, slash, part = name.rpartition("/")
    return f"{vassal}/{kind}/{part}" if slash else f"{name}/{kind}"


def size(number: int) -> str:
    """``number`` of bytes for people."""
    if number < 1000:
        return f"{number} B"
    value, units = number / 1000, iter(("kB", "MB", "GB"))
    unit = next(units)
    while value >= 999.5 and (larger := next(units, "")):
        value, unit = value / 1000, larger
    return f"{value:.1f} {unit}" if value < 9.95 else f"{value:.0f} {unit}"


def duration(msecs: float) -> str:
    """Milliseconds for people."""
    if msecs < 999.5:
        return f"{msecs:.1f} ms" if msecs < 9.95 else f"{msecs:.0f} ms"
    return f"{msecs / 1000:.1f} s"


class Before(msgspec.Struct, frozen=True):
    """What a process was before the entry at hand: its state, for what reason, since when."""

    state: str = ""
    reason: str = ""
    at: float = 0.0
    again: bool = False

    @property
    def ending(self) -> bool:
        """Whether its end is no surprise; one that stops for a reason was not asked to, it lost its link."""
        if self.state == State.STOPPING:
            return not self.reason
        return self.state in (State.KILLING, State.CONVICTED)


class History:
    """Remembers each process's last state: what its end means depends on whether it was asked for."""

    def __init__(self) -> None:
        #: By actor and pid: a worker and the one that replaces it have one address. Pid 0 is who comes next.
        self._last: dict[tuple[str, int], Before] = {}

    def before(self, entry: Entry) -> Before:
        """What the process of ``entry`` was before it."""
        me, nobody = (entry.actor, entry.pid), (entry.actor, 0)
        before = self._last.get(me) or self._last.get(nobody, Before())
        match entry.event:
            case "start" | "restart":
                self._last[nobody] = Before(again=entry.event == "restart")
            case "state":
                if entry.state == State.ABSENT:
                    self._last.pop(me, None)
                    me = nobody
                self._last[me] = Before(entry.state, entry.reason, entry.at or 0.0, before.again)
        return before
