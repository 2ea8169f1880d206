"""What systemd hears of the Emperor (sd_notify(3)): what uWSGI's says, and more; played by a socket of ours."""

import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from pyemperor.cli.service_manager import service_manager
from tests.faults.rig import PATIENCE, Serve

FOLDER = 'emperor = ["vassals"]\nemperor-freq = "1s"\n'


class Manager:
    """Listens as systemd does, at a path or an abstract address."""

    def __init__(self, folder: Path, *, abstract: bool = False) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.settimeout(PATIENCE)
        name = f"{folder}/notify"
        self.sock.bind("\0" + name if abstract else name)
        self.environment = {"NOTIFY_SOCKET": "@" + name if abstract else name}

    def hear(self) -> list[str]:
        """The lines of the next message, but of a watchdog's."""
        while (lines := self.sock.recv(4096).decode().splitlines()) == ["WATCHDOG=1"]:
            pass
        return lines

    def forget(self) -> None:
        """Throw away what was said so far."""
        while select.select([self.sock], [], [], 0)[0]:
            self.sock.recv(4096)

    def until(self, *lines: str) -> list[list[str]]:
        """Wait for this message; what was heard until then, with it."""
        heard: list[list[str]] = []
        while not heard or heard[-1] != list(lines):
            try:
                heard.append(self.hear())
            except TimeoutError:
                pytest.fail(f"nobody said {lines} in {heard}")
        return heard


@pytest.fixture(params=[False, True], ids=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    manager = Manager(tmp_path, abstract=request.param)
    yield manager
    manager.sock.close()


def governing(text: str) -> str:
    return f"STATUS=The Emperor is governing {text}"


def test_a_life_from_ready_to_buried(serve: Serve, manager: Manager, folder: Path) -> None:
    script = folder / "cgi" / "env.cgi"
    script.write_text("#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'; exec env\n")
    script.chmod(0o755)
    told = f"hook-post-app = \"exec:sh -c 'env > {folder}/seen'\"\n"
    server = serve({"app": told, "other": ""}, environment=manager.environment)
    assert manager.hear() == ["READY=1", f"MAINPID={server.process.pid}"]
    assert manager.hear() == [governing("2 vassals")]
    server.ready("master:app", "master:other")
    assert "NOTIFY" not in (folder / "seen").read_text() + server.get("env.cgi")[1], "whoever has it could be us"
    before = time.monotonic()
    server.signal("emperor", signal.SIGHUP)
    reloading, stamp = manager.hear()
    assert reloading == "RELOADING=1"
    assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) / 1e6 <= time.monotonic()
    assert manager.hear() == ["READY=1"]
    for name in ("app", "other"):
        server.until(actor=f"master:{name}", event="reloaded")
    server.signal("emperor", signal.SIGTERM)
    assert manager.until("STOPPING=1")
    assert not [lines for lines in manager.until("STATUS=The Emperor is buried.") if "READY=1" in lines]
    assert server.over() == 0


def test_the_status_names_who_is_unwell(serve: Serve, tmp_path: Path, folder: Path) -> None:
    manager = Manager(tmp_path)
    (folder / "vassals").mkdir()
    text = "[uwsgi]\nhttp-socket = ../{}.http\ncgi = /cgi=../cgi\n{}"
    (folder / "vassals" / "bad.ini").write_text(text.format("bad", "processes = many\n"))
    (folder / "vassals" / "n\nREADY=0.ini").write_text(text.format("n", "processes = none\n"))
    server = serve({"app": "[vassal.supervision.backoff]\ninitial = 300\nmax = 300\n"}, FOLDER,
                   environment=manager.environment)  # fmt: skip
    server.ready("master:app")
    manager.until(governing("3 vassals; bad is REFUSED, n\\nREADY=0 is REFUSED"))
    (folder / "vassals" / "bad.ini").write_text(text.format("bad", ""))
    (folder / "vassals" / "n\nREADY=0.ini").unlink()
    manager.until(governing("2 vassals"))
    server.signal("master:app", signal.SIGKILL)
    manager.until(governing("2 vassals; app is BACKOFF"))
    assert server.stop() == 0
    manager.sock.close()


def test_nobody_is_told_that_it_is_ready_whose_start_failed(serve: Serve, tmp_path: Path) -> None:
    manager = Manager(tmp_path)
    server = serve(None, 'hook-emperor-start = "exec:false"\n', environment=manager.environment)
    assert server.over() == 1
    assert [manager.hear(), manager.hear()] == [["STOPPING=1"], ["STATUS=The Emperor is buried."]]
    manager.sock.close()


def test_the_watchdog_hears_of_an_emperor_that_runs(serve: Serve, tmp_path: Path) -> None:
    """Twice in its time, as systemd asks for; and nothing while the Emperor is stopped."""
    manager = Manager(tmp_path)
    server = serve(None, environment={**manager.environment, "WATCHDOG_USEC": "1000000"})
    server.ready("master:app")
    manager.forget()
    moments: list[float] = []
    while len(moments) < 5:
        if manager.sock.recv(4096) == b"WATCHDOG=1":
            moments.append(time.monotonic())
    assert all(later - sooner < 1.0 for sooner, later in pairwise(moments))
    assert moments[-1] - moments[0] > 1.5, "it is told more often than it wants to know"
    os.kill(server.process.pid, signal.SIGSTOP)
    manager.forget()
    assert not select.select([manager.sock], [], [], 1.0)[0]
    os.kill(server.process.pid, signal.SIGCONT)
    assert server.stop() == 0
    manager.sock.close()


def test_another_ones_watchdog_is_none_of_ours(tmp_path: Path) -> None:
    """sd_watchdog_enabled(3): WATCHDOG_PID says whose it is."""
    given = {"NOTIFY_SOCKET": str(tmp_path / "n"), "WATCHDOG_USEC": "3000000"}
    for whose, seconds in (("", 3.0), (str(os.getpid()), 3.0), (str(os.getppid()), 0.0)):
        environment = {**given, "WATCHDOG_PID": whose, "ELSE": "1"}
        found = service_manager(environment)
        assert found is not None
        assert (found.watchdog, environment) == (seconds, {"ELSE": "1"})
    assert service_manager({**given, "NOTIFY_SOCKET": "vsock:2:1"}) is None
    assert service_manager({}) is None


def test_whoever_reads_too_slowly_is_told_again(tmp_path: Path) -> None:
    manager = Manager(tmp_path)
    listener = service_manager(dict(manager.environment))
    assert listener is not None
    sent = 0
    while listener.notify(f"STATUS={sent}"):
        sent += 1
    assert manager.hear() == ["STATUS=0"]
    assert listener.notify("STATUS=again")
    manager.sock.close()
    assert listener.notify("STATUS=nobody"), "who has gone is not waited for"
