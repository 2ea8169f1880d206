"""A thread in a tenant's name: what it opens, makes and binds is allowed or refused as theirs (credentials(7)).

Credentials belong to a thread; it is the C library that changes those of all threads together. So these are the
bare system calls. Only the effective ids change: the way back stays open, and with them go all capabilities.
"""

import contextlib
import ctypes
import errno
import os
import platform
from collections.abc import Iterator, Sequence
from typing import Any

from pyemperor.actors.accounts import find
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

    def blame(*what: Any) -> LookupError:
        return LookupError(vassal.problem(*what))

    wanted = (vassal.uid, vassal.gid, vassal.add_gid)
    return find(*wanted, initgroups=not vassal.no_initgroups, blame=blame)[1]


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
