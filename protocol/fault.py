"""``[[fault]]``: what a scenario breaks. Times count from the steady state, when every vassal is ready."""

from collections.abc import Mapping
from typing import Literal, get_args

import msgspec

from pyemperor.protocol.messages import LinkMessage
from pyemperor.protocol.patterns import PATTERN, TARGET, Pattern, Target
from pyemperor.protocol.quantities import seconds
from pyemperor.protocol.report import Report, show
from pyemperor.protocol.tables import Option, check_kind, defaults, read, rows
from pyemperor.protocol.values import COUNT, FRACTION, TIME, WORD, Kind, choice

#: Signals that ``kill`` sends, by name (signal(7), x86 and ARM).
SIGNALS = {"HUP": 1, "INT": 2, "QUIT": 3, "ABRT": 6, "KILL": 9, "USR1": 10, "USR2": 12, "TERM": 15}
#: Types of the messages that travel between a process and its parent.
MESSAGES = tuple(sorted(str(message.__struct_config__.tag) for message in get_args(LinkMessage)))
_PROCESSES = ("emperor", "fork-server", "master", "worker", "cgi")
#: What each kind of fault can hit.
HITS = {
    "kill": _PROCESSES,
    "stop": _PROCESSES,
    "cont": _PROCESSES,
    "hang": ("emperor", "master", "worker"),
    "drop": ("link",),
    "delay": ("link",),
}


class After(msgspec.Struct, frozen=True):
    """``offset`` seconds after the fault ``fault`` was injected."""

    fault: str
    offset: float


def _after(value: object, _base: str) -> After:
    fault, plus, offset = value.partition("+") if isinstance(value, str) else ("", "", "")
    if not fault.strip():
        raise ValueError('write "ID+2s" with the id of a fault')
    return After(fault.strip(), seconds(offset) if plus else 0.0)


def _signal(value: object, _base: str) -> int:
    name = value.upper().removeprefix("SIG") if isinstance(value, str) else ""
    number = SIGNALS.get(name, value)
    if type(number) is not int or number not in SIGNALS.values():
        raise ValueError(f"known: {', '.join(SIGNALS)}")
    return number


AFTER = Kind("after", '"ID" or "ID+TIME"', _after, scale=lambda it, scale: After(it.fault, it.offset * scale))
SIGNAL = Kind("signal", "a signal", _signal)
_LINK_KINDS = ("drop", "delay")
KEYS: tuple[Option, ...] = (
    Option("fault", "id", WORD, "", "name for after, targets and reports"),
    Option("fault", "kind", choice(*HITS), None, "what to do", needed=True),
    Option("fault", "target", TARGET, None, "to whom", needed=True),
    Option("fault", "at", TIME, None, "when: a time"),
    Option("fault", "on", PATTERN, None, "when: the first time that an entry of the timeline matches"),
    Option("fault", "after", AFTER, None, "when: a time after another fault"),
    Option("fault", "for", TIME, 0.0, "take it back after this time; 0: never",
           kinds=("stop", "hang", *_LINK_KINDS), field_name="duration"),
    Option("fault", "every", TIME, 0.0, "do it again after this time", least=0.001),
    Option("fault", "times", COUNT, 1, "how often in all", least=1),
    Option("fault", "signal", SIGNAL, SIGNALS["KILL"], "what kill sends", kinds=("kill",)),
    Option("fault", "probability", FRACTION, 1.0, "share of the messages that are hit", kinds=_LINK_KINDS),
    Option("fault", "match", choice(*MESSAGES), "", "type of the messages that are hit; default: all",
           kinds=_LINK_KINDS),
    Option("fault", "delay", TIME, 0.0, "how long messages wait", needed=True, kinds=("delay",)),
)
_ROWS = rows(KEYS, "fault")


class Fault(msgspec.Struct, frozen=True):
    """A fault, injected ``at`` a time, ``on`` an event or ``after`` another fault; one of them is set.

    ``kill`` sends ``signal``; ``stop`` and ``cont`` send SIGSTOP and SIGCONT; ``hang`` makes the target's
    actor handle no message; ``drop`` and ``delay`` lose or hold back messages of a link, each with
    ``probability``, and only those of the type ``match`` unless that is "". After ``duration`` seconds stop,
    hang, drop and delay are taken back; 0 is never. With ``every`` it comes back, ``times`` times in all.
    """

    id: str
    kind: Literal["kill", "stop", "cont", "hang", "drop", "delay"]
    target: Target
    at: float | None = None
    on: Pattern | None = None
    after: After | None = None
    duration: float = _ROWS["for"].default
    every: float = _ROWS["every"].default
    times: int = _ROWS["times"].default
    signal: int = _ROWS["signal"].default
    probability: float = _ROWS["probability"].default
    match: str = _ROWS["match"].default
    delay: float = _ROWS["delay"].default


def fault_from(
    table: Mapping[str, object], report: Report, *, ordinal: int, scale: float = 1.0
) -> Fault | None:
    """Make a fault from its table; None when that cannot be, which ``report`` says."""
    given = read(_ROWS, table, report, scale=scale)
    check_kind(_ROWS, given.get("kind", ""), table, report)
    if len(table.keys() & {"at", "on", "after"}) != 1:
        report.problem("no single point in time", "one of at, on, after")
    for key, other in (("every", "times"), ("times", "every")):
        if key in table and other not in table:
            report.at(key).problem(f"{key} without {other}", f"{other}, {_ROWS[other].expected}")
    if not {"kind", "target"} <= given.keys():
        return None
    kind, target = given["kind"], given["target"]
    if target.kind not in HITS[kind]:
        report.at("target").problem(show(target.text), f"what {kind} can hit: {', '.join(HITS[kind])}")
    return Fault(**defaults(_ROWS, scale) | {"id": f"{kind}-{ordinal}"} | given)
