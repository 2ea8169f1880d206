"""What stands in front of a script's command: its limits, its user, its rights (prlimit(1), setpriv(1)).

Between a fork and an exec nothing may run in a process of many threads but system calls, and posix_spawn(3) has
none for these. So util-linux makes them: programs that every Debian has, which set something and then become the
next program. They cost one exec each, and only where they are asked for.
"""

import os
import pwd
import resource
import shutil
import stat
from collections.abc import Iterator
from math import ceil

from pyemperor.actors.resolution import Place
from pyemperor.protocol.cgi import DEFAULT_PATH
from pyemperor.protocol.errors import RequestError
from pyemperor.protocol.options import Vassal

#: Users and groups below belong to the system (suexec: AP_UID_MIN, AP_GID_MIN).
LEAST_ID = 100
_OTHERS_WRITE = stat.S_IWGRP | stat.S_IWOTH
_RESOURCES = ("as", "cpu", "nproc", "fsize", "nofile", "core")


def tools_of(vassal: Vassal) -> dict[str, tuple[str, ...]]:
    """The programs of util-linux that the options of ``vassal`` need, each with its arguments, in their order."""
    tools = {}
    if limits := tuple(_limits(vassal)):
        tools["prlimit"] = limits
    if vassal.cgi_no_new_privs or vassal.cgi_run_as_owner:
        tools["setpriv"] = ("--no-new-privs",) if vassal.cgi_no_new_privs else ()
    return tools


def missing_tools(vassal: Vassal) -> list[str]:
    """Those of :func:`tools_of` that are not installed."""
    return [tool for tool in tools_of(vassal) if not shutil.which(tool, path=DEFAULT_PATH)]


def _limits(vassal: Vassal) -> Iterator[str]:
    """The limits as arguments of prlimit(1); one that is tighter already stays, since it cannot be raised."""
    for name in _RESOURCES:
        value = getattr(vassal, f"cgi_limit_{name}")
        if value is not None:
            _, hard = resource.getrlimit(getattr(resource, f"RLIMIT_{name.upper()}"))
            limit = ceil(value) if hard == resource.RLIM_INFINITY else min(ceil(value), hard)
            # SIGXCPU says what it was, SIGKILL a second later makes sure.
            yield f"--cpu={limit}:{limit + 1}" if name == "cpu" and limit != hard else f"--{name}={limit}"


class Confinement:
    """Makes the words before a script's command, for each request: none, unless the vassal asks for some."""

    def __init__(self, vassal: Vassal) -> None:
        self._as_owner = vassal.cgi_run_as_owner
        self._missing = " and ".join(missing_tools(vassal))
        self._words: list[str] = []
        for tool, arguments in tools_of(vassal).items():
            self._words += (shutil.which(tool, path=DEFAULT_PATH) or tool, *arguments)

    def before(self, root: bytes, place: Place, *, helped: bool) -> tuple[bytes, ...]:
        """The words before the command that runs the script at ``place``; ``helped`` by another program.

        Raises RequestError: 403 for what may not be run, or not as its owner, 500 for what is no program and where
        a tool is missing. The tools could only say so in an exit code, too late for a status.
        """
        if not self._words:
            return ()
        if self._missing:
            remedy = f"install util-linux: no {self._missing}"
            raise RequestError("scripts cannot be run here", status=500, remedy=remedy)
        file = root + place.script
        try:
            identity = _identity(root, place) if self._as_owner else ()
            if not helped:
                _check_program(file, place.found, as_owner=self._as_owner)
        except OSError as error:
            remedy = f"{os.fsdecode(file)}: {error.strerror}"
            raise RequestError("no access to this script", status=403, remedy=remedy) from None
        return tuple(map(os.fsencode, (*self._words, *identity)))


# ---- as its owner ---------------------------------------------------------------------------------------


def _identity(root: bytes, place: Place) -> tuple[str, ...]:
    """Arguments of setpriv(1) that make it the script's owner, if suexec would."""
    file = os.fsdecode(root + place.script)
    uid = place.found.st_uid

    def refuse(why: str) -> RequestError:
        return RequestError("this script cannot be run as its owner", status=403, remedy=f"{file} {why}")

    if place.found.st_mode & (_OTHERS_WRITE | stat.S_ISUID | stat.S_ISGID):
        raise refuse("may be written by others, or is setuid: chmod go-w,ug-s")
    if uid < LEAST_ID:
        raise refuse(f"belongs to a user of the system, number {uid}")
    for folder, found in _folders(root, place.script):
        if not stat.S_ISDIR(found.st_mode):
            raise refuse(f"lies behind the link {os.fsdecode(folder)}")
        if found.st_uid not in (0, uid) or found.st_mode & _OTHERS_WRITE:
            raise refuse(f"lies in {os.fsdecode(folder)}, where others may write: chown, chmod go-w")
    # Nobody but root and its owner can replace it from here on.
    if not os.path.samestat((os.lstat if place.script else os.stat)(root + place.script), place.found):
        raise refuse("is a link")
    try:
        user = pwd.getpwuid(uid)
    except KeyError:
        raise refuse(f"belongs to number {uid}, which is no user") from None
    if user.pw_gid < LEAST_ID:
        raise refuse(f"belongs to {user.pw_name}, whose group is one of the system, number {user.pw_gid}")
    if os.geteuid() == 0:
        return f"--reuid={uid}", f"--regid={user.pw_gid}", "--init-groups"
    if uid != os.geteuid():
        raise refuse(f"belongs to {user.pw_name}: only a vassal that runs as root may become that user")
    return ()


def _folders(root: bytes, script: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
    """The folders from the mount down to the script: whoever may write to one may put another script there."""
    top = root if script else os.path.dirname(root)
    yield top, os.stat(top)
    parts = script.split(b"/")[1:-1]
    for part in parts:
        top = top + b"/" + part
        yield top, os.lstat(top)


# ---- what would not start -------------------------------------------------------------------------------


def _check_program(file: bytes, found: os.stat_result, *, as_owner: bool) -> None:
    name = os.fsdecode(file)
    if not (found.st_mode & stat.S_IXUSR if as_owner else os.access(file, os.X_OK)):
        raise RequestError("this script may not be executed", status=403, remedy=f"chmod +x {name}")
    words = _first_line(file)
    if words is None:
        raise RequestError("this script is not a program", status=500, remedy=f"give {name} a #! line")
    if words and not os.access(os.path.join(os.path.dirname(file), words[0]), os.X_OK):
        remedy = f"{name}: its interpreter {os.fsdecode(words[0])} is missing"
        raise RequestError("this script cannot be started", status=500, remedy=remedy)


def _first_line(file: bytes) -> tuple[bytes, ...] | None:
    """The interpreter after ``#!`` and its argument; () of what is no text or may not be read, None of a text.

    As execve(2) reads it: all that follows the interpreter is one argument.
    """
    try:
        fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # it could be a FIFO by now
    except PermissionError:
        return ()  # a binary may be executed without
    try:
        head = os.read(fd, 256)
    finally:
        os.close(fd)
    if head.startswith(b"#!"):
        line = head[2:].split(b"\n", 1)[0].strip(b" \t")
        return tuple(word.strip(b" \t") for word in line.split(None, 1)) or None
    return () if b"\0" in head else None
