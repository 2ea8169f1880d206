"""A real fork server whose children do what they are told: ``python -m tests.faults.puppets FD``."""

import os
import signal
import socket
import sys

from pyemperor.actors.fork_server import ForkServer
from pyemperor.protocol.messages import Birth


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
            case "mask":
                _answer(link, *signal.pthread_sigmask(signal.SIG_BLOCK, []))
    if birth.vassal.name == "stubborn":
        signal.pause()
    return 0


def _answer(link: socket.socket, *words: object) -> None:
    link.sendall(" ".join(map(str, words)).encode() + b"\n")


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


if __name__ == "__main__":
    sys.exit(ForkServer(socket.socket(fileno=int(sys.argv[1])), {"master": puppet, "worker": puppet}).serve())
