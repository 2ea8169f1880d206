"""Writes log lines to descriptor 2: each whole, and never for long.

Many processes share one stderr, so a line goes out in one system call. (A pipe that is nearly full takes a line
in one piece only up to PIPE_BUF, 4096 bytes; others may come between the pieces of a longer one.) Nobody may wait
for whoever reads it: a terminal that is paused or a pipe that nobody empties must not stop an Emperor.
``O_NONBLOCK`` is no remedy: it belongs to the open file, which is the shell's and the scripts' as well. So each
write asks for it alone.
"""

import os
import select
import stat
import threading
import time
from collections.abc import Callable

from pyemperor.cli.log_file import LogFile

#: Seconds that a line waits for a reader who is merely slow; not again until one has been read.
PATIENCE = 0.05

#: Writes what it can of some bytes at once; BlockingIOError when that is nothing.
_Write = Callable[[int, bytes], int]


class Stderr:
    """Where a process logs to: the descriptor ``fd``, behind which ``file`` is, if it is a log file of ours.

    Lines for which there is no room are dropped and counted; ``missing(count)`` makes the line that says so,
    which goes out with the next one that finds room. :meth:`write` may be called from any thread.
    """

    def __init__(self, missing: Callable[[int], str], fd: int = 2, file: LogFile | None = None) -> None:
        self._fd = fd
        self._missing = missing
        self._file = file
        self._write: _Write = file.write if file else _way_to_write(fd)
        self._room = select.poll()
        self._room.register(fd, select.POLLOUT)
        self._lock = threading.Lock()
        self._patient = True
        self._dropped = 0
        self._cut = False  # the last line ended in the middle

    def write(self, lines: str) -> None:
        """Write ``lines``, which end in a newline, in one piece; never raises, and waits PATIENCE at most."""
        data = lines.encode("utf-8", "backslashreplace")
        with self._lock:
            head = b""
            if self._cut or self._dropped:
                head = (b"\n" if self._cut else b"") + self._missing(self._dropped).encode()
            sent = self._send(head + data)
            if sent:
                self._cut = sent < len(head) + len(data)
            if sent >= len(head):
                self._dropped = 0
            if sent < len(head) + len(data):
                self._dropped += 1

    def _send(self, data: bytes) -> int:
        sent = 0
        until = 0.0
        while sent < len(data):
            try:
                sent += self._write(self._fd, data[sent:])
                self._patient = True
            except BlockingIOError:
                until = until or time.monotonic() + PATIENCE
                left = until - time.monotonic()
                if not self._patient or left <= 0 or not self._room.poll(left * 1000):
                    self._patient = False
                    break
            except OSError:
                if self._file or self._write is _with_room:
                    # stderr itself is gone, or its disk full: there is no other place to say so.
                    break
                self._write = _with_room  # the kernel does not know the better way, or does not allow it
        return sent


def _way_to_write(fd: int) -> _Write:
    """The best way to write to ``fd`` without waiting; a file never makes one wait for its reader."""
    if os.isatty(fd):
        return _reopened
    try:
        mode = os.fstat(fd).st_mode
    except OSError:
        return _with_room  # closed
    return _at_once if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) else os.write


def _at_once(fd: int, data: bytes) -> int:
    """Sockets; pipes since Linux 6.4."""
    return os.pwritev(fd, [data], -1, os.RWF_NOWAIT)


def _reopened(fd: int, data: bytes) -> int:
    """Terminals know no RWF_NOWAIT. Opened for each write: one that is kept would be inherited."""
    mine = os.open(f"/proc/self/fd/{fd}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    try:
        return os.write(mine, data)
    finally:
        os.close(mine)


def _with_room(fd: int, data: bytes) -> int:
    """Older kernels, and a terminal of another user: it can only be asked first whether there is room."""
    poll = select.poll()
    poll.register(fd, select.POLLOUT)
    if not poll.poll(0):
        raise BlockingIOError
    return os.write(fd, data[: select.PIPE_BUF])
