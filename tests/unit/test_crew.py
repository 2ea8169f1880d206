"""The workers of a vassal in simulated time: replaced, more and fewer, and never one request lost."""

from collections.abc import Iterator

import msgspec
import pykka
import pytest
from loguru import logger

from pyemperor.actors.crew import Gauges
from pyemperor.actors.simulation import world as simulated
from pyemperor.actors.wear import Memory
from pyemperor.protocol.messages import Trace
from pyemperor.protocol.options import Supervision, Vassal
from tests.unit.test_simulation import Play, play

APP = Vassal("app", processes=2, threads=1, min_worker_lifetime=0)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logger.disable("pyemperor")
    yield
    logger.enable("pyemperor")
    assert pykka.ActorRegistry.get_all() == []


def app(**options: object) -> Vassal:
    return msgspec.structs.replace(APP, **options)


def load(it: Play, requests: int, each: float, takes: float = 0.01) -> None:
    """So many requests, one ``each`` so many seconds."""
    begun = it.world.now
    for number in range(requests):
        it.world.at(begun + number * each, lambda: it.request(takes) and None)
    it.world.run_until(begun + requests * each + 2 * takes + 1)


def processes(it: Play, until: float = 1e9) -> list[int]:
    """How many worker processes there were, after each change."""
    pids: set[int] = set()
    numbers = []
    for trace in it.traces:
        if trace.event == "state" and trace.actor.startswith("worker:") and trace.pid and trace.at <= until:
            (pids.discard if trace.state == "ABSENT" else pids.add)(trace.pid)
            numbers.append(len(pids))
    return numbers


def no_failures(it: Play) -> bool:
    return it.events("restart", "kill", "log", "probe.sent") == []


def retired(it: Play) -> list[Trace]:
    return it.events("retire")


def test_each_worker_ends_at_its_own_limit() -> None:
    it = play(app(max_requests=20, max_requests_delta=5))
    with it.world:
        load(it, 400, each=0.1)
        assert it.statuses == [200] * 400
        assert no_failures(it)
        assert {(trace.actor, trace.reason) for trace in retired(it)} == {
            ("worker:app/1", "it has served 20, its max-requests"),
            ("worker:app/2", "it has served 25, its max-requests"),
        }
        assert 400 // 25 - 2 <= len(retired(it)) <= 400 // 20
        assert max(processes(it)) == 3


def test_the_replacement_is_there_before_the_worker_goes() -> None:
    it = play(app(processes=1, max_requests=1))
    with it.world:
        it.request()
        it.world.run_until(it.world.now + 5)
        stopping = it.times("worker:app/1", "state", "STOPPING")[-1]
        assert it.times("worker:app/1", "state", "READY")[-1] <= stopping
        assert processes(it)[-1] == 1


def test_a_long_request_is_finished_by_the_worker_that_has_it() -> None:
    it = play(app(processes=1, threads=2, max_requests=3))
    with it.world:
        it.request(takes=30)
        for _ in range(6):
            it.request()
            it.world.run_until(it.world.now + 1)
        assert it.statuses == [200] * 6
        it.world.run_until(it.world.now + 40)
        assert it.statuses == [200] * 7
        assert no_failures(it)


def test_worker_reload_mercy_governs_how_long() -> None:
    it = play(app(processes=1, threads=2, max_requests=1, worker_reload_mercy=5.0))
    with it.world:
        it.request(takes=1000)
        it.request()
        it.world.run_until(it.world.now + 10)
        assert it.statuses == [200, 503]
        gone = it.times("worker:app/1", "state", "ABSENT")[-1]
        assert 3 < gone - it.times("worker:app/1", "state", "STOPPING")[-1] <= 5


def test_reload_mercy_clips_it() -> None:
    it = play(app(processes=1, threads=2, max_requests=1, supervision=Supervision(mercy=3.0)))
    with it.world:
        it.request(takes=1000)
        it.request()
        it.world.run_until(it.world.now + 5)
        gone = it.times("worker:app/1", "state", "ABSENT")[-1]
        assert gone - it.times("worker:app/1", "state", "STOPPING")[-1] <= 3


def test_not_before_min_worker_lifetime() -> None:
    it = play(app(processes=1, max_requests=1, min_worker_lifetime=100.0), steady=False)
    with it.world:
        it.world.run_until(1)
        it.request()
        it.world.run_until(99)
        assert retired(it) == []
        it.world.run_until(102)
        assert len(retired(it)) == 1


def test_max_worker_lifetime_and_its_delta() -> None:
    it = play(app(max_worker_lifetime=100.0, max_worker_lifetime_delta=30.0), steady=False)
    with it.world:
        it.world.run_until(240)
        ages = [(trace.actor[-1], round(trace.at)) for trace in retired(it)]
        assert ages == [("1", 100), ("2", 130), ("1", 200)]
        assert no_failures(it)


def test_a_planned_end_is_charged_to_no_budget() -> None:
    it = play(app(max_worker_lifetime=1.0, supervision=Supervision(intensity=0)))
    with it.world:
        it.world.run_until(200)
        assert len(retired(it)) > 100
        assert no_failures(it)
        assert len(it.times("master:app", "state", "READY")) == 1


@pytest.mark.parametrize("strategy", ["one_for_one", "one_for_all", "rest_for_one"])
def test_workers_are_replaced_under_every_strategy(strategy: str) -> None:
    supervision = Supervision(strategy=strategy, intensity=1000)  # type: ignore[arg-type]
    it = play(app(processes=3, max_requests=10, supervision=supervision))
    with it.world:
        load(it, 100, each=0.1)
        assert it.statuses == [200] * 100
        for number in range(20):
            it.world.signal(f"worker:app/{number % 3 + 1}", 9)
            it.world.run_until(it.world.now + 0.37)
        it.world.run_until(it.world.now + 100)
        assert processes(it)[-1] == 3
        assert len([name for name in it.world.left_over() if name.startswith("worker:")]) == 3
        load(it, 100, each=0.1)
        assert it.statuses.count(200) == 200


def test_memory_by_the_master(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first worker grows; the limit is looked at each mem-collector-freq."""
    used: dict[int, int] = {}

    def gauges(**_: object) -> Gauges:
        return Gauges(memory=lambda pid: Memory(rss=used.get(pid, 0)))

    monkeypatch.setattr(simulated, "Gauges", gauges)
    it = play(app(reload_on_rss=100, evil_reload_on_rss=200, mem_collector_freq=3.0))
    with it.world:
        it.world.run_until(it.world.now + 4)
        first = next(t.pid for t in it.traces if t.actor == "worker:app/1" and t.pid)
        used[first] = 100
        it.world.run_until(it.world.now + 4)
        (trace,) = retired(it)
        assert (trace.actor, trace.pid) == ("worker:app/1", first)
        assert no_failures(it)
        second = next(t.pid for t in it.traces if t.actor == "worker:app/2" and t.pid)
        used[second] = 200
        it.world.run_until(it.world.now + 4)
        assert [(t.actor, t.pid) for t in it.events("kill")] == [("worker:app/2", second)]
        assert it.events("restart") == [], "nor is this a failure"
        assert processes(it)[-1] == 2


def test_a_limit_below_what_a_worker_begins_with_is_said_and_replaces_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """uWSGI weighs a worker after each request; ours begin with more memory than its do, most of it shared."""
    monkeypatch.setattr(simulated, "Gauges", lambda **_: Gauges(memory=lambda _: Memory(rss=100 << 20)))
    it = play(app(reload_on_rss=20 << 20, mem_collector_freq=1.0, min_worker_lifetime=0.0))
    with it.world:
        it.world.run_until(it.world.now + 60)
        assert retired(it) == []
        it.request()
        it.world.run_until(it.world.now + 60)
        assert len(retired(it)) == 1, "which has served, and so may have grown; its successor has not"
        (warning,) = it.events("log")
        assert "it uses 100 MB, reload-on-rss is 20; raise it" in warning.reason


# ---- cheaper ------------------------------------------------------------------------------------------------


def test_a_vassal_grows_within_two_seconds_and_shrinks_when_it_is_over() -> None:
    it = play(app(processes=4, cheaper=1))
    with it.world:
        assert processes(it)[-1] == 1
        begun = it.world.now
        for _ in range(8):
            it.request(takes=20)
        it.world.run_until(begun + 5)
        changes = [trace.at - begun for trace in it.events("resize")]
        assert changes[0] < 1.5, "at once, for connections wait"
        assert processes(it)[-1] == 4
        it.world.run_until(begun + 80)
        assert it.statuses == [200] * 8
        assert processes(it)[-1] == 1
        assert max(processes(it)) == 4
        assert no_failures(it)


def test_without_a_queue_it_waits_as_uwsgi_does() -> None:
    it = play(app(processes=4, cheaper=1, cheaper_overload=3))
    with it.world:
        begun = it.world.now
        it.request(takes=60)
        it.world.run_until(begun + 3)
        assert it.events("resize") == []
        it.world.run_until(begun + 6)
        assert processes(it)[-1] == 2
        it.world.run_until(begun + 50)
        assert processes(it)[-1] == 2, "one to spare is stable"


def test_a_vassal_is_ready_with_its_first_workers() -> None:
    it = play(app(processes=4, cheaper=1, cheaper_initial=2), steady=False)
    with it.world:
        it.world.run_until(0.5)
        assert len(it.times("master:app", "state", "READY")) == 1
        assert processes(it)[-1] == 2


def test_cheaper_with_worn_workers_and_kills_keeps_its_bounds() -> None:
    quick = Supervision(intensity=1000)
    it = play(app(processes=4, cheaper=2, cheaper_overload=1, max_requests=15, supervision=quick))
    with it.world as world:
        chance = world._simulation.random
        for _ in range(40):
            if chance.random() < 0.2:
                world.signal(f"worker:app/{chance.randrange(1, 5)}", 9)
            load(it, chance.randrange(1, 40), each=0.05, takes=chance.random() / 5)
        assert len(retired(it)) > 10
        assert it.events("resize")
        numbers = processes(it)
        assert max(numbers) <= 5
        world.run_until(world.now + 120)
        assert processes(it)[-1] == 2
        assert len([name for name in world.left_over() if name.startswith("worker:")]) == 2
