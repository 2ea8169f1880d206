"""A real fork server whose children do what they are told: ``python -m tests.faults.puppets FD``."""

import os
import signal
import socket
import sys

from pyemperor.actors.fork_server import ForkServer
from pyemperor.actors.linux import receive_fds, send_fds
from pyemperor.protocol.frames import decode, encode
from pyemperor.protocol.messages import Birth, Fork, ForkFailed, OfficeMessage
from pyemperor.protocol.options import Vassal


def puppet(birth: Birth, link: socket.socket, office: socket.socket | None, _socks: list[socket.socket]) -> int:
    """Obey: one order a line, one answer a line; end with the link, unless the vassal is called ``stubborn``."""
    orders = link.makefile("r", encoding="utf-8")
    for line in orders:
        order, _, argument = line.strip().partition(" ")
        match order:
            case "exit":
                return int(argument)
            case "die":
                os.kill(os.getpid(), int(argument))
            case "escape":
                _answer(link, *[_escape() for _ in range(int(argument))])
            case "leave":
                _answer(link, *[_fork() for _ in range(int(argument))])
            case "fds":
                _answer(link, *[_target(fd) for fd in sorted(map(int, os.listdir("/proc/self/fd")))])
            case "ids":
                _answer(link, os.getpid(), os.getppid(), os.getsid(0), os.getpgid(0), os.getuid(), os.getgid())
            case "vassal":
                _answer(link, birth.vassal.uid, birth.phase, os.getuid())
            case "hook":
                assert office is not None
                _answer(link, *_hook(office, birth.vassal.name, argument))
            case "mask":
                _answer(link, *signal.pthread_sigmask(signal.SIG_BLOCK, []))
    if birth.vassal.name == "stubborn":
        signal.pause()
    return 0


def _answer(link: socket.socket, *words: object) -> None:
    link.sendall(" ".join(map(str, words)).encode() + b"\n")


def _hook(office: socket.socket, name: str, phase: str) -> list[str]:
    """Ask for a hook of ``root``, whoever that is, at a master's office; what it says of itself."""
    ours, theirs = socket.socketpair()
    with ours:
        with theirs:
            birth = Birth("hook", Vassal(name, uid="root"), 10.0, phase=phase)
            send_fds(office, encode(Fork(1, birth)), [theirs.fileno()])
        answer = decode(receive_fds(office, 1 << 16, 4)[0], OfficeMessage)
        if isinstance(answer, ForkFailed):
            return answer.reason.split()
        ours.sendall(b"vassal\n")
        words = ours.recv(100).decode().split()
    receive_fds(office, 1 << 16, 4)  # that it has ended with its link
    return words


def _fork() -> int:
    """A child that holds everything open, the link above all, and ignores who asks it to end."""
    pid = os.fork()
    if pid == 0:
        for number in (signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        while True:
            signal.pause()
    return pid


def _escape() -> int:
    """A grandchild in a session of its own whose parent is gone."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.setsid()
        os.write(write, str(_fork()).encode())
        os._exit(0)
    os.waitpid(pid, 0)
    found = int(os.read(read, 20))
    os.close(read)
    os.close(write)
    return found


def _target(fd: int) -> str:
    try:
        return os.readlink(f"/proc/self/fd/{fd}").split(":")[0]
    except FileNotFoundError:
        return "listing"


_LIVES = dict.fromkeys(("master", "worker", "hook"), puppet)

if __name__ == "__main__":
    sys.exit(ForkServer(socket.socket(fileno=int(sys.argv[1])), _LIVES).serve())
