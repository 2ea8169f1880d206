"""A script that runs in a fork of a template, as its runner sees it."""

import os
import select
import signal
import socket
import struct
from collections.abc import Callable
from typing import NamedTuple

#: How a script ended, as the template says it (``program``).
ENDED = struct.Struct("=cidQ")


#: Scripts that a runner waits for: whoever else reaps orphans of this process leaves them alone.
awaited: set[int] = set()


class Exit(NamedTuple):
    """How a script ended: wait status (None: nobody knows), CPU seconds, peak memory in bytes (wait4(2))."""

    status: int | None
    cpu: float
    peak: int


class Child:
    """A script that is forked from a template: readable when :meth:`reap` has something to say.

    Its parent is the template, until that dies: then, as its subreaper, this process. Nobody knows whether it runs
    until :meth:`begin`: ``await_word`` waits for the first word on the ``line``, and raises OSError for another.
    """

    __slots__ = ("_await_word", "_exit", "_line", "_orphan", "_wait", "pid")

    def __init__(self, line: socket.socket, await_word: Callable[[socket.socket], int]) -> None:
        #: 0 until :meth:`begin`.
        self.pid = 0
        self._exit: Exit | None = None
        self._line = line
        self._await_word = await_word
        self._orphan = -1
        self._wait: select.epoll | None = None

    @property
    def line(self) -> int:
        """A descriptor that is hung up (POLLHUP) when it is known how the script ended, or its template is dead.

        Readable it is before: from the first word on.
        """
        return self._line.fileno()

    def begin(self) -> int:
        """Be sure that the script runs; its pid. Raises OSError if it does not, and never will."""
        if not self.pid:
            try:
                self.pid = self._await_word(self._line)
            except BaseException:
                self._line.close()
                raise
            awaited.add(self.pid)
        return self.pid

    def fileno(self) -> int:
        """A descriptor to wait for (EPOLLIN), once: :meth:`reap` may change it."""
        return self._line.fileno() if self._orphan < 0 else self._orphan

    def watched(self) -> int:
        """As :meth:`fileno`, but for good: it is this object's until :meth:`close`. Raises OSError."""
        if self._wait is None:
            self._wait = select.epoll()
            self._wait.register(self, select.EPOLLIN)
        return self._wait.fileno()

    def reap(self) -> Exit | None:
        """How the script, which has begun, ended; None while it runs. Never blocks."""
        if self._exit is None and self._orphan < 0:
            try:
                answer = self._line.recv(ENDED.size, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return None
            except ConnectionResetError:
                answer = b""
            if answer:
                _, status, cpu, peak = ENDED.unpack(answer)
                self._exit = Exit(status, cpu, peak)
            else:
                self._adopt()
        if self._exit is None:
            self._exit = self._wait_for_orphan()
        return self._exit

    def _adopt(self) -> None:
        if self._wait is not None:
            self._wait.unregister(self._line)
        try:
            self._orphan = os.pidfd_open(self.pid)
        except ProcessLookupError:
            self._exit = _UNKNOWN
        else:
            if self._wait is not None:
                self._wait.register(self._orphan, select.EPOLLIN)

    def _wait_for_orphan(self) -> Exit | None:
        try:
            pid, status, usage = os.wait4(self.pid, os.WNOHANG)
        except ChildProcessError:
            # Its template hangs up before it lets its children go: a zombie will be ours in a moment.
            return None if self._exists() else _UNKNOWN
        if not pid:
            return None
        return Exit(status, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024)

    def _exists(self) -> bool:
        """Whether it runs, or waits to be reaped."""
        try:
            signal.pidfd_send_signal(self._orphan, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            pass  # it has changed its user
        return True

    def close(self) -> None:
        """Give back every descriptor; the script goes on."""
        awaited.discard(self.pid)
        if self._wait is not None:
            self._wait.close()
        self._line.close()
        if self._orphan >= 0:
            os.close(self._orphan)
            self._orphan = -1


#: Its template reaped it, and died before it could say so.
_UNKNOWN = Exit(None, 0.0, 0)


def readable(fd: int, seconds: float) -> bool:
    """Whether ``fd`` has something to say within ``seconds``."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(seconds * 1000))
