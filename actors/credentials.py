"""A thread in a tenant's name: what it opens, makes and binds is allowed or refused as theirs (credentials(7)).

Credentials belong to a thread; it is the C library that changes those of all threads together. So these are the
bare system calls. Only the effective ids change: the way back stays open, and with them go all capabilities.
"""

import contextlib
import ctypes
import errno
import grp
import os
import platform
import pwd
from collections.abc import Iterator, Sequence

from pyemperor.protocol.options import Owner, Vassal

#: The numbers of setgroups(2), setresgid(2) and setresuid(2).
_NUMBERS = {"x86_64": (116, 119, 117), "aarch64": (159, 149, 147), "riscv64": (159, 149, 147)}
_KEEP = -1

_libc = ctypes.CDLL(None, use_errno=True)


def can_act() -> bool:
    """Whether this process may act as others, and the machine is one whose system calls are known."""
    return os.geteuid() == 0 and platform.machine() in _NUMBERS


@contextlib.contextmanager
def acting_as(owner: Owner | None) -> Iterator[None]:
    """Let the calling thread be ``owner`` within; None changes nothing. Raises OSError.

    Keep it to the system calls that need it: what is handed to another thread is done in that one's name, and
    an import may fail where the owner cannot read our installation.
    """
    if owner is None or (os.geteuid(), os.getegid()) == (owner.uid, owner.gid):
        yield
        return
    group, groups = os.getegid(), os.getgroups()
    user = os.geteuid()
    try:
        _become(owner.uid, owner.gid, owner.groups)
        yield
    finally:
        _call(2, _KEEP, user, _KEEP)
        _become(user, group, groups)


def identity_of(vassal: Vassal) -> Owner | None:
    """Whom ``vassal`` runs as: its owner, or its ``uid`` with that user's groups (initgroups(3)) and ``gid``.

    None: as whoever we are. Raises LookupError that names the option.
    """
    if vassal.owner or not (vassal.uid or vassal.gid or vassal.add_gid):
        return vassal.owner
    name, uid, gid = _user(vassal) if vassal.uid else ("", os.geteuid(), os.getegid())
    if vassal.gid:
        gid = _group(vassal, "gid", vassal.gid)
    groups = os.getgrouplist(name, gid) if name and not vassal.no_initgroups else [gid]
    groups += [_group(vassal, "add-gid", group, index) for index, group in enumerate(vassal.add_gid)]
    return Owner(uid, gid, tuple(dict.fromkeys(groups)))


def _user(vassal: Vassal) -> tuple[str, int, int]:
    """Name, id and group; a number may be nobody's, who then has the group of the same number."""
    name = vassal.uid
    try:
        user = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
        return user.pw_name, user.pw_uid, user.pw_gid
    except KeyError:
        if name.isdigit():
            return "", int(name), int(name)
        found = f"there is no user {name}"
        raise LookupError(vassal.problem("uid", found, "create it, or name another one")) from None


def _group(vassal: Vassal, option: str, name: str, index: int | None = None) -> int:
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        found = f"there is no group {name}"
        raise LookupError(vassal.problem(option, found, "create it, or name another one", index)) from None


def _become(uid: int, gid: int, groups: Sequence[int]) -> None:
    _call(0, len(groups), (ctypes.c_uint32 * len(groups))(*groups))
    _call(1, _KEEP, gid, _KEEP)
    _call(2, _KEEP, uid, _KEEP)


def _call(which: int, *arguments: object) -> None:
    if (numbers := _NUMBERS.get(platform.machine())) is None:
        raise OSError(errno.ENOSYS, "nobody knows how to act as another user on this kind of machine")
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    if _libc.syscall(ctypes.c_long(numbers[which]), *words) < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))
