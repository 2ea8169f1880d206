"""The imperial monitor: tells the Emperor which vassals there are to be.

It is an actor of its own, so that neither a folder that hangs nor a long file keeps the Emperor from its
vassals. What it watches are :class:`Source` objects: ``dir://`` and ``glob://`` are in ``monitor_files``; another
one (a database, say) implements the same few methods.
"""

import contextlib
import errno
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, count
from typing import Any, Protocol

import msgspec
import pykka
from loguru import logger

from pyemperor.actors.actor import Actor, Inbox, System
from pyemperor.actors.administration import Dismiss, Govern, Refuse
from pyemperor.actors.clock import Timer
from pyemperor.actors.monitor_diff import Appeared, Change, Changed, Renamed, Vanished, Watchlist
from pyemperor.actors.monitor_files import touched
from pyemperor.actors.opened import Opened
from pyemperor.protocol.errors import ConfigError, Disowned, Problem
from pyemperor.protocol.escapes import printable
from pyemperor.protocol.options import Vassal

#: Seconds from a file event to the look at the files: events come in bursts.
_BURST = 0.01
#: Seconds between two looks at files whose touching reloads a vassal.
_TOUCH = 1.0

#: What to do about a folder of vassals, by errno.
_REMEDIES = {
    errno.ENOENT: "there is no such folder; make it, and its vassals start at once",
    errno.ENOTDIR: "it is no folder; name one that holds vassal files",
    errno.EACCES: "this user may not read it; chmod or chown it, and its vassals start at once",
}


#: Makes what the Emperor is told from a vassal's name.
Told = Callable[[str], object]
#: Gives that by path.
TouchFiles = Callable[[Vassal], Mapping[str, Told]]


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

    def opened(self, key: str) -> Opened:
        """The files that the last reading of it opened, or looked for: it is read again when one changes."""

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
class Rescan:
    """Look now, whatever the next look waits for."""


@dataclass(frozen=True, slots=True)
class _Due:
    """Time to look."""


@dataclass(frozen=True, slots=True)
class _Reread:
    """The Emperor wants this configuration read again."""

    key: str


class Monitor(Actor):
    """Watches ``sources`` and tells the Emperor by ``tell``; looks every ``freq`` seconds, and at events.

    ``touch_files`` gives what the Emperor is told when a file of a vassal is touched; ``static`` are vassals that
    nobody reads again, and which have such files all the same. ``governed`` are the names of the vassals that a
    monitor before this one has told of: those that it does not find are dismissed.
    """

    def __init__(
        self,
        system: System,
        sources: Iterable[Source],
        tell: Callable[[object], object],
        freq: float,
        *,
        touch_files: TouchFiles = lambda _: {},
        static: Iterable[Vassal] = (),
        governed: Iterable[str] = (),
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
        self._to_touch: dict[str, Mapping[str, Told]] = {v.name: touch_files(v) for v in static}
        self._reserved = frozenset(self._to_touch)
        self._orphans = set(governed) - self._reserved
        self._touched: Watchlist[str] = Watchlist(settle=0.0)
        #: Files to touch that were looked for; one that is new to us was not touched by being there.
        self._looked_for: Collection[str] = frozenset()
        #: By key, what its last reading opened; and of each such file, by key and path, the version.
        self._opened: dict[str, Opened] = {}
        self._included: Watchlist[tuple[str, str]] = Watchlist()

    def on_start(self) -> None:
        for source in self._sources:
            source.watch(self.actor_inbox, _Stirred())
        self._look(self.system.now())

    def on_stop(self) -> None:
        for source in self._sources:
            source.close(self.actor_inbox)

    def on_failure(self, *_: object) -> None:
        self.on_stop()

    def handle(self, message: Any, now: float) -> None:
        match message:
            case _Stirred():
                self._wake(now, now + _BURST)
            case _Due():
                self._timer = None
                self._look(now)
            case Rescan():
                self._look(now)
            case _Reread(key=key):
                if key in self._names:
                    self._read(key)

    def _wake(self, now: float, at: float) -> None:
        if self._timer is None or self._timer.at > at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.after(max(0.0, at - now), _Due())

    def _remind(self, reread: _Reread) -> None:
        """What the Emperor calls, on its own thread; nobody may be here any more to hear it."""
        with contextlib.suppress(pykka.ActorDeadError):  # then another monitor comes, and reads all anew
            self.actor_ref.tell(reread)

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
        self._dismiss_orphans()
        self._look_at_included(now)
        self._look_at_touched(now)
        freq = min(self._freq, _TOUCH) if self._looked_for or self._opened else self._freq
        dues = (self._watched.next_at, self._included.next_at)
        self._wake(now, min([now + freq, *(due for due in dues if due is not None)]))

    def _scan(self, source: Source) -> Mapping[str, Hashable]:
        try:
            seen = self._last[source.uri] = source.scan()
        except OSError as error:
            problem = _REMEDIES.get(error.errno or 0) or error.strerror or str(error)
            if self._ailing.get(source.uri) != problem:
                self._ailing[source.uri] = problem
                logger.error("{} cannot be read: {}; its vassals go on as they are", source.uri, problem)
            return self._last.get(source.uri, {})
        if self._ailing.pop(source.uri, None) is not None:
            logger.info("{} can be read again", source.uri)
        return seen

    def _dismiss_orphans(self) -> None:
        """Once all is known that there is, dismiss what a monitor before this one knew besides."""
        if self._orphans and not self._ailing and self._watched.next_at is None:
            for name in sorted(self._orphans - set(self._names.values())):
                self._tell(Dismiss(name))
            self._orphans.clear()

    def _look_at_touched(self, now: float) -> None:
        paths = {path for files in self._to_touch.values() for path in files}
        for change in self._touched.look(touched(paths), now):
            if not isinstance(change, Vanished) and change.key in self._looked_for:
                for name, files in self._to_touch.items():
                    if told := files.get(change.key):
                        logger.info("{} was touched, for vassal {}", change.key, name)
                        self._tell(told(name))
        self._looked_for = paths

    # ---- included files ---------------------------------------------------------------------------------

    def _look_at_included(self, now: float) -> None:
        seen: dict[tuple[str, str], Hashable] = {}
        for key, opened in self._opened.items():
            seen |= {(key, path): version for path, version in opened.now().items() if path != key}
        changed: dict[str, str] = {}
        for change in self._included.look(seen, now):
            changed[change.key[0]] = change.key[1]
            if isinstance(change, Renamed):
                changed[change.formerly[0]] = change.formerly[1]
        for key, path in changed.items():
            if key in self._names:
                logger.info("{} has changed: vassal {} is read again", path, self._names[key])
                self._read(key)

    def _note_opened(self, key: str, opened: Opened | None) -> None:
        """Keep what a reading opened, in the versions that it read, whoever has been quick since."""
        if old := self._opened.pop(key, None):
            for path in old.versions:
                self._included.known.pop((key, path), None)
        if opened is not None and any(path != key for path in opened.versions):
            self._opened[key] = opened
            included = opened.included().items()
            self._included.known |= {(key, path): version for path, version in included if path != key}

    # ---- telling --------------------------------------------------------------------------------------------

    def _carry_out(self, change: Change[str]) -> None:
        match change:
            case Vanished(key=key):
                name = self._names.pop(key)
                name = self._formerly.pop(key, name)
                self._note_opened(key, None)
                self._to_touch.pop(name, None)
                self._tell(Dismiss(name))
            case Renamed(key=key, formerly=former):
                name = self._names.pop(former)
                self._note_opened(former, None)
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
        plain = printable(source.name(key))
        placed = f"{printable(source.place(key))}.{plain}"
        candidates = chain([plain, placed], (f"{placed}-{number}" for number in count(2)))
        self._names[key] = next(name for name in candidates if name not in taken)

    def _read(self, key: str) -> None:
        name = self._names[key]
        formerly = self._formerly.get(key, "")
        reread = partial(self._remind, _Reread(key))
        try:
            vassal = self._source_of[key].read(key, reloading=(formerly or name) in self._to_touch)
        except ConfigError as error:
            self._tell(Refuse(formerly or name, error.problems, reread, stop=isinstance(error, Disowned)))
            return
        except Exception as error:
            logger.exception("{} could not be read, which is a defect of PyEmperor", key)
            problem = Problem(key, 0, "", f"could not be read: {error!r}")
            self._tell(Refuse(formerly or name, (problem,), reread))
            return
        finally:
            self._note_opened(key, self._source_of[key].opened(key))
        self._formerly.pop(key, None)
        self._to_touch.pop(formerly, None)
        self._to_touch[name] = self._touch_files(vassal)
        vassal = msgspec.structs.replace(vassal, name=name)
        self._tell(Govern(vassal, reread, formerly if formerly != name else ""))
