"""The life of one incarnation of a supervised process, from the fork to the empty tree. Pure.

::

    SPAWNING ─► STARTING ─► READY ─► STABLE            asked to stop, or its link is lost
        │           │        │ ▲       │ ▲           ┌──────────► STOPPING ─► KILLING ─► gone
        │           │        ▼ │       ▼ │           │ (any)                     ▲
        │           │       SUSPECT (probed)  ───────┴─► CONVICTED ──────────────┘
        └───────────┴──────────────────────────────────────────────────────────► gone

What starts a process, and what follows its end, is not decided here but by ``actors/supervision``; whether it
is hung, by ``actors/detector``. This machine makes sure that each incarnation becomes ready within a deadline
or is ended, ends within a deadline when asked, and is reported :class:`Down` exactly once.
"""

import errno
from dataclasses import dataclass
from typing import NamedTuple

from pyemperor.protocol.messages import Extend, Message, NotReady, Ready, State, Stop


class Key(NamedTuple):
    """One incarnation of one child."""

    name: str
    generation: int


# ---- events: what a host reports of a child ---------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Born:
    """The process exists."""

    key: Key
    pid: int


@dataclass(frozen=True, slots=True)
class Stillborn:
    """The process could not be made; ``errno`` 0 when no system call is to blame."""

    key: Key
    errno: int
    reason: str


@dataclass(frozen=True, slots=True)
class Said:
    """The child sent a message over its link."""

    key: Key
    message: Message


@dataclass(frozen=True, slots=True)
class LinkLost:
    """The child's end of the link is closed, or it spoke nonsense."""

    key: Key
    reason: str


@dataclass(frozen=True, slots=True)
class Died:
    """The process is gone, and its tree with it, but for the unkillable pids in ``left``.

    ``code`` is -1 after a signal; :data:`UNKNOWN_CODE` when nobody could tell (the fork server died first).
    """

    key: Key
    code: int
    signal: int = 0
    swept: int = 0
    left: tuple[int, ...] = ()


# ---- events: what its supervisor and its judge decide ------------------------------------------------


@dataclass(frozen=True, slots=True)
class StopAsked:
    """End it: ask, wait ``mercy`` seconds, kill. 0 kills at once (OTP's ``brutal_kill``)."""

    mercy: float


@dataclass(frozen=True, slots=True)
class Suspected:
    """Silence for the tolerance: it is being probed."""


@dataclass(frozen=True, slots=True)
class Cleared:
    """The probe was answered."""


@dataclass(frozen=True, slots=True)
class Convicted:
    """The probe was not answered; ``sentence`` is the evidence in words."""

    sentence: str


@dataclass(frozen=True, slots=True)
class Due:
    """The deadline ``what`` has come."""

    what: str
    number: int


Event = Born | Stillborn | Said | LinkLost | Died | StopAsked | Suspected | Cleared | Convicted | Due


# ---- commands ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Enter:
    """The process reached ``state``: log it, trace it."""

    state: State
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Send:
    """Send ``message`` over the link."""

    message: Message


@dataclass(frozen=True, slots=True)
class Dump:
    """Have the process print the stacks of its threads (SIGUSR2), after a SIGCONT."""


@dataclass(frozen=True, slots=True)
class Kill:
    """SIGKILL the process; with ``family`` everything it supervises as well."""

    reason: str
    family: bool


@dataclass(frozen=True, slots=True)
class Wake:
    """Come back with ``due`` after ``seconds``."""

    seconds: float
    due: Due


@dataclass(frozen=True, slots=True)
class Up:
    """The process can do its work: its start has succeeded, its lease begins."""


@dataclass(frozen=True, slots=True)
class Down:
    """The end of this incarnation: ``kind`` is one of ``supervision.ExitReason``'s kinds."""

    kind: str
    detail: str
    #: Whether it had ever been ready.
    started: bool


Command = Enter | Send | Dump | Kill | Wake | Up | Down

UNKNOWN_CODE = -2
#: sysexits.h: USAGE, DATAERR, NOINPUT, CONFIG: only another configuration helps.
_CONFIG_CODES = frozenset({64, 65, 66, 78})
#: s6's "permanent failure" and uWSGI's exile code.
_EXILE_CODES = frozenset({125, 26})
_ENVIRONMENT = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC})
#: Seconds from the loss of a link to the news of the death that caused it.
_NEWS = 1.0
#: Seconds for a stack dump before the kill.
_DUMP = 0.2
#: Seconds by which a child's own mercy is shorter than its parent's deadline for it.
MARGIN = 1.0
#: Seconds after which a process that does not die of SIGKILL is given up (it hangs in the kernel).
UNKILLABLE = 30.0


@dataclass(frozen=True, slots=True)
class Terms:
    """What is expected of a process: seconds to become ready, to count as stable, and to stop when orphaned."""

    start_timeout: float = 60.0
    stable_after: float = 10.0
    mercy: float = 60.0


class Life:
    """One incarnation. :meth:`handle` is the only way in; after :class:`Down` it answers nothing."""

    __slots__ = (
        "_asked",
        "_convicted",
        "_early",
        "_killed",
        "_number",
        "_refusal",
        "_resume",
        "_started",
        "_terms",
        "pid",
        "state",
    )

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self.state: State = State.SPAWNING
        self.pid = 0
        self._number = 0
        self._resume = State.READY
        self._asked = False
        self._convicted = ""
        self._early: list[Said | LinkLost] = []
        self._killed = ""
        self._refusal: NotReady | None = None
        self._started = False

    @property
    def up(self) -> bool:
        """Whether the process is ready and not on its way out."""
        return self.state in (State.READY, State.STABLE, State.SUSPECT)

    def handle(self, event: Event) -> list[Command]:
        """Take in one event; the commands are to be carried out in order."""
        if self.state is State.ABSENT:
            return []
        match event:
            case Said() | LinkLost() if self.state is State.SPAWNING:
                # A child may be faster than the fork server's word that it exists.
                self._early.append(event)
                return []
            case Born() if self.state is State.SPAWNING:
                commands = self._born(event.pid)
                for early in self._early:
                    commands += self.handle(early)
                return commands
            case Stillborn() if self.state is State.SPAWNING:
                kind = "env" if event.errno in _ENVIRONMENT or event.errno == 0 else "abnormal"
                return self._gone("shutdown" if self._asked else kind, event.reason)
            case Said(message=message):
                return self._said(message)
            case StopAsked():
                return self._stop(event.mercy)
            case LinkLost():
                # Mostly the news of its death is on its way.
                ending = self.state in (State.STOPPING, State.KILLING, State.CONVICTED)
                return [] if ending else [self._wake(_NEWS, "lost")]
            case Suspected():
                return self._suspect()
            case Cleared():
                return self._enter(self._resume, "probe answered") if self.state is State.SUSPECT else []
            case Convicted():
                if not self.up:
                    return []
                self._convicted = event.sentence
                convicted = self._enter(State.CONVICTED, event.sentence)
                return [*convicted, Dump(), self._wake(_DUMP, "dump")]
            case Due():
                return self._due(event)
            case Died():
                return self._gone(*self._verdict(event))
        return []

    def _born(self, pid: int) -> list[Command]:
        self.pid = pid
        if self._asked:
            return self._kill("stopped before it had started")
        return [*self._enter(State.STARTING), self._wake(self._terms.start_timeout, "start")]

    def _said(self, message: Message) -> list[Command]:
        if self.state is State.STARTING:
            if isinstance(message, Ready):
                self._started = True
                stable = self._wake(self._terms.stable_after, "stable")
                return [*self._enter(State.READY), stable, Up()]
            if isinstance(message, Extend):
                return [self._wake(message.seconds, "start")]
        if isinstance(message, NotReady):
            self._refusal = message
        return []

    def _suspect(self) -> list[Command]:
        if self.state not in (State.READY, State.STABLE):
            return []
        self._resume = self.state
        return self._enter(State.SUSPECT, "no heartbeat")

    def _stop(self, mercy: float) -> list[Command]:
        if self._asked or self.state in (State.KILLING, State.CONVICTED):
            return [] if mercy > 0 or self.state is not State.STOPPING else self._kill("no mercy")
        self._asked = True
        if self.state is State.SPAWNING:
            return []
        if mercy <= 0:
            return self._kill("stopped without mercy")
        if self.state is State.STOPPING:
            return [self._wake(mercy, "mercy")]
        inner = max(mercy - MARGIN, mercy / 2)
        return [*self._enter(State.STOPPING), Send(Stop(inner)), self._wake(mercy, "mercy")]

    def _due(self, due: Due) -> list[Command]:
        if due.number != self._number and due.what != "stable":
            return []
        match due.what, self.state:
            case "stable", State.READY:
                return self._enter(State.STABLE)
            case "stable", State.SUSPECT:
                self._resume = State.STABLE
            case "start", State.STARTING:
                return self._kill(f"not ready within {self._terms.start_timeout:g} s", late=True)
            case "lost", _ if self.state is State.STARTING or self.up:
                # It lives, knows as well, finishes what it accepted within its mercy, and exits.
                stopping = self._enter(State.STOPPING, "its link is lost")
                return [*stopping, self._wake(self._terms.mercy + MARGIN, "mercy")]
            case "mercy", State.STOPPING:
                return self._kill("its mercy is over")
            case "dump", State.CONVICTED:
                return self._kill("it is hung")
            case "unkillable", State.KILLING:
                return self._gone(
                    "stall", f"SIGKILL did not end it within {UNKILLABLE:g} s: it hangs in the kernel"
                )
        return []

    def _kill(self, why: str, *, late: bool = False) -> list[Command]:
        self._killed = why
        # The workers of a master that hangs, also in its start, are innocent: they lose their link, finish what
        # they accepted, and end.
        family = not (late or self._convicted)
        return [*self._enter(State.KILLING, why), Kill(why, family), self._wake(UNKILLABLE, "unkillable")]

    def _verdict(self, died: Died) -> tuple[str, str]:
        kind, why = self._judged(died)
        if died.left:
            why += f"; it leaves processes that cannot be killed: {', '.join(map(str, died.left))}"
        return kind, why

    def _judged(self, died: Died) -> tuple[str, str]:
        how = _how(died)
        if self._convicted:
            return "stall", self._convicted
        if self._killed and not self._asked:
            return "abnormal", self._killed
        if self._killed:
            return "killed", self._killed
        if self._asked:
            return "shutdown", how
        if self._refusal:
            return "config" if self._refusal.config else "abnormal", self._refusal.reason
        if died.code in _CONFIG_CODES:
            return "config", how
        if died.code in _EXILE_CODES:
            return "exile", how
        return "normal" if died.code == 0 else "abnormal", how

    def _gone(self, kind: str, detail: str) -> list[Command]:
        return [*self._enter(State.ABSENT, detail), Down(kind, detail, self._started)]

    def _enter(self, state: State, reason: str = "") -> list[Command]:
        self.state = state
        return [Enter(state, reason)]

    def _wake(self, seconds: float, what: str) -> Wake:
        """The newest deadline is the one that counts; "stable" runs beside it."""
        if what != "stable":
            self._number += 1
        return Wake(seconds, Due(what, self._number))


def _how(died: Died) -> str:
    if died.signal:
        how = f"killed by signal {died.signal}"
    elif died.code == UNKNOWN_CODE:
        how = "gone, exit code unknown"
    else:
        how = f"exit code {died.code}"
    if died.swept:
        how += f", {died.swept} process{'es' * (died.swept > 1)} left behind and killed"
    return how
