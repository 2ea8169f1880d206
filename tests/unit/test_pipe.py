"""Links between processes on real socketpairs: what arrives, what waits, what is dropped, and how a link ends."""

import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest

from pyemperor.actors.actor import EpollInbox
from pyemperor.actors.pipe import MAX_FDS, MAX_WAITING, Pipe
from pyemperor.protocol.frames import FrameDecoder, encode
from pyemperor.protocol.messages import (
    Beat,
    Forked,
    Message,
    Office,
    OfficeMessage,
    Probe,
    Ready,
    Stop,
    Trace,
)


@dataclass
class Got:
    message: Message
    fds: list[int]


@dataclass
class Lost:
    reason: str


@dataclass
class Link:
    """A pipe at one end, a bare socket at the other."""

    inbox: EpollInbox
    pipe: Pipe
    peer: socket.socket
    decoder: FrameDecoder = field(default_factory=FrameDecoder)

    def next(self) -> Got | Lost:
        message = self.inbox.get().message
        assert isinstance(message, Got | Lost)
        return message

    def quiet(self) -> bool:
        """Whether nothing else has arrived."""
        self.inbox.after(0, Lost("nothing"))
        return self.next() == Lost("nothing")

    def turn(self) -> None:
        """Let the pipe do what it can."""
        self.inbox.after(0, Lost("turn"))
        while self.next() != Lost("turn"):
            pass

    def read(self) -> list[Message]:
        """What the peer can read now."""
        self.peer.setblocking(False)
        messages: list[Message] = []
        while True:
            try:
                messages += self.decoder.feed(self.peer.recv(1 << 16))
            except BlockingIOError:
                return messages

    def read_all(self) -> list[Message]:
        """What the peer can read until nothing waits any more."""
        messages = []
        while more := self.read():
            messages += more
            self.turn()
        return messages

    def fill(self) -> int:
        """Send traces until the kernel takes no more; how many of them are on their way or wait."""
        sent = 0
        while not self.pipe._waiting:
            self.pipe.send(Trace(0.0, "a", "log", reason="x" * 500))
            sent += 1
        return sent


@pytest.fixture
def link() -> Iterator[Link]:
    ours, theirs = socket.socketpair()
    inbox = EpollInbox()
    with theirs:
        yield Link(inbox, Pipe(inbox, ours, Got, Lost), theirs)
        ours.close()
    inbox.close()


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


# ---- arriving -----------------------------------------------------------------------------------------------


def test_messages_arrive_in_order_and_in_any_portions(link: Link) -> None:
    data = b"".join(encode(Probe(number)) for number in range(3))
    link.peer.sendall(data[:10])
    assert link.quiet()
    link.peer.sendall(data[10:-1])
    assert [link.next(), link.next()] == [Got(Probe(0), []), Got(Probe(1), [])]
    link.peer.sendall(data[-1:])
    assert link.next() == Got(Probe(2), [])


def test_the_end_of_the_peer_is_reported_once_after_what_it_said(link: Link) -> None:
    link.peer.sendall(encode(Ready()))
    link.peer.close()
    assert link.next() == Got(Ready(), [])
    assert link.next() == Lost("the peer closed the link")
    assert link.quiet()


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"GET / HTTP", "no frame of ours"), (encode(Ready())[:1] + b"\x02" + bytes(4), "version 2")],
)
def test_a_peer_that_speaks_nonsense_has_lost_the_link(link: Link, data: bytes, words: str) -> None:
    link.peer.sendall(encode(Ready()) + data)
    assert link.next() == Got(Ready(), [])
    lost = link.next()
    assert isinstance(lost, Lost)
    assert words in lost.reason
    assert link.quiet()
    assert link.peer.recv(1) == b"", "our end is closed"


def test_nothing_but_its_own_messages_arrives_at_an_office() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    inbox = EpollInbox()
    pipe = Pipe(inbox, ours, Got, Lost, OfficeMessage)
    theirs.send(encode(Forked(1, 2)))
    theirs.send(encode(Ready()))
    assert inbox.get().message == Got(Forked(1, 2), [])
    assert isinstance(inbox.get().message, Lost)
    pipe.close()
    theirs.close()
    inbox.close()


# ---- descriptors --------------------------------------------------------------------------------------------


def test_descriptors_belong_to_the_message_that_carries_them(link: Link) -> None:
    """The kernel hands them over with whatever lies before their frame in the same read."""
    read, write = os.pipe()
    link.peer.sendall(encode(Probe(1)) + encode(Beat(1, 0.0)))
    socket.send_fds(link.peer, [encode(Office())], [write])
    link.peer.sendall(encode(Probe(2)))
    os.close(write)
    got = [link.next() for _ in range(4)]
    assert [one.message for one in got if isinstance(one, Got)] == [Probe(1), Beat(1, 0.0), Office(), Probe(2)]
    carried = got[2]
    assert isinstance(carried, Got)
    assert [len(one.fds) for one in got if isinstance(one, Got)] == [0, 0, 1, 0]
    assert not os.get_inheritable(carried.fds[0])
    os.write(carried.fds[0], b"it is the one")
    assert os.read(read, 100) == b"it is the one"
    for fd in (read, *carried.fds):
        os.close(fd)


def test_descriptors_wait_for_the_rest_of_their_frame(link: Link) -> None:
    frame = encode(Office())
    socket.send_fds(link.peer, [frame[:3]], [0])
    assert link.quiet()
    link.peer.sendall(frame[3:])
    got = link.next()
    assert isinstance(got, Got)
    assert len(got.fds) == 1
    os.close(got.fds[0])


def test_a_peer_cannot_pile_up_descriptors_here(link: Link) -> None:
    before = descriptors()
    for _ in range(MAX_FDS + 1):
        socket.send_fds(link.peer, [encode(Ready())], [0])
    got = [link.next() for _ in range(MAX_FDS + 2)]
    assert got[-1] == Lost("the peer sent descriptors that belong to no message")
    assert descriptors() == before - 1


def test_descriptors_sent_to_a_peer_that_does_not_read_are_ours_until_they_go(link: Link) -> None:
    before = descriptors()
    read, write = os.pipe()
    link.fill()
    link.pipe.send(Office(), (write,))
    os.close(write)
    link.peer.setblocking(False)
    came: list[int] = []
    decoder = FrameDecoder()
    office_seen = False
    while not office_seen:
        try:
            data, fds, _, _ = socket.recv_fds(link.peer, 1 << 16, 4)
        except BlockingIOError:
            link.turn()
            continue
        came += fds
        office_seen = any(isinstance(message, Office) for message in decoder.feed(data))
    os.write(came[0], b"still open")
    assert os.read(read, 100) == b"still open"
    os.close(came[0])
    os.close(read)
    assert descriptors() == before


def test_what_waits_is_given_back_when_the_link_closes(link: Link) -> None:
    before = descriptors()
    link.fill()
    link.pipe.send(Office(), (0,))
    assert descriptors() == before + 1
    link.pipe.close()
    link.pipe.close()
    assert descriptors() == before - 1


# ---- a peer that does not read -----------------------------------------------------------------------------


def test_of_beats_only_the_newest_waits(link: Link) -> None:
    traces = link.fill()
    for seq in range(1, 50):
        link.pipe.send(Beat(seq, float(seq)))
    link.pipe.send(Probe(1))
    link.pipe.send(Beat(50, 50.0))
    assert link.pipe.dropped == 49
    got = link.read_all()
    assert [type(message) for message in got[:traces]] == [Trace] * traces
    assert got[traces:] == [Beat(50, 50.0), Probe(1)]


def test_traces_beyond_the_bound_are_dropped_and_counted(link: Link) -> None:
    traces = link.fill()
    for number in range(MAX_WAITING + 100):
        link.pipe.send(Trace(float(number), "a", "log"))
    link.pipe.send(Ready())
    assert 100 <= link.pipe.dropped <= 101
    got = link.read_all()
    assert got[-1] == Ready()
    assert len(got) == traces + MAX_WAITING + 100 - link.pipe.dropped + 1


def test_a_peer_that_never_reads_anything_has_lost_the_link(link: Link) -> None:
    link.fill()
    for number in range(2 * MAX_WAITING + 1):
        link.pipe.send(Probe(number))
    link.peer.sendall(encode(Ready()))
    assert link.next() == Got(Ready(), [])
    lost = link.next()
    assert isinstance(lost, Lost)
    assert "has not read" in lost.reason


def test_large_and_small_frames_survive_a_full_link(link: Link) -> None:
    sent: list[Message] = []
    for number in range(60):
        sent += [Trace(float(number), "a", "log", reason="y" * 20000), Stop(float(number))]
    for message in sent:
        link.pipe.send(message)
    assert link.pipe._waiting, "it was not full"
    assert link.read_all() == sent


def test_what_the_peer_has_not_read_is_known(link: Link) -> None:
    assert link.pipe.unread() == 0
    link.pipe.send(Probe(1))
    assert link.pipe.unread() > 0
    assert link.read() == [Probe(1)]
    assert link.pipe.unread() == 0
    link.pipe.close()
    assert link.pipe.unread() == 0


# ---- the end ------------------------------------------------------------------------------------------------


def test_sending_to_a_peer_that_is_gone_is_harmless_and_its_end_is_reported(link: Link) -> None:
    link.peer.close()
    link.pipe.send(Ready())
    link.pipe.send(Office(), (0,))
    assert link.next() == Lost("the peer closed the link") or link.quiet()
    link.pipe.send(Ready())


def test_a_finished_link_still_hears(link: Link) -> None:
    link.pipe.send(Ready())
    link.pipe.finish()
    data = link.peer.recv(100)
    assert list(link.decoder.feed(data)) == [Ready()]
    assert link.peer.recv(1) == b""
    link.peer.sendall(encode(Probe(3)))
    assert link.next() == Got(Probe(3), [])


def test_a_closed_link_delivers_what_was_sent(link: Link) -> None:
    link.pipe.send(Stop(1.0))
    link.pipe.close()
    assert list(link.decoder.feed(link.peer.recv(100))) == [Stop(1.0)]
    assert link.peer.recv(1) == b""
