"""What a judge is told and what it answers: leases, evidence, verdicts, events and commands.

The vocabulary of :mod:`pyemperor.actors.detector`, with the two readings of evidence: :func:`classify` names
what a silent process does, :func:`explain` says it in a sentence. Times are seconds on ``CLOCK_MONOTONIC``.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import inf

#: A process that waited for a CPU for this share of the window was starved: it could not have answered.
STARVED = 0.5


@dataclass(frozen=True, slots=True)
class Lease:
    """How long a peer may be silent before it is asked, and how long it may take to answer (seconds).

    ``tolerance`` is uWSGI's ``emperor-required-heartbeat``. Raises ``ValueError`` unless both are
    finite and above 0.
    """

    tolerance: float = 30.0
    probe: float = 5.0

    def __post_init__(self) -> None:
        if not (0 < self.tolerance < inf and 0 < self.probe < inf):
            raise ValueError(f"tolerance and probe must be finite and above 0, not {self}")


def beat_interval(requested: float, tolerance: float) -> float:
    """Return the seconds between two beats: as requested (0: no wish), at most a third of ``tolerance``.

    Two beats may be lost or late before anybody asks, whatever ``heartbeat`` says: uWSGI's users who set it
    close to the tolerance had healthy vassals killed.
    """
    return min(requested if requested > 0 else inf, tolerance / 3)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the kernel says about a peer's process at one moment (proc(5)).

    ``state`` is the letter of ``/proc/PID/stat``; ``cpu`` (user + system) and ``run_delay`` (runnable, but
    waiting for a CPU: ``schedstat``, of the thread that answers probes) are seconds that only grow;
    ``tracer`` is the pid of a debugger or 0; ``unread`` counts our bytes that the peer has not read;
    ``gone`` says that there is no such process.
    """

    state: str
    cpu: float
    run_delay: float
    tracer: int = 0
    unread: int = 0
    gone: bool = False

    @property
    def traced(self) -> bool:
        return self.tracer != 0 or self.state == "t"

    @property
    def stopped(self) -> bool:
        return self.state == "T" and not self.traced


class Verdict(StrEnum):
    """What a convicted peer is doing instead of answering."""

    BLOCKED = "blocked"  #: sleeps and uses no CPU: a lock, a read, a full pipe
    SPINNING = "spinning"  #: burns CPU: an endless loop, or a C call that holds the interpreter's lock
    STOPPED = "stopped"  #: stopped by a signal again, after we continued it
    UNKILLABLE = "unkillable"  #: uninterruptible all the time: a disk or a network file system
    STARVED = "starved"  #: the machine gave it no CPU through all extensions
    DEAD = "dead"  #: a zombie or gone, and nobody reported its exit
    UNRESPONSIVE = "unresponsive"  #: runs a little, but does not answer


def classify(before: Evidence, after: Evidence, seconds: float, probe: float) -> Verdict:
    """Name what the process did in the ``seconds`` between two looks, in a window of ``probe`` seconds."""
    if after.gone or after.state in ("Z", "X", "x"):
        return Verdict.DEAD
    if after.stopped:
        return Verdict.STOPPED
    delay = after.run_delay - before.run_delay
    if delay >= STARVED * probe:
        return Verdict.STARVED
    cpu = after.cpu - before.cpu
    if cpu >= 0.5 * max(seconds - delay, 0.01):
        return Verdict.SPINNING
    if before.state == after.state == "D":
        return Verdict.UNKILLABLE
    if after.state in ("S", "D", "I") and cpu < 0.05 * seconds:
        return Verdict.BLOCKED
    return Verdict.UNRESPONSIVE


# ---- events: what the shell tells the judge ----------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heard:
    """A beat came in. It is as fresh as its send time: one that lay in a pipe for long is no sign of life."""

    peer: str
    sent_at: float


@dataclass(frozen=True, slots=True)
class Answered:
    """The answer to a probe came in."""

    peer: str
    nonce: int


@dataclass(frozen=True, slots=True)
class Seen:
    """The evidence that one :class:`Look` asked for."""

    peer: str
    evidence: Evidence


@dataclass(frozen=True, slots=True)
class Due:
    """The judge's timer, set for ``planned_at``, fired; every pipe has been read before."""

    planned_at: float


@dataclass(frozen=True, slots=True)
class Paused:
    """The shell found that it did not run for ``seconds`` until now: stopped, suspended."""

    seconds: float


Event = Heard | Answered | Seen | Due | Paused


# ---- commands: what the shell does for the judge -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ask:
    """Send a probe; asked again with the same nonce after a :class:`Continue`."""

    peer: str
    nonce: int


@dataclass(frozen=True, slots=True)
class Cleared:
    """The suspect lives: it answered, or a fresh beat came, ``after_seconds`` after it was asked."""

    peer: str
    nonce: int
    after_seconds: float


@dataclass(frozen=True, slots=True)
class Look:
    """Read the evidence about the peer's process now and answer with one :class:`Seen`."""

    peer: str


@dataclass(frozen=True, slots=True)
class Continue:
    """Send SIGCONT: somebody stopped the process. Given once a suspicion."""

    peer: str


@dataclass(frozen=True, slots=True)
class Extended:
    """The suspect has time until ``until``; ``why`` is ``starved``, or ``traced``: said once, and lasts."""

    peer: str
    until: float
    starved: bool = True
    why: str = "starved"


@dataclass(frozen=True, slots=True)
class Convict:
    """The peer hangs. The judge forgets it; :meth:`Judge.open` begins its successor's lease.

    ``silence`` counts from its last sign of life, ``waited`` from the probe; ``extensions`` counts those
    for starvation. The looks are those at the start of the probe and at its end.
    """

    peer: str
    silence: float
    verdict: Verdict
    evidence_at_probe: Evidence
    evidence_at_end: Evidence
    waited: float
    extensions: int = 0


@dataclass(frozen=True, slots=True)
class Credit:
    """The judge itself was late: no deadline counts these ``seconds``."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Wake:
    """Set the judge's one timer, replacing the one that was set; ``None`` cancels it."""

    at: float | None


Command = Ask | Cleared | Look | Continue | Extended | Convict | Credit | Wake


_DOING = {
    Verdict.DEAD: "is dead, though nobody reported its exit",
    Verdict.STARVED: "is starved of CPU by the machine",
    Verdict.STOPPED: "is stopped by a signal again, after SIGCONT",
    Verdict.UNKILLABLE: "is unkillable as long as it waits for a disk or a network file system",
    Verdict.UNRESPONSIVE: "runs, but does not answer",
}


def explain(conviction: Convict, pid: int, role: str = "vassal") -> str:
    """Return the conviction with its evidence as one sentence for the log."""
    before, after = conviction.evidence_at_probe, conviction.evidence_at_end
    text = (
        f"{role} {conviction.peer}: no heartbeat for {conviction.silence:.1f} s and no answer to a probe for "
        f"{conviction.waited:.1f} s"
    )
    if conviction.extensions:
        text += f" (extended {conviction.extensions}x because it was starved of CPU)"
    text += f"; process {pid} {_DOING.get(conviction.verdict, f'is {conviction.verdict}')}"
    if after.gone:
        return text
    text += (
        f" (state {after.state}, {after.cpu - before.cpu:.2f} s CPU, "
        f"{after.run_delay - before.run_delay:.2f} s waiting for a CPU)"
    )
    return f"{text}; {after.unread} bytes from us lie unread in its pipe" if after.unread else text
