"""What many vassals cost: those that sleep until somebody asks, those that run, and one that is new."""

import time
from collections.abc import Callable
from statistics import median

from bench.empire import Empire
from bench.peers import HEARTBEAT
from bench.process import pss
from bench.result import OURS, UWSGI, Plan, Result, Row, Target
from bench.site import Site

SLEEPERS, ASKED = 1000, 40
RUNNING, WORKERS = 100, 2
NEW = 5
_IDLE = 10.0
#: A little of everything settles after a start: uWSGI's Emperor looks every 3 s.
_SETTLE = 4.0
#: Ours logs after 10 s that it is stable, once.
_STABLE = 12.0

Samples = dict[str, dict[str, float]]


def crowd(site: Site, plan: Plan) -> Result:
    """1000 vassals on demand, 100 that run, and a new file in the folder; each of one Emperor after the other."""
    idle, cgi, peers = min(plan.idle, _IDLE), site.cgi_bin, (OURS, UWSGI)
    sleeping: Samples = {peer: _sleepers(Empire(peer, cgi, on_demand=True), idle) for peer in peers}
    running: Samples = {peer: _runners(Empire(peer, cgi), idle) for peer in peers}
    new: Samples = {peer: _newcomers(Empire(peer, cgi)) for peer in peers}
    return Result(
        [
            _row(f"{SLEEPERS} vassals on demand: start", "s", sleeping, "start", 2),
            _row("PSS of the Emperor", "MB", sleeping, "emperor", 40),
            _row("PSS of the whole tree", "MB", sleeping, "tree"),
            _row("idle CPU", "%", sleeping, "cpu", 0.5),
            _row("first request to one that sleeps, p50", "ms", sleeping, "first", 60),
            _row(f"{RUNNING} vassals of {WORKERS} workers: start until all answer", "s", running, "start", 4),
            _row("idle CPU of all, with heartbeats", "%", running, "cpu", 1),
            _row("PSS of all", "MB", running, "tree", 1000),
            _row("a new file in the folder until it serves", "ms", new, "serves", 200),
        ],
        [_where(peer, sizes) for peer, sizes in running.items()],
    )


def _row(name: str, unit: str, samples: Samples, key: str, limit: float = 0) -> Row:
    targets = (Target(limit),) if limit else ()
    return Row(name, unit, {peer: [figures[key]] for peer, figures in samples.items()}, targets)


def _where(peer: str, figures: dict[str, float]) -> str:
    parts = (f"{figures[key]:.0f} MB {key}" for key in ("emperor", "fork server", "masters", "workers"))
    return f"{peer}, {RUNNING} vassals: {', '.join(parts)}"


def _sleepers(empire: Empire, idle: float) -> dict[str, float]:
    names = [f"v{number}" for number in range(SLEEPERS)]
    with empire:
        for name in names:
            empire.add(name, f"processes = {WORKERS}\nidle = 60\ndie-on-idle = true\n")
        began = empire.launch()
        start = empire.await_sockets(SLEEPERS) - began
        time.sleep(_SETTLE)
        figures = {"start": start, "cpu": empire.idle_cpu(idle)}
        figures |= {"emperor": pss(empire.pids[0]), "tree": sum(map(pss, empire.pids))}
        figures["first"] = median(empire.ask(name) for name in names[:ASKED])
    return figures


def _runners(empire: Empire, idle: float) -> dict[str, float]:
    names = [f"v{number}" for number in range(RUNNING)]
    with empire:
        for name in names:
            empire.add(name, _serving(empire, name, f"processes = {WORKERS}\nheartbeat = {HEARTBEAT}\n"))
        began = empire.launch()
        start = empire.await_answers(names) - began
        time.sleep(_STABLE)
        cpu = empire.idle_cpu(idle)
        sizes = empire.sizes()
    return {"start": start, "cpu": cpu, "tree": sum(sizes.values()), **sizes}


def _newcomers(empire: Empire) -> dict[str, float]:
    def one(name: str) -> float:
        began = time.monotonic()
        empire.add(name, _serving(empire, name, "processes = 1\n"))
        return 1000 * (empire.await_answers([name]) - began)

    with empire:
        empire.launch()
        one("first")
        return {"serves": median(_spread(one, NEW))}


def _spread(one: Callable[[str], float], count: int) -> list[float]:
    """Measure so many times, each a different while after the one before."""
    took = []
    for number in range(count):
        time.sleep(0.5 + number * 0.4)
        took.append(one(f"new{number}"))
    return took


def _serving(empire: Empire, name: str, options: str) -> str:
    return f"socket = {empire.socket(name)}\nchmod-socket = 666\n{options}"
