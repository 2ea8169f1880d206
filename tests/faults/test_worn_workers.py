"""Workers that have done enough are replaced while requests come: none of those fails, no failure is counted."""

import contextlib
import os
import random
import signal
from collections import Counter
from pathlib import Path

import pytest

from pyemperor.actors.linux import memory
from tests.faults.rig import Serve, Server, Traffic, await_end

QUIET = "disable-logging = true\nmin-worker-lifetime = 0\n"


def ask(server: Server, requests: int, clients: int = 4) -> Counter[int]:
    """The statuses of at least so many requests."""
    traffic = Traffic(server, clients)
    while len(traffic.statuses) < requests:
        server.watch(0.05)
    return Counter(traffic.stop())


def retired(server: Server) -> list[str]:
    return [entry["reason"] for entry in server.log if entry.get("event") == "retire"]


def failures(server: Server) -> list[str]:
    """What the log says of processes that were started again or killed, until the server was stopped."""
    found = []
    for entry in server.log:
        if entry.get("message", "").endswith("stopping every vassal"):
            break
        if entry.get("event") in ("restart", "kill"):
            found.append(entry["message"])
    return found


def most_workers(server: Server) -> int:
    """How many worker processes there were at a time, at most."""
    pids: set[int] = set()
    most = 0
    for entry in server.log:
        if entry.get("event") == "state" and entry["actor"].startswith("worker:") and entry.get("pid"):
            (pids.discard if entry["state"] == "ABSENT" else pids.add)(entry["pid"])
            most = max(most, len(pids))
    return most


def test_a_thousand_requests_to_workers_that_serve_twenty_each(serve: Serve) -> None:
    server = serve({"app": QUIET + "processes = 2\nthreads = 2\nmax-requests = 20"})
    server.ready("master:app")
    assert set(ask(server, 1000)) == {200}
    assert server.stop() == 0
    assert not failures(server), "a planned end is none"
    assert len(retired(server)) > 10
    assert set(retired(server)) == {"it has served 20, its max-requests"}
    assert most_workers(server) == 3, "one at a time is replaced, beside the others"


def test_the_only_worker_is_replaced_and_its_request_in_hand_is_finished(serve: Serve) -> None:
    server = serve({"app": QUIET + "processes = 1\nthreads = 2\nmax-requests = 3"})
    server.ready("master:app")
    held, _ = server.hold()
    for _ in range(3):
        assert server.get()[0] == 200
    server.until(actor="worker:app/1", state="STOPPING")
    assert server.get()[0] == 200, "its replacement serves, while it finishes"
    server.mark()
    server.release()
    assert held.answer() == (200, "held\n")
    server.until(actor="worker:app/1", state="ABSENT")
    assert server.stop() == 0
    assert not failures(server)


def test_workers_are_killed_while_they_are_replaced(serve: Serve) -> None:
    """Only what a killed worker had in hand is lost, and the vassal recovers."""
    supervision = '[vassal.supervision]\nintensity = 1000\nbackoff = { initial = "10ms", max = "10ms" }'
    server = serve({"app": QUIET + f"processes = 2\nthreads = 1\nmax-requests = 20\n{supervision}"})
    server.ready("master:app")
    traffic = Traffic(server, 4)
    dice, kills = random.Random(4), 0
    while kills < 15:
        server.mark()
        state = dice.choice(["READY", "STARTING"])
        entry = server.until(lambda one: one["actor"].startswith("worker:"), state=state)
        server.watch(dice.uniform(0, 0.1))
        with contextlib.suppress(ProcessLookupError):  # it may be worn out by then
            os.kill(entry["pid"], signal.SIGKILL)
            kills += 1
        await_end(entry["pid"])
    server.until(lambda one: one["actor"].startswith("worker:"), state="READY")
    statuses = Counter(traffic.stop())
    assert statuses[200] > 100
    assert statuses.total() - statuses[200] <= kills, statuses
    server.mark()
    assert set(ask(server, 100)) == {200}
    assert server.stop() == 0
    assert not [e for e in server.log if e.get("actor") == "master:app" and e.get("event") == "restart"]


def test_a_worker_has_its_time(serve: Serve) -> None:
    server = serve(
        {"app": QUIET + "processes = 2\nmax-worker-lifetime = 1\nmax-worker-lifetime-delta = 1"}
    )
    server.ready("master:app")
    traffic = Traffic(server)
    first = server.until(event="retire")
    assert (first["actor"], first["reason"]) == ("worker:app/1", "it is 1 s old, its max-worker-lifetime")
    second = server.until(event="retire", actor="worker:app/2")
    assert second["reason"] == "it is 2 s old, its max-worker-lifetime"
    server.until(lambda entry: entry["at"] > second["at"], state="ABSENT", actor="worker:app/2")
    assert set(traffic.stop()) == {200}
    assert server.stop() == 0
    assert not failures(server)


GROWING = """\
hoard = []

def handler(vassal):
    def serve(request):
        hoard.append(bytearray(b"x" * 2**20))
        return b"HTTP/1.0 200 OK\\r\\nContent-Type: text/plain\\r\\n\\r\\nmore"
    return serve
"""


def test_workers_that_grow_stay_below_their_limit(
    serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An application within the worker leaks a megabyte a request; 400 requests are far above the limit."""
    package = tmp_path / "package"
    (package / "growing-1.dist-info").mkdir(parents=True)
    (package / "growing.py").write_text(GROWING)
    (package / "growing-1.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: growing\nVersion: 1\n")
    entry_points = package / "growing-1.dist-info" / "entry_points.txt"
    entry_points.write_text("[pyemperor.handlers]\n9 = growing:handler\n")
    monkeypatch.setenv("PYTHONPATH", str(package))
    server = serve({"app": QUIET + "processes = 2\nreload-on-rss = 120\nmem-collector-freq = 0.1"})
    server.ready("master:app")
    statuses: Counter[int] = Counter()
    known: set[int] = set()
    while statuses.total() < 400:
        statuses[server.get()[0]] += 1
        for worker in ("worker:app/1", "worker:app/2"):
            known.add(pid := server.pid(worker))
            if memory(pid)[0] > 130 << 20:
                server.until(lambda entry: entry["pid"] not in known, actor=worker, state="READY")
    assert set(statuses) == {200}
    assert {"reload-on-rss is 120" in reason for reason in retired(server)} == {True}
    assert server.stop() == 0
    assert not failures(server)


def test_a_worker_with_too_much_memory_is_replaced(serve: Serve) -> None:
    server = serve({"app": QUIET + "processes = 2\nreload-on-rss = 1\nmem-collector-freq = 0.3"})
    server.ready("master:app")
    traffic = Traffic(server)
    for actor in ("worker:app/1", "worker:app/2"):
        entry = server.until(event="retire", actor=actor)
        assert entry["reason"].endswith("reload-on-rss is 1")
        server.until(actor=actor, state="ABSENT")
    assert set(traffic.stop()) == {200}
    assert server.stop() == 0
    assert not failures(server)


def test_min_worker_lifetime_comes_first(serve: Serve) -> None:
    server = serve({"app": "processes = 1\nmax-requests = 1\nmin-worker-lifetime = 1.5"})
    server.ready("master:app")
    born = server.until(actor="worker:app/1", state="READY")
    assert server.get()[0] == 200
    assert server.until(event="retire")["at"] >= born["at"] + 1.5
    assert server.stop() == 0


def test_an_evil_limit_kills_and_replaces_at_once(serve: Serve) -> None:
    server = serve({"app": QUIET + "processes = 1\nthreads = 2\nevil-reload-on-as = 1\nmem-collector-freq = 1"})
    server.ready("master:app")
    before = server.pid("worker:app/1")
    held, _ = server.hold()
    server.until(event="kill", actor="worker:app/1")
    await_end(before)
    assert held.answer()[0] == 0
    server.until(lambda entry: entry["pid"] != before, actor="worker:app/1", state="READY")
    assert server.get()[0] == 200
    assert server.stop() == 0
    assert "evil-reload-on-as is 1" in retired(server)[0]
    assert not [entry for entry in server.log if entry.get("event") == "restart"]


def test_a_touched_file_replaces_the_workers_and_nothing_else(serve: Serve, folder: Path) -> None:
    (folder / "touch-me").touch()
    server = serve({"app": QUIET + 'processes = 2\ntouch-workers-reload = "touch-me"'})
    server.ready("master:app")
    master, held = server.pid("master:app"), server.hold()[0]
    server.mark()
    os.utime(folder / "touch-me")
    for actor in ("worker:app/1", "worker:app/2"):
        assert server.until(event="retire", actor=actor)["reason"] == "touch-workers-reload"
    server.until(state="STOPPING")
    server.release()
    assert held.answer()[0] == 200
    server.until(actor="worker:app/1", state="ABSENT")
    server.until(actor="worker:app/2", state="ABSENT")
    assert server.pid("master:app") == master
    assert server.get()[0] == 200
    assert server.stop() == 0
    assert not failures(server)
