"""What it costs to have it: memory, idle CPU, start."""

import time

from bench.load import wrk
from bench.peers import Peer
from bench.process import cpu_time, pss, title
from bench.result import Plan, Result, Row, Target
from bench.site import Site


def memory(site: Site, plan: Plan) -> Result:
    """PSS of each process after it has worked, and CPU time of the tree while nobody asks."""
    largest: dict[str, list[float]] = {}
    whole: dict[str, list[float]] = {}
    idle: dict[str, list[float]] = {}
    notes: list[str] = []
    with site.running(site.emperors):
        for peer in site.emperors:
            wrk(site.url(peer, "hello-c"), 8, 1)
        time.sleep(1)
        before = {peer.name: _spent(peer) for peer in site.emperors}
        time.sleep(plan.idle)
        for peer in site.emperors:
            (began, used), (ended, after) = before[peer.name], _spent(peer)
            idle[peer.name] = [100 * (after - used) / (ended - began)]
            sizes = {pid: pss(pid) for pid in peer.pids()}
            workers = {peer.master(), *peer.workers()}
            largest[peer.name] = [max(sizes[pid] for pid in workers)]
            whole[peer.name] = [sum(sizes.values())]
            notes += [f"{peer.name}: {size:5.1f} MB  {title(pid)}" for pid, size in sizes.items()]
    return Result(
        [
            Row("PSS, largest master or worker", "MB", largest, (Target(5),)),
            Row("PSS, the whole tree", "MB", whole),
            Row("CPU while idle, with heartbeats", "%", idle, (Target(0.2),)),
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
