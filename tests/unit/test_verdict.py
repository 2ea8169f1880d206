"""Expectations, judged on timelines made by hand. Every kind is shown to be met and not to be met."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyemperor.cli.verdict import Course, Finding, judge
from pyemperor.protocol.expect import Expect
from pyemperor.protocol.messages import Trace
from pyemperor.protocol.scenario import load_scenario

_SCENARIO = """
[[vassal]]
name = "app"
socket = "app.sock"
cgi = "cgi-bin"
processes = 2
[[load]]
id = "traffic"
kind = "burst"
clients = 1
[[load]]
id = "other"
kind = "burst"
clients = 1
[[fault]]
id = "kill"
kind = "kill"
at = 1
target = "worker:app/1"
[[expect]]
"""


def expectation(text: str) -> Expect:
    """The expectation whose table has these lines."""
    (expect,) = load_scenario(_SCENARIO + text, file="test.toml", base="/test").expects
    return expect


def course(*rows: tuple[Any, ...], **more: Any) -> Course:
    """A course with entries (at, actor, event, state, reason), steady from 0 on."""
    full = [(*row, "", "")[:5] for row in rows]
    traces = [Trace(at, actor, event, state, 0, reason) for at, actor, event, state, reason in full]
    return Course(traces, **{"begun_at": 0.0} | more)


def finding(text: str, of: Course) -> Finding:
    """What becomes of one expectation."""
    (only,) = judge([expectation(text)], of)
    return only


KILLED = course(
    (-1.0, "master:app", "state", "READY"),
    (1.0, "fault:kill", "fault", "kill", "SIGKILL to worker:app/1"),
    (1.01, "worker:app/1", "exit", "", "killed by signal 9"),
    (1.02, "worker:app/1", "restart"),
    (1.03, "worker:app/1", "state", "STARTING"),
    (1.05, "worker:app/1", "state", "READY"),
    (2.0, "worker:app/2", "log", "", "a script took 3 s"),
    (9.5, "worker:app/2", "exit", "", "exit code 0"),
    over_at=9.0,
)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('what = "restarts(worker:app/1)"\nmin = 1\nmax = 1', "1"),
        ('what = "restarts(worker:app/*)"\nmin = 1', "1"),
        ('what = "restarts(worker:app/2)"\nmax = 0', "0"),
        ('what = "exits(worker:app/2)"\nmax = 0', "0"),  # its exit is part of the ordered stop
        ('what = "count(state(worker:app/1)=*)"\nmin = 2\nmax = 2', "2"),
        ('what = "time(fault:kill, state(worker:app/1)=READY)"\nmax = "60ms"', "0.050 s"),
        ('what = "time(fault:kill, state(worker:app/1)=READY)"\nmax = "10ms"\nslack = "50ms"', "0.050 s"),
        ('what = "time(fault:kill, state(worker:app/1)=READY)"\nmin = "60ms"\nslack = "10ms"', "0.050 s"),
        ('what = "order"\nevents = ["fault:kill", "exit(worker:app/1)", "state(worker:app/1)=READY"]',
         "in this order"),
        ('what = "order"\nevents = ["exit(worker:app/1)", "exit(worker:app/2)"]', "in this order"),
        ('what = "log"\nmatch = "script took [0-9]+ s"', "a script took 3 s"),
        ('what = "log"\nmatch = "worker:app/1 is READY"', "worker:app/1 is READY"),
        ('what = "log"\nnever = "SIGKILL"', "no such line"),  # what the player did is not in the log
        ('what = "nothing-left-over"', "nothing"),
    ],
)
def test_met(text: str, found: str) -> None:
    result = finding(text, KILLED)
    assert (result.met, result.found) == (True, found), result


@pytest.mark.parametrize(
    ("text", "found", "expected"),
    [
        ('what = "restarts(worker:app/1)"\nmax = 0', "1", "at most 0"),
        ('what = "restarts(worker:app/1)"\nmin = 2', "1", "at least 2"),
        ('what = "restarts(worker:app/1)"\nmin = 2\nmax = 3', "1", "2 to 3"),
        ('what = "restarts(worker:app/1)"\nmin = 2\nmax = 2', "1", "2"),
        ('what = "time(fault:kill, state(worker:app/1)=READY)"\nmax = "40ms"', "0.050 s", "at most 0.04 s"),
        ('what = "time(fault:kill, state(worker:app/1)=READY)"\nmin = "60ms"\nmax = 1', "0.050 s",
         "0.06 to 1 s"),
        ('what = "time(fault:kill, state(worker:app/1)=CURSED)"\nmax = 1',
         "no state(worker:app/1)=CURSED after fault:kill", "at most 1 s"),
        ('what = "time(state(worker:app/2)=READY, exit)"\nmax = 1', "no state(worker:app/2)=READY",
         "at most 1 s"),
        ('what = "order"\nevents = ["exit(worker:app/1)", "fault:kill"]',
         "no fault:kill after exit(worker:app/1)", "exit(worker:app/1), fault:kill"),
        ('what = "order"\nevents = ["state(worker:app/1)=READY", "state(worker:app/1)=READY"]',
         "no state(worker:app/1)=READY after state(worker:app/1)=READY",
         "state(worker:app/1)=READY, state(worker:app/1)=READY"),
        ('what = "order"\nevents = ["credit"]', "no credit", "credit"),
        ('what = "log"\nmatch = "mercy"', "no such line", "a line that matches /mercy/"),
        ('what = "log"\nnever = "signal 9"', "worker:app/1 exit: killed by signal 9",
         "no line that matches /signal 9/"),
    ],
)
def test_not_met(text: str, found: str, expected: str) -> None:
    result = finding(text, KILLED)
    assert (result.met, result.found, result.expected) == (False, found, expected)


@pytest.mark.parametrize(
    ("window", "number"),
    [
        ("", 3),
        ("between = [2, 4]", 2),  # times count from the steady state, both ends are in
        ('after = "fault:kill"', 2),
        ('until = "fault:kill"', 1),
        ('after = "fault:kill"\nuntil = "state(master:app)=STABLE"', 1),
        ('until = "credit"', 3),  # it never comes: up to the end
    ],
)
def test_window(window: str, number: int) -> None:
    rows = [
        (101.0, "worker:app/1", "restart"),
        (102.0, "fault:kill", "fault"),
        (102.0, "worker:app/1", "restart"),
        (103.0, "master:app", "state", "STABLE"),
        (104.0, "worker:app/2", "restart"),
    ]
    text = f'what = "restarts(worker:app/*)"\nmin = {number}\nmax = {number}\n{window}'
    result = finding(text, course(*rows, begun_at=100.0))
    assert result.met, result


def test_what_was_never_tried_is_not_met() -> None:
    result = finding('what = "kills(worker:app/*)"\nmax = 0\nafter = "fault:kill"', course())
    assert (result.met, result.found) == (False, 'nothing matches after = "fault:kill"')


def test_entries_that_arrive_late_are_put_in_order() -> None:
    late = course((2.0, "worker:app/1", "state", "READY"), (1.0, "fault:kill", "fault"))
    assert finding('what = "order"\nevents = ["fault:kill", "state(worker:app/1)=READY"]', late).met


def requests(*statuses: str, load: str = "traffic") -> list[tuple[Any, ...]]:
    return [(float(at), f"load:{load}", "request", status, "/") for at, status in enumerate(statuses)]


@pytest.mark.parametrize(
    ("text", "met"),
    [
        ('ratio = { "200" = 1.0 }\nload = "traffic"', False),
        ('ratio = { "200" = 1.0 }\nload = "other"', True),
        ('ratio = { "200" = 1.0 }\nload = "traffic"\ntolerance = 0.5', True),
        ('ratio = { "200" = 0.5, "502" = 0.25, "error" = 0.25 }\nload = "traffic"', True),
        ('ratio = { "2xx" = 0.5, "5xx" = 0.25 }\nload = "traffic"', True),
        ('ratio = { "5xx" = 0.0 }\nload = "traffic"', False),
        ('ratio = { "200" = 0.75, "502" = 0.125 }', False),
        ('ratio = { "200" = 0.75, "502" = 0.125, "error" = 0.125 }', False),
        ('ratio = { "200" = 0.666 }\ntolerance = 0.001', True),
    ],
)
def test_http(text: str, met: bool) -> None:
    rows = requests("200", "502", "200", "0") + requests("200", "200", load="other")
    # What a worker says of a request it answered is not a second answer.
    rows += [(0.0, "worker:app/1", "request", "500", "/")] * 9
    assert finding(f'what = "http"\n{text}', course(*rows)).met is met


def test_http_without_requests_is_not_met() -> None:
    result = finding('what = "http"\nratio = { "5xx" = 0.0 }', course())
    assert (result.met, result.found) == (False, "no requests")


def test_http_says_what_it_found() -> None:
    result = finding('what = "http"\nratio = { "200" = 1.0 }', course(*requests("200", "200", "200", "0")))
    assert result.found == "200: 75.0%, error: 25.0% of 4 requests"


def test_left_over() -> None:
    result = finding('what = "nothing-left-over"', course(left_over=("process 7 (sleep)", "socket app.sock")))
    assert (result.met, result.found) == (False, "process 7 (sleep), socket app.sock")


@settings(deadline=None, max_examples=100)
@given(times=st.lists(st.integers(0, 20), max_size=12), low=st.integers(0, 20), high=st.integers(0, 20))
def test_count_between_is_the_count_of_the_entries_in_between(times: list[int], low: int, high: int) -> None:
    low, high = sorted((low, high))
    number = sum(low <= at <= high for at in times)
    rows = [(float(at), "worker:app/1", "restart") for at in times]
    text = f'what = "restarts(worker:app/1)"\nbetween = [{low}, {high}]\nmin = {number}\nmax = {number}'
    assert finding(text, course(*rows)).met
