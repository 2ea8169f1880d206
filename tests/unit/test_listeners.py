"""Listening sockets: bound all or none, taken over when stale, never taken away from anybody, and left clean."""

import os
import select
import socket
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyemperor.actors.actor import EpollInbox
from pyemperor.actors.listeners import Listener, SocketVault
from pyemperor.actors.outcome import Outcome
from pyemperor.protocol.errors import ConfigError
from pyemperor.protocol.options import Address, Vassal


def unix(path: Path | str) -> Address:
    return Address("unix", path=str(path))


def tcp(port: int = 0, host: str = "127.0.0.1") -> Address:
    return Address("tcp", host=host, port=port)


@pytest.fixture
def vault() -> Iterator[SocketVault]:
    vault = SocketVault()
    yield vault
    for vassal in ("app", "other"):
        vault.release(vassal)


def bind(vault: SocketVault, *addresses: Address, name: str = "app", **options: Any) -> None:
    vault.bind(Vassal(name, socket=addresses, **options))


def refusal(vault: SocketVault, *addresses: Address, **options: Any) -> str:
    with pytest.raises(ConfigError) as error:
        bind(vault, *addresses, **options)
    assert vault.fds("app") == []
    return str(error.value)


def greets(address: Path | str | tuple[str, int]) -> bool:
    """Whether somebody accepts connections there."""
    with socket.socket(socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX) as client:
        try:
            client.connect(address if isinstance(address, tuple) else str(address))
        except ConnectionRefusedError:
            return False
        return True


# ---- binding ------------------------------------------------------------------------------------------------


def test_unix_and_tcp_sockets_are_bound_and_released(vault: SocketVault, tmp_path: Path) -> None:
    path = tmp_path / "made" / "for" / "it" / "app.sock"
    bind(vault, unix(path), tcp())
    first, second = vault.addresses("app")
    assert first == str(path)
    assert isinstance(second, tuple)
    assert second[0] == "127.0.0.1"
    assert greets(path)
    assert greets(second)
    assert len(vault.fds("app")) == 2
    assert not any(os.get_inheritable(fd) or os.get_blocking(fd) for fd in vault.fds("app"))
    vault.release("app")
    assert not path.exists()
    assert not greets(second)
    assert vault.fds("app") == []
    vault.release("app")


def test_abstract_sockets_leave_no_file(vault: SocketVault) -> None:
    name = f"@pyemperor-test-{os.getpid()}"
    bind(vault, unix(name))
    assert greets("\0" + name[1:])
    vault.release("app")
    assert not greets("\0" + name[1:])


def test_ipv6(vault: SocketVault) -> None:
    if not socket.has_ipv6 or not os.path.exists("/proc/net/if_inet6"):
        pytest.skip("no IPv6 here")
    bind(vault, tcp(host="::1"))
    assert str(vault.addresses("app")[0]).startswith("('::1',")


def test_what_is_bound_already_stays(vault: SocketVault, tmp_path: Path) -> None:
    bind(vault, unix(tmp_path / "a"))
    before = vault.fds("app")
    bind(vault, unix(tmp_path / "a"))
    assert vault.fds("app") == before


def test_mode_of_the_file(vault: SocketVault, tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        bind(vault, unix(tmp_path / "a"), chmod_socket=0o666)
    finally:
        assert os.umask(before) == 0o077, "it was put back"
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o666


@pytest.mark.skipif(os.geteuid() != 0, reason="only root gives files away")
def test_owner_of_the_file(vault: SocketVault, tmp_path: Path) -> None:
    bind(vault, unix(tmp_path / "a"), chown_socket="nobody:daemon")
    assert ((tmp_path / "a").owner(), (tmp_path / "a").group()) == ("nobody", "daemon")
    bind(vault, unix(tmp_path / "b"), name="other", chown_socket="12345")
    assert (tmp_path / "b").stat().st_uid == 12345


# ---- what is in the way -------------------------------------------------------------------------------------


def test_a_stale_socket_is_taken_over(vault: SocketVault, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "a"))
        dead.listen()
    assert not greets(tmp_path / "a")
    bind(vault, unix(tmp_path / "a"))
    assert greets(tmp_path / "a")


def test_a_living_server_is_left_alone(vault: SocketVault, tmp_path: Path) -> None:
    other = SocketVault()
    bind(other, unix(tmp_path / "a"), tcp(), name="other")
    _, address = other.addresses("other")
    assert isinstance(address, tuple)
    wrong = refusal(vault, unix(tmp_path / "a"))
    assert f"cannot listen at {tmp_path / 'a'}: another server listens there" in wrong
    assert "stop the other server" in wrong
    wrong = refusal(vault, tcp(address[1]))
    assert "Address already in use" in wrong
    assert greets(tmp_path / "a")
    other.release("other")


def test_a_server_whose_queue_is_full_is_alive(vault: SocketVault, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as busy:
        busy.bind(str(tmp_path / "a"))
        busy.listen(0)
        waiting = []
        while True:
            client = socket.socket(socket.AF_UNIX)
            client.setblocking(False)
            waiting.append(client)
            if client.connect_ex(str(tmp_path / "a")):
                break
        assert "another server listens there" in refusal(vault, unix(tmp_path / "a"))
        assert (tmp_path / "a").is_socket()
        for client in waiting:
            client.close()


@pytest.mark.parametrize("kind", ["file", "folder", "link", "dangling link", "fifo"])
def test_what_is_no_socket_is_not_removed(vault: SocketVault, tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    match kind:
        case "file":
            path.write_text("precious")
        case "folder":
            path.mkdir()
        case "fifo":
            os.mkfifo(path)
        case "link":
            (tmp_path / "target").write_text("precious")
            path.symlink_to("target")
        case "dangling link":
            path.symlink_to("nowhere")
    before = path.lstat()
    assert "a file that is no socket is in the way" in refusal(vault, unix(path))
    assert path.lstat().st_ino == before.st_ino


def test_a_file_that_is_another_servers_by_now_is_not_removed(vault: SocketVault, tmp_path: Path) -> None:
    bind(vault, unix(tmp_path / "a"))
    os.rename(tmp_path / "a", tmp_path / "old")
    with socket.socket(socket.AF_UNIX) as heir:
        heir.bind(str(tmp_path / "a"))
        vault.release("app")
        assert (tmp_path / "a").is_socket()


def test_a_file_that_is_gone_by_now_is_no_trouble(vault: SocketVault, tmp_path: Path) -> None:
    bind(vault, unix(tmp_path / "a"))
    os.unlink(tmp_path / "a")
    vault.release("app")


# ---- all or none --------------------------------------------------------------------------------------------


def test_when_one_address_fails_none_is_bound(vault: SocketVault, tmp_path: Path) -> None:
    (tmp_path / "b").write_text("precious")
    before = len(os.listdir("/proc/self/fd"))
    wrong = refusal(vault, unix(tmp_path / "a"), tcp(), unix(tmp_path / "b"))
    assert str(tmp_path / "b") in wrong
    assert not (tmp_path / "a").exists()
    assert len(os.listdir("/proc/self/fd")) == before
    (tmp_path / "b").unlink()
    bind(vault, unix(tmp_path / "a"), unix(tmp_path / "b"))


def test_a_socket_that_cannot_be_given_away_leaves_nothing(vault: SocketVault, tmp_path: Path) -> None:
    wrong = refusal(vault, unix(tmp_path / "a"), chown_socket="no-such-user")
    assert "vassal app: chown-socket: there is no user or group no-such-user" in wrong
    assert not (tmp_path / "a").exists()


def test_the_fault_is_found_at_the_option_that_caused_it(vault: SocketVault, tmp_path: Path) -> None:
    (tmp_path / "b").write_text("precious")
    with pytest.raises(ConfigError) as error:
        vault.bind(Vassal("app", socket=(unix(tmp_path / "a"),), http_socket=(unix(tmp_path / "b"),)))
    (problem,) = error.value.problems
    assert (problem.file, problem.key) == ("vassal app", "http-socket")


# ---- a runner's view ----------------------------------------------------------------------------------------


def test_a_connection_is_a_message_and_can_be_taken_once(vault: SocketVault, tmp_path: Path) -> None:
    bind(vault, unix(tmp_path / "a"))
    inbox = EpollInbox()
    outcome = Outcome()
    listener = Listener(socket.socket(fileno=os.dup(vault.fds("app")[0])), lambda _sock, _now: outcome)
    assert listener.accept() is None, "nobody waits"
    listener.watch(inbox, "somebody waits")
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(tmp_path / "a"))
        assert inbox.get().message == "somebody waits"
        connection = listener.accept()
        assert connection is not None
        assert not connection.getblocking()
        assert listener.serve(connection, 0.0) is outcome
        connection.close()
        assert listener.accept() is None
        listener.unwatch(inbox)
        with socket.socket(socket.AF_UNIX) as another:
            another.connect(str(tmp_path / "a"))
            inbox.after(0, "nothing")
            assert inbox.get().message == "nothing", "who does not watch is not told"
            assert select.select([vault.fds("app")[0]], [], [], 0)[0], "it waits for others"
    inbox.close()
    listener._sock.close()
