"""What became of the things that a monitor watches: the difference of two looks, once it has settled. Pure.

A look gives the version of everything that is there. A difference counts when it was seen unchanged for
``settle`` seconds: so a file that is being written is not taken half, a burst of edits is one change, and what
vanishes and appears under another name is a renaming.

>>> watched = Watchlist(settle=0.05)
>>> watched.look({"a.ini": 1}, now=0.0)
[]
>>> watched.next_at
0.05
>>> watched.look({"a.ini": 1}, now=0.05)
[Appeared(key='a.ini')]
>>> watched.look({"b.ini": 1}, now=1.0), watched.look({"b.ini": 1}, now=1.1)
([], [Renamed(key='b.ini', formerly='a.ini')])
"""

from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Appeared(Generic[K]):
    """It is there, and was not."""

    key: K


@dataclass(frozen=True, slots=True)
class Changed(Generic[K]):
    """It is there in another version."""

    key: K


@dataclass(frozen=True, slots=True)
class Vanished(Generic[K]):
    """It is not there any more."""

    key: K


@dataclass(frozen=True, slots=True)
class Renamed(Generic[K]):
    """It is there in the version that ``formerly`` had, which is not there any more."""

    key: K
    formerly: K


Change = Appeared[K] | Changed[K] | Vanished[K] | Renamed[K]


class Watchlist(Generic[K]):
    """What is known, and what differs from it and has not settled.

    ``patience`` is how long somebody may write without a pause for breath to be told from one who has finished.
    """

    def __init__(self, settle: float = 0.05, patience: float = 2.0) -> None:
        self.known: dict[K, Hashable] = {}
        #: When the next difference will have settled if nothing happens; None: there is none.
        self.next_at: float | None = None
        self._settle = settle
        self._patience = patience
        #: By key, the version (None: not there) that differs from the known one, and since when it is so.
        self._unsettled: dict[K, tuple[Hashable | None, float]] = {}

    def look(
        self, seen: Mapping[K, Hashable], now: float, writing: Collection[K] = frozenset()
    ) -> list[Change[K]]:
        """Take in what is there at the time ``now``; return what has settled: what vanished comes first.

        Versions are compared and mean nothing else; None is not one. ``writing`` are those that somebody has
        written to and not closed yet.
        """
        unsettled: dict[K, tuple[Hashable | None, float]] = {}
        settled: dict[K, Hashable | None] = {}
        due: list[float] = []
        for key in self.known.keys() | seen.keys():
            version = seen.get(key)
            if version == self.known.get(key):
                continue
            before = self._unsettled.get(key)
            since = before[1] if before is not None and before[0] == version else now
            at = since + (self._patience if key in writing else self._settle)
            if at <= now:
                settled[key] = version
            else:
                unsettled[key] = version, since
                due.append(at)
        self._unsettled = unsettled
        self.next_at = min(due, default=None)
        return self._changes(settled)

    def _changes(self, settled: Mapping[K, Hashable | None]) -> list[Change[K]]:
        vanished = {key: self.known.pop(key) for key in _ordered(settled) if settled[key] is None}
        renamed: list[Change[K]] = []
        others: list[Change[K]] = []
        for key in _ordered(settled):
            version = settled[key]
            if version is None:
                continue
            if key in self.known:
                others.append(Changed(key))
            elif former := [old for old, its_version in vanished.items() if its_version == version]:
                del vanished[former[0]]
                renamed.append(Renamed(key, former[0]))
            else:
                others.append(Appeared(key))
            self.known[key] = version
        return [*map(Vanished, vanished), *renamed, *others]


def _ordered(keys: Collection[K]) -> list[K]:
    return sorted(keys, key=repr)
