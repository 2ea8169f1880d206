"""Faults of links, injected by scenarios: frames that are lost or late. Pure."""

from collections.abc import Callable
from fnmatch import fnmatchcase

from pyemperor.protocol.messages import Inject, Message


def addresses(pattern: str, actor: str) -> bool:
    """Whether ``pattern`` (``master:app``, ``worker:app/*``) means ``actor``."""
    return fnmatchcase(actor, pattern)


class LinkFaults:
    """The faults that are on, by id. ``chance()`` is a number in [0, 1)."""

    def __init__(self, chance: Callable[[], float]) -> None:
        self._chance = chance
        self._on: dict[str, Inject] = {}

    def apply(self, fault: Inject) -> None:
        """Switch ``fault`` on, or with ``heal`` the fault of that id off."""
        if fault.kind == "heal":
            self._on.pop(fault.id, None)
        elif fault.kind in ("drop", "delay"):
            self._on[fault.id] = fault

    def delay(self, source: str, target: str, message: Message) -> float | None:
        """Seconds by which ``message`` is late between these two actors; None when it is lost."""
        late = 0.0
        for fault in self._on.values():
            if _carries(fault.target, source, target) and self._hits(fault, message):
                if fault.kind == "drop":
                    return None
                late += fault.seconds
        return late

    def _hits(self, fault: Inject, message: Message) -> bool:
        tag = type(message).__struct_config__.tag
        return (not fault.match or fault.match == tag) and self._chance() < fault.probability

    def __bool__(self) -> bool:
        return bool(self._on)


def _carries(link: str, source: str, target: str) -> bool:
    """Whether ``link:A>B`` or ``link:A<>B`` is the direction from ``source`` to ``target``."""
    ends = link.removeprefix("link:")
    if "<>" in ends:
        left, right = ends.split("<>")
        return (addresses(left, source) and addresses(right, target)) or (
            addresses(right, source) and addresses(left, target)
        )
    left, right = ends.split(">") if ">" in ends else reversed(ends.split("<"))
    return addresses(left, source) and addresses(right, target)
