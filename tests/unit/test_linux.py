"""The system calls that Python does not offer, on real processes and sockets."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from pyemperor.actors import linux

SLEEPER = [sys.executable, "-c", "import signal; signal.pause()"]


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen(SLEEPER)
    yield process
    process.kill()
    process.wait()


# ---- descriptors over sockets -------------------------------------------------------------------------------


def test_received_descriptors_are_closed_on_exec() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        assert linux.send_fds(theirs, b"hello", (0, 1)) == 5
        data, fds, cut = linux.receive_fds(ours, 100, 4)
    assert (data, len(fds), cut) == (b"hello", 2, False)
    for fd in fds:
        assert not os.get_inheritable(fd)
        os.close(fd)


def test_more_descriptors_than_there_is_room_for() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        linux.send_fds(theirs, b"x", (0,) * 6)
        _, fds, cut = linux.receive_fds(ours, 100, 4)
    assert cut
    assert len(fds) == 4
    for fd in fds:
        os.close(fd)


def test_a_datagram_that_is_too_long_is_known_as_such() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        linux.send_fds(theirs, b"12345", ())
        assert linux.receive_fds(ours, 3, 4) == (b"123", [], True)


def test_flags_reach_the_kernel() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.setblocking(False)
        with pytest.raises(BlockingIOError):
            theirs.sendall(bytes(1 << 24))
        theirs.setblocking(True)
        with pytest.raises(BlockingIOError):
            linux.send_fds(theirs, bytes(1 << 16), (), socket.MSG_DONTWAIT)


# ---- processes ----------------------------------------------------------------------------------------------


def test_a_subreaper_inherits_from_its_descendants() -> None:
    """In a process of its own, so that this one stays what it is."""
    program = """
import os, sys
from pyemperor.actors.linux import become_subreaper, children, zombies
become_subreaper()
read, write = os.pipe()
if os.fork() == 0:
    if os.fork() == 0:
        os.read(read, 1)
        os._exit(7)
    os._exit(0)
os.wait()
(child,) = children(os.getpid())

pidfd = os.pidfd_open(child[0])
os.write(write, b"x")
os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOWAIT)
assert zombies(os.getpid()) == [child[0]]
print(os.waitstatus_to_exitcode(os.waitpid(child[0], 0)[1]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert done.stdout == "7\n", done.stderr


def test_descendants_parents_first_and_without_zombies() -> None:
    program = """
import os, sys
if os.fork() == 0:
    if os.fork() == 0:
        sys.stdin.read()
        os._exit(0)
    os.wait()
    os._exit(0)
if os.fork() == 0:
    os._exit(0)
print("go", flush=True)
sys.stdin.read()
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"go\n"
        deadline = time.monotonic() + 10
        # The one that ends at once may still be there, and the leaf not yet.
        while not (
            len(found := linux.living_descendants([process.pid])) == 2
            and found[1] in [pid for pid, _ in linux.children(found[0])]
        ):
            assert time.monotonic() < deadline, found
        middle, leaf = found
        assert linux.living_descendants([process.pid], besides=[middle]) == []
        assert linux.living_descendants([middle]) == [leaf]
        assert process.pid in linux.living_descendants([os.getpid()])
        assert process.stdin is not None
        process.stdin.close()


def test_the_state_of_a_process(child: "subprocess.Popen[bytes]") -> None:
    state, cpu, delay, tracer = linux.process_state(child.pid)
    assert state in "RSD"
    assert cpu >= 0
    assert delay >= 0
    assert tracer == 0
    child.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, child.pid, os.WSTOPPED | os.WNOWAIT)
    assert linux.process_state(child.pid)[0] == "T"
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert linux.process_state(child.pid)[0] == "Z"
    assert child.pid in linux.zombies(os.getpid())
    child.wait()
    assert linux.process_state(child.pid) == ("X", 0.0, 0.0, 0)


def test_cpu_time_grows() -> None:
    before = linux.process_state(os.getpid())[1]
    while time.process_time() < before + 0.05:
        pass
    assert linux.process_state(os.getpid())[1] > before


def test_a_process_may_have_any_name() -> None:
    """The name in /proc/PID/stat may hold blanks and brackets."""
    program = "import setproctitle as s, signal; s.setthreadtitle(') R 1 (x'); print(flush=1); signal.pause()"
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE)
    with process:
        assert process.stdout is not None
        process.stdout.readline()
        assert process.pid in [pid for pid, _ in linux.children(os.getpid())]
        process.kill()


def test_a_thread_has_a_working_directory_of_its_own(tmp_path: "os.PathLike[str]") -> None:
    here = os.getcwd()
    seen: list[str] = []

    def go() -> None:
        linux.own_working_directory()
        os.chdir(tmp_path)
        seen.append(os.getcwd())

    thread = threading.Thread(target=go)
    thread.start()
    thread.join()
    assert seen == [os.path.realpath(tmp_path)]
    assert os.getcwd() == here


def test_what_the_kernel_refuses_is_an_error() -> None:
    with pytest.raises(OSError, match="Invalid argument"):
        linux._check(linux._libc.prctl(-1, 0, 0, 0, 0))


# ---- what a master reads off the machine --------------------------------------------------------------------


def test_the_memory_of_a_process(child: "subprocess.Popen[bytes]") -> None:
    rss, space = linux.memory(os.getpid())
    assert 1 << 20 < rss < space
    hoard = bytearray(b"x" * (32 << 20))
    assert linux.memory(os.getpid())[0] > rss + len(hoard) // 2
    child.kill()
    child.wait()
    assert linux.memory(child.pid) == (0, 0)


@pytest.mark.parametrize("family", [socket.AF_UNIX, socket.AF_INET, socket.AF_INET6])
def test_how_many_connections_wait(family: socket.AddressFamily, tmp_path: "os.PathLike[str]") -> None:
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket(family))
        hosts = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
        address: Any = os.path.join(tmp_path, "a.sock") if family == socket.AF_UNIX else (hosts[family], 0)
        try:
            listener.bind(address)
        except OSError as error:
            pytest.skip(f"no such address here: {error}")
        listener.listen(10)
        for waiting in range(4):
            assert linux.waiting_connections(listener) == waiting
            stack.enter_context(socket.socket(family)).connect(listener.getsockname())
        listener.accept()[0].close()
        assert linux.waiting_connections(listener) == 3


def test_where_the_kernel_does_not_tell_one_stands_for_several(
    tmp_path: "os.PathLike[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linux, "_NETLINK_SOCK_DIAG", 99)
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as stack:
        listener.bind(os.path.join(tmp_path, "a.sock"))
        listener.listen(10)
        assert linux.waiting_connections(listener) == 0
        for _ in range(2):
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(listener.getsockname())
        assert linux.waiting_connections(listener) == 1
