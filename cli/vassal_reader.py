"""Reads the files of vassals for the imperial monitor, under ``emperor-tyrant`` each in the name of its owner."""

import contextlib
import os
import pwd
import stat
from collections.abc import Iterator

import msgspec
from loguru import logger

from pyemperor.actors.administration import Dismiss, Govern
from pyemperor.actors.credentials import acting_as
from pyemperor.actors.opened import Opened
from pyemperor.cli.configuration import vassal_and_warnings
from pyemperor.cli.identity import identity_of
from pyemperor.protocol.errors import ConfigError, Disowned, Problem
from pyemperor.protocol.options import EmperorOptions, Owner, Vassal
from pyemperor.protocol.tables import NEEDLESS


class VassalReader:
    """Called with a path it gives the vassal in that file; :meth:`opened` says what the last call looked at."""

    def __init__(self, options: EmperorOptions) -> None:
        self._options = options
        self._opened: dict[str, Opened] = {}
        #: Whose each vassal was when it could be used last.
        self._owners: dict[str, Owner] = {}

    def __call__(self, path: str, *, reloading: bool) -> Vassal:
        """The vassal in the file ``path``; raises ConfigError."""
        self._opened[path] = Opened()
        try:
            read = self._read_as_owner if self._options.emperor_tyrant else self._read
            vassal, notes = read(path, reloading)
        except OSError as error:
            raise ConfigError(Problem(path, 0, "", f"cannot be read: {error.strerror}")) from None
        finally:
            self._opened[path].done()
        for note in notes:
            logger.bind(actor=f"master:{vassal.name}").warning("{}", note)
        return vassal

    def opened(self, path: str) -> Opened:
        """The files that the last reading of ``path`` opened, or looked for."""
        return self._opened.get(path) or Opened()

    def forget(self, path: str) -> None:
        """It is not a vassal's any more."""
        self._opened.pop(path, None)
        self._owners.pop(path, None)

    def owner_of(self, path: str, found: os.stat_result) -> tuple[int, int]:
        """Whose the file is, of which ``found`` is what stat(2) says; nobody's unless that matters."""
        if not self._options.emperor_tyrant:
            return -1, -1
        if self._options.emperor_tyrant_nofollow:
            found = os.lstat(path)
        return found.st_uid, found.st_gid

    def _read(self, path: str, reloading: bool) -> tuple[Vassal, list[str]]:
        """The vassal, and what its user should know."""
        opened = self._opened[path]
        vassal, warnings = vassal_and_warnings(path, self._options, reloading=reloading, opened=opened)
        with acting_as(opened.owner):
            empty = empty_mounts(vassal)
        # That something is needless here, `check` says: a file that was well for uWSGI is well.
        return vassal, [*(str(note) for note in warnings if note.found != NEEDLESS), *empty]

    # ---- in tyrant mode -----------------------------------------------------------------------------------

    def _read_as_owner(self, path: str, reloading: bool) -> tuple[Vassal, list[str]]:
        with _held(path, follow=not self._options.emperor_tyrant_nofollow) as fd:
            found = os.fstat(fd)
            _check_owner(path, found)
            groups = _groups(found) if self._options.emperor_tyrant_initgroups else ()
            owner = Owner(found.st_uid, found.st_gid, groups)
            opened = self._opened[path] = Opened(owner)
            try:
                _take(opened, path, fd, found)
                vassal, notes = self._read(path, reloading)
                vassal = _claimed(vassal, path, owner)
            except ConfigError as error:
                if self._owners.pop(path, owner) != owner:
                    raise Disowned(*error.problems) from None  # what runs would run on as somebody else
                self._owners[path] = owner
                raise
        self._owners[path] = owner
        return vassal, notes


@contextlib.contextmanager
def _held(path: str, *, follow: bool) -> Iterator[int]:
    """A descriptor of the file, or of the link itself, which nobody can exchange for another one."""
    flags = os.O_PATH | os.O_CLOEXEC
    fd = os.open(path, flags if follow else flags | os.O_NOFOLLOW)
    try:
        yield fd
    finally:
        os.close(fd)


def _take(opened: Opened, path: str, fd: int, found: os.stat_result) -> None:
    """Read what ``fd`` holds: that very file, or what that very link leads its owner to."""
    path = os.path.abspath(path)
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
    if stat.S_ISLNK(found.st_mode):
        target = os.readlink("", dir_fd=fd)
        with acting_as(opened.owner):
            real = os.open(os.path.join(os.path.dirname(path), target), flags)
    else:
        real = os.open(f"/proc/self/fd/{fd}", flags)
    try:
        opened.take(path, real)
    except UnicodeDecodeError as error:
        raise ConfigError(Problem(path, 0, "", f"this is not UTF-8 text ({error})")) from None
    finally:
        os.close(real)


def _check_owner(path: str, found: os.stat_result) -> None:
    """Look before anything is opened: a device does things when it is. Raises Disowned."""
    if not (stat.S_ISREG(found.st_mode) or stat.S_ISLNK(found.st_mode)):
        raise Disowned(Problem(path, 0, "", "is no regular file"))
    remedy = f"chown USER:GROUP {path}"
    if found.st_uid == 0 or found.st_gid == 0:
        which = "user" if found.st_uid == 0 else "group"
        text = f"belongs to the {which} root, and emperor-tyrant runs no vassal as root"
        raise Disowned(Problem(path, 0, "", text, remedy=remedy))
    if found.st_mode & stat.S_IWOTH and not stat.S_ISLNK(found.st_mode):
        text = "everybody may write to it, and emperor-tyrant would run that as its owner"
        raise Disowned(Problem(path, 0, "", text, remedy=f"chmod o-w {path}"))


def _groups(found: os.stat_result) -> tuple[int, ...]:
    try:
        name = pwd.getpwuid(found.st_uid).pw_name
    except KeyError:
        return ()  # a number without a name has no groups
    return tuple(os.getgrouplist(name, found.st_gid))


def _claimed(vassal: Vassal, path: str, owner: Owner) -> Vassal:
    """The vassal as its owner's; raises ConfigError when it wants to be somebody else's."""
    asked = identity_of(vassal.uid, vassal.gid)
    for key, given, wanted, own in (
        ("uid", vassal.uid, asked and asked.uid, owner.uid),
        ("gid", vassal.gid, asked and asked.gid, owner.gid),
    ):
        if given and wanted != own:
            text = f"{given} is not whom the file belongs to, number {own}, as whom emperor-tyrant runs it"
            raise ConfigError(Problem(path, 0, key, text, remedy=f"remove {key}, or chown the file"))
    if vassal.add_gid:
        text = "emperor-tyrant gives nobody further groups but the owner's own"
        raise ConfigError(Problem(path, 0, "add-gid", text, remedy="remove it; emperor-tyrant-initgroups"))
    return msgspec.structs.replace(vassal, uid=str(owner.uid), gid=str(owner.gid), owner=owner)


class RootWarnings:
    """Warns of each vassal whose scripts run as root: once, and again only if they did not meanwhile.

    It hears what the Emperor is told.
    """

    def __init__(self) -> None:
        self._warned: set[str] = set()

    def hear(self, message: object) -> None:
        """Look at a vassal that is to run; ``message`` may be anything else."""
        match message:
            case Govern(vassal=vassal, formerly=formerly):
                known = self._warned & {vassal.name, formerly}
                self._warned -= known
                if _as_root(vassal):
                    self._warned.add(vassal.name)
                    if not known:
                        words = "runs as root, and so do its scripts: write uid = USER, or cgi-run-as-owner"
                        logger.bind(actor=f"master:{vassal.name}").warning(words)
            case Dismiss(name=name):
                self._warned.discard(name)


def _as_root(vassal: Vassal) -> bool:
    if os.geteuid() != 0 or vassal.cgi_run_as_owner:
        return False
    try:
        identity = identity_of(vassal.uid, vassal.gid)
    except ConfigError:
        return False  # it cannot run as anybody, and its master says why
    return identity is None or identity.uid == 0


def empty_mounts(vassal: Vassal) -> list[str]:
    """What a vassal is to serve that is not there, in words."""
    return [
        f"cgi = {mount.prefix}={mount.path}: there is nothing there, so requests get 404"
        for mount in vassal.cgi
        if not os.path.exists(mount.path)
    ]
