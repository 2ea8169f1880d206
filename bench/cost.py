"""What it costs to have it: memory, idle CPU, start."""

import time

from bench.load import wrk
from bench.peers import Peer
from bench.process import cpu_time, pss, title
from bench.result import Plan, Result, Row, Target
from bench.site import Site

#: Vassals beside the measured one: an Emperor is there for many, and they share memory.
NEIGHBOURS = 9


def memory(site: Site, plan: Plan) -> Result:
    """PSS of the processes after one vassal has worked, and CPU time of the tree while nobody asks.

    A page that many share costs each of them little. So the same is measured for a vassal alone, which has
    the fewest to share with, and for ten.
    """
    names = ("alone", "alone largest", "mean", "largest", "whole", "idle")
    rows: dict[str, dict[str, list[float]]] = {name: {} for name in names}
    notes: list[str] = []
    with site.running(site.emperors):
        _work(site)
        for peer in site.emperors:
            actors, once = _sizes(peer)
            rows["alone"][peer.name] = [sum(actors) / len(actors)]
            rows["alone largest"][peer.name] = [max(actors)]
            notes.append(f"{peer.name}, one vassal: {len(actors)} masters and workers, {once:.1f} MB for the rest")
    for peer in site.emperors:
        peer.crowd(NEIGHBOURS)
    with site.running(site.emperors):
        _work(site)
        before = {peer.name: _spent(peer) for peer in site.emperors}
        time.sleep(plan.idle)
        for peer in site.emperors:
            (began, used), (ended, after) = before[peer.name], _spent(peer)
            actors, once = _sizes(peer)
            rows["idle"][peer.name] = [100 * (after - used) / (ended - began) / (1 + NEIGHBOURS)]
            rows["mean"][peer.name] = [sum(actors) / len(actors)]
            rows["largest"][peer.name] = [max(actors)]
            rows["whole"][peer.name] = [sum(actors) + once]
            notes.append(f"{peer.name}, 10 vassals: {len(actors)} masters and workers, {once:.1f} MB for the rest")
    return Result(
        [
            Row("PSS a master or worker, 10 vassals", "MB", rows["mean"], (Target(5),)),
            Row("PSS, the largest of them", "MB", rows["largest"]),
            Row("PSS a master or worker, one vassal alone", "MB", rows["alone"], (Target(5),)),
            Row("PSS, the largest of it", "MB", rows["alone largest"]),
            Row("PSS, the whole tree of 10 vassals", "MB", rows["whole"]),
            Row("CPU of an idle vassal, with heartbeats", "%", rows["idle"], (Target(0.2),)),
        ],
        notes,
    )


def _work(site: Site) -> None:
    for peer in site.emperors:
        wrk(site.url(peer, "hello-c"), 8, 1)
    time.sleep(3)


def _sizes(peer: Peer) -> tuple[list[float], float]:
    """PSS of each master and worker, and of what is there once: the Emperor, and our fork server."""
    sizes = {pid: pss(pid) for pid in peer.pids()}
    actors = [size for pid, size in sizes.items() if pid != peer.root and "fork-server" not in title(pid)]
    return actors, sum(sizes.values()) - sum(actors)


def _spent(peer: Peer) -> tuple[float, float]:
    return time.monotonic(), cpu_time(peer.pids())


def start(site: Site, plan: Plan) -> Result:
    """From the start of the command to the first answer."""
    took: dict[str, list[float]] = {peer.name: [] for peer in site.servers}
    for _ in range(plan.rounds):
        for peer in site.servers:
            took[peer.name].append(peer.start())
            peer.stop()
    return Result([Row("start to first answer", "s", took, (Target(0.7),), in_turn=True)])
