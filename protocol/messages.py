"""Every message that crosses from one process to another: frozen, validated, documented.

Between threads the same objects travel by ``tell``. Times are seconds; ``*_at`` fields are readings of
``CLOCK_MONOTONIC``, which all processes of one machine share. A message of an unknown ``type`` or with a
field of the wrong type is a :class:`~pyemperor.protocol.errors.LinkError` at the receiver.
"""

from enum import StrEnum
from typing import Literal

import msgspec

from pyemperor.protocol.control import AttendantReport
from pyemperor.protocol.hooks import Step, steps
from pyemperor.protocol.options import Vassal


class Message(msgspec.Struct, frozen=True, tag_field="type", forbid_unknown_fields=True):
    """Base of all messages on a link."""


# ---- a child to its parent (worker to master, master to Emperor) ------------------------------------


class Ready(Message, frozen=True, tag="ready"):
    """The child can do its work: ends the start timeout and opens the heartbeat lease."""


class NotReady(Message, frozen=True, tag="not-ready"):
    """The child cannot start and says why, before it exits."""

    reason: str
    #: True when only another configuration can help (sysexits EX_CONFIG): no restart until then.
    config: bool = False


class Extend(Message, frozen=True, tag="extend"):
    """The child needs ``seconds`` more, from now, to become ready (systemd's EXTEND_TIMEOUT_USEC)."""

    seconds: float


class Core(msgspec.Struct, frozen=True, array_like=True):
    """What one CgiRunner does at the time of a beat."""

    busy: bool
    #: Age of the running request, 0 when idle.
    age: float
    #: Requests finished since the runner started.
    requests: int
    #: Process id of the running script, 0 when none.
    pid: int = 0


class Beat(Message, frozen=True, tag="beat"):
    """One heartbeat: what its sender is doing. It is state, not an event: only the newest counts."""

    seq: int
    sent_at: float
    #: Children alive and ready (workers of a master; 0 for a worker).
    ready: int = 0
    requests: int = 0
    cores: tuple[Core, ...] = ()
    #: Of a master: its workers take no new connection.
    paused: bool = False


class Alive(Message, frozen=True, tag="alive"):
    """The answer to a :class:`Probe`, with its nonce."""

    nonce: int


class Accepting(Message, frozen=True, tag="accepting"):
    """The child has served its first request (uWSGI's loyalty, byte 17)."""


class Idle(Message, frozen=True, tag="idle"):
    """Nobody has asked this vassal for anything for its ``idle`` seconds: it need not run (uWSGI's byte 22)."""


class Renew(Message, frozen=True, tag="renew"):
    """An operator wants this vassal reloaded (SIGHUP to its master)."""


class Attended(Message, frozen=True, tag="attended"):
    """The attendants of this vassal that there are, whenever one of them has come to another state."""

    attendants: tuple[AttendantReport, ...]


class Worn(Message, frozen=True, tag="worn"):
    """The worker has served what it was to serve; it goes on until it is asked to stop, and is replaced."""

    reason: str


# ---- a parent to its child --------------------------------------------------------------------------


class Probe(Message, frozen=True, tag="probe"):
    """Asks for an :class:`Alive` with the same nonce: silence alone convicts nobody."""

    nonce: int


class Stop(Message, frozen=True, tag="stop"):
    """Stop: take no new request, finish those accepted within ``mercy`` seconds, then exit 0."""

    mercy: float


class Pause(Message, frozen=True, tag="pause"):
    """Master to worker: take no new connection while ``paused``; what was accepted is finished."""

    paused: bool


class RenewWorkers(Message, frozen=True, tag="renew-workers"):
    """Emperor to master: replace every worker, one after the other, for ``reason``."""

    reason: str


class Reloading(Message, frozen=True, tag="reloading"):
    """Emperor to master: another generation of the vassal starts beside this one (uWSGI's byte 1)."""


# ---- any process to its parent, up to whoever watches -------------------------------------------------


class State(StrEnum):
    """States of a supervised process (``actors/lifecycle``); a scenario asserts on their order."""

    SPAWNING = "SPAWNING"
    STARTING = "STARTING"
    READY = "READY"
    STABLE = "STABLE"
    SUSPECT = "SUSPECT"
    CONVICTED = "CONVICTED"
    STOPPING = "STOPPING"
    KILLING = "KILLING"
    BACKOFF = "BACKOFF"
    CURSED = "CURSED"
    EXILED = "EXILED"
    SLEEPING = "SLEEPING"
    ABSENT = "ABSENT"


class Trace(Message, frozen=True, tag="trace"):
    """One entry of the timeline that scenarios read and ``--json`` prints.

    ``actor`` is an address as in scenario files: ``emperor``, ``master:NAME``, ``worker:NAME/N``,
    ``fork-server``, ``link:A>B``, ``load:ID``, ``fault:ID``. ``event`` is one of the names in :data:`EVENTS`.
    """

    at: float
    actor: str
    event: str
    state: str = ""
    pid: int = 0
    reason: str = ""


#: The vocabulary of ``Trace.event``.
EVENTS: dict[str, str] = {
    "state": "the process reached the state in `state`, for `reason`",
    "start": "an attempt to start the process was made",
    "restart": "a start that replaces an earlier incarnation",
    "exit": "the process is gone, and so is its tree; `reason` says how",
    "retire": "a worker is replaced, for `reason`, which is no failure",
    "resize": "`cheaper` changes the number of workers; `reason` says by how many, and why",
    "kill": "we sent SIGKILL to the process and its tree, for `reason`",
    "probe.sent": "silence for the tolerance: the judge asked",
    "probe.cleared": "the probe was answered in time",
    "credit": "the judge was late and gave the lost time to everybody",
    "starved": "the machine starves the process of CPU: the probe was extended",
    "beat": "a heartbeat was received",
    "fault": "the scenario injected a fault",
    "heal": "the scenario took a fault back",
    "request": "a request was answered; `state` is its status, `reason` the path",
    "log": "a warning or an error was logged; `reason` is the line",
}


# ---- fault injection, down the tree ---------------------------------------------------------------------


class Inject(Message, frozen=True, tag="inject"):
    """A scenario's fault for an actor or a link of the receiving process or below it.

    ``hang``: the target actor stops handling messages for ``seconds`` (0: for ever).
    ``drop``/``delay``: frames that the target link carries are lost, or wait ``seconds``, each with
    ``probability``; ``match`` limits it to one message type (``beat``). ``heal`` takes the fault ``id`` back.
    """

    id: str
    kind: Literal["hang", "drop", "delay", "heal"]
    target: str
    seconds: float = 0.0
    probability: float = 1.0
    match: str = ""


# ---- to and from the fork server ------------------------------------------------------------------------


class Birth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a new process is to be, and everything it needs to know; it reads no file."""

    #: All but the first two are attendants (``actors/attendants``): what they do is written in ``vassal``.
    kind: Literal["master", "worker", "daemon", "cron", "hook", "touch"]
    vassal: Vassal
    #: Seconds between two heartbeats to the parent.
    beat: float
    #: Number of the worker, daemon or cron from 1; 0 for others.
    index: int = 0
    #: What a hook carries out: one of ``hooks.PHASES``; or "start" or "ended", which are the Emperor's.
    phase: str = ""
    #: What the Emperor has done before the vassal's own hooks of that phase, as its own user.
    before: tuple[Step, ...] = ()
    #: How a master judges its workers.
    tolerance: float = 30.0
    probe: float = 5.0
    log_style: str = "pretty"
    #: A worker takes no connection until :class:`Pause` says otherwise.
    paused: bool = False
    #: A scenario watches: send traces up.
    traced: bool = False

    @property
    def mercy(self) -> float:
        """Seconds that this process has to finish what it accepted."""
        whole = self.vassal.reload_mercy
        return min(self.vassal.worker_reload_mercy, whole) if self.kind == "worker" else whole

    @property
    def actor(self) -> str:
        """The address in logs, traces, scenario files: ``master:NAME``, ``worker:NAME/N``, ``hook:NAME/PHASE``."""
        part = self.phase or self.index
        return f"{self.kind}:{self.vassal.name}" + (f"/{part}" if part else "")

    @property
    def steps(self) -> tuple[Step, ...]:
        """What a hook carries out, in order.

        In tyrant mode nobody is root: what a vassal wants done as root is done before the rest, as its owner.
        """
        own = steps(self.vassal, self.phase)
        if self.vassal.owner and self.phase == "user":
            own = steps(self.vassal, "root") + own
        if not self.privileged:
            return own
        return self.before if self.vassal.owner else self.before + own

    @property
    def privileged(self) -> bool:
        """Whether this is done as the Emperor's user, not as the vassal's."""
        return self.phase in ("root", "start", "ended")

    @property
    def title(self) -> str:
        """The process title, as ``ps`` shows it."""
        kind, _, name = self.actor.partition(":")
        vassal = self.vassal
        given = (vassal.procname_master if self.kind == "master" else "") or vassal.procname
        prefix = f"{vassal.procname_prefix_spaced} " if vassal.procname_prefix_spaced else vassal.procname_prefix
        title = prefix + (given or f"pyemperor {kind}: {name}") + vassal.procname_append
        return title.replace("\0", "")


class Fork(Message, frozen=True, tag="fork"):
    """Fork a process; its link and its listening sockets come along as descriptors, in this order."""

    id: int
    birth: Birth


class Kill(Message, frozen=True, tag="kill"):
    """SIGKILL the process ``id``; with ``family`` also the workers of a master. The tree is swept after it."""

    id: int
    family: bool = False


class Adopt(Message, frozen=True, tag="adopt"):
    """Fork workers for the master ``id``, which lives already; its office comes along (see :class:`Office`)."""

    id: int
    birth: Birth


class Forked(Message, frozen=True, tag="forked"):
    """The process ``id`` exists; its pidfd comes along."""

    id: int
    pid: int


class ForkFailed(Message, frozen=True, tag="fork-failed"):
    """The process ``id`` could not be made: ``errno`` of the system call, and words."""

    id: int
    errno: int
    reason: str


class Exited(Message, frozen=True, tag="exited"):
    """The process ``id`` is gone and nothing of its tree is left, but for ``left`` (unkillable) pids.

    ``code`` is the exit code, or -1 when it died by ``signal``. ``swept`` counts the processes that it
    left behind and that were killed.
    """

    id: int
    code: int
    signal: int = 0
    swept: int = 0
    left: tuple[int, ...] = ()


class Office(Message, frozen=True, tag="office"):
    """Emperor to master: the fork server was replaced; the socket to the new one comes along."""


#: What an office socket (a link to the fork server) carries.
OfficeMessage = Fork | Kill | Adopt | Forked | ForkFailed | Exited
LinkMessage = (
    Ready | NotReady | Extend | Beat | Alive | Accepting | Idle | Renew | Attended | Worn
    | Probe | Stop | Pause | RenewWorkers | Reloading | Trace | Inject | Office
)
