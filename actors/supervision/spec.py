"""What a child is and how a supervisor treats its children, in the words of OTP. Pure."""

import math
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final, Literal, get_args

from pyemperor.actors.supervision.restart import Backoff


class Restart(StrEnum):
    """When a child that ended is started again."""

    #: Always.
    PERMANENT = "permanent"
    #: Unless it ended as expected: ``normal`` or ``shutdown``.
    TRANSIENT = "transient"
    #: Never; its spec is forgotten with it.
    TEMPORARY = "temporary"


class Strategy(StrEnum):
    """Who else is restarted with a child that ended."""

    #: Nobody.
    ONE_FOR_ONE = "one_for_one"
    #: All: they depend on each other.
    ONE_FOR_ALL = "one_for_all"
    #: Those after it in the list: they depend on it.
    REST_FOR_ONE = "rest_for_one"
    #: Nobody: children are instances of one spec, started on demand and stopped all at once.
    SIMPLE_ONE_FOR_ONE = "simple_one_for_one"


AutoShutdown = Literal["never", "any_significant", "all_significant"]
ChildType = Literal["worker", "supervisor"]
OnExceed = Literal["escalate", "curse"]

#: Stands for OTP's default of ``shutdown``: 5 s for a worker, no limit for a supervisor.
DEFAULT_SHUTDOWN: Final = -1.0


@dataclass(frozen=True, slots=True)
class ChildSpec:
    """One child: how to start it, when to restart it, how to stop it.

    ``start`` and ``args`` are opaque here; they go back to the shell in ``Launch``.
    ``shutdown``: seconds from the request to stop until force; 0 is OTP's ``brutal_kill``, ``math.inf`` its
    ``infinity``. Keep ``infinity`` for supervisors: killed, they would leave their children behind.
    ``significant``: its own end may end the supervisor, see :attr:`Flags.auto_shutdown`.

    Raises :class:`ValueError` for a value out of its range.
    """

    id: str
    start: object = None
    args: tuple[object, ...] = ()
    restart: Restart = Restart.PERMANENT
    shutdown: float = DEFAULT_SHUTDOWN
    type: ChildType = "worker"
    significant: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.id, str) or not self.id:
            raise ValueError(f"id must be a string that is not empty, not {self.id!r}")
        # Words of a configuration file become members; unknown ones raise.
        object.__setattr__(self, "restart", Restart(self.restart))
        _one_of("type", self.type, ChildType)
        if self.shutdown == DEFAULT_SHUTDOWN:
            object.__setattr__(self, "shutdown", math.inf if self.type == "supervisor" else 5.0)
        if not self.shutdown >= 0:
            raise ValueError(f"shutdown must be 0 or more seconds, not {self.shutdown!r}")
        if self.significant and self.restart is Restart.PERMANENT:
            raise ValueError("a significant child must be transient or temporary: a permanent one never ends")

    @property
    def temporary(self) -> bool:
        """Whether the spec is forgotten when the child ends."""
        return self.restart is Restart.TEMPORARY

    def instance(self, number: int, args: tuple[object, ...]) -> "ChildSpec":
        """Return the spec of one more child of ``simple_one_for_one``: ``id/number``, with ``args`` added."""
        return replace(self, id=f"{self.id}/{number}", args=self.args + args)


@dataclass(frozen=True, slots=True)
class Flags:
    """How a supervisor treats its children.

    ``intensity`` restarts within ``period`` seconds are allowed. One more, and ``on_exceed`` decides:
    ``escalate`` is OTP's rule, the supervisor stops all its children and ends with ``shutdown``; with
    ``curse`` each child has a budget of its own, and one that exceeds it waits in quarantine, until its
    back-off is over *and* the budget permits, while its neighbours go on and the supervisor never gives up.

    ``stable_after`` seconds up make a child stable: its next restart is immediate, back-off begins anew.
    ``auto_shutdown``: the supervisor ends when any, or the last, significant child ends by itself.
    ``parallel``: the children are strangers to each other (Elixir's ``DynamicSupervisor``): all start at once
    at boot and stop at once at shutdown. Only for ``one_for_one``; ``simple_one_for_one`` always does so.
    ``max_children``: ``StartChild`` is refused beyond it.

    Raises :class:`ValueError` for a value out of its range or a combination without a meaning.
    """

    strategy: Strategy = Strategy.ONE_FOR_ONE
    intensity: int = 5
    period: float = 60.0
    on_exceed: OnExceed = "escalate"
    backoff: Backoff = field(default_factory=Backoff)
    stable_after: float = 10.0
    auto_shutdown: AutoShutdown = "never"
    parallel: bool = False
    max_children: float = math.inf

    def __post_init__(self) -> None:
        object.__setattr__(self, "strategy", Strategy(self.strategy))
        _one_of("on_exceed", self.on_exceed, OnExceed)
        _one_of("auto_shutdown", self.auto_shutdown, AutoShutdown)
        if not isinstance(self.intensity, int) or self.intensity < 0:
            raise ValueError(f"intensity must be a whole number, 0 or more, not {self.intensity!r}")
        if not 0 < self.period < math.inf:
            raise ValueError(f"period must be more than 0 and finite seconds, not {self.period!r}")
        if not self.stable_after >= 0:
            raise ValueError(f"stable_after must be 0 or more seconds, not {self.stable_after!r}")
        if not self.max_children >= 0:
            raise ValueError(f"max_children must be 0 or more, not {self.max_children!r}")
        if self.parallel and self.grouped:
            raise ValueError(f"{self.strategy} starts and stops its children in order, never in parallel")

    @property
    def grouped(self) -> bool:
        """Whether the end of one child touches others."""
        return self.strategy in (Strategy.ONE_FOR_ALL, Strategy.REST_FOR_ONE)

    @property
    def simple(self) -> bool:
        """Whether all children are instances of one spec."""
        return self.strategy is Strategy.SIMPLE_ONE_FOR_ONE

    def misfit(self, spec: ChildSpec) -> str:
        """Return why these flags cannot have such a child; empty when they can."""
        if spec.significant and self.auto_shutdown == "never":
            return "a significant child needs auto_shutdown"
        return ""


def _one_of(key: str, value: object, choices: object) -> None:
    if value not in get_args(choices):
        raise ValueError(f"{key} must be one of {', '.join(get_args(choices))}, not {value!r}")
