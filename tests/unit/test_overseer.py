"""Supervisors of processes as a conversation: what happens goes in, what they do on their host comes out."""

import signal
from collections.abc import Callable, Collection, Iterator
from typing import Any

import msgspec
import pykka
import pytest
from loguru import logger

from pyemperor.actors.actor import Actor, Source
from pyemperor.actors.clock import Timer, Timers
from pyemperor.actors.detector import Evidence, Lease
from pyemperor.actors.doorbell import SocketDoorbell
from pyemperor.actors.emperor import ChildEnded, Emperor, Govern, Quit
from pyemperor.actors.host import HostClosed, HostLost
from pyemperor.actors.journal import Journal
from pyemperor.actors.lifecycle import Born, Died, Key, LinkLost, Said, Stillborn
from pyemperor.actors.overseer import Overseer, flags
from pyemperor.actors.superior import FromParent, ParentLost, Terminated
from pyemperor.actors.supervision import ChildSpec, Shutdown, Supervisor
from pyemperor.actors.vassal_master import EX_TEMPFAIL, VassalMaster
from pyemperor.protocol.messages import (
    Accepting,
    Alive,
    Beat,
    Birth,
    Core,
    Inject,
    Message,
    NotReady,
    Office,
    Probe,
    Ready,
    Stop,
    Trace,
)
from pyemperor.protocol.options import Backoff, EmperorOptions, Supervision, Vassal

LEASE = Lease(tolerance=30.0, probe=5.0)


# ---- a deterministic world ----------------------------------------------------------------------------------


class Desk:
    """A system and an inbox in one: time passes when it is told to."""

    def __init__(self) -> None:
        self.time = 1000.0
        self.hung: list[float] = []
        self.mail: list[Any] = []
        self._timers = Timers()

    def now(self) -> float:
        return self.time

    def inbox(self) -> "Desk":
        return self

    def run(self, actor: Actor) -> None:
        raise AssertionError("nothing runs by itself here")

    def put(self, envelope: Any, /) -> None:
        self.mail.append(envelope.message)

    def get(self) -> Any:
        raise AssertionError("nobody waits here")

    def empty(self) -> bool:
        return not self.mail

    def after(self, seconds: float, message: object) -> Timer:
        return self._timers.set(self.time + seconds, message)

    def watch(self, fd: int, mask: int, source: Source) -> None: ...

    def unwatch(self, fd: int) -> None: ...

    def hang(self, seconds: float) -> None:
        self.hung.append(seconds)

    def close(self) -> None: ...

    def pass_time(self, actor: Actor, seconds: float) -> None:
        """Let ``actor`` have all its timers of the next ``seconds``, each at its time."""
        end = self.time + seconds
        while (at := self._timers.next_at()) is not None and at <= end:
            self.time = max(self.time, at)
            for message in self._timers.due(self.time):
                actor.handle(message, self.time)
        self.time = end


class RecordingHost:
    """Does nothing, and remembers what it was told to do."""

    def __init__(self) -> None:
        self.done: list[tuple[Any, ...]] = []
        self.now_seen = Evidence("S", 0.0, 0.0)

    def take(self) -> list[tuple[Any, ...]]:
        """What was done since the last time."""
        done, self.done = self.done, []
        return done

    def fork(self, key: Key, birth: Birth) -> None:
        self.done.append(("fork", key, birth))

    def send(self, key: Key, message: Message) -> None:
        self.done.append(("send", key, message))

    def signal(self, key: Key, number: int) -> None:
        self.done.append(("signal", key, number))

    def kill(self, key: Key, *, family: bool) -> None:
        self.done.append(("kill", key, family))

    def evidence(self, key: Key) -> Evidence:
        return self.now_seen

    def forget(self, key: Key) -> None:
        self.done.append(("forget", key))

    def move(self, office: int) -> None:
        self.done.append(("move", office))

    # what the Emperor's host does besides
    def start(self) -> int:
        self.done.append(("start",))
        return 99

    def restart(self, masters: Any) -> int:
        self.done.append(("restart", sorted(masters)))
        return 100

    def close(self) -> None:
        self.done.append(("close",))

    def reap(self) -> None:
        self.done.append(("reap",))

    def kill_rest(self) -> None:
        self.done.append(("kill_rest",))


class Conversation:
    """One supervisor, its host, and what it traces."""

    def __init__(self, make: Callable[["Conversation"], Overseer]) -> None:
        self.desk = Desk()
        self.host = RecordingHost()
        self.traces: list[Trace] = []
        self.sent_up: list[Message] = []
        self.actor = make(self)

    def begin(self) -> list[tuple[Any, ...]]:
        self.actor.on_start()
        return self.host.take()

    def tell(self, *messages: object) -> list[tuple[Any, ...]]:
        """Have it handle these; what it did on its host."""
        for message in messages:
            self.actor.handle(message, self.desk.time)
        return self.host.take()

    def wait(self, seconds: float) -> list[tuple[Any, ...]]:
        """Let time pass; what it did on its host."""
        self.desk.pass_time(self.actor, seconds)
        return self.host.take()

    def states(self, actor: str) -> list[str]:
        """The states of ``actor`` since the last time."""
        states = [trace.state for trace in self.traces if trace.event == "state" and trace.actor == actor]
        self.traces[:] = [trace for trace in self.traces if trace.event != "state" or trace.actor != actor]
        return states

    def events(self, actor: str) -> list[str]:
        """What else happened to ``actor`` since the last time."""
        events = [trace.event for trace in self.traces if trace.event != "state" and trace.actor == actor]
        self.traces[:] = [trace for trace in self.traces if trace.event == "state" or trace.actor != actor]
        return events

    def stopped(self) -> bool:
        """Whether it has told itself to stop."""
        return any(type(message).__name__ == "_ActorStop" for message in self.desk.mail)


@pytest.fixture(autouse=True)
def _silence() -> Iterator[None]:
    """What is logged here is traced as well."""
    logger.remove()
    yield
    pykka.ActorRegistry.stop_all()


class Plain(Overseer):
    """An overseer and nothing more; ``heard`` is what its subclasses get."""

    def __init__(self, talk: Conversation, **more: Any) -> None:
        super().__init__(talk.desk, lambda _: talk.host, Journal("emperor", talk.traces.append), LEASE, **more)
        self.heard: list[Any] = []

    def child_up(self, child: str) -> None:
        self.heard.append(("up", child))

    def child_said(self, child: str, message: Message) -> None:
        self.heard.append((child, message))

    def child_down(self, child: str) -> None:
        self.heard.append(("down", child))

    def group_gone(self, group: str, reason: str) -> None:
        self.heard.append(("gone", group))


def birth(name: str = "app", **supervision: Any) -> Birth:
    settings = msgspec.structs.replace(Supervision(mercy=20.0, backoff=Backoff(jitter=0.0)), **supervision)
    return Birth("master", Vassal(name, supervision=settings), 10.0)


def conversation(child: Birth | None = None) -> Conversation:
    """An overseer with one child that is ready."""
    child = child or birth()
    talk = Conversation(lambda talk: Plain(talk, chance=lambda: 0.5))
    spec = ChildSpec("app", start=child, shutdown=child.mercy)
    supervisor = Supervisor(flags(child.vassal.supervision), [spec], random=lambda: 0.5)
    talk.actor.add_group("app", supervisor)
    assert talk.host.take() == [("fork", Key("app", 1), child)]
    talk.tell(Born(Key("app", 1), 4711), Said(Key("app", 1), Ready()))
    assert talk.states("master:app") == ["SPAWNING", "STARTING", "READY"]
    return talk


APP = Key("app", 1)


def beat(talk: Conversation, seq: int = 1) -> Said:
    return Said(APP, Beat(seq, talk.desk.time))


# ---- a life -------------------------------------------------------------------------------------------------


def test_a_child_is_forked_and_comes_up() -> None:
    talk = conversation()
    assert talk.events("master:app") == ["start"]
    assert talk.actor.heard == [("up", "app"), ("app", Ready())]  # type: ignore[attr-defined]
    assert talk.actor.children_up == 1
    talk.wait(9.9)
    assert talk.states("master:app") == []
    talk.tell(beat(talk))
    talk.wait(0.2)
    assert talk.states("master:app") == ["STABLE"]


def test_a_stable_child_that_dies_is_replaced_at_once() -> None:
    talk = conversation()
    talk.wait(10)
    done = talk.tell(LinkLost(APP, "closed"), Died(APP, -1, 9))
    assert [step[0] for step in done] == ["forget", "fork"]
    assert done[1][1].generation > APP.generation
    assert talk.states("master:app") == ["STABLE", "ABSENT", "SPAWNING"]
    assert talk.events("master:app") == ["start", "exit", "restart"]


def test_a_young_child_that_dies_waits() -> None:
    talk = conversation()
    assert talk.tell(Died(APP, 1)) == [("forget", APP)]
    assert talk.states("master:app") == ["ABSENT", "BACKOFF"]
    assert talk.wait(0.09) == []
    assert [step[0] for step in talk.wait(0.02)] == ["fork"]


def test_a_child_that_keeps_dying_is_cursed_and_tried_again() -> None:
    talk = conversation(birth(intensity=2, period=60.0))
    key = APP
    for _ in range(2):
        talk.tell(Died(key, 1))
        (fork,) = talk.wait(1)
        key = fork[1]
        talk.tell(Born(key, 1), Said(key, Ready()))
    talk.states("master:app")
    assert talk.tell(Died(key, 1)) == [("forget", key)]
    assert talk.states("master:app") == ["ABSENT", "CURSED"]
    assert talk.wait(30) == []
    assert [step[0] for step in talk.wait(40)] == ["fork"]


def test_a_child_that_cannot_be_configured_is_exiled() -> None:
    talk = conversation()
    talk.tell(Said(APP, NotReady("no such user", config=True)), Died(APP, 78))
    assert talk.states("master:app") == ["ABSENT", "EXILED"]
    assert talk.wait(100_000) == []


def test_a_machine_that_is_full_is_asked_again_and_nobody_is_charged() -> None:
    talk = conversation(birth(intensity=1))
    key = APP
    talk.tell(Died(key, 0))
    waits = []
    for _ in range(6):
        begun = talk.desk.time
        while not (forks := talk.wait(0.05)):
            assert talk.desk.time < begun + 100
        waits.append(round(talk.desk.time - begun))
        talk.tell(Stillborn(forks[0][1], 11, "no more processes"))
    assert waits[1:] == [1, 2, 4, 8, 16]
    assert "CURSED" not in talk.states("master:app")


def test_news_of_an_earlier_incarnation_means_nothing() -> None:
    talk = conversation()
    talk.wait(10)
    (_, (_, key, _)) = talk.tell(Died(APP, 0))
    talk.tell(Born(key, 2))
    talk.states("master:app")
    late = [Said(APP, Ready()), LinkLost(APP, "x"), Died(APP, 1), Born(APP, 3), Stillborn(APP, 0, "x")]
    assert talk.tell(*late, beat(talk)) == []
    assert talk.states("master:app") == []
    talk.tell(Said(key, Ready()))
    assert talk.states("master:app") == ["READY"]


def test_news_of_somebody_unknown_means_nothing() -> None:
    talk = conversation()
    nobody = Key("nobody", 1)
    assert talk.tell(Said(nobody, Ready()), Died(nobody, 1), Said(nobody, Beat(1, 0.0))) == []


# ---- stopping -----------------------------------------------------------------------------------------------


def test_a_group_is_asked_to_stop_and_ends() -> None:
    talk = conversation()
    talk.actor.supervise("app", Shutdown())
    assert talk.host.take() == [("send", APP, Stop(19.0))]
    talk.tell(Died(APP, 0))
    assert talk.states("master:app") == ["STOPPING", "ABSENT"]
    assert talk.actor.heard[-2:] == [("down", "app"), ("gone", "app")]  # type: ignore[attr-defined]
    assert list(talk.actor.groups) == []


def test_who_does_not_stop_is_killed_with_its_family() -> None:
    talk = conversation()
    talk.actor.supervise("app", Shutdown())
    talk.host.take()
    assert talk.wait(19.9) == []
    assert talk.wait(0.2) == [("kill", APP, True)]
    assert talk.wait(31) == [("forget", APP)], "it hangs in the kernel, and nobody waits for it for ever"
    assert talk.actor.heard[-1] == ("gone", "app")  # type: ignore[attr-defined]


def test_without_mercy_all_are_killed_at_once() -> None:
    talk = conversation()
    talk.actor.kill_all()
    assert talk.host.take() == [("kill", APP, True)]
    talk.actor.kill_all()
    assert talk.host.take() == []


# ---- judgement ----------------------------------------------------------------------------------------------


def test_who_beats_is_left_alone() -> None:
    talk = conversation()
    for seq in range(100):
        assert talk.wait(10) == []
        assert talk.tell(beat(talk, seq)) == []
    assert talk.states("master:app") == ["STABLE"]
    assert set(talk.events("master:app")) == {"start", "beat"}


def test_silence_is_asked_about_and_an_answer_clears() -> None:
    talk = conversation()
    talk.wait(29)
    ((_, _, probe),) = talk.wait(2)
    assert isinstance(probe, Probe)
    assert talk.tell(Said(APP, Alive(probe.nonce + 1))) == [], "another nonce is no answer"
    talk.wait(3)
    talk.tell(Said(APP, Alive(probe.nonce)))
    assert talk.states("master:app") == ["STABLE", "SUSPECT", "STABLE"]
    assert talk.events("master:app") == ["start", "probe.sent", "probe.cleared"]
    assert talk.wait(25) == []


def test_no_answer_convicts_dumps_kills_and_replaces() -> None:
    talk = conversation()
    talk.wait(30)
    done = talk.wait(5.01)
    assert done == [("signal", APP, signal.SIGCONT), ("signal", APP, signal.SIGUSR2)]
    assert talk.wait(0.3) == [("kill", APP, False)]
    assert [step[0] for step in talk.tell(Died(APP, -1, 9))] == ["forget", "fork"]
    states = talk.states("master:app")
    assert states == ["STABLE", "SUSPECT", "CONVICTED", "KILLING", "ABSENT", "SPAWNING"]
    (evidence,) = [trace.reason for trace in talk.traces if trace.event == "kill"]
    assert evidence == "it is hung"
    (why,) = [trace.reason for trace in talk.traces if trace.event == "exit"]
    assert "app" in why or "heartbeat" in why


def test_a_stopped_child_is_continued_before_anything_else() -> None:
    talk = conversation()
    talk.host.now_seen = Evidence("T", 0.0, 0.0)
    done = talk.wait(31)
    assert [step[0] for step in done] == ["send", "signal"]
    assert done[1] == ("signal", APP, signal.SIGCONT)


def test_a_starved_child_gets_more_time() -> None:
    talk = conversation()
    talk.wait(30.01)
    talk.host.now_seen = Evidence("R", 0.0, 4.0)
    talk.wait(5)
    assert talk.events("master:app") == ["start", "probe.sent", "starved"]
    assert "CONVICTED" not in talk.states("master:app")


def test_a_judge_that_was_away_gives_the_time_to_everybody() -> None:
    talk = conversation()
    talk.wait(20)
    talk.desk.time += 1000  # stopped, or the machine slept
    talk.wait(0)
    assert talk.events("emperor") == ["credit"]
    assert talk.wait(9) == []
    assert "SUSPECT" not in talk.states("master:app")


def test_nobody_is_judged_who_is_on_its_way_out() -> None:
    talk = conversation()
    talk.wait(29)
    talk.actor.supervise("app", Shutdown())
    talk.host.take()
    assert talk.wait(15) == [], "no probe"


# ---- faults -------------------------------------------------------------------------------------------------


def test_lost_beats_lead_to_suspicion_and_healing_ends_it() -> None:
    talk = conversation()
    talk.actor.inject(Inject("f", "drop", "link:master:app>emperor", match="beat"))
    assert talk.host.take() == [("send", APP, Inject("f", "drop", "link:master:app>emperor", match="beat"))]
    for _ in range(2):
        talk.wait(10)
        talk.tell(beat(talk))
    ((_, _, probe),) = talk.wait(10)
    assert talk.states("master:app")[-1] == "SUSPECT"
    talk.tell(Said(APP, Alive(probe.nonce)))
    talk.wait(0)
    assert talk.states("master:app") == ["STABLE"]
    talk.actor.inject(Inject("f", "heal", ""))
    talk.host.take()
    talk.wait(10)
    talk.tell(beat(talk))
    assert "beat" in talk.events("master:app")


def test_late_messages_come_late_in_both_directions() -> None:
    talk = conversation()
    talk.actor.inject(Inject("f", "delay", "link:emperor<>master:app", seconds=2.0))
    talk.host.take()
    talk.wait(10)
    talk.events("master:app")
    talk.tell(beat(talk))
    talk.wait(1.9)
    assert talk.events("master:app") == []
    talk.wait(0.2)
    assert talk.events("master:app") == ["beat"]
    talk.actor.supervise("app", Shutdown())
    assert talk.host.take() == []
    assert talk.wait(2.1) == [("send", APP, Stop(19.0))]


def test_a_hang_is_for_whom_it_is_meant() -> None:
    talk = conversation()
    fault = Inject("f", "hang", "master:app", seconds=3.0)
    talk.actor.inject(fault)
    assert talk.desk.hung == []
    assert talk.host.take() == [("send", APP, fault)]
    talk.actor.inject(Inject("f", "hang", "emperor", seconds=3.0))
    assert talk.desk.hung == [3.0]
    assert talk.host.take() == []


def test_what_children_trace_goes_up() -> None:
    talk = conversation()
    trace = Trace(1.0, "worker:app/1", "state", "READY", 7)
    talk.tell(Said(APP, trace))
    assert talk.states("worker:app/1") == ["READY"]


# ---- the Emperor --------------------------------------------------------------------------------------------


class Sockets:
    def __init__(self) -> None:
        self.bound: list[str] = []

    def bind(self, vassal: Vassal, claim: str = "", sharing: Collection[str] = ()) -> None:
        self.bound.append(claim)

    def release(self, claim: str) -> None:
        self.bound.remove(claim)

    def doorbell(self, claim: str) -> SocketDoorbell:
        raise AssertionError("nobody sleeps here")


def emperor(*names: str, heartbeat: float = 0.0) -> tuple[Conversation, Sockets, dict[str, Key]]:
    """An Emperor whose vassals are ready."""
    sockets = Sockets()
    supervision = birth().vassal.supervision
    vassals = [Govern(Vassal(name, heartbeat=heartbeat, supervision=supervision)) for name in names]
    options = EmperorOptions()

    def make(talk: Conversation) -> Emperor:
        journal = Journal("emperor", talk.traces.append)
        return Emperor(talk.desk, lambda _: talk.host, journal, options, sockets, vassals, chance=lambda: 0.5)

    talk = Conversation(make)
    started, *forks = talk.begin()
    assert started == ("start",)
    keys = {key.name: key for _, key, _ in forks}
    assert list(keys) == list(names) == sockets.bound
    for key in keys.values():
        talk.tell(Born(key, 1), Said(key, Ready()))
    return talk, sockets, keys


def test_the_emperor_ends_after_all_its_vassals() -> None:
    talk, sockets, keys = emperor("a", "b")
    assert talk.tell(Quit("SIGTERM")) == [("send", key, Stop(19.0)) for key in keys.values()]
    assert talk.tell(Died(keys["a"], 0)) == [("forget", keys["a"])]
    assert sockets.bound == ["b"]
    assert talk.tell(Died(keys["b"], 0)) == [("forget", keys["b"]), ("close",)]
    assert sockets.bound == []
    assert not talk.stopped()
    talk.tell(HostClosed())
    assert talk.stopped()


def test_a_second_wish_to_quit_is_a_wish_for_haste_unless_it_is_the_first_twice() -> None:
    talk, _, keys = emperor("a")
    talk.tell(Quit("SIGTERM"))
    assert talk.tell(Quit("SIGINT")) == [], "a terminal and timeout(1) signal twice"
    talk.wait(1)
    assert talk.tell(Quit("SIGINT")) == [("kill", keys["a"], True), ("kill_rest",)]


def test_who_is_left_without_a_supervisor_has_its_mercy_too() -> None:
    talk, _, keys = emperor("a")
    talk.tell(Quit("SIGTERM"))
    assert ("close",) in talk.tell(Died(keys["a"], 0))
    assert talk.wait(19) == []
    assert talk.wait(2) == [("kill_rest",)]
    assert talk.wait(7) == [("kill_rest",)]
    assert not talk.stopped()
    talk.wait(7)
    assert talk.stopped(), "what hangs in the kernel does not hold the Emperor"


def test_an_emperor_without_vassals_ends_at_once() -> None:
    talk, _, _ = emperor()
    assert talk.tell(Quit("SIGTERM")) == [("close",)]


def test_a_dead_fork_server_is_replaced_but_not_in_a_storm() -> None:
    talk, _, keys = emperor("a", "b")
    for _ in range(3):
        talk.tell(HostLost())
        assert talk.wait(0) == [("restart", ["a", "b"])]
        talk.wait(0.5)
    talk.tell(HostLost())
    assert talk.wait(8) == []
    assert talk.wait(2) == [("restart", ["a", "b"])]
    assert talk.events("fork-server") == ["start"] + ["exit", "restart"] * 4
    assert talk.actor.children_up == len(keys)


def test_a_fork_server_that_dies_at_the_end_is_not_replaced() -> None:
    talk, _, keys = emperor("a")
    talk.tell(Quit("SIGTERM"), Died(keys["a"], 0), HostLost())
    assert talk.wait(5) == []


def test_dead_children_of_the_emperor_are_the_hosts_business() -> None:
    talk, _, _ = emperor("a")
    assert talk.tell(ChildEnded()) == [("reap",)]


def test_a_vassal_is_loyal_and_its_wish_for_beats_is_limited() -> None:
    talk, _, keys = emperor("a", heartbeat=25.0)
    talk.tell(Said(keys["a"], Accepting()))
    talk, _, _ = emperor("a", heartbeat=4.0)
    (wish,) = [child.birth.beat for child in talk.actor._children.values()]
    assert wish == 4.0
    talk, _, _ = emperor("a", heartbeat=25.0)
    (wish,) = [child.birth.beat for child in talk.actor._children.values()]
    assert wish == 10.0


def test_who_plays_the_scenario_can_harm_and_when_it_is_gone_all_ends() -> None:
    talk, _, keys = emperor("a")
    fault = Inject("f", "hang", "worker:a/1")
    assert talk.tell(FromParent(fault)) == [("send", keys["a"], fault)]
    assert talk.tell(ParentLost("closed")) == [("send", keys["a"], Stop(19.0))]


def test_one_vassals_failures_are_not_its_neighbours() -> None:
    talk, _, keys = emperor("a", "b")
    key = keys["a"]
    for _ in range(8):
        talk.tell(Died(key, 1))
        for fork in talk.wait(5):
            key = fork[1]
            assert key.name == "a"
        for neighbour in ("b",):
            talk.tell(Said(keys[neighbour], Beat(1, talk.desk.time)))
    assert "CURSED" in talk.states("master:a")
    assert talk.states("master:b") == ["SPAWNING", "STARTING", "READY", "STABLE"]


# ---- a master -----------------------------------------------------------------------------------------------


class Up:
    """A link to the parent that remembers."""

    def __init__(self) -> None:
        self.sent: list[Message] = []
        self.closed = False

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        self.sent.append(message)

    def close(self) -> None:
        self.closed = True

    def take(self) -> list[Message]:
        sent, self.sent = self.sent, []
        return sent


def master(processes: int = 2, **supervision: Any) -> tuple[Conversation, Up, list[Key]]:
    """A master whose workers have been asked for."""
    link = Up()
    settings = birth(**supervision).vassal.supervision
    its_birth = Birth("master", Vassal("app", processes=processes, supervision=settings), 10.0)

    def make(talk: Conversation) -> VassalMaster:
        journal = Journal("master:app")
        return VassalMaster(
            talk.desk, lambda _: talk.host, journal, its_birth, lambda _: link, chance=lambda: 0.5
        )

    talk = Conversation(make)
    forks = talk.begin()
    assert [(step, child.actor) for step, _, child in forks] == [
        ("fork", f"worker:app/{index}") for index in range(1, processes + 1)
    ]
    return talk, link, [key for _, key, _ in forks]


def ready(talk: Conversation, *keys: Key) -> None:
    for key in keys:
        talk.tell(Born(key, 1), Said(key, Ready()))


def test_a_master_is_ready_with_its_last_worker_and_then_beats() -> None:
    talk, link, keys = master()
    ready(talk, keys[0])
    assert link.take() == []
    ready(talk, keys[1])
    assert link.take() == [Ready(), Beat(1, 1000.0, 2)]
    core = Core(True, 1.5, 7, 4711)
    talk.tell(Said(keys[0], Beat(1, 1000.0, 0, 7, (core,))), Said(keys[1], Beat(1, 1000.0, 0, 5)))
    talk.wait(10)
    assert link.take() == [Beat(2, 1010.0, 2, 12, (core,))]


def test_beats_keep_their_grid_and_what_was_missed_is_not_made_up_for() -> None:
    talk, link, keys = master(1)
    ready(talk, *keys)
    link.take()
    talk.desk.time += 95  # the process was stopped
    talk.wait(0)
    assert [message.sent_at for message in link.take() if isinstance(message, Beat)] == [1095.0]
    talk.wait(25)
    assert [message.sent_at for message in link.take() if isinstance(message, Beat)] == [1105.0, 1115.0]


def test_a_master_answers_its_judge_whatever_its_workers_do() -> None:
    talk, link, keys = master()
    talk.tell(FromParent(Probe(5)))
    ready(talk, *keys)
    talk.tell(FromParent(Probe(6)))
    assert [message for message in link.take() if isinstance(message, Alive)] == [Alive(5), Alive(6)]


def test_loyalty_is_told_once() -> None:
    talk, link, keys = master()
    ready(talk, *keys)
    talk.tell(*[Said(key, Accepting()) for key in keys * 2])
    assert link.take().count(Accepting()) == 1


@pytest.mark.parametrize(
    "wish", [FromParent(Stop(5.0)), ParentLost("the peer closed the link"), Terminated(signal.SIGTERM)]
)
def test_a_master_stops_all_workers_at_once_and_then_itself(wish: object) -> None:
    talk, link, keys = master()
    ready(talk, *keys)
    done = talk.tell(wish)
    assert sorted(key for _, key, _ in done) == keys
    assert {step[2] for step in done} == {Stop(19.0)}
    talk.tell(wish)
    assert talk.tell(Died(keys[0], 0)) == [("forget", keys[0])]
    assert not link.closed
    talk.tell(Died(keys[1], 0))
    assert link.closed
    assert talk.stopped()
    assert talk.actor.exit_code == 0


def test_when_its_own_mercy_is_over_a_master_has_none() -> None:
    talk, _, keys = master()
    ready(talk, *keys)
    talk.tell(FromParent(Stop(5.0)))
    assert talk.wait(4.9) == []
    assert talk.wait(0.2) == [("kill", key, True) for key in keys]


def test_a_master_whose_workers_keep_dying_gives_up() -> None:
    talk, link, keys = master(1, intensity=2)
    key = keys[0]
    ready(talk, key)
    for _ in range(2):
        talk.tell(Died(key, 1))
        ((_, key, _),) = talk.wait(1)
        ready(talk, key)
    link.take()
    talk.tell(Died(key, 1))
    (farewell,) = link.take()
    assert isinstance(farewell, NotReady)
    assert "its workers keep failing" in farewell.reason
    assert not farewell.config
    assert talk.stopped()
    assert talk.actor.exit_code == EX_TEMPFAIL  # type: ignore[attr-defined]


def test_a_master_waits_for_another_fork_server() -> None:
    talk, _, keys = master(1)
    ready(talk, *keys)
    talk.wait(10)
    talk.tell(HostLost())
    assert talk.tell(FromParent(Office(), (17,))) == [("move", 17)]


def test_a_dead_worker_counts_no_more_but_what_it_served_does() -> None:
    talk, link, keys = master()
    ready(talk, *keys)
    talk.tell(Said(keys[0], Beat(1, 1000.0, 0, 7)), Said(keys[1], Beat(1, 1000.0, 0, 5)))
    talk.tell(Died(keys[1], -1, 9))
    link.take()
    talk.wait(10)
    (beat,) = [message for message in link.take() if isinstance(message, Beat)]
    assert (beat.ready, beat.requests) == (1, 12)
