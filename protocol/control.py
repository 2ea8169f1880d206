"""What is said at the control socket: one request a connection, one answer, each a line of JSON.

>>> encode(Reload(name="shop", wait=True))
b'{"command":"reload","version":1,"name":"shop","wait":true}\\n'

A request of another version is answered by an error that says which one is spoken here.
"""

from typing import Any

import msgspec

from pyemperor.protocol.errors import LinkError
from pyemperor.protocol.escapes import encodable

VERSION = 1
#: Bytes that a request may have.
MAX_REQUEST = 64 * 1024


class _Request(msgspec.Struct, frozen=True, tag_field="command", forbid_unknown_fields=True):
    version: int = VERSION


class Status(_Request, frozen=True, tag="status"):
    """How the vassal ``name`` is; None: all."""

    name: str | None = None


class Reload(_Request, frozen=True, tag="reload"):
    """Start a new generation of the vassal ``name``; None: of all.

    With ``wait`` the answer comes when each is ready or was refused, else at once.
    """

    name: str | None = None
    wait: bool = False


class Stop(_Request, frozen=True, tag="stop"):
    """Stop the vassal ``name``; the answer comes when its last process is gone.

    None: all, and the Emperor; then the connection ends with the Emperor.
    """

    name: str | None = None


class Absolve(_Request, frozen=True, tag="absolve", kw_only=True):
    """Clear the delay, curse or exile of the vassal ``name``, so that it starts at once."""

    name: str


Request = Status | Reload | Stop | Absolve


class AttendantReport(msgspec.Struct, frozen=True):
    """How one process beside the workers is; ``name`` is ``daemon/1``, ``cron/2``, ``hook/PHASE`` or ``touch``."""

    name: str
    #: A ``messages.State``.
    state: str
    #: Its process, below which its program runs; 0 when there is none.
    pid: int = 0
    #: Why it is so.
    reason: str = ""
    #: How often it was started again.
    restarts: int = 0


class VassalReport(msgspec.Struct, frozen=True):
    """How one vassal is; the fields are those of ``actors.administration.VassalStatus``."""

    name: str
    state: str
    generation: int
    pids: tuple[int, ...]
    restarts: int
    reason: str = ""
    refused: str = ""
    reloading: bool = False
    ready: int = 0
    requests: int = 0
    loyal: bool = False
    attendants: tuple[AttendantReport, ...] = ()


class Done(msgspec.Struct, frozen=True):
    """What became of a request about one vassal."""

    name: str
    ok: bool
    reason: str = ""


class _Answer(msgspec.Struct, frozen=True, tag_field="answer"):
    pass


class Statuses(_Answer, frozen=True, tag="status"):
    """To :class:`Status`; ``pid`` is the Emperor's."""

    pid: int
    vassals: tuple[VassalReport, ...]


class Outcomes(_Answer, frozen=True, tag="outcomes"):
    """What became of each vassal."""

    outcomes: tuple[Done, ...]


class Begun(_Answer, frozen=True, tag="begun"):
    """To a :class:`Reload` that does not wait: these vassals were asked."""

    names: tuple[str, ...]


class Refusal(_Answer, frozen=True, tag="error"):
    """The request cannot be served: why, and what to do instead."""

    problem: str
    remedy: str = ""


Answer = Statuses | Outcomes | Begun | Refusal


def encode(message: Request | Answer) -> bytes:
    """The line that carries ``message``; what is no UTF-8 in its texts is escaped (:mod:`escapes`)."""
    try:
        return msgspec.json.encode(message) + b"\n"
    except UnicodeEncodeError:
        return msgspec.json.encode(_encodable(msgspec.to_builtins(message))) + b"\n"


def _encodable(value: Any) -> Any:
    match value:
        case str():
            return encodable(value)
        case dict():
            return {_encodable(key): _encodable(one) for key, one in value.items()}
        case list() | tuple():
            return [_encodable(one) for one in value]
    return value


def decode_request(line: bytes) -> Request:
    """The request in ``line``; raises LinkError with words for the client."""
    version = _decode(line, _AnyVersion).version
    if version != VERSION:
        raise LinkError(f"this Emperor speaks version {VERSION} of the control protocol, not {version}")
    request: Request = _decode(line, Request)
    return request


def decode_answer(line: bytes) -> Answer:
    """The answer in ``line``; raises LinkError."""
    answer: Answer = _decode(line, Answer)
    return answer


class _AnyVersion(msgspec.Struct):
    version: int = VERSION


def _decode(line: bytes, type: Any) -> Any:
    try:
        return msgspec.json.decode(line, type=type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise LinkError(f"not a line of the control protocol: {error}") from None
