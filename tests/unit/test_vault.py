"""The sockets of a vassal's generations: shared, added, given up, and never fought for."""

import os
import select
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pyemperor.actors.listeners import SocketVault
from pyemperor.actors.socket_file import bind_file
from pyemperor.protocol.errors import ConfigError
from pyemperor.protocol.options import Address, Vassal


def unix(path: Path) -> Address:
    return Address("unix", path=str(path))


@pytest.fixture
def vault() -> Iterator[SocketVault]:
    vault = SocketVault()
    yield vault
    vault.close()


def greets(path: Path) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket(socket.AF_UNIX) as client:
        return client.connect_ex(str(path)) == 0


def test_generations_share_what_both_have(vault: SocketVault, tmp_path: Path) -> None:
    kept, dropped, added = (tmp_path / name for name in ("kept", "dropped", "added"))
    vault.bind(Vassal("app", socket=(unix(dropped), unix(kept))))
    inode = kept.stat().st_ino
    vault.bind(Vassal("app", socket=(unix(kept), unix(added))), "app/2", ["app"])
    assert vault.fds("app/2")[0] == vault.fds("app")[1]
    assert all(map(greets, (kept, dropped, added)))
    vault.release("app")
    assert not dropped.exists()
    assert all(map(greets, (kept, added)))
    assert kept.stat().st_ino == inode
    vault.release("app/2")
    assert list(tmp_path.iterdir()) == []


def test_who_wants_the_address_of_another_does_not_wake_it(vault: SocketVault, tmp_path: Path) -> None:
    """A vassal sleeps until a connection comes: to try whether somebody listens there would be one."""
    path = tmp_path / "app"
    vault.bind(Vassal("app", socket=(unix(path),)))
    with pytest.raises(ConfigError, match="vassal app listens there"):
        vault.bind(Vassal("rival", socket=(unix(path),)))
    (fd,) = vault.fds("app")
    assert select.select([fd], [], [], 0)[0] == []
    path.unlink()
    vault.bind(Vassal("rival", socket=(unix(path),)))
    assert greets(path), "nobody finds the other one any more"


def test_a_free_port_is_for_everybody(vault: SocketVault) -> None:
    for name in ("app", "other"):
        vault.bind(Vassal(name, socket=(Address("tcp", host="127.0.0.1"),)))
    assert vault.addresses("app") != vault.addresses("other")


def test_a_new_generation_that_fails_takes_nothing_along(vault: SocketVault, tmp_path: Path) -> None:
    kept, added = tmp_path / "kept", tmp_path / "added"
    vault.bind(Vassal("app", socket=(unix(kept),)))
    vault.bind(Vassal("app", socket=(unix(kept), unix(added))), "app/2", ["app"])
    vault.release("app/2")
    assert greets(kept)
    assert not added.exists()


def test_when_one_address_cannot_be_had_all_stays_as_it_was(vault: SocketVault, tmp_path: Path) -> None:
    kept, taken = tmp_path / "kept", tmp_path / "taken"
    taken.write_text("a file")
    vault.bind(Vassal("app", socket=(unix(kept),), chmod_socket=0o600))
    with pytest.raises(ConfigError, match="no socket is in the way"):
        vault.bind(Vassal("app", socket=(unix(kept), unix(taken)), chmod_socket=0o666), "app/2", ["app"])
    assert greets(kept)
    assert kept.stat().st_mode & 0o777 == 0o600
    assert vault.fds("app/2") == []


def test_what_is_kept_gets_mode_owner_and_backlog_of_the_newest(vault: SocketVault, tmp_path: Path) -> None:
    """44. uWSGI: a changed mode or owner is not applied by a reload. Better: it is."""
    path = tmp_path / "app.sock"
    vault.bind(Vassal("app", socket=(unix(path),), chmod_socket=0o600))
    ours = f"{os.getuid()}:{os.getgid()}"
    newest = Vassal("app", socket=(unix(path),), chmod_socket=0o666, chown_socket=ours, listen=1)
    vault.bind(newest, "app/2", ["app"])
    assert path.stat().st_mode & 0o777 == 0o666
    with socket.socket(fileno=os.dup(vault.fds("app")[0])) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN) == 1
    waiting = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for client in waiting:
        client.setblocking(False)
    assert [client.connect_ex(str(path)) != 0 for client in waiting] == [False, False, True]
    for client in waiting:
        client.close()


def test_who_has_an_address_is_named(vault: SocketVault, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    vault.bind(Vassal("app", socket=(unix(path),)))
    with pytest.raises(ConfigError, match="vassal app listens there"):
        vault.bind(Vassal("rival", socket=(unix(path),)))
    assert greets(path)


def test_a_port_that_the_system_chose_is_kept_and_two_are_two(vault: SocketVault) -> None:
    some = Address("tcp", host="127.0.0.1", port=0)
    vault.bind(Vassal("app", socket=(some, some)))
    ports = vault.addresses("app")
    assert len(set(ports)) == 2
    vault.bind(Vassal("app", socket=(some, some)), "app/2", ["app"])
    assert vault.addresses("app/2") == ports
    vault.bind(Vassal("other", socket=(some,)))
    assert vault.addresses("other")[0] not in ports


# ---- files that are removed, and values that no call takes ----------------------------------------------------


def test_a_file_that_was_removed_is_bound_anew_by_the_next_generation(vault: SocketVault, tmp_path: Path) -> None:
    lost, kept = tmp_path / "lost", tmp_path / "kept"
    both = (unix(lost), unix(kept))
    vault.bind(Vassal("app", socket=both))
    lost.unlink()
    vault.bind(Vassal("app", socket=both), "app/2", ["app"])
    assert greets(lost)
    assert vault.fds("app/2")[0] != vault.fds("app")[0]
    assert vault.fds("app/2")[1] == vault.fds("app")[1]
    vault.release("app")
    assert greets(lost), "the old generation took nothing of the new one's along"


def test_an_address_that_another_server_took_meanwhile_is_refused(vault: SocketVault, tmp_path: Path) -> None:
    path = tmp_path / "app"
    vault.bind(Vassal("app", socket=(unix(path),)))
    path.unlink()
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(path))
        other.listen()
        with pytest.raises(ConfigError, match="another server listens there"):
            vault.bind(Vassal("app", socket=(unix(path),)), "app/2", ["app"])
    assert vault.fds("app/2") == []


@pytest.mark.parametrize(
    "options",
    [
        {"chown_socket": "99999999999"},
        {"chown_socket": "²"},
        {"chown_socket": "0:99999999999"},
        {"chmod_socket": 10**30},
    ],
    ids=repr,
)
def test_values_that_no_call_takes_are_the_vassals_problem(
    vault: SocketVault, tmp_path: Path, options: dict[str, Any]
) -> None:
    vault.bind(Vassal("app", socket=(unix(tmp_path / "app"),)))
    for claim, sharing, name in (("app/2", ["app"], "app"), ("app/3", [], "new")):
        with pytest.raises(ConfigError, match=r"cannot listen at .*: .+|there is no user or group ."):
            vault.bind(Vassal("app", socket=(unix(tmp_path / name),), **options), claim, sharing)
        assert vault.fds(claim) == []
    assert not (tmp_path / "new").exists(), "what was refused leaves nothing"
    assert greets(tmp_path / "app")


@pytest.mark.parametrize("path", ["\0", "a\0b", "\ud800", "x" * 200, "a/" * 60])
def test_paths_that_cannot_be_are_the_vassals_problem(vault: SocketVault, tmp_path: Path, path: str) -> None:
    with pytest.raises(ConfigError, match=r"cannot listen at .*: .+"):
        vault.bind(Vassal("app", socket=(unix(tmp_path / path),)))
    assert vault.fds("app") == []


def test_no_name_is_looked_up(vault: SocketVault) -> None:
    with pytest.raises(ConfigError, match=r"no name is looked up here \(write its number\)"):
        vault.bind(Vassal("app", http_socket=(Address("tcp", host="www.example.org", port=0),)))
    vault.bind(Vassal("app", http_socket=(Address("tcp", host="localhost", port=0),)))


def test_a_folder_that_is_closed_to_us_by_now_harms_nobody(vault: SocketVault, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    vault.bind(Vassal("app", socket=(unix(folder / "app"),)))
    folder.rename(tmp_path / "moved")
    folder.write_text("a file in the place of the folder")
    vault.release("app")
    assert vault.fds("app") == []


# ---- whoever owns the folder may swap what is in it -------------------------------------------------------------


class Swapped(socket.socket):
    """A socket whose file somebody replaces by ``decoy`` as soon as it is bound."""

    decoy: Path
    how: Callable[[Path, str], None]

    def bind(self, address: Any) -> None:
        super().bind(address)
        os.unlink(address)
        self.how(self.decoy, address)


def a_link(decoy: Path, path: str) -> None:
    os.symlink(decoy, path)


def a_file(decoy: Path, path: str) -> None:
    os.rename(decoy, path)


def a_name_more(decoy: Path, path: str) -> None:
    with socket.socket(socket.AF_UNIX) as another:
        another.bind(str(decoy) + ".sock")
    os.link(str(decoy) + ".sock", path)


@pytest.mark.parametrize("how", [a_link, a_file, a_name_more])
def test_what_takes_the_place_of_the_socket_is_not_given_away(
    tmp_path: Path, how: Callable[[Path, str], None]
) -> None:
    decoy, path = tmp_path / "shadow", str(tmp_path / "app")
    decoy.write_text("secret")
    decoy.chmod(0o600)
    with Swapped(socket.AF_UNIX) as sock:
        sock.decoy = decoy
        sock.how = how
        with pytest.raises(FileExistsError, match="another file in the place of the socket"):
            bind_file(sock, path, (-1, -1), 0o666)
    left = [file for file in tmp_path.iterdir() if file.lstat().st_mode & 0o066 and not file.is_symlink()]
    assert [file for file in left if file.is_file()] == []
    assert os.path.lexists(path), "what is not ours is not removed either"


def test_a_link_in_the_place_of_the_socket_is_neither_given_away_nor_removed(tmp_path: Path) -> None:
    secret, path = tmp_path / "shadow", tmp_path / "app"
    secret.write_text("secret")
    secret.chmod(0o600)
    with socket.socket(socket.AF_UNIX) as sock:
        file = bind_file(sock, str(path), (-1, -1), 0o600)
        path.rename(tmp_path / "aside")
        path.symlink_to(secret)
        file.give((os.geteuid(), os.getegid()), 0o666)
        file.remove()
    assert secret.stat().st_mode & 0o777 == 0o600
    assert path.is_symlink()


def test_what_is_held_is_what_is_changed(tmp_path: Path) -> None:
    path = tmp_path / "app"
    with socket.socket(socket.AF_UNIX) as sock:
        file = bind_file(sock, str(path), (-1, -1), 0o640)
        assert path.stat().st_mode & 0o777 == 0o640
        file.give((os.geteuid(), os.getegid()), 0o606)
        assert path.stat().st_mode & 0o777 == 0o606
        file.remove()
    assert not path.exists()
