"""The Emperor as a daemon: started, asked, reloaded, its log rotated, and stopped by commands, as users do it."""

import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyemperor.actors.linux import become_subreaper, living_descendants
from tests.support import PATIENCE, Answer, Server, connect, converse, free_port, gone, packet, until

_FILE = """
[emperor]
daemonize = "emperor.log"
emperor-pidfile = "emperor.pid"
log-style = "uwsgi"

[[vassal]]
name = "site"
socket = "site.sock"
http-socket = "127.0.0.1:{port}"
cgi = "/cgi-bin=cgi"
logto = "site.log"
"""


class Daemon:
    """``pyemperor run`` in the background of ``folder``, and its other commands."""

    def __init__(self, folder: Path, text: str = _FILE) -> None:
        become_subreaper()
        self.folder = folder
        self.port = free_port()
        self.log = folder / "emperor.log"
        self.pidfile = folder / "emperor.pid"
        self.socket = folder / "emperor.pyemperor.sock"
        (folder / "daemon.toml").write_text(text.format(port=self.port))

    def start(self) -> "subprocess.CompletedProcess[str]":
        return self._pyemperor("run", str(self.folder / "daemon.toml"))

    @property
    def pid(self) -> int:
        return int(self.pidfile.read_text())

    def hello(self) -> Answer:
        return converse(connect(self.folder / "site.sock"), packet("/cgi-bin/hello"))

    def ask(self, *words: str) -> "subprocess.CompletedProcess[str]":
        return self._pyemperor(*words, "--socket", str(self.socket))

    def _pyemperor(self, *words: str) -> "subprocess.CompletedProcess[str]":
        command: list[str | Path] = [Path(sys.executable).with_name("pyemperor"), *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.DEVNULL)


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[Daemon]:
    (tmp_path / "cgi").mkdir()
    hello = tmp_path / "cgi" / "hello"
    hello.write_text("#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nhello'\n")
    hello.chmod(0o755)
    daemon = Daemon(tmp_path)
    yield daemon
    if daemon.pidfile.exists():
        pid = daemon.pid
        os.kill(pid, signal.SIGTERM)
        gone(pid)
    # One that has said at the terminal why it ends may be about to do so.
    left = [pid for pid in living_descendants([os.getpid()], besides=Server.running) if not gone(pid)]
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == []


def test_a_daemons_life(daemon: Daemon) -> None:
    started = daemon.start()
    assert (started.returncode, started.stderr) == (0, "")
    assert daemon.hello().text == "hello"

    status = json.loads(daemon.ask("status", "--json").stdout)
    assert status["pid"] == daemon.pid
    assert [vassal["name"] for vassal in status["vassals"]] == ["site"]

    before = status["vassals"][0]["pids"]
    reloaded = daemon.ask("reload", "site", "--wait")
    assert (reloaded.returncode, reloaded.stdout) == (0, "site: reloaded\n")
    after = json.loads(daemon.ask("status", "--json").stdout)["vassals"][0]
    assert after["generation"] == 2
    assert after["pids"][0] not in before

    pid = daemon.pid
    stopped = daemon.ask("stop")
    assert (stopped.returncode, stopped.stdout) == (0, "the Emperor is gone, and 1 vassal with it\n")
    assert gone(pid)
    assert not daemon.pidfile.exists()
    assert not daemon.socket.exists()
    assert "The Emperor is buried." in daemon.log.read_text()


def test_a_second_one_is_refused_and_the_first_lives(daemon: Daemon) -> None:
    assert daemon.start().returncode == 0
    second = daemon.start()
    assert second.returncode == 1
    assert f"the process {daemon.pid} has it" in second.stderr
    assert daemon.ask("status").returncode == 0


def test_what_the_daemon_cannot_do_is_said_at_the_terminal(daemon: Daemon) -> None:
    with socket.create_server(("127.0.0.1", daemon.port)):
        failed = daemon.start()
    assert failed.returncode == 1
    assert "cannot listen at" in failed.stderr
    assert not daemon.pidfile.exists()


def test_sigusr1_to_the_emperor_makes_every_log_anew(daemon: Daemon) -> None:
    assert daemon.start().returncode == 0
    assert daemon.hello().status == 200
    own = daemon.folder / "site.log"
    until(daemon.folder, lambda: "GET /cgi-bin/hello" in own.read_text())
    for log in (own, daemon.log):
        log.rename(log.with_suffix(".old"))
    os.kill(daemon.pid, signal.SIGUSR1)
    assert daemon.ask("reload", "site", "--wait").returncode == 0  # the signal was handled before
    assert "vassal instance site status " in daemon.log.read_text()
    assert own.exists()
    assert daemon.hello().status == 200
    pid = daemon.pid
    assert daemon.ask("stop").returncode == 0
    assert gone(pid)
    assert own.read_text().count("GET /cgi-bin/hello") == 1
    assert (daemon.folder / "site.old").read_text().count("GET /cgi-bin/hello") == 1


def test_sigurg_absolves(daemon: Daemon) -> None:
    file = daemon.folder / "daemon.toml"
    file.write_text(_FILE.format(port=daemon.port) + 'uid = "nobody-at-all"\n')
    assert daemon.start().returncode == 0
    line = file.read_text().count("\n")
    exiled = f"vassal site stays down: {file}:{line}: uid: there is no user nobody-at-all"
    until(daemon.folder, lambda: daemon.log.read_text().count(exiled) == 1)
    os.kill(daemon.pid, signal.SIGURG)
    until(daemon.folder, lambda: daemon.log.read_text().count(exiled) == 2)
