"""OTP's own supervisor cases (supervisor_SUITE, Elixir's and RabbitMQ's), restated.

Each docstring opens with the number of the case: A starting, B administration, C restart types,
D strategies, E intensity, F shutdown, G significant children, I counts, J retry loops, P back-off. The cases
run in a simulated world: children are puppets, time is a number.
"""

import heapq
import itertools
import math
from collections import deque
from dataclasses import dataclass, replace
from typing import Any, get_args

import pytest

from pyemperor.actors.supervision import (
    NORMAL,
    SHUTDOWN,
    Absolve,
    AutoShutdown,
    Backoff,
    Boot,
    CancelWake,
    ChangeSpec,
    ChildSpec,
    ChildType,
    Counts,
    DeleteChild,
    Event,
    Exited,
    ExitKind,
    ExitReason,
    Flags,
    Gone,
    Ignored,
    Launch,
    Ok,
    Phase,
    Refused,
    Reply,
    Report,
    ReportKind,
    Request,
    Restart,
    RestartChild,
    Shutdown,
    StartChild,
    Started,
    StartFailed,
    Strategy,
    Supervisor,
    Terminate,
    TerminateChild,
    Waiting,
    Wake,
    Why,
)

ABNORMAL = ExitReason(ExitKind.ABNORMAL, "exit 1")
KILLED = ExitReason(ExitKind.KILLED)
ENV = ExitReason(ExitKind.ENV, "EAGAIN")
CONFIG = ExitReason(ExitKind.CONFIG, "exit 78")
PERMANENT, TRANSIENT, TEMPORARY = Restart
ONE_FOR_ONE, ONE_FOR_ALL, REST_FOR_ONE, SIMPLE = Strategy


def otp(strategy: Strategy = ONE_FOR_ONE, intensity: int = 1, period: float = 5.0, **others: Any) -> Flags:
    """OTP's flags and defaults: restarts do not wait."""
    return Flags(strategy, intensity, period, backoff=Backoff(initial=0), **others)


@dataclass
class Puppet:
    """How a child behaves; by default it starts at once and stops at once when asked."""

    #: How many of the next starts fail, and why.
    failing: float = 0
    failure: ExitReason = ABNORMAL
    ignoring: float = 0
    #: The start takes until ``World.ready``.
    slow: bool = False
    #: Seconds from the request to stop to the end; inf: it does not listen.
    obeys_after: float = 0.0
    last_word: ExitReason = SHUTDOWN


class World:
    """Carries out a supervisor's commands on puppets, in simulated time."""

    def __init__(self, flags: Flags, *specs: ChildSpec, **puppets: Puppet) -> None:
        self.now = 0.0
        self.supervisor = Supervisor(flags, specs, random=lambda: 0.5)
        self.puppets = puppets
        #: ("start" | "stop", id), in order; ``starts`` has the times.
        self.trace: list[tuple[str, str]] = []
        self.starts: list[tuple[float, str]] = []
        self.reports: list[Report] = []
        self.waits: list[Waiting] = []
        self.gone: ExitReason | None = None
        #: Live incarnations: id -> (generation, pid).
        self.live: dict[str, tuple[int, int]] = {}
        self._pids = itertools.count(100)
        self._replies: dict[int, Any] = {}
        self._events: deque[Event] = deque()
        self._timers: list[tuple[float, int, Event]] = []
        self._cancelled: set[Event] = set()
        self._order = itertools.count()

    # ---- what a test does --------------------------------------------------------------------------

    def boot(self) -> "World":
        assert self.ask(Boot()) is not None
        return self

    def ask(self, request: Request) -> Any:
        """Return the answer, None if there is none yet."""
        return self.result(self.send(request))

    def send(self, request: Request) -> int:
        ticket = next(self._order)
        self.feed(replace(request, sender=ticket))
        return ticket

    def result(self, ticket: int) -> Any:
        return self._replies.get(ticket)

    def end(self, id: str, reason: ExitReason = ABNORMAL) -> None:
        """The child ends by itself."""
        generation, _ = self.live.pop(id)
        self.feed(Exited(id, generation, reason))

    def ready(self, id: str) -> None:
        """A slow child has started."""
        generation, pid = self.live[id]
        self.feed(Started(id, generation, pid))

    def advance(self, seconds: float) -> None:
        """Let time pass, with everything that happens in it."""
        until = self.now + seconds
        while self._timers and self._timers[0][0] <= until:
            self.now, _, event = heapq.heappop(self._timers)
            if event in self._cancelled:
                continue
            if isinstance(event, Exited):
                if self.live.get(event.id, (0, 0))[0] != event.generation:
                    continue
                del self.live[event.id]
            self.feed(event)
        self.now = until

    def feed(self, event: Event) -> None:
        self._events.append(event)
        if len(self._events) > 1:
            return
        while self._events:
            for command in self.supervisor.handle(self._events[0], self.now):
                self._carry_out(command)
            self._events.popleft()

    # ---- what a test looks at ----------------------------------------------------------------------

    def pid(self, id: str) -> int:
        return self.live[id][1]

    def pids(self) -> dict[str, int]:
        return {id: pid for id, (_, pid) in self.live.items()}

    def phases(self) -> dict[str, Phase]:
        return {info.id: info.phase for info in self.supervisor.which_children()}

    def counts(self) -> tuple[int, int]:
        counts = self.supervisor.count_children()
        return counts.specs, counts.active

    def kinds(self, id: str) -> list[ReportKind]:
        return [report.kind for report in self.reports if report.id == id]

    def shutdown_errors(self) -> list[tuple[str, ExitReason | None]]:
        kind = ReportKind.SHUTDOWN_ERROR
        return [(report.id, report.reason) for report in self.reports if report.kind is kind]

    # ---- hands -------------------------------------------------------------------------------------

    def puppet(self, id: str) -> Puppet:
        return self.puppets.setdefault(id.partition("/")[0], Puppet())

    def _carry_out(self, command: object) -> None:
        match command:
            case Launch():
                self._launch(command)
            case Terminate(id=id, generation=generation, shutdown=shutdown):
                self.trace.append(("stop", id))
                puppet = self.puppet(id)
                killed = puppet.obeys_after > shutdown or shutdown == 0
                reason = KILLED if killed else puppet.last_word
                delay = min(shutdown, puppet.obeys_after)
                if delay == 0:
                    self.live.pop(id, None)
                    self._events.append(Exited(id, generation, reason))
                elif delay < math.inf:
                    self._set(self.now + delay, Exited(id, generation, reason))
            case Wake(at=at, due=due):
                self._set(at, due)
            case CancelWake(due=due):
                self._cancelled.add(due)
            case Waiting():
                self.waits.append(command)
            case Report():
                self.reports.append(command)
            case Reply(event=event, result=result):
                assert event.sender not in self._replies, "answered twice"
                self._replies[event.sender] = result  # type: ignore[index]
            case Gone(reason=reason):
                assert self.gone is None
                assert not self.live, "it left children behind"
                self.gone = reason

    def _launch(self, launch: Launch) -> None:
        id, generation, puppet = launch.id, launch.generation, self.puppet(launch.id)
        assert id not in self.live, "two incarnations at once"
        self.trace.append(("start", id))
        self.starts.append((round(self.now, 3), id))
        if puppet.ignoring:
            puppet.ignoring -= 1
            self._events.append(Ignored(id, generation))
        elif puppet.failing:
            puppet.failing -= 1
            self._events.append(StartFailed(id, generation, puppet.failure))
        else:
            pid = next(self._pids)
            self.live[id] = (generation, pid)
            if not puppet.slow:
                self._events.append(Started(id, generation, pid))

    def _set(self, at: float, event: Event) -> None:
        heapq.heappush(self._timers, (at, next(self._order), event))


def specs(ids: str, **fields: Any) -> list[ChildSpec]:
    return [ChildSpec(id, **fields) for id in ids.split()]


def failed(result: Any, id: str) -> bool:
    return isinstance(result, Refused) and result.why is Why.FAILED and result.id == id


# ---- A. starting -----------------------------------------------------------------------------------


def test_start_normal() -> None:
    """A01 sup_start_normal: boot without children, stop, and it ends ``shutdown``."""
    world = World(otp())
    assert world.ask(Boot()) == Ok()
    assert world.ask(Shutdown()) == Ok()
    assert world.gone == SHUTDOWN


def test_start_ignored_child() -> None:
    """A03 sup_start_ignore_child: it is listed without a pid, its sibling lives."""
    world = World(otp(), *specs("a b"), a=Puppet(ignoring=1)).boot()
    assert world.phases() == {"a": Phase.DOWN, "b": Phase.UP}
    assert world.counts() == (2, 1)


def test_start_ignored_temporary_child() -> None:
    """A04, A05 sup_start_ignore_temporary_child: its spec is forgotten, at boot and by start_child."""
    world = World(otp(), *specs("a b", restart=TEMPORARY), a=Puppet(ignoring=2)).boot()
    assert world.counts() == (1, 1)
    assert world.ask(StartChild(ChildSpec("a", restart=TEMPORARY))) == Ok("a")
    assert world.counts() == (1, 1)


@pytest.mark.parametrize("restart", [TEMPORARY, PERMANENT])
def test_start_ignored_simple(restart: Restart) -> None:
    """A06, A07 sup_start_ignore_*_simple: no record of the ignored instance, and a clean stop."""
    world = World(otp(SIMPLE), ChildSpec("a", restart=restart), a=Puppet(ignoring=1)).boot()
    assert world.ask(StartChild()) == Ok("a/1")
    second = world.ask(StartChild())
    assert (second.id, second.handle) == ("a/2", world.pid("a/2"))
    assert world.counts() == (1, 1)
    world.ask(Shutdown())
    assert world.gone == SHUTDOWN


def test_failed_boot() -> None:
    """A10 faulty_application_shutdown: c1 is stopped, c3 never started, the root cause preserved."""
    world = World(otp(), *specs("c1 c2 c3"), c2=Puppet(failing=1))
    assert world.ask(Boot()) == Refused(Why.FAILED, "c2", reason=ABNORMAL)
    assert world.trace == [("start", "c1"), ("start", "c2"), ("stop", "c1")]
    assert world.gone == ExitReason(ExitKind.SHUTDOWN, f"failed_to_start_child c2: {ABNORMAL}")


def test_failed_boot_under_curse() -> None:
    """A10 (at the Emperor): the others go on, and the failed one is tried again."""
    world = World(Flags(on_exceed="curse"), *specs("c1 c2 c3"), c2=Puppet(failing=1)).boot()
    assert world.phases() == {"c1": Phase.UP, "c2": Phase.BACKOFF, "c3": Phase.UP}
    world.advance(0.1)
    assert world.phases()["c2"] is Phase.UP


def test_start_child_error() -> None:
    """A11 sup_start_child_returns_error: the error has the reason, the spec is not kept."""
    world = World(otp(), a=Puppet(failing=1)).boot()
    assert world.ask(StartChild(ChildSpec("a"))) == Refused(Why.FAILED, "a", reason=ABNORMAL)
    assert world.counts() == (0, 0)


def test_start_child_error_under_curse() -> None:
    """A11 (at the Emperor): the file stays, so the child waits for its next attempt."""
    world = World(Flags(on_exceed="curse"), a=Puppet(failing=1)).boot()
    assert failed(world.ask(StartChild(ChildSpec("a"))), "a")
    assert world.phases() == {"a": Phase.BACKOFF}
    world.advance(0.1)
    assert world.counts() == (1, 1)


def test_restart_child_error() -> None:
    """A12 sup_start_restart_child_returns_error: the spec is kept, without a pid."""
    world = World(otp(), *specs("a")).boot()
    world.ask(TerminateChild("a"))
    world.puppet("a").failing = 1
    assert failed(world.ask(RestartChild("a")), "a")
    assert world.phases() == {"a": Phase.DOWN}


def test_start_child_error_simple() -> None:
    """A13 sup_start_child_returns_error_simple: an error and no record."""
    world = World(otp(SIMPLE), ChildSpec("a"), a=Puppet(failing=1)).boot()
    assert failed(world.ask(StartChild()), "a/1")
    assert world.counts() == (0, 0)


def test_spec_defaults() -> None:
    """A14 sup_start_map: permanent, 5 s, worker; infinity for a supervisor; brutal is 0."""
    world = World(otp(), ChildSpec("a"), ChildSpec("b", shutdown=0), ChildSpec("c", type="supervisor"))
    spec = world.supervisor.get_childspec("a")
    assert spec == ChildSpec("a", None, (), PERMANENT, 5.0, "worker", False)
    shutdowns = [spec.shutdown for id in "abc" if (spec := world.supervisor.get_childspec(id))]
    assert shutdowns == [5.0, 0, math.inf]
    assert world.supervisor.get_childspec("d") is None


def test_spec_of_instances() -> None:
    """A15 sup_start_map_simple: the full spec of each instance can be read."""
    world = World(otp(SIMPLE), ChildSpec("a", start="f", args=(1,))).boot()
    for n in range(1, 4):
        world.ask(StartChild(args=(n,)))
        assert world.supervisor.get_childspec(f"a/{n}") == ChildSpec(f"a/{n}", "f", (1, n))
    assert world.supervisor.get_childspec("a") is None


def test_faulty_specs() -> None:
    """A16 sup_start_map_faulty_specs: no id, an unknown key."""
    with pytest.raises(TypeError, match="id"):
        ChildSpec()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="modules"):
        ChildSpec("a", modules=[])  # type: ignore[call-arg]


def test_extra_return() -> None:
    """A17 extra_return: what the start returns is handed on unchanged, also on restart; a crash restarts."""
    world = World(otp()).boot()
    extra = ("pid", {"port": 80})
    ticket = None
    world.puppet("a").slow = True
    ticket = world.send(StartChild(ChildSpec("a")))
    world.feed(Started("a", world.live["a"][0], extra))
    assert world.result(ticket) == Ok("a", extra)
    world.end("a")
    world.feed(Started("a", world.live["a"][0], extra))
    assert [info.handle for info in world.supervisor.which_children()] == [extra]


# ---- B. administration -----------------------------------------------------------------------------


def test_already_started_and_present() -> None:
    """A20, B01, B02 child_adm: the same id while it runs, and while it is terminated."""
    world = World(otp(), *specs("a")).boot()
    pid = world.pid("a")
    assert world.ask(StartChild(ChildSpec("a"))) == Refused(Why.ALREADY_STARTED, "a", pid)
    world.ask(TerminateChild("a"))
    assert world.ask(StartChild(ChildSpec("a"))) == Refused(Why.ALREADY_PRESENT, "a")


def test_terminate_child() -> None:
    """B03, B07 child_adm: ok, again ok, unknown (also a pid) not_found; the spec stays."""
    world = World(otp(), *specs("a")).boot()
    pid = str(world.pid("a"))
    assert world.ask(TerminateChild(pid)) == Refused(Why.NOT_FOUND, pid)
    assert world.counts() == (1, 1)
    assert world.ask(TerminateChild("a")) == Ok("a")
    assert world.ask(TerminateChild("a")) == Ok("a")
    assert world.ask(TerminateChild("b")) == Refused(Why.NOT_FOUND, "b")
    assert world.counts() == (1, 0)


def test_restart_child() -> None:
    """B04 child_adm: new pid, ``running``, not_found."""
    world = World(otp(), *specs("a")).boot()
    old = world.pid("a")
    world.ask(TerminateChild("a"))
    assert world.ask(RestartChild("a")) == Ok("a", world.pid("a"))
    assert world.pid("a") != old
    assert world.ask(RestartChild("a")) == Refused(Why.RUNNING, "a", world.pid("a"))
    assert world.ask(RestartChild("b")) == Refused(Why.NOT_FOUND, "b")


def test_delete_child() -> None:
    """B05 child_adm: ``running``; then ok; then not_found, also for restart."""
    world = World(otp(), *specs("a")).boot()
    assert world.ask(DeleteChild("a")) == Refused(Why.RUNNING, "a", world.pid("a"))
    world.ask(TerminateChild("a"))
    assert world.ask(DeleteChild("a")) == Ok("a")
    assert world.ask(DeleteChild("a")) == Refused(Why.NOT_FOUND, "a")
    assert world.ask(RestartChild("a")) == Refused(Why.NOT_FOUND, "a")


@pytest.mark.parametrize(
    "request_", [StartChild(ChildSpec("z")), TerminateChild("a"), RestartChild("a"), DeleteChild("a")]
)
def test_dead_supervisor(request_: Request) -> None:
    """B06 child_adm: any call to a supervisor that is dead, dying or not yet born is refused at once."""
    world = World(otp(), *specs("a"), a=Puppet(obeys_after=1))
    assert world.ask(request_) == Refused(Why.NOPROC)
    world.boot()
    world.send(Shutdown())
    assert world.ask(request_) == Refused(Why.NOPROC)
    world.advance(2)
    assert world.gone == SHUTDOWN
    assert world.ask(request_) == Refused(Why.NOPROC)
    assert world.ask(Shutdown()) == Ok()


def test_simple_administration() -> None:
    """B08 child_adm_simple: terminate ok, then not_found; restart, delete and a foreign spec unsupported."""
    world = World(otp(SIMPLE), ChildSpec("a")).boot()
    world.ask(StartChild())
    assert world.ask(RestartChild("a/1")).why is Why.BAD_REQUEST
    assert world.ask(DeleteChild("a/1")).why is Why.BAD_REQUEST
    assert world.ask(StartChild(ChildSpec("b"))).why is Why.BAD_REQUEST
    assert world.ask(TerminateChild("a/1")) == Ok("a/1")
    assert world.ask(TerminateChild("a/1")) == Refused(Why.NOT_FOUND, "a/1")


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"id": ""}, "id"),
        ({"restart": "always"}, "always"),
        ({"shutdown": -2}, "shutdown"),
        ({"shutdown": math.nan}, "shutdown"),
        ({"type": "process"}, "type"),
    ],
)
def test_faulty_child_specs(fields: dict[str, Any], word: str) -> None:
    """B09 child_specs: each field wrong in turn is named."""
    with pytest.raises(ValueError, match=word):
        ChildSpec(**{"id": "a", **fields})


def test_product_of_child_specs() -> None:
    """B10 child_specs_map: the whole product is accepted but for the two bad combinations."""
    for auto, restart, shutdown, kind, significant in itertools.product(
        get_args(AutoShutdown), Restart, (0, 1, 5000.0, math.inf, -1.0), get_args(ChildType), (False, True)
    ):

        def build(
            auto: AutoShutdown = auto,
            restart: Restart = restart,
            shutdown: float = shutdown,
            kind: ChildType = kind,
            significant: bool = significant,
        ) -> Supervisor:
            spec = ChildSpec("a", None, (), restart, shutdown, kind, significant)
            return Supervisor(Flags(auto_shutdown=auto), [spec], random=lambda: 0.5)

        if significant and (restart is PERMANENT or auto == "never"):
            with pytest.raises(ValueError, match="significant"):
                build()
        else:
            build()


def test_duplicates_and_simple_specs() -> None:
    """B11 child_specs: duplicate ids; simple_one_for_one with 0 or 2 specs; bad combinations later."""
    with pytest.raises(ValueError, match="duplicate child id: a"):
        World(otp(), *specs("a b a"))
    for children in ([], specs("a b")):
        with pytest.raises(ValueError, match="exactly one"):
            World(otp(SIMPLE), *children)
    world = World(otp()).boot()
    bad = world.ask(StartChild(ChildSpec("a", restart=TRANSIENT, significant=True)))
    assert bad.why is Why.BAD_REQUEST
    assert "auto_shutdown" in bad.reason.detail
    assert world.ask(StartChild()).why is Why.BAD_REQUEST


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"strategy": "none_for_one"}, "none_for_one"),
        ({"intensity": math.inf}, "intensity"),
        ({"intensity": -1}, "intensity"),
        ({"period": 0}, "period"),
        ({"period": math.inf}, "period"),
        ({"auto_shutdown": "some"}, "auto_shutdown"),
        ({"on_exceed": "ignore"}, "on_exceed"),
        ({"stable_after": -1}, "stable_after"),
        ({"max_children": -1}, "max_children"),
        ({"strategy": ONE_FOR_ALL, "parallel": True}, "parallel"),
    ],
)
def test_faulty_flags(fields: dict[str, Any], word: str) -> None:
    """B12 sup_flags: each flag wrong in turn is named."""
    with pytest.raises(ValueError, match=word):
        Flags(**fields)


def test_life_cycle() -> None:
    """B13 Elixir's life cycle: start, list, count, delete refused, terminate, restart, terminate, delete."""
    world = World(otp()).boot()
    assert world.ask(StartChild(ChildSpec("a"))) == Ok("a", world.pid("a"))
    (info,) = world.supervisor.which_children()
    assert (info.id, info.handle, info.type) == ("a", world.pid("a"), "worker")
    assert world.supervisor.count_children() == Counts(1, 1, 0, 1)
    assert world.ask(DeleteChild("a")).why is Why.RUNNING
    assert world.ask(TerminateChild("a")) == Ok("a")
    assert world.ask(RestartChild("a")) == Ok("a", world.pid("a"))
    assert world.ask(TerminateChild("a")) == Ok("a")
    assert world.ask(DeleteChild("a")) == Ok("a")
    assert world.counts() == (0, 0)


def test_max_children() -> None:
    """B14 Elixir's max_children: none at all; one, which is being restarted."""
    world = World(otp(max_children=0)).boot()
    assert world.ask(StartChild(ChildSpec("a"))) == Refused(Why.MAX_CHILDREN, "a")
    world = World(Flags(max_children=1), *specs("a")).boot()
    world.end("a")
    assert world.phases() == {"a": Phase.BACKOFF}
    assert world.ask(StartChild(ChildSpec("b"))) == Refused(Why.MAX_CHILDREN, "b")


# ---- C. restart types ------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN, ABNORMAL])
def test_permanent(reason: ExitReason) -> None:
    """C01 permanent_normal, C02 _shutdown, C03 _abnormal: restarted each time with a new pid."""
    world = World(otp(intensity=2), *specs("a")).boot()
    for _ in range(2):
        old = world.pid("a")
        world.end("a", reason)
        assert world.pid("a") != old


@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN])
def test_transient_expected(reason: ExitReason) -> None:
    """C04 transient_normal, C05 _shutdown: kept without a pid; restart_child works."""
    world = World(otp(), *specs("a", restart=TRANSIENT)).boot()
    world.end("a", reason)
    assert world.counts() == (1, 0)
    assert world.ask(RestartChild("a")) == Ok("a", world.pid("a"))


def test_transient_abnormal() -> None:
    """C06 transient_abnormal: restarted."""
    world = World(otp(), *specs("a", restart=TRANSIENT)).boot()
    world.end("a")
    assert world.counts() == (1, 1)


@pytest.mark.parametrize("reason", [NORMAL, SHUTDOWN, ABNORMAL])
def test_temporary(reason: ExitReason) -> None:
    """C07 temporary_normal, C08 _shutdown, C09 _abnormal: gone; the same id may be started again."""
    world = World(otp(), *specs("a", restart=TEMPORARY)).boot()
    world.end("a", reason)
    assert world.counts() == (0, 0)
    assert isinstance(world.ask(StartChild(ChildSpec("a", restart=TEMPORARY))), Ok)


@pytest.mark.parametrize("strategy", [ONE_FOR_ONE, ONE_FOR_ALL, REST_FOR_ONE])
@pytest.mark.parametrize("restart", list(Restart))
@pytest.mark.parametrize("end", [ABNORMAL, NORMAL, "terminated"])
def test_child_specs_kept(strategy: Strategy, restart: Restart, end: Any) -> None:
    """C10 dont_save_child_specs: what is left of the spec, by restart type and by how the child ended."""
    world = World(otp(strategy), *specs("a", restart=restart)).boot()
    if end == "terminated":
        world.ask(TerminateChild("a"))
    else:
        world.end("a", end)
    restarted = end != "terminated" and (restart is PERMANENT or (restart is TRANSIENT and end == ABNORMAL))
    assert world.counts() == ((0, 0) if restart is TEMPORARY else (1, int(restarted)))


def test_start_arguments_of_temporary_children() -> None:
    """C11 do_not_save_start_parameters: nothing that a temporary child was started with is kept."""
    world = World(otp(SIMPLE), ChildSpec("a", start="f", restart=TEMPORARY)).boot()
    for n in range(100):
        world.ask(StartChild(args=("large", n)))
    world.end("a/50")
    world.ask(StartChild(args=("large", 100)))
    kept = [world.supervisor.get_childspec(info.id) for info in world.supervisor.which_children()]
    assert len(kept) == 100
    assert all(spec is not None and spec.args == () and spec.start is None for spec in kept)


@pytest.mark.parametrize("strategy", [ONE_FOR_ALL, REST_FOR_ONE])
def test_temporary_bystander(strategy: Strategy) -> None:
    """C12 temporary_bystander: the permanent one is restarted, the temporary one with it not."""
    world = World(otp(strategy), ChildSpec("a"), ChildSpec("b", restart=TEMPORARY)).boot()
    world.end("a")
    assert world.phases() == {"a": Phase.UP}
    assert world.gone is None
    assert world.trace[-2:] == [("stop", "b"), ("start", "a")]


def test_restart_answers() -> None:
    """C13 Elixir's changed returns: ``ignore`` leaves it without a pid, an error is tried again."""
    world = World(Flags(), *specs("a b")).boot()
    world.puppet("a").ignoring = 1
    world.puppet("b").failing = 1
    world.end("a")
    world.end("b")
    world.advance(0.15)
    assert world.phases() == {"a": Phase.DOWN, "b": Phase.BACKOFF}
    assert world.ask(RestartChild("b")) == Refused(Why.RESTARTING, "b")


# ---- D. strategies and order -----------------------------------------------------------------------


def test_one_for_one() -> None:
    """D01 one_for_one: the second keeps its pid."""
    world = World(otp(), *specs("a b")).boot()
    before = world.pids()
    world.end("a")
    assert world.pid("a") != before["a"]
    assert world.pid("b") == before["b"]


def test_one_for_all() -> None:
    """D02 one_for_all: both are new, no old one lives."""
    world = World(otp(ONE_FOR_ALL), *specs("a b")).boot()
    before = set(world.pids().values())
    world.end("a")
    assert len(world.pids()) == 2
    assert not before & set(world.pids().values())


def test_rest_for_one() -> None:
    """D03 rest_for_one: the first keeps its pid, the second and third are new."""
    world = World(otp(REST_FOR_ONE), *specs("a b c")).boot()
    before = world.pids()
    world.end("b")
    changed = {id for id, pid in world.pids().items() if pid != before[id]}
    assert changed == {"b", "c"}
    assert world.pids().keys() == before.keys()


def test_a_terminated_child_does_not_come_back_with_the_others() -> None:
    """D02, B: who is on its way out by terminate_child stays down, though another one dies meanwhile."""
    world = World(otp(ONE_FOR_ALL), *specs("a b c"), b=Puppet(obeys_after=2.0)).boot()
    before = world.pids()
    ticket = world.send(TerminateChild("b"))
    world.end("a")
    assert world.result(ticket) is None
    world.advance(3)
    assert world.result(ticket) == Ok("b")
    assert world.phases() == {"a": Phase.UP, "b": Phase.DOWN, "c": Phase.UP}
    assert before["c"] != world.pid("c")


def test_simple_one_for_one() -> None:
    """D04 simple_one_for_one: the other instance is untouched; the restarted one gets its arguments again."""
    world = World(otp(SIMPLE), ChildSpec("a")).boot()
    world.ask(StartChild(args=("x",)))
    world.ask(StartChild(args=("y",)))
    before = world.pids()
    world.end("a/2")
    assert world.pid("a/1") == before["a/1"]
    assert world.pid("a/2") != before["a/2"]
    spec = world.supervisor.get_childspec("a/2")
    assert spec is not None
    assert spec.args == ("y",)


def test_one_for_all_other_fails() -> None:
    """D05 one_for_all_other_child_fails_restart: the new c1 is stopped before the next attempt; then both."""
    world = World(otp(ONE_FOR_ALL, intensity=5), *specs("c1 c2")).boot()
    world.puppet("c2").failing = 1
    world.trace.clear()
    world.end("c1")
    steps = ["stop c2", "start c1", "start c2", "stop c1", "start c1", "start c2"]
    assert [" ".join(step) for step in world.trace] == steps
    assert world.counts() == (2, 2)


def test_rest_for_one_other_fails() -> None:
    """D06 rest_for_one_other_child_fails_restart: c1 is not restarted again, only c2 is retried."""
    world = World(otp(REST_FOR_ONE, intensity=5), *specs("c1 c2")).boot()
    world.puppet("c2").failing = 1
    world.trace.clear()
    world.end("c1")
    assert [" ".join(step) for step in world.trace] == ["stop c2", "start c1", "start c2", "start c2"]
    assert world.counts() == (2, 2)


def test_order_of_children() -> None:
    """D07 order_of_children: start as given; 5, 4 stopped, then 3, 4, 5 started; final stop 5 to 1."""
    ids = ["ch3", "ch1", "ch5", "ch2", "ch4"]
    world = World(otp(REST_FOR_ONE), *specs(" ".join(ids))).boot()
    one, two, three, four, five = ids
    assert world.trace == [("start", id) for id in ids]
    world.trace.clear()
    world.end(three)
    expected = [("stop", five), ("stop", four), ("start", three), ("start", four), ("start", five)]
    assert world.trace == expected
    world.trace.clear()
    world.ask(Shutdown())
    assert world.trace == [("stop", id) for id in (five, four, three, two, one)]


def test_each_waits_for_the_one_before() -> None:
    """D07 (asynchronous): at boot and in a restart of many, the next is started when the last one is up."""
    world = World(otp(ONE_FOR_ALL), *specs("a b"), a=Puppet(slow=True), b=Puppet(obeys_after=1))
    boot = world.send(Boot())
    assert world.trace == [("start", "a")]
    world.ready("a")
    assert world.trace == [("start", "a"), ("start", "b")]
    assert world.result(boot) == Ok()
    world.end("a")
    assert world.trace[2:] == [("stop", "b")]
    world.advance(1)
    assert world.trace[3:] == [("start", "a")]
    world.ready("a")
    assert world.trace[4:] == [("start", "b")]


def test_group_restart_brings_back_the_terminated() -> None:
    """D02 (source): a group is restarted whole, with those that were terminated or had ended normally."""
    world = World(otp(ONE_FOR_ALL), ChildSpec("a"), ChildSpec("b"), ChildSpec("c", restart=TRANSIENT)).boot()
    world.ask(TerminateChild("b"))
    world.end("c", NORMAL)
    assert world.counts() == (3, 1)
    world.end("a")
    assert world.counts() == (3, 3)


# ---- E. intensity and escalation -------------------------------------------------------------------


def test_multiple_restarts() -> None:
    """E01 multiple_restarts: 1 in 1 s, a death every 2.1 s: it lives."""
    world = World(otp(intensity=1, period=1), *specs("a")).boot()
    for _ in range(4):
        world.end("a")
        world.advance(2.1)
    assert world.counts() == (1, 1)


@pytest.mark.parametrize("strategy", [ONE_FOR_ONE, ONE_FOR_ALL, REST_FOR_ONE])
def test_frequency(strategy: Strategy) -> None:
    """E02-E04 one_for_one, one_for_all, rest_for_one: the third death of 2 in 3600 s stops all."""
    world = World(otp(strategy, 2, 3600), *specs("a b")).boot()
    for _ in range(2):
        world.end("a")
        assert world.counts() == (2, 2)
    world.end("a")
    assert world.gone == SHUTDOWN
    assert world.kinds("a")[-1] is ReportKind.REACHED_MAX_RESTART_INTENSITY
    assert world.trace[-1] == ("stop", "b")


def test_frequency_simple() -> None:
    """E05 simple_one_for_one: likewise."""
    world = World(otp(SIMPLE, 2, 3600), ChildSpec("a")).boot()
    world.ask(StartChild())
    world.ask(StartChild())
    for id in ("a/1", "a/2", "a/1"):
        world.end(id)
    assert world.gone == SHUTDOWN


@pytest.mark.parametrize("strategy", [ONE_FOR_ONE, ONE_FOR_ALL, REST_FOR_ONE])
def test_escalation(strategy: Strategy) -> None:
    """E06-E08 *_escalation: each attempt is charged; it gives up and stops the sibling."""
    world = World(otp(strategy, intensity=4), *specs("a b")).boot()
    world.puppet("a").failing = math.inf
    world.end("a")
    assert world.gone == SHUTDOWN
    assert [id for _, id in world.starts[2:]] == ["a"] * 4
    assert world.trace.count(("stop", "b")) == 1


def test_escalation_simple() -> None:
    """E09 simple_one_for_one_escalation: likewise."""
    world = World(otp(SIMPLE, intensity=4), ChildSpec("a")).boot()
    world.ask(StartChild())
    world.ask(StartChild())
    world.puppet("a").failing = math.inf
    world.end("a/1")
    assert world.gone == SHUTDOWN
    assert [id for _, id in world.starts[2:]] == ["a/1"] * 4


@pytest.mark.parametrize(("last", "alive"), [(60.0, False), (60.001, True)])
def test_edges_of_the_window(last: float, alive: bool) -> None:
    """E10 rule: 2 deaths in [now - 60, now] are tolerated, a third is not: closed at both ends."""
    world = World(otp(intensity=2, period=60), *specs("a")).boot()
    world.end("a")
    world.advance(30)
    world.end("a")
    world.advance(last - 30)
    assert world.gone is None
    world.end("a")
    assert (world.gone is None) is alive


def test_no_intensity() -> None:
    """E11 rule: intensity 0, the first death escalates."""
    world = World(otp(intensity=0), *specs("a b")).boot()
    world.end("a")
    assert world.gone == SHUTDOWN


def test_shared_counter() -> None:
    """E12 rule: deaths of different children share one counter; under curse each has its own."""
    world = World(otp(intensity=2, period=60), *specs("a b c")).boot()
    for id in "abc":
        world.end(id)
    assert world.gone == SHUTDOWN
    world = World(otp(intensity=2, period=60, on_exceed="curse"), *specs("a b c")).boot()
    for id in "abcabc":
        world.end(id)
    assert world.counts() == (3, 3)


def test_normal_exit_is_charged() -> None:
    """E13 rule: a permanent child's normal end is charged too."""
    world = World(otp(intensity=1), *specs("a")).boot()
    world.end("a", NORMAL)
    world.end("a", NORMAL)
    assert world.gone == SHUTDOWN


def test_try_again() -> None:
    """E14 Elixir's try again: fails once, then recovers: two charges of two."""
    world = World(otp(intensity=2), *specs("a")).boot()
    world.puppet("a").failing = 1
    world.end("a")
    assert world.counts() == (1, 1)
    world.end("a")
    assert world.gone == SHUTDOWN


@pytest.mark.parametrize("intensity", [1, 10])
def test_max_restarts_trying_again(intensity: int) -> None:
    """E15 Elixir's max restarts: it always fails, so the supervisor ends."""
    world = World(otp(intensity=intensity), *specs("a")).boot()
    world.puppet("a").failing = math.inf
    world.end("a")
    assert world.gone == SHUTDOWN
    assert len(world.starts) == 1 + intensity


@pytest.mark.parametrize(("initial", "next_start"), [(3.0, 5.001), (20.0, 20.0)])
def test_delay_and_window(initial: float, next_start: float) -> None:
    """E16 RabbitMQ's delay: exceeded, it lives; next try when both the delay and the window permit."""
    flags = Flags(intensity=1, period=5, on_exceed="curse", backoff=Backoff(initial, max=20, jitter=0))
    world = World(flags, *specs("a")).boot()
    world.advance(flags.stable_after)
    world.starts.clear()
    zero = world.now
    world.end("a")  # it was stable: at once
    world.end("a")
    assert world.starts == [(zero, "a")]
    world.advance(60)
    assert times(world, "a")[1] == pytest.approx(zero + next_start)
    assert world.gone is None


# ---- F. shutdown -----------------------------------------------------------------------------------


def test_stop_infinity() -> None:
    """F01 sup_stop_infinity: supervisor and worker with infinity are waited for."""
    slow = Puppet(obeys_after=3600)
    children = [ChildSpec("s", type="supervisor"), ChildSpec("w", shutdown=math.inf)]
    world = World(otp(), *children, s=slow, w=slow).boot()
    world.send(Shutdown())
    world.advance(7199)
    assert world.gone is None
    world.advance(1)
    assert world.gone == SHUTDOWN


def test_stop_timeout() -> None:
    """F02 sup_stop_timeout: one obeys; the other one is killed after its second, and that is reported."""
    world = World(otp(), *specs("a b", shutdown=1), b=Puppet(obeys_after=math.inf)).boot()
    world.send(Shutdown())
    world.advance(0.999)
    assert world.gone is None
    world.advance(0.001)
    assert world.gone == SHUTDOWN
    assert ReportKind.SHUTDOWN_ERROR in world.kinds("b")
    assert ReportKind.SHUTDOWN_ERROR not in world.kinds("a")


def test_stop_timeout_dynamic() -> None:
    """F03 sup_stop_timeout_dynamic: the same for instances."""
    world = World(otp(SIMPLE), ChildSpec("a", shutdown=1), a=Puppet(obeys_after=math.inf)).boot()
    world.ask(StartChild())
    world.ask(StartChild())
    world.send(Shutdown())
    world.advance(1)
    assert world.gone == SHUTDOWN


@pytest.mark.parametrize("strategy", [ONE_FOR_ONE, SIMPLE])
def test_brutal_kill(strategy: Strategy) -> None:
    """F04, F05 sup_stop_brutal_kill(_dynamic): killed at once, all ten, without complaint."""
    simple = strategy is SIMPLE
    children = [ChildSpec("a", shutdown=0)] if simple else specs("a b c d e f g h i j", shutdown=0)
    world = World(otp(strategy), *children, a=Puppet(obeys_after=math.inf)).boot()
    for _ in range(10 if simple else 0):
        world.ask(StartChild())
    assert world.counts() == (10, 10)
    assert world.ask(Shutdown()) == Ok()
    assert world.gone == SHUTDOWN
    assert ReportKind.SHUTDOWN_ERROR not in [report.kind for report in world.reports]


def test_stop_race() -> None:
    """F06 sup_stop_race: 12 children end by themselves during the stop; nobody is restarted, reasons kept."""
    reasons = {"N": NORMAL, "Q": SHUTDOWN, "x": ExitReason(ExitKind.SHUTDOWN, "x"), "A": ABNORMAL}
    children = [ChildSpec(f"{r}-{name}", restart=r, shutdown=10) for r in Restart for name in reasons]
    slow = {spec.id: Puppet(obeys_after=math.inf) for spec in children}
    world = World(otp(intensity=0), *children, **slow).boot()
    world.send(Shutdown())
    world.starts.clear()
    for spec in children:
        world.end(spec.id, reasons[spec.id[-1]])
    assert world.gone == SHUTDOWN
    assert world.starts == []
    assert dict(world.shutdown_errors()) == {
        "permanent-A": ABNORMAL,
        "transient-A": ABNORMAL,
        "temporary-A": ABNORMAL,
        "permanent-N": NORMAL,
    }


@pytest.mark.parametrize("word", [NORMAL, SHUTDOWN, ABNORMAL, KILLED])
@pytest.mark.parametrize("restart", list(Restart))
def test_non_shutdown_exit_dynamic(word: ExitReason, restart: Restart) -> None:
    """F07 sup_stop_non_shutdown_exit_dynamic: whatever the children answer, the supervisor completes."""
    world = World(otp(SIMPLE), ChildSpec("a", restart=restart), a=Puppet(last_word=word)).boot()
    world.ask(StartChild())
    world.ask(StartChild())
    world.ask(Shutdown())
    assert world.gone == SHUTDOWN


@pytest.mark.parametrize("parallel", [True, False])
def test_parallel_stop(parallel: bool) -> None:
    """F08 simple_one_for_one_shutdown: parallel children stop under one common timer, others one by one."""
    puppets = {"a": Puppet(obeys_after=1), "b": Puppet(obeys_after=1), "c": Puppet(obeys_after=5)}
    world = World(otp(parallel=parallel), *specs("a b c", shutdown=2), **puppets).boot()
    world.send(Shutdown())
    world.advance(1.999)
    assert world.gone is None
    world.advance(0.001)
    assert (world.gone is None) is not parallel
    world.advance(2)
    assert world.gone == SHUTDOWN


def test_stop_does_not_block() -> None:
    """F09 child_unlink: while a child does not stop, the supervisor serves everything else."""
    world = World(otp(), *specs("a b"), a=Puppet(obeys_after=math.inf)).boot()
    terminated = world.send(TerminateChild("a"))
    assert world.result(terminated) is None
    world.end("b")
    assert world.phases() == {"a": Phase.STOPPING, "b": Phase.UP}
    world.advance(5)
    assert world.result(terminated) == Ok("a")


def test_mixed_shutdown() -> None:
    """F10-F12 Elixir's expired, abnormal and mixed shutdowns: all are honoured."""
    children = [ChildSpec("i", shutdown=math.inf), ChildSpec("b", shutdown=0), ChildSpec("t", shutdown=0.001)]
    i, b, t = Puppet(obeys_after=9, last_word=ABNORMAL), Puppet(obeys_after=9), Puppet(obeys_after=9)
    world = World(otp(), *children, i=i, b=b, t=t).boot()
    world.send(Shutdown())
    world.advance(9.001)
    assert world.gone == SHUTDOWN
    assert world.shutdown_errors() == [("t", KILLED), ("i", ABNORMAL)]


def test_terminate_restarting_child() -> None:
    """F13 Elixir's terminate of a restarting child: ok, and no start follows."""
    world = World(Flags(), *specs("a")).boot()
    world.end("a")
    assert world.ask(TerminateChild("a")) == Ok("a")
    world.starts.clear()
    world.advance(100)
    assert world.starts == []
    assert world.counts() == (1, 0)
    assert world.supervisor.next_deadline is None


# ---- G. significant children -----------------------------------------------------------------------


@pytest.mark.parametrize("auto", get_args(AutoShutdown))
@pytest.mark.parametrize("restart", [TEMPORARY, TRANSIENT])
@pytest.mark.parametrize("end", [NORMAL, ABNORMAL, SHUTDOWN, "terminated"])
def test_nonsignificant(auto: AutoShutdown, restart: Restart, end: Any) -> None:
    """G01, G02 nonsignificant_*: never triggers, however it ends."""
    world = World(otp(auto_shutdown=auto), *specs("a b", restart=restart)).boot()
    if end == "terminated":
        world.ask(TerminateChild("a"))
    else:
        world.end("a", end)
    assert world.gone is None


@pytest.mark.parametrize("end", [NORMAL, ABNORMAL, KILLED])
def test_significant_temporary(end: ExitReason) -> None:
    """G03 significant_temporary: any end of its own triggers, a termination does not; all: after the last."""
    children = specs("a b", restart=TEMPORARY, significant=True) + specs("c")
    world = World(otp(auto_shutdown="any_significant"), *children).boot()
    world.ask(TerminateChild("b"))
    assert world.gone is None
    world.end("a", end)
    assert world.gone == SHUTDOWN
    world = World(otp(auto_shutdown="all_significant"), *children).boot()
    world.end("a", end)
    assert world.gone is None
    world.end("b", end)
    assert world.gone == SHUTDOWN


def test_significant_transient() -> None:
    """G04 significant_transient: an error restarts and does not trigger, a normal end does."""
    children = specs("a b", restart=TRANSIENT, significant=True)
    world = World(otp(auto_shutdown="all_significant"), *children).boot()
    world.end("a")
    assert world.counts() == (2, 2)
    world.end("a", NORMAL)
    assert world.gone is None
    world.end("b", NORMAL)
    assert world.gone == SHUTDOWN


@pytest.mark.parametrize("auto", ["any_significant", "all_significant"])
def test_significant_simple(auto: AutoShutdown) -> None:
    """G05 significant_simple: any, or the last instance."""
    spec = ChildSpec("a", restart=TRANSIENT, significant=True)
    world = World(otp(SIMPLE, auto_shutdown=auto), spec).boot()
    world.ask(StartChild())
    world.ask(StartChild())
    world.end("a/1", NORMAL)
    assert (world.gone == SHUTDOWN) is (auto == "any_significant")
    if world.gone is None:
        world.end("a/2", NORMAL)
    assert world.gone == SHUTDOWN


@pytest.mark.parametrize("strategy", [ONE_FOR_ALL, REST_FOR_ONE])
@pytest.mark.parametrize("auto", ["any_significant", "all_significant"])
def test_significant_bystander(strategy: Strategy, auto: AutoShutdown) -> None:
    """G06 significant_bystander: dying with a sibling never triggers."""
    children = [ChildSpec("a"), ChildSpec("b", restart=TEMPORARY, significant=True)]
    world = World(otp(strategy, auto_shutdown=auto), *children, b=Puppet(last_word=NORMAL)).boot()
    world.end("a")
    assert world.gone is None
    assert world.phases() == {"a": Phase.UP}


# ---- I. counts -------------------------------------------------------------------------------------


def test_count_children() -> None:
    """I01, I02 count_children(_supervisor): exact, stable, and 0 after all have ended."""
    world = World(otp(SIMPLE), ChildSpec("a", restart=TEMPORARY, type="supervisor")).boot()
    for total in (50, 100):
        while world.counts()[0] < total:
            world.ask(StartChild())
        assert world.supervisor.count_children() == Counts(total, total, total, 0)
        assert len(world.supervisor.which_children()) == total
    for id in list(world.live):
        world.end(id)
    assert world.supervisor.count_children() == Counts(0, 0, 0, 0)


def test_count_restarting_children() -> None:
    """I03 count_restarting_children: 1 of 3 while two are in a retry loop, later 3; terminate reduces."""
    world = World(Flags(), *specs("a b c")).boot()
    world.puppet("a").failing = world.puppet("b").failing = 1
    world.end("a")
    world.end("b")
    world.advance(0.2)
    assert world.counts() == (3, 1)
    world.advance(0.2)
    assert world.counts() == (3, 3)
    world.ask(TerminateChild("a"))
    assert world.counts() == (3, 2)


# ---- J. retry loops --------------------------------------------------------------------------------


def test_hanging_restart_loop() -> None:
    """J01 hanging_restart_loop: during slow, failing attempts everything is served, and stops are prompt."""
    flags = Flags(intensity=8, period=10, backoff=Backoff(initial=2, jitter=0))
    world = World(flags, *specs("a b")).boot()
    world.end("a")
    assert world.phases()["a"] is Phase.BACKOFF
    assert world.ask(StartChild(ChildSpec("a"))) == Refused(Why.ALREADY_PRESENT, "a")
    assert world.ask(RestartChild("a")) == Refused(Why.RESTARTING, "a")
    assert world.ask(DeleteChild("a")) == Refused(Why.RESTARTING, "a")
    world.puppet("a").slow = True
    world.advance(2)
    assert world.phases()["a"] is Phase.STARTING
    assert world.ask(RestartChild("a")).why is Why.RUNNING
    assert world.ask(TerminateChild("a")) == Ok("a")
    assert world.ask(RestartChild("a")) is None
    world.ask(Shutdown())
    assert world.gone == SHUTDOWN


def test_hanging_restart_loop_rest_for_one() -> None:
    """J02 hanging_restart_loop_rest_for_one: the third has no pid until the middle is up."""
    world = World(Flags(REST_FOR_ONE), *specs("a b c")).boot()
    first = world.pid("a")
    world.puppet("b").failing = 2
    world.end("b")
    assert world.pids() == {"a": first}
    world.advance(0.35)
    assert world.pids() == {"a": first}
    assert world.phases()["c"] is Phase.DUE
    assert world.ask(RestartChild("c")) == Refused(Why.RESTARTING, "c")
    world.advance(0.4)
    assert world.pids().keys() == {"a", "b", "c"}
    assert world.pid("a") == first


def test_hanging_restart_loop_simple() -> None:
    """J03 hanging_restart_loop_simple: a retry loop can be ended, others start meanwhile."""
    world = World(Flags(SIMPLE), ChildSpec("a")).boot()
    world.ask(StartChild())
    world.end("a/1")
    assert world.phases() == {"a/1": Phase.BACKOFF}
    assert isinstance(world.ask(StartChild()), Ok)
    assert world.ask(TerminateChild("a/1")) == Ok("a/1")
    world.advance(10)
    assert world.phases() == {"a/2": Phase.UP}


def test_callers_of_a_start_hear_of_its_end() -> None:
    """J01 (asynchronous): a start that is cut short by terminate_child or by the stop of all is answered."""
    world = World(otp(), a=Puppet(slow=True), b=Puppet(slow=True)).boot()
    starts = [world.send(StartChild(ChildSpec(id))) for id in "ab"]
    assert [world.result(start) for start in starts] == [None, None]
    assert world.ask(TerminateChild("a")) == Ok("a")
    world.ask(Shutdown())
    assert [world.result(start).why for start in starts] == [Why.TERMINATED, Why.TERMINATED]


# ---- P. back-off and quarantine --------------------------------------------------------------------


CURSE = Flags(on_exceed="curse")


def times(world: World, id: str) -> list[float]:
    return [at for at, started in world.starts if started == id]


def test_first_death_of_a_stable_child() -> None:
    """P01 the first death of a stable child restarts at once; P02 then 0.1, 0.2, 0.4 ... s."""
    world = World(CURSE, *specs("a")).boot()
    world.advance(10)
    world.puppet("a").failing = 3
    world.end("a")
    world.advance(5)
    assert times(world, "a") == [0, 10, 10.1, 10.3, 10.7]


def test_permanently_failing_child() -> None:
    """P04 E16: six starts in 3.1 s, then the budget holds until 60.1 s; after that the back-off leads."""
    world = World(CURSE, *specs("bad good"), bad=Puppet(failing=math.inf)).boot()
    world.advance(300)
    expected = [0, 0.1, 0.3, 0.7, 1.5, 3.1, 60.101, 66.501, 79.301, 104.901, 156.101, 216.101, 276.101]
    assert times(world, "bad") == pytest.approx(expected)
    assert times(world, "good") == [0]
    assert [wait.cursed for wait in world.waits] == [False] * 5 + [True] * 8
    assert world.kinds("bad").count(ReportKind.CURSED) == 1


@pytest.mark.parametrize(("uptime", "at_once"), [(9.999, False), (10.0, True), (10.001, True)])
def test_stable_after(uptime: float, at_once: bool) -> None:
    """P03, P12 the back-off begins anew exactly at ``stable_after``."""
    world = World(CURSE, *specs("a")).boot()
    world.end("a")
    world.advance(0.1)
    world.end("a")
    world.advance(0.2)
    world.advance(uptime)
    world.starts.clear()
    died = world.now
    world.end("a")
    world.advance(1)
    assert times(world, "a")[0] == pytest.approx(died if at_once else died + 0.4)


def test_half_open() -> None:
    """P05 a cursed child gets one attempt: a failure waits longer, being stable clears the curse."""
    world = World(CURSE, *specs("a"), a=Puppet(failing=7)).boot()
    world.advance(60.2)
    assert world.phases() == {"a": Phase.CURSED}
    world.advance(6.4)
    assert world.phases() == {"a": Phase.UP}
    world.advance(10)
    world.end("a")
    assert world.phases() == {"a": Phase.UP}
    world.end("a")
    assert world.phases() == {"a": Phase.BACKOFF}


@pytest.mark.parametrize("failures", [1, 6])
def test_absolve(failures: int) -> None:
    """P06 absolve starts at once, from back-off and from the curse, with a clean record."""
    world = World(CURSE, *specs("a"), a=Puppet(failing=failures)).boot()
    world.advance(4)
    if failures == 1:
        world.end("a")
    assert world.phases()["a"] in (Phase.BACKOFF, Phase.CURSED)
    world.starts.clear()
    assert world.ask(Absolve("a")) == Ok("a")
    assert times(world, "a") == [world.now]
    world.end("a")
    assert world.waits[-1] == Waiting("a", world.now + 0.1, False)
    assert world.ask(Absolve("b")) == Refused(Why.NOT_FOUND, "b")


def test_linear() -> None:
    """P07 linear mode gives uWSGI's 1, 2, 3 ... s up to the maximum."""
    backoff = Backoff(initial=1, max=4, linear=True, jitter=0)
    world = World(Flags(intensity=100, backoff=backoff, on_exceed="curse"), *specs("a"))
    world.puppet("a").failing = math.inf
    world.boot().advance(20)
    assert times(world, "a") == [0, 1, 3, 6, 10, 14, 18]


def test_jitter() -> None:
    """P08 jitter spreads equal failers within 10 %."""
    numbers = iter([0.0, 0.25, 0.75, 0.999])
    supervisor = Supervisor(replace(CURSE, parallel=True), specs("a b c d"), random=lambda: next(numbers))
    commands = supervisor.handle(Boot(), 0.0)
    launches = [command for command in commands if isinstance(command, Launch)]
    waits = []
    for launch in launches:
        commands = supervisor.handle(StartFailed(launch.id, launch.generation, ABNORMAL), 0.0)
        waits += [command.at for command in commands if isinstance(command, Wake)]
    assert waits == pytest.approx([0.09, 0.095, 0.105, 0.10998])


def test_strangers_do_not_wait() -> None:
    """P10 the slow start or back-off of one never delays another."""
    world = World(replace(CURSE, parallel=True), *specs("a b c"), a=Puppet(slow=True), b=Puppet(failing=3))
    world.send(Boot())
    assert world.phases() == {"a": Phase.STARTING, "b": Phase.BACKOFF, "c": Phase.UP}
    world.end("c")
    world.advance(0.1)
    assert world.phases()["c"] is Phase.UP


def test_environment() -> None:
    """N05 env failures are not charged and wait 1, 2, 4 ... 30 s; they fail no boot."""
    world = World(Flags(intensity=0), *specs("a b"), a=Puppet(failing=8, failure=ENV)).boot()
    world.advance(200)
    assert times(world, "a") == [0, 1, 3, 7, 15, 31, 61, 91, 121]
    assert world.counts() == (2, 2)


def test_environment_recovers() -> None:
    """N05 once it could be created, the next failure of the environment waits 1 s again."""
    world = World(otp(intensity=3), *specs("a"), a=Puppet(failing=2, failure=ENV)).boot()
    world.advance(3)
    assert world.phases() == {"a": Phase.UP}
    world.puppet("a").failing = 1
    world.end("a")
    assert world.waits[-1] == Waiting("a", world.now + 1, False)


@pytest.mark.parametrize("strategy", [ONE_FOR_ALL, REST_FOR_ONE])
def test_exiled_member_of_a_group(strategy: Strategy) -> None:
    """N12 a restart of many does not end an exile; those that depend on the exiled one wait."""
    world = World(otp(strategy), *specs("a b c")).boot()
    world.end("b", CONFIG)
    world.starts.clear()
    if strategy is REST_FOR_ONE:
        world.end("a")
    assert world.starts == ([(0, "a")] if strategy is REST_FOR_ONE else [])
    assert (world.phases()["b"], world.phases()["c"]) == (Phase.EXILED, Phase.DUE)
    assert world.ask(Absolve("b")) == Ok("b")
    assert world.counts() == (3, 3)


@pytest.mark.parametrize("request_", [StartChild(ChildSpec("b")), RestartChild("b")])
def test_failed_start_spares_the_group(request_: Request) -> None:
    """A11 a child that somebody asked to start takes nobody down when it fails, also under curse."""
    world = World(replace(CURSE, strategy=ONE_FOR_ALL), *specs("a"), b=Puppet(failing=0)).boot()
    if isinstance(request_, RestartChild):
        world.ask(StartChild(ChildSpec("b")))
        world.ask(TerminateChild("b"))
    first = world.pid("a")
    world.puppet("b").failing = 1
    assert failed(world.ask(request_), "b")
    assert world.pids() == {"a": first}
    world.advance(0.1)
    assert world.pids().keys() == {"a", "b"}
    assert world.pid("a") == first


@pytest.mark.parametrize("kind", [ExitKind.CONFIG, ExitKind.EXILE])
def test_exile(kind: ExitKind) -> None:
    """N12 config and exile: no restart until it is absolved, restarted or has a new spec."""
    reason = ExitReason(kind)
    world = World(CURSE, *specs("a"), a=Puppet(failing=1, failure=reason)).boot()
    asks: list[Request] = [Absolve("a"), RestartChild("a"), ChangeSpec(ChildSpec("a", start="new"))]
    for ask in asks:
        world.advance(1000)
        assert world.phases() == {"a": Phase.EXILED}
        assert world.kinds("a")[-1] is ReportKind.EXILED
        assert world.ask(ask) == Ok("a", None if not isinstance(ask, RestartChild) else world.pid("a"))
        assert world.phases() == {"a": Phase.UP}
        world.end("a", reason)
    spec = world.supervisor.get_childspec("a")
    assert spec is not None
    assert spec.start == "new"


def test_new_spec_of_a_running_child() -> None:
    """K01 code_change: a running child keeps its pid; the spec is that of the next start."""
    world = World(otp(), *specs("a")).boot()
    pid = world.pid("a")
    assert world.ask(ChangeSpec(ChildSpec("a", restart=TRANSIENT))) == Ok("a", pid)
    assert world.pid("a") == pid
    world.end("a", NORMAL)
    assert world.counts() == (1, 0)
    assert world.ask(ChangeSpec(ChildSpec("b"))) == Refused(Why.NOT_FOUND, "b")
    bad = ChildSpec("a", restart=TRANSIENT, significant=True)
    assert world.ask(ChangeSpec(bad)).why is Why.BAD_REQUEST


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.BACKOFF, Phase.CURSED, Phase.EXILED])
def test_stop_from_any_phase(phase: Phase) -> None:
    """N14 a stop while starting, in back-off, cursed or exiled ends promptly, and no start follows."""
    failing = {Phase.STARTING: 0, Phase.BACKOFF: 5, Phase.CURSED: 6, Phase.EXILED: 1}[phase]
    failure = CONFIG if phase is Phase.EXILED else ABNORMAL
    puppet = Puppet(failing=failing, failure=failure, slow=phase is Phase.STARTING)
    world = World(CURSE, *specs("a"), a=puppet)
    world.send(Boot())
    world.advance(2.0 if phase is Phase.BACKOFF else 4.0)
    assert world.phases() == {"a": phase}
    world.starts.clear()
    assert world.ask(Shutdown()) == Ok()
    assert world.gone == SHUTDOWN
    world.advance(100)
    assert world.starts == []


def test_late_news() -> None:
    """N07 one death, one event: what is said of an incarnation that is over, or said twice, has no effect."""
    world = World(otp(intensity=1), *specs("a")).boot()
    generation, pid = world.live["a"]
    world.end("a")
    current = world.pids()
    late: list[Event] = [
        Exited("a", generation, ABNORMAL),
        StartFailed("a", generation, ABNORMAL),
        Started("a", generation, pid),
        Ignored("a", generation),
        Exited("nobody", 1, ABNORMAL),
    ]
    for event in late:
        world.feed(event)
    assert world.pids() == current
    assert world.phases() == {"a": Phase.UP}
    assert world.gone is None
