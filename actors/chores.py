"""What the Emperor has done as itself: ``hook-emperor-start`` before all, ``vassals-stop-hook`` after a vassal.

Each is a child process like any other.
"""

import itertools
from dataclasses import replace

import msgspec

from pyemperor.actors.overseer import Overseer, flags
from pyemperor.actors.supervision import ChildSpec, Shutdown, Strategy, Supervisor
from pyemperor.protocol.hooks import Step
from pyemperor.protocol.messages import Birth


class Chores:
    """Children of ``overseer`` that carry out hooks, once."""

    def __init__(self, overseer: Overseer) -> None:
        self._overseer = overseer
        self._numbers = itertools.count(1)
        self._groups: set[str] = set()

    def send(self, master: Birth, phase: str, steps: tuple[Step, ...]) -> str:
        """Have ``steps`` carried out for the vassal of ``master``; the name of the group, "" for no steps."""
        if not steps:
            return ""
        hook = msgspec.structs.replace(master, kind="hook", phase=phase, before=steps)
        # No vassal is called so: a slash stands in no name.
        name = f"hook/{master.vassal.name}/{next(self._numbers)}"
        self._groups.add(name)
        own = replace(flags(master.vassal.supervision), strategy=Strategy.ONE_FOR_ONE, on_exceed="curse")
        self._overseer.add_group(name, Supervisor(own, [ChildSpec(name, start=hook)], random=lambda: 0.5))
        return name

    def child_down(self, name: str) -> None:
        """It is done, or has failed, which the log says."""
        if name in self._groups:
            self._overseer.supervise(name, Shutdown())

    def group_gone(self, name: str) -> bool:
        """Say whether this was one of them."""
        found = name in self._groups
        self._groups.discard(name)
        return found
