"""Vassals that run only while somebody asks them for something: real files, sockets and processes."""

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.faults.rig import PATIENCE, Serve, Server, Traffic, ended
from tests.faults.test_reload import gone, write
from tests.support import packet

DIRECTORY = 'emperor = ["vassals"]\nemperor-freq = "1s"\nemperor-on-demand-directory = "sockets"\n'
EXTENSION = 'emperor = ["vassals"]\nemperor-freq = "1s"\nemperor-on-demand-extension = ".at"\n'
SLEEPY = 'idle = "1s"\ndie-on-idle = true\n'
#: A vassal file that needs no socket: the Emperor gives it one.
INI = "[uwsgi]\nplugins = cgi\nmaster = true\nprocesses = 1\ncgi = /cgi={cgi}\n"


@pytest.fixture
def vassals(folder: Path) -> Path:
    """The folder of vassal files, which has none yet."""
    for name in ("vassals", "sockets"):
        (folder / name).mkdir()
    return folder / "vassals"


def ask(path: Path) -> bytes:
    """What a web server gets at the socket of a vassal; the answer may be late, for it may have to wake up."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(path))
        client.sendall(packet("/cgi/hello.cgi"))
        answer = b""
        while part := client.recv(4096):
            answer += part
    return answer


def ini(vassals: Path, name: str = "shop", more: str = "") -> Path:
    file = vassals / f"{name}.ini"
    file.write_text(INI.format(cgi=vassals.parent / "cgi") + more)
    return file


def asleep(server: Server, name: str) -> None:
    server.until(actor=f"master:{name}", state="SLEEPING")


# ---- uWSGI's options ----------------------------------------------------------------------------------------


def test_a_folder_of_sockets_wakes_vassals(serve: Serve, vassals: Path) -> None:
    for name in ("shop", "wiki"):
        ini(vassals, name)
    server = serve({"still": ""}, DIRECTORY)
    asleep(server, "shop")
    asleep(server, "wiki")
    sockets = vassals.parent / "sockets"
    assert (sockets / "shop.socket").stat().st_mode & 0o777 == 0o666
    assert b"200 OK" in ask(sockets / "shop.socket")
    server.ready("master:shop")
    assert not server.since(actor="master:wiki", event="start")
    assert server.stop() == 0
    assert os.listdir(sockets) == []


def test_a_file_beside_the_vassals_names_its_socket(serve: Serve, vassals: Path) -> None:
    (vassals / "shop.ini.at").write_text("../shop.sock\n")
    ini(vassals)
    ini(vassals, "plain", f"socket = {vassals.parent}/plain.sock\nchmod-socket = 600\n")
    server = serve({"still": ""}, EXTENSION)
    server.ready("master:plain")
    asleep(server, "shop")
    assert b"200 OK" in ask(vassals.parent / "shop.sock")
    assert server.stop() == 0
    assert not (vassals.parent / "shop.sock").exists()


def test_a_file_beside_it_that_names_no_address_is_refused_by_name(serve: Serve, vassals: Path) -> None:
    beside = vassals / "shop.ini.at"
    beside.write_text("\n")
    ini(vassals)
    server = serve({"still": ""}, EXTENSION)
    assert str(beside) in server.until(actor="master:shop", event="refused")["message"]
    beside.write_text("../shop.sock")
    ini(vassals, more="# again")
    asleep(server, "shop")
    assert server.stop() == 0


def test_the_vassals_own_sockets_wake_it_as_well(serve: Serve, vassals: Path) -> None:
    write(vassals, 'chmod-socket = "600"\n')
    server = serve({"still": ""}, DIRECTORY)
    asleep(server, "app")
    assert server.get() == (200, "hello \n")
    assert b"200 OK" in ask(vassals.parent / "sockets" / "app.socket")
    assert b"200 OK" in ask(vassals.parent / "app.sock")
    assert (vassals.parent / "app.http").stat().st_mode & 0o777 == 0o600
    assert server.stop() == 0


def test_a_socket_of_its_own_with_the_same_address_is_that_one(serve: Serve, vassals: Path) -> None:
    """uWSGI's vassal binds it anew, and is never woken again (its issue 632)."""
    ini(vassals, more=f"socket = {vassals.parent}/sockets/shop.socket\nidle = 1\ndie-on-idle = true\n")
    server = serve({"still": ""}, DIRECTORY)
    for _ in range(2):
        asleep(server, "shop")
        server.mark()
        assert b"200 OK" in ask(vassals.parent / "sockets" / "shop.socket")
    assert server.stop() == 0


# ---- sleeping and waking ------------------------------------------------------------------------------------


def test_no_request_is_lost_between_sleeping_and_waking(serve: Serve) -> None:
    server = serve({"app": 'on-demand = true\nidle = "100ms"\ndie-on-idle = true\n'})
    asleep(server, "app")
    traffic = Traffic(server, clients=1)
    for _ in range(5):
        server.mark()
        os.kill(server.process.pid, signal.SIGSTOP)  # so that requests come while nobody can wake anybody
        server.watch(0.2)
        os.kill(server.process.pid, signal.SIGCONT)
        server.watch(0.3)
    statuses = traffic.stop()
    assert set(statuses) == {200}
    for pause in range(40):
        server.watch(0.08 + pause / 500)
        assert server.get() == (200, "hello \n")
    server.watch(0.3)
    assert len([entry for entry in server.log if entry.get("state") == "SLEEPING"]) > 10
    assert server.stop() == 0


def test_a_sleeping_vassal_has_no_process_and_keeps_its_socket(serve: Serve) -> None:
    server = serve({"app": "on-demand = true\n" + SLEEPY})
    asleep(server, "app")
    inode = (server.folder / "app.http").stat().st_ino
    server.mark()
    assert server.get() == (200, "hello \n")
    server.ready("master:app", "worker:app/1")
    pid = server.pid("worker:app/1")
    asleep(server, "app")
    server.until(actor="master:app", event="exit")
    assert ended(pid)
    assert (server.folder / "app.http").stat().st_ino == inode
    assert server.get() == (200, "hello \n")
    assert server.stop() == 0


def test_a_master_that_dies_at_once_is_not_started_in_a_loop(serve: Serve) -> None:
    server = serve({"app": 'on-demand = true\ngid = "no-such-group"\n'})
    asleep(server, "app")
    client = server.ask()
    server.until(actor="master:app", state="EXILED")
    server.watch(1.0)
    assert len([e for e in server.log if e.get("event") in ("start", "restart")]) == 2, "fork server, master"
    client.close()
    assert server.stop() == 0


def test_an_edit_of_a_sleeping_vassal_does_not_wake_it(serve: Serve, vassals: Path) -> None:
    write(vassals)
    server = serve({"still": ""}, DIRECTORY)
    asleep(server, "app")
    server.mark()
    write(vassals, "processes = 2\n")
    asleep(server, "app")
    assert not server.since(actor="master:app", event="start")
    assert server.get() == (200, "hello \n")
    server.ready("master:app")
    assert server.stop() == 0


def test_removing_a_sleeping_vassal_removes_its_socket(serve: Serve, vassals: Path) -> None:
    file = ini(vassals)
    server = serve({"still": ""}, DIRECTORY)
    asleep(server, "shop")
    file.unlink()
    assert gone(vassals.parent / "sockets" / "shop.socket")
    assert server.stop() == 0


def test_the_limit_of_open_files_is_no_limit_of_vassals(serve: Serve, vassals: Path) -> None:
    """Each has a socket in the Emperor; scripts keep the limit that the Emperor was given."""
    script = vassals.parent / "cgi" / "hello.cgi"
    script.write_text("#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'; ulimit -n\n")
    for number in range(100):
        ini(vassals, f"v{number}")
    server = serve({"still": ""}, DIRECTORY, files=64)
    for number in range(100):
        asleep(server, f"v{number}")
    assert ask(vassals.parent / "sockets" / "v99.socket").endswith(b"\r\n\r\n64\n")
    assert server.stop() == 0


def test_the_limit_of_open_files_is_no_limit_of_masters(serve: Serve, vassals: Path) -> None:
    """Each has an office in the fork server."""
    for number in range(24):
        ini(vassals, f"v{number}")
    server = serve({"still": ""}, DIRECTORY, files=24)
    for number in range(24):
        asleep(server, f"v{number}")
    for number in range(24):
        assert ask(vassals.parent / "sockets" / f"v{number}.socket").endswith(b"hello \n")
    assert server.stop() == 0


# ---- a master without workers -------------------------------------------------------------------------------


def test_a_cheap_vassal_starts_its_workers_when_it_is_asked(serve: Serve) -> None:
    server = serve({"app": 'cheap = true\nprocesses = 2\nidle = "1s"\n'}, linked=True)
    server.ready("master:app")
    for _ in range(2):
        server.mark()
        assert not server.since(actor="worker:app/1", event="start")
        assert server.get() == (200, "hello \n")
        server.ready("worker:app/1", "worker:app/2")
        server.until(actor="worker:app/1", event="exit")
        server.until(actor="worker:app/2", event="exit")
    assert not server.since(actor="master:app", event="exit")
    assert server.stop() == 0


def test_no_request_is_lost_while_idle_workers_end(serve: Serve) -> None:
    server = serve({"app": 'processes = 2\nidle = "100ms"\n'})
    server.ready("master:app")
    for pause in range(40):
        server.watch(0.08 + pause / 500)
        assert server.get() == (200, "hello \n")
    assert server.stop() == 0
