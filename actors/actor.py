"""The base of all our actors: a pykka actor whose inbox also waits for descriptors and for time.

An actor never blocks (but for a moment, :meth:`EpollInbox.await_now`), never sleeps and never reads a clock.
Whatever happens to it is a message in its inbox: a ``tell`` of another actor, a descriptor that is ready
(:meth:`Inbox.watch`) or a moment that has come (:meth:`Inbox.after`). It handles one message at a time in
:meth:`Actor.handle`, which gets the time as an argument. So an actor that handles its messages is alive, one
that does not is hung, and the same class runs on real threads (:class:`Threads`) and in simulated time
(``actors/simulation``): pykka leaves the inbox, the future and the loop to implementors of new actor types, and
those are all that differ.
"""

import os
import select
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import pykka
from pykka._envelope import Envelope

from pyemperor.actors.clock import Timer, Timers, monotonic
from pyemperor.protocol.messages import Inject

#: Seconds that a wait may last at most; then it begins again.
_LONGEST = 86400.0

#: Turns readiness (an epoll event mask) into messages for the actor that watches.
Source = Callable[[int], Iterable[object]]


_OF_PYKKA = (
    pykka.messages._ActorStop,
    pykka.messages.ProxyCall,
    pykka.messages.ProxyGetAttr,
    pykka.messages.ProxySetAttr,
)


class Inbox(Protocol):
    """What an actor may wait for. Only :meth:`put` may be called from another thread."""

    def put(self, envelope: "Envelope[Any]", /) -> None: ...
    def get(self) -> "Envelope[Any]": ...
    def empty(self) -> bool: ...
    def after(self, seconds: float, message: object) -> Timer: ...
    def watch(self, fd: int, mask: int, source: Source) -> None: ...
    def unwatch(self, fd: int) -> None: ...
    def hang(self, seconds: float) -> None: ...
    def close(self) -> None: ...


class System(Protocol):
    """What the actors of one process stand on: threads and the machine's clock, or simulated ones."""

    def now(self) -> float: ...
    def inbox(self) -> Inbox: ...
    def run(self, actor: "Actor") -> None: ...


@dataclass(frozen=True, slots=True)
class Down:
    """Told to the owner of an actor when it has ended: ``error`` is None after an ordered stop."""

    actor: pykka.ActorRef[Any]
    error: BaseException | None


class Mail(pykka.Future[Any]):
    """A future that nobody waits for: its value is mailed, None for an error."""

    def __init__(self, mail: Callable[[Any], None]) -> None:
        super().__init__()
        self._mail = mail

    def set(self, value: Any = None) -> None:
        self._mail(value)

    def set_exception(self, exc_info: Any = None) -> None:
        self._mail(None)


class Actor(pykka.ThreadingActor):
    """One actor of a :class:`System`; subclasses implement :meth:`handle`.

    ``owner`` is told :class:`Down` when the actor ends, for whatever reason: pykka itself is silent when
    ``on_start`` fails, and its ``ask`` leaves an actor alive whose handler broke half-way. Here every
    error in a handler ends the actor, and the one who supervises it decides.
    """

    actor_inbox: Inbox

    def __init__(self, system: System, owner: pykka.ActorRef[Any] | None = None) -> None:
        self.system = system
        self.owner = owner
        #: What ended this actor, if it was not asked to stop.
        self.failure: BaseException | None = None
        super().__init__()

    def handle(self, message: Any, now: float) -> Any:
        """Handle one message at the time ``now`` (seconds, monotonic); the value answers an ``ask``."""
        raise NotImplementedError

    def run_here(self) -> None:
        """Run this actor on the calling thread, until it ends."""
        pykka.ActorRegistry.register(self.actor_ref)
        self._actor_loop()

    def after(self, seconds: float, message: object) -> Timer:
        """Have ``message`` delivered to this actor after ``seconds``."""
        return self.actor_inbox.after(seconds, message)

    # ---- what differs from pykka's own loop -------------------------------------------------------

    def _create_actor_inbox(self) -> Inbox:  # type: ignore[override]  # pykka's is static; ours asks the system
        return self.system.inbox()

    def _start_actor_loop(self) -> None:
        self.system.run(self)

    def inject(self, fault: Inject) -> None:
        """Carry out a scenario's fault; actors that supervise override it."""

    def _handle_receive(self, message: Any) -> Any:
        # pykka's own messages are rare; ours need not be compared with each of them.
        if isinstance(message, _OF_PYKKA):
            return super()._handle_receive(message)
        return self.handle(message, self.system.now())

    def begin(self) -> None:
        """Run ``on_start``; an error in it ends the actor like any other."""
        try:
            self.on_start()
        except BaseException as error:
            self._fail(error)

    def receive(self, envelope: "Envelope[Any]") -> None:
        """Handle one envelope."""
        reply_to = envelope.reply_to
        try:
            answer = self._handle_receive(envelope.message)
            if reply_to is not None:
                reply_to.set(answer)
        except BaseException as error:
            if reply_to is not None:
                reply_to.set_exception()
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        self.failure = error
        self._handle_failure(type(error), error, error.__traceback__)
        try:
            self.on_failure(type(error), error, error.__traceback__)
        except Exception as another:
            self._handle_failure(type(another), another, another.__traceback__)
        finally:
            self._ended(error)

    def _stop(self) -> None:
        super()._stop()
        self._ended(None)

    def _ended(self, error: BaseException | None) -> None:
        if self.owner is not None and self.owner.is_alive():
            self.owner.tell(Down(self.actor_ref, error))

    def _actor_loop(self) -> None:
        self.begin()
        while not self.actor_stopped.is_set():
            self.receive(self.actor_inbox.get())
        self._actor_loop_teardown()
        self.actor_inbox.close()


class Threads:
    """The real system: a thread an actor, the machine's monotonic clock, epoll."""

    now = staticmethod(monotonic)

    def inbox(self) -> Inbox:
        return EpollInbox()

    def run(self, actor: Actor) -> None:
        threading.Thread(target=actor._actor_loop, name=type(actor).__name__, daemon=True).start()


class EpollInbox:
    """Mail, descriptors and timers in one wait.

    Order of delivery: mail, then everything that the descriptors had to say, then timers. So a timer that
    judges silence comes after whatever had already been said when it was due.
    """

    def __init__(self) -> None:
        self._mail: deque[Envelope[Any]] = deque()
        self._timers = Timers()
        #: What is waited for, by descriptor: an epoll mask, and whom to tell.
        self._watched: dict[int, tuple[int, Source]] = {}
        self._epoll = select.epoll()
        self._bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._epoll.register(self._bell, select.EPOLLIN)
        self._poll = select.poll()
        self._poll.register(self._bell, select.POLLIN)
        self._asleep = False

    def put(self, envelope: "Envelope[Any]", /) -> None:
        self._mail.append(envelope)
        if self._asleep:
            os.eventfd_write(self._bell, 1)

    def empty(self) -> bool:
        return not self._mail

    def get(self) -> "Envelope[Any]":
        while not self._mail:
            self._wait()
        return self._mail.popleft()

    def _wait(self) -> None:
        # Asleep is set before the last look at the mail, and put() looks at it after its append: no lost bell.
        mail = self._mail
        due = self._timers.next_at()
        self._asleep = True
        events = self._epoll.poll(0 if mail else self._patience(due))
        self._asleep = False
        for fd, mask in events:
            if fd == self._bell:
                os.eventfd_read(fd)
            elif watched := self._watched.get(fd):
                for message in watched[1](mask):
                    mail.append(Envelope(message))
        if due is not None and due <= (now := monotonic()):
            for message in self._timers.due(now):
                mail.append(Envelope(message))

    def _patience(self, due: float | None) -> float:
        if due is None:
            return -1
        # epoll counts in milliseconds and rounds up, so no timer is polled for in a busy loop; 31 bits of them.
        wait = due - monotonic()
        return 0.0 if wait < 0 else wait if wait < _LONGEST else _LONGEST

    def after(self, seconds: float, message: object) -> Timer:
        return self._timers.set(monotonic() + seconds, message)

    def watch(self, fd: int, mask: int, source: Source) -> None:
        """Call ``source`` when ``fd`` is ready; watching it again changes both.

        Without any mask only its end is told (EPOLLHUP, EPOLLERR).
        """
        watched = self._watched.get(fd)
        if watched is None:
            self._epoll.register(fd, mask)
        elif watched[0] != mask:
            self._epoll.modify(fd, mask)
        self._watched[fd] = (mask, source)

    def unwatch(self, fd: int) -> None:
        """Forget ``fd``; always before it is closed, so that a late event cannot meet its successor."""
        if self._watched.pop(fd, None) is not None:
            self._epoll.unregister(fd)

    def await_now(self, fd: int, mask: int, seconds: float) -> bool:
        """Wait here for ``fd``, which nobody watches; False when there is mail, or nothing for ``seconds``.

        For moments only: no timer comes before it is over. It costs a third of a watch, a wait and an unwatch.
        """
        poll = self._poll
        poll.register(fd, mask)
        self._asleep = True
        events = poll.poll(0 if self._mail else seconds * 1000)
        self._asleep = False
        poll.unregister(fd)
        ready = False
        for one, _ in events:
            if one == fd:
                ready = True
            else:
                os.eventfd_read(one)
        return ready

    def hang(self, seconds: float) -> None:
        """Block this thread as a hung handler would (fault injection); 0 means for ever."""
        threading.Event().wait(seconds or None)

    def close(self) -> None:
        self._epoll.close()
        self._watched.clear()

    def __del__(self) -> None:
        # Only now can no other thread ring: a bell closed earlier might be somebody else's descriptor.
        os.close(self._bell)
