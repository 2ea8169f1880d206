"""What a supervisor hears of a child, and in which order."""

import os
import socket

from pyemperor.actors.actor import EpollInbox
from pyemperor.actors.host import ForkHost, HostLost
from pyemperor.actors.lifecycle import Born, Died, Key, LinkLost, Said
from pyemperor.actors.linux import receive_fds, send_fds
from pyemperor.protocol.frames import encode
from pyemperor.protocol.messages import Birth, Exited, Forked, NotReady
from pyemperor.protocol.options import Vassal

KEY = Key("app", 1)


def forked(inbox: EpollInbox) -> tuple[ForkHost, socket.socket, socket.socket]:
    """A host that has asked for a child; its office as the fork server has it, and the child's end of the link."""
    office, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    host = ForkHost(inbox, office, lambda _: ())
    host.fork(KEY, Birth("master", Vassal("app"), beat=1.0))
    _, (link,), _ = receive_fds(theirs, 1 << 16, 4)
    return host, theirs, socket.socket(fileno=link)


def test_what_a_child_said_is_heard_before_its_death(inbox: EpollInbox) -> None:
    host, office, link = forked(inbox)
    with office, link:
        office.sendall(encode(Forked(1, 4711)))
        office.sendall(encode(Exited(1, 78)))  # the news is read first, because it is here first
        link.sendall(encode(NotReady("no such folder", config=True)))
        link.close()
        heard = [inbox.get().message for _ in range(4)]
    born, died = Born(KEY, 4711), Died(KEY, 78)
    said, lost = Said(KEY, NotReady("no such folder", config=True)), LinkLost(KEY, "the peer closed the link")
    assert sorted(heard, key=str) == sorted([born, died, said, lost], key=str)
    assert heard.index(said) < heard.index(died)
    assert heard.index(lost) < heard.index(died)
    host.forget(KEY)
    assert inbox.get().message == HostLost()


def test_so_it_is_when_nobody_but_the_machine_tells_of_its_death(inbox: EpollInbox) -> None:
    host, office, link = forked(inbox)
    pid = os.fork()
    if pid == 0:
        os._exit(78)
    pidfd = os.pidfd_open(pid)
    with link:
        send_fds(office, encode(Forked(1, pid)), (pidfd,))
        assert inbox.get().message == Born(KEY, pid)
        os.close(pidfd)
        office.close()
        inbox.get()  # the fork server is gone
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        link.sendall(encode(NotReady("no such folder", config=True)))
        link.close()
        heard = [inbox.get().message for _ in range(3)]
    assert [type(one) for one in heard] == [Said, LinkLost, Died]
    host.forget(KEY)
