"""When a worker has done enough: after so many requests, so much time, or with so much memory. Pure.

The limits and their names are uWSGI's. Worker N has ``N - 1`` times the delta on top, so that workers which were
started together do not end together.
"""

import math
from dataclasses import dataclass

from pyemperor.protocol.options import Vassal

_MEGABYTE = 1024 * 1024


def most_requests(vassal: Vassal, index: int) -> float:
    """Requests after which worker ``index`` (from 1) is replaced."""
    if not vassal.max_requests:
        return math.inf
    return vassal.max_requests + (index - 1) * vassal.max_requests_delta


def longest_life(vassal: Vassal, index: int) -> float:
    """Seconds after which worker ``index`` (from 1) is replaced."""
    if not vassal.max_worker_lifetime:
        return math.inf
    return vassal.max_worker_lifetime + (index - 1) * vassal.max_worker_lifetime_delta


@dataclass(frozen=True, slots=True)
class Memory:
    """What a process uses, in bytes: resident, and its address space."""

    rss: int = 0
    space: int = 0


@dataclass(frozen=True, slots=True)
class Excess:
    """A limit is exceeded: ``why``, for people; ``evil`` limits are enforced by killing."""

    why: str
    evil: bool


def limits_memory(vassal: Vassal) -> bool:
    """Whether any limit of a worker's memory is set."""
    return any((vassal.reload_on_rss, vassal.reload_on_as, vassal.evil_reload_on_rss, vassal.evil_reload_on_as))


def excess(vassal: Vassal, memory: Memory) -> Excess | None:
    """Say which limit of its memory a worker exceeds, the evil ones first."""
    limits = (
        ("evil-reload-on-rss", vassal.evil_reload_on_rss, memory.rss),
        ("evil-reload-on-as", vassal.evil_reload_on_as, memory.space),
        ("reload-on-rss", vassal.reload_on_rss, memory.rss),
        ("reload-on-as", vassal.reload_on_as, memory.space),
    )
    for name, limit, used in limits:
        if limit and used >= limit:
            why = f"it uses {used / _MEGABYTE:.0f} MB, {name} is {limit / _MEGABYTE:g}"
            return Excess(why, name.startswith("evil"))
    return None
