"""``[[load]]``: the requests of a scenario. Times count from the steady state, when every vassal is ready."""

import re
from collections.abc import Mapping
from typing import Literal

import msgspec

from pyemperor.protocol.report import Report
from pyemperor.protocol.tables import Option, check_kind, defaults, read, rows
from pyemperor.protocol.values import COUNT, NUMBER, TEXT, TIME, WORD, Kind, choice


def _url_path(value: object, _base: str) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"/[!-~]*", value):
        raise ValueError('write it from the slash on, encoded: "/cgi-bin/hello.cgi?name=a%20b"')
    return value


URL_PATH = Kind("url", "a path and query", _url_path)
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS")
KINDS = ("replay", "constant", "burst", "closed")
KEYS: tuple[Option, ...] = (
    Option("load", "id", WORD, "", "name in targets and reports"),
    Option("load", "kind", choice(*KINDS), None, "when requests are made", needed=True),
    Option("load", "vassal", WORD, "", "who is asked; may be left out where there is one vassal"),
    Option("load", "path", URL_PATH, "/", "path and query of the requests"),
    Option("load", "method", choice(*METHODS), "GET", "HTTP method"),
    Option("load", "body", TEXT, "", "body of the requests"),
    Option("load", "at", TIME, (0.0,), "when it begins", repeat=True),
    Option("load", "rate", NUMBER, 0.0, "requests per second; scale leaves it alone", least=0.001,
           needed=True, kinds=("constant",)),
    Option("load", "clients", COUNT, 1, "requests, or clients, at a time", least=1,
           needed=True, kinds=("burst", "closed")),
    Option("load", "for", TIME, 0.0, "how long it lasts", needed=True, kinds=("constant", "closed"),
           field_name="duration"),
    Option("load", "think", TIME, 0.0, "pause of a client between an answer and its next request",
           kinds=("closed",)),
    Option("load", "timeout", TIME, 120.0, "a client gives up after it", least=0.01),
    Option("load", "takes", TIME, 0.005, "how long the script takes in simulated time"),
)
_ROWS = rows(KEYS, "load")


class Load(msgspec.Struct, frozen=True):
    """Requests to one vassal, through the front if there is one. Times are seconds.

    ``replay``: one request at each time of ``at``. ``constant``: ``rate`` requests a second for ``duration``.
    ``burst``: ``clients`` requests at once, at each time of ``at``. ``closed``: ``clients`` clients for
    ``duration``, each sends its next request ``think`` seconds after the answer.
    """

    id: str
    kind: Literal["replay", "constant", "burst", "closed"]
    vassal: str
    path: str = _ROWS["path"].default
    method: str = _ROWS["method"].default
    body: str = _ROWS["body"].default
    at: tuple[float, ...] = _ROWS["at"].default
    rate: float = _ROWS["rate"].default
    clients: int = _ROWS["clients"].default
    duration: float = _ROWS["for"].default
    think: float = _ROWS["think"].default
    #: A client gives up after it.
    timeout: float = _ROWS["timeout"].default
    #: How long the script takes in simulated time.
    takes: float = _ROWS["takes"].default


def load_from(
    table: Mapping[str, object], report: Report, *, ordinal: int, only: str = "", scale: float = 1.0
) -> Load | None:
    """Make a load from its table; None when that cannot be, which ``report`` says.

    ``only`` is the name of the vassal to ask where the table names none; "" where there are several.
    """
    given = read(_ROWS, table, report, scale=scale)
    check_kind(_ROWS, given.get("kind", ""), table, report)
    if "vassal" not in table and not only:
        report.problem("no vassal", "vassal, the name of one of the vassals")
    if "kind" not in given:
        return None
    return Load(**defaults(_ROWS, scale) | {"id": f"load-{ordinal}", "vassal": only} | given)
