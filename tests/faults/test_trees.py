"""The whole tree on real processes: who is who, what each one inherits, and that nothing is ever left of it."""

import os
import pty
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyemperor.actors.linux import children, has_terminal, living_descendants
from tests.faults.rig import PATIENCE, Serve, Server, await_end, ended

MERCY = """
processes = 1
threads = 2
worker-reload-mercy = 1.5
[vassal.supervision]
intensity = 100
mercy = 4
backoff = { initial = "10ms", max = "10ms" }
"""


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8").rstrip("\0")


def descriptors(pid: int) -> dict[int, str]:
    """Descriptor numbers of a process, and what they are."""
    folder = Path(f"/proc/{pid}/fd")
    return {int(fd.name): os.readlink(fd).split(":")[0] for fd in folder.iterdir()}


# ---- who is who ---------------------------------------------------------------------------------------------


def test_titles_parents_and_sessions(serve: Serve) -> None:
    server = serve({"app": "processes = 2", "other-1.2": ""})
    server.ready("master:app", "master:other-1.2")
    emperor, fork_server = server.pid("emperor"), server.pid("fork-server")
    tree = {
        "pyemperor emperor": (emperor, os.getpid()),
        "pyemperor fork-server": (fork_server, emperor),
        "pyemperor master: app": (server.pid("master:app"), fork_server),
        "pyemperor worker: app/1": (server.pid("worker:app/1"), fork_server),
        "pyemperor worker: app/2": (server.pid("worker:app/2"), fork_server),
        "pyemperor master: other-1.2": (server.pid("master:other-1.2"), fork_server),
        "pyemperor worker: other-1.2/1": (server.pid("worker:other-1.2/1"), fork_server),
    }
    for name, (pid, parent) in tree.items():
        assert title(pid) == name
        assert pid in [child for child, _ in children(parent)]
        if pid != emperor:
            assert os.getpgid(pid) == pid
            assert os.getsid(pid) == (fork_server if has_terminal() else os.getsid(emperor))
    assert set(living_descendants([os.getpid()])) == {pid for pid, _ in tree.values()}
    assert server.stop() == 0


def test_below_an_emperor_at_a_terminal_nobody_has_one(serve: Serve) -> None:
    """Nobody there may stop because it reads from it, and no script may ask its questions there."""
    reading, writing = pty.openpty()
    try:
        server = serve({"app": ""}, terminal=writing)
        server.ready("master:app")
        emperor, fork_server = server.pid("emperor"), server.pid("fork-server")
        assert (os.getsid(emperor), _terminal(emperor) != 0) == (emperor, True)
        _, script = server.hold("hold.cgi")
        assert (os.getsid(script), _terminal(script)) == (script, 0)
        for pid in (fork_server, server.pid("master:app"), server.pid("worker:app/1")):
            assert (os.getsid(pid), os.getpgid(pid), _terminal(pid)) == (fork_server, pid, 0)
        server.release()
        assert server.stop() == 0
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a vassal a user")
def test_a_vassal_with_a_user_has_sessions_of_its_own(serve: Serve) -> None:
    """If its scripts have none: else they could join the process groups of another user's."""
    server = serve({"app": 'uid = "nobody"\ncgi-new-session = false', "other": "cgi-new-session = false"})
    server.ready("master:app", "master:other")
    for name in ("master:app", "worker:app/1"):
        assert os.getsid(server.pid(name)) == server.pid(name)
    assert os.getsid(server.pid("worker:other/1")) != server.pid("worker:other/1")
    assert server.stop() == 0


def _terminal(pid: int) -> int:
    """The number of the controlling terminal, 0 for none (proc_pid_stat(5))."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[4])


def test_a_script_inherits_three_descriptors_and_no_more(serve: Serve) -> None:
    server = serve({"app": "processes = 1\nthreads = 3"})
    server.ready("master:app")
    held, _ = server.hold()
    status, body = server.get("fds.cgi")
    assert status == 200
    assert body.split() == ["0", "1", "2", "3"], "3 is how ls looks"
    server.release()
    assert held.answer()[0] == 200
    assert server.stop() == 0


def test_nobody_holds_what_belongs_to_others(serve: Serve) -> None:
    """The Emperor alone keeps all sockets; a worker has those of its vassal, its link, and what it made."""
    server = serve({"app": "", "other": ""})
    server.ready("master:app", "master:other")
    for vassal in ("app", "other"):
        worker = list(descriptors(server.pid(f"worker:{vassal}/1")).values())
        assert worker.count("socket") == 3, "its link, app.sock, app.http"
        master = list(descriptors(server.pid(f"master:{vassal}")).values())
        assert master.count("socket") == 5, "two links, its office, two listening sockets to hand down"
    assert list(descriptors(server.pid("fork-server")).values()).count("socket") == 3, "offices"
    assert list(descriptors(server.pid("emperor")).values()).count("socket") == 4 + 1 + 2
    assert server.stop() == 0


# ---- nothing is left ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("victim", ["worker:app/1", "master:app", "emperor"])
def test_a_script_that_hid_itself_ends_with_its_worker(serve: Serve, victim: str) -> None:
    server = serve({"app": MERCY})
    server.ready("master:app")
    held, hidden = server.hold("escape.cgi")
    worker = server.pid("worker:app/1")
    assert os.getsid(hidden) not in (worker, os.getsid(worker))
    assert hidden in living_descendants([worker])
    server.signal(victim, signal.SIGKILL)
    if victim == "emperor":
        server.over(10)
    elif victim == "worker:app/1":
        gone = server.until(actor=victim, event="exit", pid=worker)
        assert "2 processes left behind and killed" in gone["reason"]
        assert ended(hidden)
    await_end(hidden, 8)
    assert held.answer()[0] in (0, 503)
    if victim != "emperor":
        server.ready("master:app" if victim == "master:app" else victim)
        assert server.get() == (200, "hello \n")
        assert server.stop() == 0


def test_a_script_that_hid_itself_ends_with_the_server(serve: Serve) -> None:
    server = serve({"app": MERCY})
    server.ready("master:app")
    held, hidden = server.hold("escape.cgi")
    server.release()
    assert held.answer() == (200, "escaped\n")
    assert os.path.exists(f"/proc/{hidden}"), "the request is over, what it started is not"
    assert server.stop() == 0
    assert ended(hidden)


def test_a_master_that_dies_while_everything_ends(serve: Serve) -> None:
    """Its workers are still finishing; they end within their own mercy, and so does the Emperor."""
    server = serve({"app": MERCY})
    server.ready("master:app")
    held, hidden = server.hold("escape.cgi")
    server.signal("emperor", signal.SIGTERM)
    server.until(actor="worker:app/1", state="STOPPING")
    server.signal("master:app", signal.SIGKILL)
    assert server.over(8) == 0
    assert held.answer()[0] in (0, 503)
    assert ended(hidden)


def test_everything_killed_but_one_worker(serve: Serve) -> None:
    """Nobody is left to supervise it: it finishes what it accepted and ends by itself."""
    server = serve({"app": MERCY})
    server.ready("master:app")
    held, _ = server.hold()
    worker = server.pid("worker:app/1")
    for actor in ("emperor", "fork-server", "master:app"):
        server.signal(actor, signal.SIGKILL)
    server.release()
    assert held.answer() == (200, "held\n")
    await_end(worker, 5)
    assert server.over(5) == -signal.SIGKILL


def test_a_stopped_worker_does_not_hold_up_a_second_sigterm(serve: Serve) -> None:
    server = serve({"app": "processes = 2"})
    server.ready("master:app")
    server.signal("worker:app/1", signal.SIGSTOP)
    server.signal("master:app", signal.SIGKILL)
    server.ready("master:app")
    server.signal("emperor", signal.SIGTERM)
    server.until(actor="master:app", event="exit")
    server.watch(0.6)  # what comes sooner is the same wish
    server.signal("emperor", signal.SIGTERM)
    assert server.over(3) == 0


def test_zombies_of_scripts_are_reaped(serve: Serve) -> None:
    """At every heartbeat of the worker, which is sent each half a second here."""
    server = serve({"app": MERCY}, "emperor-required-heartbeat = 1.5")
    server.ready("master:app")
    worker = server.pid("worker:app/1")
    for _ in range(3):
        held, hidden = server.hold("escape.cgi")
        server.release()
        assert held.answer()[0] == 200
        os.kill(hidden, signal.SIGKILL)
    for _ in range(10):
        if not children(worker):
            break
        server.watch(0.5)
    assert children(worker) == []
    assert server.stop() == 0


# ---- another identity ---------------------------------------------------------------------------------------


@pytest.fixture
def public(folder: Path) -> Iterator[Path]:
    """A folder that everybody may enter."""
    path = Path(tempfile.mkdtemp(prefix="pyemperor-"))
    path.chmod(0o755)
    shutil.copytree(folder / "cgi", path / "cgi", ignore=lambda *_: ["started", "release"])
    yield path
    shutil.rmtree(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes identity")
def test_a_vassal_of_another_user_works_where_that_user_may_not_read_our_installation(
    public: Path,
) -> None:
    """Whatever its processes need was loaded before they lost the right to load it."""
    (public / "cgi" / "id.cgi").write_text("#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'; id -u; id -G\n")
    (public / "cgi" / "id.cgi").chmod(0o755)
    text = '[[vassal]]\nname = "app"\nhttp-socket = "app.http"\ncgi = "/cgi=cgi"\nuid = "nobody"\n'
    (public / "s.toml").write_text(f'[emperor]\nlog-style = "json"\n{text}')
    server = Server(public)
    try:
        server.ready("master:app")
        status, body = server.get("id.cgi")
        assert status == 200
        uid, groups = body.splitlines()
        assert uid == str(os.stat(f"/proc/{server.pid('worker:app/1')}").st_uid) != "0"
        assert "0" not in groups.split()
        assert server.get("nothing.cgi")[0] == 404
        assert not server.since(level="ERROR")
        assert server.stop(PATIENCE) == 0
    finally:
        server.close()
