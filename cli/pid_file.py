"""Files that hold the Emperor's process id: ``pidfile`` and its kin."""

import errno
import fcntl
import os

from pyemperor.cli.blame import blaming, problem
from pyemperor.cli.identity import Identity


class PidFile:
    """A file that holds the process id as long as the process lives, and a lock: nobody else has the same.

    It is opened early, while there is the privilege to, and written when its time has come.
    """

    def __init__(self, option: str, path: str, owner: Identity | None = None) -> None:
        self._option = option
        self._path = path
        self._owner = owner
        self._fd = -1

    def open(self) -> None:
        """Make the file and lock it; raises ConfigError when another process has it, or it cannot be made."""
        with blaming(self._option, self._path):
            make_folder(os.path.dirname(self._path), self._owner)
            while self._fd < 0:
                self._fd = self._locked()

    def _locked(self) -> int:
        fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o644)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _same_file(fd, self._path):
                return fd
        except BlockingIOError:
            pid = os.read(fd, 32).decode("ascii", "replace").strip()
            os.close(fd)
            found = f"{self._path}: the process {pid} has it" if pid else f"{self._path}: another process has it"
            raise problem(self._option, found, "stop that one first, or give this one another file") from None
        os.close(fd)  # its owner removed it while we waited
        return -1

    def write(self) -> None:
        """Write the id of this process."""
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)

    def remove(self) -> None:
        """Remove the file, or empty it where its folder is not ours; never that of a successor."""
        if self._fd < 0:
            return
        try:
            if _same_file(self._fd, self._path):
                os.unlink(self._path)
        except PermissionError:
            os.ftruncate(self._fd, 0)
        finally:
            os.close(self._fd)


def _same_file(fd: int, path: str) -> bool:
    try:
        mine, found = os.fstat(fd), os.lstat(path)
    except FileNotFoundError:
        return False
    return (mine.st_dev, mine.st_ino) == (found.st_dev, found.st_ino)


def make_folder(path: str, owner: Identity | None) -> None:
    """Make the folder of a file that lives in /run, which is empty after each start of the machine."""
    if not path or os.path.isdir(path):
        return
    if not os.path.isdir(os.path.dirname(path)):
        raise FileNotFoundError(errno.ENOENT, "there is no such folder", path)
    os.mkdir(path, 0o755)
    if owner is not None and os.geteuid() == 0:
        os.chown(path, owner.uid, owner.gid, follow_symlinks=False)
