"""What the Emperor tells the world of its vassals: their process ids, and whoever started it how they are.

The latter is systemd's protocol (sd_notify(3)). uWSGI's Emperor says by it that it is ready, and how many vassals
there are; here also which of them are unwell, that all are being reloaded, and that it ends. systemd's watchdog
hears from the Emperor's own mailbox, so that a hung Emperor is replaced.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from pyemperor.actors.administration import Outcome, Reload, VassalStatus
from pyemperor.actors.pid_files import PidFiles
from pyemperor.actors.province import Province
from pyemperor.actors.realm import Realm
from pyemperor.actors.succession import Event
from pyemperor.protocol.escapes import printable
from pyemperor.protocol.messages import State

#: Seconds within which changes are told together, and after which what was not taken is said again.
_TOGETHER, _AGAIN = 0.2, 0.1
#: States of a process that is not there.
_NOBODY = frozenset({State.SPAWNING, State.BACKOFF, State.CURSED, State.EXILED, State.ABSENT})
#: States of a vassal that somebody should look after.
_UNWELL = frozenset({State.SUSPECT, State.CONVICTED, State.BACKOFF, State.CURSED, State.EXILED, "REFUSED"})
#: Vassals that are named at most.
_NAMED = 5

#: Sends assignments, a line each; False when they cannot be taken at the moment.
Notify = Callable[[str], bool]


@dataclass(frozen=True, slots=True)
class Listener:
    """Whoever started the Emperor and listens; ``pid`` is the Emperor's, as far as they can see.

    ``watchdog`` is the longest silence that they put up with, in seconds; 0: any.
    """

    notify: Notify
    pid: int
    watchdog: float = 0.0


@dataclass(frozen=True, slots=True)
class _Say:
    """Say it again: it was not taken."""

    text: str


@dataclass(frozen=True, slots=True)
class _SayHow:
    """Time to tell what has changed."""


@dataclass(frozen=True, slots=True)
class _Watch:
    """Time to pacify the watchdog."""


class Herald(Realm):
    """A realm that is heard of. ``listener`` and ``pid_files`` are None where nobody wants to know."""

    def __init__(
        self, *args: Any, listener: Listener | None = None, pid_files: PidFiles | None = None, **more: Any
    ) -> None:
        super().__init__(*args, **more)
        self._listener = listener
        self._pid_files = pid_files
        self._up = False
        self._leaving = False
        self._reloads = 0
        self._told = ""
        self._to_tell = False

    def handle(self, message: Any, now: float) -> Any:
        self._now = now
        match message:
            case _Say(text=text):
                self._say(text)
            case _SayHow():
                self._to_tell = False
                self._say_how()
            case _Watch():
                self._watch()
            case Reload(name=None) if self._up:
                self._reloads += 1
                self._say(f"RELOADING=1\nMONOTONIC_USEC={int(now * 1e6)}")
                return super().handle(replace(message, answer=self._reloaded(message)), now)
            case _:
                return super().handle(message, now)
        return None

    # ---- to whoever started it ----------------------------------------------------------------------------

    def announce(self) -> None:
        """The Emperor is up: vassals may come."""
        self._up = True
        if self._listener is not None:
            self._say(f"READY=1\nMAINPID={self._listener.pid}")
        self._say_how()
        self._watch()

    def take_leave(self) -> None:
        """The Emperor ends, when everybody has."""
        self._leaving = True
        self._say("STOPPING=1")

    def _reloaded(self, reload: Reload) -> Callable[[Sequence[Outcome]], object]:
        def over(outcomes: Sequence[Outcome]) -> None:
            self._reloads -= 1
            if not self._reloads and not self._leaving:
                self._say("READY=1")
            if reload.answer is not None:
                reload.answer(outcomes)

        return over

    def _watch(self) -> None:
        if self._listener is not None and self._listener.watchdog:
            self._listener.notify("WATCHDOG=1")  # another one follows
            self.after(self._listener.watchdog / 2, _Watch())

    def _say(self, text: str) -> None:
        if self._listener is not None and not self._listener.notify(text):
            self.after(_AGAIN, _Say(text))

    def _changed(self) -> None:
        if self._up and self._listener is not None and not self._to_tell:
            self._to_tell = True
            self.after(_TOGETHER, _SayHow())

    def _say_how(self) -> None:
        if self._listener is not None and (text := self._how()) != self._told:
            self._told = text
            self._say(f"STATUS={text}")

    def _how(self) -> str:
        """How the vassals are, in uWSGI's words, and who is unwell."""
        all_of_them = [self._provinces[name].status(self.child) for name in sorted(self._provinces)]
        unwell = [_in_words(one) for one in all_of_them if one.state in _UNWELL]
        more = [f"{len(unwell) - _NAMED} more"] if len(unwell) > _NAMED else []
        count = f"The Emperor is governing {len(all_of_them)} vassals"
        return "; ".join([count, *([", ".join([*unwell[:_NAMED], *more])] if unwell else [])])

    # ---- in files -----------------------------------------------------------------------------------------

    def apply(self, province: Province, event: Event) -> None:
        super().apply(province, event)
        self._changed()
        self._write_pid(province)

    def child_enters(self, child: str) -> None:
        super().child_enters(child)
        if owner := self._owners.get(child):
            self._changed()
            self._write_pid(owner[0])

    def _write_pid(self, province: Province) -> None:
        """Have the files name the master of the generation that serves."""
        succession = province.succession
        if self._pid_files is None or succession.present is None:
            return
        claim = province.claims.get(succession.present, "")
        master = self.child(claim)
        if master is None or not master.life.pid or master.state in _NOBODY:
            return
        vassal = master.birth.vassal
        for problem in self._pid_files.write(claim, vassal, master.life.pid, ready=succession.up):
            self._log(province, "ERROR", f"has no file with its process id: {problem}", "pidfile")

    def child_down(self, child: str) -> None:
        if self._pid_files is not None and (owner := self._owners.get(child)):
            for problem in self._pid_files.remove(child):
                self._log(owner[0], "INFO", f"is gone: {problem}", "pidfile")
        super().child_down(child)


def _in_words(vassal: VassalStatus) -> str:
    return f"{printable(vassal.name)} is {vassal.state}"
