"""kill -9 and its relatives on real processes: who dies is replaced, and nobody else is harmed."""

import os
import signal
import time
from pathlib import Path

import pytest

from pyemperor.actors.linux import process_state, zombies
from tests.faults.rig import PATIENCE, Serve, Server, Traffic, await_end, ended

QUICK = """
[vassal.supervision]
intensity = 100
mercy = 3
backoff = { initial = "10ms", max = "10ms" }
"""
#: Silence of 1.5 s makes suspect; 0.5 s without an answer convicts.
JUDGE = """
emperor-required-heartbeat = 1.5
heartbeat-probe = 0.5
"""


# ---- a worker -----------------------------------------------------------------------------------------------


def test_a_killed_worker_is_replaced_and_the_backlog_is_served(serve: Serve) -> None:
    server = serve({"app": "processes = 1" + QUICK})
    server.ready("master:app")
    held, script = server.hold()
    waiting = [server.ask(f"hello.cgi?{number}") for number in range(5)]
    killed = server.signal("worker:app/1", signal.SIGKILL)
    gone = server.until(actor="worker:app/1", event="exit", pid=killed)
    assert gone["reason"].startswith("killed by signal 9, 1 process")
    server.ready("worker:app/1")
    assert [client.answer() for client in waiting] == [(200, f"hello {number}\n") for number in range(5)]
    assert held.answer() == (0, "")
    with pytest.raises(ProcessLookupError):
        os.kill(script, 0)
    assert not server.since(actor="master:app", event="exit")
    assert server.stop() == 0


def test_under_load_only_requests_inside_the_killed_worker_fail(serve: Serve) -> None:
    server = serve({"app": "processes = 2\nthreads = 2" + QUICK})
    server.ready("master:app")
    traffic = Traffic(server)
    for number in (1, 2, 1):
        server.until(event="request")
        killed = server.signal(f"worker:app/{number}", signal.SIGKILL)
        server.until(actor=f"worker:app/{number}", event="exit", pid=killed)
        server.ready(f"worker:app/{number}")
    statuses = traffic.stop()
    assert statuses.count(200) > 10
    assert {status for status in statuses if status != 200} <= {0}
    assert len(statuses) - statuses.count(200) <= 3 * 2, "more than the threads of the killed workers failed"
    assert server.stop() == 0


def test_a_master_that_does_not_hear_is_killed_with_its_workers(serve: Serve) -> None:
    server = serve({"app": "processes = 1" + QUICK})
    server.ready("master:app")
    held, script = server.hold()
    server.signal("master:app", signal.SIGSTOP)
    server.signal("emperor", signal.SIGTERM)
    server.until(actor="master:app", event="kill", reason="its mercy is over")
    assert server.over(5) == 0
    assert held.answer() == (0, "")
    assert ended(script)


def test_a_worker_that_does_not_hear_is_killed_when_its_mercy_is_over(serve: Serve) -> None:
    server = serve({"app": "processes = 1\nworker-reload-mercy = 1.5" + QUICK})
    server.ready("master:app")
    server.signal("worker:app/1", signal.SIGSTOP)
    server.signal("emperor", signal.SIGTERM)
    server.until(actor="worker:app/1", state="STOPPING")
    server.until(actor="worker:app/1", event="kill", reason="its mercy is over")
    assert server.over(6) == 0


# ---- a master -----------------------------------------------------------------------------------------------


def test_a_killed_master_costs_no_request(serve: Serve) -> None:
    server = serve({"app": "processes = 2" + QUICK})
    server.ready("master:app")
    held, _ = server.hold()
    old = [server.pid(f"worker:app/{number}") for number in (1, 2)]
    traffic = Traffic(server)
    server.until(event="request")
    killed = server.signal("master:app", signal.SIGKILL)
    server.until(actor="master:app", event="exit", pid=killed)
    server.ready("master:app")
    assert server.pid("worker:app/1") not in old
    fresh = server.pid("worker:app/1"), server.pid("worker:app/2")
    server.until(event="request", when=lambda entry: entry["pid"] in fresh)
    assert set(traffic.stop()) == {200}
    server.release()
    assert held.answer() == (200, "held\n")
    assert server.stop() == 0


def test_workers_of_a_killed_master_do_not_outlive_their_mercy(serve: Serve) -> None:
    server = serve({"app": "processes = 1\nworker-reload-mercy = 1" + QUICK})
    server.ready("master:app")
    held, script = server.hold()
    server.signal("master:app", signal.SIGKILL)
    server.ready("master:app")
    assert held.answer()[0] == 503
    server.until(actor="worker:app/1", event="request", status=503)
    assert server.get()[0] == 200
    assert server.stop() == 0
    assert ended(script)


def test_a_stopped_orphan_is_killed_by_the_fork_server(serve: Serve) -> None:
    server = serve({"app": "processes = 1\nworker-reload-mercy = 1" + QUICK})
    server.ready("master:app")
    orphan = server.signal("worker:app/1", signal.SIGSTOP)
    server.signal("master:app", signal.SIGKILL)
    server.until(when=lambda entry: f"process {orphan} outlived its mercy" in entry["message"], seconds=6)
    assert len(server.since(level="WARNING", actor="fork-server")) <= 1
    assert server.stop() == 0


def test_a_stopped_master_is_continued_not_killed(serve: Serve) -> None:
    server = serve({"app": QUICK}, JUDGE)
    server.ready("master:app")
    server.signal("master:app", signal.SIGSTOP)
    server.until(actor="master:app", state="SUSPECT", seconds=5)
    server.until(actor="master:app", event="probe.cleared", seconds=5)
    server.until(actor="master:app", state="READY")
    assert not server.since(event="kill")
    assert server.get()[0] == 200
    assert server.stop() == 0


def test_a_hung_master_is_convicted_in_time_and_its_workers_finish(serve: Serve) -> None:
    server = serve({"app": "processes = 1" + QUICK}, JUDGE, linked=True)
    server.ready("master:app")
    held, _ = server.hold()
    hung = server.pid("master:app")
    server.inject(id="hang", kind="hang", target="master:app")
    suspect = server.until(actor="master:app", state="SUSPECT", seconds=5)
    convicted = server.until(actor="master:app", state="CONVICTED", seconds=5)
    assert 0.4 <= convicted["at"] - suspect["at"] < 2
    server.until(actor="master:app", event="exit", pid=hung)
    server.ready("master:app")
    assert server.get()[0] == 200
    server.release()
    assert held.answer() == (200, "held\n")
    assert server.stop() == 0


def test_a_hung_worker_is_convicted_by_its_master(serve: Serve) -> None:
    server = serve({"app": "processes = 2" + QUICK}, JUDGE, linked=True)
    server.ready("master:app")
    hung = server.pid("worker:app/1")
    server.inject(id="hang", kind="hang", target="worker:app/1")
    server.until(actor="worker:app/1", state="CONVICTED", seconds=5)
    server.until(actor="worker:app/1", event="exit", pid=hung)
    server.ready("worker:app/1")
    assert not server.since(actor="worker:app/2", state="SUSPECT")
    assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
@pytest.mark.parametrize("actor", ["master:app", "worker:app/1"])
def test_sigterm_to_one_process_is_a_graceful_restart(serve: Serve, actor: str, number: int) -> None:
    server = serve({"app": "processes = 1" + QUICK})
    server.ready("master:app")
    held, _ = server.hold()
    pid = server.signal(actor, number)
    waiting = server.ask()
    server.release()
    assert held.answer() == (200, "held\n")
    gone = server.until(actor=actor, event="exit", pid=pid)
    assert gone["reason"] == "exit code 0"
    server.ready(actor)
    assert waiting.answer()[0] == 200
    assert server.stop() == 0


@pytest.mark.parametrize("number", [signal.SIGWINCH, signal.SIGURG, signal.SIGPIPE, signal.SIGUSR1])
def test_what_means_nothing_to_a_process_harms_none(serve: Serve, number: int) -> None:
    server = serve({"app": "processes = 1" + QUICK})
    server.ready("master:app")
    for actor in ("emperor", "master:app", "worker:app/1"):
        server.signal(actor, number)
        assert server.get() == (200, "hello \n")
    assert server.stop() == 0
    assert not server.since(event="restart")


# ---- the Emperor --------------------------------------------------------------------------------------------


def test_a_paused_emperor_kills_nobody(serve: Serve) -> None:
    server = serve({"app": "processes = 1" + QUICK}, JUDGE)
    server.ready("master:app")
    server.signal("emperor", signal.SIGSTOP)
    server.watch(3)
    assert server.get()[0] == 200, "who serves does not need the Emperor"
    server.signal("emperor", signal.SIGCONT)
    server.until(actor="emperor", event="credit")
    server.watch(1)
    assert not server.since(event="kill")
    assert not server.since(state="CONVICTED")
    assert server.stop() == 0


def test_when_the_emperor_is_killed_the_rest_finishes_and_ends(serve: Serve) -> None:
    server = serve({"app": "processes = 1" + QUICK})
    server.ready("master:app")
    held, _ = server.hold()
    server.signal("emperor", signal.SIGKILL)
    server.until(actor="worker:app/1", state="STOPPING")
    server.release()
    assert held.answer() == (200, "held\n")
    assert server.over(5) == -signal.SIGKILL


def test_when_the_emperor_is_killed_all_is_gone_within_mercy_and_the_next_takes_over(serve: Serve) -> None:
    server = serve({"app": "processes = 1\nworker-reload-mercy = 1" + QUICK})
    server.ready("master:app")
    held, script = server.hold("escape.cgi")
    server.signal("emperor", signal.SIGKILL)
    assert server.over(8) == -signal.SIGKILL
    assert held.answer()[0] == 503
    assert ended(script)
    assert (server.folder / "app.http").is_socket(), "there was nobody to remove it"
    successor = serve({"app": QUICK})
    successor.ready("master:app")
    assert successor.get()[0] == 200
    assert successor.stop() == 0
    assert not (server.folder / "app.http").exists()


def test_a_second_sigterm_ends_everything_at_once(serve: Serve) -> None:
    server = serve({"app": "processes = 2"})
    server.ready("master:app")
    held, script = server.hold("escape.cgi")
    server.signal("emperor", signal.SIGTERM)
    server.until(actor="master:app", state="STOPPING")
    server.watch(0.6)  # what comes sooner is the same wish
    server.signal("emperor", signal.SIGTERM)
    assert server.over(3) == 0
    assert held.answer()[0] in (0, 503)
    assert ended(script)


def test_sigquit_ends_the_emperor_in_peace_as_well(serve: Serve) -> None:
    server = serve({"app": "processes = 1" + QUICK})
    server.ready("master:app")
    held, _ = server.hold()
    server.signal("emperor", signal.SIGQUIT)
    server.until(actor="worker:app/1", state="STOPPING")
    server.release()
    assert held.answer() == (200, "held\n")
    assert server.over(5) == 0


@pytest.mark.parametrize(
    ("actor", "state"),
    [("fork-server", ""), ("master:app", "STARTING"), ("worker:app/2", "STARTING"), ("worker:app/1", "READY")],
)
def test_sigterm_while_it_starts_ends_it(serve: Serve, actor: str, state: str) -> None:
    server = serve({"app": "processes = 4"})
    server.until(lambda entry: entry.get("state", "") == state, actor=actor)
    assert server.stop(5) == 0
    assert not server.since(actor="master:app", event="restart")


def test_ctrl_c_is_for_the_emperor_alone(serve: Serve) -> None:
    """A terminal signals the whole foreground group; those that serve are in sessions of their own."""
    server = serve({"app": "processes = 1" + QUICK})
    server.ready("master:app")
    held, _ = server.hold()
    os.killpg(server.process.pid, signal.SIGINT)
    server.until(actor="worker:app/1", state="STOPPING")
    server.release()
    assert held.answer() == (200, "held\n")
    assert server.over(5) == 0


def test_requests_in_hand_are_finished_before_the_end(serve: Serve) -> None:
    server = serve({"app": "processes = 1\nthreads = 2" + QUICK})
    server.ready("master:app")
    held, _ = server.hold()
    server.signal("emperor", signal.SIGTERM)
    server.until(actor="worker:app/1", state="STOPPING")
    server.release()
    assert held.answer() == (200, "held\n")
    assert server.over(3) == 0


def test_a_draining_worker_takes_no_new_request(serve: Serve) -> None:
    server = serve({"app": "processes = 1\nthreads = 2" + QUICK})
    server.ready("master:app")
    held, _ = server.hold()
    old = server.signal("worker:app/1", signal.SIGTERM)
    server.watch(0.2)
    waiting = server.ask("hello.cgi?new")
    server.watch(0.2)
    assert not server.since(event="request", pid=old)
    server.release()
    assert held.answer() == (200, "held\n")
    assert waiting.answer() == (200, "hello new\n")
    assert server.since(event="request", pid=old, uri="/cgi/hello.cgi?new") == []
    assert server.stop() == 0


# ---- the fork server ----------------------------------------------------------------------------------------


def test_a_killed_fork_server_harms_nobody_and_is_replaced(serve: Serve) -> None:
    server = serve({"app": "processes = 2" + QUICK})
    server.ready("master:app")
    held, _ = server.hold()
    server.signal("fork-server", signal.SIGKILL)
    server.until(actor="fork-server", event="restart")
    server.release()
    assert held.answer() == (200, "held\n")
    assert not server.since(actor="master:app", event="exit")
    # The master has an office at the new one ...
    killed = server.signal("worker:app/1", signal.SIGKILL)
    server.until(actor="worker:app/1", event="exit", pid=killed)
    server.ready("worker:app/1")
    # ... and the Emperor as well.
    killed = server.signal("master:app", signal.SIGKILL)
    gone = server.until(actor="master:app", event="exit", pid=killed)
    assert gone["reason"] == "killed by signal 9"
    server.ready("master:app")
    assert server.get()[0] == 200
    assert server.stop() == 0


def test_a_stopped_fork_server_holds_nobody_at_the_end(serve: Serve) -> None:
    server = serve({"app": "processes = 1\n[vassal.supervision]\nmercy = 0.5"})
    server.ready("master:app")
    server.signal("fork-server", signal.SIGSTOP)
    server.signal("emperor", signal.SIGTERM)
    server.watch(1)
    server.signal("emperor", signal.SIGTERM)
    assert server.over(5) == 0


def test_dead_fork_servers_leave_no_descriptor(serve: Serve) -> None:
    server = serve({"app": "processes = 1" + QUICK})
    server.ready("master:app")

    def descriptors() -> list[int]:
        killed = server.signal("worker:app/1", signal.SIGKILL)
        server.until(actor="worker:app/1", event="exit", pid=killed)
        server.ready("worker:app/1")
        return [len(os.listdir(f"/proc/{server.pid(actor)}/fd")) for actor in ("emperor", "master:app")]

    before = descriptors()
    for _ in range(3):
        server.signal("fork-server", signal.SIGKILL)
        server.until(actor="fork-server", event="restart")
        assert descriptors() == before
    assert zombies_of(server) == []
    assert server.stop() == 0


def test_what_a_dead_fork_server_left_is_swept_as_well(serve: Serve) -> None:
    server = serve({"app": "processes = 1" + QUICK})
    server.ready("master:app")
    held, hidden = server.hold("escape.cgi")
    server.signal("fork-server", signal.SIGKILL)
    server.until(actor="fork-server", event="restart")
    killed = server.signal("worker:app/1", signal.SIGKILL)
    server.until(actor="worker:app/1", event="exit", pid=killed)
    server.ready("worker:app/1")
    assert held.answer()[0] == 0
    await_end(hidden, 5)
    assert zombies_of(server) == []
    assert server.stop() == 0


def test_orphans_of_a_dead_fork_server_are_gone_at_the_end(serve: Serve) -> None:
    server = serve({"app": "processes = 1\nworker-reload-mercy = 1" + QUICK})
    server.ready("master:app")
    held, hidden = server.hold("escape.cgi")
    server.signal("fork-server", signal.SIGKILL)
    server.until(actor="fork-server", event="restart")
    server.signal("worker:app/1", signal.SIGSTOP)
    server.signal("master:app", signal.SIGKILL)
    server.ready("master:app")
    assert server.stop(10) == 0
    held.answer()
    assert ended(hidden)


def zombies_of(server: Server) -> list[int]:
    """Zombies among the children of the Emperor, the fork server and the master."""
    return [pid for actor in ("emperor", "fork-server", "master:app") for pid in zombies(server.pid(actor))]


def test_twenty_killed_workers_leave_no_descriptor_and_no_zombie(serve: Serve) -> None:
    server = serve({"app": "processes = 1" + QUICK})
    server.ready("master:app")

    def kill(actor: str, times: int) -> list[int]:
        for _ in range(times):
            killed = server.signal(actor, signal.SIGKILL)
            server.until(actor=actor, event="exit", pid=killed)
            server.ready("worker:app/1", actor)
        pids = [server.pid(actor) for actor in ("emperor", "fork-server", "master:app")]
        # A start is known before whoever forked has let go of what it took: at rest it has.
        deadline = time.monotonic() + PATIENCE
        while any(process_state(pid)[0] != "S" for pid in pids):
            assert time.monotonic() < deadline
        return [len(os.listdir(f"/proc/{pid}/fd")) for pid in pids]

    before = kill("worker:app/1", 2)
    assert kill("worker:app/1", 20) == before
    before = kill("master:app", 2)
    assert kill("master:app", 8) == before
    assert zombies_of(server) == []
    assert server.stop() == 0


# ---- what cannot work ---------------------------------------------------------------------------------------


def test_a_crash_loop_is_cursed_and_its_neighbour_notices_nothing(serve: Serve) -> None:
    crashing = """
        [vassal.supervision]
        intensity = 2
        backoff = { initial = "20ms", max = "50ms" }
    """
    server = serve({"app": "", "bad": crashing})
    server.ready("master:app", "master:bad")
    neighbour = server.pid("master:app"), server.pid("worker:app/1")
    for _ in range(2):
        killed = server.signal("master:bad", signal.SIGKILL)
        server.until(actor="master:bad", event="exit", pid=killed)
        server.until(actor="master:bad", state="BACKOFF")
        server.ready("master:bad")
    server.signal("master:bad", signal.SIGKILL)
    server.until(actor="master:bad", state="CURSED")
    server.watch(0.3)
    assert not server.since(actor="master:bad", event="restart")
    assert (server.pid("master:app"), server.pid("worker:app/1")) == neighbour
    assert server.get()[0] == 200
    assert server.stop() == 0


def test_a_vassal_with_an_impossible_configuration_is_exiled(serve: Serve) -> None:
    server = serve({"app": "", "bad": 'uid = "no-such-user"'})
    exiled = server.until(actor="master:bad", state="EXILED")
    assert "no-such-user" in exiled["reason"]
    server.ready("master:app")
    assert len(server.since(actor="master:bad", event="start")) == 1
    assert not server.since(actor="master:bad", event="restart")
    assert server.stop() == 0


def test_two_servers_at_one_socket(serve: Serve) -> None:
    first = serve()
    first.ready("master:app")
    second = serve()
    second.until(when=lambda entry: "another server listens there" in entry["message"])
    assert second.process.wait(15) == 1
    assert first.get()[0] == 200
    assert (first.folder / "app.sock").is_socket()
    assert first.stop() == 0


def test_a_file_that_is_no_socket_is_not_removed(serve: Serve, folder: Path) -> None:
    precious = folder / "app.sock"
    precious.write_text("precious")
    server = serve()
    server.until(when=lambda entry: "no socket is in the way" in entry["message"])
    assert server.process.wait(15) == 1
    assert precious.read_text() == "precious"
