"""Judges the expectations of a scenario on what its timeline holds. Pure."""

import math
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import NamedTuple

from pyemperor.protocol.expect import Expect
from pyemperor.protocol.messages import Trace
from pyemperor.protocol.patterns import Pattern

#: ``Trace.state`` of a request that got no answer.
NO_ANSWER = "0"
#: Traces that the player makes itself: no line of the log.
_OURS = ("fault", "heal", "request")
_ROUNDING = 1e-9


@dataclass(slots=True)
class Course:
    """What happened: entries of the timeline, and the times at which the steady state began and ended.

    ``over_at`` is when the Emperor was told to stop; counts end there. ``left_over`` names processes and
    sockets that still existed at the end.
    """

    traces: list[Trace] = field(default_factory=list)
    begun_at: float = math.inf
    over_at: float = math.inf
    left_over: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """What became of one expectation, in words."""

    id: str
    met: bool
    found: str
    expected: str = ""
    #: Not met, but what is missing may still come.
    pending: bool = False


def judge(expects: Iterable[Expect], course: Course) -> list[Finding]:
    """Judge every expectation, in the order of the file."""
    # Entries of several processes arrive late by different times; all have read the same clock.
    entries = sorted(course.traces, key=lambda trace: trace.at)
    return [_judge(expect, entries, course) for expect in expects]


def _judge(expect: Expect, entries: list[Trace], course: Course) -> Finding:
    if expect.kind == "nothing-left-over":
        found = ", ".join(course.left_over) or "nothing"
        return Finding(expect.id, not course.left_over, found, "no process and no socket at the end")
    part = _part(expect, entries, course)
    if part is None:
        return Finding(expect.id, False, f"nothing matches after = {_quoted(expect.after)}", pending=True)
    match expect.kind:
        case "count":
            judged = _count(expect, [trace for trace in part if trace.at <= course.over_at])
        case "time":
            judged = _time(expect, part)
        case "order":
            judged = _order(expect, part)
        case "http":
            judged = _http(expect, part)
        case "log":
            judged = _log(expect, part)
    return Finding(expect.id, *judged)


def _part(expect: Expect, entries: list[Trace], course: Course) -> list[Trace] | None:
    """The entries that count; None when ``after`` never happened: what was not tried is not met."""
    if expect.between is not None:
        begin, end = expect.between
        entries = [trace for trace in entries if begin <= trace.at - course.begun_at <= end]
    if expect.after is not None:
        first = _index(expect.after, entries)
        if first is None:
            return None
        entries = entries[first:]
    if expect.until is not None:
        entries = entries[: _index(expect.until, entries)]
    return entries


def _index(pattern: Pattern, entries: Sequence[Trace], start: int = 0) -> int | None:
    """Where the first entry from ``start`` on stands that matches."""
    return next((at for at in range(start, len(entries)) if pattern.matches(entries[at])), None)


# ---- one kind each -------------------------------------------------------------------------------------


class _Judged(NamedTuple):
    met: bool
    found: str
    expected: str
    pending: bool = False


def _count(expect: Expect, part: Sequence[Trace]) -> _Judged:
    assert expect.first is not None
    number = sum(map(expect.first.matches, part))
    met = (expect.min or 0) <= number <= (math.inf if expect.max is None else expect.max)
    return _Judged(met, str(number), _bounds(expect, ""), pending=number < (expect.min or 0))


def _time(expect: Expect, part: Sequence[Trace]) -> _Judged:
    assert expect.first is not None
    assert expect.second is not None
    expected = _bounds(expect, " s")
    first = _index(expect.first, part)
    if first is None:
        return _Judged(False, f"no {expect.first.text}", expected, pending=True)
    second = _index(expect.second, part, first + 1)
    if second is None:
        return _Judged(False, f"no {expect.second.text} after {expect.first.text}", expected, pending=True)
    seconds = part[second].at - part[first].at
    least = (expect.min or 0.0) - expect.slack
    most = math.inf if expect.max is None else expect.max + expect.slack
    return _Judged(least - _ROUNDING <= seconds <= most + _ROUNDING, f"{seconds:.3f} s", expected)


def _bounds(expect: Expect, unit: str) -> str:
    slack = f" (slack {expect.slack:g}{unit})" if expect.slack else ""
    match expect.min, expect.max:
        case None, most:
            return f"at most {most:g}{unit}{slack}"
        case least, None:
            return f"at least {least:g}{unit}{slack}"
        case least, most:
            return (f"{least:g}" if least == most else f"{least:g} to {most:g}") + unit + slack
    raise AssertionError(expect)


def _order(expect: Expect, part: Sequence[Trace]) -> _Judged:
    expected = ", ".join(event.text for event in expect.events)
    at, before = 0, ""
    for event in expect.events:
        index = _index(event, part, at)
        if index is None:
            return _Judged(False, f"no {event.text}" + (f" after {before}" if before else ""), expected, True)
        at, before = index + 1, event.text
    return _Judged(True, "in this order", expected)


def _http(expect: Expect, part: Sequence[Trace]) -> _Judged:
    source = f"load:{expect.load or '*'}"
    statuses = Counter(
        trace.state for trace in part if trace.event == "request" and fnmatchcase(trace.actor, source)
    )
    total = statuses.total()
    expected = ", ".join(f"{status}: {share:.1%}" for status, share in expect.ratio)
    if expect.tolerance:
        expected += f" (tolerance {expect.tolerance:.1%})"
    if not total:
        return _Judged(False, "no requests", expected)
    met = all(
        abs(_number(statuses, status) / total - share) <= expect.tolerance + _ROUNDING
        for status, share in expect.ratio
    )
    shares = sorted((_status(status), number / total) for status, number in statuses.items())
    found = ", ".join(f"{status}: {share:.1%}" for status, share in shares)
    return _Judged(met, f"{found} of {total} requests", expected)


def _status(state: str) -> str:
    return "error" if state == NO_ANSWER else state


def _number(statuses: Counter[str], wanted: str) -> int:
    """How many answers had the status ``wanted``: "200", "2xx" or "error"."""
    if wanted.endswith("xx"):
        return sum(number for status, number in statuses.items() if status[0] == wanted[0])
    return statuses[NO_ANSWER if wanted == "error" else wanted]


def _log(expect: Expect, part: Sequence[Trace]) -> _Judged:
    lines = [_line(trace) for trace in part if trace.event not in _OURS]
    wanted = [f"a line that matches /{expect.match}/"] if expect.match else []
    wanted += [f"no line that matches /{expect.never}/"] if expect.never else []
    expected = " and ".join(wanted)
    if expect.never:
        for line in lines:
            if re.search(expect.never, line):
                return _Judged(False, line, expected)
    if expect.match:
        matching = next((line for line in lines if re.search(expect.match, line)), None)
        return _Judged(matching is not None, matching or "no such line", expected, matching is None)
    return _Judged(True, "no such line", expected)


def _line(trace: Trace) -> str:
    """The line that the log has for this entry, as the journal writes it."""
    if trace.event == "log":
        return trace.reason
    text = f"{trace.actor} is {trace.state}" if trace.event == "state" else f"{trace.actor} {trace.event}"
    return f"{text}: {trace.reason}" if trace.reason else text


def _quoted(pattern: Pattern | None) -> str:
    return f'"{pattern.text}"' if pattern else ""
