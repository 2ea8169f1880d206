"""Links between simulated processes: in order, with latency, and bounded as a socketpair is."""

from collections import deque
from collections.abc import Callable
from typing import Any

from pyemperor.actors.pipe import MAX_WAITING
from pyemperor.actors.simulation.machine import Simulation
from pyemperor.actors.simulation.processes import SimulatedInbox, SimulatedProcess
from pyemperor.protocol.messages import Beat, Message, Trace

#: Seconds from a send until the peer can read it, at least.
LATENCY = 50e-6
#: What the kernel charges for a small frame, and how many of them a socketpair holds (Linux, wmem_default).
FRAME = 768
CAPACITY = 212992 // FRAME

_Packet = tuple[Message | None, tuple[int, ...]]
_EOF: _Packet = (None, ())


def pair(simulation: Simulation) -> "tuple[End, End]":
    """Both ends of a new link."""
    left, right = End(simulation), End(simulation)
    left.peer, right.peer = right, left
    return left, right


class End:
    """One end of a link. :meth:`attach` says who reads it.

    Until then, and while the reader does not look, it waits. What a peer leaves unread beyond the bound
    waits at the sender, under the rules of ``actors/pipe``.
    """

    __slots__ = (
        "_arrived", "_free_at", "_inbox", "_lost", "_process", "_simulation", "_waiting", "_wrap", "closed",
        "dropped", "peer", "unread",
    )  # fmt: skip

    peer: "End"

    def __init__(self, simulation: Simulation) -> None:
        self.closed = False
        self.dropped = 0
        #: How many of our frames the peer has not read.
        self.unread = 0
        self._simulation = simulation
        self._process: SimulatedProcess | None = None
        self._inbox: SimulatedInbox | None = None
        self._arrived: deque[_Packet] = deque()
        self._waiting: deque[_Packet] = deque()
        self._free_at = 0.0

    def attach(
        self,
        process: SimulatedProcess,
        inbox: SimulatedInbox,
        wrap: Callable[[Any, tuple[int, ...]], object],
        lost: Callable[[str], object],
    ) -> None:
        """Have ``inbox`` get ``wrap(message, fds)`` for what arrives, and ``lost(reason)`` at its end."""
        self._process, self._inbox, self._wrap, self._lost = process, inbox, wrap, lost
        process.own(self, self.close)
        inbox.sources[self] = self._drain
        if not inbox.blocked:
            self._drain()

    # ---- sending ----------------------------------------------------------------------------------------

    def send(self, message: Message, fds: tuple[int, ...] = ()) -> None:
        if self.closed or self.peer.closed:
            self._discard(fds)
        elif self.unread < CAPACITY and not self._waiting:
            self._transmit((message, fds))
        else:
            self._queue(message, fds)

    def _transmit(self, packet: _Packet) -> None:
        self.unread += 1
        simulation = self._simulation
        self._free_at = max(self._free_at, simulation.time + simulation.latency(LATENCY))
        simulation.at(self._free_at, self.peer._arrive, packet)

    def _queue(self, message: Message, fds: tuple[int, ...]) -> None:
        if isinstance(message, Beat):
            for index, (waiting, _) in enumerate(self._waiting):
                if isinstance(waiting, Beat):
                    self._waiting[index] = (message, fds)
                    self.dropped += 1
                    return
        if len(self._waiting) >= MAX_WAITING and isinstance(message, Trace):
            self.dropped += 1
            return
        self._waiting.append((message, fds))

    def finish(self) -> None:
        """Send no more: the peer reads what was sent, then the end."""
        if not self.closed:
            self._transmit(_EOF)

    def close(self) -> None:
        """Close this end: what waits here is lost, what was sent is not."""
        if self.closed:
            return
        self.finish()
        self.closed = True
        if self._process is not None and self._inbox is not None:
            self._process.disown(self)
            self._inbox.sources.pop(self, None)
        for _, fds in [*self._waiting, *self._arrived]:
            self._discard(fds)
        self._waiting.clear()
        self._arrived.clear()

    def _discard(self, fds: tuple[int, ...]) -> None:
        for fd in fds:
            self._simulation.take(fd).close()

    # ---- receiving --------------------------------------------------------------------------------------

    def _arrive(self, packet: _Packet) -> None:
        if self.closed:
            self._discard(packet[1])
        elif self._inbox is None or self._inbox.blocked:
            self._arrived.append(packet)
        else:
            self._deliver(self._inbox, packet)

    def _drain(self) -> None:
        while self._arrived and self._inbox is not None:
            self._deliver(self._inbox, self._arrived.popleft())

    def _deliver(self, inbox: SimulatedInbox, packet: _Packet) -> None:
        message, fds = packet
        peer = self.peer
        peer.unread -= 1
        inbox.notify(self._lost("the peer closed the link") if message is None else self._wrap(message, fds))
        if peer._waiting and not peer.closed:
            peer._transmit(peer._waiting.popleft())
