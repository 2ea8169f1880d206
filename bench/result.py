"""What a measurement hands back: rows of samples, with the targets of this release beside them."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from statistics import median
from typing import Any

#: The three that are compared. A row may lack some of them.
OURS, UWSGI, FCGIWRAP = "pyemperor", "uwsgi", "fcgiwrap"
PEERS = (OURS, UWSGI, FCGIWRAP)


@dataclass(frozen=True, slots=True)
class Target:
    """A bound on PyEmperor's median, or on its ratio to the peer ``against``."""

    limit: float
    against: str = ""
    at_least: bool = False

    def met(self, value: float) -> bool:
        """Tell whether ``value`` keeps the bound."""
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: its samples by peer, in the order in which they were taken."""

    name: str
    unit: str
    samples: dict[str, list[float]]
    targets: tuple[Target, ...] = ()
    #: The peers were measured in turn: sample ``i`` of each comes from the same round.
    in_turn: bool = False

    @property
    def more_is_better(self) -> bool:
        """Rates grow when things go well; times, sizes and failures shrink."""
        return self.unit.endswith("/s")

    def median(self, peer: str) -> float | None:
        """Return the median of a peer's samples, ``None`` without any."""
        samples = self.samples.get(peer)
        return median(samples) if samples else None

    def ratios(self, peer: str) -> list[float]:
        """Return PyEmperor's samples over those of ``peer``, round by round if there were rounds.

        The machine's mood changes from round to round, and much less inside one: so the ratio is taken
        inside. Without rounds it is the one ratio of the medians.
        """
        if peer == OURS or not self.samples.get(OURS) or not self.samples.get(peer):
            return []
        if self.in_turn:
            pairs = list(zip(self.samples[OURS], self.samples[peer], strict=True))
        else:
            pairs = [(median(self.samples[OURS]), median(self.samples[peer]))]
        return [ours / theirs for ours, theirs in pairs if theirs]

    def ratio(self, peer: str) -> float | None:
        """Return the median of :meth:`ratios`, ``None`` where there is none."""
        ratios = self.ratios(peer)
        return median(ratios) if ratios else None

    def verdict(self, target: Target) -> bool | None:
        """Tell whether the target is met, ``None`` when its figure was not measured."""
        value = self.ratio(target.against) if target.against else self.median(OURS)
        return None if value is None else target.met(value)

    def as_json(self) -> dict[str, Any]:
        """Return the row with its medians, ratios and verdicts, ready for a JSON file."""
        return {
            **asdict(self),
            "medians": {peer: self.median(peer) for peer in self.samples},
            "ratios": {peer: self.ratio(peer) for peer in PEERS if self.ratio(peer) is not None},
            "met": [self.verdict(target) for target in self.targets],
        }


@dataclass(frozen=True, slots=True)
class Result:
    """The rows of one measurement and what is to be said about them."""

    rows: Sequence[Row]
    notes: Sequence[str] = field(default=())


@dataclass(frozen=True, slots=True)
class Plan:
    """How long and how often to measure. Times are seconds."""

    rounds: int = 5
    wrk_hello: float = 3
    wrk_script: float = 1
    wrk_single: float = 1
    kills: int = 5
    #: Kills in the less usual situations.
    rare_kills: int = 3
    idle: float = 20
    reloading: float = 15
    #: Also what takes long: bodies of 1 GB and a cold Python script.
    full: bool = False
