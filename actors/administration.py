"""What the Emperor is told and asked: which vassals there are to be, how they are, what is to become of them.

The first kind comes from whoever knows the wanted vassals (a scenario, an imperial monitor), and has no answer.
The second comes from people, through signals and the control socket:

>>> emperor.ask(Status())                                 # doctest: +SKIP
[VassalStatus(name='shop', state='STABLE', generation=1, pids=(4711,), ...)]
>>> emperor.ask(Reload("shop")).get(timeout=60)           # doctest: +SKIP
[Outcome(name='shop', ok=True, reason='')]

``Reload``, ``Stop`` and ``Absolve`` are answered with a future, because they take their time and the Emperor
serves others meanwhile. Who must not wait gives ``answer``, which is called on the Emperor's thread.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pyemperor.protocol.control import AttendantReport
from pyemperor.protocol.errors import Problem
from pyemperor.protocol.options import Vassal

# ---- what there is to be ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a vassal comes from, in uWSGI's terms.

    ``id`` is what uWSGI calls it (``shop.ini``), ``monitor`` the folder or the pattern in which it was found.
    """

    id: str
    monitor: str = ""
    #: When its file was changed last, in seconds since 1970.
    modified: float = 0.0


@dataclass(frozen=True, slots=True)
class Govern:
    """Run this vassal from now on; one that runs already gives way to a new generation of it.

    ``reread`` has its configuration read again: another ``Govern``, or a ``Refuse``, follows. None: it is fixed.
    ``formerly`` is the name under which it ran until now. ``origin`` is None for one that no monitor has found.
    """

    vassal: Vassal
    reread: Callable[[], object] | None = field(default=None, compare=False)
    formerly: str = ""
    origin: Origin | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Refuse:
    """The configuration of this vassal cannot be used; what serves goes on, unless it is to ``stop``."""

    name: str
    problems: tuple[Problem, ...]
    reread: Callable[[], object] | None = field(default=None, compare=False)
    stop: bool = False
    origin: Origin | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Dismiss:
    """This vassal is not wanted any more: stop it and forget it."""

    name: str


# ---- what people ask -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a request about one vassal; ``reason`` says why it is not ``ok``."""

    name: str
    ok: bool
    reason: str = ""


Answer = Callable[[Sequence[Outcome]], object]


@dataclass(frozen=True, slots=True)
class Status:
    """Ask for a :class:`VassalStatus` of every vassal, by name."""


@dataclass(frozen=True, slots=True)
class Reload:
    """Read the configuration again and start a new generation of the vassal; None: of all, a few at a time.

    An :class:`Outcome` each, when the new generation is ready or was refused.
    """

    name: str | None = None
    answer: Answer | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class RenewWorkers:
    """Replace the workers of the vassal, one after the other, and leave the rest as it is. No answer."""

    name: str
    reason: str


@dataclass(frozen=True, slots=True)
class Stop:
    """Stop the vassal until it is reloaded or its configuration changes; None: stop all, and the Emperor.

    An :class:`Outcome` each, when the last process is gone; for None, one for each vassal that runs, at once.
    """

    name: str | None = None
    answer: Answer | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class Absolve:
    """Clear the vassal's back-off, curse and exile: if it waits, it starts at once. An :class:`Outcome`."""

    name: str
    answer: Answer | None = field(default=None, compare=False)


@dataclass(frozen=True, slots=True)
class VassalStatus:
    """How one vassal is.

    ``state`` is that of the generation that serves (``protocol.messages.State``), ``PAUSED`` after SIGTSTP to its
    master, ``STOPPED`` after a :class:`Stop`, ``REFUSED`` for one whose configuration was never usable. ``reason``
    says why it is so; ``refused`` why its newest configuration does not serve, "" when it does.
    """

    name: str
    state: str
    #: Counts the configurations that were taken; the one that serves.
    generation: int
    #: Its masters: the one that serves first, then one that is on trial, then those that finish.
    pids: tuple[int, ...]
    #: Of the master that serves.
    restarts: int
    reason: str = ""
    refused: str = ""
    #: A newer generation is on trial.
    reloading: bool = False
    #: Workers that are ready, and requests that they have served, as of the last heartbeat.
    ready: int = 0
    requests: int = 0
    #: It has served a request.
    loyal: bool = False
    #: The processes beside its workers, in the order of their masters.
    attendants: tuple[AttendantReport, ...] = ()


@dataclass(slots=True)
class Moments:
    """When something happened to a vassal last, in monotonic seconds; None: never."""

    #: The Emperor was told of it.
    born: float | None = None
    first_run: float | None = None
    ready: float | None = None
    loyal: float | None = None
    heartbeat: float | None = None
    #: It was made to wait before its next start, for so many seconds.
    wait_began: float | None = None
    wait: float = 0.0


@dataclass(frozen=True, slots=True)
class Census:
    """Ask for a :class:`Record` of every vassal, by name (``emperor-stats``)."""


@dataclass(frozen=True, slots=True)
class Record:
    """All that is known of one vassal."""

    status: VassalStatus
    moments: Moments
    origin: Origin
    #: The first address at which it waits when it starts on demand; "" when it does not.
    on_demand: str = ""
