"""Why a child ended, and when it may start again: exit reasons, back-off, window of the intensity. Pure."""

import errno
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final


class ExitKind(StrEnum):
    """Why a child ended, as far as its supervisor cares."""

    #: By itself, its work done (a process: exit status 0, unasked).
    NORMAL = "normal"
    #: Because it was asked to.
    SHUTDOWN = "shutdown"
    #: By our force, after its mercy was over.
    KILLED = "killed"
    #: By an error.
    ABNORMAL = "abnormal"
    #: The kernel killed it for its memory.
    OOM = "oom"
    #: Convicted by the failure detector.
    STALL = "stall"
    #: Its configuration cannot work: no restart until that changes.
    CONFIG = "config"
    #: It asked not to be started again.
    EXILE = "exile"
    #: The machine could not create it: not its fault.
    ENV = "env"


@dataclass(frozen=True, slots=True)
class ExitReason:
    """Why a child ended: ``kind`` decides, ``detail`` is for people."""

    kind: ExitKind
    detail: str = ""

    def __post_init__(self) -> None:
        # The word of a lower layer becomes the member; an unknown one raises ValueError.
        object.__setattr__(self, "kind", ExitKind(self.kind))

    @property
    def expected(self) -> bool:
        """Whether this is an end that a transient child is not restarted after."""
        return self.kind in (ExitKind.NORMAL, ExitKind.SHUTDOWN)

    @classmethod
    def of(cls, error: BaseException) -> "ExitReason":
        """Judge the exception that ended a child.

        A lack of memory, threads, descriptors or disk space is ``env``; ``sys.exit()`` and ``sys.exit(0)``
        are ``normal``; everything else is ``abnormal``.
        """
        detail = f"{type(error).__name__}: {error}"
        if isinstance(error, SystemExit):
            return cls(ExitKind.ABNORMAL if error.code else ExitKind.NORMAL, f"exit {error.code or 0}")
        if isinstance(error, OSError):
            scarce = error.errno in ENVIRONMENT_ERRORS
        else:
            # The text is what CPython says when the kernel refuses a thread.
            scarce = isinstance(error, MemoryError) or str(error) == "can't start new thread"
        return cls(ExitKind.ENV if scarce else ExitKind.ABNORMAL, detail)

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}" if self.detail else str(self.kind)


NORMAL: Final = ExitReason(ExitKind.NORMAL)
SHUTDOWN: Final = ExitReason(ExitKind.SHUTDOWN)

#: Error numbers that say that the machine, not the child, is at its limit.
ENVIRONMENT_ERRORS: Final = frozenset({errno.EAGAIN, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.ENOSPC})

@dataclass(frozen=True, slots=True)
class Backoff:
    """How long the next attempt waits: ``initial`` seconds, then ``factor`` times as long, up to ``max``.

    ``linear`` adds ``initial`` each time instead (uWSGI's ``emperor-throttle``). Each wait is spread evenly
    by ``± jitter`` (a share of it), so that many children that failed together do not return together.
    ``Backoff(initial=0)`` is OTP's immediate restart.

    >>> backoff, wait = Backoff(), 0.0
    >>> [wait := backoff.after(wait) for _ in range(12)]
    [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 6.4, 12.8, 25.6, 51.2, 60.0, 60.0]
    """

    initial: float = 0.1
    factor: float = 2.0
    max: float = 60.0
    jitter: float = 0.1
    linear: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.initial <= self.max < math.inf:
            raise ValueError(f"back-off needs 0 <= initial <= max, not {self.initial!r} and {self.max!r}")
        if not 1 <= self.factor < math.inf:
            raise ValueError(f"back-off factor must be 1 or more, not {self.factor!r}")
        if not 0 <= self.jitter < 1:
            raise ValueError(f"back-off jitter must be at least 0 and below 1, not {self.jitter!r}")

    def after(self, previous: float) -> float:
        """Return the wait that follows one of ``previous`` seconds (0: there was none), without jitter."""
        if not previous:
            return self.initial
        longer = previous + self.initial if self.linear else previous * self.factor
        return min(longer, self.max)

    def spread(self, wait: float, random: Callable[[], float]) -> float:
        """Return ``wait`` with jitter; ``random`` gives a number in [0, 1), of which 0.5 changes nothing."""
        return wait * (1 + self.jitter * (2 * random() - 1))


#: Between attempts to create a child that the machine refuses.
ENVIRONMENT_BACKOFF: Final = Backoff(initial=1.0, max=30.0)


#: Seconds past the window's edge at which a restart is tried again: the window is closed at both ends.
TICK: Final = 0.001


def permitted_at(stamps: Sequence[float], at: float, intensity: int, period: float) -> float:
    """Return when the next restart is permitted: ``at`` itself, or the first moment after it.

    OTP's rule (``supervisor:add_restart/3``): with the restarts of ``[at - period, at]``, both ends included,
    and the new one there may be ``intensity``. ``math.inf`` when there may be none at all.

    >>> permitted_at([0, 1], at=60, intensity=3, period=60)
    60
    >>> permitted_at([0, 1], at=60, intensity=2, period=60)
    60.001
    """
    recent = sorted(within(stamps, at, period))
    excess = len(recent) + 1 - intensity
    if excess <= 0:
        return at
    return recent[excess - 1] + period + TICK if intensity else math.inf


def within(stamps: Sequence[float], at: float, period: float) -> list[float]:
    """Return the restarts that still count ``at`` that time."""
    return [stamp for stamp in stamps if stamp >= at - period]


@dataclass(slots=True)
class Budget:
    """At most ``intensity`` restarts within ``period`` seconds; each attempt is charged."""

    intensity: int
    period: float
    stamps: list[float] = field(default_factory=list)

    def permitted_at(self, at: float) -> float:
        """Return when the next attempt is permitted, ``at`` or later; inf: never."""
        return permitted_at(self.stamps, at, self.intensity, self.period)

    def charge(self, at: float) -> None:
        """Note the attempt of that time, and forget those that no longer count."""
        self.stamps = [*within(self.stamps, at, self.period), at]
