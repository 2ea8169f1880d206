"""The code of the scripts that a template runs, and whether they find here what they would import elsewhere.

Runs in the template's interpreter (:mod:`program` says how), in one namespace with the other two: 3.8 or newer,
the standard library and nothing else.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # the public one is mostly Python
import errno
import gc
import marshal
import os
import time
import warnings
from importlib.machinery import SourceFileLoader

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType

    from pyemperor.actors.warm.rebirth import Origin

    Identity = tuple[int, int, int, int, int]
    #: Of a folder: device, inode, and the time of its last change (ctime: nobody can set it) in nanoseconds.
    State = tuple[int, int, int]

#: Seconds that a compilation or an import may take; then SIGALRM ends the template, and scripts run by exec.
PATIENCE = 0.8
#: Scripts whose code is kept, and the bytes that one may have.
_SCRIPTS = 512
_LARGEST = 4 << 20
#: Nanoseconds for which a file must have been left alone before its times tell one version from the next.
_SETTLED = 100_000_000
#: How the names of files end that can be imported.
_MODULE = (".py", ".pyc", ".so")


class Source:
    """A script's code, and what is the same for each run of it: made once, by the template."""

    __slots__ = ("code", "file", "folder", "name", "names", "place")

    def __init__(self, origin: Origin, code: CodeType, path: bytes) -> None:
        self.code = code
        self.file = os.fsdecode(path)
        self.name = os.path.basename(path)[:15]
        #: With links resolved, as ``sys.path[0]`` is.
        self.folder = ""
        #: Where it may run without a look around.
        self.place = b""
        loader = SourceFileLoader("__main__", self.file)
        self.names = {**origin.main, "__file__": self.file, "__cached__": None, "__loader__": loader}

    def look_around(self, folders: Folders, place: bytes) -> bool:
        """Find the folder, and say whether what lies there can be imported from there. Raises OSError."""
        self.place = b""
        real, state = marshal.loads(place)
        self.folder = os.path.dirname(os.path.realpath(self.file))
        is_link = self.folder != os.fsdecode(real)
        if is_link:
            found = os.stat(self.folder)
            state = (found.st_dev, found.st_ino, found.st_ctime_ns)
        is_open, lasts = folders.look_into(self.folder, state)
        if is_open and lasts and not is_link:
            self.place = place
        return is_open


class Folders:
    """Knows of folders of scripts whether a module there would be hidden by one of ours that has its name."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        #: By folder: its state, for how many of our modules it was looked at, and the verdict.
        self._known: dict[str, tuple[State, int, bool]] = {}

    def look_into(self, folder: str, state: State) -> tuple[bool, bool]:
        """Whether a script there imports what it would import after a cold start, and whether that lasts until the
        folder or our modules change. Raises OSError.
        """
        origin = self._origin
        if origin.safe_path:
            return True, True
        beyond = len(origin.beyond)
        known = self._known.get(folder)
        if known is not None and known[:2] == (state, beyond):
            return known[2], True
        settled = state[2] < time.time_ns() - _SETTLED
        try:
            names = [name for name in os.listdir(folder) if name.partition(".")[0] in origin.beyond]
        except PermissionError:
            names = []  # nobody finds a module there
        packages = [name for name in names if "." not in name]
        is_open = not any(name.endswith(_MODULE) for name in names) and not any(
            file.startswith("__init__.") for name in packages for file in _list(os.path.join(folder, name))
        )
        # A folder says nothing of what changes in those within it; and not yet of what changes now.
        lasts = settled and not packages
        if lasts:
            if len(self._known) >= _SCRIPTS:
                self._known.clear()
            self._known[folder] = (state, beyond, is_open)
        return is_open, lasts


def _list(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (NotADirectoryError, PermissionError):
        return []


class Sources:
    """The scripts' code, compiled once for each version of a file; when there is too much, all of it anew."""

    def __init__(self, origin: Origin) -> None:
        self._origin = origin
        self._folders = Folders(origin)
        #: By version; None for what a cold start is to report.
        self.known: dict[bytes, Source | None] = {}

    def look_again(self) -> None:
        """Let nothing run without a look around: there are more modules of ours."""
        for source in self.known.values():
            if source is not None:
                source.place = b""

    def find(self, version: bytes, place: bytes) -> Source:
        """The code of a version (marshalled path and identity) of a file; ``place`` is its folder, and its state.

        Raises OSError for whatever a cold start should report (ENOEXEC: errors of syntax, warnings, a file that
        has changed since), or find: a module beside it that is not the one that is imported here (ENOTUNIQ).
        """
        if version in self.known:
            found = self.known[version]
        else:
            path, identity = marshal.loads(version)
            found = self._compile(path, identity)
            if identity[4] < time.time_ns() - _SETTLED:
                if len(self.known) >= _SCRIPTS:
                    self.known.clear()
                self.known[version] = found
                gc.freeze()
        if found is None:
            raise OSError(errno.ENOEXEC, "a cold start is to say why")
        if not found.look_around(self._folders, place):
            raise OSError(errno.ENOTUNIQ, "a module beside it has the name of one of ours")
        return found

    def _compile(self, path: bytes, identity: Identity) -> Source | None:
        with open(path, "rb") as file:
            found = os.fstat(file.fileno())
            if _identity(found) != identity or found.st_size > _LARGEST:
                return None
            source = file.read(_LARGEST)
        name = os.fsdecode(path)
        signal.setitimer(signal.ITIMER_REAL, PATIENCE)
        try:
            with warnings.catch_warnings(record=True) as said:
                code = compile(source, name, "exec", dont_inherit=True)
        except (SyntaxError, ValueError, MemoryError, RecursionError, OverflowError):
            return None
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        return None if said else Source(self._origin, code, path)


def _identity(found: os.stat_result) -> Identity:
    """What tells one version of a file from another."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
