"""What happens, said twice at once: a log record for people, a trace entry for scenarios."""

from collections.abc import Callable

from loguru import logger

from pyemperor.protocol.messages import State, Trace

_LEVELS = {
    State.CONVICTED: "ERROR",
    State.CURSED: "ERROR",
    State.EXILED: "ERROR",
    State.KILLING: "WARNING",
    State.SUSPECT: "WARNING",
    State.BACKOFF: "WARNING",
}


class Journal:
    """The voice of one process. ``up`` carries traces to whoever watches; None when nobody does."""

    def __init__(self, actor: str, up: Callable[[Trace], None] | None = None) -> None:
        self.actor = actor
        self.up = up

    def state(self, actor: str, state: State, at: float, pid: int = 0, reason: str = "") -> None:
        """The process at address ``actor`` reached ``state``."""
        text = f"{actor} is {state}" + (f": {reason}" if reason else "")
        self.log(
            _LEVELS.get(state, "INFO"), text, at, actor, event="state", state=state, pid=pid, reason=reason
        )
        self.trace(Trace(at, actor, "state", state, pid, reason))

    def event(
        self, actor: str, event: str, at: float, pid: int = 0, reason: str = "", *, level: str = "INFO"
    ) -> None:
        """``event`` is one of ``protocol.messages.EVENTS``."""
        text = f"{actor} {event}" + (f": {reason}" if reason else "")
        self.log(level, text, at, actor, event=event, pid=pid, reason=reason)
        self.trace(Trace(at, actor, event, "", pid, reason))

    def log(self, level: str, text: str, at: float, actor: str = "", **extra: object) -> None:
        """Log ``text``; warnings and errors are traced as well, for scenarios that read the log."""
        logger.bind(actor=actor or self.actor, at=at, **extra).log(level, "{}", text)
        if self.up is not None and "event" not in extra and level in ("WARNING", "ERROR"):
            self.trace(Trace(at, actor or self.actor, "log", "", 0, text))

    def trace(self, trace: Trace) -> None:
        """Hand ``trace`` up, if somebody watches."""
        if self.up is not None:
            self.up(trace)
