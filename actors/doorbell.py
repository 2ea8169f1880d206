"""Tells that a connection waits at some listening sockets, and leaves it to others to accept it."""

import select
from collections.abc import Collection
from typing import Protocol

from pyemperor.actors.actor import Inbox


class Doorbell(Protocol):
    """What rings at a vassal that has nobody to accept connections: real or simulated."""

    def watch(self, inbox: Inbox, message: object) -> None: ...
    def unwatch(self, inbox: Inbox) -> None: ...


class SocketDoorbell:
    """The :class:`Doorbell` at the listening sockets ``fds``, which others own."""

    def __init__(self, fds: Collection[int]) -> None:
        self._fds = fds

    def watch(self, inbox: Inbox, message: object) -> None:
        """Deliver ``message`` when a connection waits, and again until :meth:`unwatch`."""
        for fd in self._fds:
            inbox.watch(fd, select.EPOLLIN, lambda _: (message,))

    def unwatch(self, inbox: Inbox) -> None:
        """Ring no more; before the sockets are closed."""
        for fd in self._fds:
            inbox.unwatch(fd)
