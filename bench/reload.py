"""What a reload costs: a vassal is reloaded over and over while 8 clients ask."""

import time

from bench.load import Load, finish, start_wrk
from bench.peers import Peer
from bench.result import Plan, Result, Row, Target
from bench.site import Site

#: Seconds between two reloads: uWSGI's Emperor looks every 3 s, so a touch each time it looks.
_EVERY = 3.0
_ASKED = 10_000


def reloads(site: Site, plan: Plan) -> Result:
    """Requests that fail, of 10,000, while the vassal is reloaded every 3 s."""
    failed: dict[str, list[float]] = {peer.name: [] for peer in site.emperors}
    notes: list[str] = []
    for peer in site.emperors:
        with site.running([peer]):
            load = _under_reloads(site, peer, plan)
        failed[peer.name].append(load.failed * _ASKED / load.requests)
        notes.append(f"reload: {load.requests} requests of {peer.name}, {load.failed} failed")
    return Result([Row("reloaded every 3 s: failed of 10,000", "", failed, (Target(0),))], notes)


def _under_reloads(site: Site, peer: Peer, plan: Plan) -> Load:
    time.sleep(peer.settle)
    wrk = start_wrk(site.url(peer, "hello-c"), 8, plan.reloading)
    end = time.monotonic() + plan.reloading - _EVERY
    while time.monotonic() < end:
        time.sleep(_EVERY)
        peer.reload()
    return finish(wrk)
