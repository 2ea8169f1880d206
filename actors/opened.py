"""The files that one reading of a configuration opened or looked for, each in the version that was read."""

import os
from collections.abc import Callable, Collection, Hashable, Mapping, Set
from typing import Generic, TypeVar

from pyemperor.actors.credentials import acting_as
from pyemperor.actors.small_file import contents, open_small
from pyemperor.protocol.options import Owner

#: A path, and in whose name it is looked at; None: ours.
OwnersFile = tuple[Owner | None, str]
_T = TypeVar("_T")


class Looks(Generic[_T]):
    """The versions of files, by path, found out anew only when stat(2) says that there may be another one.

    Two edits within one tick of the file system's clock look alike. What looks alike at a second look has its last
    edit before the first, and the look after it sees whatever comes later: so a version is trusted from then on.
    """

    def __init__(self) -> None:
        #: By path, what stat(2) said and the version; the third: whether it may be trusted.
        self._known: dict[str, tuple[Hashable, _T, bool]] = {}

    def trusted(self, path: str, seen: Hashable) -> _T | None:
        """The version of a file that looks like ``seen``; None: it has to be read."""
        before = self._known.get(path)
        return before[1] if before is not None and before[0] == seen and before[2] else None

    def note(self, path: str, seen: Hashable, version: _T) -> None:
        """It was read, and looked like ``seen`` just before."""
        before = self._known.get(path)
        self._known[path] = seen, version, before is not None and before[:2] == (seen, version)

    def last(self, path: str) -> _T | None:
        """The version of the last look; None: there was none."""
        before = self._known.get(path)
        return None if before is None else before[1]

    def forget_all_but(self, paths: Collection[str]) -> Set[str]:
        """Forget the others, and say which they were."""
        gone = self._known.keys() - paths
        for path in gone:
            del self._known[path]
        return gone


class Opened:
    """Reads files for one configuration, each once. ``owner`` is the one in whose name all of it is done."""

    def __init__(self, owner: Owner | None = None) -> None:
        self.owner = owner
        #: By path, the version that was read; None: there was nothing to read.
        self.versions: dict[str, Hashable | None] = {}
        self._texts: dict[str, str] = {}
        self._looks: Looks[Hashable] = Looks()

    def read(self, path: str) -> str:
        """The text of a file; raises OSError or UnicodeDecodeError."""
        path = os.path.abspath(path)
        if path not in self._texts:
            self.versions[path] = None
            with acting_as(self.owner):
                fd = open_small(path)
            try:
                self.take(path, fd)
            finally:
                os.close(fd)
        return self._texts[path]

    def ask(self, question: Callable[[str], _T], path: str) -> _T:
        """What the owner would be told of ``path``."""
        with acting_as(self.owner):
            return question(path)

    def take(self, path: str, fd: int) -> None:
        """Read ``path`` from a descriptor that is open already."""
        data, version = _contents(fd, path)
        self.versions[path] = version
        self._texts[path] = data.decode("utf-8")

    def done(self) -> None:
        """All is read: keep the versions only."""
        self._texts.clear()

    def included(self) -> Mapping[str, Hashable]:
        """The versions that were read; what was not there has none."""
        return {path: version for path, version in self.versions.items() if version is not None}

    def now(self) -> Mapping[str, Hashable]:
        """The versions that the same files have now, to whom read them."""
        with acting_as(self.owner):
            looks = {path: self._look(path) for path in self.versions}
        return {path: version for path, version in looks.items() if version is not None}

    def _look(self, path: str) -> Hashable | None:
        try:
            found = os.stat(path)
            seen = (found.st_mtime_ns, found.st_ctime_ns, found.st_dev, found.st_ino, found.st_size)
            if (version := self._looks.trusted(path, seen)) is not None:
                return version
            fd = open_small(path)
            try:
                _, version = _contents(fd, path)
            finally:
                os.close(fd)
        except OSError:
            return None
        self._looks.note(path, seen, version)
        return version


def _contents(fd: int, path: str) -> tuple[bytes, Hashable]:
    """What is in a file, and its version: time, device, inode and hash."""
    found = os.fstat(fd)
    data = contents(fd, path)
    return data, (found.st_mtime_ns, found.st_dev, found.st_ino, hash(data))
