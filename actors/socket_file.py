"""The file of a unix socket, or with a process id, in a folder that may be somebody else's.

Whoever owns the folder can put something else under the name at any moment: a link to a file of root's, say, that
root is then to give away. So whatever is done to the file is done to one that is held by a descriptor and was seen
to be the socket (``O_PATH``, open(2)), and whatever is removed, is removed from the folder that was looked into.
"""

import errno
import os
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

#: Nobody may connect before mode and owner are right.
_UMASK = 0o177


@dataclass(frozen=True, slots=True)
class OurFile:
    """The file that was made at ``path``, known by its device and its inode.

    What somebody puts in its place may get the same inode: a plain file is also known by when it was ``written``
    (nanoseconds; 0: by that it is not).
    """

    path: str
    device: int
    inode: int
    written: int = 0

    def is_ours(self) -> bool:
        """Whether the file is still there; as far as one may look."""
        try:
            return self._is(os.lstat(self.path))
        except OSError:
            return False

    def give(self, owner: tuple[int, int], mode: int) -> None:
        """Change its owner (-1 leaves user or group) and mode, if it is still there; raises OSError."""
        try:
            with _held(self.path) as fd:
                if self._is(os.fstat(fd)):
                    _give(fd, owner, mode)
        except FileNotFoundError:
            return

    def remove(self) -> None:
        """Remove it if it is still there; raises OSError."""
        try:
            folder = _folder(self.path)
        except (FileNotFoundError, NotADirectoryError):
            return
        try:
            name = os.path.basename(self.path)
            if self._is(os.stat(name, dir_fd=folder, follow_symlinks=False)):
                os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            return
        finally:
            os.close(folder)

    def _is(self, found: os.stat_result) -> bool:
        same = (found.st_dev, found.st_ino) == (self.device, self.inode)
        return same and self.written in (0, found.st_mtime_ns)


def bind_file(sock: socket.socket, path: str, owner: tuple[int, int], mode: int) -> OurFile:
    """Bind ``sock`` at ``path``, whose folder is made if there is none, for ``owner`` and ``mode``.

    The socket of a server that is gone is replaced. Raises OSError, and leaves nothing behind then.
    """
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    _remove_stale(path)
    before = os.umask(_UMASK)
    try:
        sock.bind(path)
    finally:
        os.umask(before)
    with _held(path) as fd:
        found = os.fstat(fd)
        # The kernel tells only some which file a socket was bound to. One that is ours and has one name, nobody
        # but us can have put there.
        if not (stat.S_ISSOCK(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1):
            raise FileExistsError(errno.EEXIST, "somebody has put another file in the place of the socket")
        file = OurFile(path, found.st_dev, found.st_ino)
        try:
            _give(fd, owner, mode)
        except BaseException:
            file.remove()
            raise
    return file


def replace_file(path: str, text: str) -> OurFile:
    """Put a file with ``text`` that everybody may read in the place of another one, at once.

    Nothing is followed and nothing but a plain file is replaced: whatever else has the name is a mistake. Raises
    OSError.
    """
    folder, name = _folder(path), os.path.basename(path)
    new = f".{name}.{os.urandom(6).hex()}"
    try:
        _check_plain(name, folder)
        fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600, dir_fd=folder)
        try:
            os.write(fd, text.encode())
            os.fchmod(fd, 0o644)
            os.rename(new, name, src_dir_fd=folder, dst_dir_fd=folder)
            found = os.fstat(fd)
        except BaseException:
            os.unlink(new, dir_fd=folder)
            raise
        finally:
            os.close(fd)
    finally:
        os.close(folder)
    return OurFile(path, found.st_dev, found.st_ino, found.st_mtime_ns)


def _check_plain(name: str, folder: int) -> None:
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return
    if stat.S_ISLNK(found.st_mode):
        raise FileExistsError(errno.EEXIST, "it is a symbolic link, and none is followed: name its target")
    if not stat.S_ISREG(found.st_mode):
        raise FileExistsError(errno.EEXIST, "something that is no plain file is in the way")


def _give(fd: int, owner: tuple[int, int], mode: int) -> None:
    held = f"/proc/self/fd/{fd}"  # a descriptor of O_PATH takes no fchown(2)
    if owner != (-1, -1):
        os.chown(held, *owner)
    os.chmod(held, mode)


def _remove_stale(path: str) -> None:
    """Remove a socket that nobody listens at; a living one, or another kind of file, is not ours to remove."""
    folder, name = _folder(path), os.path.basename(path)
    try:
        if not stat.S_ISSOCK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode):
            raise FileExistsError(errno.EEXIST, "a file that is no socket is in the way")
        if _is_served(path):
            raise OSError(errno.EADDRINUSE, "another server listens there")
        os.unlink(name, dir_fd=folder)
    except FileNotFoundError:
        return
    finally:
        os.close(folder)


def _is_served(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        probe.setblocking(False)
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            return False
        except BlockingIOError:
            pass  # it is alive, and its queue is full
    return True


def _folder(path: str) -> int:
    return os.open(os.path.dirname(path) or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


@contextmanager
def _held(path: str) -> Iterator[int]:
    """A descriptor of whatever has the name, which is not opened and, if a link, not followed."""
    fd = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
