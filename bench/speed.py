"""Throughput and latency: wrk through nginx, the peers in turn."""

import time
from collections.abc import Callable
from http.client import HTTPConnection

from bench.load import Load, wrk
from bench.peers import Peer
from bench.process import private
from bench.result import FCGIWRAP, OURS, UWSGI, Plan, Result, Row, Target
from bench.site import Site

CONNECTIONS = 8
BODY = 1_000_000_000
#: Requests that every peer serves before it is measured: templates start meanwhile.
_FIRST = 1.0


def _rates(uwsgi: float, fcgiwrap: float) -> tuple[Target, Target]:
    return Target(uwsgi, UWSGI, True), Target(fcgiwrap, FCGIWRAP, True)


_RATES = {
    "hello-c": _rates(1.7, 1.25),
    "hello.sh": _rates(1.5, 1.15),
    "hello.pl": _rates(1.35, 1.15),
    "warm/hello.py": _rates(5, 5),
    "warm/stdlib.py": _rates(9, 9),
}
_NO_WORSE = (Target(1, UWSGI), Target(1, FCGIWRAP))


def throughput(site: Site, plan: Plan) -> Result:
    """8 clients, three kinds of script: requests a second, p50 and p99."""
    scripts = {"static C hello": "hello-c", "sh hello": "hello.sh", "Perl hello": "hello.pl"}
    if plan.full:
        scripts["Python hello"] = "hello.py"
    rows: list[Row] = []
    notes: list[str] = []
    with site.running(site.servers):
        for label, script in scripts.items():
            seconds = plan.wrk_hello if script == "hello-c" else plan.wrk_script
            loads = _in_turn(site, script, CONNECTIONS, seconds, plan.rounds)
            rows += [
                _row(label, "req/s", loads, lambda load: load.rate, _RATES.get(script, ())),
                _row(f"{label}, p50", "ms", loads, lambda load: load.p50),
                _row(f"{label}, p99", "ms", loads, lambda load: load.p99, _NO_WORSE),
            ]
            notes += _failures(label, loads)
    return Result(rows, notes)


def latency(site: Site, plan: Plan) -> Result:
    """One client at a time, static C hello: p50."""
    with site.running(site.servers):
        loads = _in_turn(site, "hello-c", 1, plan.wrk_single, plan.rounds)
    row = _row("one client, C hello, p50", "ms", loads, lambda load: load.p50, _NO_WORSE[1:])
    return Result([row], _failures("one client", loads))


def warm(site: Site, plan: Plan) -> Result:
    """8 clients, Python scripts: PyEmperor forks them from a warm interpreter, the others start one each time."""
    scripts = {"Python hello, warm": "warm/hello.py", "Python with json, urllib ..., warm": "warm/stdlib.py"}
    rows: list[Row] = []
    notes: list[str] = []
    with site.running(site.servers):
        for label, script in scripts.items():
            for peer in site.servers:
                wrk(site.url(peer, script), CONNECTIONS, _FIRST)
            loads = _in_turn(site, script, CONNECTIONS, plan.wrk_hello, plan.rounds)
            rows.append(_row(label, "req/s", loads, lambda load: load.rate, _RATES[script]))
            notes += _failures(label, loads)
    return Result(rows, notes)


def bodies(site: Site, plan: Plan) -> Result:
    """1 GB out of a script and into one, and what that adds to the memory of PyEmperor's workers."""
    grown: list[float] = []
    out: dict[str, list[float]] = {peer.name: [] for peer in site.servers}
    into: dict[str, list[float]] = {peer.name: [] for peer in site.servers}
    with site.running(site.servers):
        for _ in range(plan.rounds):
            before = {pid: private(pid) for pid in site.pyemperor.workers()}
            for peer in site.servers:
                out[peer.name].append(_download(peer))
                into[peer.name].append(_upload(peer))
            grown.append(max((private(pid) - was for pid, was in before.items()), default=0.0))
    faster = (Target(1, UWSGI, True), Target(1, FCGIWRAP, True))
    return Result(
        [
            Row("1 GB out of a script", "MB/s", out, faster, in_turn=True),
            Row("1 GB into a script", "MB/s", into, faster, in_turn=True),
            Row("memory that a worker gains by it", "MB", {OURS: grown}, (Target(2),)),
        ]
    )


def _in_turn(
    site: Site, script: str, connections: int, seconds: float, rounds: int
) -> dict[str, list[Load]]:
    loads: dict[str, list[Load]] = {peer.name: [] for peer in site.servers}
    for _ in range(rounds):
        for peer in site.servers:
            loads[peer.name].append(wrk(site.url(peer, script), connections, seconds))
    return loads


def _row(
    name: str,
    unit: str,
    loads: dict[str, list[Load]],
    figure: Callable[[Load], float],
    targets: tuple[Target, ...] = (),
) -> Row:
    samples = {peer: [figure(load) for load in seen] for peer, seen in loads.items()}
    return Row(name, unit, samples, targets, in_turn=True)


def _failures(label: str, loads: dict[str, list[Load]]) -> list[str]:
    failed = {peer: sum(x.failed for x in seen) for peer, seen in loads.items()}
    return [f"{label}: {count} failed requests of {peer}" for peer, count in failed.items() if count]


def _download(peer: Peer) -> float:
    connection = HTTPConnection("127.0.0.1", peer.port, timeout=60)
    began = time.monotonic()
    connection.request("GET", "/cgi-bin/source-c")
    response = connection.getresponse()
    block, came = bytearray(1 << 18), 0
    while n := response.readinto(block):
        came += n
    spent = time.monotonic() - began
    connection.close()
    if came != BODY:
        raise RuntimeError(f"{peer.name}: {came} of {BODY} bytes came out of the script")
    return BODY / 1e6 / spent


def _upload(peer: Peer) -> float:
    connection = HTTPConnection("127.0.0.1", peer.port, timeout=60)
    block = bytes(1 << 18)
    began = time.monotonic()
    connection.putrequest("POST", "/cgi-bin/sink-c")
    connection.putheader("Content-Length", str(BODY))
    connection.endheaders()
    for start in range(0, BODY, len(block)):
        connection.send(block[: BODY - start])
    came = int(connection.getresponse().read())
    spent = time.monotonic() - began
    connection.close()
    if came != BODY:
        raise RuntimeError(f"{peer.name}: {came} of {BODY} bytes came into the script")
    return BODY / 1e6 / spent
