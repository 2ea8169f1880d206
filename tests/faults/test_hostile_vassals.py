"""Vassal files that mean harm, or look like it: the Emperor and its other vassals do not notice."""

import os
import signal
from pathlib import Path

import pytest

from pyemperor.cli.control import ask
from pyemperor.protocol import control
from tests.faults.rig import Serve, Server
from tests.faults.test_reload import FOLDER, write

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")


@pytest.fixture
def vassals(folder: Path) -> Path:
    """The folder of vassal files, which has none yet."""
    (folder / "vassals").mkdir()
    return folder / "vassals"


def serving(serve: Serve, emperor: str = FOLDER) -> Server:
    server = serve({"still": ""}, emperor)
    server.ready("master:still")
    server.mark()
    return server


def is_unharmed(server: Server, vassals: Path) -> None:
    """The Emperor serves on, takes up a new vassal, and ends as it is told."""
    server.mark()
    write(vassals, name="next")
    server.ready("master:next")
    assert server.get(vassal="next") == (200, "hello \n")
    assert server.get(vassal="still") == (200, "hello \n")
    server.process.send_signal(signal.SIGHUP)
    server.until(actor="master:still", event="reloaded")
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("option", "said"),
    [
        ('chown-socket = "99999999999"', "a number of a user or group is at most 4294967294"),
        ('chown-socket = "²"', "a number of a user or group is at most 4294967294"),
        ('chown-socket = "nobody-at-all"', "there is no user or group nobody-at-all"),
        ('chmod-socket = "7777777777"', "permission bits"),
        ('uid = "99999999999"', "a number of a user or group is at most 4294967294"),
        ('uid = "²"', "a number of a user or group is at most 4294967294"),
        ('touch-reload = "/dev/zero"\nchmod-socket = "9"', "permission bits"),
    ],
)
def test_a_value_that_no_call_takes_is_refused(serve: Serve, vassals: Path, option: str, said: str) -> None:
    server = serving(serve)
    write(vassals, option)
    refused = server.until(event="refused", actor="master:app")
    assert said in refused["message"]
    is_unharmed(server, vassals)


def test_files_of_any_size_and_kind_are_survived(serve: Serve, vassals: Path) -> None:
    (vassals / "zero.toml").symlink_to("/dev/zero")
    os.mkfifo(vassals / "fifo.toml")
    (vassals / "link.toml").symlink_to("link.toml")
    (vassals / "folder.toml").mkdir()
    with (vassals / "app.ini").open("wb") as file:
        file.truncate(1 << 40)
    server = serve({"still": ""}, FOLDER)
    assert "larger than 256 KiB" in server.until(event="refused", actor="master:app")["message"]
    server.ready("master:still")
    write(vassals, f"include = \"{vassals / 'fifo.toml'}\"", name="includes")
    server.until(event="refused", actor="master:includes")
    is_unharmed(server, vassals)


def test_a_name_that_is_no_utf_8_can_be_asked_for(serve: Serve, vassals: Path) -> None:
    folder = vassals.parent
    path = str(folder / "emperor.pyemperor.sock")
    options = f'log-style = "json"\ncontrol-socket = "{path}"\nemperor = ["vassals"]\n'
    (folder / "e.toml").write_text(f"[emperor]\n{options}")
    os.rename(write(vassals, name="cafe"), os.fsencode(vassals) + b"/caf\xe9.toml")
    server = Server(folder, file="e.toml")
    try:
        server.ready("master:caf\\udce9")
        answer = ask(control.Status(), path)
        assert isinstance(answer, control.Statuses)
        assert [vassal.name for vassal in answer.vassals] == ["caf\\udce9"]
        done = control.Outcomes((control.Done("caf\\udce9", True),))
        assert ask(control.Reload(name="caf\\udce9", wait=True), path) == done
        assert ask(control.Stop(name=os.fsdecode(b"caf\xe9")), path) == done
        assert server.stop() == 0
    finally:
        server.close()


def test_a_socket_removed_by_hand_comes_back_with_the_next_generation(serve: Serve, vassals: Path) -> None:
    server = serving(serve)
    write(vassals)
    server.ready("master:app")
    (vassals.parent / "app.http").unlink()
    server.mark()
    os.utime(write(vassals))
    server.until(actor="master:app", event="reloaded")
    assert server.get() == (200, "hello \n")
    is_unharmed(server, vassals)
    assert not (vassals.parent / "app.http").exists()


@as_root
def test_a_tenant_who_swaps_the_socket_for_a_link_gets_nothing(serve: Serve, vassals: Path) -> None:
    secret, path = vassals.parent / "shadow", vassals.parent / "app.http"
    secret.write_text("secret")
    secret.chmod(0o600)
    server = serving(serve)
    write(vassals, 'chown-socket = "nobody"\nchmod-socket = "666"')
    server.ready("master:app")
    path.unlink()
    path.symlink_to(secret)
    server.mark()
    write(vassals, 'chown-socket = "nobody"\nchmod-socket = "666"\n# again')
    refused = server.until(event="refused", actor="master:app")
    assert "a file that is no socket is in the way" in refused["message"]
    assert (secret.stat().st_uid, secret.stat().st_mode & 0o777) == (0, 0o600)
    is_unharmed(server, vassals)
    assert path.is_symlink()


def test_sigwinch_looks_at_the_folder_at_once(serve: Serve, vassals: Path) -> None:
    other = vassals.parent / "other"
    other.mkdir()
    write(other, name="seen")
    (vassals.parent / "link").symlink_to(vassals)
    server = serving(serve, 'emperor = ["link"]\nemperor-freq = "1000s"\n')
    (vassals.parent / "new").symlink_to(other)
    (vassals.parent / "new").rename(vassals.parent / "link")  # nothing happens in the folder that is watched
    server.process.send_signal(signal.SIGWINCH)
    server.ready("master:seen")
    assert server.stop() == 0
