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
    """PSS of the processes after one vassal has worked, and CPU time of the tree while nobody asks."""
    rows: dict[str, dict[str, list[float]]] = {name: {} for name in ("mean", "largest", "whole", "idle")}
    notes: list[str] = []
    for peer in site.emperors:
        peer.crowd(NEIGHBOURS)
    with site.running(site.emperors):
        for peer in site.emperors:
            wrk(site.url(peer, "hello-c"), 8, 1)
        time.sleep(3)
        before = {peer.name: _spent(peer) for peer in site.emperors}
        time.sleep(plan.idle)
        for peer in site.emperors:
            (began, used), (ended, after) = before[peer.name], _spent(peer)
            sizes = {pid: pss(pid) for pid in peer.pids()}
            # Without what is there once: the Emperor, and our fork server.
            actors = [size for pid, size in sizes.items() if pid != peer.root and "fork-server" not in title(pid)]
            rows["idle"][peer.name] = [100 * (after - used) / (ended - began) / (1 + NEIGHBOURS)]
            rows["mean"][peer.name] = [sum(actors) / len(actors)]
            rows["largest"][peer.name] = [max(actors)]
            rows["whole"][peer.name] = [sum(sizes.values())]
            once = sum(sizes.values()) - sum(actors)
            notes.append(f"{peer.name}: {len(actors)} masters and workers, {once:.1f} MB for what is there once")
    return Result(
        [
            Row("PSS a master or worker", "MB", rows["mean"], (Target(5),)),
            Row("PSS, the largest of them", "MB", rows["largest"]),
            Row("PSS, the whole tree of 10 vassals", "MB", rows["whole"]),
            Row("CPU of an idle vassal, with heartbeats", "%", rows["idle"], (Target(0.2),)),
        ],
        notes,
    )


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
