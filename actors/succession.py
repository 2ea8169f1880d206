"""Which generation of a vassal serves: how a new one takes over, and when the old one ends. Pure.

::

    wanted ─► rising ─ ready ─► present ─ a newer one is ready ─► ending ─► gone
       │         └── fails ───────────────────────────────────────▲
       └─► asleep ─ called ─► present ─ idle ─► asleep

A generation is one configuration of the vassal, run by a master of its own. A new one rises beside the
present one and takes over when it is ready; if it fails, the present one serves on. When there is none that
serves, the newest is the present one at once, and is restarted by its own supervisor like any other child.
The newest configuration wins: it ends one that still rises.

A vassal that starts on demand has no generation until it is called, and again from when it is idle: it is asleep.
One that fails is not: its supervisor has it, with its back-off, whoever calls.
"""

from dataclasses import dataclass

from pyemperor.protocol.options import Vassal

# ---- events ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Want:
    """It is to run with this configuration."""

    vassal: Vassal


@dataclass(frozen=True, slots=True)
class Unusable:
    """Its newest configuration cannot be used, for ``why``."""

    why: str


@dataclass(frozen=True, slots=True)
class Halt:
    """It is to be stopped; with ``forget`` it is not known any more when it is gone."""

    forget: bool = False


@dataclass(frozen=True, slots=True)
class Up:
    """The generation can do its work."""

    generation: int


@dataclass(frozen=True, slots=True)
class Down:
    """The master of the generation is gone, or was not ready in time; its supervisor may start another."""

    generation: int
    why: str


@dataclass(frozen=True, slots=True)
class Gone:
    """The generation has ended, with its supervisor and all its processes."""

    generation: int


@dataclass(frozen=True, slots=True)
class Called:
    """A connection waits for it."""


@dataclass(frozen=True, slots=True)
class Quiet:
    """Nobody has asked the generation for anything for so long that it need not run."""

    generation: int


Event = Want | Unusable | Halt | Up | Down | Gone | Called | Quiet

# ---- commands -------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Begin:
    """Start this generation, under a supervisor of its own; ``trial``: beside one that serves."""

    generation: int
    vassal: Vassal
    trial: bool


@dataclass(frozen=True, slots=True)
class End:
    """Ask this generation to finish what it accepted and to end; ``Gone`` follows."""

    generation: int


@dataclass(frozen=True, slots=True)
class Settled:
    """What was wanted last has come about, or has not: then ``why`` says why."""

    why: str = ""


@dataclass(frozen=True, slots=True)
class Stopped:
    """Nothing of it runs any more."""


@dataclass(frozen=True, slots=True)
class Forget:
    """Nothing of it is left, and nobody wants it."""


@dataclass(frozen=True, slots=True)
class Sleep:
    """Wait for a connection on behalf of this configuration; ``Called`` follows."""

    vassal: Vassal


@dataclass(frozen=True, slots=True)
class Rouse:
    """Do not wait for a connection any more."""


Command = Begin | End | Settled | Stopped | Forget | Sleep | Rouse


class Succession:
    """The generations of one vassal. :meth:`handle` is the only way in; the attributes are to be read."""

    __slots__ = (
        "_candidate", "_count", "_vassal", "asleep", "ending", "halted", "leaving", "present", "refused", "rising",
        "up",
    )  # fmt: skip

    def __init__(self) -> None:
        #: The generation that serves, or is restarted until it does.
        self.present: int | None = None
        #: Whether the present one does serve.
        self.up = False
        #: The generation on trial.
        self.rising: int | None = None
        #: Those that were asked to end.
        self.ending: set[int] = set()
        #: Why the newest configuration is not the present one.
        self.refused = ""
        #: It was stopped, and not wanted since.
        self.halted = False
        #: Nobody wants it any more: it is forgotten when it is gone.
        self.leaving = False
        #: It runs when it is called.
        self.asleep = False
        #: The configuration of the present generation, or that it sleeps with; and of the rising one.
        self._vassal: Vassal | None = None
        self._candidate: Vassal | None = None
        self._count = 0

    @property
    def live(self) -> list[int]:
        """All generations that have not ended: the present one, the rising one, those that end."""
        return [g for g in (self.present, self.rising, *sorted(self.ending)) if g is not None]

    def handle(self, event: Event) -> list[Command]:
        """Take in one event; the commands are to be carried out in order."""
        match event:
            case Want(vassal=vassal):
                return self._want(vassal)
            case Unusable(why=why):
                return self._unusable(why)
            case Halt(forget=forget):
                return self._halt(forget)
            case Up(generation=generation):
                return self._risen(generation)
            case Down(generation=generation, why=why):
                return self._fallen(generation, why)
            case Gone(generation=generation):
                return self._gone(generation)
            case Called():
                return self._called()
            case Quiet(generation=generation):
                return self._quiet(generation)

    def _want(self, vassal: Vassal) -> list[Command]:
        self.refused, self.halted, self.leaving = "", False, False
        waits = vassal.on_demand or (self.asleep and vassal.die_on_idle)
        commands = [*self._rouse(), *self._end_rising()]
        if self.present is None and waits:
            return [*commands, *self._sleep(vassal), Settled()]
        trial = self.present is not None and self.up
        if not trial:
            commands += self._end_present()
        return [*commands, self._begin(vassal, trial)]

    def _begin(self, vassal: Vassal, trial: bool) -> Begin:
        self._count += 1
        if trial:
            self.rising, self._candidate = self._count, vassal
        else:
            self.present, self._vassal = self._count, vassal
        return Begin(self._count, vassal, trial)

    def _unusable(self, why: str) -> list[Command]:
        if self.leaving:  # it is wanted again, if only it could
            self.leaving = self.halted = False
        self.refused = why
        return [Settled(why)]

    def _halt(self, forget: bool) -> list[Command]:
        self.halted, self.leaving, self.refused = True, forget, ""
        ended = [*self._rouse(), *self._end_rising(), *self._end_present()]
        return [*ended, Settled("it is being stopped"), *self._if_empty()]

    # ---- on demand ------------------------------------------------------------------------------------------

    def _called(self) -> list[Command]:
        if not self.asleep or self._vassal is None:
            return []
        return [*self._rouse(), self._begin(self._vassal, trial=False)]

    def _quiet(self, generation: int) -> list[Command]:
        """What it has accepted meanwhile it finishes; whoever comes next wakes another."""
        if generation != self.present or self.rising is not None or self._vassal is None:
            return []
        asleep = self._sleep(self._vassal)
        return [*asleep, *self._end_present()]

    def _sleep(self, vassal: Vassal) -> list[Command]:
        self.asleep, self._vassal = True, vassal
        return [Sleep(vassal)]

    def _rouse(self) -> list[Command]:
        asleep, self.asleep = self.asleep, False
        return [Rouse()] if asleep else []

    # ---- what becomes of a generation -----------------------------------------------------------------------

    def _risen(self, generation: int) -> list[Command]:
        if generation == self.rising:
            self.rising = None
            ended = self._end_present()
            self.present, self.up, self._vassal = generation, True, self._candidate
            return [*ended, Settled()]
        if generation == self.present and not self.up:
            self.up = True
            # Its own return is no news for whoever waits for the one that rises.
            return [] if self.rising is not None else [Settled()]
        return []

    def _fallen(self, generation: int, why: str) -> list[Command]:
        if generation == self.rising:
            self.refused = why
            return [*self._end_rising(), Settled(why)]
        if generation == self.present:
            settled = not self.up and self.rising is None
            self.up = False
            return [Settled(why)] if settled else []
        return []

    def _gone(self, generation: int) -> list[Command]:
        commands: list[Command] = []
        if generation == self.rising:
            self.rising, self.refused = None, "it ended"
            commands.append(Settled(self.refused))
        elif generation == self.present:
            self.present, self.up = None, False
        self.ending.discard(generation)
        return [*commands, *self._if_empty()]

    def _end_rising(self) -> list[Command]:
        generation, self.rising = self.rising, None
        return self._end(generation)

    def _end_present(self) -> list[Command]:
        generation, self.present, self.up = self.present, None, False
        return self._end(generation)

    def _end(self, generation: int | None) -> list[Command]:
        if generation is None:
            return []
        self.ending.add(generation)
        return [End(generation)]

    def _if_empty(self) -> list[Command]:
        if self.live:
            return []
        return [Stopped(), Forget()] if self.leaving else [Stopped()]
