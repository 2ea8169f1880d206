"""So many at a time, in all processes of a user: a lock of the kernel for each, which ends with its holder.

A slot is an open file description that locks one byte (fcntl(2), F_OFD_SETLK). The death of its process gives it
back, by whatever signal: nothing has to be counted, and nothing repaired.
"""

import contextlib
import errno
import fcntl
import os
import re
import stat
import struct
import tempfile
import zlib

_OPEN = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_FLOCK = struct.Struct("@hhqqi0q")


def _lock(fd: int, kind: int, start: int, length: int) -> bool:
    """Lock or unlock bytes (a length of 0: to the end); False where another has locked them."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, start, length, 0))
    except BlockingIOError:
        return False
    return True


class Slot:
    """One of so many, held until :meth:`release`."""

    __slots__ = ("_fd",)

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def release(self) -> None:
        """Give it back; a second time does nothing."""
        if self._fd >= 0:
            # To close it would do, but not while a script that is about to be executed has the descriptor as well.
            _lock(self._fd, fcntl.F_UNLCK, 0, 0)
            os.close(self._fd)
            self._fd = -1


class Slots:
    """``most`` slots, shared by every process of this user that makes them with the same ``name``.

    Their file has no content; it is in a folder that nobody else may write to, below the system's for temporary
    files. Removing it while slots are held only makes new ones.
    """

    def __init__(self, name: bytes, most: int) -> None:
        #: Where the file of the locks is.
        self.folder = os.path.join(tempfile.gettempdir(), f"pyemperor-{os.geteuid()}")
        self._file = b"%b-%08x" % (re.sub(rb"[^\w.-]+", b"_", name)[-100:], zlib.crc32(name))
        self._most = most

    def take(self) -> Slot | None:
        """Take a free slot; None when all are taken. Raises OSError when there can be no file for them."""
        fd = self._open()
        try:
            for number in range(self._most):
                if _lock(fd, fcntl.F_WRLCK, number, 1):
                    slot, fd = Slot(fd), -1
                    return slot
        finally:
            if fd >= 0:
                os.close(fd)
        return None

    def _open(self) -> int:
        folder = self._open_folder()
        try:
            return os.open(self._file, _OPEN, 0o600, dir_fd=folder)
        finally:
            os.close(folder)

    def _open_folder(self) -> int:
        """Open our folder, made if it is not there; another user's, who may have been quicker, is refused."""
        flags = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        try:
            folder = os.open(self.folder, flags)
        except FileNotFoundError:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.folder, 0o700)
            folder = os.open(self.folder, flags)
        found = os.fstat(folder)
        if found.st_uid == os.geteuid() and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return folder
        os.close(folder)
        raise PermissionError(errno.EACCES, "others may write to it", self.folder)
