"""Bytes that wait for their reader, in constant memory."""

import os
import tempfile
from typing import IO

#: Most bytes that are kept in memory and moved at a time: what a pipe holds.
CHUNK = 65536


class Spool:
    """First in, first out: what is next lies in memory, what comes behind it in a file without a name.

    The file is made when it is needed, where tempfile(3) makes them (``TMPDIR``), and is gone with this object.
    """

    __slots__ = ("_end", "_file", "_start", "next")

    def __init__(self) -> None:
        #: What the reader gets next; empty: nothing waits.
        self.next = b""
        self._file: IO[bytes] | None = None
        self._start = self._end = 0

    def put(self, data: bytes) -> None:
        """Append ``data``; raises OSError when there is no room on the disk."""
        if not self.next:
            self.next = data
            return
        if self._file is None:
            self._file = tempfile.TemporaryFile(buffering=0, prefix="pyemperor-")  # noqa: SIM115
        while data:
            written = os.pwrite(self._file.fileno(), data, self._end)
            self._end += written
            data = data[written:]

    def taken(self, size: int) -> None:
        """The reader has taken ``size`` bytes of what was next."""
        self.next = self.next[size:]
        if not self.next and self._file is not None and self._start < self._end:
            self.next = os.pread(self._file.fileno(), CHUNK, self._start)
            self._start += len(self.next)

    def clear(self) -> None:
        """Forget everything."""
        self.next = b""
        self._start = self._end = 0
        if self._file is not None:
            self._file.close()
            self._file = None


#: For a script that has no body to read: nothing is ever put there.
NOTHING = Spool()
