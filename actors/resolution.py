"""From a URL's path to a file below a mount, whatever is renamed or linked meanwhile.

Every answer is about a file that was held by a descriptor, or named by one system call alone, so no check is
about another file than the one that was found: ``lstat`` of a direct child of the mount; then openat2(2), which
goes down without meeting a link or says so; then, component by component, the descriptors of the folders on the
way. The last needs no openat2 and gives the same answers: kernels before 5.6 and seccomp filters have none.

One race is left on purpose. The script is executed by its path, since ``$0``, ``SCRIPT_FILENAME`` and an
interpreter's ``#!`` need a name, and whoever may write to its folder may put another file there before. But they
may as well put it there a second before the request: they own the site, and gain nothing that is not theirs.
"""

import ctypes
import errno
import os
import stat
import struct
from collections.abc import Sequence
from typing import Literal

import msgspec

from pyemperor.protocol.cgi import script_candidates
from pyemperor.protocol.errors import RequestError

_HOLD = os.O_PATH | os.O_CLOEXEC
_STEP = _HOLD | os.O_NOFOLLOW
#: Linux: MAXSYMLINKS.
_MAX_LINKS = 40


class Place(msgspec.Struct, frozen=True):
    """Where a path leads: its part that names a file or folder, what is left of it, and what is there."""

    script: bytes
    rest: bytes
    found: os.stat_result


class Resolver:
    """Finds the first thing below a mount that is no folder (RFC 3875 §3.2), within the policy for links.

    A mount may itself be a link. Links below it are refused (``deny``), or lead to what has the link's owner
    (``owner``), or to anything (``follow``); in any case to something below the mount or a folder in ``safe``.
    Without ``examine`` links are not looked at (uWSGI's ``cgi-dontresolve``). Without ``openat2`` it goes step by
    step, as where the kernel has none.
    """

    def __init__(
        self,
        symlinks: Literal["deny", "owner", "follow"] = "follow",
        safe: Sequence[bytes] = (),
        *,
        examine: bool = True,
        openat2: bool = True,
    ) -> None:
        self._symlinks = symlinks
        self._safe = safe
        self._look = os.lstat if examine else os.stat
        self._find = self._descend if examine else self._follow_anything
        self._openat2 = openat2
        #: Mounts that were files when last seen: only where to look first.
        self._files: set[bytes] = set()

    def find(self, root: bytes, path: bytes) -> Place | None:
        """Find what ``path``, the URL's part behind the mount, names below ``root``; None if there is nothing.

        A path that ends at a folder gives the folder. Raises RequestError: 403 for a link against the policy
        and for a folder that may not be searched, 414 for a component that is too long, 503 without descriptors.
        """
        try:
            return self._glance(root, path) or self._find(root, path)
        except OSError as error:
            _missing(root, path, error)
            return None

    def _glance(self, root: bytes, path: bytes) -> Place | None:
        """The script of nearly every request, in one look: a plain file in the mount, or the mount itself."""
        end = path.find(b"/", 1)
        first = path if end < 0 else path[:end]
        if len(first) > 1 and root not in self._files:
            try:
                found = self._look(root + first)
            except NotADirectoryError:
                pass  # the mount is a file
            except OSError:
                return None
            else:
                return Place(first, path[len(first) :], found) if stat.S_ISREG(found.st_mode) else None
        found = os.stat(root or b"/")
        if stat.S_ISREG(found.st_mode):
            self._files.add(root)
            return Place(b"", path, found)
        self._files.discard(root)
        return None

    def _follow_anything(self, root: bytes, path: bytes) -> Place:
        place = Place(b"", path, os.stat(root or b"/"))
        for script, rest in script_candidates(path):
            place = Place(script, rest, os.stat((root + script) or b"/"))
            if not stat.S_ISDIR(place.found.st_mode):
                break
        return place

    def _descend(self, root: bytes, path: bytes) -> Place:
        top = os.open(root or b"/", _HOLD)
        try:
            return self._without_links(top, path) or self._step_by_step(top, root, path)
        finally:
            os.close(top)

    def _without_links(self, top: int, path: bytes) -> Place | None:
        """What the whole path names, if there is no link on it; None to look closer."""
        names = path.lstrip(b"/")
        if not names or not self._openat2:
            return None
        try:
            fd = _open_plainly(top, names)
        except OSError as error:
            if error.errno == errno.ENOENT:
                raise  # a link or a file before what is missing would have been another error
            self._openat2 = error.errno not in (errno.ENOSYS, errno.EPERM)
            return None
        try:
            script = path.rstrip(b"/")
            return Place(script, path[len(script) :], os.fstat(fd))
        finally:
            os.close(fd)

    def _step_by_step(self, top: int, root: bytes, path: bytes) -> Place:
        at = os.dup(top)
        try:
            place = Place(b"", path, os.fstat(at))
            for script, rest in script_candidates(path):
                if script:
                    at = _moved(at, self._child(top, at, root + script))
                    place = Place(script, rest, os.fstat(at))
                if not stat.S_ISDIR(place.found.st_mode):
                    break
            return place
        finally:
            os.close(at)

    def _child(self, top: int, folder: int, file: bytes) -> int:
        """Open what ``file`` is called in ``folder``; where that is a link, what it leads to, if it may."""
        name = file[file.rindex(b"/") + 1 :]
        child = os.open(name, _STEP, dir_fd=folder)
        if not stat.S_ISLNK(os.fstat(child).st_mode):
            return child
        os.close(child)
        if self._symlinks == "deny":
            raise _refused(file, "is a link: the vassal has `cgi-symlinks = deny`")
        target = _Links(file, same_owner=self._symlinks == "owner").open(folder, name)
        try:
            place = _place(target)
            allowed = (_place(top), *map(os.path.realpath, self._safe))
            if not any(place == one or place.startswith(one.rstrip(b"/") + b"/") for one in allowed):
                remedy = f"leads to {os.fsdecode(place)}: mount that, name its folder in `cgi-safe`, or copy it"
                raise _refused(file, remedy)
        except BaseException:
            os.close(target)
            raise
        return target


class _Links:
    """Follows links by hand, as the kernel does (path_resolution(7)), to see the owner of each."""

    def __init__(self, file: bytes, *, same_owner: bool) -> None:
        self._file = file
        self._same_owner = same_owner
        self._followed = 0

    def open(self, folder: int, name: bytes) -> int:
        """Open what ``name`` in ``folder`` is, or what it leads to."""
        child = os.open(name, _STEP, dir_fd=folder)
        found = os.fstat(child)
        if not stat.S_ISLNK(found.st_mode):
            return child
        try:
            target = os.readlink(b"", dir_fd=child)
        finally:
            os.close(child)
        self._followed += 1
        if self._followed > _MAX_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return self._walk(folder, target, found.st_uid)

    def _walk(self, folder: int, target: bytes, owner: int) -> int:
        at = os.open(b"/", _HOLD) if target.startswith(b"/") else os.dup(folder)
        try:
            *names, last = target.split(b"/")
            for name in (*filter(None, names), last or b"."):  # what ends with a slash has to be a folder
                at = _moved(at, self.open(at, name))
            if self._same_owner and os.fstat(at).st_uid != owner:
                raise _refused(self._file, "has another owner than what it leads to: `cgi-symlinks = owner`")
        except BaseException:
            os.close(at)
            raise
        return at


def _moved(left: int, entered: int) -> int:
    os.close(left)
    return entered


def _place(fd: int) -> bytes:
    """Where the file or folder that ``fd`` holds is at this moment: the kernel says it, no path is read anew."""
    return os.readlink(b"/proc/self/fd/%d" % fd)


def _refused(file: bytes, why: str) -> RequestError:
    return RequestError(
        "this script is a link that may not be followed", status=403, remedy=f"{os.fsdecode(file)} {why}"
    )


def _missing(root: bytes, path: bytes, error: OSError) -> None:
    """Nothing is there, says ``error``; any other reason is raised as what the client gets."""
    remedy = f"{os.fsdecode(root + path)}: {error.strerror}"
    match error.errno:
        case errno.ENOENT | errno.ENOTDIR | errno.ELOOP | errno.ENAMETOOLONG:
            return
        case errno.EMFILE | errno.ENFILE | errno.ENOMEM:
            raise RequestError("no script can be looked up now", status=503, remedy=remedy) from None
    raise RequestError("no access to this script", status=403, remedy=remedy) from None


# ---- openat2(2), which Python has not -------------------------------------------------------------------

_RESOLVE_NO_MAGICLINKS = 0x02
_RESOLVE_NO_SYMLINKS = 0x04
_RESOLVE_BENEATH = 0x08
#: struct open_how: flags, mode, resolve.
_HOW = struct.pack("=QQQ", _HOLD, 0, _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS)
_SYS_OPENAT2 = 437  # the same on every architecture that CPython supports
_syscall = ctypes.CDLL(None, use_errno=True).syscall
_syscall.restype = ctypes.c_long
_syscall.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_size_t)


def _open_plainly(folder: int, path: bytes) -> int:
    """Hold what ``path`` names below ``folder``; no component of it is a link or leads out of it."""
    fd: int = _syscall(_SYS_OPENAT2, folder, path, _HOW, len(_HOW))
    if fd < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return fd
