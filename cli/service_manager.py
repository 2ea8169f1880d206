"""Whoever started the Emperor as a service and wants to hear how it is: systemd, by sd_notify(3)."""

import errno
import os
import socket
from collections.abc import MutableMapping

from loguru import logger

from pyemperor.actors.herald import Listener

#: What systemd tells a service; no child is to take it for its own.
_SOCKET, _WATCHDOG, _WATCHDOG_PID = "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID"
#: Errors of a listener that reads too slowly.
_BUSY = (errno.EAGAIN, errno.ENOBUFS)


def service_manager(environment: MutableMapping[str, str]) -> Listener | None:
    """Take out of ``environment`` who listens, as systemd says it; None where nobody does.

    As uWSGI does it this needs no option: what is not there does not listen.
    """
    address = environment.pop(_SOCKET, "")
    watchdog, whose = environment.pop(_WATCHDOG, ""), environment.pop(_WATCHDOG_PID, "")
    if not address:
        return None
    if address[0] not in "/@" or len(address) < 2:
        logger.warning("{} = {}: neither a path nor @NAME, so nobody is told how the Emperor is", _SOCKET, address)
        return None
    pid = os.getpid()
    ours = not whose or whose == str(pid)
    seconds = int(watchdog) / 1e6 if ours and watchdog.isascii() and watchdog.isdigit() else 0.0
    return Listener(_Notifier(address), pid, seconds)


class _Notifier:
    """Sends datagrams to the socket at ``address``; ``@`` begins the name of an abstract one."""

    def __init__(self, address: str) -> None:
        self._address = "\0" + address[1:] if address[0] == "@" else address
        self._lost = False

    def __call__(self, text: str) -> bool:
        """Send it; False when they read too slowly. Who has gone is missed once, and may come back."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as sock:
                sock.sendto(text.encode("utf-8", "replace"), self._address)
        except OSError as error:
            if error.errno in _BUSY:
                return False
            if not self._lost:
                logger.warning("nobody is told how the Emperor is: {}: {}", _SOCKET, error.strerror)
            self._lost = True
        else:
            self._lost = False
        return True
