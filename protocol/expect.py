"""``[[expect]]``: what must come of a scenario, judged on its timeline when all is over."""

import re
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec

from pyemperor.protocol.patterns import PATTERN, Pattern, parse_target
from pyemperor.protocol.quantities import count, fraction, seconds
from pyemperor.protocol.report import Report, show
from pyemperor.protocol.tables import Option, check_kind, defaults, read, rows
from pyemperor.protocol.values import FRACTION, LATENCY, TABLE, TEXT, TIME, WORD, Kind

#: What ``what = "NAME(TARGET)"`` counts; ``count(PATTERN)`` counts anything.
COUNTS = {
    "starts": "start",
    "restarts": "restart",
    "exits": "exit",
    "kills": "kill",
    "probes": "probe.sent",
    "beats": "beat",
}
_WORDS = ("order", "http", "log", "nothing-left-over")


def _regex(value: object, _base: str) -> str:
    if not isinstance(value, str):
        raise ValueError("write it in quotes")
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(str(error)) from None
    return value


def _what(value: object, _base: str) -> dict[str, Any]:
    """Read ``what``: the kind of the expectation, and the patterns in it."""
    text = value.strip() if isinstance(value, str) else ""
    if text in _WORDS:
        return {"kind": text}
    match = re.fullmatch(r"(\w+)\((.*)\)", text)
    name, inner = match.groups() if match else ("", "")
    if name in COUNTS:
        target = parse_target(inner)
        return {"kind": "count", "first": Pattern(f"{COUNTS[name]}({target.text})", COUNTS[name], target)}
    if name == "count":
        return {"kind": "count", "first": Pattern.parse(inner)}
    if name == "time":
        first, second = _two_patterns(inner)
        return {"kind": "time", "first": first, "second": second}
    known = [f"{name}(TARGET)" for name in COUNTS] + ["count(PATTERN)", "time(PATTERN, PATTERN)", *_WORDS]
    raise ValueError(f"write one of {', '.join(known)}")


def _two_patterns(inner: str) -> tuple[Pattern, Pattern]:
    """Split ``A, B`` at a comma that leaves two patterns: a regular expression may hold commas."""
    problem = ValueError('write "time(PATTERN, PATTERN)"')
    for comma in (match.start() for match in re.finditer(",", inner)):
        try:
            return Pattern.parse(inner[:comma]), Pattern.parse(inner[comma + 1 :])
        except ValueError as error:
            problem = error
    raise problem


WHAT = Kind("what", "something to judge", _what)
REGEX = Kind("regex", "a regular expression", _regex)
#: A number or a time: :func:`_bounds` knows which.
BOUND = Kind("bound", "a number or a time", lambda value, _base: value)
KEYS: tuple[Option, ...] = (
    Option("expect", "id", TEXT, "", "name in reports"),
    Option("expect", "what", WHAT, None, "what is judged", needed=True),
    Option("expect", "min", BOUND, None, "at least this number, or this time", kinds=("count", "time")),
    Option("expect", "max", BOUND, None, "at most this number, or this time", kinds=("count", "time")),
    Option("expect", "slack", LATENCY, 0.0, "allowance for the machine that runs it; scale leaves it alone",
           kinds=("time",)),
    Option("expect", "events", PATTERN, (), "patterns in their order", repeat=True, needed=True,
           kinds=("order",)),
    Option("expect", "ratio", TABLE, None, 'share of each status, { "200" = 1.0 }; also "5xx" and "error"',
           needed=True, kinds=("http",)),
    Option("expect", "tolerance", FRACTION, 0.0, "allowance for ratio", kinds=("http",)),
    Option("expect", "load", WORD, "", "id of the load whose answers count; default: all", kinds=("http",)),
    Option("expect", "match", REGEX, "", "some line of the log matches", kinds=("log",)),
    Option("expect", "never", REGEX, "", "no line of the log matches", kinds=("log",)),
    Option("expect", "between", TIME, None, "begin and end of the part that counts", repeat=True),
    Option("expect", "after", PATTERN, None, "count from this entry on"),
    Option("expect", "until", PATTERN, None, "count up to this entry"),
)
_ROWS = rows(KEYS, "expect")


class Expect(msgspec.Struct, frozen=True):
    """An expectation, named ``id`` in reports.

    ``count``: ``min`` to ``max`` entries match ``first``. ``time``: from the first entry that matches
    ``first`` to the next one that matches ``second`` pass ``min`` to ``max`` seconds, ``slack`` more or less.
    ``order``: entries match ``events`` in this order, others may lie between. ``http``: of all answers (of
    ``load``, unless ""), the share of each status in ``ratio`` is as given, ``tolerance`` more or less;
    "5xx" is a class, "error" a request without an answer. ``log``: a line matches the regular expression
    ``match``, none matches ``never``. ``nothing-left-over``: at the end no process and no socket is left.
    Only entries ``between`` two times, from ``after`` on and up to ``until`` count.
    """

    id: str
    kind: Literal["count", "time", "order", "http", "log", "nothing-left-over"]
    first: Pattern | None = None
    second: Pattern | None = None
    min: float | None = None
    max: float | None = None
    slack: float = _ROWS["slack"].default
    events: tuple[Pattern, ...] = _ROWS["events"].default
    ratio: tuple[tuple[str, float], ...] = ()
    tolerance: float = _ROWS["tolerance"].default
    load: str = _ROWS["load"].default
    match: str = _ROWS["match"].default
    never: str = _ROWS["never"].default
    between: tuple[float, float] | None = None
    after: Pattern | None = None
    until: Pattern | None = None


def expect_from(table: Mapping[str, object], report: Report, *, scale: float = 1.0) -> Expect | None:
    """Make an expectation from its table; None when that cannot be, which ``report`` says."""
    given = read(_ROWS, table, report, scale=scale)
    judged = given.pop("what", {})
    kind = judged.get("kind", "")
    check_kind(_ROWS, kind, table, report)
    if not kind:
        return None
    if kind in ("count", "time"):
        _bounds(given, kind, report, scale)
    if kind == "log" and not table.keys() & {"match", "never"}:
        report.problem("no match and no never", "a regular expression in one of them")
    given["ratio"] = _ratio(given.get("ratio", {}), report.at("ratio"))
    between = given.get("between", (0.0, 0.0))
    if None not in between and (len(between) != 2 or between[0] > between[1]):
        report.at("between").problem(show(table["between"]), "two times, the earlier first")
    values = defaults(_ROWS, scale) | {"id": str(table["what"])} | given
    del values["what"]
    return Expect(**values | judged)


def _bounds(given: dict[str, Any], kind: str, report: Report, scale: float) -> None:
    """Type ``min`` and ``max`` in place: seconds for a time, a whole number for a count."""
    reader: Callable[[object], float] = seconds if kind == "time" else count
    for key in given.keys() & {"min", "max"}:
        try:
            given[key] = reader(given[key]) * (scale if kind == "time" else 1)
        except ValueError as error:
            expected = "a time" if kind == "time" else "a whole number"
            report.at(key).problem(show(given[key]), expected, str(error))
            return
    if not given.keys() & {"min", "max"}:
        report.problem(f"no bounds for {kind}", "min or max")
    elif given.get("min", 0) > given.get("max", float("inf")):
        report.at("min").problem("more than max", "min, then max")


def _ratio(table: Mapping[str, object], report: Report) -> tuple[tuple[str, float], ...]:
    shares = []
    for status, raw in table.items():
        here = report.at(status)
        if not re.fullmatch(r"[1-5](\d\d|xx)|error", status):
            here.problem(show(status), 'a status: "200", "5xx" or "error"')
        try:
            shares.append((status, fraction(raw)))
        except ValueError as error:
            here.problem(show(raw), FRACTION.expected, str(error))
    return tuple(shares)
