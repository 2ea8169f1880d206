"""The inbox of a real actor (mail, descriptors, timers in one wait), and the actor that lives on it."""

import os
import queue
import select
import threading
from collections.abc import Iterator
from typing import Any

import pykka
import pytest
from pykka._envelope import Envelope

from pyemperor.actors.actor import Actor, Down, EpollInbox, Threads
from pyemperor.actors.clock import Timers, monotonic


def mail(message: object) -> "Envelope[Any]":
    """Wrap a message as pykka does."""
    return Envelope(message)


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    read, write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    yield read, write
    os.close(read)
    os.close(write)


# ---- order ------------------------------------------------------------------------------------------------


def test_mail_comes_before_descriptors_and_these_before_timers(inbox: EpollInbox, pipe: tuple[int, int]) -> None:
    read, write = pipe
    inbox.after(0, "timer")
    inbox.watch(read, select.EPOLLIN, lambda _: (os.read(read, 1), "said"))
    os.write(write, b"x")
    inbox.put(mail("mail"))
    assert [inbox.get().message for _ in range(4)] == ["mail", b"x", "said", "timer"]
    assert inbox.empty()


def test_a_timer_that_was_due_first_still_comes_after_what_was_said(
    inbox: EpollInbox, pipe: tuple[int, int]
) -> None:
    """A judge that overslept hears the heartbeats in the pipe before it judges."""
    read, write = pipe
    inbox.watch(read, select.EPOLLIN, lambda _: (os.read(read, 1),))
    inbox.after(-10, "judge")
    os.write(write, b"x")
    assert [inbox.get().message for _ in range(2)] == [b"x", "judge"]


def test_timers_fire_in_the_order_of_their_time(inbox: EpollInbox) -> None:
    begun = monotonic()
    for seconds, name in ((0.03, "c"), (0.01, "a"), (0.02, "b"), (0.02, "b2")):
        inbox.after(seconds, name)
    assert [inbox.get().message for _ in range(4)] == ["a", "b", "b2", "c"]
    assert monotonic() - begun >= 0.03


@pytest.mark.parametrize("seconds", [1e7, 1e9, float("inf")])
def test_a_timer_may_be_due_long_after_all_of_us(
    inbox: EpollInbox, pipe: tuple[int, int], seconds: float
) -> None:
    read, write = pipe
    inbox.after(seconds, "never")
    inbox.watch(read, select.EPOLLIN, lambda _: (os.read(read, 1),))
    os.write(write, b"x")
    assert inbox.get().message == b"x"


def test_a_cancelled_timer_never_fires(inbox: EpollInbox) -> None:
    cancelled = inbox.after(0, "cancelled")
    kept = inbox.after(0.001, "kept")
    cancelled.cancel()
    assert inbox.get().message == "kept"
    kept.cancel()  # harmless afterwards
    assert inbox.empty()


def test_timers_without_an_end() -> None:
    timers = Timers()
    first, second = timers.set(1.0, "first"), timers.set(2.0, "second")
    assert timers.next_at() == 1.0
    assert list(timers.due(0.9)) == []
    first.cancel()
    assert timers.next_at() == 2.0
    assert list(timers.due(2.0)) == ["second"]
    second.cancel()
    assert timers.next_at() is None


# ---- descriptors --------------------------------------------------------------------------------------------


def test_the_newest_source_of_a_descriptor_counts(inbox: EpollInbox, pipe: tuple[int, int]) -> None:
    read, write = pipe
    os.write(write, b"x")
    inbox.watch(read, select.EPOLLIN, lambda _: ("old",))
    inbox.watch(read, select.EPOLLIN, lambda _: (os.read(read, 1), "new"))
    assert [inbox.get().message for _ in range(2)] == [b"x", "new"]


def test_a_descriptor_that_is_not_watched_says_nothing(inbox: EpollInbox, pipe: tuple[int, int]) -> None:
    read, write = pipe
    inbox.watch(read, select.EPOLLIN, lambda _: ("said",))
    os.write(write, b"x")
    inbox.unwatch(read)
    inbox.unwatch(read)
    inbox.after(0.01, "timer")
    assert inbox.get().message == "timer"


def test_a_source_may_silence_another_one(inbox: EpollInbox) -> None:
    """Both are ready in the same wait; the one that was closed by the other is not called any more."""
    pairs = [os.pipe2(os.O_NONBLOCK) for _ in range(2)]
    called: list[int] = []

    def source(read: int) -> Iterator[object]:
        called.append(read)
        for other, _ in pairs:
            inbox.unwatch(other)
        yield "said"

    for read, write in pairs:
        inbox.watch(read, select.EPOLLIN, lambda _, read=read: source(read))  # type: ignore[misc]
        os.write(write, b"x")
    inbox.after(0.01, "timer")
    assert [inbox.get().message for _ in range(2)] == ["said", "timer"]
    assert len(called) == 1
    for fd in (fd for pair in pairs for fd in pair):
        os.close(fd)


# ---- other threads ------------------------------------------------------------------------------------------


def test_no_bell_is_lost_between_two_threads() -> None:
    ours, theirs = EpollInbox(), EpollInbox()

    def answer() -> None:
        for _ in range(3000):
            ours.put(theirs.get())

    thread = threading.Thread(target=answer)
    thread.start()
    for number in range(3000):
        theirs.put(mail(number))
        assert ours.get().message == number
    thread.join()
    ours.close()
    theirs.close()


def test_mail_of_many_threads_arrives_in_the_order_of_each(inbox: EpollInbox) -> None:
    def post(sender: int) -> None:
        for number in range(500):
            inbox.put(mail((sender, number)))

    threads = [threading.Thread(target=post, args=(sender,)) for sender in range(4)]
    for thread in threads:
        thread.start()
    got = [inbox.get().message for _ in range(2000)]
    for thread in threads:
        thread.join()
    for sender in range(4):
        assert [number for who, number in got if who == sender] == list(range(500))


def test_whoever_hangs_takes_in_nothing_meanwhile(inbox: EpollInbox) -> None:
    inbox.after(0, "due")
    begun = monotonic()
    inbox.hang(0.05)
    assert monotonic() - begun >= 0.05
    assert inbox.get().message == "due"


def test_a_late_put_into_a_closed_inbox_is_harmless() -> None:
    inbox = EpollInbox()
    inbox.close()
    inbox.put(mail("late"))
    assert not inbox.empty()


def test_an_inbox_gives_its_descriptors_back() -> None:
    before = os.listdir("/proc/self/fd")
    for _ in range(20):
        inbox = EpollInbox()
        inbox.close()
        del inbox
    assert len(os.listdir("/proc/self/fd")) == len(before)


Downs = queue.Queue[Down]


# ---- actors -------------------------------------------------------------------------------------------------


class Owner(Actor):
    """Hands on what it is told about the end of others."""

    def __init__(self, downs: Downs) -> None:
        super().__init__(Threads())
        self._downs = downs

    def handle(self, message: Any, now: float) -> None:
        if isinstance(message, Down):
            self._downs.put(message)


class Child(Actor):
    """Does what it is told to."""

    def __init__(self, owner: "pykka.ActorRef[Owner]", *, stillborn: bool = False) -> None:
        super().__init__(Threads(), owner)
        self._stillborn = stillborn

    def on_start(self) -> None:
        if self._stillborn:
            raise RuntimeError("stillborn")

    def on_failure(self, *_: Any) -> None:
        if isinstance(self.failure, LookupError):
            raise RuntimeError("cannot even clean up")

    def handle(self, message: Any, now: float) -> Any:
        match message:
            case BaseException():
                raise message
            case ("after", seconds, later):
                self.after(seconds, later)
            case threading.Event():
                message.set()
            case "stop":
                self.stop()
        return message, now


@pytest.fixture
def downs() -> Downs:
    """The ends that the owner is told of."""
    return queue.Queue()


@pytest.fixture
def owner(downs: Downs) -> Iterator["pykka.ActorRef[Owner]"]:
    ref = Owner.start(downs)
    yield ref
    ref.stop()


def ask(actor: "pykka.ActorRef[Child]", message: object) -> tuple[object, float]:
    answer: Any = actor.ask(message, timeout=10)
    told, now = answer
    return told, now


def test_an_actor_is_given_the_time_and_answers(owner: "pykka.ActorRef[Owner]", downs: Downs) -> None:
    child = Child.start(owner)
    before = monotonic()
    message, now = ask(child, "hello")
    assert message == "hello"
    assert before <= now <= monotonic()
    child.stop()
    assert downs.get(timeout=10) == Down(child, None)


def test_a_message_to_oneself_comes_when_it_is_due(owner: "pykka.ActorRef[Owner]") -> None:
    child = Child.start(owner)
    rung = threading.Event()
    child.tell(("after", 0.01, rung))
    assert rung.wait(10)
    child.stop()


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(3), KeyError(), OSError(24, "x")])
def test_any_error_in_a_handler_ends_the_actor_alone(
    owner: "pykka.ActorRef[Owner]", downs: Downs, error: BaseException
) -> None:
    child, other = Child.start(owner), Child.start(owner)
    child.tell(error)
    assert downs.get(timeout=10) == Down(child, error)
    assert ask(other, "alive")[0] == "alive"
    other.stop()


def test_an_error_in_an_asked_handler_reaches_both_sides(owner: "pykka.ActorRef[Owner]", downs: Downs) -> None:
    child = Child.start(owner)
    error = ValueError("broken")
    with pytest.raises(ValueError, match="broken"):
        child.ask(error)
    assert downs.get(timeout=10) == Down(child, error)


def test_an_actor_that_cannot_start_is_reported(owner: "pykka.ActorRef[Owner]", downs: Downs) -> None:
    child = Child.start(owner, stillborn=True)
    down = downs.get(timeout=10)
    assert down.actor == child
    assert str(down.error) == "stillborn"


def test_an_owner_that_is_gone_is_not_told() -> None:
    owner = Owner.start(queue.Queue())
    child = Child.start(owner)
    owner.stop()
    child.stop()
    assert not child.is_alive()
