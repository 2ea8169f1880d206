"""Vassals that run only while somebody asks them for something, in simulated time."""

from collections.abc import Iterator
from signal import SIGKILL, SIGSTOP

import msgspec
import pykka
import pytest
from loguru import logger

from pyemperor.actors.administration import Absolve, Dismiss, Govern, Outcome, Reload, Stop
from pyemperor.actors.siesta import Siesta, beat_of_worker
from pyemperor.protocol.messages import Beat, Core
from pyemperor.protocol.options import Supervision, Vassal
from tests.unit.test_administration import Play

QUICK = Supervision(start_timeout=2.0, mercy=20.0, stable_after=1.0)
APP = Vassal("app", on_demand=True, supervision=QUICK)
SLEEPY = msgspec.structs.replace(APP, idle=4.0, die_on_idle=True)
NOBODY = ["emperor", "fork-server", "socket:app"]


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logger.disable("pyemperor")
    yield
    logger.enable("pyemperor")
    assert pykka.ActorRegistry.get_all() == []


# ---- the Emperor calls ------------------------------------------------------------------------------------------


def test_it_starts_at_its_first_connection() -> None:
    it = Play(APP)
    with it.world:
        it.run(100)
        assert sorted(it.world.left_over()) == NOBODY
        assert (it.status().state, it.status().pids, it.status().generation) == ("SLEEPING", (), 0)
        it.request()
        it.run(1)
        assert it.statuses == [200]
        it.run(5)
        assert it.status().state == "STABLE"
        it.run(1000)
        assert it.world.left_over().count("worker:app/1") == 1, "without idle it stays"


def test_it_sleeps_again_when_nobody_asks() -> None:
    it = Play(SLEEPY)
    with it.world:
        for number in range(1, 4):
            it.request()
            it.run(3)
            assert it.status().state in ("READY", "STABLE")
            it.run(6)
            assert sorted(it.world.left_over()) == NOBODY
            assert it.status().state == "SLEEPING"
            assert it.statuses == [200] * number


def test_a_long_request_is_not_idleness() -> None:
    it = Play(SLEEPY)
    with it.world:
        it.request(takes=30)
        it.run(29)
        assert "worker:app/1" in it.world.left_over()
        it.run(3)
        assert it.statuses == [200]
        it.run(6)
        assert sorted(it.world.left_over()) == NOBODY


@pytest.mark.parametrize("seed", range(40))
def test_no_request_is_lost_while_it_falls_asleep(seed: int) -> None:
    """Requests come at any moment of its way to bed and from it."""
    it = Play(msgspec.structs.replace(SLEEPY, idle=1.0), seed=seed)
    random = it.world._simulation.random
    with it.world as world:
        at = world.now
        for _ in range(60):
            at += random.choice((0.01, 0.3, 1.0 + random.random() * 0.6))
            world.at(at, lambda: it.request(random.choice((0.001, 0.2))))
        world.run_until(at + 10)
        assert it.statuses == [200] * 60
        assert sorted(world.left_over()) == NOBODY


def test_who_comes_while_it_finishes_a_request_does_not_wait_for_that() -> None:
    it = Play(msgspec.structs.replace(SLEEPY, idle=1.0))
    with it.world as world:
        it.request()
        # A request that is accepted after the master's word, and before its worker is told to end.
        world.run_until(world.now + 10, it.asleep)
        it.request(takes=10)
        it.run(0.01)
        it.request()
        it.run(0.5)
        assert it.statuses == [200, 200]
        assert world.left_over().count("master:app") == 2
        it.run(10)
        assert it.statuses == [200] * 3


def test_an_edit_does_not_wake_it_and_counts_when_it_wakes() -> None:
    it = Play(APP)
    with it.world:
        it.tell(Govern(msgspec.structs.replace(APP, processes=3)), 10)
        assert sorted(it.world.left_over()) == NOBODY
        assert it.ask(Reload("app")) == [Outcome("app", True)]
        assert sorted(it.world.left_over()) == NOBODY
        it.request()
        it.run(2)
        assert it.statuses == [200]
        assert "worker:app/3" in it.world.left_over()


def test_an_edit_of_one_that_runs_takes_over_as_ever_and_sleeps_in_its_turn() -> None:
    it = Play(SLEEPY)
    with it.world:
        it.request()
        it.run(1)
        it.tell(Govern(msgspec.structs.replace(SLEEPY, processes=2)), 2)
        assert "worker:app/2" in it.world.left_over()
        it.run(8)
        assert sorted(it.world.left_over()) == NOBODY
        it.request()
        it.run(1)
        assert it.statuses == [200, 200]
        assert "worker:app/2" in it.world.left_over()


def test_it_sleeps_with_the_configuration_that_served_not_with_one_that_failed() -> None:
    it = Play(SLEEPY)
    with it.world:
        it.request()
        it.run(1)
        it.world.tell(Govern(msgspec.structs.replace(SLEEPY, processes=2)))
        it.starting(SIGKILL)
        it.run(15)
        assert it.status().state == "SLEEPING"
        it.request()
        it.run(1)
        assert it.statuses == [200, 200]
        assert "worker:app/2" not in it.world.left_over()


def test_one_that_was_always_there_sleeps_when_it_is_idle() -> None:
    it = Play(msgspec.structs.replace(SLEEPY, on_demand=False))
    with it.world:
        assert "worker:app/1" in it.world.left_over()
        it.run(8)
        assert sorted(it.world.left_over()) == NOBODY
        it.request()
        it.run(1)
        assert it.statuses == [200]
        it.run(8)
        it.tell(Govern(msgspec.structs.replace(APP, on_demand=False)), 3)
        assert "worker:app/1" in it.world.left_over(), "it is not to sleep any more"


def test_a_crash_loop_keeps_its_back_off_while_connections_wait() -> None:
    it = Play(APP)
    with it.world as world:
        it.request()
        end = world.now + 60
        starts = 0
        while world.now < end:
            if world.run_until(min(end, world.now + 60), lambda: "master:app" in world.left_over()):
                world.signal("master:app", SIGKILL)
                starts += 1
                it.request()
                it.run(0.01)
        assert starts <= 8, "5 restarts in 60 s"
        assert it.status().state == "CURSED"
        assert it.ask(Absolve("app")) == [Outcome("app", True)]
        it.run(3)
        assert set(it.statuses) == {200}


def test_one_that_sleeps_has_nothing_to_be_absolved_of() -> None:
    it = Play(APP)
    with it.world:
        assert it.ask(Absolve("app")) == [Outcome("app", True)]
        assert sorted(it.world.left_over()) == NOBODY


def test_a_stop_takes_its_sockets_and_a_reload_gives_them_back() -> None:
    it = Play(APP)
    with it.world:
        assert it.ask(Stop("app")) == [Outcome("app", True)]
        assert (it.status().state, it.world.left_over()) == ("STOPPED", ["emperor", "fork-server"])
        assert it.ask(Reload("app")) == [Outcome("app", True)]
        it.request()
        it.run(1)
        assert it.statuses == [200]


@pytest.mark.parametrize("awake", [False, True])
def test_nothing_is_left_of_one_that_is_dismissed(awake: bool) -> None:
    it = Play(SLEEPY)
    with it.world:
        if awake:
            it.request()
            it.run(1)
        it.tell(Dismiss("app"), 3)
        assert it.world.left_over() == ["emperor", "fork-server"]
        it.request()
        it.run(1)
        assert it.statuses[-1] == 502
        it.tell(Govern(APP), 1)
        it.request()
        it.run(1)
        assert it.statuses[-1] == 200


def test_it_sleeps_on_under_a_new_name() -> None:
    it = Play(APP)
    with it.world:
        it.tell(Govern(msgspec.structs.replace(APP, name="new"), formerly="app"), 1)
        assert sorted(it.world.left_over()) == ["emperor", "fork-server", "socket:new"]
        it.request(vassal="new")
        it.run(1)
        assert it.statuses == [200]


def test_one_whose_new_address_is_taken_sleeps_on_as_it_was() -> None:
    it = Play(APP)
    with it.world:
        it.sockets_taken = True
        it.tell(Govern(msgspec.structs.replace(APP, processes=2)), 1)
        assert (it.status().state, it.status().refused) == ("SLEEPING", "app: socket: it is taken")
        it.request()
        it.run(1)
        assert it.statuses == [200]
        assert "worker:app/2" not in it.world.left_over()
        it.sockets_taken = False
        it.run(8)
        assert "worker:app/2" in it.world.left_over()


def test_the_emperor_ends_at_once_when_all_sleep() -> None:
    it = Play(APP, SLEEPY, msgspec.structs.replace(APP, name="other"))
    with it.world as world:
        world.quit()
        world.run_until(world.now + 1, lambda: world.exit_code is not None)
        assert world.exit_code == 0
        assert world.left_over() == []


def test_a_new_fork_server_wakes_nobody() -> None:
    it = Play(APP)
    with it.world as world:
        world.signal("fork-server", SIGKILL)
        it.run(10)
        assert sorted(world.left_over()) == NOBODY
        it.request()
        it.run(1)
        assert it.statuses == [200]


# ---- the master keeps watch ---------------------------------------------------------------------------------


CHEAP = Vassal("app", cheap=True, processes=2, supervision=QUICK)
WATCH = ["emperor", "fork-server", "master:app", "socket:app"]


def test_a_cheap_vassal_is_ready_without_workers_and_has_them_at_the_first_connection() -> None:
    it = Play(CHEAP)
    with it.world:
        it.run(200)
        assert sorted(it.world.left_over()) == WATCH
        status = it.status()
        assert (status.state, status.ready, status.restarts) == ("STABLE", 0, 0)
        it.request()
        it.run(1)
        assert it.statuses == [200]
        assert it.world.left_over().count("worker:app/2") == 1
        it.run(500)
        assert it.world.left_over().count("worker:app/1") == 1, "without idle they stay"


@pytest.mark.parametrize("cheap", [True, False])
def test_idle_workers_end_and_the_master_stays(cheap: bool) -> None:
    it = Play(msgspec.structs.replace(CHEAP, cheap=cheap, idle=5.0))
    with it.world:
        for number in range(1, 4):
            it.request()
            it.run(3)
            assert "worker:app/1" in it.world.left_over()
            it.run(8)
            assert sorted(it.world.left_over()) == WATCH
            assert it.statuses == [200] * number
        it.run(300)
        assert (it.status().state, it.status().restarts, it.status().generation) == ("STABLE", 0, 1)


@pytest.mark.parametrize("seed", range(40))
def test_no_request_is_lost_while_the_workers_end(seed: int) -> None:
    it = Play(msgspec.structs.replace(CHEAP, idle=1.0), seed=seed)
    random = it.world._simulation.random
    with it.world as world:
        at = world.now
        for _ in range(60):
            at += random.choice((0.01, 0.3, 1.0 + random.random() * 0.6))
            world.at(at, lambda: it.request(random.choice((0.001, 0.2))))
        world.run_until(at + 10)
        assert it.statuses == [200] * 60
        assert sorted(world.left_over()) == WATCH


def test_a_worker_that_finishes_while_the_others_return_comes_back_as_well() -> None:
    it = Play(msgspec.structs.replace(CHEAP, idle=2.0))
    with it.world as world:
        it.request(takes=0.5)
        it.run(1)
        world.run_until(world.now + 10, lambda: "worker:app/1" not in world.left_over())
        it.request(takes=1)
        it.run(1)
        assert {"worker:app/1", "worker:app/2"} <= set(world.left_over())


def test_a_cheap_master_that_is_killed_is_as_cheap_again() -> None:
    it = Play(CHEAP)
    with it.world:
        it.world.signal("master:app", SIGKILL)
        it.run(3)
        assert sorted(it.world.left_over()) == WATCH
        it.request()
        it.run(1)
        assert it.statuses == [200]


def test_a_cheap_vassal_is_reloaded_and_stopped_like_any_other() -> None:
    it = Play(CHEAP)
    with it.world:
        assert it.ask(Reload("app"), 1.0) == [Outcome("app", True)]
        it.request()
        it.run(1)
        assert it.statuses == [200]
        assert it.ask(Stop("app"), 3.0) == [Outcome("app", True)]
        assert it.world.left_over() == ["emperor", "fork-server"]


def test_a_resting_master_that_hangs_is_found_by_its_heartbeat() -> None:
    it = Play(CHEAP)
    with it.world:
        it.world.signal("master:app", SIGSTOP)
        it.run(120)
        assert "CONVICTED" in it.states() or "SUSPECT" in it.states()
        it.request()
        it.run(10)
        assert it.statuses == [200]


# ---- when it is idle --------------------------------------------------------------------------------------------


def test_idle_is_who_has_served_nothing_and_is_not_busy() -> None:
    siesta = Siesta(10.0, now=0.0)
    siesta.heard(Beat(1, 1.0, requests=3), 1.0)
    siesta.heard(Beat(1, 5.0, requests=3, cores=(Core(busy=True, age=2.0, requests=0),)), 5.0)
    assert not siesta.due(14.9)
    siesta.heard(Beat(2, 14.9, requests=3), 14.9)
    assert siesta.due(15.0)
    assert not siesta.due(16.0), "it is said once in a while"
    assert siesta.due(25.0)
    siesta.heard(Beat(1, 25.0, requests=2), 26.0)
    assert not siesta.due(35.0), "another worker of that number has served"


def test_without_the_option_nobody_is_idle() -> None:
    assert not Siesta(0.0, now=0.0).due(1e9)
    assert (beat_of_worker(10.0, 0.0), beat_of_worker(10.0, 4.0), beat_of_worker(10.0, 400.0)) == (10.0, 1.0, 10.0)
