"""What the Emperor knows of one vassal, and of those who asked for something about it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import pykka

from pyemperor.actors.administration import Answer, Govern, Moments, Origin, Outcome, Record, VassalStatus
from pyemperor.actors.doorbell import Doorbell
from pyemperor.actors.overseer import Child
from pyemperor.actors.succession import Succession
from pyemperor.protocol.control import AttendantReport
from pyemperor.protocol.messages import Beat, State
from pyemperor.protocol.options import Vassal


class Asked:
    """A request about ``count`` vassals: collects the outcomes, and answers with the last of them."""

    def __init__(self, count: int, answer: Answer | None, future: "pykka.Future[Any]") -> None:
        self.future = future
        self._answer = answer
        self._left = count
        self._outcomes: list[Outcome] = []
        self._answer_if_over()

    def note(self, outcome: Outcome) -> None:
        """Take in what became of one of them, which may have another name by now."""
        self._left -= 1
        self._outcomes.append(outcome)
        self._answer_if_over()

    def _answer_if_over(self) -> None:
        if self._left == 0:
            self._outcomes.sort(key=lambda outcome: outcome.name)
            self.future.set(self._outcomes)
            if self._answer is not None:
                self._answer(self._outcomes)


@dataclass(slots=True, eq=False)
class Province:
    """One vassal."""

    name: str
    reread: Callable[[], object] | None
    succession: Succession = field(default_factory=Succession)
    #: The newest configuration that was taken.
    vassal: Vassal | None = None
    origin: Origin | None = None
    #: What waits for an address that is taken.
    unbound: Govern | None = None
    #: By generation, the id of its group and of its child, which is its claim to the sockets too.
    claims: dict[int, str] = field(default_factory=dict)
    #: The claim of the generation that begins next, which has the sockets already; "" when none does.
    next_claim: str = ""
    #: Rings when a connection waits for a vassal that sleeps.
    doorbell: Doorbell | None = None
    #: When the generation that rises must be ready.
    trial_until: float = 0.0
    reloads: list[Asked] = field(default_factory=list)
    stops: list[Asked] = field(default_factory=list)
    loyal: bool = False
    beat: Beat | None = None
    #: By generation, the processes beside its workers.
    attendants: dict[int, tuple[AttendantReport, ...]] = field(default_factory=dict)
    moments: Moments = field(default_factory=Moments)

    def status(self, child_of: Callable[[str], Child | None]) -> VassalStatus:
        """How it is; ``child_of`` gives the master of a claim."""
        succession = self.succession
        present = succession.present
        child = None if present is None else child_of(self.claims[present])
        masters = [child_of(self.claims[generation]) for generation in succession.live]
        beat = self.beat or Beat(0, 0.0, 0)
        return VassalStatus(
            name=self.name,
            state=self._state(child),
            generation=present or 0,
            pids=tuple(m.life.pid for m in masters if m and m.life.pid and m.life.state != State.ABSENT),
            restarts=child.restarts if child else 0,
            reason=child.reason if child else "",
            refused=succession.refused,
            reloading=succession.rising is not None,
            ready=beat.ready,
            requests=beat.requests,
            loyal=self.loyal,
            attendants=tuple(chain.from_iterable(self.attendants.get(one, ()) for one in succession.live)),
        )

    def record(self, child_of: Callable[[str], Child | None]) -> Record:
        """All that is known of it, as of now."""
        called_at = self.vassal.addresses if self.vassal is not None and self.vassal.on_demand else ()
        origin = self.origin or Origin(self.name)
        return Record(self.status(child_of), replace(self.moments), origin, next(map(str, called_at), ""))

    def _state(self, child: Child | None) -> str:
        if child is not None:
            return "PAUSED" if child.life.up and self.beat is not None and self.beat.paused else child.state
        if self.succession.asleep:
            return State.SLEEPING
        if self.succession.halted:
            return "STOPPED"
        return "REFUSED" if self.succession.refused else State.ABSENT


class Turns:
    """Whose turn it is to be reloaded when all are: ``at_a_time`` of them, each needs room for two generations."""

    def __init__(self, at_a_time: int) -> None:
        self._at_a_time = at_a_time
        self._waiting: deque[Province] = deque()
        self._taken: set[Province] = set()

    def ask(self, provinces: Iterable[Province]) -> None:
        """Have them take their turns; who waits already does so once."""
        self._waiting.extend(one for one in provinces if one not in self._waiting)

    def over(self, province: Province) -> None:
        """Its turn is over, if it had one."""
        self._taken.discard(province)

    def next(self) -> Iterator[Province]:
        """Those whose turn it is now."""
        while self._waiting and len(self._taken) < self._at_a_time:
            province = self._waiting.popleft()
            if not province.succession.leaving:
                self._taken.add(province)
                yield province

    def clear(self) -> None:
        """Nobody waits any more."""
        self._waiting.clear()
