"""How long an exchange waits: for anything to move, for its response to begin, for its script to end.

One timer serves them all. What moves only notes the time; the timer finds out when it fires, and is set anew,
unless that would be too late.
"""

from math import inf

from pyemperor.actors.actor import Inbox
from pyemperor.actors.clock import Timer


class Deadlines:
    """The deadlines of one exchange; ``message`` is delivered when it is time to look. Times are seconds."""

    #: Seconds of silence that are allowed.
    silence: float
    _timer: Timer | None = None
    _silent_at = _look_at = 0.0
    _begin_at = _end_at = inf

    def __init__(self, inbox: Inbox, message: object, silence: float) -> None:
        self._inbox = inbox
        self._message = message
        self.silence = silence

    @property
    def running(self) -> bool:
        """Whether somebody will be told."""
        return self._timer is not None

    def limit(self, begin: float, end: float, now: float) -> None:
        """Give the response ``begin`` seconds to begin, and all scripts of the request ``end``; 0 is no limit.

        A script that takes the place of another has what is left of the latter.
        """
        self._begin_at = now + (begin or inf)
        if self._end_at == inf:
            self._end_at = now + (end or inf)

    def begun(self) -> None:
        """The response has begun."""
        self._begin_at = inf

    def over(self, now: float) -> str:
        """Which limit is passed, "begin" or "end"; it is told once."""
        if now < self._begin_at and now < self._end_at:
            return ""
        passed = "begin" if self._begin_at <= self._end_at else "end"
        self._begin_at = self._end_at = inf
        return passed

    def moved(self, now: float, patience: float) -> None:
        """Something has: from now on ``patience`` seconds of silence are allowed."""
        self._silent_at = now + patience
        if self._timer and self._silent_at < self._look_at:  # patience is less than it was
            self.go_on(now)

    def silent(self, now: float) -> bool:
        """Whether nothing has moved for long enough."""
        return now >= self._silent_at

    def wait(self, seconds: float, now: float) -> None:
        """Allow ``seconds`` of silence, and look then."""
        self._silent_at = now + seconds
        self.go_on(now)

    def go_on(self, now: float, most: float = inf) -> None:
        """Look when the next deadline is due, and in ``most`` seconds in any case."""
        self.cancel()
        self._look_at = min(self._silent_at, self._begin_at, self._end_at, now + most)
        self._timer = self._inbox.after(max(0.0, self._look_at - now), self._message)

    def cancel(self) -> None:
        """Tell nobody."""
        if self._timer:
            self._timer.cancel()
            self._timer = None
