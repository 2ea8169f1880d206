"""Which Python interpreter would run a script, and with which flags: what the kernel and env(1) would do."""

import errno
import os
import re
import shutil
import stat
from collections.abc import Mapping

import msgspec

#: Device, inode, size, and the times of the last change of the content and of the inode, in nanoseconds.
Identity = tuple[int, int, int, int, int]

#: What the kernel reads of a file to know how to run it (BINPRM_BUF_SIZE, binfmts.h).
_HEAD = 256
_PYTHON = re.compile(r"python(3(\.\d+)?)?")
#: Flags that leave it to the script's path what is run; as one word, which is all that the kernel passes.
_FLAGS = re.compile(r"-[bBdEIOPqsSu]+|-W[\w:.]+|-Xutf8(=[01])?|-Xdev")
_ENV = ("/usr/bin/env", "/bin/env")
#: What env -S and a shell would treat as more than words.
_SPECIAL = frozenset("\\'\"$#")


class Named(msgspec.Struct, frozen=True):
    """A version of a script, the interpreter that its ``#!`` names, and the flags there."""

    identity: Identity
    interpreter: str
    flags: tuple[str, ...]


def identity_of(found: os.stat_result) -> Identity:
    """What tells one version of a file from another."""
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def examine(path: bytes, environment: Mapping[bytes, bytes]) -> Named:
    """Read the script's ``#!`` line; raises OSError (ENOEXEC) if it names no Python, or in a way of its own.

    A script that may not be executed is EACCES, as for execve(2). ``environment`` has the PATH for env(1).
    """
    if not os.access(path, os.X_OK):
        raise PermissionError(errno.EACCES, "not executable")
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        found = os.fstat(fd)
        head = os.read(fd, _HEAD) if stat.S_ISREG(found.st_mode) else b""
    finally:
        os.close(fd)
    interpreter, flags = named(head, os.fsdecode(environment.get(b"PATH", b"")))
    return Named(identity_of(found), interpreter, flags)


def named(head: bytes, search_path: str) -> tuple[str, tuple[str, ...]]:
    """The interpreter's absolute path and its flags, by the first bytes of a script; raises OSError (ENOEXEC)."""
    line, end, _ = head.partition(b"\n")
    if not line.startswith(b"#!") or not end or line.endswith(b"\r"):
        raise _not_ours("no #! line")
    program, _, rest = os.fsdecode(line[2:]).strip(" \t").replace("\t", " ").partition(" ")
    words = [rest.strip()] if rest.strip() else []
    if program in _ENV:
        program, words = _through_env(words, search_path)
    if not os.path.isabs(program) or not _PYTHON.fullmatch(os.path.basename(program)):
        raise _not_ours(f"{program or 'nothing'} is not a Python")
    if not all(map(_FLAGS.fullmatch, words)):
        raise _not_ours(f"it has arguments: {' '.join(words)}")
    return program, tuple(words)


def _through_env(words: list[str], search_path: str) -> tuple[str, list[str]]:
    """What env(1) would run; of its own options it may have -S."""
    if len(words) == 1 and words[0].startswith("-S"):
        if _SPECIAL & set(words[0]):
            raise _not_ours("its env -S is more than words")
        words = words[0][2:].split()
    if not words or " " in words[0]:
        raise _not_ours("its env runs no program")
    return shutil.which(words[0], path=search_path) or "", words[1:]


def _not_ours(why: str) -> OSError:
    return OSError(errno.ENOEXEC, why)
