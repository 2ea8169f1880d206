"""Whom the Emperor runs as: user, group and supplementary groups, taken once and for good."""

import grp
import os
import pwd
from collections.abc import Sequence
from dataclasses import dataclass

from pyemperor.cli.blame import blaming, problem


@dataclass(frozen=True, slots=True)
class Identity:
    """Whom to run as; ``user`` "" leaves the user, ``uid`` is then the one there is."""

    user: str
    uid: int
    gid: int
    groups: tuple[int, ...]

    def take(self) -> None:
        """Become it for good, supplementary groups first; raises ConfigError when that is not allowed."""
        if os.geteuid() != 0:
            if (self.uid, self.gid) != (os.geteuid(), os.getegid()):
                raise problem("uid", f"only root can run as {self.user or self.gid}", "start it as root")
            return
        with blaming("uid", self.user or str(self.gid)):
            os.setgroups(self.groups)
            os.setgid(self.gid)
            os.setuid(self.uid)

    @property
    def owner(self) -> str:
        """As ``chown-socket`` has it."""
        return f"{self.uid}:{self.gid}"


def identity_of(user: str, group: str, more: Sequence[str] = (), *, initgroups: bool = True) -> Identity | None:
    """Whom ``uid``, ``gid`` and ``add-gid`` ask for; None when nobody. Raises ConfigError for who is unknown.

    The groups are the user's (initgroups(3)) unless ``no-initgroups`` is given, and those of ``add-gid``.
    """
    if not (user or group or more):
        return None
    name, uid, gid = _user(user) if user else ("", os.geteuid(), os.getegid())
    if group:
        gid = _group("gid", group)
    groups = os.getgrouplist(name, gid) if name and initgroups else [gid]
    groups += [_group("add-gid", one) for one in more]
    return Identity(name or user, uid, gid, tuple(dict.fromkeys(groups)))


def _user(name: str) -> tuple[str, int, int]:
    """Name, id and group; a number may be nobody's, who then has the group of the same number."""
    try:
        user = pwd.getpwuid(int(name)) if name.isdigit() else pwd.getpwnam(name)
    except KeyError:
        if name.isdigit():
            return "", int(name), int(name)
        raise problem("uid", f"there is no user {name}", "create it, or name another one") from None
    return user.pw_name, user.pw_uid, user.pw_gid


def _group(option: str, name: str) -> int:
    try:
        return int(name) if name.isdigit() else grp.getgrnam(name).gr_gid
    except KeyError:
        raise problem(option, f"there is no group {name}", "create it, or name another one") from None
