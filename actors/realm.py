"""The vassals of the Emperor: which there are to be, and who asked for what about them."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pykka

from pyemperor.actors import supervision
from pyemperor.actors.administration import (
    Absolve,
    Answer,
    Census,
    Dismiss,
    Govern,
    Moments,
    Outcome,
    Refuse,
    Reload,
    RenewWorkers,
    Status,
    Stop,
)
from pyemperor.actors.generations import Generations
from pyemperor.actors.province import Asked, Province
from pyemperor.actors.succession import Halt, Want
from pyemperor.protocol import messages
from pyemperor.protocol.errors import ConfigError
from pyemperor.protocol.messages import Message, Renew


class Realm(Generations):
    """Runs the vassals that it is told to govern.

    Subclasses say how a master is born (:meth:`birth_of`) and what follows when a generation has ended
    (:meth:`group_gone`).
    """

    def handle(self, message: Any, now: float) -> Any:
        self._now = now
        match message:
            case Govern():
                self.govern(message)
            case Refuse(name=name):
                province = self._province(name, message)
                province.unbound = None  # what waits for its address is not what is wanted now
                if message.stop and province.claims and not province.succession.halted:
                    self._halt(province)
                self.refuse(province, message.problems)
            case Dismiss(name=name):
                if unwanted := self._provinces.get(name):
                    self._dismiss(unwanted)
            case Status():
                return [self._provinces[name].status(self.child) for name in sorted(self._provinces)]
            case Census():
                return [self._provinces[name].record(self.child) for name in sorted(self._provinces)]
            case Reload():
                return self._reload(message)
            case RenewWorkers():
                self._renew_workers(message)
            case Stop(name=str(name)):
                return self._stop_one(name, message.answer)
            case Absolve():
                return self._absolve(message)
            case _:
                return super().handle(message, now)
        return None

    # ---- what there is to be ------------------------------------------------------------------------------

    def govern(self, govern: Govern) -> None:
        vassal = govern.vassal
        if govern.formerly in self._provinces and govern.formerly != vassal.name:
            self._rename(self._provinces[govern.formerly], vassal.name)
        province = self._province(vassal.name, govern)
        province.reread = govern.reread
        if province.vassal is not None and province.vassal.owner != vassal.owner:
            self._change_hands(province)
            if province.claims:
                province.unbound = replace(govern, formerly="")
                return
        try:
            claim = self.bind(province, vassal)
        except ConfigError as error:
            self.wait_for_address(province, replace(govern, formerly=""), error.problems)
            return
        before, province.next_claim = province.next_claim, claim
        province.vassal, province.unbound = vassal, None
        self.apply(province, Want(vassal))
        self._release(before)

    def _province(self, name: str, told: Govern | Refuse) -> Province:
        """That of the vassal ``name``, of which the Emperor may be ``told`` for the first time."""
        if (province := self._provinces.get(name)) is None:
            province = self._provinces[name] = Province(name, told.reread, moments=Moments(born=self._now))
        province.origin = told.origin or province.origin
        return province

    def _rename(self, province: Province, name: str) -> None:
        formerly, rival = province.name, self._provinces.get(name)
        if rival is not None and not rival.succession.leaving:
            self._dismiss(province)  # the file went over another's
            return
        # A rival that still ends does so without a name; whoever comes next shares its sockets.
        self._provinces[name] = self._provinces.pop(formerly)
        province.name = name
        self._log(province, "INFO", f"is the new name of {formerly}, whose sockets it keeps", "rename")

    def _dismiss(self, province: Province) -> None:
        self._log(province, "INFO", "is not wanted any more: stopping it", "dismiss")
        self._halt(province, forget=True)

    def _change_hands(self, province: Province) -> None:
        """Somebody else's it must not share sockets or a moment with what runs: that ends first."""
        if not province.succession.halted:
            self._log(province, "INFO", "belongs to somebody else now: stopped, then started as theirs", "owner")
            self._halt(province)

    def _halt(self, province: Province, *, forget: bool = False) -> None:
        province.unbound = None
        self.apply(province, Halt(forget))
        claim, province.next_claim = province.next_claim, ""
        self._release(claim)

    def _release(self, claim: str) -> None:
        """Give up what a vassal held while it slept, if it did."""
        if claim:
            self._sockets.release(claim)

    def halt_all(self) -> None:
        """Stop every vassal, and forget it."""
        self._turns.clear()
        for province in list(self._provinces.values()):
            self._halt(province, forget=True)

    def child_said(self, child: str, message: Message) -> None:
        owner = self._owners.get(child)
        if isinstance(message, Renew) and owner is not None:
            self._reload(Reload(owner[0].name))
        else:
            super().child_said(child, message)

    # ---- what people ask ------------------------------------------------------------------------------------

    def _asked(self, count: int, answer: Answer | None) -> Asked:
        return Asked(count, answer, self._create_future())

    def _unknown(self, name: str, answer: Answer | None) -> "pykka.Future[Any]":
        asked = self._asked(1, answer)
        asked.note(Outcome(name, False, f"there is no vassal {name}"))
        return asked.future

    def _reload(self, reload: Reload) -> "pykka.Future[Any]":
        if reload.name is not None and reload.name not in self._provinces:
            return self._unknown(reload.name, reload.answer)
        chosen: Iterable[Province] = self._provinces.values()
        if reload.name is not None:
            chosen = [self._provinces[reload.name]]
        provinces = [one for one in chosen if not one.succession.leaving or reload.name is not None]
        asked = self._asked(len(provinces), reload.answer)
        for province in provinces:
            province.reloads.append(asked)
        if reload.name is None:
            self._turns.ask(provinces)
            self.take_turns()
        else:
            self.renew(provinces[0])
        return asked.future

    def renew(self, province: Province) -> None:
        if province.reread is not None:
            province.reread()
        elif province.vassal is not None:
            self.govern(Govern(province.vassal))

    def _renew_workers(self, renew: RenewWorkers) -> None:
        province = self._provinces.get(renew.name)
        if province is not None and (present := province.succession.present) is not None:
            self.tell_child(province.claims[present], messages.RenewWorkers(renew.reason))

    def _stop_one(self, name: str, answer: Answer | None) -> "pykka.Future[Any]":
        province = self._provinces.get(name)
        if province is None:
            return self._unknown(name, answer)
        asked = self._asked(1, answer)
        province.stops.append(asked)
        self._log(province, "INFO", "is stopped, until it is reloaded or its configuration changes", "stop")
        self._halt(province)
        return asked.future

    def _absolve(self, absolve: Absolve) -> "pykka.Future[Any]":
        province = self._provinces.get(absolve.name)
        if province is None:
            return self._unknown(absolve.name, absolve.answer)
        asked = self._asked(1, absolve.answer)
        succession = province.succession
        if succession.present is not None:
            claim = province.claims[succession.present]
            try:
                self.bind_again(claim)
            except ConfigError as error:
                why = "; ".join(map(str, error.problems))
                self._log(province, "ERROR", f"cannot be absolved: {why}", "absolve")
                asked.note(Outcome(absolve.name, False, why))
                return asked.future
            self.supervise(claim, supervision.Absolve(claim))
        runs = succession.present is not None or succession.asleep
        asked.note(Outcome(absolve.name, runs, "" if runs else "it does not run"))
        return asked.future
