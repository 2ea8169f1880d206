"""Workers that have done enough are replaced while requests come: none of those fails, and no failure is counted."""

import os
import signal
import time
from collections import Counter

import pytest

from tests.faults.rig import Serve, Server, Traffic, await_end

QUIET = "disable-logging = true\nmin-worker-lifetime = 0\n"


def ask(server: Server, requests: int, clients: int = 4) -> Counter[int]:
    """The statuses of at least so many requests."""
    traffic = Traffic(server, clients)
    while len(traffic.statuses) < requests:
        server.watch(0.05)
    return Counter(traffic.stop())


def retired(server: Server) -> list[str]:
    return [entry["reason"] for entry in server.since(event="retire")]


def deaths(server: Server) -> list[str]:
    """What was logged of worker processes that were not asked to end."""
    failed = ("restart", "kill")
    return [entry["message"] for entry in server.log if entry.get("event") in failed]


def workers(server: Server) -> set[int]:
    """The pids of the workers that have not ended."""
    pids: set[int] = set()
    for entry in server.log:
        if entry.get("event") == "state" and entry["actor"].startswith("worker:"):
            (pids.discard if entry["state"] == "ABSENT" else pids.add)(entry["pid"])
    return pids - {0}


# ---- max-requests -------------------------------------------------------------------------------------------


def test_a_thousand_requests_by_workers_that_serve_twenty(serve: Serve) -> None:
    server = serve({"app": QUIET + "processes = 2\nthreads = 2\nmax-requests = 20"})
    server.ready("master:app")
    statuses = ask(server, 1000)
    assert set(statuses) == {200}
    server.mark()
    assert server.stop() == 0
    assert not deaths(server), "a planned end is none"
    worn = [entry["reason"] for entry in server.log if entry.get("event") == "retire"]
    # One at a time is between, which takes as long as some requests.
    assert len(worn) > 10, worn
    assert set(worn) == {"it has served 20 requests, its max-requests"}
