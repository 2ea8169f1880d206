"""Vassals as files: the imperial monitors ``dir://FOLDER`` and ``glob://PATTERN``."""

import glob
import os
import select
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import NamedTuple, Protocol, runtime_checkable

from loguru import logger

from pyemperor.actors.actor import Inbox
from pyemperor.actors.administration import Origin
from pyemperor.actors.credentials import acting_as
from pyemperor.actors.linux import (
    IN_CLOSE_WRITE,
    IN_DELETE,
    IN_IGNORED,
    IN_MODIFY,
    IN_MOVED_FROM,
    IN_MOVED_TO,
    IN_Q_OVERFLOW,
    FileEvents,
)
from pyemperor.actors.opened import Looks, Opened, OwnersFile
from pyemperor.actors.small_file import read_small
from pyemperor.protocol.escapes import printable
from pyemperor.protocol.options import Owner, Vassal

#: What the name of a vassal file ends in (uWSGI's, and TOML's).
EXTENSIONS = (".ini", ".toml", ".xml", ".yml", ".yaml", ".json", ".js")


class FileVersion(NamedTuple):
    """What tells one version of a file from another; of a symbolic link, that of the file it leads to.

    Nanoseconds of its last change, so that two edits within a second are two; device and inode, for an older
    file moved in and a link that leads elsewhere; and what is in it. ``content`` is its hash in this
    process, 0 when it cannot be read or is too much to be read.
    """

    changed_ns: int
    device: int
    inode: int
    size: int
    content: int
    #: User and group whom the vassal belongs to, where that matters (emperor-tyrant).
    owner: tuple[int, int] = (-1, -1)


@runtime_checkable
class VassalReader(Protocol):
    """Reads vassal files, and knows more of them than their text."""

    def __call__(self, path: str, *, reloading: bool) -> Vassal:
        """The vassal in the file ``path``; raises ConfigError."""

    def opened(self, path: str) -> Opened:
        """The files that the last reading of ``path`` opened, or looked for."""

    def owner_of(self, path: str, found: os.stat_result) -> tuple[int, int]:
        """User and group whom the vassal belongs to; (-1, -1) where that is nothing to it. Raises OSError."""

    def forget(self, path: str) -> None:
        """It is not there any more."""


class VassalFiles:
    """The vassal files of a folder or of a pattern, read by ``read(path, reloading=...)``.

    What is a :class:`VassalReader` besides says which files it opened, and whose a vassal is.

    A folder has those whose name ends in one of ``extensions`` and does not begin with a dot, as uWSGI has it;
    a pattern those that it matches. Only what is, or leads to, a regular file counts.
    """

    def __init__(
        self,
        uri: str,
        read: Callable[..., Vassal],
        extensions: Collection[str] = EXTENSIONS,
        *,
        nofollow: bool = False,
    ) -> None:
        kind, separator, path = uri.partition("://")
        if not separator:
            path = uri
            pattern = os.path.isfile(path) or (glob.has_magic(path) and not os.path.isdir(path))
            kind = "glob" if pattern else "dir"
        self.uri = f"{kind}://{os.path.abspath(path)}"
        self._read = read
        #: As it was given, which is how uWSGI shows it.
        self._given = path
        #: Links themselves count, not what they lead to (emperor-nofollow).
        self._nofollow = nofollow
        self._glob = kind == "glob"
        self._path = os.path.abspath(path)
        self._extensions = tuple(extensions)
        self._looks: Looks[FileVersion] = Looks()
        #: By path, what keeps us from looking at it.
        self._ailing: dict[str, str] = {}
        self._events: FileEvents | None = None
        self._watches: dict[int, str] = {}
        #: Files that were written to and not closed since, by their real path.
        self._written: set[str] = set()
        self._real: dict[str, str] = {}

    def name(self, path: str) -> str:
        """The name of the vassal in the file ``path``: the file's, without its extension."""
        return os.path.splitext(os.path.basename(path))[0]

    def read(self, path: str, *, reloading: bool) -> Vassal:
        """The vassal in the file ``path``; raises ConfigError."""
        return self._read(path, reloading=reloading)

    def opened(self, path: str) -> Opened:
        """The files that the last reading of ``path`` opened, or looked for."""
        return self._read.opened(path) if isinstance(self._read, VassalReader) else Opened()

    def place(self, path: str) -> str:
        """What tells it from one of the same name elsewhere: the name of its folder."""
        return os.path.basename(os.path.dirname(path))

    def origin(self, path: str) -> Origin:
        """What uWSGI calls it: in a folder by the name of the file, of a pattern by its path."""
        known = self._looks.last(path)
        modified = known.changed_ns / 1e9 if known else 0.0
        return Origin(printable(path if self._glob else os.path.basename(path)), printable(self._given), modified)

    # ---- looking --------------------------------------------------------------------------------------------

    def scan(self) -> dict[str, FileVersion]:
        """The version of each file by path; raises OSError when the folder cannot be read."""
        self._watch_folders()
        seen: dict[str, FileVersion] = {}
        for path in self._paths():
            if version := self._looked_at(path):
                seen[path] = version
        for gone in self._looks.forget_all_but(seen):
            if isinstance(self._read, VassalReader):
                self._read.forget(gone)
            self._real.pop(gone, None)
        return seen

    def writing(self) -> set[str]:
        """The files that somebody is writing, as far as the system tells."""
        return {path for path, real in self._real.items() if real in self._written}

    def _paths(self) -> Iterator[str]:
        if self._glob:
            yield from sorted(glob.glob(self._path))
            return
        with os.scandir(self._path) as entries:
            names = [entry.name for entry in entries]
        for name in sorted(names):
            if name.endswith(self._extensions) and not name.startswith("."):
                yield os.path.join(self._path, name)

    def _looked_at(self, path: str) -> FileVersion | None:
        try:
            version = self._version(path)
        except Exception as error:
            # Whatever it is about this one, the others are to be seen; this one stays as it was.
            if self._ailing.get(path) != repr(error):
                self._ailing[path] = repr(error)
                logger.exception("{} could not be looked at, which is a defect of PyEmperor", path)
            return self._looks.last(path)
        self._ailing.pop(path, None)
        return version

    def _version(self, path: str) -> FileVersion | None:
        try:
            found = os.lstat(path) if self._nofollow else os.stat(path)
            owner = self._read.owner_of(path, found) if isinstance(self._read, VassalReader) else (-1, -1)
        except OSError:
            return None  # it has gone since, or is a link that leads nowhere
        link = stat.S_ISLNK(found.st_mode)
        if not (stat.S_ISREG(found.st_mode) or link):
            return None
        times = (found.st_mtime_ns, found.st_ctime_ns)
        seen = (*times, found.st_dev, found.st_ino, found.st_size, found.st_mode, *owner)
        if version := self._looks.trusted(path, seen):
            return version
        content = hash(os.readlink(path)) if link else _digest(path)
        version = FileVersion(found.st_mtime_ns, found.st_dev, found.st_ino, found.st_size, content, owner)
        self._looks.note(path, seen, version)
        self._real[path] = os.path.realpath(path) if os.path.islink(path) else path
        return version

    # ---- events ---------------------------------------------------------------------------------------------

    def watch(self, inbox: Inbox, message: object) -> None:
        """Deliver ``message`` whenever something happens to the files, as far as the system tells."""
        try:
            self._events = FileEvents()
        except OSError as error:
            logger.warning("{}: no file events ({}): changes are seen by looking", self.uri, error.strerror)
            return
        inbox.watch(self._events.fd, select.EPOLLIN, lambda _: [message] if self._happened() else [])

    def _happened(self) -> bool:
        assert self._events is not None
        events = self._events.read()
        for number, mask, name in events:
            path = os.path.join(self._watches.get(number, ""), name)
            if mask & IN_Q_OVERFLOW:
                self._written.clear()
                self._looks.forget_all_but(())
            elif mask & IN_IGNORED:
                self._watches.pop(number, None)
            elif mask & IN_MODIFY:
                self._written.add(path)
            elif mask & (IN_CLOSE_WRITE | IN_DELETE | IN_MOVED_FROM | IN_MOVED_TO):
                self._written.discard(path)
        return bool(events)

    def _watch_folders(self) -> None:
        """Watch the folders of the files, and of what links among them lead to."""
        if self._events is None:
            return
        patterns = glob.glob(os.path.dirname(self._path)) if self._glob else [self._path]
        wanted = {*patterns, *(os.path.dirname(real) for real in self._real.values())}
        numbers = {}
        for folder in sorted(wanted):
            try:
                numbers[self._events.watch(folder)] = folder
            except OSError as error:
                # What cannot be watched is looked at every now and then all the same.
                logger.debug("{}: {} is not watched: {}", self.uri, folder, error.strerror)
        for number in self._watches.keys() - numbers.keys():
            self._events.unwatch(number)
        self._watches = numbers

    def close(self, inbox: Inbox) -> None:
        """Watch no more."""
        if self._events is not None:
            inbox.unwatch(self._events.fd)
            self._events.close()
            self._events = None
            self._watches = {}
            self._written.clear()


def touched(files: Iterable[OwnersFile]) -> Mapping[OwnersFile, tuple[int, int]]:
    """When each of the files that are there, to its owner, was touched last: nanoseconds, and its inode."""
    by_owner: dict[Owner | None, list[str]] = {}
    for owner, path in files:
        by_owner.setdefault(owner, []).append(path)
    seen = {}
    for owner, paths in by_owner.items():
        with acting_as(owner):
            for path in paths:
                try:
                    found = os.stat(path)
                except OSError:
                    continue  # it is not there, or not for them to see: so nobody has touched it
                seen[owner, path] = found.st_mtime_ns, found.st_ino
    return seen


def _digest(path: str) -> int:
    try:
        return hash(read_small(path))  # SipHash, 64 bits, keyed: hashlib costs 3.4 MB, for OpenSSL
    except OSError:
        return 0  # whoever reads it will say why not
