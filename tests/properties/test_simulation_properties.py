"""Whatever breaks, within the stated model: nothing healthy is killed, and everything comes back.

The model: processes are killed, terminated, stopped once, or hung; the Emperor and the fork server are
stopped, the fork server is killed; beats are lost. The one pair that is left out: a worker that hangs for
ever and loses both the fork server that forked it and its master, so that nobody knows of it any more.
"""

import functools
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from signal import SIGCONT, SIGKILL, SIGSTOP, SIGTERM

import pykka
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loguru import logger

from pyemperor.actors.simulation import World
from pyemperor.protocol.messages import Inject, State, Trace
from pyemperor.protocol.options import Vassal
from pyemperor.protocol.scenario import Scenario

TOLERANCE, PROBE, BEAT = 30.0, 5.0, 10.0
VASSALS = tuple(Vassal(name, processes=2, threads=2, heartbeat=25.0) for name in ("a", "b"))
MASTERS = ("master:a", "master:b")
WORKERS = ("worker:a/1", "worker:a/2", "worker:b/1", "worker:b/2")
TREE = Counter(("emperor", "fork-server", "socket:a", "socket:b", *MASTERS, *WORKERS))
#: Longer than any back-off, mercy and suspicion, one after the other.
SETTLE = 900.0

seeds = st.integers(0, 2**32)


@pytest.fixture(autouse=True, scope="module")
def _quiet() -> Iterator[None]:
    logger.disable("pyemperor")
    yield
    logger.enable("pyemperor")
    assert pykka.ActorRegistry.get_all() == []


@dataclass(frozen=True, slots=True)
class Break:
    """``kind`` happens to ``target`` ``gap`` seconds after the one before, for ``seconds``."""

    kind: str
    target: str
    gap: float
    seconds: float


def _breaks(kinds: Sequence[str], targets: Sequence[str]) -> st.SearchStrategy[Break]:
    gaps = st.one_of(st.floats(0, 0.01), st.floats(0, 60))
    return st.builds(Break, st.sampled_from(kinds), st.sampled_from(targets), gaps, st.floats(0.001, 200))


def _plan(hangs: Sequence[str], forks: Sequence[str]) -> st.SearchStrategy[list[Break]]:
    one = st.one_of(
        _breaks(["kill", "term", "stop"], [*MASTERS, *WORKERS]),
        _breaks(["hang"], hangs),
        _breaks(["lose-beats"], [*MASTERS, *WORKERS]),
        _breaks(forks, ["fork-server"]),
        _breaks(["stop"], ["emperor"]),
    )
    return st.lists(one, min_size=1, max_size=10)


plans = st.one_of(_plan([*MASTERS, *WORKERS], ["stop"]), _plan(MASTERS, ["stop", "kill"]))


class Play:
    """A world with two vassals, what happened in it, and what its clients were answered."""

    def __init__(self, seed: int) -> None:
        self.traces: list[Trace] = []
        self.world = World(Scenario("test", VASSALS), seed, self.traces.append)
        self.world.run_until(20)
        self.faults = self.asked = 0
        self.answers: list[int] = []

    def ask(self, vassal: str, takes: float) -> None:
        self.asked += 1
        self.world.connect(vassal, "/x.cgi", takes, lambda status, _: self.answers.append(status))

    def apply(self, plan: Sequence[Break]) -> None:
        for fault in plan:
            self.world.run_until(self.world.now + fault.gap)
            self.faults += 1
            self._apply(fault, f"fault-{self.faults}")

    def _apply(self, fault: Break, id: str) -> None:
        world, target = self.world, fault.target
        if fault.kind == "hang":
            world.inject(Inject(id, "hang", target, seconds=fault.seconds if fault.seconds < 100 else 0))
        elif fault.kind == "lose-beats":
            world.inject(Inject(id, "drop", f"link:{target}>*", match="beat"))
            world.at(world.now + fault.seconds, lambda: world.inject(Inject(id, "heal", "")))
        elif fault.kind == "stop":
            world.signal(target, SIGSTOP)
            world.at(world.now + fault.seconds, lambda: world.signal(target, SIGCONT))
        else:
            world.signal(target, SIGKILL if fault.kind == "kill" else SIGTERM)

    def states(self) -> dict[str, str]:
        return {trace.actor: trace.state for trace in self.traces if trace.event == "state"}

    def convicted(self) -> set[str]:
        return {trace.actor for trace in self.traces if trace.state == State.CONVICTED}

    def settle(self) -> None:
        """No fault any more: all must come back, and at the end all must go."""
        # The last faults are taken back by then.
        self.world.run_until(self.world.now + 200 + SETTLE)
        assert Counter(self.world.left_over()) == TREE
        assert {self.states()[actor] for actor in (*MASTERS, *WORKERS)} <= {State.READY, State.STABLE}
        assert len(self.answers) == self.asked
        self.world.quit()
        self.world.run_until(self.world.now + 150)
        assert (self.world.exit_code, self.world.left_over()) == (0, [])


@settings(max_examples=80, deadline=None)
@given(seeds, plans)
def test_everything_comes_back_and_nobody_is_convicted_without_cause(seed: int, plan: list[Break]) -> None:
    play = Play(seed)
    with play.world:
        for fault in plan:
            play.ask("a", fault.gap)
            play.ask("b", fault.seconds)
            play.apply([fault])
        play.settle()
        guilty = {fault.target for fault in plan if fault.kind in ("hang", "stop")}
        assert play.convicted() <= guilty


@settings(max_examples=60, deadline=None)
@given(seeds, st.permutations(["emperor", "fork-server", *MASTERS, *WORKERS]), st.data())
def test_pauses_and_lost_beats_kill_nobody(seed: int, targets: list[str], data: st.DataObject) -> None:
    """Each is stopped once, for as long as it may be, all at once or one after the other."""
    play = Play(seed)
    with play.world:
        gaps = st.one_of(st.just(0.0), st.floats(0, 60))
        play.apply(
            [
                Break(data.draw(st.sampled_from(["stop", "lose-beats"])) if ":" in target else "stop",
                      target, data.draw(gaps), data.draw(st.floats(0.001, 600)))
                for target in targets
            ]
        )  # fmt: skip
        play.world.run_until(play.world.now + 600)
        play.settle()
        assert not [trace for trace in play.traces if trace.event in ("kill", "restart")]


@settings(max_examples=40, deadline=None)
@given(seeds, st.sampled_from([*MASTERS, *WORKERS]), st.floats(0, 30))
def test_who_hangs_is_convicted_within_the_bound(seed: int, target: str, delay: float) -> None:
    play = Play(seed)
    with play.world:
        play.world.run_until(20 + delay)
        hung = play.world.now
        play.world.inject(Inject("hang", "hang", target))
        play.settle()
        convicted = [trace.at for trace in play.traces if trace.state == State.CONVICTED]
        assert len(convicted) == 1
        assert hung + TOLERANCE + PROBE - BEAT - 0.1 < convicted[0] < hung + TOLERANCE + PROBE + 0.1
        killed = {trace.actor for trace in play.traces if trace.event == "kill"}
        assert killed == {target}


_masters_break = st.one_of(
    _breaks(["kill", "term", "stop", "hang", "lose-beats"], MASTERS),
    _breaks(["stop", "kill"], ["fork-server"]),
    _breaks(["stop"], ["emperor"]),
)


@settings(max_examples=60, deadline=None)
@given(
    seeds,
    st.lists(_masters_break, min_size=1, max_size=10),
    st.lists(st.tuples(st.floats(0, 300), st.floats(0, 20)), max_size=40),
)
def test_whatever_happens_to_masters_no_request_is_lost(
    seed: int, plan: list[Break], requests: list[tuple[float, float]]
) -> None:
    """Workers finish what they accepted, and the rest waits in the backlog for their successors."""
    play = Play(seed)
    with play.world:
        for at, takes in requests:
            play.world.at(20 + at, functools.partial(play.ask, "a", takes))
        play.apply(plan)
        play.world.run_until(320)
        play.settle()
        assert play.answers == [200] * len(requests)


@settings(max_examples=20, deadline=None)
@given(seeds, plans)
def test_the_same_seed_and_faults_are_the_same_run(seed: int, plan: list[Break]) -> None:
    def once() -> list[Trace]:
        play = Play(seed)
        with play.world:
            play.apply(plan)
            play.world.run_until(play.world.now + 100)
        return play.traces

    assert once() == once()
