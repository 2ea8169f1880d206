"""The player's decisions, played through on a clock made by hand, with a small tree that obeys signals."""

import heapq
import itertools
import signal
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyemperor.cli.havoc import Send, Signal
from pyemperor.cli.timeline import (
    SETTLE,
    Abandon,
    Ask,
    Ended,
    Event,
    Heard,
    Interrupted,
    Over,
    Quit,
    Show,
    Start,
    Timeline,
    Wake,
)
from pyemperor.cli.traffic import Answered
from pyemperor.cli.verdict import Finding, judge
from pyemperor.protocol.messages import Trace
from pyemperor.protocol.scenario import load_scenario

_VASSAL = """
[[vassal]]
name = "app"
socket = "app.sock"
cgi = "cgi-bin"
processes = 2
reload-mercy = 5
"""
EMPEROR = 100


class Stage:
    """Plays a scenario's timeline; the tree is ready after ``boot`` seconds, restarts in 0.1 s, stops in 1 s."""

    def __init__(
        self, text: str, *, boot: float = 1.0, takes: float = 0.01, answer: str = "200",
        ready: str = "READY", stops: bool = True, scripts: Callable[[float], list[int]] = lambda _: [],
    ) -> None:
        self.scenario = load_scenario(_VASSAL + text, file="test.toml", base="/test")
        self.timeline = Timeline(self.scenario, lambda worker: scripts(self.now) if worker == 201 else [])
        self.now = 0.0
        self.commands: list[tuple[float, Any]] = []
        self._events: list[tuple[float, int, Event]] = []
        self._takes, self._answer, self._stops = takes, answer, stops
        self._pids = itertools.count(300)
        self._order = itertools.count()
        self.at(0.0, Start(EMPEROR))
        for actor, pid in (("worker:app/1", 201), ("worker:app/2", 202), ("master:app", 200)):
            self.trace(boot, actor, "state", ready, pid)

    def at(self, when: float, event: Event) -> None:
        heapq.heappush(self._events, (when, next(self._order), event))

    def trace(self, when: float, actor: str, event: str, state: str = "", pid: int = 0) -> None:
        self.at(when, Heard(Trace(when, actor, event, state, pid)))

    def run(self) -> "Stage":
        while self._events:
            self.now, _, event = heapq.heappop(self._events)
            for command in self.timeline.handle(event, self.now):
                self.commands.append((self.now, command))
                self._obey(command)
                if isinstance(command, Over):
                    return self
        raise AssertionError("it never came to an end")

    def _obey(self, command: Any) -> None:
        match command:
            case Wake(at=at, event=event):
                self.at(at, event)
            case Ask(turn=turn):
                self.at(self.now + self._takes, Answered(turn, self._answer, self._takes))
            case Signal(actor=actor, number=signal.SIGKILL) if not actor.startswith("cgi:"):
                self._replace(actor)
            case Quit() if self._stops:
                self.at(self.now + 1.0, Ended(0))
            case Abandon():
                self.at(self.now, Ended(-9))

    def _replace(self, actor: str) -> None:
        if actor == "emperor":
            self.at(self.now, Ended(-9))
        else:
            self.trace(self.now, actor, "exit")
            self.trace(self.now + 0.1, actor, "state", "READY", next(self._pids))

    def did(self, kind: type) -> list[tuple[float, Any]]:
        """All commands of a kind, with their times since the steady state began."""
        begun = self.timeline.course.begun_at
        return [(round(at - begun, 6), command) for at, command in self.commands if isinstance(command, kind)]

    def signals(self) -> list[tuple[float, str, int, int]]:
        return [(at, it.actor, it.pid, it.number) for at, it in self.did(Signal)]

    def shown(self, event: str) -> list[tuple[float, str]]:
        return [(at, show.trace.actor) for at, show in self.did(Show) if show.trace.event == event]

    def findings(self) -> list[Finding]:
        return judge(self.scenario.expects, self.timeline.course)


# ---- loads ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("load", "times"),
    [
        ('kind = "replay"\nat = [0.5, 2, 7]', [0.5, 2, 7]),
        ('kind = "burst"\nat = [1, 3]\nclients = 3', [1, 1, 1, 3, 3, 3]),
        ('kind = "constant"\nrate = 4\nat = 1\nfor = 1', [1, 1.25, 1.5, 1.75]),
        ('kind = "constant"\nrate = 0.5\nat = [0, 10]\nfor = 3', [0, 2, 10, 12]),
        ('kind = "closed"\nclients = 2\nthink = 0.49\nfor = 1.2', [0, 0, 0.5, 0.5, 1, 1]),
        ('kind = "closed"\nclients = 1\nat = [0, 5]\nthink = 0.99\nfor = 2', [0, 1, 5, 6]),
    ],
)
def test_requests_are_sent_at_their_times(load: str, times: list[float]) -> None:
    stage = Stage(f'[[load]]\npath = "/hello"\n{load}').run()
    assert [at for at, _ in stage.did(Ask)] == times
    assert [at for at, _ in stage.shown("request")] == [round(at + 0.01, 6) for at in times]
    assert len(stage.timeline.traffic.answers["load-1"]) == len(times)
    entry = next(trace for trace in stage.timeline.course.traces if trace.event == "request")
    assert (entry.actor, entry.state, entry.reason) == ("load:load-1", "200", "/hello")


@settings(deadline=None, max_examples=50)
@given(
    clients=st.integers(1, 5), think=st.floats(0.01, 1), takes=st.floats(0.001, 2), duration=st.floats(0.1, 5)
)
def test_a_closed_load_never_has_more_requests_open_than_clients(
    clients: int, think: float, takes: float, duration: float
) -> None:
    duration = float(f"{duration:f}")  # as the file says it
    load = f'kind = "closed"\nclients = {clients}\nthink = {think:f}\nfor = {duration:f}'
    stage = Stage(f"[[load]]\n{load}", takes=takes).run()
    opened = most = 0
    for _, command in stage.commands:
        opened += isinstance(command, Ask)
        opened -= isinstance(command, Show) and command.trace.event == "request"
        most = max(most, opened)
    assert most == clients
    assert opened == 0
    assert all(at <= duration for at, _ in stage.did(Ask))


def test_the_end_waits_for_the_last_answer() -> None:
    stage = Stage('[[load]]\nkind = "burst"\nclients = 1', takes=20).run()
    assert [at for at, _ in stage.did(Quit)] == [20 + SETTLE]


# ---- faults --------------------------------------------------------------------------------------------


def test_a_fault_hits_the_process_that_is_there_now() -> None:
    kill = 'kind = "kill"\ntarget = "worker:app/1"\nat = 2\nevery = 3\ntimes = 3'
    stage = Stage(f"[[fault]]\n{kill}").run()
    assert stage.signals() == [
        (2.0, "worker:app/1", 201, 9),
        (5.0, "worker:app/1", 300, 9),
        (8.0, "worker:app/1", 301, 9),
    ]
    assert stage.shown("fault") == [(2.0, "fault:kill-1"), (5.0, "fault:kill-1"), (8.0, "fault:kill-1")]


def test_a_fault_waits_for_its_target() -> None:
    kill = 'kind = "kill"\ntarget = "worker:app/1"\nat = 2\nevery = 0.05\ntimes = 2'
    stage = Stage(f"[[fault]]\n{kill}").run()
    assert stage.signals() == [(2.0, "worker:app/1", 201, 9), (2.1, "worker:app/1", 300, 9)]


@pytest.mark.parametrize(
    ("target", "hit"),
    [
        ("worker:app/*", [("worker:app/1", 201), ("worker:app/2", 202)]),
        ("master:*", [("master:app", 200)]),
        ("emperor", [("emperor", EMPEROR)]),
        ("cgi:app/1", [("cgi:app/1", 501), ("cgi:app/1", 502)]),
        ("cgi:app/*", [("cgi:app/*", 501), ("cgi:app/*", 502)]),
    ],
)
def test_targets(target: str, hit: list[tuple[str, int]]) -> None:
    fault = f'[[fault]]\nkind = "stop"\nat = 1\nfor = 2\ntarget = "{target}"'
    stage = Stage(fault, scripts=lambda _: [501, 502]).run()
    stop, cont = signal.SIGSTOP, signal.SIGCONT
    assert stage.signals() == [(1.0, *who, stop) for who in hit] + [(3.0, *who, cont) for who in hit]
    assert stage.shown("heal") == [(3.0, "fault:stop-1")]


def test_a_script_is_hit_as_soon_as_one_runs() -> None:
    fault = '[[fault]]\nkind = "kill"\nat = 1\ntarget = "cgi:app/*"'
    stage = Stage(fault, scripts=lambda now: [501] if now > 4.095 else []).run()
    assert stage.signals() == [(3.1, "cgi:app/*", 501, 9)]


def test_a_successor_is_not_woken() -> None:
    faults = """
    [[fault]]
    kind = "stop"
    target = "worker:app/1"
    at = 1
    for = 5
    [[fault]]
    kind = "kill"
    target = "worker:app/1"
    at = 2
    """
    assert Stage(faults).run().signals() == [
        (1.0, "worker:app/1", 201, signal.SIGSTOP), (2.0, "worker:app/1", 201, signal.SIGKILL)
    ]


def test_what_is_stopped_for_ever_is_woken_at_the_end() -> None:
    stage = Stage('[run]\nfor = 3\n[[fault]]\nkind = "stop"\ntarget = "master:app"\nat = 1').run()
    assert [(at, number) for at, _, _, number in stage.signals()] == [(1.0, signal.SIGSTOP), (3.0, signal.SIGCONT)]
    assert stage.commands.index((4.0, Quit())) > stage.commands.index(
        (4.0, Signal("master:app", 200, signal.SIGCONT))
    )


def test_faults_of_links_and_actors_are_sent_down() -> None:
    faults = """
    [[fault]]
    id = "lossy"
    kind = "drop"
    target = "link:master:app>emperor"
    match = "beat"
    probability = 0.5
    at = 1
    for = 3
    [[fault]]
    id = "late"
    kind = "delay"
    delay = "250ms"
    target = "link:emperor<>master:app"
    at = 2
    [[fault]]
    id = "hang"
    kind = "hang"
    target = "worker:app/*"
    after = "lossy+4s"
    for = 6
    """
    stage = Stage(faults).run()
    sent = [(at, it.inject) for at, it in stage.did(Send)]
    assert [(at, it.id, it.kind, it.target) for at, it in sent] == [
        (1.0, "lossy", "drop", "link:master:app>emperor"),
        (2.0, "late", "delay", "link:emperor<>master:app"),
        (4.0, "lossy", "heal", "link:master:app>emperor"),
        (5.0, "hang", "hang", "worker:app/1"),
        (5.0, "hang", "hang", "worker:app/2"),
        (11.0 + SETTLE, "late", "heal", "link:emperor<>master:app"),  # nobody took it back before
    ]
    assert (sent[0][1].probability, sent[0][1].match) == (0.5, "beat")
    assert (sent[1][1].seconds, sent[3][1].seconds) == (0.25, 6.0)
    assert stage.shown("heal")[1] == (11.0, "fault:hang")


def test_a_fault_on_an_event_strikes_once() -> None:
    faults = """
    [[fault]]
    id = "first"
    kind = "kill"
    target = "worker:app/1"
    at = 3
    [[fault]]
    id = "second"
    kind = "kill"
    target = "worker:app/2"
    on = "exit(worker:app/*)"
    """
    stage = Stage(faults).run()
    assert [(at, actor) for at, actor, _, _ in stage.signals()] == [(3.0, "worker:app/1"), (3.0, "worker:app/2")]
    assert stage.timeline.problems == []


def test_a_fault_that_never_came_is_a_problem() -> None:
    stage = Stage('[[fault]]\nid = "x"\nkind = "kill"\ntarget = "worker:app/1"\non = "credit"').run()
    assert stage.timeline.problems == ["fault x was never injected"]


# ---- beginning and end -----------------------------------------------------------------------------------


def test_it_ends_when_it_is_told_to() -> None:
    stage = Stage('[run]\nfor = 12\n[[load]]\nkind = "burst"\nclients = 1').run()
    assert [at for at, _ in stage.did(Quit)] == [12.0]
    assert stage.timeline.course.over_at == 13.0
    assert stage.timeline.problems == []


def test_it_gives_what_is_expected_some_time_to_come() -> None:
    expect = '[[expect]]\nwhat = "restarts(worker:app/1)"\nmin = 1'
    stage = Stage(f'[[load]]\nkind = "burst"\nclients = 1\n{expect}')
    stage.trace(9.5, "worker:app/1", "restart")
    assert stage.run().findings()[0].met
    assert 8.5 <= stage.did(Quit)[0][0] <= 8.5 + SETTLE


def test_what_is_expected_and_does_not_come_ends_it() -> None:
    expect = '[[expect]]\nwhat = "restarts(worker:app/1)"\nmin = 1'
    stage = Stage(f'[[load]]\nkind = "burst"\nclients = 1\n{expect}').run()
    assert not stage.findings()[0].met
    assert stage.did(Quit)[0][0] < 60


@pytest.mark.parametrize("state", ["BACKOFF", "CURSED", "EXILED"])
def test_a_vassal_that_cannot_start_does_not_hold_up_the_others(state: str) -> None:
    stage = Stage('[[load]]\nkind = "burst"\nclients = 1', ready=state).run()
    assert stage.timeline.course.begun_at == 1.0


def test_timeout() -> None:
    stage = Stage('[run]\ntimeout = 7\n[[load]]\nkind = "constant"\nrate = 1\nfor = 100').run()
    assert stage.timeline.problems == ["timeout: it was not over after 7 s"]
    assert [at for at, command in stage.commands if command == Quit()] == [7.0]


def test_timeout_before_all_is_ready() -> None:
    stage = Stage('[run]\ntimeout = 7\n[[load]]\nkind = "burst"\nclients = 1', boot=50).run()
    assert stage.timeline.problems == ["timeout: not every vassal was ready after 7 s"]
    assert stage.did(Ask) == []


def test_an_emperor_that_does_not_stop_is_killed() -> None:
    stage = Stage('[[load]]\nkind = "burst"\nclients = 1', stops=False).run()
    assert stage.timeline.problems == ["the Emperor did not stop within 15 s"]
    assert len(stage.did(Abandon)) == 1


def test_interrupted_once_it_stops_twice_it_kills() -> None:
    stage = Stage("[run]\nfor = 100", stops=False)
    stage.at(10.0, Interrupted("SIGINT"))
    stage.at(11.0, Interrupted("SIGINT"))
    stage.run()
    assert stage.timeline.problems == ["interrupted (SIGINT)"]
    assert [at for at, command in stage.commands if command == Quit()] == [10.0]
    assert [at for at, command in stage.commands if command == Abandon()] == [11.0]


def test_the_emperors_own_end_is_a_problem() -> None:
    stage = Stage("[run]\nfor = 100")
    stage.at(5.0, Ended(1))
    assert stage.run().timeline.problems == ["the Emperor ended with exit code 1"]


def test_the_end_of_an_emperor_that_was_killed_is_none() -> None:
    stage = Stage('[run]\nfor = 100\n[[fault]]\nkind = "kill"\nat = 5\ntarget = "emperor"').run()
    assert stage.timeline.problems == []
    assert stage.shown("exit") == [(5.0, "emperor")]


def test_clients_get_their_answers_when_the_emperor_is_gone() -> None:
    text = """
    [[load]]
    kind = "burst"
    clients = 2
    [[load]]
    kind = "constant"
    rate = 1
    for = 90
    [[fault]]
    kind = "kill"
    at = 2.5
    target = "emperor"
    """
    stage = Stage(text, takes=4).run()
    assert stage.timeline.problems == []
    assert [at for at, _ in stage.did(Ask)] == [0, 0, 0, 1, 2]  # none after its end
    assert [at for at, _ in stage.did(Over)] == [6.0]
    assert [at for at, _ in stage.shown("request")] == [4, 4, 4, 5, 6]


def test_clients_that_get_no_answer_are_not_waited_for_for_ever() -> None:
    fault = '[[fault]]\nkind = "kill"\nat = 2\ntarget = "emperor"'
    stage = Stage(f'[[load]]\nkind = "burst"\nclients = 1\n{fault}', takes=1000).run()
    assert [at for at, _ in stage.did(Over)] == [2 + 15.0]


def test_what_cannot_come_true_any_more_is_not_waited_for() -> None:
    expect = """
    [[expect]]
    what = "http"
    ratio = { "404" = 1.0 }
    [[expect]]
    what = "restarts(worker:app/1)"
    max = 0
    """
    stage = Stage(f'[[load]]\nkind = "burst"\nclients = 1\n{expect}')
    stage.trace(1.01, "worker:app/1", "restart")
    stage.run()
    assert [finding.met for finding in stage.findings()] == [False, False]
    assert stage.did(Quit)[0][0] == 0.01 + SETTLE


def test_an_emperor_that_cannot_start() -> None:
    stage = Stage("[run]\nfor = 100", boot=50)
    stage.at(0.2, Ended(2))
    assert stage.run().timeline.problems == ["the Emperor ended (exit code 2) before every vassal was ready"]
