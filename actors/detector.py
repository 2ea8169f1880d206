"""Decide who hangs, and never take a healthy one for it: the failure detector, without a clock or any I/O.

One :class:`Judge` judges many peers, one level down: the Emperor its masters, a master its workers. Silence
only makes a peer *suspect*: it is asked (a probe with a nonce), and only a probe that stays unanswered
convicts. Times are seconds on ``CLOCK_MONOTONIC``, which all processes of one machine share.

Safety. No peer is convicted that (A1) answers a probe after at most half of the probe's window, not counting
time in which it waits for a CPU or stands still together with the judge, if (A2) the shell delivers what
lies in the pipes before it delivers a due timer and (A3) the window does not run while the judge does not.
A3 is kept by a pulse: while a probe is open the judge wakes every ``late`` seconds, and the time by which
it comes later than that is added to all deadlines. So a pause hides at most ``2 * late`` of itself, a quarter
of the window; this part is the peer's own time in A1. One case remains: a peer that the machine starves
through all extensions. Its verdict says so.

Bound. A peer that hangs at ``h`` is convicted by ``h + tolerance + probe * (1 + extensions)``, plus twice
the judge's latency and the time credited to it; one more ``probe`` if it was stopped by a signal.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from math import inf

from pyemperor.actors.judgement import (
    STARVED,
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
    Lease,
    Look,
    Paused,
    Seen,
    Verdict,
    Wake,
    beat_interval,
    classify,
    explain,
)

__all__ = [
    "Answered",
    "Ask",
    "Cleared",
    "Command",
    "Continue",
    "Convict",
    "Credit",
    "Due",
    "Event",
    "Evidence",
    "Extended",
    "Heard",
    "Judge",
    "Lease",
    "Look",
    "Paused",
    "Seen",
    "Verdict",
    "Wake",
    "beat_interval",
    "classify",
    "explain",
]


@dataclass(slots=True, eq=False)
class _Probe:
    """An open suspicion. ``first`` is the look at its start, ``base`` the one at the start of this window."""

    asked: float
    first: Evidence | None = None
    base: Evidence | None = None
    base_at: float = 0.0
    judging: bool = False  # the window is over, the last look is on its way
    continued: bool = False
    waits_for_tracer: bool = False
    extensions: int = 0


@dataclass(slots=True, eq=False)
class _Peer:
    """What is known about one peer: its countdown of ``span`` seconds runs from ``since``."""

    name: str
    lease: Lease
    heard: float
    since: float
    span: float
    entry: float | None = None  # the time of its one valid entry in the heap
    nonce: int = 0  # of the last probe, until it is answered
    probe: _Probe | None = None

    @property
    def deadline(self) -> float:
        return self.since + self.span


class Judge:
    """Judge the peers that are open: events in, commands out, one timer.

    A beat costs O(1): it moves ``since``, and the peer's entry in the heap of deadlines is corrected when
    its old time comes. ``late`` is how late (s) the timer may fire before the judge distrusts itself, lowered
    to an eighth of the shortest ``probe``; ``max_extensions`` may be ``inf``: never convict the starved.
    """

    def __init__(self, *, late: float = 0.25, max_extensions: float = 2) -> None:
        self._late = late
        self._max_extensions = max_extensions
        self._peers: dict[str, _Peer] = {}
        self._suspects: set[str] = set()
        self._heap: list[tuple[float, int, _Peer]] = []
        self._planned: float | None = None
        self._credited = -inf  # lateness before this time is already paid
        self._serial: Iterator[int] = count()
        self._nonces: Iterator[int] = count(1)

    def open(self, peer: str, lease: Lease, now: float) -> list[Command]:
        """Begin the lease of a peer that is ready; it counts as a beat. A lease that was open is replaced."""
        self._forget(peer)
        self._late = min(self._late, lease.probe / 8)
        opened = self._peers[peer] = _Peer(peer, lease, now, now, lease.tolerance)
        self._push(opened)
        return self._plan(now)

    def close(self, peer: str) -> list[Command]:
        """End the lease: the peer stops, reloads or is gone. Harmless for an unknown one."""
        self._forget(peer)
        return [] if self._peers else self._cancel()

    def handle(self, event: Event, now: float) -> list[Command]:
        """Take one event at time ``now``, return what to do, in order; unknown peers are ignored."""
        match event:
            case Heard(name, sent_at):
                return self._heard(name, min(sent_at, now), now)
            case Answered(name, nonce):
                commands = self._answered(name, nonce, now)
            case Seen(name, evidence):
                commands = self._seen(name, evidence, now)
            case Paused(seconds):
                commands = self._credit(min(seconds, now - self._credited), now)
            case Due(planned_at):
                self._planned = None
                commands = self._credit(now - max(planned_at, self._credited), now)
                commands += self._fire(now)
        return commands + self._plan(now)

    # ---- signs of life

    def _heard(self, name: str, sent_at: float, now: float) -> list[Command]:
        peer = self._peers.get(name)
        if peer is None or sent_at <= peer.heard:
            return []
        peer.heard = sent_at
        if peer.probe is None:
            peer.since = max(peer.since, sent_at)
            return []
        if sent_at + peer.lease.tolerance <= now:
            return []
        return self._clear(peer, peer.probe, sent_at, now) + self._plan(now)

    def _answered(self, name: str, nonce: int, now: float) -> list[Command]:
        peer = self._peers.get(name)
        if peer is None or nonce == 0 or nonce != peer.nonce:
            return []
        peer.heard = now
        commands: list[Command] = []
        if peer.probe is None:  # a beat was faster than the answer
            peer.since = now
        else:
            commands = self._clear(peer, peer.probe, now, now)
        peer.nonce = 0
        return commands

    def _clear(self, peer: _Peer, probe: _Probe, since: float, now: float) -> list[Command]:
        peer.probe = None
        self._suspects.discard(peer.name)
        self._count_down(peer, since, peer.lease.tolerance)
        return [Cleared(peer.name, peer.nonce, now - probe.asked)]

    # ---- suspicion and judgement

    def _fire(self, now: float) -> list[Command]:
        """Act on every deadline that has come."""
        commands: list[Command] = []
        while self._heap and self._heap[0][0] <= now:
            at, _, peer = heappop(self._heap)
            if peer.entry != at:
                continue  # closed, or moved to an earlier time
            peer.entry = None
            if peer.deadline > now:
                self._push(peer)
            elif peer.probe is None:
                peer.probe, peer.nonce = _Probe(now), next(self._nonces)
                self._suspects.add(peer.name)
                commands += self._ask(peer, peer.probe, now)
            else:
                peer.probe.judging = True
                commands.append(Look(peer.name))
        return commands

    def _ask(self, peer: _Peer, probe: _Probe, now: float) -> list[Command]:
        probe.first = probe.base = None
        probe.judging = False
        self._count_down(peer, now, peer.lease.probe)
        return [Ask(peer.name, peer.nonce), Look(peer.name)]

    def _seen(self, name: str, evidence: Evidence, now: float) -> list[Command]:
        peer = self._peers.get(name)
        if peer is None or peer.probe is None:
            return []
        probe = peer.probe
        if probe.base is not None:
            return self._judge(peer, probe, probe.base, evidence, now) if probe.judging else []
        probe.first, probe.base, probe.base_at = evidence, evidence, now
        if probe.judging:  # the first look came too late to measure anything: another window
            self._extend(peer, probe, evidence, now)
        if evidence.stopped and not probe.continued:
            probe.continued = True
            return [Continue(name)]
        return []

    def _judge(self, peer: _Peer, probe: _Probe, base: Evidence, end: Evidence, now: float) -> list[Command]:
        """Convict, unless the evidence says that the suspect could not answer in this window."""
        name, window = peer.name, peer.lease.probe
        if end.traced or base.traced:  # once the debugger lets go it still gets a whole window
            self._extend(peer, probe, end, now)
            said, probe.waits_for_tracer = probe.waits_for_tracer, True
            return [] if said else [Extended(name, peer.deadline, starved=False, why="traced")]
        if end.stopped and not probe.continued:
            probe.continued = True
            return [Continue(name), *self._ask(peer, probe, now)]
        starved = end.run_delay - base.run_delay >= STARVED * window
        if starved and probe.extensions < self._max_extensions:
            probe.extensions += 1
            self._extend(peer, probe, end, now)
            return [Extended(name, peer.deadline)]
        self._forget(name)
        verdict = classify(base, end, now - probe.base_at, window)
        silence, waited = now - peer.heard, now - probe.asked
        return [Convict(name, silence, verdict, probe.first or base, end, waited, probe.extensions)]

    def _extend(self, peer: _Peer, probe: _Probe, base: Evidence, now: float) -> None:
        probe.base, probe.base_at, probe.judging = base, now, False
        self._count_down(peer, now, peer.lease.probe)

    # ---- the judge's own lateness

    def _credit(self, seconds: float, now: float) -> list[Command]:
        """Take ``seconds`` out of every countdown; one paused for longer than the tolerance starts afresh."""
        if seconds <= self._late or not self._peers:
            return []
        self._credited = now
        for peer in self._peers.values():
            peer.since = min(peer.since + seconds, now)
            if seconds > peer.lease.tolerance:
                peer.since, peer.span = now, max(peer.span, peer.lease.tolerance)
            if peer.probe is not None and peer.probe.judging and peer.deadline > now:
                peer.probe.judging = False
                self._push(peer)
        return [Credit(seconds)]

    # ---- deadlines

    def _count_down(self, peer: _Peer, since: float, span: float) -> None:
        peer.since, peer.span = since, span
        if peer.entry is None or peer.deadline < peer.entry:
            self._push(peer)

    def _push(self, peer: _Peer) -> None:
        peer.entry = peer.deadline
        heappush(self._heap, (peer.deadline, next(self._serial), peer))

    def _forget(self, name: str) -> None:
        peer = self._peers.pop(name, None)
        if peer is not None:
            peer.entry = None
            self._suspects.discard(name)

    def _plan(self, now: float) -> list[Command]:
        """Set the timer if it must fire earlier than planned; one that fires too early costs nothing."""
        if not self._peers:
            return self._cancel()
        if not self._heap:
            return []
        at = self._heap[0][0]
        if self._suspects:
            at = min(at, now + self._late)
        if self._planned is not None and self._planned <= at:
            return []
        self._planned = at
        return [Wake(at)]

    def _cancel(self) -> list[Command]:
        self._heap.clear()
        planned, self._planned = self._planned, None
        return [] if planned is None else [Wake(None)]
