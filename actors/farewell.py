"""What the Emperor has done when a vassal has ended: ``vassals-stop-hook``, as a child process like any other."""

import itertools
from dataclasses import replace

import msgspec

from pyemperor.actors.overseer import Overseer, flags
from pyemperor.actors.supervision import ChildSpec, Shutdown, Strategy, Supervisor
from pyemperor.protocol.hooks import Step
from pyemperor.protocol.messages import Birth


class Farewell:
    """Children of ``overseer`` that carry out ``steps``, each for one vassal, once."""

    def __init__(self, overseer: Overseer, steps: tuple[Step, ...]) -> None:
        self._overseer = overseer
        self._steps = steps
        self._numbers = itertools.count(1)
        self._groups: set[str] = set()

    def bid(self, birth: Birth) -> None:
        """The vassal of the master ``birth`` has ended."""
        if not self._steps:
            return
        hook = msgspec.structs.replace(birth, kind="hook", phase="ended", before=self._steps)
        # No vassal is called so: a slash stands in no name.
        name = f"hook/{birth.vassal.name}/{next(self._numbers)}"
        self._groups.add(name)
        own = replace(flags(birth.vassal.supervision), strategy=Strategy.ONE_FOR_ONE, on_exceed="curse")
        self._overseer.add_group(name, Supervisor(own, [ChildSpec(name, start=hook)], random=lambda: 0.5))

    def child_down(self, name: str) -> None:
        """It is done, or has failed, which the log says."""
        if name in self._groups:
            self._overseer.supervise(name, Shutdown())

    def group_gone(self, name: str) -> bool:
        """Say whether this was one of them."""
        found = name in self._groups
        self._groups.discard(name)
        return found
