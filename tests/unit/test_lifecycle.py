"""The life of one incarnation: every event in every state, and what no order of events can break."""

import errno
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pyemperor.actors.lifecycle import (
    MARGIN,
    UNKILLABLE,
    UNKNOWN_CODE,
    Born,
    Cleared,
    Command,
    Convicted,
    Died,
    Down,
    Due,
    Dump,
    Enter,
    Event,
    Key,
    Kill,
    Life,
    LinkLost,
    Said,
    Send,
    Stillborn,
    StopAsked,
    Suspected,
    Terms,
    Up,
    Wake,
)
from pyemperor.protocol.messages import Accepting, Extend, NotReady, Ready, State, Stop

KEY = Key("app", 1)
TERMS = Terms(start_timeout=60, stable_after=10, mercy=20)
SPAWNING, STARTING, READY, STABLE = State.SPAWNING, State.STARTING, State.READY, State.STABLE
SUSPECT, CONVICTED, STOPPING = State.SUSPECT, State.CONVICTED, State.STOPPING
KILLING, ABSENT = State.KILLING, State.ABSENT

BORN = Born(KEY, 4711)
IS_READY = Said(KEY, Ready())
DIED = Died(KEY, 0)
LOST = LinkLost(KEY, "the peer closed the link")

#: How a life comes into each state; two ways where the way matters later.
WAYS: dict[str, tuple[Event | str, ...]] = {
    "SPAWNING": (),
    "SPAWNING asked": (StopAsked(5),),
    "STARTING": (BORN,),
    "READY": (BORN, IS_READY),
    "STABLE": (BORN, IS_READY, "stable"),
    "SUSPECT": (BORN, IS_READY, Suspected()),
    "SUSPECT stable": (BORN, IS_READY, "stable", Suspected()),
    "CONVICTED": (BORN, IS_READY, Suspected(), Convicted("no answer")),
    "STOPPING asked": (BORN, IS_READY, StopAsked(5)),
    "STOPPING lost": (BORN, IS_READY, LOST, "lost"),
    "KILLING": (BORN, IS_READY, StopAsked(5), "mercy"),
    "KILLING convicted": (BORN, IS_READY, Suspected(), Convicted("no answer"), "dump"),
    "ABSENT": (BORN, IS_READY, DIED),
}

EVENTS: dict[str, Event | str] = {
    "born": BORN,
    "stillborn": Stillborn(KEY, 0, "the fork server died"),
    "ready": IS_READY,
    "refuses": Said(KEY, NotReady("no such user", config=True)),
    "extends": Said(KEY, Extend(30)),
    "accepts": Said(KEY, Accepting()),
    "link lost": LOST,
    "died": DIED,
    "stop": StopAsked(8),
    "kill": StopAsked(0),
    "suspected": Suspected(),
    "cleared": Cleared(),
    "convicted": Convicted("no answer"),
    "start due": "start",
    "stable due": "stable",
    "lost due": "lost",
    "mercy due": "mercy",
    "dump due": "dump",
    "unkillable due": "unkillable",
}

#: The states that follow; a pair that is not here changes no state.
TABLE: dict[tuple[str, str], list[State]] = {
    ("SPAWNING", "born"): [STARTING],
    ("SPAWNING", "stillborn"): [ABSENT],
    ("SPAWNING", "died"): [ABSENT],
    ("SPAWNING asked", "born"): [KILLING],
    ("SPAWNING asked", "stillborn"): [ABSENT],
    ("SPAWNING asked", "died"): [ABSENT],
    ("STARTING", "ready"): [READY],
    ("STARTING", "died"): [ABSENT],
    ("STARTING", "stop"): [STOPPING],
    ("STARTING", "kill"): [KILLING],
    ("STARTING", "start due"): [KILLING],
    ("STARTING", "lost due"): [STOPPING],
    ("STOPPING asked", "died"): [ABSENT],
    ("STOPPING asked", "kill"): [KILLING],
    ("STOPPING asked", "mercy due"): [KILLING],
    ("STOPPING lost", "died"): [ABSENT],
    ("STOPPING lost", "kill"): [KILLING],
    ("STOPPING lost", "mercy due"): [KILLING],
    ("CONVICTED", "died"): [ABSENT],
    ("CONVICTED", "dump due"): [KILLING],
    ("KILLING", "died"): [ABSENT],
    ("KILLING", "unkillable due"): [ABSENT],
    ("KILLING convicted", "died"): [ABSENT],
    ("KILLING convicted", "unkillable due"): [ABSENT],
}
for _up in ("READY", "STABLE", "SUSPECT", "SUSPECT stable"):
    TABLE |= {
        (_up, "died"): [ABSENT],
        (_up, "stop"): [STOPPING],
        (_up, "kill"): [KILLING],
        (_up, "lost due"): [STOPPING],
        (_up, "convicted"): [CONVICTED],
    }
TABLE |= {
    ("READY", "stable due"): [STABLE],
    ("READY", "suspected"): [SUSPECT],
    ("STABLE", "suspected"): [SUSPECT],
    ("SUSPECT", "cleared"): [READY],
    ("SUSPECT stable", "cleared"): [STABLE],
}


def transitions(commands: Sequence[Command]) -> list[State]:
    """The states that ``commands`` enter, in order."""
    return [command.state for command in commands if isinstance(command, Enter)]


def give(life: Life, event: Event | str) -> list[Command]:
    """Handle an event; a word stands for the deadline of that name, if it is the one that counts."""
    return life.handle(Due(event, life._number) if isinstance(event, str) else event)


def life_in(way: str) -> Life:
    """A life that has come to this place."""
    life = Life(TERMS)
    for event in WAYS[way]:
        give(life, event)
    assert life.state == way.split()[0]
    return life


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("event", EVENTS)
def test_every_event_in_every_state(way: str, event: str) -> None:
    life = life_in(way)
    before = life.state
    commands = give(life, EVENTS[event])
    expected = TABLE.get((way, event), [])
    assert transitions(commands) == expected
    assert life.state is (expected[-1] if expected else before)
    assert sum(isinstance(command, Down) for command in commands) == (expected[-1:] == [ABSENT])
    assert any(isinstance(command, Kill) for command in commands) == (KILLING in expected)
    assert any(isinstance(command, Up) for command in commands) == (expected == [READY] and before is STARTING)


# ---- the details ------------------------------------------------------------------------------------------


def test_a_birth_is_watched_until_it_is_ready() -> None:
    life = Life(TERMS)
    assert life.handle(BORN) == [Enter(STARTING), Wake(60, Due("start", 1))]
    assert life.pid == 4711
    assert life.handle(Said(KEY, Extend(30))) == [Wake(30, Due("start", 2))]
    assert life.handle(Due("start", 1)) == [], "the deadline was moved"
    assert life.handle(IS_READY) == [Enter(READY), Wake(10, Due("stable", 2)), Up()]
    assert life.up


def test_who_is_not_ready_in_time_is_killed_alone() -> None:
    life = life_in("STARTING")
    killed = [Enter(KILLING, "not ready within 60 s"), Kill("not ready within 60 s", family=False)]
    assert give(life, "start")[:2] == killed
    assert life.handle(Died(KEY, -1, 9))[-1] == Down("abnormal", "not ready within 60 s", started=False)


def test_a_child_may_be_faster_than_the_news_of_its_birth() -> None:
    life = Life(TERMS)
    assert life.handle(IS_READY) == []
    assert transitions(life.handle(BORN)) == [STARTING, READY]
    life = Life(TERMS)
    life.handle(Said(KEY, NotReady("no such user", config=True)))
    life.handle(LOST)
    life.handle(BORN)
    assert life.handle(Died(KEY, 78))[-1] == Down("config", "no such user", started=False)


def test_a_stop_is_asked_for_and_gets_its_mercy() -> None:
    life = life_in("READY")
    asked = life.handle(StopAsked(5))
    assert asked[:2] == [Enter(STOPPING), Send(Stop(5 - MARGIN))]
    assert [command.seconds for command in asked if isinstance(command, Wake)] == [5]
    assert life.handle(StopAsked(5)) == []
    assert life.handle(DIED)[-1] == Down("shutdown", "exit code 0", started=True)


@pytest.mark.parametrize(("mercy", "inner"), [(60, 59), (5, 4), (2, 1), (1, 0.5), (0.1, 0.05)])
def test_the_mercy_inside_is_shorter(mercy: float, inner: float) -> None:
    assert life_in("READY").handle(StopAsked(mercy))[1] == Send(Stop(inner))


def test_who_does_not_stop_is_killed() -> None:
    life = life_in("STOPPING asked")
    assert give(life, "mercy")[1] == Kill("its mercy is over", family=True)
    assert life.handle(Died(KEY, -1, 9))[-1] == Down("killed", "its mercy is over", started=True)


def test_without_mercy_it_is_killed_at_once_also_while_it_stops() -> None:
    assert life_in("READY").handle(StopAsked(0))[1] == Kill("stopped without mercy", family=True)
    assert life_in("STOPPING asked").handle(StopAsked(0))[1] == Kill("no mercy", family=True)


def test_who_is_stopped_before_it_is_born_never_works() -> None:
    life = life_in("SPAWNING asked")
    assert transitions(life.handle(BORN)) == [KILLING]
    assert life.handle(Died(KEY, -1, 9))[-1] == Down("killed", "stopped before it had started", started=False)
    life = life_in("SPAWNING asked")
    assert life.handle(Stillborn(KEY, errno.EAGAIN, "x"))[-1] == Down("shutdown", "x", started=False)


def test_a_lost_link_is_mostly_a_death_and_else_the_beginning_of_an_end() -> None:
    life = life_in("READY")
    assert [type(command) for command in life.handle(LOST)] == [Wake]
    assert transitions(life.handle(Died(KEY, -1, 11))) == [ABSENT]
    life = life_in("READY")
    life.handle(LOST)
    stopping = give(life, "lost")
    assert stopping[0] == Enter(STOPPING, "its link is lost")
    assert [command.seconds for command in stopping if isinstance(command, Wake)] == [20 + MARGIN]
    assert life.handle(Died(KEY, 3))[-1] == Down("abnormal", "exit code 3", started=True)


def test_a_convict_says_where_it_hangs_and_its_workers_are_spared() -> None:
    life = life_in("SUSPECT")
    convicted = life.handle(Convicted("no answer for 5 s"))
    assert convicted[:2] == [Enter(CONVICTED, "no answer for 5 s"), Dump()]
    assert give(life, "dump")[1] == Kill("it is hung", family=False)
    assert life.handle(Died(KEY, -1, 9))[-1] == Down("stall", "no answer for 5 s", started=True)


def test_suspicion_hides_no_progress() -> None:
    life = life_in("SUSPECT")
    give(life, "stable")
    assert transitions(life.handle(Cleared())) == [STABLE]


def test_what_sigkill_does_not_end_is_given_up() -> None:
    life = life_in("KILLING")
    assert life.handle(Due("unkillable", life._number))[-1] == Down(
        "stall", f"SIGKILL did not end it within {UNKILLABLE:g} s: it hangs in the kernel", started=True
    )
    assert life.handle(Died(KEY, -1, 9)) == []


@pytest.mark.parametrize(
    ("died", "kind", "detail"),
    [
        (Died(KEY, 0), "normal", "exit code 0"),
        (Died(KEY, 1), "abnormal", "exit code 1"),
        (Died(KEY, 75), "abnormal", "exit code 75"),
        (Died(KEY, -1, 9), "abnormal", "killed by signal 9"),
        (Died(KEY, UNKNOWN_CODE), "abnormal", "gone, exit code unknown"),
        (Died(KEY, 64), "config", "exit code 64"),
        (Died(KEY, 65), "config", "exit code 65"),
        (Died(KEY, 66), "config", "exit code 66"),
        (Died(KEY, 78), "config", "exit code 78"),
        (Died(KEY, 125), "exile", "exit code 125"),
        (Died(KEY, 26), "exile", "exit code 26"),
        (Died(KEY, 1, swept=1), "abnormal", "exit code 1, 1 process left behind and killed"),
        (Died(KEY, 1, swept=3), "abnormal", "exit code 1, 3 processes left behind and killed"),
        (
            Died(KEY, 0, left=(7, 8)),
            "normal",
            "exit code 0; it leaves processes that cannot be killed: 7, 8",
        ),
    ],
)
def test_why_it_ended(died: Died, kind: str, detail: str) -> None:
    assert life_in("STABLE").handle(died)[-1] == Down(kind, detail, started=True)


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (0, "env"),
        (errno.EAGAIN, "env"),
        (errno.ENOMEM, "env"),
        (errno.EMFILE, "env"),
        (errno.ENFILE, "env"),
        (errno.ENOSPC, "env"),
        (errno.EPERM, "abnormal"),
    ],
)
def test_a_machine_that_is_full_is_not_the_childs_fault(number: int, kind: str) -> None:
    assert Life(TERMS).handle(Stillborn(KEY, number, "why"))[-1] == Down(kind, "why", started=False)


# ---- any order of events ------------------------------------------------------------------------------------

LEGAL = {
    SPAWNING: {STARTING, KILLING, ABSENT},
    STARTING: {READY, STOPPING, KILLING, ABSENT},
    READY: {STABLE, SUSPECT, CONVICTED, STOPPING, KILLING, ABSENT},
    STABLE: {SUSPECT, CONVICTED, STOPPING, KILLING, ABSENT},
    SUSPECT: {READY, STABLE, CONVICTED, STOPPING, KILLING, ABSENT},
    CONVICTED: {KILLING, ABSENT},
    STOPPING: {KILLING, ABSENT},
    KILLING: {ABSENT},
    ABSENT: set(),
}

events = st.sampled_from(list(EVENTS.values()))
terms = st.builds(Terms, *[st.floats(0.1, 100)] * 3)


class Clock:
    """Runs a life: its deadlines come when they are due."""

    def __init__(self, life: Life) -> None:
        self.life = life
        self.now = 0.0
        self.dues: list[tuple[float, int, Due]] = []
        self.said: list[Command] = []

    def give(self, event: Event | str) -> None:
        commands = give(self.life, event)
        for command in commands:
            if isinstance(command, Wake):
                assert command.seconds >= 0
                self.dues.append((self.now + command.seconds, len(self.dues), command.due))
        self.said += commands

    def run(self, until: Callable[[], bool]) -> float:
        """Let time pass until ``until()``; how many seconds."""
        begun = self.now
        while not until():
            assert self.dues, f"nothing will ever end {self.life.state}"
            self.dues.sort()
            at, _, due = self.dues.pop(0)
            self.now = max(self.now, at)
            self.give(due)
        return self.now - begun


@settings(max_examples=300, deadline=None)
@given(terms, st.lists(events, max_size=25))
def test_no_order_of_events_breaks_it(terms: Terms, order: list[Event | str]) -> None:
    life = Life(terms)
    state, downs, ups = life.state, 0, 0
    for event in order:
        commands = give(life, event)
        assert not (downs and commands), "it spoke after its end"
        for entered in transitions(commands):
            assert entered in LEGAL[state], f"{state} -> {entered} after {event}"
            state = entered
        assert life.state is state
        downs += sum(isinstance(command, Down) for command in commands)
        ups += sum(isinstance(command, Up) for command in commands)
        assert (state is ABSENT) == (downs == 1)
    assert downs <= 1
    assert ups <= 1


@settings(max_examples=300, deadline=None)
@given(terms, st.lists(events, max_size=12), st.floats(0, 100))
def test_whatever_came_before_a_stop_ends_in_time(
    terms: Terms, order: list[Event | str], mercy: float
) -> None:
    """Asked to stop it is killed or gone when its mercy is over, though it never answers or dies."""
    clock = Clock(Life(terms))
    for event in [*order, BORN, StopAsked(mercy)]:
        clock.give(event)
    over = lambda: clock.life.state in (KILLING, ABSENT)  # noqa: E731
    # One whose link was lost, or that was asked before, keeps the mercy that it had: 8 s, or that of its terms.
    assert clock.run(over) <= max(mercy, 8, terms.mercy + MARGIN) + 1e-6
    assert clock.run(lambda: clock.life.state is ABSENT) <= UNKILLABLE + 1e-6
    assert sum(isinstance(command, Down) for command in clock.said) == 1


@settings(max_examples=200, deadline=None)
@given(terms, st.lists(st.sampled_from([Said(KEY, Accepting()), Cleared(), Suspected(), "stable", LOST])))
def test_who_is_born_becomes_ready_or_is_ended(terms: Terms, order: list[Event | str]) -> None:
    clock = Clock(Life(terms))
    for event in [BORN, *order]:
        clock.give(event)
    took = clock.run(lambda: clock.life.state in (KILLING, ABSENT))
    assert took <= max(terms.start_timeout, 1 + terms.mercy + MARGIN) + 1e-6


@settings(max_examples=200, deadline=None)
@given(terms, st.lists(events, max_size=12))
def test_a_convict_is_killed_at_once(terms: Terms, order: list[Event | str]) -> None:
    clock = Clock(Life(terms))
    for event in [BORN, IS_READY, *order]:
        clock.give(event)
    if clock.life.up:
        clock.give(Convicted("no answer"))
        assert clock.run(lambda: clock.life.state is KILLING) <= 1
