"""uWSGI's ``log-format``: a request line of the user's own, compiled once, filled in for every request.

What clients and scripts choose is escaped as in a JSON string: a line stays one line, a quoted value ends
where its quote ends, and a format that is a JSON object gives one.
"""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass

from pyemperor.actors import wires
from pyemperor.actors.outcome import Outcome
from pyemperor.actors.refusals import signal_name
from pyemperor.actors.script import Ending
from pyemperor.cli.lines import ctime, strftime
from pyemperor.protocol.messages import Birth

_VARIABLE = re.compile(r"%\(([^()]+)\)")
#: uWSGI's word for what is not there.
_NOTHING = "-"
_PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True)
class Request:
    """A request that is over: at ``now`` on the monotonic clock, at ``wall`` seconds since 1970.

    ``pid`` is the worker's; ``number`` counts its requests.
    """

    birth: Birth
    core: int
    outcome: Outcome
    now: float
    wall: float
    pid: int
    number: int

    @property
    def seconds(self) -> float:
        """How long it took."""
        return max(0.0, self.now - self.outcome.started_at)

    @property
    def begun(self) -> float:
        """When it began, in seconds since 1970."""
        return self.wall - self.seconds

    @property
    def rsize(self) -> int:
        """Bytes of the response's body."""
        return max(0, self.outcome.sent - self.outcome.head_size)


_Value = Callable[[Request], object]


def compile_format(text: str, date: str = "", *, x_forwarded_for: bool = False) -> Callable[[Request], str]:
    """Make the function that writes one request by the format ``text``, a line with its newline.

    ``date`` is the strftime format of ``%(ftime)``; "" is ctime(3)'s. ``x_forwarded_for`` says whom ``%(addr)``
    names, where there is such a field. A name that nobody knows gives ``-``.
    """
    literals: list[str] = []
    values: list[_Value] = []
    end = 0
    for match in _VARIABLE.finditer(text):
        literals.append(text[end : match.start()].replace("%", "%%"))
        name = match[1]
        value = _forwarded if name == "addr" and x_forwarded_for else _value(name, date)
        values.append(value or _nothing)
        end = match.end()
    template = "%s".join([*literals, text[end:].replace("%", "%%")]) + "\n"

    def line(request: Request) -> str:
        return template % tuple([value(request) for value in values])

    return line


def unknown(text: str) -> tuple[str, ...]:
    """The names in the format ``text`` that mean nothing here."""
    return tuple(name for name in _VARIABLE.findall(text) if _value(name, "") is None)


def _value(name: str, date: str) -> _Value | None:
    if name.startswith("var."):
        return _variable(name.removeprefix("var.").encode())
    if name == "ftime" and date:
        return lambda request: escaped(strftime(date, int(request.begun)))
    return _VALUES.get(name)


def _nothing(_request: Request) -> str:
    return _NOTHING


def _variable(key: bytes) -> _Value:
    def value(request: Request) -> str:
        known = request.outcome.request
        found = known.variables.get(key) if known else None
        return escaped(found.decode("utf-8", "backslashreplace")) if found else _NOTHING

    return value


def _forwarded(request: Request) -> object:
    found = _variable(b"HTTP_X_FORWARDED_FOR")(request)
    return _VALUES["addr"](request) if found == _NOTHING else found


def escaped(text: str) -> str:
    """``text`` as it would stand between the quotes of a JSON string, everything invisible as ``\\uXXXX``."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return text
    return "".join(map(_escape, text))


def _escape(char: str) -> str:
    if char in '"\\':
        return "\\" + char
    if char.isprintable():
        return char
    units = char.encode("utf-16-be", "surrogatepass").hex()
    return "".join(f"\\u{units[at : at + 4]}" for at in range(0, len(units), 4))


def _text(read: Callable[[Request], str]) -> _Value:
    def value(request: Request) -> str:
        text = read(request)
        return escaped(text) if text else _NOTHING

    return value


def _of_ending(read: Callable[[Ending], object]) -> _Value:
    return lambda request: read(request.outcome.ending) if request.outcome.ending else _NOTHING


def _memory(column: int, unit: int) -> _Value:
    """A figure of /proc/self/statm (proc(5)): of the worker, now."""

    def value(_request: Request) -> int:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read(128).split()[column]) * _PAGE // unit

    return value


def _of_request(read: Callable[[wires.Request], object]) -> _Value:
    return lambda request: read(request.outcome.request) if request.outcome.request else 0


def _packet_size(request: wires.Request) -> int:
    """The uwsgi protocol has two lengths of two bytes for each variable."""
    variables = request.variables
    return sum(map(len, variables)) + sum(map(len, variables.values())) + 4 * len(variables)


def _broken(request: Request) -> int:
    return int(request.outcome.status == _CLIENT_LEFT)


#: The status that the log has for a client who did not wait for the answer: nginx's.
_CLIENT_LEFT = 499


_MB = 1024 * 1024
#: uWSGI's names (logging.c), and below them ours.
_VALUES: dict[str, _Value] = {
    "uri": _variable(b"REQUEST_URI"),
    "method": _variable(b"REQUEST_METHOD"),
    "user": _variable(b"REMOTE_USER"),
    "addr": _variable(b"REMOTE_ADDR"),
    "host": _variable(b"HTTP_HOST"),
    "proto": _variable(b"SERVER_PROTOCOL"),
    "uagent": _variable(b"HTTP_USER_AGENT"),
    "referer": _variable(b"HTTP_REFERER"),
    "status": lambda request: request.outcome.status,
    "rsize": lambda request: request.rsize,
    "hsize": lambda request: request.outcome.head_size,
    "size": lambda request: request.outcome.sent,
    "headers": lambda request: request.outcome.head_fields,
    "cl": _of_request(lambda request: request.length),
    "micros": lambda request: int(request.seconds * 1e6),
    "msecs": lambda request: int(request.seconds * 1e3),
    "secs": lambda request: f"{request.seconds:f}",
    "time": lambda request: int(request.begun),
    "tmsecs": lambda request: int(request.begun * 1e3),
    "tmicros": lambda request: int(request.begun * 1e6),
    "ctime": lambda request: ctime(int(request.begun)),
    "ftime": lambda request: ctime(int(request.begun)),
    "ltime": lambda request: strftime("%d/%b/%Y:%H:%M:%S %z", int(request.begun)),
    "epoch": lambda request: int(request.wall),
    "pid": lambda request: request.pid,
    "wid": lambda request: request.birth.index,
    "core": lambda request: request.core,
    "switches": lambda _request: 0,  # of greenlets, which nobody has here
    "vars": _of_request(lambda request: len(request.variables)),
    "pktsize": _of_request(_packet_size),
    "modifier1": _of_request(lambda request: request.modifier1),
    "modifier2": _of_request(lambda request: request.modifier2),
    "vsz": _memory(0, 1),
    "rss": _memory(1, 1),
    "vszM": _memory(0, _MB),
    "rssM": _memory(1, _MB),
    "rerr": lambda _request: 0,
    "werr": _broken,
    "ioerr": _broken,
    "vassal": _text(lambda request: request.birth.vassal.name),
    "request_id": _text(lambda request: request.outcome.id),
    "number": lambda request: request.number,
    "script": _text(lambda request: request.outcome.script),
    "script_pid": lambda request: request.outcome.pid or _NOTHING,
    "exit": _of_ending(lambda ending: _NOTHING if ending.signal else ending.code),
    "signal": _of_ending(lambda ending: signal_name(ending.signal) if ending.signal else _NOTHING),
    "cpu": _of_ending(lambda ending: f"{ending.cpu:.6f}"),
    "maxrss": _of_ending(lambda ending: ending.peak),
    "redirects": lambda request: request.outcome.redirects,
    "problem": _text(lambda request: request.outcome.problem),
}
