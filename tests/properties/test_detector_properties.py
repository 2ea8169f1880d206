"""No healthy peer is ever convicted and every hung one is, within the bound, under hostile schedules.

The simulation below is a judge with its shell, peers, and a pipe each way, on a grid of 32 steps a probe
window. Trouble is not strewn at random but springs from traps: every probe sets off the next one, at any
moment of its window or of the silence after it. Assumed of a healthy peer (the detector's A1): it answers
within a quarter of the window of time in which it runs (a pause hides up to another quarter); between two
answers it is stopped once and starved for less than two windows; pauses of the machine are two windows apart.
Of the shell (A2): it reads all pipes before it delivers a due timer.
"""

from dataclasses import dataclass
from itertools import cycle, pairwise
from math import inf
from typing import Literal, get_args

from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pyemperor.actors.detector import (
    Answered,
    Ask,
    Cleared,
    Command,
    Continue,
    Convict,
    Credit,
    Due,
    Event,
    Evidence,
    Extended,
    Heard,
    Judge,
    Lease,
    Look,
    Paused,
    Seen,
    Wake,
    beat_interval,
)

GRID = 32
LEASES = st.sampled_from([Lease(1.5, 0.5), Lease(6.0, 2.0), Lease(30.0, 5.0), Lease(3.0, 4.0)])


Kind = Literal["none", "pause machine", "pause judge", "starve", "stop"]


@dataclass(frozen=True)
class Trap:
    """Trouble of ``length`` seconds that begins ``after`` seconds after a probe was sent."""

    kind: Kind
    after: float
    length: float


class Spans:
    """Intervals of time, each begun at least ``gap`` after the end of the one before."""

    def __init__(self, gap: float = 0.0) -> None:
        self.gap = gap
        self.spans: list[tuple[float, float]] = []

    def __contains__(self, now: float) -> bool:
        return any(start <= now < end for start, end in self.spans)

    def add(self, start: float, length: float) -> None:
        if not self.spans or start >= self.spans[-1][1] + self.gap:
            self.spans.append((start, start + length))


@dataclass
class Peer:
    """A process with a dispatcher that beats and answers; from ``hangs_at`` on it does neither."""

    name: str
    lease: Lease
    requested: float
    reaction: float  # running time that an answer takes
    fates: list[float | None]  # of its beats in turn: lost (None) or delayed by so much
    hangs_at: float = inf
    spins: bool = False

    def __post_init__(self) -> None:
        self.interval = beat_interval(self.requested, self.lease.tolerance)
        self.fate = cycle(self.fates)
        self.starving = Spans(gap=inf)  # cleared when it answers
        self.stops_at = inf  # a stray SIGSTOP
        self.was_stopped = False
        self.beats: list[tuple[float, float]] = []  # (arrives, sent), unordered
        self.answers: list[int] = []
        self.probes: list[int] = []  # unanswered
        self.next_beat = self.progress = self.cpu = self.run_delay = 0.0
        self.stopped = False

    def run(self, now: float, step: float) -> None:
        """Live through one step in which the machine runs."""
        if now >= self.stops_at:
            self.stopped, self.was_stopped, self.stops_at = True, True, inf
        if self.stopped:
            return
        hung = now >= self.hangs_at
        busy = self.spins if hung else bool(self.probes) or now >= self.next_beat
        if now in self.starving:
            self.run_delay += step if busy else 0.0
            return
        self.cpu += step if busy else 0.0
        if hung:
            return
        if now >= self.next_beat:
            self.next_beat = now + self.interval
            delay = next(self.fate)
            if delay is not None:
                self.beats.append((now + delay, now))
        if self.probes:
            self.progress += step
            if self.progress >= self.reaction:
                self.answers += self.probes
                self.probes, self.progress = [], 0.0

    def evidence(self, now: float) -> Evidence:
        runs = self.spins if now >= self.hangs_at else bool(self.probes)
        state = "T" if self.stopped else "R" if runs else "S"
        return Evidence(state, self.cpu, self.run_delay)


class World:
    """Peers, their judge, and the shell around it; ``log`` has every command with its time."""

    def __init__(self, peers: list[Peer], traps: list[Trap]) -> None:
        self.peers = {peer.name: peer for peer in peers}
        self.traps = iter(traps)
        self.lease = peers[0].lease
        self.machine, self.observer = Spans(2 * self.lease.probe), Spans()
        self.judge = Judge()
        self.timer: float | None = None
        self.log: list[tuple[float, Command]] = []
        self.known: dict[str, float] = dict.fromkeys(self.peers, 0.0)  # newest sign of life that came in
        for peer in peers:
            self.perform(self.judge.open(peer.name, peer.lease, 0.0), 0.0)

    @property
    def excused(self) -> float:
        """What no bound counts: pauses, and the amnesty after long ones."""
        pauses = [end - start for start, end in self.machine.spans + self.observer.spans]
        amnesties = len(pauses) * max(self.lease.tolerance, self.lease.probe)
        return sum(pauses) + (amnesties if sum(pauses) > self.lease.tolerance else 0.0)

    def run(self, until: float) -> None:
        """Run until ``until``, later by all pauses on the way."""
        step, now = self.lease.probe / GRID, 0.0
        while now < until + self.excused:
            now += step
            if now in self.machine:
                continue
            for peer in self.peers.values():
                peer.run(now, step)
            if now not in self.observer:
                self.turn(now)

    def spring(self, peer: Peer, trap: Trap, now: float) -> None:
        match trap.kind:
            case "pause machine":
                self.machine.add(now + trap.after, trap.length)
            case "pause judge":
                self.observer.add(now + trap.after, trap.length)
            case "starve":
                peer.starving.add(now + trap.after, min(trap.length, 1.9 * peer.lease.probe))
            case "stop" if peer.stops_at == inf and not peer.was_stopped:
                peer.stops_at = now + trap.after

    def turn(self, now: float) -> None:
        """One turn of the shell: everything in the pipes first, then the timer."""
        for peer in self.peers.values():
            for arrives, sent in peer.beats:
                if arrives <= now:
                    self.known[peer.name] = max(self.known[peer.name], sent)
                    self.tell(Heard(peer.name, sent), now)
            peer.beats = [beat for beat in peer.beats if beat[0] > now]
            for nonce in peer.answers:
                self.known[peer.name] = now
                self.tell(Answered(peer.name, nonce), now)
            peer.answers = []
        if self.timer is not None and self.timer <= now:
            planned, self.timer = self.timer, None
            self.tell(Due(planned), now)

    def tell(self, event: Event, now: float) -> None:
        self.perform(self.judge.handle(event, now), now)

    def perform(self, commands: list[Command], now: float) -> None:
        for command in commands:
            self.log.append((now, command))
            match command:
                case Wake(at):
                    self.timer = at
                case Ask(name, nonce):
                    peer = self.peers[name]
                    assert now - self.known[name] >= peer.lease.tolerance, "asked without a silence"
                    peer.probes.append(nonce)
                    self.spring(peer, next(self.traps, Trap("none", 0.0, 0.0)), now)
                case Look(name):
                    self.tell(Seen(name, self.peers[name].evidence(now)), now)
                case Continue(name):
                    self.peers[name].stopped = False
                case Cleared(name):
                    peer = self.peers[name]
                    peer.was_stopped = peer.stopped
                    if peer.starving.spans and peer.starving.spans[-1][1] <= now:
                        peer.starving.spans.clear()
                case Extended() | Convict() | Credit():
                    pass

    def convictions(self, name: str) -> list[float]:
        return [at for at, command in self.log if isinstance(command, Convict) and command.peer == name]


@st.composite
def traps(draw: st.DrawFn, lease: Lease) -> Trap:
    grid, probe, quarter = lease.probe / GRID, lease.probe, GRID // 4
    kind: Kind = draw(st.sampled_from(get_args(Kind)))
    steps = st.integers(0, quarter) | st.integers(0, GRID + 4)
    after = draw(steps.map(lambda n: n * grid) | st.floats(0.0, 2 * lease.tolerance))
    return Trap(kind, after, draw(st.floats(grid, 2 * probe) | st.floats(grid, 2.5 * lease.tolerance)))


@st.composite
def peers(draw: st.DrawFn, name: str, lease: Lease, hangs: bool) -> Peer:
    slowest = lease.probe / 4 - 3 * lease.probe / GRID
    none: list[float | None] = [None]
    fate = st.none() | st.just(0.0) | st.floats(0.0, 1.5 * lease.tolerance)
    return Peer(
        name,
        lease,
        requested=draw(st.floats(0.0, 2 * lease.tolerance)),
        reaction=draw(st.just(slowest) | st.floats(0.0, slowest)),
        fates=draw(st.just(none) | st.lists(fate, min_size=1, max_size=8)),
        hangs_at=draw(st.floats(0.0, 3 * lease.tolerance)) if hangs else inf,
        spins=hangs and draw(st.booleans()),
    )


@settings(deadline=None, max_examples=400)
@given(st.data(), st.sampled_from([Lease(1.5, 0.5), Lease(8.0, 2.0), Lease(12.0, 5.0), Lease(3.0, 4.0)]))
def test_the_healthy_are_safe_and_the_hung_are_found(data: st.DataObject, lease: Lease) -> None:
    healthy = data.draw(peers("healthy", lease, hangs=False))
    hung = data.draw(peers("hung", lease, hangs=True))
    world = World([healthy, hung], data.draw(st.lists(traps(lease), max_size=8)))

    found = hung.hangs_at + lease.tolerance + lease.probe + 2 * (0.25 + lease.probe / GRID)
    world.run(found + lease.tolerance + 3 * lease.probe)

    if hung.spins and hung.starving.spans:
        found += 2 * lease.probe  # the extensions
    if hung.was_stopped:
        found += lease.probe  # continued, and asked again
    assert world.convictions("healthy") == []
    (at,) = world.convictions("hung")
    assert hung.hangs_at <= at <= found + world.excused


@settings(deadline=None, max_examples=60)
@given(st.data(), LEASES)
def test_in_a_quiet_world_the_bound_is_tight(data: st.DataObject, lease: Lease) -> None:
    peer = Peer("app", lease, requested=data.draw(st.floats(0.0, 60.0)), reaction=0.0, fates=[0.0])
    peer.hangs_at = data.draw(st.floats(lease.probe / GRID, 3 * lease.tolerance))
    world = World([peer], [])
    world.run(peer.hangs_at + 2 * (lease.tolerance + lease.probe))
    (at,) = world.convictions("app")
    step = lease.probe / GRID
    earliest = peer.hangs_at + lease.tolerance - peer.interval + lease.probe
    assert earliest - 2 * step <= at <= peer.hangs_at + lease.tolerance + lease.probe + 2 * step
    assert not any(isinstance(command, Credit | Extended | Cleared) for _, command in world.log)


@settings(deadline=None, max_examples=200)
@given(st.floats(1.0, 60.0), st.floats(1.0, 120.0), st.lists(st.floats(0, 0.99), min_size=1, max_size=9))
def test_whatever_heartbeat_asks_for_one_lost_or_late_beat_asks_nobody(
    requested: float, tolerance: float, lateness: list[float]
) -> None:
    """Every beat may be late by up to an interval, and every other one may be lost."""
    judge, interval = Judge(), beat_interval(requested, tolerance)
    wakes = [c for c in judge.open("app", Lease(tolerance), 0.0) if isinstance(c, Wake)]
    for n, late in zip(range(1, 200), cycle(lateness), strict=False):
        sent, now = 2 * n * interval, (2 * n + late) * interval
        while wakes[-1].at is not None and wakes[-1].at <= now:
            due = wakes[-1].at
            commands = judge.handle(Due(due), due)
            wakes += [c for c in commands if isinstance(c, Wake)]
            assert len(commands) == 1, "somebody was asked"
        assert judge.handle(Heard("app", sent), now) == []


EVENTS = st.one_of(
    st.builds(Heard, st.sampled_from("ab"), st.integers(0, 4000).map(lambda n: n / 8)),
    st.builds(Answered, st.sampled_from("ab"), st.integers(1, 6)),
    st.builds(
        Seen,
        st.sampled_from("ab"),
        st.builds(
            Evidence,
            st.sampled_from("RSDTtZ"),
            st.integers(0, 80).map(lambda n: n / 8),
            st.integers(0, 80).map(lambda n: n / 8),
            st.sampled_from([0, 0, 0, 9]),
        ),
    ),
    st.builds(Paused, st.integers(0, 500).map(lambda n: n / 8)),
    st.just("due"),
    st.just("open"),
    st.just("close"),
)
SCRIPTS = st.lists(st.tuples(st.integers(0, 80).map(lambda n: n / 8), EVENTS), max_size=60)


def play(script: list[tuple[float, Event | str]], origin: float) -> list[tuple[float, Command]]:
    """Feed a script of (seconds since the last one, event) to a judge whose clock starts at ``origin``."""
    judge, now, timer = Judge(), origin, None
    log: list[tuple[float, Command]] = []
    for wait, what in [(0.0, "open"), *script]:
        now += wait
        match what:
            case "open":
                commands = judge.open("a", Lease(6.0, 2.0), now) + judge.open("b", Lease(3.0, 4.0), now)
            case "close":
                commands = judge.close("a")
            case "due":
                commands = [] if timer is None else judge.handle(Due(timer), max(now, timer))
                now = now if timer is None else max(now, timer)
            case Heard(peer, sent_at):
                commands = judge.handle(Heard(peer, origin + sent_at), now)
            case str():
                raise AssertionError(what)
            case _:
                commands = judge.handle(what, now)
        for command in commands:
            log.append((now, command))
            if isinstance(command, Wake):
                timer = command.at
    return log


@settings(deadline=None, max_examples=300)
@given(SCRIPTS)
def test_whatever_the_shell_says_nobody_is_convicted_unasked_or_early(
    script: list[tuple[float, Event | str]],
) -> None:
    asked: dict[str, tuple[int, float]] = {}
    nonces = [0]
    for now, command in play(script, 0.0):
        match command:
            case Ask(peer, nonce):
                if nonce != asked.get(peer, (0, 0.0))[0]:
                    nonces.append(nonce)
                asked[peer] = (nonce, now)
            case Cleared(peer, nonce, after):
                assert nonce == asked.pop(peer)[0]
                assert after >= 0
            case Extended(peer, until):
                assert peer in asked
                assert until > now
            case Convict(peer) as convict:
                _, since = asked.pop(peer)  # at most once a probe
                assert now - since >= {"a": 2.0, "b": 4.0}[peer]
                assert convict.silence >= convict.waited >= now - since
                assert "  " not in convict.verdict
            case Wake(at):
                assert at is None or at >= now
            case Credit(seconds):
                assert seconds > 0.25
            case Look() | Continue():
                pass
    assert all(earlier < later for earlier, later in pairwise(nonces))


@settings(deadline=None, max_examples=100)
@given(SCRIPTS, st.sampled_from([-4096.0, 512.0, 2.0**20]))
def test_only_differences_of_time_count(script: list[tuple[float, Event | str]], shift: float) -> None:
    """Where the clock starts changes nothing (times here are exact in binary)."""

    def shifted(at: float, command: Command) -> tuple[float, Command]:
        match command:
            case Wake(due) if due is not None:
                return at - shift, Wake(due - shift)
            case Extended(peer, until, starved, why):
                return at - shift, Extended(peer, until - shift, starved, why)
        return at - shift, command

    assume(script)
    assert [shifted(*entry) for entry in play(script, shift)] == play(script, 0.0)
