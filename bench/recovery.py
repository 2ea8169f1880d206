"""Processes that are killed, and how soon others do their work."""

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from http.client import HTTPConnection

from bench.load import Answer, Clients, ask, finish, start_wrk
from bench.peers import SLOTS, Peer, kill
from bench.process import Late, wait_for
from bench.result import Plan, Result, Row, Target
from bench.site import Site

PATIENCE = 20.0
OTHERS = 4


# -- workers -------------------------------------------------------------------------------------------


def worker(site: Site, plan: Plan) -> Result:
    """A worker is killed: until its replacement is ready, idle and under load; failed requests."""
    idle: dict[str, list[float]] = {}
    busy: dict[str, list[float]] = {}
    failed: dict[str, list[float]] = {}
    for peer in site.emperors:
        with site.running([peer]):
            idle[peer.name] = _kill_workers(peer, plan.kills)
        with site.running([peer]):
            load = start_wrk(site.url(peer, "hello-c"), 8, (peer.settle + 1.5) * plan.kills)
            busy[peer.name] = _kill_workers(peer, plan.kills)
            failed[peer.name] = [finish(load).failed / plan.kills]
    notes = ["a killed worker takes the one request that it runs with it, so up to 1 is what can be had"]
    with site.running([site.fcgiwrap]):
        try:
            _kill_workers(site.fcgiwrap, 1, patience=2)
        except Late as late:
            notes.append(f"not compared: {late}")
    return Result(
        [
            Row("worker killed: another ready", "ms", idle, (Target(50),)),
            Row("worker killed: under load", "ms", busy),
            Row("worker killed: failed, per kill", "", failed, (Target(1),)),
        ],
        notes,
    )


def _kill_workers(peer: Peer, kills: int, patience: float = PATIENCE) -> list[float]:
    """Kill one worker after the other, each time the oldest; return milliseconds."""
    took: list[float] = []
    for turn in range(kills):
        workers = _complete(peer)
        _settle(peer, turn / kills)
        known, at = set(workers), kill(min(workers))
        born = wait_for(f"{peer.name}: another worker", lambda: peer.replacement(known, at), patience)  # noqa: B023
        took.append((born.at - at) * 1e3)
    return took


def _complete(peer: Peer) -> list[int]:
    """Wait until all workers are there and return their pids."""

    def workers() -> list[int] | None:
        found = peer.workers()
        return found if len(found) == SLOTS else None

    return wait_for(f"{peer.name}: {SLOTS} workers", workers, PATIENCE, pause=0.01)


def _settle(peer: Peer, phase: float) -> None:
    """Leave the peer alone for a while, ``phase`` (0 to 1) of a second longer than it needs.

    uWSGI's master looks for the dead once a second. Kills at one distance from the last replacement would
    keep step with it and show one and the same figure; phases spread evenly show the median.
    """
    time.sleep(peer.settle + phase)


# -- masters -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Recovery:
    """What a killed master cost: milliseconds until the new one served, and failed requests."""

    took: float
    failed: int


def master(site: Site, plan: Plan) -> Result:
    """A vassal's master is killed, in three situations: until the new one has served; failed requests."""
    situations: list[tuple[str, int, Callable[[Site, Peer, int], list[Recovery]]]] = [
        ("master killed", plan.kills, _under_requests),
        ("  during a 1 s request", plan.rare_kills, _with_a_slow_request),
        ("  before any request", plan.rare_kills, _before_any_request),
    ]
    rows: list[Row] = []
    notes = [
        f"one client asked every 1 ms, {OTHERS} more every 10 ms (the first situation only), on connections "
        "kept alive; served = answered by a worker that did not exist at the kill"
    ]
    for label, kills, situation in situations:
        seen = {peer.name: situation(site, peer, kills) for peer in site.emperors}
        took = {peer: [each.took for each in cases] for peer, cases in seen.items()}
        failed = {peer: [sum(each.failed for each in cases) / len(cases)] for peer, cases in seen.items()}
        rows.append(Row(f"{label}: served", "ms", took, (Target(150),)))
        rows.append(Row(f"{label}: failed, per kill", "", failed, (Target(0),)))
        notes += [
            f"{label.strip()}: {peer} failed {', '.join(str(each.failed) for each in cases)}, kill by kill"
            for peer, cases in seen.items()
            if any(each.failed for each in cases)
        ]
    return Result(rows, notes)


def _under_requests(site: Site, peer: Peer, kills: int) -> list[Recovery]:
    """Several clients ask all the time."""
    with site.running([peer]), Clients(peer.port, "/cgi-bin/parent-c", OTHERS) as clients:
        seen: list[Recovery] = []
        for turn in range(kills):
            _complete(peer)
            _settle(peer, turn / kills)
            seen.append(_kill_master(peer, clients.answers))
        return seen


def _with_a_slow_request(site: Site, peer: Peer, kills: int) -> list[Recovery]:
    """One client asks all the time, another waits for a script that sleeps 1 s; its failure counts too."""
    seen: list[Recovery] = []
    with site.running([peer]), Clients(peer.port, "/cgi-bin/parent-c", 0) as clients:
        for turn in range(kills):
            slow: list[Answer] = []
            thread = threading.Thread(target=_ask_slow, args=(peer, slow))
            _complete(peer)
            _settle(peer, turn / kills)
            thread.start()
            time.sleep(0.2)
            quick = _kill_master(peer, clients.answers)
            thread.join()
            seen.append(Recovery(quick.took, quick.failed + (slow[0].status != 200)))
    return seen


def _ask_slow(peer: Peer, answers: list[Answer]) -> None:
    connection = HTTPConnection("127.0.0.1", peer.port, timeout=30)
    answers.append(ask(connection, "/cgi-bin/slow.sh"))
    connection.close()


def _before_any_request(site: Site, peer: Peer, kills: int) -> list[Recovery]:
    """The vassal has just started and nobody has asked it anything; then one client asks all the time."""
    seen: list[Recovery] = []
    for turn in range(kills):
        try:
            peer.launch()
            _complete(peer)
            _settle(peer, turn / kills)
            known = set(peer.pids())
            at = kill(peer.master())
            with Clients(peer.port, "/cgi-bin/parent-c", 0) as clients:
                seen.append(_recovered(peer, clients.answers, known, at))
        finally:
            peer.stop()
    return seen


def _kill_master(peer: Peer, answers: Sequence[Answer]) -> Recovery:
    known = set(peer.pids())
    return _recovered(peer, answers, known, kill(peer.master()))


def _recovered(peer: Peer, answers: Sequence[Answer], known: set[int], at: float) -> Recovery:
    """Wait for an answer by a process not in ``known``, and count the failures after ``at`` until then."""

    def since() -> list[Answer]:
        return [answer for answer in answers[-5000:] if answer.ended > at]

    def served() -> float | None:
        good = (answer for answer in since() if answer.status == 200)
        return next((answer.ended for answer in good if int(answer.body) not in known), None)

    ended = wait_for(f"{peer.name}: an answer after its master was killed", served, PATIENCE, pause=0.02)
    return Recovery((ended - at) * 1e3, sum(answer.status != 200 for answer in since()))
