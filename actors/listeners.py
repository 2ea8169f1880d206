"""Listening sockets: the Emperor's, that outlive every vassal, and a runner's view of them."""

import errno
import grp
import os
import pwd
import select
import socket
import stat
from collections.abc import Callable, Collection, Container
from dataclasses import dataclass

from loguru import logger

from pyemperor.actors.actor import Inbox
from pyemperor.actors.credentials import acting_as
from pyemperor.actors.exchange import Exchange
from pyemperor.protocol.errors import ConfigError, Problem
from pyemperor.protocol.options import Owner, Vassal
from pyemperor.protocol.values import Address


@dataclass(eq=False, slots=True)
class _Bound:
    sock: socket.socket
    address: Address
    #: Device and inode of a unix socket's file: only ours is touched.
    file: tuple[int, int] | None
    #: In whose name it was bound.
    owner: Owner | None = None

    def settle(self, vassal: Vassal) -> None:
        """Give it the owner, the mode and the backlog that ``vassal`` asks for; raises OSError."""
        backlog = _backlog(vassal)
        with acting_as(self.owner):
            if self.file is not None and self.is_ours():
                _own(self.address.path, vassal)
            self.sock.listen(backlog)

    def is_ours(self) -> bool:
        """Whether the file is still the one that was made for this socket."""
        try:
            found = os.lstat(self.address.path)
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self.file

    def close(self) -> None:
        """Close the socket and remove its file."""
        self.sock.close()
        with acting_as(self.owner):
            if self.file is not None and self.is_ours():
                os.unlink(self.address.path)


class SocketVault:
    """Binds the addresses of vassals and keeps the sockets: a restart or a reload never costs a connection.

    Sockets are held by claims: each generation of a vassal has one, and its addresses are shared with the
    claims of the generation before it. A socket is closed when the last claim to it is released.
    """

    def __init__(self) -> None:
        self._claims: dict[str, tuple[str, list[_Bound]]] = {}

    def bind(self, vassal: Vassal, claim: str = "", sharing: Collection[str] = ()) -> None:
        """Bind every address of ``vassal``, or none: raises ConfigError that says which and why not.

        What the claims ``sharing`` hold is kept, with the owner, mode and backlog of the newest. ``claim`` is
        the vassal's name unless given; what it has bound already stays as it is.
        """
        claim = claim or vassal.name
        if claim in self._claims:
            return
        held = [bound for other in sharing for bound in self._bounds(other)]
        bounds: list[_Bound] = []
        self._claims[claim] = vassal.name, bounds
        try:
            for address in vassal.addresses:
                fits = (b for b in held if b.address == address and b.owner == vassal.owner)
                kept = next((b for b in fits if b not in bounds), None)
                bounds.append(kept or _bind(address, vassal, _backlog(vassal)))
            for bound in bounds:
                address = bound.address
                if bound in held:
                    bound.settle(vassal)
        except OSError as error:
            rival = self._rival(address, {claim, *sharing})
            self.release(claim)
            raise ConfigError(_problem(address, vassal, error, rival)) from None

    def _rival(self, address: Address, ours: Container[str]) -> str:
        """The vassal that has the address already; "" when it is none of ours."""
        for claim, (name, bounds) in self._claims.items():
            if claim not in ours and any(bound.address == address for bound in bounds):
                return name
        return ""

    def fds(self, claim: str) -> list[int]:
        """The sockets of ``claim``, in the order of ``Vassal.addresses``."""
        return [bound.sock.fileno() for bound in self._bounds(claim)]

    def addresses(self, claim: str) -> list[tuple[str, int] | str]:
        """Where ``claim`` really listens (a port 0 has become a number)."""
        return [bound.sock.getsockname() for bound in self._bounds(claim)]

    def _bounds(self, claim: str) -> list[_Bound]:
        return self._claims.get(claim, ("", []))[1]

    def release(self, claim: str) -> None:
        """Close the sockets that no other claim has, and remove the files that are still ours."""
        _, bounds = self._claims.pop(claim, ("", []))
        kept = {bound for _, others in self._claims.values() for bound in others}
        for bound in bounds:
            if bound not in kept:
                bound.close()

    def close(self) -> None:
        """Release every claim."""
        for claim in list(self._claims):
            self.release(claim)


def _bind(address: Address, vassal: Vassal, backlog: int) -> _Bound:
    tcp = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    sock = socket.socket(socket.AF_UNIX if address.kind == "unix" else tcp)
    file = None
    try:
        with acting_as(vassal.owner):
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
    return _Bound(sock, address, file, vassal.owner)


def _backlog(vassal: Vassal) -> int:
    most = _somaxconn()
    backlog = min(vassal.listen or most, most)
    if backlog < vassal.listen:
        logger.warning(
            "vassal {}: listen = {} is cut to {}, the kernel's net.core.somaxconn",
            vassal.name,
            vassal.listen,
            backlog,
        )
    return backlog


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
        _own(path, vassal)
    except OSError:
        os.unlink(path)
        raise
    found = os.lstat(path)
    return found.st_dev, found.st_ino


def _own(path: str, vassal: Vassal) -> None:
    if vassal.chown_socket:
        user, _, group = vassal.chown_socket.partition(":")
        os.chown(
            path,
            _id(user, lambda name: pwd.getpwnam(name).pw_uid),
            _id(group, lambda name: grp.getgrnam(name).gr_gid),
        )
    os.chmod(path, vassal.chmod_socket)


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


def _problem(address: Address, vassal: Vassal, error: OSError, rival: str) -> Problem:
    key = "socket" if address in vassal.socket else "http-socket"
    if rival:
        found = f"cannot listen at {address}: vassal {rival} listens there"
        return Problem(f"vassal {vassal.name}", 0, key, found, remedy="give one of them another address")
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
