"""A log file that many processes append to: each notices when it was moved away, and one renames it when full.

A line is one write(2) to a file opened for appending, so lines do not mix and may be cut away below us
(logrotate's ``copytruncate``). Whoever writes looks first whether the name still means the same file; that is
all that a process needs to follow a rotation by somebody else, without a signal or a timer. Between the moving
away of the old file and the making of the new one, lines go on into the old one: none is lost.
"""

import contextlib
import errno
import fcntl
import os
import time
from collections.abc import Callable

import msgspec

#: Permission bits of a log file that is made here, where logfile-chmod says nothing.
MODE = 0o640
#: Seconds between two looks at the files of touch-logreopen, and between two tries of a rotation that failed.
_LOOK, _AGAIN = 1.0, 60.0


class LogFileOptions(msgspec.Struct, frozen=True):
    """Where to log and when to begin a new file; ``maxsize`` in bytes, 0 is never. Names are uWSGI's."""

    path: str
    maxsize: int = 0
    backupname: str = ""
    touch_logreopen: tuple[str, ...] = ()
    touch_logrotate: tuple[str, ...] = ()
    mode: int = MODE
    #: Owner of a file that is made here, where we may choose it; -1 leaves it.
    uid: int = -1
    gid: int = -1


class LogFile:
    """The file behind the descriptor ``fd`` of this process, which stays the same number for ever.

    ``is_open`` says that ``fd`` is that file already; nobody may be able to see it by its name any more. Not for
    several threads at a time, but for :meth:`reopen`. Raises OSError when the file cannot be opened.
    """

    def __init__(
        self,
        options: LogFileOptions,
        fd: int = 2,
        clock: Callable[[], float] = time.monotonic,
        *,
        is_open: bool = False,
    ) -> None:
        self.options = options
        self._fd = fd
        self._clock = clock
        self._look_at = self._rotate_at = 0.0
        self._reopen_marks = _marks(options.touch_logreopen)
        self._rotate_marks = _marks(options.touch_logrotate)
        self._identity = (0, 0)
        if is_open:
            mine = os.fstat(fd)
            self._identity = (mine.st_dev, mine.st_ino)
        elif not self._is_open():
            self._open(options.mode, options.uid, options.gid)

    def _is_open(self) -> bool:
        """Whether ``fd`` is this file already, inherited."""
        try:
            mine, found = os.fstat(self._fd), os.stat(self.options.path)
            appends = fcntl.fcntl(self._fd, fcntl.F_GETFL) & os.O_APPEND
        except OSError:
            return False
        self._identity = (mine.st_dev, mine.st_ino)
        return bool(appends) and (found.st_dev, found.st_ino) == self._identity

    def write(self, _fd: int, data: bytes) -> int:
        """Append ``data`` to the right file; the bytes written."""
        self.follow()
        return os.write(self._fd, data)

    def follow(self) -> None:
        """Go to the file that has the name now, or begin a new one if it is time; never raises."""
        if self._reopen_marks or self._rotate_marks:
            self._look_at_marks()
        try:
            found = os.stat(self.options.path)
        except OSError:
            return  # moved away: whoever is told to reopen makes the next one
        if (found.st_dev, found.st_ino) != self._identity:
            # One that is somebody else's alone may be given to us yet; until then the old one is as good.
            with contextlib.suppress(OSError):
                self._open(None)
                self._rotate_marks = _marks(self.options.touch_logrotate)  # so another one saw the touch
        elif self.options.maxsize and found.st_size >= self.options.maxsize:
            self.rotate()

    def _look_at_marks(self) -> None:
        now = self._clock()
        if now < self._look_at:
            return
        self._look_at = now + _LOOK
        options = self.options
        if (marks := _marks(options.touch_logreopen)) != self._reopen_marks:
            self._reopen_marks = marks
            self.reopen()
        if (marks := _marks(options.touch_logrotate)) != self._rotate_marks:
            self._rotate_marks = marks
            self.rotate()

    def reopen(self) -> bool:
        """Open the name again and make the file if it was moved away, like the old one; whether that worked.

        A signal handler may call it in the middle of anything: each step leaves a file that takes lines, and what
        is remembered wrongly is put right by the next :meth:`follow`.
        """
        old = os.fstat(self._fd)
        try:
            self._open(old.st_mode & 0o7777, old.st_uid, old.st_gid)
        except OSError:
            return False  # not allowed to: the old one still takes our lines
        return True

    def rotate(self) -> None:
        """Move the file to its backup name and begin a new one, unless another process is at it."""
        if self._clock() < self._rotate_at:
            return
        path = self.options.path
        try:
            # The lock belongs to this opening alone; the one that logs is shared with our children.
            try:
                full = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC)
            except FileNotFoundError:
                return  # another process does it, and has not begun the next file yet
            try:
                fcntl.flock(full, fcntl.LOCK_EX | fcntl.LOCK_NB)
                mine, found = os.fstat(full), os.stat(path)
                if (mine.st_dev, mine.st_ino) == (found.st_dev, found.st_ino) == self._identity:
                    os.rename(path, self._backup())
                    self._open(mine.st_mode & 0o7777, mine.st_uid, mine.st_gid)
            finally:
                os.close(full)
        except BlockingIOError:
            return  # another process does it
        except OSError:
            # Only who may write to the folder can rename in it; of several processes one may.
            self._rotate_at = self._clock() + _AGAIN

    def _backup(self) -> str:
        if self.options.backupname:
            return self.options.backupname
        name = plain = f"{self.options.path}.{int(time.time())}"
        number = 0
        while os.path.lexists(name):
            number += 1
            name = f"{plain}.{number}"
        return name

    def _open(self, mode: int | None, uid: int = -1, gid: int = -1) -> None:
        """Let ``fd`` be the file that has the name; with a ``mode`` it is made if there is none."""
        fd = open_to_append(self.options, mode, uid, gid)
        try:
            found = os.fstat(fd)
            os.dup2(fd, self._fd)
        finally:
            os.close(fd)
        self._identity = (found.st_dev, found.st_ino)


def open_to_append(file: LogFileOptions, mode: int | None, uid: int = -1, gid: int = -1) -> int:
    """Open ``file`` for appending; with a ``mode`` it is made if there is none, for this owner if we are root.

    For another user root follows no symbolic link: in a folder of theirs it may lead anywhere (ELOOP). It never
    waits, for the reader of a FIFO for example. Raises OSError.
    """
    path = file.path
    flags = os.O_WRONLY | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    root = os.geteuid() == 0
    if root and file.uid > 0:
        flags |= os.O_NOFOLLOW
    try:
        return os.open(path, flags)
    except FileNotFoundError:
        if mode is None:
            raise
    except OSError as error:
        if error.errno == errno.ELOOP and (fd := _already_open(path)) is not None:
            return fd
        raise
    try:
        fd = os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return os.open(path, flags)  # another process was faster
    try:
        if root:
            os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)
    except OSError as error:
        os.close(fd)
        raise OSError(error.errno or errno.EIO, error.strerror, path) from None
    return fd


def _already_open(path: str) -> int | None:
    """Our own output once more, if it is what ``path`` leads to: ``/dev/stdout`` is a link everywhere."""
    for fd in (1, 2):
        with contextlib.suppress(OSError):  # it leads nowhere, or that one is closed: then it is not the same
            if os.path.samestat(os.stat(path), os.fstat(fd)):
                return fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    return None


def _marks(paths: tuple[str, ...]) -> tuple[tuple[int, int] | None, ...]:
    """What touching changes in files: inode and time; None where there is none."""

    def mark(path: str) -> tuple[int, int] | None:
        try:
            found = os.stat(path)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns

    return tuple(mark(path) for path in paths)
