"""The generations of vassals: begun, awaited, ended, and put to sleep, as ``succession`` decides.

Each generation of a vassal is a group of its own with one child, its master, so that it has a restart budget
of its own and ends on its own.
"""

import itertools
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from pyemperor.actors.administration import Govern, Outcome
from pyemperor.actors.doorbell import Doorbell
from pyemperor.actors.overseer import Overseer, flags
from pyemperor.actors.province import Asked, Province, Turns
from pyemperor.actors.succession import (
    Begin,
    Called,
    Command,
    Down,
    End,
    Event,
    Forget,
    Gone,
    Quiet,
    Rouse,
    Settled,
    Sleep,
    Stopped,
    Unusable,
    Up,
)
from pyemperor.actors.supervision import ChildSpec, ExitKind, Shutdown, Supervisor
from pyemperor.protocol.errors import ConfigError, Problem
from pyemperor.protocol.messages import (
    Accepting,
    Attended,
    Beat,
    Birth,
    Extend,
    Idle,
    Message,
    Reloading,
    State,
)
from pyemperor.protocol.options import Vassal

#: Vassals that are reloaded at a time when all are.
_AT_A_TIME = 2
#: Seconds after which an address that was taken is tried again.
_REBIND = 3.0


class Sockets(Protocol):
    """The listening sockets of all vassals; each generation has a claim (see ``listeners.SocketVault``)."""

    def bind(self, vassal: Vassal, claim: str = "", sharing: Collection[str] = ()) -> None: ...
    def release(self, claim: str) -> None: ...
    def doorbell(self, claim: str) -> Doorbell: ...


@dataclass(frozen=True, slots=True)
class _TrialOver:
    """A new generation has had its ``seconds`` to become ready, also if the machine could not make it."""

    claim: str
    seconds: float


@dataclass(frozen=True, slots=True)
class _Rung:
    """A connection waits for a vassal that sleeps."""

    claim: str
    province: Province


@dataclass(frozen=True, slots=True)
class Rebind:
    """Time to try the addresses again that were taken."""


class Generations(Overseer):
    """Carries out what the succession of each vassal commands.

    Subclasses say how a master is born (:meth:`birth_of`), and how a vassal is governed and reloaded.
    """

    def __init__(self, *args: Any, sockets: Sockets, **chance: Any) -> None:
        super().__init__(*args, **chance)
        self._sockets = sockets
        self._provinces: dict[str, Province] = {}
        #: Of every generation that has not ended, by claim.
        self._births: dict[str, Birth] = {}
        self._owners: dict[str, tuple[Province, int]] = {}
        self._names_used: set[str] = set()
        self._numbers = itertools.count(2)
        self._rebinding = False
        self._turns = Turns(_AT_A_TIME)

    @property
    def vassals(self) -> list[Vassal]:
        """Those of every generation that has not ended."""
        return [birth.vassal for birth in self._births.values()]

    def birth_of(self, vassal: Vassal) -> Birth:
        """What a master of ``vassal`` is to be."""
        raise NotImplementedError

    def govern(self, govern: Govern) -> None:
        """Have the vassal run with this configuration."""
        raise NotImplementedError

    def renew(self, province: Province) -> None:
        """Reload the vassal: its configuration is read again."""
        raise NotImplementedError

    def handle(self, message: Any, now: float) -> Any:
        self._now = now
        match message:
            case _TrialOver(claim=claim, seconds=seconds):
                self._trial_over(claim, seconds)
            case _Rung(claim=claim, province=province):
                # A connection rings until nobody listens for it any more, and so may ring twice.
                if province.succession.asleep and province.next_claim == claim:
                    self._log(province, "INFO", "has a connection waiting: starting it", "called")
                    self.apply(province, Called())
            case Rebind():
                self._rebinding = False
                self._rebind()
            case _:
                return super().handle(message, now)
        return None

    # ---- addresses ------------------------------------------------------------------------------------------

    def bind(self, province: Province, vassal: Vassal) -> str:
        """Bind the addresses of ``vassal`` for its next generation and return its claim; raises ConfigError.

        Those that a vassal of this name has already, be it one that ends, are shared.
        """
        name = vassal.name
        claim = f"{name}/{next(self._numbers)}" if name in self._names_used else name
        self._names_used.add(name)
        sharing = self._claims_of(name)
        if province.next_claim:
            sharing.append(province.next_claim)
        self._sockets.bind(vassal, claim, sharing)
        return claim

    def bind_again(self, claim: str) -> None:
        """Bind what a generation in exile has given up; any other holds its sockets. Raises ConfigError."""
        self._sockets.bind(self._births[claim].vassal, claim, self._claims_of(self._owners[claim][0].name))

    def _claims_of(self, name: str) -> list[str]:
        return [claim for claim, (owner, _) in self._owners.items() if owner.name == name]

    def wait_for_address(self, province: Province, govern: Govern, problems: Iterable[Problem]) -> None:
        """Try again to govern the vassal when an address may be free."""
        province.unbound = govern
        self.refuse(province, problems)
        if not self._rebinding:
            self._rebinding = True
            self.after(_REBIND, Rebind())

    def _rebind(self) -> None:
        for province in list(self._provinces.values()):
            if province.unbound is not None:
                self.govern(province.unbound)

    def refuse(self, province: Province, problems: Iterable[Problem]) -> None:
        """Say why the newest configuration cannot be used."""
        why = "; ".join(map(str, problems))
        if why != province.succession.refused:
            serves = province.succession.up
            what = "keeps its old configuration, the new one is refused" if serves else "is refused"
            self._log(province, "ERROR", f"{what}: {why}", "refused")
        self.apply(province, Unusable(why))

    # ---- commands -------------------------------------------------------------------------------------------

    def apply(self, province: Province, event: Event) -> None:
        """Carry out what follows from ``event``."""
        for command in province.succession.handle(event):
            self._perform(province, command)

    def _perform(self, province: Province, command: Command) -> None:
        match command:
            case Begin(generation=generation, vassal=vassal, trial=trial):
                self._begin(province, generation, vassal, trial)
            case End(generation=generation):
                self.supervise(province.claims[generation], Shutdown())
            case Sleep(vassal=vassal):
                self._sleep(province, vassal)
            case Rouse():
                if province.doorbell is not None:
                    province.doorbell.unwatch(self.actor_inbox)
                    province.doorbell = None
            case Settled(why=why):
                reloads, province.reloads = province.reloads, []
                self._tell(reloads, Outcome(province.name, not why, why))
                self._turns.over(province)
                self.take_turns()
            case Stopped():
                province.beat = None
                stops, province.stops = province.stops, []
                self._tell(stops, Outcome(province.name, True))
            case Forget():
                self._forget(province)

    def _forget(self, province: Province) -> None:
        if not province.succession.leaving or province.unbound is not None:
            return  # whoever was told that it had stopped wanted it again
        # One that took its name over while it ended is another's.
        if self._provinces.get(province.name) is province:
            del self._provinces[province.name]
        self._perform(province, Settled("it was removed"))

    def _tell(self, asked: Iterable[Asked], outcome: Outcome) -> None:
        for each in asked:
            each.note(outcome)

    def take_turns(self) -> None:
        """Reload those whose turn it is."""
        for province in self._turns.next():
            self.renew(province)

    def _begin(self, province: Province, generation: int, vassal: Vassal, trial: bool) -> None:
        claim, province.next_claim = province.next_claim, ""
        province.moments.first_run = province.moments.first_run or self._now
        birth = self.birth_of(vassal)
        province.claims[generation] = claim
        self._births[claim] = birth
        self._owners[claim] = province, generation
        if trial:
            self._log(province, "INFO", f"generation {generation} starts beside the one that serves", "reload")
            if (present := province.succession.present) is not None:
                self.tell_child(province.claims[present], Reloading())
            self._allow(province, claim, vassal.start_timeout)
        spec = ChildSpec(claim, start=birth, shutdown=vassal.reload_mercy)
        self.add_group(claim, Supervisor(flags(vassal.supervision), [spec], random=self._chance))

    def _sleep(self, province: Province, vassal: Vassal) -> None:
        """Listen on behalf of ``vassal``, by a claim of its own: what ends beside it takes nothing along."""
        try:
            claim = province.next_claim = province.next_claim or self.bind(province, vassal)
        except ConfigError as error:
            self.wait_for_address(province, Govern(vassal, province.reread), error.problems)
            return
        province.beat = None
        where = ", ".join(map(str, vassal.addresses))
        self.journal.state(f"master:{province.name}", State.SLEEPING, self._now, reason=where)
        province.doorbell = self._sockets.doorbell(claim)
        province.doorbell.watch(self.actor_inbox, _Rung(claim, province))

    # ---- generations on trial -------------------------------------------------------------------------------

    def _allow(self, province: Province, claim: str, seconds: float) -> None:
        """Give a generation on trial so long to become ready."""
        province.trial_until = self._now + seconds
        self.after(seconds, _TrialOver(claim, seconds))

    def _trial_over(self, claim: str, seconds: float) -> None:
        # Its workers may have requests already: it is asked to end, and has its mercy.
        if self._on_trial(claim) and self._now >= self._owners[claim][0].trial_until:
            self._generation_event(claim, lambda generation: Down(generation, f"not ready within {seconds:g} s"))

    def _generation_event(self, claim: str, event: Callable[[int], Event]) -> None:
        """Tell the vassal of ``claim`` what happened to its generation, unless that has ended."""
        if owner := self._owners.get(claim):
            province, generation = owner
            before, refused = province.succession.present, province.succession.refused
            self.apply(province, event(generation))
            now, why = province.succession.present, province.succession.refused
            if why and why != refused:
                text = f"generation {generation} failed: {why}; generation {now} serves on"
                self._log(province, "ERROR", text, "refused")
            elif now is not None and now != before:
                self._log(province, "INFO", f"generation {now} serves now", "reloaded")

    def _on_trial(self, claim: str) -> bool:
        owner = self._owners.get(claim)
        return owner is not None and owner[0].succession.rising == owner[1]

    # ---- what masters do ------------------------------------------------------------------------------------

    def child_enters(self, child: str) -> None:
        found = self.child(child)
        # Nobody will accept: who waits is refused, as who comes is. One that is cursed comes back by itself.
        if child in self._owners and found is not None and found.state is State.EXILED:
            self._sockets.release(child)

    def child_up(self, child: str) -> None:
        if owner := self._owners.get(child):
            owner[0].moments.ready = self._now
        self._generation_event(child, Up)

    def child_down(self, child: str) -> None:
        if owner := self._owners.get(child):
            owner[0].attendants.pop(owner[1], None)
        found = self.child(child)
        # What the machine refuses for the moment its supervisor tries again, until the trial is over.
        if found is not None and (found.ended.kind is not ExitKind.ENV or not self._on_trial(child)):
            why = found.ended.detail
            self._generation_event(child, lambda generation: Down(generation, why))

    def child_said(self, child: str, message: Message) -> None:
        if (owner := self._owners.get(child)) is None:
            return
        province, generation = owner
        if isinstance(message, Accepting):
            province.loyal = True
            province.moments.loyal = self._now
            self._log(province, "INFO", "has served its first request", "loyal")
        elif isinstance(message, Extend) and self._on_trial(child):
            self._allow(province, child, message.seconds)
        elif isinstance(message, Attended):
            province.attendants[generation] = message.attendants
        elif isinstance(message, Idle):
            self._generation_event(child, Quiet)
        elif isinstance(message, Beat) and generation == province.succession.present:
            province.beat = message
            province.moments.heartbeat = self._now

    def child_waits(self, child: str, until: float) -> None:
        if owner := self._owners.get(child):
            moments = owner[0].moments
            moments.wait_began, moments.wait = self._now, until - self._now

    def group_gone(self, group: str, reason: str) -> None:
        self._births.pop(group)
        self._sockets.release(group)
        province, generation = self._owners.pop(group)
        self.apply(province, Gone(generation))
        del province.claims[generation]
        self._rebind()

    def _log(self, province: Province, level: str, text: str, event: str) -> None:
        actor = f"master:{province.name}"
        self.journal.log(level, f"vassal {province.name} {text}", self._now, actor, event=event)
