"""The sockets of a vassal's generations: shared, added, given up, and never fought for."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyemperor.actors.listeners import SocketVault
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
