"""Listening sockets: the Emperor's, that outlive every vassal, and a runner's view of them."""

import errno
import grp
import ipaddress
import os
import pwd
import select
import socket
from collections.abc import Callable, Collection, Container
from dataclasses import dataclass

from loguru import logger

from pyemperor.actors.actor import Inbox
from pyemperor.actors.credentials import acting_as
from pyemperor.actors.doorbell import SocketDoorbell
from pyemperor.actors.exchange import Exchange
from pyemperor.actors.outcome import Outcome
from pyemperor.actors.socket_file import OurFile, bind_file
from pyemperor.protocol.errors import ConfigError, Problem
from pyemperor.protocol.options import Owner, Vassal
from pyemperor.protocol.values import Address


@dataclass(eq=False, slots=True)
class _Bound:
    sock: socket.socket
    address: Address
    #: The file of a unix socket: only ours is touched.
    file: OurFile | None
    #: In whose name it was bound.
    owner: Owner | None = None

    def settle(self, vassal: Vassal) -> None:
        """Give it the owner, the mode and the backlog that ``vassal`` asks for; raises OSError."""
        backlog = _backlog(vassal)
        with acting_as(self.owner):
            if self.file is not None:
                self.file.give(_owner(vassal), vassal.chmod_socket)
            self.sock.listen(backlog)

    def is_found(self) -> bool:
        """Whether clients that go to its address come here."""
        return self.file is None or self.file.is_ours()

    def close(self) -> None:
        """Close the socket and remove its file; one that may not be removed stays, and is said."""
        self.sock.close()
        try:
            with acting_as(self.owner):
                if self.file is not None:
                    self.file.remove()
        except OSError as error:
            logger.info("{} stays behind until it is bound again: {}", self.address, error.strerror)


class SocketVault:
    """Binds the addresses of vassals and keeps the sockets: a restart or a reload never costs a connection.

    Sockets are held by claims: each generation of a vassal has one, and its addresses are shared with the
    claims of the generation before it. A socket is closed when the last claim to it is released.
    """

    def __init__(self) -> None:
        self._claims: dict[str, tuple[str, list[_Bound]]] = {}
        #: By :attr:`Address.place`, the claims that have something there.
        self._there: dict[str | int, set[str]] = {}

    def bind(self, vassal: Vassal, claim: str = "", sharing: Collection[str] = ()) -> None:
        """Bind every address of ``vassal``, or none: raises ConfigError that says which and why not.

        What the claims ``sharing`` hold is kept, with the owner, mode and backlog of the newest, unless its file
        has been removed: then nobody finds it any more, and the address is bound anew. ``claim`` is the vassal's
        name unless given; what it has bound already stays as it is.
        """
        claim = claim or vassal.name
        if claim in self._claims:
            return
        held = [bound for other in sharing for bound in self._bounds(other) if bound.is_found()]
        bounds: list[_Bound] = []
        self._claims[claim] = vassal.name, bounds
        ours = {claim, *sharing}
        try:
            for address in vassal.addresses:
                fits = (b for b in held if b.address == address and b.owner == vassal.owner)
                kept = next((b for b in fits if b not in bounds), None)
                # Not even tried: to find out whether somebody listens there is to knock, which wakes who sleeps.
                if kept is None and self._rival(address, ours):
                    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
                bounds.append(kept or _bind(address, vassal, _backlog(vassal)))
                self._there.setdefault(address.place, set()).add(claim)
            for bound in bounds:
                address = bound.address
                if bound in held:
                    bound.settle(vassal)
        except (OSError, ValueError, OverflowError) as error:  # the latter two of values that no call takes
            rival = self._rival(address, ours)
            self.release(claim)
            raise ConfigError(_problem(address, vassal, error, rival)) from None

    def _rival(self, address: Address, ours: Container[str]) -> str:
        """The vassal that has the address already; "" when it is none of ours."""
        for claim in self._there.get(address.place, ()):
            name, bounds = self._claims[claim]
            if claim not in ours and any(b.address.collides(address) and b.is_found() for b in bounds):
                return name
        return ""

    def fds(self, claim: str) -> list[int]:
        """The sockets of ``claim``, in the order of ``Vassal.addresses``."""
        return [bound.sock.fileno() for bound in self._bounds(claim)]

    def doorbell(self, claim: str) -> SocketDoorbell:
        """What rings when a connection waits at a socket of ``claim``."""
        return SocketDoorbell(self.fds(claim))

    def addresses(self, claim: str) -> list[tuple[str, int] | str]:
        """Where ``claim`` really listens (a port 0 has become a number)."""
        return [bound.sock.getsockname() for bound in self._bounds(claim)]

    def _bounds(self, claim: str) -> list[_Bound]:
        return self._claims.get(claim, ("", []))[1]

    def release(self, claim: str) -> None:
        """Close the sockets that no other claim has, and remove the files that are still ours."""
        _, bounds = self._claims.pop(claim, ("", []))
        for place in {bound.address.place for bound in bounds}:
            self._there[place].discard(claim)
            if not self._there[place]:
                del self._there[place]
        for bound in bounds:
            if not any(bound in self._bounds(other) for other in self._there.get(bound.address.place, ())):
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
        owner = _owner(vassal)
        with acting_as(vassal.owner):
            if address.path.startswith("@"):
                sock.bind("\0" + address.path[1:])
            elif address.kind == "unix":
                file = bind_file(sock, address.path, owner, vassal.chmod_socket)
            else:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                sock.bind((_number(address.host), address.port))
            sock.listen(backlog)
    except BaseException:
        sock.close()
        raise
    sock.setblocking(False)
    return _Bound(sock, address, file, vassal.owner)


def _number(host: str) -> str:
    """The address itself: to look a name up is to wait, and whoever binds has others to care for."""
    if host and host != "localhost":
        try:
            ipaddress.ip_address(host.partition("%")[0])
        except ValueError:
            raise OSError(errno.EINVAL, f"{host} is a name, and no name is looked up here") from None
    return host


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


def _owner(vassal: Vassal) -> tuple[int, int]:
    """User and group that ``chown-socket`` asks for; -1 leaves what there is. Raises OSError."""
    user, _, group = vassal.chown_socket.partition(":")
    return (
        _id(user, lambda name: pwd.getpwnam(name).pw_uid),
        _id(group, lambda name: grp.getgrnam(name).gr_gid),
    )


def _id(name: str, look_up: Callable[[str], int]) -> int:
    if not name:
        return -1
    try:
        return int(name) if name.isascii() and name.isdigit() else look_up(name)
    except KeyError:
        raise _NobodyCalled(f"there is no user or group {name}") from None


class _NobodyCalled(OSError):
    """A user or group that there is not."""


def _problem(address: Address, vassal: Vassal, error: Exception, rival: str) -> Problem:
    if isinstance(error, _NobodyCalled):
        return vassal.problem("chown-socket", str(error), "create it, or name another one")
    key, same = ("socket", vassal.socket) if address in vassal.socket else ("http-socket", vassal.http_socket)
    # Before those of the file stands the one that the Emperor gives.
    given = len(same) - sum(option == key for option, _, _ in vassal.places)
    index = same.index(address) - given
    if rival:
        found = f"cannot listen at {address}: vassal {rival} listens there"
        return vassal.problem(key, found, "give one of them another address", index)
    remedy = {
        errno.EADDRINUSE: "stop the other server, or choose another address",
        errno.EADDRNOTAVAIL: "write an address of this machine, or 0.0.0.0 for all of them",
        errno.ENOENT: "make the folder",
        errno.EACCES: "choose a folder (or a port above 1023) that this user may use",
        errno.EPERM: "only root can give a socket to another user",
        errno.EINVAL: "write its number" if address.host else "",
    }.get(getattr(error, "errno", None) or 0, "")
    found = f"cannot listen at {address}: {getattr(error, 'strerror', None) or error}"
    return vassal.problem(key, found, remedy, index)


def _somaxconn() -> int:
    try:
        with open("/proc/sys/net/core/somaxconn", encoding="ascii") as file:
            return int(file.read())
    except FileNotFoundError:
        return 4096


# The plain type of the C module, and an object that never waits while its descriptor is left as it is: every
# recv() and send() says MSG_DONTWAIT.
_NON_BLOCKING = socket.SOCK_STREAM | socket.SOCK_NONBLOCK


#: Serves a connection: what became of its request if that is over, else the exchange that goes on.
Serve = Callable[[socket.SocketType, float], Exchange | Outcome]


class Listener:
    """One runner's view of a listening socket."""

    def __init__(self, sock: socket.socket, serve: Serve) -> None:
        self._sock = sock
        self._family = sock.family
        self.serve = serve

    def watch(self, inbox: Inbox, message: object) -> None:
        """Deliver ``message`` when a connection waits; of all who watch, the kernel wakes one."""
        inbox.watch(self._sock.fileno(), select.EPOLLIN | select.EPOLLEXCLUSIVE, lambda _: (message,))

    def unwatch(self, inbox: Inbox) -> None:
        """Leave connections to others."""
        inbox.unwatch(self._sock.fileno())

    def accept(self) -> socket.SocketType | None:
        """Take a connection; None when another worker was faster."""
        try:
            # As accept() does it, but without looking up two enumerations for every connection.
            fd, _ = self._sock._accept()  # type: ignore[attr-defined]
        except (BlockingIOError, ConnectionAbortedError):
            return None
        return socket.SocketType(self._family, _NON_BLOCKING, 0, fd)
