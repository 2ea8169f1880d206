"""Whatever happens, in whatever order: what a supervisor never does, and what it always gets to."""

import itertools
import math
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pyemperor.actors.supervision import (
    SHUTDOWN,
    Absolve,
    Backoff,
    Boot,
    CancelWake,
    ChangeSpec,
    ChildSpec,
    Command,
    DeleteChild,
    Due,
    Event,
    Exited,
    ExitKind,
    ExitReason,
    Flags,
    Gone,
    Ignored,
    Launch,
    Phase,
    Reply,
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
)
from pyemperor.actors.supervision.restart import permitted_at

IDS = "abcd"
REASONS = st.sampled_from(ExitKind).map(ExitReason)
SECONDS = st.integers(0, 200).map(float)


@st.composite
def flags(draw: st.DrawFn) -> Flags:
    strategy = draw(st.sampled_from(Strategy))
    return Flags(
        strategy=strategy,
        intensity=draw(st.integers(0, 6)),
        period=draw(st.sampled_from([1.0, 10.0, 60.0])),
        on_exceed=draw(st.sampled_from(["escalate", "curse"])),
        backoff=draw(st.sampled_from([Backoff(initial=0), Backoff(), Backoff(1, max=5, linear=True)])),
        auto_shutdown=draw(st.sampled_from(["never", "any_significant", "all_significant"])),
        parallel=draw(st.booleans()) and strategy is Strategy.ONE_FOR_ONE,
    )


def specs_for(flags: Flags) -> st.SearchStrategy[ChildSpec]:
    def build(id: str, restart: Restart, shutdown: float, significant: bool) -> ChildSpec:
        may = restart is not Restart.PERMANENT and flags.auto_shutdown != "never"
        return ChildSpec(id, None, (), restart, shutdown, significant=significant and may)

    shutdowns = st.sampled_from([0.0, 5.0, math.inf])
    return st.builds(build, st.sampled_from(IDS), st.sampled_from(Restart), shutdowns, st.booleans())


class Monitor:
    """Feeds a supervisor and checks every command against what it was told."""

    def __init__(self, flags: Flags, specs: list[ChildSpec]) -> None:
        self.flags = flags
        self.supervisor = Supervisor(flags, specs, random=lambda: 0.5)
        self.now = 0.0
        self.live: dict[str, int] = {}
        #: Live ones that have not reported to be up, and those asked to stop.
        self.starting: set[str] = set()
        self.asked: set[str] = set()
        self.over: list[tuple[str, int]] = []
        self.waking: dict[Due, float] = {}
        self.generation = 0
        self.tickets = itertools.count()
        self.unanswered: set[int] = set()
        self.gone = False

    def request(self, request: Request) -> None:
        ticket = next(self.tickets)
        self.unanswered.add(ticket)
        object.__setattr__(request, "sender", ticket)
        self.feed(request)

    def started(self, id: str) -> None:
        self.starting.discard(id)
        self.feed(Started(id, self.live[id], f"pid {self.live[id]}"))

    def ended(self, id: str, reason: ExitReason) -> None:
        generation = self.live.pop(id)
        self.over.append((id, generation))
        early = id in self.starting
        self.starting.discard(id)
        self.asked.discard(id)
        self.feed((StartFailed if early else Exited)(id, generation, reason))

    def feed(self, event: Event) -> None:
        early = isinstance(event, Due) and self.waking.pop(event, 0.0) > self.now
        for command in self.supervisor.handle(event, self.now):
            self.check(command)
        assert not early or event in self.waking, "it did not wait until the time"
        infos = self.supervisor.which_children()
        phases = {info.id: info.phase for info in infos}
        assert {id for id, phase in phases.items() if phase.live} == set(self.live)
        assert {id for id, phase in phases.items() if phase is Phase.STOPPING} == self.asked
        waiting = [info for info in infos if info.phase.waiting]
        assert {info.until for info in waiting if info.until < math.inf} == set(self.waking.values())
        assert self.supervisor.next_deadline == min(self.waking.values(), default=None)
        assert (self.supervisor.gone is not None) is self.gone

    def check(self, command: Command) -> None:
        assert not self.gone or isinstance(command, Reply)
        match command:
            case Launch(id=id, generation=generation):
                assert id not in self.live, "two incarnations at once"
                assert generation > self.generation
                if self.flags.grouped:
                    assert not self.starting, "it did not wait for the one before"
                    assert not self.asked, "it did not wait for the stop of the others"
                self.generation = generation
                self.live[id] = generation
                self.starting.add(id)
            case Terminate(id=id, generation=generation):
                assert self.live[id] == generation
                assert id not in self.asked, "asked twice"
                self.asked.add(id)
            case Wake(at=at, due=due):
                assert at > self.now
                assert due not in self.waking
                self.waking[due] = at
            case CancelWake(due=due):
                del self.waking[due]
            case Waiting(until=until):
                assert until > self.now
            case Reply(event=request):
                assert isinstance(request.sender, int)
                self.unanswered.remove(request.sender)
            case Gone():
                assert not self.live
                assert not self.waking
                self.gone = True

    def wake_next(self) -> None:
        due, at = min(self.waking.items(), key=lambda item: item[1])
        self.now = max(self.now, at)
        self.feed(due)


@given(flags=flags(), data=st.data())
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_events_in_any_order(flags: Flags, data: st.DataObject) -> None:
    """Never two incarnations at once; order is kept; every request is answered once; it can be ended."""
    spec = specs_for(flags)
    least, most = (1, 1) if flags.simple else (0, 4)
    lists = st.lists(spec, min_size=least, max_size=most, unique_by=lambda spec: spec.id)
    monitor = Monitor(flags, data.draw(lists))
    monitor.request(Boot())
    for _ in range(data.draw(st.integers(0, 40))):
        known = [info.id for info in monitor.supervisor.which_children()] or [*IDS]
        live = sorted(monitor.live)
        steps = ["request"] + ["started", "ended", "ended", "ignored"] * bool(live)
        steps += ["wake", "early"] * bool(monitor.waking) + ["late"] * bool(monitor.over)
        match data.draw(st.sampled_from(steps)):
            case "request":
                id = data.draw(st.sampled_from(known))
                new = data.draw(spec)
                requests: list[Request] = [
                    StartChild(None if flags.simple else new, ("x",)),
                    TerminateChild(id),
                    RestartChild(id),
                    DeleteChild(id),
                    Absolve(id),
                    ChangeSpec(new),
                ]
                monitor.request(data.draw(st.sampled_from(requests)))
            case "started":
                monitor.started(data.draw(st.sampled_from(live)))
            case "ended":
                monitor.ended(data.draw(st.sampled_from(live)), data.draw(REASONS))
            case "ignored":
                id = data.draw(st.sampled_from(live))
                generation = monitor.live.pop(id)
                monitor.starting.discard(id)
                monitor.asked.discard(id)
                monitor.feed(Ignored(id, generation))
            case "wake":
                monitor.wake_next()
            case "early":
                due = data.draw(st.sampled_from(sorted(monitor.waking, key=lambda due: due.number)))
                monitor.feed(due)
            case "late":
                id, generation = data.draw(st.sampled_from(monitor.over))
                late: list[Event] = [Started(id, generation), Exited(id, generation, SHUTDOWN)]
                monitor.feed(data.draw(st.sampled_from(late)))
        monitor.now += data.draw(st.sampled_from([0.0, 0.0, 0.05, 3.0, 11.0]))
    monitor.request(Shutdown())
    while monitor.live:
        # Right to left: whoever is asked ends; parallel ones are all asked.
        assert monitor.asked
        if not (flags.parallel or flags.simple):
            order = [info.id for info in monitor.supervisor.which_children() if info.phase.live]
            assert order[-1] in monitor.asked
        monitor.ended(max(monitor.asked), SHUTDOWN)
    assert monitor.gone
    assert not monitor.unanswered


@given(
    strategy=st.sampled_from([Strategy.ONE_FOR_ONE, Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE]),
    faults=st.lists(st.tuples(st.sampled_from("abc"), st.booleans(), SECONDS), max_size=25),
)
@settings(max_examples=150, deadline=None)
def test_under_curse_all_come_back(strategy: Strategy, faults: list[tuple[str, bool, float]]) -> None:
    """However often children fail, once they can start again each of them is up within the longest wait."""
    monitor = Monitor(Flags(strategy, on_exceed="curse"), [ChildSpec(id) for id in "abc"])
    monitor.request(Boot())
    failure = ExitReason(ExitKind.ABNORMAL)

    def settle(until: float) -> None:
        while True:
            if monitor.asked:
                monitor.ended(max(monitor.asked), SHUTDOWN)
            elif monitor.starting:
                monitor.started(min(monitor.starting))
            elif monitor.waking and min(monitor.waking.values()) <= until:
                monitor.wake_next()
            else:
                break
        monitor.now = until

    for id, while_starting, pause in faults:
        if id in monitor.live and (while_starting or id not in monitor.starting):
            monitor.ended(id, failure)
        settle(monitor.now + pause)
    settle(monitor.now + 3 * 66.1)
    assert [info.phase for info in monitor.supervisor.which_children()] == [Phase.UP] * 3


def otp_add_restart(
    stamps: list[float], now: float, intensity: int, period: float
) -> tuple[list[float], bool]:
    """``supervisor:add_restart/3``, written out."""
    stamps = [now] + [stamp for stamp in stamps if stamp >= now - period]
    return stamps, len(stamps) <= intensity


@given(
    pauses=st.lists(st.integers(0, 40), min_size=1, max_size=40),
    intensity=st.integers(0, 5),
    period=st.integers(1, 60),
)
@settings(max_examples=300, deadline=None)
def test_intensity_is_otps(pauses: list[int], intensity: int, period: int) -> None:
    """It gives up at exactly the death at which OTP's supervisor does."""
    backoff = Backoff(initial=0)
    monitor = Monitor(Flags(intensity=intensity, period=float(period), backoff=backoff), [ChildSpec("a")])
    monitor.request(Boot())
    monitor.started("a")
    stamps: list[float] = []
    for pause in pauses:
        monitor.now += pause
        stamps, allowed = otp_add_restart(stamps, monitor.now, intensity, period)
        monitor.ended("a", ExitReason(ExitKind.ABNORMAL))
        assert monitor.gone is not allowed
        if not allowed:
            return
        monitor.started("a")


@given(
    stamps=st.lists(SECONDS, max_size=12),
    at=SECONDS,
    intensity=st.integers(0, 5),
    period=st.integers(1, 100),
)
@settings(deadline=None)
def test_permitted_at_is_the_first_moment(
    stamps: list[float], at: float, intensity: int, period: int
) -> None:
    """The moment it names is permitted by OTP's rule, and no earlier one is."""
    stamps = [stamp for stamp in stamps if stamp <= at]
    moment = permitted_at(stamps, at, intensity, period)
    assert moment >= at

    def allowed(when: float) -> bool:
        return otp_add_restart(stamps, when, intensity, period)[1]

    if moment == math.inf:
        assert intensity == 0
        return
    assert allowed(moment)
    edges = [at, *(stamp + period for stamp in stamps)]
    assert not any(allowed(edge) for edge in edges if at <= edge < moment)


@given(
    backoff=st.builds(
        Backoff,
        initial=st.floats(0, 10),
        factor=st.floats(1, 1e6),
        max=st.floats(10, 1e6),
        jitter=st.floats(0, 0.99),
        linear=st.booleans(),
    ),
    random=st.floats(0, 1, exclude_max=True),
)
@settings(deadline=None)
def test_backoff_grows_to_its_maximum(backoff: Backoff, random: float) -> None:
    """Waits never shrink, never exceed the maximum, stay within the jitter, after any number of failures."""
    wait = 0.0
    for _ in range(2000):
        longer = backoff.after(wait)
        assert wait <= longer <= backoff.max
        wait = longer
    spread: Any = backoff.spread(wait, lambda: random)
    assert wait * (1 - backoff.jitter) <= spread + 1e-9
    assert spread <= wait * (1 + backoff.jitter) + 1e-9


@pytest.mark.parametrize(
    "fields",
    [{"initial": -1}, {"initial": 2, "max": 1}, {"max": math.inf}, {"factor": 0.5}, {"jitter": 1}],
)
def test_senseless_backoff(fields: dict[str, float]) -> None:
    """A back-off that shrinks, never ends or goes negative is refused."""
    with pytest.raises(ValueError, match="back-off"):
        Backoff(**fields)  # type: ignore[arg-type]
