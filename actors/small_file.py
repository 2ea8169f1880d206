"""Reading a file that somebody else has written, and which may be anything: a configuration."""

import errno
import os
import stat

from pyemperor.protocol.dialect.bounds import LARGEST


def read_small(path: str) -> bytes:
    """What is in the regular file ``path``; never waits, and never reads more than ``LARGEST`` bytes.

    Raises OSError with words for the user, also for a folder, a pipe, a device, and a file that is larger.
    """
    fd = open_small(path)
    try:
        return contents(fd, path)
    finally:
        os.close(fd)


def open_small(path: str) -> int:
    """A descriptor to read the regular file ``path``; raises OSError as :func:`read_small` does."""
    held = os.open(path, os.O_PATH | os.O_CLOEXEC)  # looks, and opens nothing: a device may notice to be opened
    try:
        _check(held, path)
        return os.open(f"/proc/self/fd/{held}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    finally:
        os.close(held)


def contents(fd: int, path: str) -> bytes:
    """What is in the file ``fd``, which is called ``path``; raises OSError as :func:`read_small` does."""
    size = _check(fd, path)
    read = b""
    # At most one byte more: some files of /proc are called empty, and wait for what comes.
    while size <= LARGEST and len(read) <= LARGEST and (part := os.pread(fd, LARGEST + 1 - len(read), len(read))):
        read += part
    if max(size, len(read)) > LARGEST:
        raise OSError(errno.EFBIG, f"it is larger than {LARGEST >> 10} KiB, which no configuration is", path)
    return read


def _check(fd: int, path: str) -> int:
    """The size of a file that may be read."""
    found = os.fstat(fd)
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is no regular file, but a pipe, a socket or a device", path)
    return found.st_size
