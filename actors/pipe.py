"""A link between two processes: one end of a socketpair that carries frames, and never blocks its actor."""

import errno
import fcntl
import os
import select
import socket
import sys
import termios
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from pyemperor.actors.actor import Inbox
from pyemperor.actors.linux import receive_fds, send_fds
from pyemperor.protocol.errors import LinkError
from pyemperor.protocol.frames import FrameDecoder, encode
from pyemperor.protocol.messages import Beat, Forked, LinkMessage, Message, Office, Trace

_CHUNK = 65536
#: Messages that wait for a peer that does not read; a beat replaces the one that waits already.
MAX_WAITING = 1000
#: The peer has no room, or the kernel (for descriptors in flight: unix(7)).
_LATER = frozenset({errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS})
#: Descriptors that may have come before their message, or in one message.
MAX_FDS = 8


class Link(Protocol):
    """What an actor knows of a link to another process, real or simulated."""

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> None: ...
    def close(self) -> None: ...


class Pipe:
    """One end of a link. What arrives is delivered as ``wrap(message, fds)``, its end as ``lost(reason)``.

    ``union`` says which messages may arrive. Descriptors go to the message that carries them; the kernel hands
    them over with the first byte of its frame, which often lies behind other frames of the same read.

    When the peer does not read, frames wait here: of beats only the newest (a beat is state, not an
    event), of traces none beyond :data:`MAX_WAITING`, and a peer that lets more than that of anything
    else pile up has lost the link.
    """

    def __init__(
        self,
        inbox: Inbox,
        sock: socket.socket,
        wrap: Callable[[Message, list[int]], object],
        lost: Callable[[str], object],
        union: Any = LinkMessage,
    ) -> None:
        sock.setblocking(False)
        self._inbox = inbox
        self._sock = sock
        self._wrap = wrap
        self._lost = lost
        self._decoder = FrameDecoder(union)
        self._fds: list[int] = []
        self._waiting: deque[tuple[Message | None, bytes, tuple[int, ...]]] = deque()
        self.dropped = 0
        inbox.watch(sock.fileno(), select.EPOLLIN, self._ready)

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        """Send ``message`` now, or as soon as the peer reads. ``fds`` travel with it and are duplicated."""
        if self._sock.fileno() < 0:
            return
        if self._waiting:
            self._queue(message, tuple(os.dup(fd) for fd in fds))
        else:
            frame = encode(message)
            sent = self._write(frame, fds)
            if sent < len(frame):
                rest = () if sent else tuple(os.dup(fd) for fd in fds)
                self._waiting.append((message if sent == 0 else None, frame[sent:], rest))
                self._inbox.watch(self._sock.fileno(), select.EPOLLIN | select.EPOLLOUT, self._ready)

    def _queue(self, message: Message, fds: tuple[int, ...]) -> None:
        if isinstance(message, Beat):
            for index, (waiting, _, _) in enumerate(self._waiting):
                if isinstance(waiting, Beat):
                    self._waiting[index] = (message, encode(message), fds)
                    self.dropped += 1
                    return
        if len(self._waiting) >= MAX_WAITING and isinstance(message, Trace):
            self.dropped += 1
            return
        self._waiting.append((message, encode(message), fds))

    def _write(self, frame: bytes, fds: tuple[int, ...]) -> int:
        try:
            return send_fds(self._sock, frame, fds) if fds else self._sock.send(frame)
        except ConnectionError:
            # The peer is gone: its end is read as such, which is the one place that reports it.
            return len(frame)
        except OSError as error:
            if error.errno in _LATER:
                return 0
            raise

    def _flush(self) -> None:
        while self._waiting:
            _, frame, fds = self._waiting[0]
            sent = self._write(frame, fds)
            if sent == 0:
                return
            for fd in fds:
                os.close(fd)
            if sent < len(frame):
                self._waiting[0] = (None, frame[sent:], ())
                return
            self._waiting.popleft()
        self._inbox.watch(self._sock.fileno(), select.EPOLLIN, self._ready)

    def _ready(self, mask: int, *, to_the_end: bool = False) -> Iterable[object]:
        if mask & select.EPOLLOUT:
            self._flush()
        messages: list[object] = []
        try:
            while self._sock.fileno() >= 0:
                data, fds, _ = receive_fds(self._sock, _CHUNK, MAX_FDS)
                if not data:
                    raise LinkError("the peer closed the link")
                self._fds += fds
                for message in self._decoder.feed(data):
                    messages.append(self._wrap(message, self._carried_by(message)))
                if len(self._fds) > MAX_FDS:
                    raise LinkError("the peer sent descriptors that belong to no message")
                if len(self._waiting) > 2 * MAX_WAITING:
                    raise LinkError(f"the peer has not read {len(self._waiting)} messages")
                if len(data) < _CHUNK and not to_the_end:
                    break  # most likely all there is; epoll tells when not
        except BlockingIOError:
            pass
        except (LinkError, OSError) as error:
            self.close()
            messages.append(self._lost(str(error)))
        return messages

    def _carried_by(self, message: Message) -> list[int]:
        carried: list[int] = []
        if isinstance(message, Office | Forked):
            carried, self._fds = self._fds, carried
        return carried

    def rest(self) -> Iterable[object]:
        """What a peer that is dead has left to be read: everything, since nothing more can come."""
        return self._ready(select.EPOLLIN, to_the_end=True) if self._sock.fileno() >= 0 else ()

    def unread(self) -> int:
        """Bytes of ours that the peer has not read (SIOCOUTQ), 0 when the link is closed."""
        if self._sock.fileno() < 0:
            return 0
        answer = fcntl.ioctl(self._sock.fileno(), termios.TIOCOUTQ, bytes(4))
        return int.from_bytes(answer, sys.byteorder)

    def finish(self) -> None:
        """Send no more: the peer reads what was sent, then the end; what it says is still read."""
        if self._sock.fileno() >= 0:
            self._sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close this end; the peer reads what was sent, then the end."""
        if self._sock.fileno() >= 0:
            self._inbox.unwatch(self._sock.fileno())
            self._sock.close()
            for fd in [*self._fds, *(fd for _, _, fds in self._waiting for fd in fds)]:
                os.close(fd)
            self._fds.clear()
            self._waiting.clear()
