"""The imperial monitor: tells the Emperor which vassals there are to be.

It is an actor of its own, so that neither a folder that hangs nor a long file keeps the Emperor from its
vassals. What it watches are :class:`Source` objects: ``dir://`` and ``glob://`` are in ``monitor_files``; another
one (a database, say) implements the same few methods.
"""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from typing import Any, Protocol

import msgspec
import pykka
from loguru import logger

from pyemperor.actors.actor import Actor, Inbox, System
from pyemperor.actors.administration import Dismiss, Govern, Refuse, Reload
from pyemperor.actors.clock import Timer
from pyemperor.actors.monitor_diff import Appeared, Change, Changed, Renamed, Vanished, Watchlist
from pyemperor.actors.monitor_files import touched
from pyemperor.protocol.errors import ConfigError, Problem
from pyemperor.protocol.options import Vassal

#: Seconds from a file event to the look at the files: events come in bursts.
_BURST = 0.01
#: Seconds between two looks at files whose touching reloads a vassal.
_TOUCH = 1.0


class Source(Protocol):
    """Where vassals come from. Everything is called on the monitor's thread, and may take its time.

    ``uri`` is what a user calls it. A key names one vassal among those of all sources: a path, or the URI and
    whatever names it there. Of two sources with the same key the first one counts.
    """

    uri: str

    def scan(self) -> Mapping[str, Hashable]:
        """The version of each vassal by key; raises OSError when it cannot tell: then all stays as it is."""

    def writing(self) -> Collection[str]:
        """Keys of those that are just being changed."""

    def read(self, key: str, *, reloading: bool) -> Vassal:
        """The configuration of a vassal, which has run already if ``reloading``; raises ConfigError."""

    def name(self, key: str) -> str:
        """The name of the vassal."""

    def place(self, key: str) -> str:
        """What tells it from a vassal of the same name elsewhere."""

    def watch(self, inbox: Inbox, message: object) -> None:
        """Deliver ``message`` as soon as something changes, if it can be known."""

    def close(self, inbox: Inbox) -> None:
        """Watch no more."""


@dataclass(frozen=True, slots=True)
class _Stirred:
    """Something has happened."""


@dataclass(frozen=True, slots=True)
class _Due:
    """Time to look."""


@dataclass(frozen=True, slots=True)
class _Reread:
    """The Emperor wants this configuration read again."""

    key: str


class Monitor(Actor):
    """Watches ``sources`` and tells the Emperor by ``tell``; looks every ``freq`` seconds, and at events.

    ``touch_files`` gives the files whose touching reloads a vassal; ``static`` are vassals that nobody reads
    again, and which can be reloaded by their files all the same.
    """

    def __init__(
        self,
        system: System,
        sources: Iterable[Source],
        tell: Callable[[object], object],
        freq: float,
        *,
        touch_files: Callable[[Vassal], Collection[str]] = lambda _: (),
        static: Iterable[Vassal] = (),
        owner: pykka.ActorRef[Any] | None = None,
    ) -> None:
        super().__init__(system, owner)
        self._sources = tuple(sources)
        self._tell = tell
        self._freq = freq
        self._timer: Timer | None = None
        self._watched: Watchlist[str] = Watchlist()
        self._last: dict[str, Mapping[str, Hashable]] = {}
        #: By source, what it suffers from.
        self._ailing: dict[str, str] = {}
        self._source_of: dict[str, Source] = {}
        self._names: dict[str, str] = {}
        #: The name that a vassal runs under, if it was renamed and has not been read since.
        self._formerly: dict[str, str] = {}
        self._touch_files = touch_files
        self._to_touch: dict[str, Collection[str]] = {v.name: touch_files(v) for v in static}
        self._reserved = frozenset(self._to_touch)
        self._touched: Watchlist[str] = Watchlist(settle=0.0)
        #: Files to touch that were looked for; one that is new to us was not touched by being there.
        self._looked_for: Collection[str] = frozenset()

    def on_start(self) -> None:
        for source in self._sources:
            source.watch(self.actor_inbox, _Stirred())
        self._look(self.system.now())

    def on_stop(self) -> None:
        for source in self._sources:
            source.close(self.actor_inbox)

    def handle(self, message: Any, now: float) -> None:
        match message:
            case _Stirred():
                self._wake(now, now + _BURST)
            case _Due():
                self._timer = None
                self._look(now)
            case _Reread(key=key):
                if key in self._names:
                    self._read(key)

    def _wake(self, now: float, at: float) -> None:
        if self._timer is None or self._timer.at > at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.after(max(0.0, at - now), _Due())

    # ---- looking --------------------------------------------------------------------------------------------

    def _look(self, now: float) -> None:
        seen: dict[str, Hashable] = {}
        writing: set[str] = set()
        for source in self._sources:
            for key, version in self._scan(source).items():
                if key not in seen:
                    seen[key] = version
                    self._source_of[key] = source
            writing.update(source.writing())
        for change in self._watched.look(seen, now, writing):
            self._carry_out(change)
        for gone in self._source_of.keys() - seen.keys() - self._watched.known.keys():
            del self._source_of[gone]
        self._look_at_touched(now)
        due = self._watched.next_at
        freq = min(self._freq, _TOUCH) if self._looked_for else self._freq
        self._wake(now, now + freq if due is None else min(now + freq, due))

    def _scan(self, source: Source) -> Mapping[str, Hashable]:
        try:
            seen = self._last[source.uri] = source.scan()
        except OSError as error:
            problem = error.strerror or str(error)
            if self._ailing.get(source.uri) != problem:
                self._ailing[source.uri] = problem
                logger.error("{} cannot be read: {}; its vassals go on as they are", source.uri, problem)
            return self._last.get(source.uri, {})
        if self._ailing.pop(source.uri, None) is not None:
            logger.info("{} can be read again", source.uri)
        return seen

    def _look_at_touched(self, now: float) -> None:
        paths = {path for files in self._to_touch.values() for path in files}
        for change in self._touched.look(touched(paths), now):
            if not isinstance(change, Vanished) and change.key in self._looked_for:
                for name in [name for name, files in self._to_touch.items() if change.key in files]:
                    logger.info("{} was touched: vassal {} is reloaded", change.key, name)
                    self._tell(Reload(name))
        self._looked_for = paths

    # ---- telling --------------------------------------------------------------------------------------------

    def _carry_out(self, change: Change[str]) -> None:
        match change:
            case Vanished(key=key):
                name = self._names.pop(key)
                name = self._formerly.pop(key, name)
                self._to_touch.pop(name, None)
                self._tell(Dismiss(name))
            case Renamed(key=key, formerly=former):
                name = self._names.pop(former)
                self._formerly[key] = self._formerly.pop(former, name)
                self._name(key)
                self._read(key)
            case Appeared(key=key):
                self._name(key)
                self._read(key)
            case Changed(key=key):
                self._read(key)

    def _name(self, key: str) -> None:
        """Give it its own name; one that is taken is told from the other by its place."""
        source = self._source_of[key]
        former = {name for other, name in self._formerly.items() if other != key}
        taken = self._reserved | former | set(self._names.values())
        plain = _sayable(source.name(key))
        placed = f"{_sayable(source.place(key))}.{plain}"
        candidates = chain([plain, placed], (f"{placed}-{number}" for number in count(2)))
        self._names[key] = next(name for name in candidates if name not in taken)

    def _read(self, key: str) -> None:
        name = self._names[key]
        formerly = self._formerly.get(key, "")
        reread = partial(self.actor_ref.tell, _Reread(key))
        try:
            vassal = self._source_of[key].read(key, reloading=(formerly or name) in self._to_touch)
        except ConfigError as error:
            self._tell(Refuse(formerly or name, error.problems, reread))
            return
        except Exception as error:
            logger.exception("{} could not be read, which is a defect of PyEmperor", key)
            problem = Problem(key, 0, "", f"could not be read: {error!r}")
            self._tell(Refuse(formerly or name, (problem,), reread))
            return
        self._formerly.pop(key, None)
        self._to_touch.pop(formerly, None)
        self._to_touch[name] = self._touch_files(vassal)
        vassal = msgspec.structs.replace(vassal, name=name)
        self._tell(Govern(vassal, reread, formerly if formerly != name else ""))


def _sayable(name: str) -> str:
    r"""Escape what logs, links and the control socket cannot carry: ``\n``, or bytes that are no UTF-8."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)
