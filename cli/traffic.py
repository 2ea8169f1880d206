"""When the clients of a scenario send their requests. Pure: the same in real and in simulated time."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pyemperor.protocol.load import Load


@dataclass(frozen=True, slots=True)
class Turn:
    """It is the turn of one client of a load that began at ``begin``, a time on the timeline's clock.

    ``number`` is that of the client, for a constant load that of the request.
    """

    load: str
    begin: float
    number: int


@dataclass(frozen=True, slots=True)
class Answered:
    """The request that was sent at ``turn`` is over: its status, "0" without an answer, and seconds."""

    turn: Turn
    status: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Next:
    """Come back with ``turn`` at ``at``."""

    at: float
    turn: Turn


class Traffic:
    """All loads of a scenario. ``over`` is true when the last request of the last load is answered."""

    def __init__(self, loads: Iterable[Load]) -> None:
        self._loads = {load.id: load for load in loads}
        self._pending = 0
        #: Requests that are sent and not answered.
        self.open = 0
        self.over = not self._loads
        #: Status and seconds of every request, by load.
        self.answers: dict[str, list[tuple[str, float]]] = {name: [] for name in self._loads}

    def begin(self, now: float) -> list[Next]:
        """The steady state has begun: the first turns."""
        turns = [turn for load in self._loads.values() for turn in _first(load, now)]
        return [self._next(turn.begin, turn) for turn in turns]

    def ask(self, turn: Turn) -> tuple[Load, list[Next]]:
        """It is somebody's turn: which request is to be sent now, and who comes next."""
        load = self._loads[turn.load]
        self.open += 1
        if load.kind != "constant":
            return load, []
        following = Turn(turn.load, turn.begin, turn.number + 1)
        at = turn.begin + following.number / load.rate
        return load, [self._next(at, following)] if at < turn.begin + load.duration else []

    def answered(self, answer: Answered, now: float) -> list[Next]:
        """A request is over: perhaps its client sends another."""
        load = self._loads[answer.turn.load]
        self.answers[load.id].append((answer.status, answer.seconds))
        self.open -= 1
        self._pending -= 1
        self.over = not self._pending
        if load.kind == "closed" and now + load.think < answer.turn.begin + load.duration:
            return [self._next(now + load.think, answer.turn)]
        return []

    def path(self, load: str) -> str:
        """What the requests of ``load`` ask for."""
        return self._loads[load].path

    def _next(self, at: float, turn: Turn) -> Next:
        self._pending += 1
        self.over = False
        return Next(at, turn)


def _first(load: Load, now: float) -> Iterator[Turn]:
    clients = load.clients if load.kind in ("burst", "closed") else 1
    for at in load.at:
        for number in range(clients):
            yield Turn(load.id, now + at, number)
