"""What the Emperor is told and asked, in simulated time: governing, reloading, stopping, refusing, absolving."""

from collections.abc import Callable, Collection, Iterator
from signal import SIGHUP, SIGKILL, SIGSTOP
from typing import Any

import msgspec
import pykka
import pytest
from loguru import logger

from pyemperor.actors.actor import Actor, Down
from pyemperor.actors.administration import (
    Absolve,
    Dismiss,
    Govern,
    Outcome,
    Refuse,
    Reload,
    Status,
    Stop,
    VassalStatus,
)
from pyemperor.actors.emperor import Companion
from pyemperor.actors.lifecycle import Key, Said
from pyemperor.actors.simulation import World
from pyemperor.protocol.errors import ConfigError, Problem
from pyemperor.protocol.messages import Extend, Trace
from pyemperor.protocol.options import Supervision, Vassal
from pyemperor.protocol.scenario import Scenario

QUICK = Supervision(start_timeout=2.0, mercy=5.0, stable_after=1.0)
APP = Vassal("app", supervision=QUICK)


@pytest.fixture(autouse=True)
def _quiet() -> Iterator[None]:
    logger.disable("pyemperor")
    yield
    logger.enable("pyemperor")
    assert pykka.ActorRegistry.get_all() == []


class Play:
    """A world with vassals; what was traced and answered in it."""

    def __init__(self, *vassals: Vassal, seed: int = 1) -> None:
        self.traces: list[Trace] = []
        self.outcomes: list[Outcome] = []
        self.statuses: list[int] = []
        self.world = World(Scenario("test", vassals), seed, self.traces.append)
        self.world.run_until(4.5)  # between two beats
        self.sockets_taken = False
        sockets, bind = self.world._sockets, self.world._sockets.bind

        def bind_unless_taken(vassal: Vassal, claim: str = "", sharing: Collection[str] = ()) -> None:
            if self.sockets_taken:
                raise ConfigError(Problem(vassal.name, 0, "socket", "it is taken"))
            bind(vassal, claim, sharing)

        sockets.bind = bind_unless_taken  # type: ignore[method-assign]

    def ask(self, message: Any, seconds: float = 3.0) -> list[Outcome]:
        """What a request comes to within ``seconds``."""
        self.outcomes = []
        self.world.tell(type(message)(message.name, self.outcomes.extend))
        self.run(seconds)
        return self.outcomes

    def tell(self, message: object, seconds: float = 3.0) -> None:
        self.world.tell(message)
        self.run(seconds)

    def run(self, seconds: float) -> None:
        self.world.run_until(self.world.now + seconds)

    def status(self, name: str = "app") -> VassalStatus:
        (emperor,) = pykka.ActorRegistry.get_by_class_name("Emperor")
        future = emperor.ask(Status(), block=False)
        self.run(0)
        statuses: list[VassalStatus] = future.get(timeout=5)
        return next(status for status in statuses if status.name == name)

    def statuses_of(self) -> dict[str, str]:
        """The state of each vassal."""
        (emperor,) = pykka.ActorRegistry.get_by_class_name("Emperor")
        future = emperor.ask(Status(), block=False)
        self.run(0)
        return {status.name: status.state for status in future.get(timeout=5)}

    def asleep(self) -> bool:
        """Whether no master of the vassal is there, or the one that is will end."""
        return "STOPPING" in self.states()

    def request(self, takes: float = 0.01, vassal: str = "app") -> None:
        self.world.connect(vassal, "/", takes, lambda status, _: self.statuses.append(status))

    def states(self, actor: str = "master:app") -> list[str]:
        return [t.state for t in self.traces if t.actor == actor and t.event == "state"]

    def starting(self, kill: int) -> None:
        """Signal the next master of the vassal as soon as it exists."""
        before = self.states().count("STARTING")
        self.world.run_until(self.world.now + 10, lambda: self.states().count("STARTING") > before)
        pid = next(t.pid for t in reversed(self.traces) if t.state == "STARTING" and t.actor == "master:app")
        self.world._simulation.processes[pid].signal(kill)


@pytest.mark.parametrize("seed", range(5))
def test_a_reload_loses_no_request(seed: int) -> None:
    it = Play(msgspec.structs.replace(APP, processes=2), seed=seed)
    with it.world as world:
        for number in range(400):
            world.at(world.now + number / 50, lambda: it.request(0.05))
        for _ in range(4):
            assert it.ask(Reload("app"), 2.0) == [Outcome("app", True)]
        it.run(5)
        assert it.statuses == [200] * 400
        status = it.status()
        assert (status.state, status.generation, status.refused) == ("STABLE", 5, "")
        assert len(status.pids) == 1
        assert sorted(world.left_over()) == [
            "emperor", "fork-server", "master:app", "socket:app", "worker:app/1", "worker:app/2",
        ]  # fmt: skip


def test_the_old_generation_finishes_what_it_accepted() -> None:
    it = Play(APP)
    with it.world:
        it.request(takes=4.0)
        it.run(0.1)
        assert it.ask(Reload("app"), 1.0) == [Outcome("app", True)]
        assert it.world.left_over().count("master:app") == 2
        assert len(it.status().pids) == 2
        it.run(5)
        assert it.statuses == [200]
        assert it.world.left_over().count("master:app") == 1


def test_a_new_generation_that_is_never_ready_is_refused_and_the_old_one_serves() -> None:
    it = Play(APP)
    with it.world:
        it.world.tell(Reload("app", it.outcomes.extend))
        it.starting(SIGSTOP)
        assert it.status().reloading
        it.run(8)
        it.request()
        it.run(1)
        assert it.outcomes == [Outcome("app", False, "not ready within 2 s")]
        assert it.statuses == [200]
        status = it.status()
        assert (status.state, status.refused, status.reloading) == ("STABLE", "not ready within 2 s", False)
        assert it.world.left_over().count("master:app") == 1


def test_a_new_generation_may_ask_for_more_time() -> None:
    it = Play(APP)
    with it.world as world:
        world.tell(Reload("app", it.outcomes.extend))
        it.starting(SIGSTOP)
        it.tell(Said(Key("app/2", 1), Extend(6.0)), 5)
        assert it.status().reloading
        it.run(8)
        assert it.outcomes == [Outcome("app", False, "not ready within 6 s")]


def test_a_new_generation_that_is_killed_is_refused_and_the_next_one_is_not() -> None:
    it = Play(APP)
    with it.world:
        it.world.tell(Reload("app", it.outcomes.extend))
        it.starting(SIGKILL)
        it.run(3)
        assert it.outcomes == [Outcome("app", False, "killed by signal 9")]
        assert it.status().generation == 1
        assert it.ask(Reload("app")) == [Outcome("app", True)]
        assert (it.status().generation, it.status().refused) == (3, "")


def test_the_newest_of_two_wins() -> None:
    it = Play(APP)
    with it.world:
        newer = msgspec.structs.replace(APP, processes=3)
        it.world.tell(Govern(msgspec.structs.replace(APP, processes=2)))
        it.starting(SIGSTOP)
        it.tell(Govern(newer), 8)
        assert sum(name.startswith("worker:app") for name in it.world.left_over()) == 3
        assert (it.status().generation, it.status().refused) == (3, "")


def test_a_change_needs_no_patience_when_nothing_serves() -> None:
    it = Play()
    with it.world:
        it.world.tell(Govern(APP))
        it.starting(SIGSTOP)
        it.tell(Govern(APP), 1)
        assert it.status().state in ("READY", "STABLE")
        assert it.status().generation == 2


def test_a_refused_configuration_is_visible_and_harms_nobody() -> None:
    it = Play(APP)
    with it.world:
        problem = Problem("/v/app.ini", 3, "processes", "many", "a number")
        it.tell(Refuse("app", (problem,)))
        assert (it.status().state, it.status().refused) == ("STABLE", str(problem))
        it.tell(Refuse("new", (problem,)))
        assert (it.status("new").state, it.status("new").generation) == ("REFUSED", 0)
        it.tell(Govern(Vassal("new", supervision=QUICK)))
        assert (it.status("new").state, it.status("new").refused) == ("STABLE", "")


def test_a_vassal_that_is_dismissed_leaves_nothing() -> None:
    it = Play(APP, Vassal("other", supervision=QUICK))
    with it.world:
        it.tell(Dismiss("app"))
        assert sorted(it.world.left_over()) == [
            "emperor", "fork-server", "master:other", "socket:other", "worker:other/1",
        ]  # fmt: skip
        it.tell(Govern(APP))
        it.request()
        it.run(1)
        assert it.statuses == [200]


def test_a_vassal_that_comes_back_while_it_ends_serves_beside_it() -> None:
    it = Play(APP)
    with it.world:
        it.request(takes=3)
        it.tell(Dismiss("app"), 0.2)
        it.tell(Govern(APP), 1)
        it.request()
        it.run(0.5)
        assert it.statuses == [200]
        it.run(5)
        assert it.statuses == [200, 200]
        it.request()
        it.run(1)
        assert it.statuses == [200, 200, 200]


def test_one_under_a_new_name_takes_the_sockets_over() -> None:
    it = Play(APP)
    with it.world:
        it.request(takes=2)
        it.run(0.1)
        it.tell(Govern(msgspec.structs.replace(APP, name="new"), formerly="app"), 1)
        it.request(vassal="new")
        it.run(5)
        assert it.statuses == [200, 200]
        assert sorted(it.world.left_over()) == [
            "emperor", "fork-server", "master:new", "socket:new", "worker:new/1",
        ]  # fmt: skip
        it.tell(Govern(APP))
        assert {it.status().state, it.status("new").state} == {"STABLE"}


def test_a_rename_to_the_name_of_one_that_still_ends_takes_the_name_over() -> None:
    it = Play(APP, Vassal("other", supervision=QUICK))
    with it.world:
        it.request(takes=4)
        it.run(0.1)
        it.tell(Dismiss("app"), 0.1)
        it.tell(Govern(APP, formerly="other"), 1)
        it.request()
        it.run(8)
        assert it.statuses == [200, 200], "the one that ended finished what it had accepted"
        assert it.statuses_of() == {"app": "STABLE"}
        it.tell(Dismiss("app"), 8)
        assert it.world.left_over() == ["emperor", "fork-server"]


def test_a_rename_to_the_name_of_one_that_is_there_leaves_one() -> None:
    it = Play(APP, Vassal("other", supervision=QUICK))
    with it.world:
        it.tell(Govern(APP, formerly="other"), 8)
        assert it.statuses_of() == {"app": "STABLE"}
        assert it.world.left_over().count("master:app") == 1
        assert "master:other" not in it.world.left_over()


def test_one_that_is_wanted_again_while_it_ends_and_cannot_be_had_yet_is_not_forgotten() -> None:
    it = Play(APP)
    with it.world:
        it.request(takes=3)
        it.run(0.1)
        it.tell(Dismiss("app"), 0.1)
        problem = Problem("/v/app.ini", 3, "processes", "many", "a number")
        it.tell(Refuse("app", (problem,)), 8)
        assert (it.status().state, it.status().refused) == ("REFUSED", str(problem))
        it.tell(Govern(APP))
        assert it.status().state == "STABLE"


def test_one_that_is_wanted_again_while_it_ends_waits_for_its_address() -> None:
    it = Play(APP)
    with it.world:
        it.request(takes=3)
        it.run(0.1)
        it.tell(Dismiss("app"), 0.1)
        it.sockets_taken = True
        it.tell(Govern(APP), 8)
        assert it.world.left_over() == ["emperor", "fork-server"]
        it.sockets_taken = False
        it.run(8)
        assert it.status().state == "STABLE"


def test_what_was_refused_is_not_what_waited_for_an_address() -> None:
    it = Play()
    with it.world:
        it.sockets_taken = True
        it.tell(Govern(APP), 1)
        assert it.status().refused == "app: socket: it is taken"
        it.tell(Refuse("app", (Problem("/v/app.ini", 3, "processes", "many"),)), 1)
        it.sockets_taken = False
        it.run(8)
        assert it.status().state == "REFUSED", "the configuration before the one that is wanted came back"


def test_a_vassal_that_is_gone_holds_up_no_reload() -> None:
    it = Play(*(Vassal(name, supervision=QUICK) for name in "abcd"))
    with it.world:
        for name in "ab":
            # A monitor that knows its file no more does not read it again.
            it.tell(Govern(Vassal(name, supervision=QUICK), reread=lambda: None))
            it.request(takes=4, vassal=name)
        it.run(0.1)
        it.world.tell(Reload(None, it.outcomes.extend))
        it.run(0.5)
        for name in "ab":
            it.tell(Dismiss(name), 0.1)
        it.run(8)
        outcomes = {one.name: one.ok for one in it.outcomes}
        assert outcomes == {"a": False, "b": False, "c": True, "d": True}
        assert [one.name for one in it.ask(Reload(None))] == ["c", "d"]


def test_a_reload_of_all_leaves_out_who_ends() -> None:
    it = Play(*(Vassal(name, supervision=QUICK) for name in "abc"))
    with it.world:
        for name in "ab":
            it.tell(Govern(Vassal(name, supervision=QUICK), reread=lambda: None))
            it.request(takes=4, vassal=name)
            it.run(0.1)
            it.tell(Dismiss(name), 0.1)
        assert it.ask(Reload(None), 1.0) == [Outcome("c", True)]


def test_a_reload_of_one_that_ends_is_answered_when_it_is_gone() -> None:
    it = Play(APP)
    with it.world:
        it.tell(Govern(APP, reread=lambda: None))
        it.request(takes=2)
        it.run(0.1)
        it.tell(Dismiss("app"), 0.1)
        assert it.ask(Reload("app")) == [Outcome("app", False, "it was removed")]


def test_a_reload_goes_on_under_a_new_name() -> None:
    it = Play(*(Vassal(name, supervision=QUICK) for name in "abc"))
    with it.world:
        for name in "ab":
            it.tell(Govern(Vassal(name, supervision=QUICK), reread=lambda: None))
        it.world.tell(Reload(None, it.outcomes.extend))
        it.run(0.5)
        for name, formerly in (("x", "a"), ("y", "b")):
            it.tell(Govern(Vassal(name, supervision=QUICK), formerly=formerly), 2)
        it.run(3)
        assert it.outcomes == [Outcome(name, True) for name in "cxy"]


def test_stop_holds_until_a_reload() -> None:
    it = Play(APP)
    with it.world:
        assert it.ask(Stop("app")) == [Outcome("app", True)]
        assert it.status().state == "STOPPED"
        assert it.world.left_over() == ["emperor", "fork-server"]
        assert it.ask(Reload("app")) == [Outcome("app", True)]
        it.request()
        it.run(1)
        assert it.statuses == [200]


def test_a_reload_that_a_stop_overtakes_is_answered() -> None:
    it = Play(APP)
    with it.world:
        it.world.tell(Reload("app", it.outcomes.extend))
        it.starting(SIGSTOP)
        it.tell(Stop("app"), 8)
        assert it.outcomes == [Outcome("app", False, "it is being stopped")]
        assert it.world.left_over() == ["emperor", "fork-server"]


def test_all_are_reloaded_a_few_at_a_time() -> None:
    it = Play(*(Vassal(name, supervision=QUICK) for name in "abcde"))
    with it.world as world:
        most = 0

        def count() -> bool:
            nonlocal most
            most = max(most, sum(name.startswith("master:") for name in world.left_over()))
            return len(it.outcomes) == 5

        world.tell(Reload(None, it.outcomes.extend))
        assert world.run_until(world.now + 10, count)
        assert it.outcomes == [Outcome(name, True) for name in "abcde"]
        assert most < 10
        world.signal("emperor", SIGHUP)
        it.run(5)
        assert [it.status(name).generation for name in "abcde"] == [3] * 5


def test_absolution_ends_a_quarantine() -> None:
    it = Play(APP)
    with it.world as world:
        for _ in range(20):
            world.signal("master:app", SIGKILL)
            it.run(0.5)
        assert it.status().state == "CURSED"
        assert it.ask(Absolve("app")) == [Outcome("app", True)]
        assert it.status().state == "STABLE"


def exiled(it: Play) -> None:
    """Have the vassal exiled while a connection waits in its queue."""
    before = it.states().count("STARTING")
    it.world._simulation.processes[it.status().pids[0]].signal(SIGKILL)
    assert it.world.run_until(it.world.now + 10, lambda: it.states().count("STARTING") > before)
    it.request()
    pid = next(t.pid for t in reversed(it.traces) if t.state == "STARTING" and t.actor == "master:app")
    it.world._simulation.processes[pid].die(78)
    it.run(1)
    assert it.status().state == "EXILED"


@pytest.mark.parametrize("back", [Absolve("app"), Reload("app"), Govern(APP)])
def test_who_asks_an_exiled_vassal_is_refused_until_it_is_back(back: Any) -> None:
    it = Play(APP)
    with it.world:
        exiled(it)
        assert it.statuses == [502], "who waited"
        it.request()
        it.run(0.1)
        assert it.statuses == [502, 502]
        it.tell(back)
        it.request()
        it.run(1)
        assert it.statuses == [502, 502, 200]
        assert it.status().state == "STABLE"


def test_who_asks_a_cursed_vassal_waits() -> None:
    it = Play(APP)
    with it.world as world:
        for _ in range(20):
            world.signal("master:app", SIGKILL)
            it.run(0.5)
        assert it.status().state == "CURSED"
        it.request()
        it.run(1)
        assert it.statuses == []
        world.run_until(world.now + 90, lambda: bool(it.statuses))
        assert it.statuses == [200]


def test_an_absolution_whose_address_is_taken_by_now_says_so_and_can_be_repeated() -> None:
    it = Play(APP)
    with it.world:
        exiled(it)
        it.sockets_taken = True
        assert it.ask(Absolve("app")) == [Outcome("app", False, "app: socket: it is taken")]
        assert it.status().state == "EXILED"
        it.sockets_taken = False
        assert it.ask(Absolve("app")) == [Outcome("app", True)]
        it.request()
        it.run(1)
        assert it.statuses == [502, 200]


def test_what_still_ends_keeps_its_sockets_for_the_one_that_comes_back() -> None:
    """The one that is exiled shared them with the one before it, which finishes a request."""
    it = Play(APP)
    with it.world:
        it.request(takes=4.0)
        it.run(0.1)
        it.tell(Govern(msgspec.structs.replace(APP, processes=2)), 1)
        exiled(it)
        assert it.ask(Absolve("app"), 1) == [Outcome("app", True)]
        assert it.status().state in ("READY", "STABLE")
        it.run(4)
        assert it.statuses == [200, 200], "who waited was served by the one that came back"
        it.request()
        it.run(1)
        assert it.statuses == [200] * 3


@pytest.mark.parametrize("request_", [Reload("nobody"), Stop("nobody"), Absolve("nobody")])
def test_who_is_not_there_is_said_to_be_so(request_: Any) -> None:
    it = Play(APP)
    with it.world:
        assert it.ask(request_) == [Outcome("nobody", False, "there is no vassal nobody")]


def test_stop_without_a_name_stops_everything() -> None:
    it = Play(APP, Vassal("other", supervision=QUICK))
    with it.world as world:
        world.tell(Stop(None, it.outcomes.extend))
        world.run_until(world.now + 20, lambda: world.exit_code is not None)
        assert world.exit_code == 0
        assert [outcome.name for outcome in it.outcomes] == ["app", "other"]
        assert world.left_over() == []


def test_a_monitor_that_fails_is_said_and_takes_nobody_along() -> None:
    it = Play(APP)
    with it.world:
        (emperor,) = pykka.ActorRegistry.get_by_class_name("Emperor")
        it.tell(Down(emperor, RuntimeError("a defect")))
        assert "a defect" in next(t.reason for t in it.traces if t.event == "log")
        assert it.status().state == "STABLE"


class Clerk(Actor):
    """A companion that fails when it is told to."""

    def handle(self, message: Any, now: float) -> None:
        raise RuntimeError(message)


def accompanied(
    it: Play, engage: Callable[[Actor], pykka.ActorRef[Any]]
) -> tuple[Companion, list[float]]:
    """Give the Emperor a companion; when it was engaged."""
    (ref,) = pykka.ActorRegistry.get_by_class_name("Emperor")
    emperor: Any = ref._actor_weakref()
    engaged: list[float] = []

    def noted() -> pykka.ActorRef[Any]:
        engaged.append(it.world.now)
        return engage(emperor)

    return emperor.accompany("clerk", noted), engaged


def test_a_companion_that_fails_is_replaced_at_once_and_then_every_ten_seconds() -> None:
    it = Play(APP)
    with it.world:
        clerk, engaged = accompanied(it, lambda emperor: Clerk.start(emperor.system, owner=emperor.actor_ref))
        begun = it.world.now
        for _ in range(3):
            first = clerk.actor
            clerk.tell("a defect")
            it.run(10.5)
            assert clerk.actor is not None
            assert clerk.actor != first
            assert clerk.actor.is_alive()
        assert [round(at - begun) for at in engaged] == [0, 0, 10, 21]
        assert "the clerk failed, another one starts in 0.0 s" in "".join(t.reason for t in it.traces)
        assert it.status().state == "STABLE"
        clerk.stop()
        it.run(0.1)
        assert len(engaged) == 4, "who was asked to stop is not missed"


def test_a_companion_for_whom_there_is_no_thread_is_tried_again() -> None:
    it = Play(APP)
    with it.world:
        lack = [None, RuntimeError("can't start new thread"), OSError("too many open files"), None]

        def engage(emperor: Actor) -> pykka.ActorRef[Any]:
            if error := lack.pop():
                raise error
            return Clerk.start(emperor.system, owner=emperor.actor_ref)

        clerk, engaged = accompanied(it, engage)
        clerk.tell("a defect")
        it.run(30)
        assert len(engaged) == 4
        assert clerk.actor is not None
        assert clerk.actor.is_alive()
        clerk.tell("another")
        it.world.quit()
        it.run(20)
        assert len(engaged) == 4, "when all ends, nobody begins"


def test_after_the_wish_to_quit_nothing_begins() -> None:
    it = Play(APP)
    with it.world as world:
        it.request(takes=3)
        it.run(0.1)
        world.quit()
        it.run(0.1)
        assert it.ask(Reload("app"), 0.5) == [Outcome("app", False, "everything is being stopped")]
        it.tell(Govern(Vassal("late")), 0.5)
        world.run_until(world.now + 20, lambda: world.exit_code is not None)
        assert world.exit_code == 0
        assert it.states("master:late") == []
