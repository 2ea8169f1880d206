"""Whatever becomes of the generations of a vassal, one that serves is ended only by one that is ready."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pyemperor.actors.succession import (
    Begin,
    Called,
    Command,
    Down,
    End,
    Event,
    Forget,
    Gone,
    Halt,
    Quiet,
    Rouse,
    Settled,
    Sleep,
    Stopped,
    Succession,
    Unusable,
    Up,
    Want,
)
from pyemperor.protocol.options import Vassal

APP = Vassal("app")
#: Configurations between which a vassal changes: one that is there, on demand, and one that may fall asleep.
CONFIGURATIONS = (APP, Vassal("app", on_demand=True), Vassal("app", idle=1.0, die_on_idle=True))


class Land:
    """Generations as their supervisors run them: what is begun can come up, fall, and end when it is asked."""

    def __init__(self) -> None:
        self.succession = Succession()
        self.up: set[int] = set()
        self.running: set[int] = set()
        self.asked: set[int] = set()
        self.waiting = False
        self.watched = False

    def feed(self, event: Event) -> list[Command]:
        served = self.succession.up
        commands = self.succession.handle(event)
        for command in commands:
            match command:
                case Begin(generation=generation, trial=trial):
                    assert generation not in self.running
                    assert trial == served, "beside one that serves, and only then"
                    self.running.add(generation)
                case End(generation=generation):
                    assert generation in self.running - self.asked, "once"
                    self.asked.add(generation)
                case Settled():
                    self.waiting = False
                case Stopped() | Forget():
                    assert not self.running
                case Sleep():
                    assert not self.watched
                    self.watched = True
                case Rouse():
                    assert self.watched
                    self.watched = False
        if isinstance(event, Want):
            self.waiting = True
        return commands

    def step(self, what: str, which: int) -> None:
        served = self.succession.present if self.succession.up else None
        running = sorted(self.running)
        generation = running[which % len(running)] if running else 0
        match what:
            case "want":
                self.feed(Want(APP))
            case "change":
                self.feed(Want(CONFIGURATIONS[which % len(CONFIGURATIONS)]))
            case "called":
                self.feed(Called())
            case "quiet" if generation:
                self.feed(Quiet(generation))
                served = None
            case "halt":
                self.feed(Halt())
                return
            case "unusable":
                self.feed(Unusable("no"))
            case "up" if generation and generation not in self.up:
                self.up.add(generation)
                self.feed(Up(generation))
            case "down" if generation:
                self.up.discard(generation)
                self.feed(Down(generation, "died"))
                served = None if generation == served else served
            case "gone" if generation in self.asked:
                self.up.discard(generation)
                self.running.discard(generation)
                self.feed(Gone(generation))
        if served is not None and served in self.asked:
            assert self.succession.up, "what served was ended and nothing serves"
            assert self.succession.present in self.up


steps = st.tuples(st.sampled_from(["want", "up", "down", "gone", "unusable", "halt"]), st.integers(0, 5))


@settings(deadline=None, max_examples=400)
@given(st.lists(steps, max_size=40))
def test_one_that_serves_is_ended_only_by_one_that_is_ready_or_by_a_halt(history: list[tuple[str, int]]) -> None:
    land = Land()
    for what, which in history:
        land.step(what, which)
        succession = land.succession
        assert set(succession.live) == land.running
        assert len(land.running - land.asked) <= 2, "one that serves, and one on trial"
        assert not succession.up or succession.present in land.up


@settings(deadline=None, max_examples=200)
@given(st.lists(steps, max_size=40))
def test_the_newest_serves_in_the_end_and_whoever_waits_is_told(history: list[tuple[str, int]]) -> None:
    land = Land()
    for what, which in history:
        land.step(what, which)
    newest = next(c.generation for c in land.feed(Want(APP)) if isinstance(c, Begin))
    assert land.waiting
    land.step("up", sorted(land.running).index(newest))
    assert not land.waiting
    assert (land.succession.present, land.succession.up, land.succession.refused) == (newest, True, "")
    for generation in sorted(land.asked & land.running):
        land.step("gone", sorted(land.running).index(generation))
    assert land.running == {newest}


@settings(deadline=None, max_examples=200)
@given(st.lists(steps, max_size=40))
def test_nothing_is_left_of_one_that_is_not_wanted(history: list[tuple[str, int]]) -> None:
    land = Land()
    for what, which in history:
        land.step(what, which)
    last = land.feed(Halt(forget=True))
    while land.running:
        generation = min(land.running)
        land.running.discard(generation)
        last = land.feed(Gone(generation))
    assert last[-2:] == [Stopped(), Forget()]
    assert not land.waiting


moves = st.tuples(
    st.sampled_from(["change", "up", "down", "gone", "unusable", "halt", "called", "quiet"]), st.integers(0, 5)
)


@settings(deadline=None, max_examples=400)
@given(st.lists(moves, max_size=40))
def test_whoever_sleeps_is_watched_and_whoever_runs_is_not(history: list[tuple[str, int]]) -> None:
    land = Land()
    for what, which in history:
        land.step(what, which)
        succession = land.succession
        assert land.watched == succession.asleep
        assert not succession.asleep or (succession.present, succession.rising) == (None, None)
        assert set(succession.live) == land.running


@settings(deadline=None, max_examples=200)
@given(st.lists(moves, max_size=40))
def test_who_sleeps_wakes_when_it_is_called(history: list[tuple[str, int]]) -> None:
    land = Land()
    for what, which in history:
        land.step(what, which)
    land.step("halt", 0)
    land.feed(Want(CONFIGURATIONS[1]))
    assert land.watched
    (begun,) = [c for c in land.feed(Called()) if isinstance(c, Begin)]
    assert begun.generation == land.succession.present
    assert begun.vassal == CONFIGURATIONS[1]
    assert land.feed(Called()) == []
    land.feed(Up(begun.generation))
    land.feed(Quiet(begun.generation))
    assert land.watched
    last = land.feed(Halt(forget=True))
    while land.running:
        generation = min(land.running)
        land.running.discard(generation)
        last = land.feed(Gone(generation))
    assert last[-1] == Forget()
    assert not land.watched
