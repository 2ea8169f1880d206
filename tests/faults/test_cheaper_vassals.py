"""``cheaper``: workers come when all are busy, and go when they are not needed."""

import os
import signal

import pytest

from tests.faults.rig import Serve, Traffic, await_end
from tests.faults.test_worn_workers import most_workers

CHEAPER = """
disable-logging = true
processes = 4
cheaper = 1
cheaper-overload = 1
"""


@pytest.mark.parametrize("algorithm", ["spare", "spare2", "backlog"])
def test_a_vassal_grows_when_all_are_busy_and_shrinks_afterwards(serve: Serve, algorithm: str) -> None:
    server = serve({"app": f'{CHEAPER}cheaper-algo = "{algorithm}"\ncheaper-idle = 1'})
    server.ready("master:app")
    assert most_workers(server) == 1
    server.mark()
    # A script runs when there is a worker for it; always more connections wait than cheaper-overload.
    clients = [server.hold()[0]] + [server.ask("hold.cgi") for _ in range(5)]
    server.until(lambda _: most_workers(server) == 4, state="READY")
    server.mark()
    server.release(6)
    assert [client.answer()[0] for client in clients] == [200] * 6
    for _ in range(3):
        server.until(state="ABSENT")
        server.mark()
    assert server.get()[0] == 200
    server.watch(2.5)
    assert not [e for e in server.since(event="resize") if "+" not in e["reason"]], "never fewer than cheaper"
    assert most_workers(server) == 4
    assert server.stop() == 0
    assert not [entry for entry in server.log if entry.get("event") in ("restart", "kill")]


def test_cheaper_initial_is_what_ready_means(serve: Serve) -> None:
    server = serve({"app": CHEAPER + "cheaper-initial = 3"})
    server.ready("master:app")
    assert most_workers(server) == 3
    server.until(actor="worker:app/1", state="ABSENT")  # the oldest goes first
    assert server.stop() == 0


def test_nobody_is_lost_while_a_vassal_grows_is_worn_and_is_killed(serve: Serve) -> None:
    supervision = '[vassal.supervision]\nintensity = 1000\nbackoff = { initial = "10ms", max = "10ms" }'
    server = serve({"app": f"{CHEAPER}max-requests = 20\nmin-worker-lifetime = 0\n{supervision}"})
    server.ready("master:app")
    traffic, kills = Traffic(server, 6), 0
    while kills < 5:
        server.mark()
        entry = server.until(lambda one: one["actor"].startswith("worker:"), state="READY")
        os.kill(entry["pid"], signal.SIGKILL)
        await_end(entry["pid"])
        kills += 1
    server.until(lambda one: one["actor"].startswith("worker:"), state="READY")
    statuses = traffic.stop()
    assert len(statuses) - statuses.count(200) <= kills
    assert most_workers(server) <= 5
    assert server.get()[0] == 200
    assert server.stop() == 0
