"""Vassals that come, change and go in a folder: nobody's request fails, and nobody is left."""

import contextlib
import os
import signal
import socket
import time
from pathlib import Path

import pytest

from tests.faults.rig import PATIENCE, Serve, Server, Traffic
from tests.support import connect, free_port

TEXT = """\
socket = "../{name}.sock"
http-socket = "../{name}.http"
cgi = "/cgi=../cgi"
disable-logging = true
start-timeout = "1.5s"
"""
FOLDER = 'emperor = ["vassals"]\nemperor-freq = "1s"\n'


@pytest.fixture
def vassals(folder: Path) -> Path:
    """The folder of vassal files, which has none yet."""
    (folder / "vassals").mkdir()
    return folder / "vassals"


def write(vassals: Path, more: str = "", name: str = "app", sockets: str = "") -> Path:
    file = vassals / f"{name}.toml"
    file.write_text(TEXT.format(name=sockets or name) + more)
    return file


def serving(serve: Serve, vassals: Path, more: str = "", **options: bool) -> Server:
    """A server with the vassal ``app`` from the folder, beside one that is always there."""
    write(vassals, more)
    server = serve({"still": ""}, FOLDER, **options)
    server.ready("master:still", "master:app")
    server.mark()
    return server


def gone(path: Path) -> bool:
    """Whether ``path`` is gone before long."""
    deadline = time.monotonic() + PATIENCE
    while path.exists() and time.monotonic() < deadline:
        os.sched_yield()
    return not path.exists()


# ---- appearing and vanishing --------------------------------------------------------------------------------


def test_a_new_file_serves_at_once(serve: Serve, vassals: Path) -> None:
    server = serving(serve, vassals)
    write(vassals, name="new")
    server.ready("master:new")
    assert server.get(vassal="new") == (200, "hello \n")
    assert server.stop() == 0


def test_a_removed_file_stops_its_vassal_and_no_other(serve: Serve, vassals: Path) -> None:
    server = serving(serve, vassals)
    kept = server.pid("master:still")
    write(vassals).unlink()
    server.until(actor="master:app", event="exit")
    assert gone(vassals.parent / "app.http")
    assert gone(vassals.parent / "app.sock")
    assert server.get(vassal="still")[0] == 200
    assert server.pid("master:still") == kept
    assert server.stop() == 0


def test_a_file_that_comes_back_before_the_old_vassal_has_ended_is_served(serve: Serve, vassals: Path) -> None:
    server = serving(serve, vassals)
    held, _ = server.hold()
    (vassals / "app.toml").unlink()
    server.until(actor="master:app", state="STOPPING")
    write(vassals)
    server.until(actor="master:app", state="READY")
    assert server.get() == (200, "hello \n")
    server.release()
    assert held.answer() == (200, "held\n")
    server.until(actor="master:app", event="exit")
    assert server.get() == (200, "hello \n"), "the socket of the new one is not the old one's to remove"
    assert server.stop() == 0


def test_a_renamed_file_keeps_its_sockets(serve: Serve, vassals: Path) -> None:
    server = serving(serve, vassals)
    socket = (vassals.parent / "app.http").stat().st_ino
    traffic = Traffic(server)
    (vassals / "app.toml").rename(vassals / "other.toml")
    server.ready("master:other")
    server.until(actor="master:app", event="exit")
    server.mark()
    assert set(traffic.stop()) == {200}
    assert (vassals.parent / "app.http").stat().st_ino == socket
    write(vassals, "# changed", "other", "app")
    server.until(actor="master:other", event="reloaded")
    assert server.stop() == 0


# ---- reloading without loss ---------------------------------------------------------------------------------


def test_no_request_of_3000_fails_under_continuous_reloads(serve: Serve, vassals: Path) -> None:
    server = serving(serve, vassals, "processes = 2")
    sockets = [vassals.parent / "app.http", vassals.parent / "app.sock"]
    before = [path.stat().st_ino for path in sockets]
    traffic = Traffic(server)
    reloads = 0
    deadline = time.monotonic() + 40
    while len(traffic.statuses) < 3000 and time.monotonic() < deadline:
        server.mark()
        reloads += 1
        write(vassals, f"processes = 2\n# {reloads}")
        server.until(actor="master:app", event="reloaded")
    statuses = traffic.stop()
    assert set(statuses) == {200}
    assert len(statuses) >= 3000
    assert reloads > 5
    assert [path.stat().st_ino for path in sockets] == before
    assert server.stop() == 0


def test_a_long_request_ends_in_the_generation_that_took_it(serve: Serve, vassals: Path) -> None:
    server = serving(serve, vassals)
    held, _ = server.hold()
    old = server.pid("master:app")
    write(vassals, "# changed")
    server.until(actor="master:app", event="reloaded")
    assert server.get() == (200, "hello \n"), "the new generation serves beside the old one"
    assert Path(f"/proc/{old}/cmdline").read_bytes().startswith(b"pyemperor master: app\0")
    server.release()
    assert held.answer() == (200, "held\n")
    server.until(actor="master:app", event="exit", pid=old)
    assert server.stop() == 0


def test_addresses_come_and_go_with_a_reload(serve: Serve, vassals: Path) -> None:
    server = serving(serve, vassals)
    folder = vassals.parent
    kept = (folder / "app.http").stat().st_ino
    (vassals / "app.toml").write_text(
        'http-socket = ["../app.http", "../more.http"]\ncgi = "/cgi=../cgi"\nchmod-socket = "600"\n'
    )
    server.until(actor="master:app", event="reloaded")
    assert server.get(vassal="more")[0] == 200
    assert gone(folder / "app.sock")
    assert (folder / "app.http").stat().st_ino == kept
    assert (folder / "app.http").stat().st_mode & 0o777 == 0o600, "the mode is that of the newest"
    assert server.stop() == 0


def test_a_storm_of_edits_ends_in_the_last_one(serve: Serve, vassals: Path) -> None:
    server = serving(serve, vassals)
    traffic = Traffic(server, clients=1)
    for number in range(50):
        write(vassals, f'env = "QUERY_STRING_{number}=x"\n')
        server.watch(0.02)
    (vassals / "app.toml").write_text('http-socket = "../last.http"\ncgi = "/cgi=../cgi"\n')
    assert set(traffic.stop()) == {200}
    server.until(actor="master:app", event="reloaded")
    assert gone(vassals.parent / "app.http")
    assert server.get(vassal="last")[0] == 200
    begun = [e for e in server.log if e.get("actor") == "master:app" and e.get("state") == "SPAWNING"]
    assert len(begun) < 25, "a burst is one change"
    assert server.stop() == 0


def test_sighup_reloads_every_vassal(serve: Serve, vassals: Path) -> None:
    server = serving(serve, vassals)
    server.signal("emperor", signal.SIGHUP)
    for name in ("app", "still"):
        server.until(actor=f"master:{name}", event="reloaded")
        assert server.get(vassal=name)[0] == 200
    assert server.stop() == 0


def test_sighup_to_a_master_reloads_its_vassal_alone(serve: Serve, vassals: Path) -> None:
    server = serving(serve, vassals)
    kept = server.pid("master:still")
    server.signal("master:app", signal.SIGHUP)
    server.until(actor="master:app", event="reloaded")
    assert server.get() == (200, "hello \n")
    assert server.pid("master:still") == kept
    assert server.stop() == 0


@pytest.mark.parametrize("option", ["touch-reload", "touch-chain-reload"])
def test_a_touched_file_reloads_its_vassal(serve: Serve, vassals: Path, option: str) -> None:
    touched = vassals.parent / "reload-me"
    touched.touch()
    server = serving(serve, vassals, f'{option} = "{touched}"\n')
    old = server.pid("master:app")
    os.utime(touched)
    server.until(actor="master:app", event="reloaded")
    server.until(actor="master:app", event="exit", pid=old)
    assert server.get() == (200, "hello \n")
    assert server.stop() == 0


# ---- what cannot take over ----------------------------------------------------------------------------------


def test_a_bad_edit_leaves_the_old_one_serving_and_says_why(serve: Serve, vassals: Path) -> None:
    server = serving(serve, vassals)
    old = server.pid("master:app")
    file = write(vassals, 'harakiri = "soon"\n')
    refused = server.until(actor="master:app", event="refused")
    assert f"{file}:6: harakiri" in refused["message"]
    assert server.get() == (200, "hello \n")
    write(vassals, "# repaired")
    server.until(actor="master:app", event="reloaded")
    server.until(actor="master:app", event="exit", pid=old)
    assert server.get() == (200, "hello \n")
    assert server.stop() == 0


def test_a_new_generation_that_fails_leaves_the_old_one_serving(serve: Serve, vassals: Path) -> None:
    server = serving(serve, vassals)
    write(vassals, 'chdir = "/nowhere"\n')
    refused = server.until(actor="master:app", event="refused")
    assert "/nowhere" in refused["message"]
    assert server.get() == (200, "hello \n")
    assert server.stop() == 0


def test_a_new_generation_that_is_never_ready_is_ended(serve: Serve, vassals: Path) -> None:
    server = serving(serve, vassals, linked=True)
    server.inject(id="mute", kind="drop", target="link:master:app>emperor", match="ready")
    traffic = Traffic(server)
    write(vassals, "# changed")
    refused = server.until(actor="master:app", event="refused")
    assert "not ready within 1.5 s" in refused["message"]
    server.inject(id="mute", kind="heal", target="link:master:app>emperor")
    write(vassals, "# changed again")
    server.ready("master:app")
    assert set(traffic.stop()) == {200}
    assert server.stop() == 0


def test_a_new_master_that_is_killed_leaves_the_old_one_serving(serve: Serve, vassals: Path) -> None:
    server = serving(serve, vassals, linked=True)
    server.inject(id="late", kind="drop", target="link:master:app>emperor", match="ready")
    write(vassals, "# changed")
    born = server.until(actor="master:app", state="STARTING")
    os.kill(born["pid"], signal.SIGKILL)
    refused = server.until(actor="master:app", event="refused")
    assert "killed by signal 9" in refused["message"]
    assert server.get() == (200, "hello \n")
    assert server.stop() == 0


def test_an_address_that_another_vassal_has_is_free_when_that_has_ended(serve: Serve, vassals: Path) -> None:
    server = serving(serve, vassals)
    write(vassals, name="rival", sockets="app")
    refused = server.until(actor="master:rival", event="refused")
    assert "vassal app listens there" in refused["message"]
    (vassals / "app.toml").unlink()
    server.ready("master:rival")
    assert server.get() == (200, "hello \n")
    assert server.stop() == 0


def test_what_waits_for_an_address_does_not_begin_at_the_end(serve: Serve, vassals: Path) -> None:
    server = serving(serve, vassals)
    write(vassals, name="rival", sockets="app")
    server.until(actor="master:rival", event="refused")
    assert server.stop() == 0
    assert not server.since(actor="master:rival", event="start")


def test_a_second_sigterm_ends_a_reload_at_once(serve: Serve, vassals: Path) -> None:
    server = serving(serve, vassals)
    held, _ = server.hold()
    write(vassals, "# changed")
    server.until(actor="master:app", event="reloaded")
    server.signal("emperor", signal.SIGTERM)
    server.until(actor="master:still", event="exit")
    server.watch(0.6)  # two signals at once are one wish
    server.signal("emperor", signal.SIGTERM)
    assert server.over(5) == 0
    assert held.answer() == (0, "")


# ---- who is exiled ------------------------------------------------------------------------------------------

BAD = 'gid = "no-such-group"\n'


def refused(address: Path | tuple[str, int]) -> bool:
    """Whether who connects is refused before long."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            connect(address).close()
        except ConnectionResetError:
            continue  # it was closed in that moment
        except (ConnectionRefusedError, FileNotFoundError):
            return True
    return False


def listens(port: int) -> str:
    """The text of a vassal file that has a port besides."""
    text = TEXT.format(name="app")
    return text.replace('"../app.http"', f'["../app.http", "127.0.0.1:{port}"]')


def test_an_exiled_vassal_refuses_who_comes_until_its_file_is_changed(serve: Serve, vassals: Path) -> None:
    text = listens(port := free_port())
    (vassals / "app.toml").write_text(text + BAD)
    server = serve({"still": ""}, FOLDER)
    server.until(actor="master:app", state="EXILED")
    folder = vassals.parent
    addresses: list[Path | tuple[str, int]] = [folder / "app.http", folder / "app.sock", ("127.0.0.1", port)]
    assert all(map(refused, addresses))
    server.signal("emperor", signal.SIGURG)  # absolves it: in vain
    server.until(actor="master:app", state="EXILED")
    assert all(map(refused, addresses))
    server.mark()
    (vassals / "app.toml").write_text(text)
    server.ready("master:app")
    assert server.get() == (200, "hello \n")
    for address in addresses:
        connect(address).close()
    assert server.stop() == 0


@pytest.mark.parametrize("kind", ["unix", "tcp"])
def test_who_waits_for_a_vassal_that_is_exiled_is_let_go(serve: Serve, vassals: Path, kind: str) -> None:
    """It slept, so that somebody can wait before its start is found to be impossible."""
    (vassals / "app.toml").write_text(listens(port := free_port()) + "on-demand = true\n" + BAD)
    server = serve({"still": ""}, FOLDER)
    server.until(actor="master:app", state="SLEEPING")
    address = ("127.0.0.1", port) if kind == "tcp" else vassals.parent / "app.sock"
    with contextlib.suppress(ConnectionResetError), connect(address) as waiting:
        assert waiting.recv(1) == b""
    server.until(actor="master:app", state="EXILED")
    assert server.get(vassal="still") == (200, "hello \n")
    assert server.stop() == 0


def test_an_address_that_was_taken_while_its_vassal_was_exiled_is_named(serve: Serve, vassals: Path) -> None:
    write(vassals, BAD)
    server = serve({"still": ""}, FOLDER)
    server.until(actor="master:app", state="EXILED")
    path = vassals.parent / "app.sock"
    assert gone(path)
    with socket.socket(socket.AF_UNIX) as rival:
        rival.bind(str(path))
        rival.listen()
        server.signal("emperor", signal.SIGURG)
        server.until(lambda entry: "absolved: " in entry["message"] and "app.sock" in entry["message"])
        server.mark()
        write(vassals)
        server.until(event="refused", actor="master:app")
    path.unlink()
    server.ready("master:app")
    assert server.get() == (200, "hello \n")
    assert server.stop() == 0
