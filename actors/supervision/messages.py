"""What goes into a supervisor and what comes out: the events, commands and answers of a supervision. Pure.

Times are seconds on the caller's monotonic clock. ``generation`` numbers every launch of a supervisor: what
is said of an incarnation that is no longer the current one has no effect.
"""

import math
from dataclasses import dataclass, field
from enum import StrEnum

from pyemperor.actors.supervision.restart import ExitReason
from pyemperor.actors.supervision.spec import ChildSpec, ChildType

# ---- events: what the shell reports -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Started:
    """The child can do its work; ``handle`` is whatever the shell knows it by (OTP's pid)."""

    id: str
    generation: int
    handle: object = None


@dataclass(frozen=True, slots=True)
class Ignored:
    """The child has nothing to do today (OTP's ``ignore``): it is not running, and that is no failure."""

    id: str
    generation: int


@dataclass(frozen=True, slots=True)
class StartFailed:
    """The child could not be created, or ended before it was ready."""

    id: str
    generation: int
    reason: ExitReason


@dataclass(frozen=True, slots=True)
class Exited:
    """The child is gone, asked or not; before ``Started`` it means the same as :class:`StartFailed`."""

    id: str
    generation: int
    reason: ExitReason


@dataclass(frozen=True, slots=True)
class Due:
    """The moment of a :class:`Wake` has come."""

    id: str
    number: int


# ---- events: what a user asks for ---------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Request:
    """Base of what is answered, once, by a :class:`Reply`; ``sender`` is the asker's own, for that."""

    sender: object = field(default=None, kw_only=True)


@dataclass(frozen=True, slots=True)
class Boot(Request):
    """Start the initial children; answered when none of them is still on its way."""


@dataclass(frozen=True, slots=True)
class Shutdown(Request):
    """Stop all children, then end; answered at the end."""


@dataclass(frozen=True, slots=True)
class StartChild(Request):
    """Add a child at the end of the list and start it.

    Under ``simple_one_for_one`` give ``args``, which are added to those of the one spec, and no ``spec``;
    the answer names the new child. Refused: ``already_started``, ``already_present``, ``max_children``,
    ``failed`` (and then the spec is forgotten, but under ``curse``).
    """

    spec: ChildSpec | None = None
    args: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class OfChild(Request):
    """Base of the requests about one child."""

    id: str


@dataclass(frozen=True, slots=True)
class TerminateChild(OfChild):
    """Stop the child, or its restarting; the spec is kept unless temporary. Refused: ``not_found``."""


@dataclass(frozen=True, slots=True)
class RestartChild(OfChild):
    """Start a child that is down, with a clean record. Refused: ``running``, ``restarting``, ``failed``."""


@dataclass(frozen=True, slots=True)
class DeleteChild(OfChild):
    """Forget a child that is not running. Refused: ``running``, ``restarting``, ``not_found``."""


@dataclass(frozen=True, slots=True)
class Absolve(OfChild):
    """Clear the child's back-off, curse and exile: if it waits, it starts at once. Refused: ``not_found``."""


@dataclass(frozen=True, slots=True)
class ChangeSpec(Request):
    """Give a child (of the same id) a new spec; a running one keeps running, one that waits is absolved."""

    spec: ChildSpec


Event = Started | Ignored | StartFailed | Exited | Due | Request

# ---- commands ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Launch:
    """Start the child, without waiting, and report how it went."""

    id: str
    generation: int
    spec: ChildSpec


@dataclass(frozen=True, slots=True)
class Terminate:
    """Ask the child to stop, use force after ``shutdown`` seconds (0: at once), report :class:`Exited`."""

    id: str
    generation: int
    shutdown: float


@dataclass(frozen=True, slots=True)
class Wake:
    """Come back with ``due`` at the time ``at``."""

    at: float
    due: Due


@dataclass(frozen=True, slots=True)
class CancelWake:
    """The wake-up with ``due`` is not needed any more."""

    due: Due


@dataclass(frozen=True, slots=True)
class Waiting:
    """The child waits for its next attempt (inf: until absolved); ``cursed``: in quarantine."""

    id: str
    until: float
    cursed: bool


class ReportKind(StrEnum):
    """OTP's error contexts and progress report, then our own."""

    #: The child is up.
    PROGRESS = "progress"
    #: It did not start.
    START_ERROR = "start_error"
    #: It ended by itself.
    CHILD_TERMINATED = "child_terminated"
    #: It was stopped, but ended in another way than asked.
    SHUTDOWN_ERROR = "shutdown_error"
    #: The budget is exceeded and the supervisor gives up.
    REACHED_MAX_RESTART_INTENSITY = "reached_max_restart_intensity"
    #: The child exceeded its budget and goes into quarantine.
    CURSED = "cursed"
    #: It will not be started again as it is.
    EXILED = "exiled"
    #: It could not be ended and was left to itself.
    ABANDONED = "abandoned"


@dataclass(frozen=True, slots=True)
class Report:
    """Something to log about a child."""

    kind: ReportKind
    id: str
    reason: ExitReason | None = None


@dataclass(frozen=True, slots=True)
class Gone:
    """The supervisor itself has ended, after all its children."""

    reason: ExitReason


class Why(StrEnum):
    """Why a request is refused, in OTP's words."""

    ALREADY_STARTED = "already_started"
    ALREADY_PRESENT = "already_present"
    NOT_FOUND = "not_found"
    RUNNING = "running"
    RESTARTING = "restarting"
    #: The start failed, for the reason given.
    FAILED = "failed"
    #: It was stopped before it was up.
    TERMINATED = "terminated"
    MAX_CHILDREN = "max_children"
    #: The request does not fit the strategy or the flags.
    BAD_REQUEST = "bad_request"
    #: The supervisor is not running.
    NOPROC = "noproc"


@dataclass(frozen=True, slots=True)
class Ok:
    """Done; ``handle`` is the child's as of ``Started``, None when it is not running."""

    id: str = ""
    handle: object = None


@dataclass(frozen=True, slots=True)
class Refused:
    """Not done; ``handle`` is that of the running child, ``reason`` that of a failed start."""

    why: Why
    id: str = ""
    handle: object = None
    reason: ExitReason | None = None


Result = Ok | Refused


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to ``event``."""

    event: Request
    result: Result


Command = Launch | Terminate | Wake | CancelWake | Waiting | Report | Gone | Reply

# ---- views -----------------------------------------------------------------------------------------------


class Phase(StrEnum):
    """Where a child stands."""

    #: Not running, and nothing is planned (OTP's ``undefined``).
    DOWN = "down"
    #: Starts as soon as its turn comes.
    DUE = "due"
    STARTING = "starting"
    UP = "up"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    CURSED = "cursed"
    EXILED = "exiled"

    @property
    def live(self) -> bool:
        """Whether there is an incarnation."""
        return self in (Phase.STARTING, Phase.UP, Phase.STOPPING)

    @property
    def waiting(self) -> bool:
        """Whether an attempt is planned for a later time."""
        return self in (Phase.BACKOFF, Phase.CURSED)

    @property
    def restarting(self) -> bool:
        """OTP's ``restarting``: it is not there, and an attempt is planned."""
        return self is Phase.DUE or self.waiting


@dataclass(frozen=True, slots=True)
class ChildInfo:
    """One line of ``which_children``; ``until`` is inf unless the child waits for a time."""

    id: str
    phase: Phase
    handle: object
    generation: int
    type: ChildType
    until: float = math.inf


@dataclass(frozen=True, slots=True)
class Counts:
    """``count_children``: known specs, running children, and the known ones by type."""

    specs: int
    active: int
    supervisors: int
    workers: int
