"""The parent as its child sees it: the same for a master and for a worker.

The child beats to it by a timed message to its own mailbox (so a beat proves that the mailbox is served,
and depends on nothing else), answers its probes, and reads its orders.
"""

from collections.abc import Callable
from dataclasses import dataclass

from pyemperor.actors.actor import Actor
from pyemperor.actors.pipe import Link
from pyemperor.protocol.messages import Alive, Beat, Inject, Message, Probe, Stop


@dataclass(frozen=True, slots=True)
class FromParent:
    """The parent sent a message; ``fds`` came with it."""

    message: Message
    fds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class ParentLost:
    """The parent's end of the link is closed: nobody supervises us any more."""

    reason: str


@dataclass(frozen=True, slots=True)
class Terminated:
    """This very process got SIGTERM or SIGINT: an operator wants it to finish."""

    signal: int


@dataclass(frozen=True, slots=True)
class BeatDue:
    """Time to beat."""


_SECOND = 1.0

#: Makes the link to the parent for an actor whose inbox will get FromParent and ParentLost.
Upward = Callable[[Actor], Link]


class Superior:
    """The child's side of being supervised.

    ``report(seq, now)`` tells what the child is doing; ``stop(mercy, why)`` makes it finish. Both are called
    on the child's own thread.
    """

    def __init__(
        self,
        actor: Actor,
        link: Link,
        interval: float,
        report: Callable[[int, float], Beat],
        stop: Callable[[float, str], None],
        orphan_mercy: float,
    ) -> None:
        self.link = link
        self._actor = actor
        self._interval = interval
        self._report = report
        self._stop = stop
        self._orphan_mercy = orphan_mercy
        self._seq = 0
        self._beat_at = 0.0

    def start(self, now: float) -> None:
        """Begin to beat."""
        self._beat_at = now
        self._beat(now)

    def take(self, message: object, now: float) -> bool:
        """Handle ``message`` if it is the parent's business; say whether it was."""
        match message:
            case BeatDue():
                self._beat(now)
            case FromParent(message=Probe(nonce=nonce)):
                self.link.send(Alive(nonce))
            case FromParent(message=Stop(mercy=mercy)):
                self._stop(mercy, "asked to stop")
            case FromParent(message=Inject() as fault):
                self._actor.inject(fault)
            case ParentLost(reason=reason):
                self._stop(self._orphan_mercy, f"the parent is gone ({reason})")
            case Terminated(signal=number):
                self._stop(self._orphan_mercy, f"signal {number}")
            case _:
                return False
        return True

    def beat_now(self, now: float) -> None:
        """Beat besides, for what cannot wait; what is told in the end does not count for the next one's life."""
        self._seq += 1
        self.link.send(self._report(self._seq, now))

    def _beat(self, now: float) -> None:
        self._seq += 1
        self.link.send(self._report(self._seq, now))
        # On the beat's own grid, so that lateness does not add up; what a pause missed is not made up for.
        self._beat_at += self._interval
        if self._beat_at <= now:
            self._beat_at = now + self._interval
        if self._interval >= _SECOND:
            # On whole seconds, like the kernel's round_jiffies(): processes that wake together share what the
            # processor has just loaded. A hundred vassals cost half.
            self._beat_at -= self._beat_at % _SECOND
        self._actor.after(self._beat_at - now, BeatDue())
