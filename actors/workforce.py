"""Which workers a vassal has: who is hired, who replaces whom, who is let go. Pure.

A worker that has done enough (``actors/wear``) is replaced without loss: it serves on until another one of its
number is ready beside it; then it takes no new request, finishes what it has, and is gone. One such pair is under
way at a time, the others wait for their turn. So the vassal never has fewer workers than it should, and never more
processes than that and one. Who is *evicted* is killed at once, and replaced at once.

What becomes of a worker that dies by itself is not decided here but by ``actors/supervision``: it is started
again under the same id. Here it counts as new afterwards.

>>> workforce = Workforce(["1", "2"], least=2, most=2)
>>> [workforce.up(one) for one in "12"]
[[], []]
>>> workforce.retire("1"), workforce.retire("2")
([Hire(id='1.1', index=1)], [])
>>> workforce.up("1.1")
[Dismiss(id='1')]
>>> workforce.gone("1")
[Hire(id='2.2', index=2)]
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Hire:
    """Start worker ``index`` (from 1) as the child ``id``."""

    id: str
    index: int


@dataclass(frozen=True, slots=True)
class Dismiss:
    """Have it finish what it accepted, and end."""

    id: str


@dataclass(frozen=True, slots=True)
class Kill:
    """End it at once."""

    id: str


Command = Hire | Dismiss | Kill


@dataclass(slots=True, eq=False)
class _Worker:
    id: str
    index: int
    up: bool = False
    #: It has done enough, and waits to be replaced.
    worn: bool = False
    #: It was told to end.
    leaving: bool = False
    #: Whom it will replace when it is ready.
    replaces: "_Worker | None" = None


class Workforce:
    """The workers of one vassal, ``least`` to ``most`` of them, by the ids of their children.

    What it returns is to be carried out in order.
    """

    def __init__(self, initial: Iterable[str], least: int, most: int) -> None:
        self._least = least
        self._most = most
        self._workers = {id: _Worker(id, index) for index, id in enumerate(initial, 1)}
        self._hired = 0

    # ---- views --------------------------------------------------------------------------------------------

    @property
    def size(self) -> int:
        """How many workers the vassal has; one and its replacement are one."""
        return len({worker.index for worker in self._workers.values() if not worker.leaving})

    @property
    def serving(self) -> list[str]:
        """Those that take requests."""
        return [worker.id for worker in self._workers.values() if worker.up and not worker.leaving]

    @property
    def worn(self) -> list[str]:
        """Those that wait to be replaced, or are being replaced."""
        return [worker.id for worker in self._workers.values() if worker.worn]

    @property
    def processes(self) -> int:
        """How many there are in all, with those that come and those that go."""
        return len(self._workers)

    # ---- what happens to them -------------------------------------------------------------------------------

    def up(self, id: str) -> list[Command]:
        """It is ready."""
        worker = self._workers.get(id)
        if worker is None or worker.leaving:
            return []
        worker.up = True
        former, worker.replaces = worker.replaces, None
        return [] if former is None else self._dismiss(former)

    def down(self, id: str) -> None:
        """It has ended. Unless it was told to, it will be started again, and be as good as new."""
        if worker := self._workers.get(id):
            worker.up = worker.worn = False

    def gone(self, id: str) -> list[Command]:
        """It has ended as it was told to, and will not come back."""
        self.refused(id)
        return self._replace_next()

    def refused(self, id: str) -> None:
        """It could not be hired. Whom it was to replace serves on; :meth:`mend` tries again."""
        self._workers.pop(id, None)
        for worker in self._workers.values():
            if worker.replaces is not None and worker.replaces.id == id:
                worker.replaces = None

    # ---- what is to become of them --------------------------------------------------------------------------

    def retire(self, id: str) -> list[Command]:
        """It has done enough: replace it when its turn comes."""
        if worker := self._workers.get(id):
            worker.worn = not worker.leaving
        return self._replace_next()

    def evict(self, id: str) -> list[Command]:
        """It must go now."""
        worker = self._workers.get(id)
        if worker is None or worker.leaving:
            return []
        worker.leaving = True
        replaced = any(other.replaces is worker for other in self._workers.values())
        return [Kill(id)] if replaced else [Kill(id), self._hire(worker.index, worker.replaces)]

    def mend(self) -> list[Command]:
        """Try again what was refused."""
        return [*self.resize(max(0, self._least - self.size)), *self._replace_next()]

    def resize(self, change: int, idle: Collection[str] = ()) -> list[Command]:
        """Have up to ``change`` more, or one fewer: the oldest of the ``idle`` ones; without any, the oldest."""
        if change < 0:
            return self._shrink(idle)
        taken = {worker.index for worker in self._workers.values()}
        free = [index for index in range(1, self._most + 1) if index not in taken]
        return [self._hire(index) for index in free[:change]]

    def rest(self) -> list[Command]:
        """Have nobody."""
        return [command for worker in list(self._workers.values()) for command in self._dismiss(worker)]

    def wake(self, count: int) -> list[Command]:
        """Have ``count`` after a rest; whoever still finishes something does so beside them."""
        return [self._hire(index) for index in range(1, count + 1)]

    def _shrink(self, idle: Collection[str]) -> list[Command]:
        if self.size <= self._least:
            return []
        # Of a pair nobody can be spared: one of them goes anyway.
        paired = {worker.replaces.id for worker in self._workers.values() if worker.replaces}
        spare = [
            worker
            for worker in self._workers.values()
            if not worker.leaving and worker.replaces is None and worker.id not in paired
        ]
        spare.sort(key=lambda worker: worker.id not in idle)
        return self._dismiss(spare[0]) if spare else []

    # ---- steps ----------------------------------------------------------------------------------------------

    def _replace_next(self) -> list[Command]:
        """Begin to replace the first that waits for it, unless somebody else is being replaced."""
        if any(worker.leaving or worker.replaces for worker in self._workers.values()):
            return []
        for worker in self._workers.values():
            if worker.worn:
                return [self._hire(worker.index, worker)]
        return []

    def _dismiss(self, worker: _Worker) -> list[Command]:
        if worker.leaving:
            return []
        worker.leaving = True
        return [Dismiss(worker.id)]

    def _hire(self, index: int, replaces: _Worker | None = None) -> Hire:
        self._hired += 1
        worker = _Worker(f"{index}.{self._hired}", index, replaces=replaces)
        self._workers[worker.id] = worker
        return Hire(worker.id, index)
