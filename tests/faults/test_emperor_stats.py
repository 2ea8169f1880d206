"""emperor-stats: what dashboards for uWSGI's Emperor read, and what they cannot do to ours."""

import json
import os
import signal
import socket
import stat
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pykka
import pytest

from pyemperor.actors.actor import Threads
from pyemperor.actors.administration import Census, Moments, Origin, Record, VassalStatus
from pyemperor.actors.stats import MOST, Stats
from pyemperor.protocol.options import EmperorOptions
from tests.faults.rig import Serve, Server
from tests.support import connect, free_port, read_to_end

#: uWSGI 2.0.31, core/emperor.c: emperor_stats().
TOP = {"version": str, "pid": int, "uid": int, "gid": int, "cwd": str, "emperor": list, "emperor_tyrant": int,
       "throttle_level": int, "vassals": list, "blacklist": list}  # fmt: skip
VASSAL = {
    **dict.fromkeys(
        ("pid", "born", "last_mod", "last_heartbeat", "loyal", "ready", "accepting", "last_loyal", "last_ready",
         "last_accepting", "first_run", "last_run", "cursed", "zerg", "uid", "gid", "respawns"), int),
    **dict.fromkeys(("id", "on_demand", "monitor"), str),
}  # fmt: skip
LISTED = {"id": str, "throttle_level": int, "attempt": int, "first_attempt": int, "last_attempt": int}

STATS = 'emperor-stats = "stats.sock"\n'


def fits(value: dict[str, Any], kinds: dict[str, type]) -> bool:
    return all(type(value.get(key)) is kind for key, kind in kinds.items())


def read(address: Path | tuple[str, int]) -> dict[str, Any]:
    with connect(address) as sock:
        document: dict[str, Any] = json.loads(read_to_end(sock).raw)
    return document


def test_it_is_uwsgis_document(serve: Serve) -> None:
    began = time.time()
    server = serve({"app": "", "bad": ""}, STATS)
    server.ready("master:app", "master:bad")
    server.get()
    server.until(event="loyal")
    for state in ("BACKOFF", "BACKOFF", "BACKOFF", "BACKOFF", "BACKOFF", "CURSED"):
        server.signal("master:bad", signal.SIGKILL)
        server.until(actor="master:bad", state=state)
        if state != "CURSED":
            server.ready("master:bad")
    found = read(server.folder / "stats.sock")
    assert fits(found, TOP)
    assert (found["pid"], found["uid"], found["emperor_tyrant"]) == (server.process.pid, os.geteuid(), 0)
    app, bad = found["vassals"]
    assert fits(app, VASSAL)
    assert fits(bad, VASSAL)
    assert (app["id"], app["pid"]) == ("app", server.pid("master:app"))
    assert (app["loyal"], app["ready"], app["accepting"], app["respawns"], app["cursed"]) == (1, 1, 1, 0, 0)
    for key in ("first_run", "last_run", "last_ready", "last_loyal", "last_heartbeat"):
        assert began - 2 <= app[key] <= time.time() + 1, key
    assert (bad["pid"], bad["ready"], bad["loyal"], bad["respawns"]) == (-1, 0, 0, 5)
    assert bad["cursed"] >= began - 1
    (listed,) = found["blacklist"]
    assert fits(listed, LISTED)
    assert listed["id"] == "bad"
    assert listed["throttle_level"] > 0
    assert server.stop() == 0
    assert not (server.folder / "stats.sock").exists()


def test_vassals_of_files_are_called_as_uwsgi_calls_them(serve: Serve, folder: Path) -> None:
    began = int(time.time())
    for name in ("site", "more"):
        (folder / name).mkdir()
    cgi = f"[uwsgi]\nsocket = {folder}/%n.sock\ncgi = /cgi={folder}/cgi\n"
    shop, slow, bad = (folder / path for path in ("site/shop.ini", "site/slow.ini", "more/bad.ini"))
    shop.write_text(cgi)
    slow.write_text(f"{cgi}on-demand = true\n")
    bad.write_text(f"{cgi}chdir = /nowhere\n")
    os.utime(shop, (1e9, 1e9))
    pattern = folder / "more" / "*.ini"
    server = serve({"app": ""}, f'{STATS}emperor = ["dir://{folder}/site", "glob://{pattern}"]\n')
    server.ready("master:app", "master:shop")
    server.until(actor="master:slow", state="SLEEPING")
    server.until(actor="master:bad", state="BACKOFF")
    found = read(folder / "stats.sock")
    assert found["emperor"] == [f"{folder}/site", str(pattern)]
    vassals = {one["name"]: one for one in found["vassals"]}
    assert all(fits(one, VASSAL) for one in vassals.values())
    keys = ("id", "monitor", "on_demand")
    assert {name: tuple(one[key] for key in keys) for name, one in vassals.items()} == {
        "app": ("app", "", ""),
        "bad": (str(bad), str(pattern), ""),
        "shop": ("shop.ini", f"{folder}/site", ""),
        "slow": ("slow.ini", f"{folder}/site", f"{folder}/slow.sock"),
    }
    assert [one["id"] for one in found["blacklist"]] == [str(bad)]
    assert all(began - 2 <= one["born"] <= time.time() + 1 for one in vassals.values())
    assert (vassals["app"]["last_mod"], vassals["shop"]["last_mod"]) == (0, 1_000_000_000)
    assert vassals["bad"]["last_mod"] >= began - 2
    server.mark()
    os.utime(shop)
    server.until(lambda entry: "generation 2 serves now" in entry["message"])
    (again,) = [one for one in read(folder / "stats.sock")["vassals"] if one["name"] == "shop"]
    assert again["last_mod"] >= began - 2
    assert again["born"] == vassals["shop"]["born"]
    assert server.stop() == 0


def test_a_tcp_address_serves_as_well(serve: Serve) -> None:
    port = free_port()
    server = serve(None, f'emperor-stats-server = "127.0.0.1:{port}"\n')
    server.ready("master:app")
    assert [one["id"] for one in read(("127.0.0.1", port))["vassals"]] == ["app"]
    assert server.stop() == 0


def test_the_socket_is_not_everybodys(serve: Serve) -> None:
    server = serve(None, STATS)
    server.ready("master:app")
    assert stat.S_IMODE((server.folder / "stats.sock").stat().st_mode) == 0o660
    assert server.stop() == 0


class _Crowded(pykka.ThreadingActor):
    """An Emperor of so many vassals that no socket takes the document at once."""

    def on_receive(self, message: object) -> list[Record]:
        assert message == Census()
        names = [f"v{number}" for number in range(3000)]
        return [Record(VassalStatus(name, "STABLE", 1, (), 0), Moments(), Origin(name)) for name in names]


def test_who_does_not_read_and_who_come_in_crowds_hold_up_nobody(tmp_path: Path) -> None:
    address = tmp_path / "stats.sock"
    with socket.socket(socket.AF_UNIX) as listener, ExitStack() as stack:
        listener.bind(str(address))
        listener.listen(4 * MOST)
        listener.setblocking(False)
        emperor = _Crowded.start()
        stack.callback(emperor.stop)
        stack.callback(Stats.start(Threads(), emperor, listener, EmperorOptions(), time.time).stop)
        for _ in range(MOST - 1):
            stack.enter_context(connect(address))  # who does not read
        for _ in range(3):
            assert len(read(address)["vassals"]) == 3000
        crowd = [stack.enter_context(connect(address)) for _ in range(3)]
        told = [bool(read_to_end(sock).raw) for sock in crowd]
        assert any(told), "some are served, the others are let go at once"


def test_an_address_that_is_taken_is_said(serve: Serve, folder: Path) -> None:
    (folder / "stats.sock").write_text("mine")
    server = serve(None, STATS)
    server.until(lambda entry: "emperor-stats: cannot listen at" in entry["message"])
    assert server.over() != 0


@pytest.mark.parametrize("paused", [False, True])
def test_a_stopped_vassal_is_seen_as_such(serve: Serve, paused: bool) -> None:
    """A vassal that does not answer keeps nobody from the statistics."""
    server: Server = serve(None, STATS)
    server.ready("master:app")
    pid = server.pid("master:app")
    if paused:
        os.kill(pid, signal.SIGSTOP)
    (app,) = read(server.folder / "stats.sock")["vassals"]
    assert app["pid"] == pid
    if paused:
        os.kill(pid, signal.SIGCONT)
    assert server.stop() == 0
