"""Whom the Emperor runs as: user, group and supplementary groups, taken once and for good."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

from pyemperor.actors.accounts import find
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
    name, owner = find(user, group, more, initgroups=initgroups, blame=lambda *it: problem(*it[:3]))
    return Identity(name or user, owner.uid, owner.gid, owner.groups)
