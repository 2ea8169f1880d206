"""Users and groups by the names that options have for them: whom something is to be run as."""

import grp
import os
import pwd
from collections.abc import Callable, Sequence

from pyemperor.protocol.options import Owner

#: Makes the error that an option is wrong: its name, what is wrong, the remedy, and the element of its list.
Blame = Callable[[str, str, str, int | None], Exception]

_REMEDY = "create it, or name another one"


def find(user: str, group: str, more: Sequence[str], *, initgroups: bool, blame: Blame) -> tuple[str, Owner]:
    """Whom ``uid``, ``gid`` and ``add-gid`` ask for, by name or number, and that user's name, if there is one.

    Without a ``user`` it is the one that we are. The groups are the user's (initgroups(3)), unless
    ``no-initgroups`` is given, and those of ``add-gid``. Raises what ``blame`` makes of one that is unknown.
    """
    name, uid, gid = _user(user, blame) if user else ("", os.geteuid(), os.getegid())
    if group:
        gid = _group("gid", group, None, blame)
    groups = os.getgrouplist(name, gid) if name and initgroups else [gid]
    groups += [_group("add-gid", one, index, blame) for index, one in enumerate(more)]
    return name, Owner(uid, gid, tuple(dict.fromkeys(groups)))


def _user(name: str, blame: Blame) -> tuple[str, int, int]:
    """Name, id and group; a number may be nobody's, who then has the group of the same number."""
    try:
        user = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        if name.isdigit():
            return "", int(name), int(name)
        raise blame("uid", f"there is no user {name}", _REMEDY, None) from None
    return user.pw_name, user.pw_uid, user.pw_gid


def _group(option: str, name: str, index: int | None, blame: Blame) -> int:
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise blame(option, f"there is no group {name}", _REMEDY, index) from None
