"""The vassals of the Emperor: which there are, which generation of each serves, and who asked for what.

Each generation of a vassal is a group of its own with one child, its master, so that it has a restart budget
of its own and ends on its own. ``succession`` decides which one serves; this actor carries that out.
"""

import itertools
from collections import deque
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from typing import Any, Protocol

import pykka

from pyemperor.actors import supervision
from pyemperor.actors.administration import (
    Absolve,
    Answer,
    Census,
    Dismiss,
    Govern,
    Outcome,
    Refuse,
    Reload,
    Status,
    Stop,
)
from pyemperor.actors.overseer import Overseer, flags
from pyemperor.actors.province import Asked, Province
from pyemperor.actors.succession import (
    Begin,
    Command,
    Down,
    End,
    Event,
    Forget,
    Gone,
    Halt,
    Settled,
    Stopped,
    Unusable,
    Up,
    Want,
)
from pyemperor.actors.supervision import ChildSpec, ExitKind, Shutdown, Supervisor
from pyemperor.protocol.errors import ConfigError, Problem
from pyemperor.protocol.messages import Accepting, Beat, Birth, Extend, Message, Renew
from pyemperor.protocol.options import Vassal

#: Vassals that are reloaded at a time when all are: each needs room for two generations.
_AT_A_TIME = 2
#: Seconds after which an address that was taken is tried again.
_REBIND = 3.0


class Sockets(Protocol):
    """The listening sockets of all vassals; each generation has a claim (see ``listeners.SocketVault``)."""

    def bind(self, vassal: Vassal, claim: str = "", sharing: Collection[str] = ()) -> None: ...
    def release(self, claim: str) -> None: ...


@dataclass(frozen=True, slots=True)
class _TrialOver:
    """A new generation has had its ``seconds`` to become ready, also if the machine could not make it."""

    claim: str
    seconds: float


@dataclass(frozen=True, slots=True)
class _Rebind:
    """Time to try the addresses again that were taken."""


class Realm(Overseer):
    """Runs the vassals that it is told to govern.

    Subclasses say how a master is born (:meth:`birth_of`) and what follows when a generation has ended
    (:meth:`group_gone`).
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
        #: Vassals that wait for their turn to be reloaded, and those whose turn it is.
        self._turns: deque[str] = deque()
        self._reloading: set[str] = set()

    @property
    def vassals(self) -> list[Vassal]:
        """Those of every generation that has not ended."""
        return [birth.vassal for birth in self._births.values()]

    def birth_of(self, vassal: Vassal) -> Birth:
        """What a master of ``vassal`` is to be."""
        raise NotImplementedError

    def handle(self, message: Any, now: float) -> Any:
        self._now = now
        match message:
            case Govern():
                self._govern(message)
            case Refuse():
                self._refuse(self._province(message.name, message.reread), message.problems, stop=message.stop)
            case Dismiss(name=name):
                if province := self._provinces.get(name):
                    self._log(province, "INFO", "is not wanted any more: stopping it", "dismiss")
                    self._halt(province, forget=True)
            case Status():
                return [self._provinces[name].status(self.child) for name in sorted(self._provinces)]
            case Census():
                return [(p.status(self.child), replace(p.moments)) for _, p in sorted(self._provinces.items())]
            case Reload():
                return self._reload(message)
            case Stop(name=str(name)):
                return self._stop_one(name, message.answer)
            case Absolve():
                return self._absolve(message)
            case _TrialOver(claim=claim, seconds=seconds):
                self._trial_over(claim, seconds)
            case _Rebind():
                self._rebinding = False
                self._rebind()
            case _:
                return super().handle(message, now)
        return None

    # ---- what there is to be ------------------------------------------------------------------------------

    def _province(self, name: str, reread: Callable[[], object] | None) -> Province:
        if name not in self._provinces:
            self._provinces[name] = Province(name, reread)
        return self._provinces[name]

    def _govern(self, govern: Govern) -> None:
        vassal = govern.vassal
        if govern.formerly in self._provinces and vassal.name not in self._provinces:
            province = self._provinces.pop(govern.formerly)
            self._provinces[vassal.name] = province
            province.name = vassal.name
            self._log(province, "INFO", f"is the new name of {govern.formerly}, whose sockets it keeps", "rename")
        province = self._province(vassal.name, govern.reread)
        province.reread = govern.reread
        if province.claims and province.vassal and province.vassal.owner != vassal.owner:
            self._change_hands(province, govern)
            return
        claim = self._new_claim(vassal.name)
        try:
            self._sockets.bind(vassal, claim, list(province.claims.values()))
        except ConfigError as error:
            province.unbound = replace(govern, formerly="")
            self._refuse(province, error.problems)
            if not self._rebinding:
                self._rebinding = True
                self.after(_REBIND, _Rebind())
            return
        province.vassal, province.unbound, province.next_claim = vassal, None, claim
        self._apply(province, Want(vassal))

    def _change_hands(self, province: Province, govern: Govern) -> None:
        """Somebody else's it must not share sockets or a moment with what runs: that ends first."""
        if not province.succession.halted:
            self._log(province, "INFO", "belongs to somebody else now: stopped, then started as theirs", "owner")
            self._halt(province)
        province.unbound = replace(govern, formerly="")

    def _new_claim(self, name: str) -> str:
        """The name, for its first generation; never one that was used before."""
        claim = f"{name}/{next(self._numbers)}" if name in self._names_used else name
        self._names_used.add(name)
        return claim

    def _refuse(self, province: Province, problems: Iterable[Problem], *, stop: bool = False) -> None:
        if stop and province.claims and not province.succession.halted:
            self._halt(province)
        why = "; ".join(map(str, problems))
        if why != province.succession.refused:
            serves = province.succession.up
            what = "keeps its old configuration, the new one is refused" if serves else "is refused"
            self._log(province, "ERROR", f"{what}: {why}", "refused")
        self._apply(province, Unusable(why))

    def _rebind(self) -> None:
        for province in list(self._provinces.values()):
            if province.unbound is not None:
                self._govern(province.unbound)

    def _halt(self, province: Province, *, forget: bool = False) -> None:
        province.unbound = None
        self._apply(province, Halt(forget))

    def halt_all(self) -> None:
        """Stop every vassal, and forget it."""
        self._turns.clear()
        for province in list(self._provinces.values()):
            self._halt(province, forget=True)

    # ---- generations ----------------------------------------------------------------------------------

    def _apply(self, province: Province, event: Event) -> None:
        for command in province.succession.handle(event):
            self._perform(province, command)

    def _perform(self, province: Province, command: Command) -> None:
        match command:
            case Begin(generation=generation, vassal=vassal, trial=trial):
                self._begin(province, generation, vassal, trial)
            case End(generation=generation):
                self.supervise(province.claims[generation], Shutdown())
            case Settled(why=why):
                reloads, province.reloads = province.reloads, []
                self._tell(reloads, Outcome(province.name, not why, why))
                self._reloading.discard(province.name)
                self._take_turns()
            case Stopped():
                province.beat = None
                stops, province.stops = province.stops, []
                self._tell(stops, Outcome(province.name, True))
            case Forget():
                del self._provinces[province.name]

    def _tell(self, asked: Iterable[Asked], outcome: Outcome) -> None:
        for each in asked:
            each.note(outcome)

    def _begin(self, province: Province, generation: int, vassal: Vassal, trial: bool) -> None:
        claim = province.next_claim
        province.moments.first_run = province.moments.first_run or self._now
        birth = self.birth_of(vassal)
        province.claims[generation] = claim
        self._births[claim] = birth
        self._owners[claim] = province, generation
        if trial:
            self._log(province, "INFO", f"generation {generation} starts beside the one that serves", "reload")
            self._allow(province, claim, vassal.start_timeout)
        spec = ChildSpec(claim, start=birth, shutdown=vassal.reload_mercy)
        self.add_group(claim, Supervisor(flags(vassal.supervision), [spec], random=self._chance))

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
            self._apply(province, event(generation))
            now, why = province.succession.present, province.succession.refused
            if why and why != refused:
                text = f"generation {generation} failed: {why}; generation {now} serves on"
                self._log(province, "ERROR", text, "refused")
            elif now is not None and now != before:
                self._log(province, "INFO", f"generation {now} serves now", "reloaded")

    def child_up(self, child: str) -> None:
        if owner := self._owners.get(child):
            owner[0].moments.ready = self._now
        self._generation_event(child, Up)

    def child_down(self, child: str) -> None:
        found = self.child(child)
        # What the machine refuses for the moment its supervisor tries again, until the trial is over.
        if found is not None and (found.ended.kind is not ExitKind.ENV or not self._on_trial(child)):
            why = found.ended.detail
            self._generation_event(child, lambda generation: Down(generation, why))

    def _on_trial(self, claim: str) -> bool:
        owner = self._owners.get(claim)
        return owner is not None and owner[0].succession.rising == owner[1]

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
        elif isinstance(message, Renew):
            self._reload(Reload(province.name))
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
        self._apply(province, Gone(generation))
        del province.claims[generation]
        self._rebind()

    # ---- what people ask ------------------------------------------------------------------------------------

    def _asked(self, names: Iterable[str], answer: Answer | None) -> Asked:
        return Asked(names, answer, self._create_future())

    def _unknown(self, name: str, answer: Answer | None) -> "pykka.Future[Any]":
        asked = self._asked([name], answer)
        asked.note(Outcome(name, False, f"there is no vassal {name}"))
        return asked.future

    def _reload(self, reload: Reload) -> "pykka.Future[Any]":
        if reload.name is not None and reload.name not in self._provinces:
            return self._unknown(reload.name, reload.answer)
        names = list(self._provinces) if reload.name is None else [reload.name]
        asked = self._asked(names, reload.answer)
        for name in names:
            self._provinces[name].reloads.append(asked)
        if reload.name is None:
            self._turns.extend(name for name in names if name not in self._turns)
            self._take_turns()
        else:
            self._renew(self._provinces[reload.name])
        return asked.future

    def _take_turns(self) -> None:
        while self._turns and len(self._reloading) < _AT_A_TIME:
            if province := self._provinces.get(self._turns.popleft()):
                self._reloading.add(province.name)
                self._renew(province)

    def _renew(self, province: Province) -> None:
        if province.reread is not None:
            province.reread()
        elif province.vassal is not None:
            self._govern(Govern(province.vassal))

    def _stop_one(self, name: str, answer: Answer | None) -> "pykka.Future[Any]":
        province = self._provinces.get(name)
        if province is None:
            return self._unknown(name, answer)
        asked = self._asked([name], answer)
        province.stops.append(asked)
        self._log(province, "INFO", "is stopped, until it is reloaded or its configuration changes", "stop")
        self._halt(province)
        return asked.future

    def _absolve(self, absolve: Absolve) -> "pykka.Future[Any]":
        province = self._provinces.get(absolve.name)
        if province is None:
            return self._unknown(absolve.name, absolve.answer)
        asked = self._asked([absolve.name], absolve.answer)
        present = province.succession.present
        if present is not None:
            claim = province.claims[present]
            self.supervise(claim, supervision.Absolve(claim))
        asked.note(Outcome(absolve.name, present is not None, "" if present else "it does not run"))
        return asked.future

    def _log(self, province: Province, level: str, text: str, event: str) -> None:
        actor = f"master:{province.name}"
        self.journal.log(level, f"vassal {province.name} {text}", self._now, actor, event=event)
