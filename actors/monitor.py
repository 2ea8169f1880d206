"""The imperial monitor: tells the Emperor which vassals there are to be.

It is an actor of its own, so that neither a folder that hangs nor a long file keeps the Emperor from its
vassals. What it watches are :class:`Source` objects: ``dir://`` and ``glob://`` are in ``monitor_files``; another
one (a database, say) implements the same few methods.
"""

import contextlib
import errno
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Protocol

import msgspec
import pykka
from loguru import logger

from pyemperor.actors.actor import Actor, Inbox, System
from pyemperor.actors.administration import Dismiss, Govern, Origin, Refuse
from pyemperor.actors.clock import Timer
from pyemperor.actors.monitor_diff import Appeared, Change, Changed, Renamed, Vanished, Watchlist
from pyemperor.actors.monitor_files import touched
from pyemperor.actors.opened import Opened, OwnersFile
from pyemperor.actors.register import Register, Told, Ward
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


#: Gives by path what the Emperor is told when that file is touched.
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

    def origin(self, key: str) -> Origin:
        """What uWSGI would say of it."""

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
    nobody reads again, and which have such files all the same. ``register`` is what the monitor before this one,
    which has failed, had told the Emperor: it is told what differs.
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
        register: Register | None = None,
        owner: pykka.ActorRef[Any] | None = None,
    ) -> None:
        super().__init__(system, owner)
        self._sources = tuple(sources)
        self._tell = tell
        self._freq = freq
        self._timer: Timer | None = None
        #: By source, what it suffers from.
        self._ailing: dict[str, str] = {}
        self._source_of: dict[str, Source] = {}
        self._touch_files = touch_files
        self._static = {vassal.name: self._files_of(vassal) for vassal in static}
        self._register = register or Register()
        self._register.reserve(self._static)
        self._wards = self._register.wards
        self._watched: Watchlist[str] = Watchlist()
        self._watched.known |= {key: ward.version for key, ward in self._wards.items()}
        #: By key, what its last reading opened; and of each such file, by key and path, the version.
        self._opened: dict[str, Opened] = {}
        self._included: Watchlist[tuple[str, str]] = Watchlist()
        for key, ward in self._wards.items():
            self._note_opened(key, ward.opened)

    def on_start(self) -> None:
        for source in self._sources:
            source.watch(self.actor_inbox, _Stirred())
        asked = self._register.attend(self._remind)
        self._look(self.system.now())
        for key in asked:
            self._read_again(key)

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
                self._read_again(key)

    def _wake(self, now: float, at: float) -> None:
        if self._timer is None or self._timer.at > at:
            if self._timer is not None:
                self._timer.cancel()
            self._timer = self.after(max(0.0, at - now), _Due())

    def _remind(self, key: str) -> None:
        """What the Emperor calls, on its own thread; nobody may be here any more to hear it."""
        with contextlib.suppress(pykka.ActorDeadError):  # then the register keeps it for another monitor
            self.actor_ref.tell(_Reread(key))

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
        self._look_at_included(now)
        self._look_at_touched()
        freq = min(self._freq, _TOUCH) if self._register.stamps or self._opened else self._freq
        dues = (self._watched.next_at, self._included.next_at)
        self._wake(now, min([now + freq, *(due for due in dues if due is not None)]))

    def _scan(self, source: Source) -> Mapping[str, Hashable]:
        try:
            seen = source.scan()
        except OSError as error:
            kept = {key: ward.version for key, ward in self._wards.items() if ward.uri == source.uri}
            problem = _REMEDIES.get(error.errno or 0) or error.strerror or str(error)
            if self._ailing.get(source.uri) != problem:
                self._ailing[source.uri] = problem
                tail = "; its vassals go on as they are" if kept else ""
                logger.error("{} cannot be read: {}{}", source.uri, problem, tail)
            return kept
        if self._ailing.pop(source.uri, None) is not None:
            logger.info("{} can be read again", source.uri)
        return seen

    def _files_of(self, vassal: Vassal) -> Mapping[OwnersFile, Told]:
        return {(vassal.owner, path): told for path, told in self._touch_files(vassal).items()}

    def _look_at_touched(self) -> None:
        to_touch = [(name, files) for name, files in self._static.items() if files]
        to_touch += [(ward.runs_as, ward.touch) for ward in self._wards.values() if ward.touch]
        wanted = {file for _, files in to_touch for file in files}
        before = self._register.stamps
        stamps: dict[OwnersFile, Hashable | None] = {**dict.fromkeys(wanted), **touched(wanted)}
        for file, stamp in stamps.items():
            # One that is new to us was not touched by being there.
            if stamp is not None and before.get(file, stamp) != stamp:
                for name, files in to_touch:
                    if told := files.get(file):
                        logger.info("{} was touched, for vassal {}", file[1], name)
                        self._tell(told(name))
        self._register.stamps = stamps

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
            if ward := self._wards.get(key):
                logger.info("{} has changed: vassal {} is read again", path, ward.name)
                self._read(key, ward)

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
                self._tell(Dismiss(self._wards[key].runs_as))
                self._register.strike(key)
                self._note_opened(key, None)
            case Renamed(key=key, formerly=former):
                ward = self._wards[former]
                name = self._name(key, instead_of=former)
                self._read(key, replace(ward, name=name, formerly=ward.runs_as), instead_of=former)
                self._note_opened(former, None)
            case Appeared(key=key):
                self._read(key, Ward(self._name(key)))
            case Changed(key=key):
                self._read(key, self._wards[key])

    def _name(self, key: str, *, instead_of: str = "") -> str:
        source = self._source_of[key]
        plain, place = printable(source.name(key)), printable(source.place(key))
        return self._register.name_for(key, plain, place, instead_of=instead_of)

    def _read_again(self, key: str) -> None:
        if ward := self._wards.get(key):
            self._read(key, ward)

    def _read(self, key: str, ward: Ward, *, instead_of: str = "") -> None:
        source = self._source_of[key]
        told = self._what_is_read(key, ward)
        opened = source.opened(key)
        self._note_opened(key, opened)
        self._tell(told)
        if isinstance(told, Govern):
            ward = replace(ward, formerly="", touch=self._files_of(told.vassal))
        ward = replace(ward, uri=source.uri, version=self._watched.known[key], opened=opened)
        self._register.note(key, ward, instead_of=instead_of)

    def _what_is_read(self, key: str, ward: Ward) -> Govern | Refuse:
        reread = partial(self._register.remind, key)
        origin = self._source_of[key].origin(key)
        try:
            vassal = self._source_of[key].read(key, reloading=ward.touch is not None)
        except ConfigError as error:
            return Refuse(ward.runs_as, error.problems, reread, isinstance(error, Disowned), origin)
        except Exception as error:
            logger.exception("{} could not be read, which is a defect of PyEmperor", key)
            problem = Problem(key, 0, "", f"could not be read: {error!r}")
            return Refuse(ward.runs_as, (problem,), reread, origin=origin)
        vassal = msgspec.structs.replace(vassal, name=ward.name)
        return Govern(vassal, reread, ward.formerly if ward.formerly != ward.name else "", origin)
