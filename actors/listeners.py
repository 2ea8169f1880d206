"""Listening sockets: the Emperor's, that outlive every vassal, and a runner's view of them."""

import contextlib
import errno
import grp
import os
import pwd
import select
import socket
import stat
from collections.abc import Callable
from dataclasses import dataclass

from loguru import logger

from pyemperor.actors.actor import Inbox
from pyemperor.actors.exchange import Exchange
from pyemperor.protocol.errors import ConfigError, Problem
from pyemperor.protocol.options import Vassal
from pyemperor.protocol.values import Address


@dataclass(slots=True)
class _Bound:
    sock: socket.socket
    address: Address
    #: Device and inode of a unix socket's file: only ours is removed.
    file: tuple[int, int] | None


class SocketVault:
    """Binds the addresses of vassals and keeps the sockets: a restart or a reload never costs a connection."""

    def __init__(self) -> None:
        self._bound: dict[str, list[_Bound]] = {}

    def bind(self, vassal: Vassal) -> None:
        """Bind every address of ``vassal``, or none: raises ConfigError that says which and why not.

        What is bound already stays as it is.
        """
        if vassal.name in self._bound:
            return
        bound = self._bound.setdefault(vassal.name, [])
        for address in vassal.addresses:
            try:
                bound.append(_bind(address, vassal))
            except OSError as error:
                self.release(vassal.name)
                raise ConfigError(_problem(address, vassal, error)) from None

    def fds(self, vassal: str) -> list[int]:
        """The sockets of ``vassal``, in the order of ``Vassal.addresses``."""
        return [bound.sock.fileno() for bound in self._bound.get(vassal, [])]

    def addresses(self, vassal: str) -> list[tuple[str, int] | str]:
        """Where ``vassal`` really listens (a port 0 has become a number)."""
        return [bound.sock.getsockname() for bound in self._bound.get(vassal, [])]

    def release(self, vassal: str) -> None:
        """Close the sockets and remove the files that are still ours."""
        for bound in self._bound.pop(vassal, []):
            bound.sock.close()
            if bound.file is not None:
                with contextlib.suppress(FileNotFoundError):
                    found = os.lstat(bound.address.path)
                    if (found.st_dev, found.st_ino) == bound.file:
                        os.unlink(bound.address.path)


def _bind(address: Address, vassal: Vassal) -> _Bound:
    most = _somaxconn()
    backlog = min(vassal.listen or most, most)
    if backlog < vassal.listen:
        logger.warning(
            "vassal {}: listen = {} is cut to {}, the kernel's net.core.somaxconn",
            vassal.name,
            vassal.listen,
            backlog,
        )
    tcp = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(socket.AF_UNIX if address.kind == "unix" else tcp)
    file = None
    try:
        if address.kind == "unix":
            file = _bind_unix(sock, address.path, vassal)
        else:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((address.host, address.port))
        sock.listen(backlog)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return _Bound(sock, address, file)


def _bind_unix(sock: socket.socket, path: str, vassal: Vassal) -> tuple[int, int] | None:
    if path.startswith("@"):
        sock.bind("\0" + path[1:])
        return None
    os.makedirs(os.path.dirname(path), exist_ok=True)
    _remove_stale(path)
    before = os.umask(0o177)  # nobody may connect before mode and owner are right
    try:
        sock.bind(path)
    finally:
        os.umask(before)
    try:
        if vassal.chown_socket:
            user, _, group = vassal.chown_socket.partition(":")
            os.chown(
                path,
                _id(user, lambda name: pwd.getpwnam(name).pw_uid),
                _id(group, lambda name: grp.getgrnam(name).gr_gid),
            )
        os.chmod(path, vassal.chmod_socket)
    except OSError:
        os.unlink(path)
        raise
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _id(name: str, look_up: Callable[[str], int]) -> int:
    if not name:
        return -1
    try:
        return int(name) if name.isdigit() else look_up(name)
    except KeyError:
        raise OSError(errno.EINVAL, f"there is no user or group {name!r}") from None


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens at; a living one, or another kind of file, is not ours to remove."""
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise FileExistsError(errno.EEXIST, "a file that is no socket is in the way")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)
            return
        except (BlockingIOError, TimeoutError):
            pass  # it is alive, and its queue is full
    raise OSError(errno.EADDRINUSE, "another server listens there")


def _problem(address: Address, vassal: Vassal, error: OSError) -> Problem:
    key = "socket" if address in vassal.socket else "http-socket"
    remedy = {
        errno.EADDRINUSE: "stop the other server, or choose another address",
        errno.EACCES: "choose a folder (or a port above 1023) that this user may use",
        errno.EPERM: "only root can give a socket to another user",
    }.get(error.errno or 0, "")
    found = f"cannot listen at {address}: {error.strerror}"
    return Problem(f"vassal {vassal.name}", 0, key, found, remedy=remedy)


def _somaxconn() -> int:
    try:
        with open("/proc/sys/net/core/somaxconn", encoding="ascii") as file:
            return int(file.read())
    except FileNotFoundError:
        return 4096


# The plain type of the C module, and an object that never waits while its descriptor is left as it is: every
# recv() and send() says MSG_DONTWAIT.
_NON_BLOCKING = socket.SOCK_STREAM | socket.SOCK_NONBLOCK


class Listener:
    """One runner's view of a listening socket."""

    def __init__(self, sock: socket.socket, serve: Callable[[socket.SocketType], Exchange]) -> None:
        self._sock = sock
        self._family = sock.family
        self._serve = serve

    def watch(self, inbox: Inbox, message: object) -> None:
        """Deliver ``message`` when a connection waits; of all who watch, the kernel wakes one."""
        inbox.watch(self._sock.fileno(), select.EPOLLIN | select.EPOLLEXCLUSIVE, lambda _: (message,))

    def unwatch(self, inbox: Inbox) -> None:
        """Leave connections to others."""
        inbox.unwatch(self._sock.fileno())

    def accept(self) -> Exchange | None:
        """Take a connection; None when another worker was faster."""
        try:
            # As accept() does it, but without looking up two enumerations for every connection.
            fd, _ = self._sock._accept()  # type: ignore[attr-defined]
        except (BlockingIOError, ConnectionAbortedError):
            return None
        return self._serve(socket.SocketType(self._family, _NON_BLOCKING, 0, fd))
