"""Reading a file that somebody else has written, and which may be anything: a configuration."""

import errno
import os
import stat

#: Bytes that a configuration may have.
MOST = 1 << 20


def read_small(path: str) -> bytes:
    """What is in the regular file ``path``; never waits, and never reads more than ``MOST`` bytes.

    Raises OSError with words for the user, also for a folder, a pipe, a device, and a file that is larger.
    """
    held = os.open(path, os.O_PATH | os.O_CLOEXEC)  # looks, and opens nothing: a device may notice to be opened
    try:
        found = os.fstat(held)
        if stat.S_ISDIR(found.st_mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.EINVAL, "it is no regular file, but a pipe, a socket or a device", path)
        read = _read(held) if found.st_size <= MOST else b""
    finally:
        os.close(held)
    if max(found.st_size, len(read)) > MOST:
        raise OSError(errno.EFBIG, f"it is larger than {MOST} bytes, which no configuration is", path)
    return read


def _read(held: int) -> bytes:
    """At most one byte more than ``MOST``: some files of /proc are called empty, and wait for what comes."""
    fd = os.open(f"/proc/self/fd/{held}", os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        read = b""
        while len(read) <= MOST and (part := os.read(fd, MOST + 1 - len(read))):
            read += part
        return read
    finally:
        os.close(fd)
