"""A real fork server with puppets for children: what it forks, refuses, reports, sweeps and survives."""

import errno
import os
import resource
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest

from pyemperor.actors.fork_server import AT_ONCE
from pyemperor.actors.linux import become_subreaper, children, living_descendants, receive_fds, send_fds, zombies
from pyemperor.protocol.frames import decode, encode
from pyemperor.protocol.messages import (
    Adopt,
    Birth,
    Exited,
    Fork,
    Forked,
    ForkFailed,
    Kill,
    Message,
    OfficeMessage,
    Ready,
)
from pyemperor.protocol.options import Supervision, Vassal
from tests.faults.rig import PATIENCE, await_end, ended

ROOT = Path(__file__).parents[2]
A = TypeVar("A", bound=Message)


class Puppet:
    """A child: its link, pid and pidfd."""

    def __init__(self, id: int, link: socket.socket) -> None:
        self.id = id
        self.pid = 0
        self.pidfd = -1
        self._link = link
        link.settimeout(PATIENCE)

    def tell(self, order: str) -> None:
        """Give an order."""
        self._link.sendall(order.encode() + b"\n")

    def ask(self, order: str) -> list[str]:
        """Give an order that is answered."""
        self.tell(order)
        answer = b""
        while not answer.endswith(b"\n"):
            answer += self._link.recv(4096)
        return answer.decode().split()

    def close(self) -> None:
        """Give everything back."""
        self._link.close()
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


class Office:
    """Who sits here asks the fork server."""

    def __init__(self, sock: socket.socket, numbers: Callable[[], int]) -> None:
        self.sock = sock
        self._number = numbers
        self._came: list[tuple[Message, list[int]]] = []
        self._puppets: list[Puppet] = []
        sock.settimeout(PATIENCE)

    def send(self, message: Message, *fds: int) -> None:
        send_fds(self.sock, encode(message), fds)

    def receive(self, kind: type[A], id: int) -> tuple[A, list[int]]:
        """Wait for the answer of this kind about this child."""
        while True:
            for came in self._came:
                if isinstance(came[0], kind) and getattr(came[0], "id", 0) == id:
                    self._came.remove(came)
                    return came[0], came[1]
            data, fds, _ = receive_fds(self.sock, 1 << 18, 4)
            assert data, "the fork server is gone"
            self._came.append((decode(data, OfficeMessage), fds))

    def ask_for(self, birth: Birth, *listeners: int) -> Puppet:
        """Ask for a child."""
        ours, theirs = socket.socketpair()
        puppet = Puppet(self._number(), ours)
        self._puppets.append(puppet)
        with theirs:
            self.send(Fork(puppet.id, birth), theirs.fileno(), *listeners)
        return puppet

    def fork(self, birth: Birth, *listeners: int) -> Puppet:
        """Get a child."""
        puppet = self.ask_for(birth, *listeners)
        forked, (puppet.pidfd,) = self.receive(Forked, puppet.id)
        puppet.pid = forked.pid
        return puppet

    def refused(self, birth: Birth) -> ForkFailed:
        """Ask for a child that is not to be had."""
        puppet = self.ask_for(birth)
        failed, _ = self.receive(ForkFailed, puppet.id)
        return failed

    def end(self, puppet: Puppet) -> Exited:
        """Wait for the report of its end."""
        exited, _ = self.receive(Exited, puppet.id)
        return exited

    def close(self) -> None:
        """Leave, and give everything back."""
        self.sock.close()
        for puppet in self._puppets:
            puppet.close()


class Machine:
    """The fork server's process, and the Emperor's office at it."""

    def __init__(self) -> None:
        become_subreaper()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ids = 0
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.puppets", str(theirs.fileno())],
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
            )
        self.emperor = Office(ours, self._number)
        self._offices = [self.emperor]

    def _number(self) -> int:
        self._ids += 1
        return self._ids

    def office_of(self, vassal: str, **terms: Any) -> tuple[Office, int]:
        """Sit at the office of a master that lives already, and its id."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        id = self._number()
        with theirs:
            self.emperor.send(Adopt(id, master(vassal, **terms)), theirs.fileno())
        self._offices.append(Office(ours, self._number))
        return self._offices[-1], id

    def turn(self) -> None:
        """Let it come round: what happened before is dealt with."""
        child = self.emperor.fork(master())
        child.tell("exit 0")
        self.emperor.end(child)

    def said(self) -> str:
        """What it wrote to stderr."""
        assert self.process.stderr is not None
        return self.process.stderr.read().decode()

    def close(self) -> None:
        """Give everything back."""
        for office in self._offices:
            office.close()

    def over(self) -> int:
        """Leave the Emperor's office, and wait for the end."""
        self.emperor.sock.shutdown(socket.SHUT_WR)
        assert self.emperor.sock.recv(1) == b"", "its office closes with it"
        return self.process.wait(PATIENCE)


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine()
    yield machine
    machine.close()
    machine.process.kill()
    machine.process.wait()
    for pid in living_descendants([os.getpid()]):
        os.kill(pid, signal.SIGKILL)
        await_end(pid)
    for pid in zombies(os.getpid()):
        os.waitpid(pid, 0)
    assert machine.process.stderr is not None
    machine.process.stderr.close()


def master(name: str = "app", **terms: Any) -> Birth:
    return Birth("master", Vassal(name, **terms), 10.0)


def worker(name: str = "app", index: int = 1, **terms: Any) -> Birth:
    return Birth("worker", Vassal(name, **terms), 10.0, index)


def mercy(seconds: float) -> Supervision:
    return Supervision(mercy=seconds)


# ---- what is forked -----------------------------------------------------------------------------------------


def test_a_child_has_a_group_a_title_and_nothing_that_is_not_its_own(machine: Machine) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        bystander = machine.emperor.fork(master("other"))
        child = machine.emperor.fork(master(), listener.fileno())
        pid, parent, session, group, *_ = map(int, child.ask("ids"))
        assert (pid, parent, session, group) == (child.pid, machine.process.pid, os.getsid(parent), pid)
        # stdin, stdout, stderr, then the link, the listening socket, the office, and how it looks.
        assert sorted(child.ask("fds")[3:]) == ["listing", "socket", "socket", "socket"]
        assert child.ask("mask") == []
    with open(f"/proc/{child.pid}/cmdline", encoding="ascii") as file:
        assert file.read().rstrip("\0") == "pyemperor master: app"
    for puppet in (child, bystander):
        puppet.tell("exit 0")
        assert machine.emperor.end(puppet) == Exited(puppet.id, 0)
    assert machine.over() == 0


def test_a_worker_is_forked_at_the_office_of_its_master_alone(machine: Machine) -> None:
    office, _ = machine.office_of("app")
    child = office.fork(worker())
    assert int(child.ask("ids")[1]) == machine.process.pid
    assert sorted(child.ask("fds")[3:]) == ["listing", "socket"], "a worker has no office"
    strangers = [worker("other"), worker(uid="nobody"), worker(gid="daemon"), master("app")]
    strangers.append(worker(logto="/etc/passwd"))  # which would be opened before root's rights are dropped
    refusals = [office.refused(birth) for birth in strangers] + [machine.emperor.refused(worker())]
    assert {refusal.errno for refusal in refusals} == {errno.EPERM}
    assert "does not fork worker:other/1" in refusals[0].reason
    child.tell("exit 7")
    assert office.end(child) == Exited(child.id, 7)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes identity")
def test_hooks_run_as_root_once_and_are_those_that_the_emperor_has_read(machine: Machine) -> None:
    child = machine.emperor.fork(master(uid="nobody"))
    assert child.ask("hook root") == ["nobody", "root", "0"], "whatever the master says of its vassal"
    assert child.ask("hook root")[-4:] == ["once,", "at", "the", "start"]
    assert child.ask("hook ended")[-4:] == ["once,", "at", "the", "start"]
    assert "does not fork hook:app/user under that identity" in " ".join(child.ask("hook user"))
    child.tell("exit 0")
    machine.emperor.end(child)
    adopted, _ = machine.office_of("app")
    hook = Birth("hook", Vassal("app"), 10.0, phase="root")
    assert adopted.refused(hook).errno == errno.EPERM, "it has started already"
    assert machine.emperor.refused(msgspec.structs.replace(hook, phase="user")).errno == errno.EPERM


@pytest.mark.skipif(os.geteuid() != 0, reason="only root changes identity")
def test_the_identity_is_dropped_for_good(machine: Machine) -> None:
    child = machine.emperor.fork(master(uid="nobody"))
    ids = child.ask("ids")
    with open(f"/proc/{child.pid}/status", encoding="ascii") as file:
        status = dict(line.rstrip().split(":\t", 1) for line in file)
    assert status["Uid"].split() == [ids[4]] * 4
    assert status["Gid"].split() == [ids[5]] * 4
    assert int(ids[4]) > 0
    assert "0" not in status["Groups"].split()
    child.tell("exit 0")
    machine.emperor.end(child)


def test_an_identity_that_does_not_exist_is_a_matter_of_configuration(machine: Machine) -> None:
    child = machine.emperor.fork(master(uid="no-such-user"))
    assert machine.emperor.end(child).code == 78


# ---- what is refused ----------------------------------------------------------------------------------------


def test_nonsense_at_an_office_harms_nobody(machine: Machine) -> None:
    child = machine.emperor.fork(master())
    office, _ = machine.office_of("app")
    for nonsense in (b"hello", encode(Ready()), encode(Fork(1, worker()))[:-1], bytes(100_000)):
        office.sock.send(nonsense)
        machine.emperor.sock.send(nonsense)
    office.send(Adopt(9, master("mine")), 0)  # only the Emperor may
    office.send(Kill(child.id, True))  # nor is a master one's own worker
    machine.emperor.send(Kill(12345, True))
    assert office.fork(worker()).ask("ids")
    assert child.ask("ids")


def test_without_descriptors_nothing_is_forked_until_there_are_some(machine: Machine) -> None:
    first = machine.emperor.fork(master())
    answers = set()
    used = len(os.listdir(f"/proc/{machine.process.pid}/fd"))
    for spare in range(-2, 6):
        # A birth needs the link, both ends of an office, a pidfd: each of them can be what is missing.
        soft, hard = resource.prlimit(machine.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(machine.process.pid, resource.RLIMIT_NOFILE, (used + spare, hard))
        child = machine.emperor.ask_for(master())
        poll = select.poll()
        poll.register(machine.emperor.sock, select.POLLIN)
        assert poll.poll(PATIENCE * 1000), f"no answer with {spare} spare descriptors"
        data, fds, _ = receive_fds(machine.emperor.sock, 1 << 16, 4)
        answer = decode(data, OfficeMessage)
        answers.add(type(answer))
        resource.prlimit(machine.process.pid, resource.RLIMIT_NOFILE, (soft, hard))
        if isinstance(answer, ForkFailed):
            assert answer.errno == errno.EMFILE
        else:
            assert answer.id == child.id
            child.tell("exit 0")
            assert machine.emperor.end(child).code == 0
        for fd in fds:
            os.close(fd)
    assert answers == {ForkFailed, Forked}
    assert machine.emperor.fork(master()).ask("ids")
    assert first.ask("ids")


# ---- the dead -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "code", "number"), [("exit 0", 0, 0), ("exit 3", 3, 0), ("die 11", -1, 11)])
def test_how_a_child_ended_is_told(machine: Machine, order: str, code: int, number: int) -> None:
    child = machine.emperor.fork(master())
    child.tell(order)
    assert machine.emperor.end(child) == Exited(child.id, code, number)


def test_what_a_worker_leaves_behind_is_swept_wherever_it_hides(machine: Machine) -> None:
    office, _ = machine.office_of("app")
    bystander = office.fork(worker(index=2))
    theirs = [int(pid) for pid in bystander.ask("escape 1")]
    child = office.fork(worker())
    left = [int(pid) for pid in [*child.ask("escape 2"), *child.ask("leave 2")]]
    assert set(left) <= set(living_descendants([child.pid])), "a worker is the subreaper of its scripts"
    child.tell("die 9")
    assert office.end(child) == Exited(child.id, -1, 9, swept=4)
    assert not [pid for pid in left if os.path.exists(f"/proc/{pid}")]
    assert os.path.exists(f"/proc/{theirs[0]}"), "the neighbour's are the neighbour's"
    bystander.tell("exit 0")
    assert office.end(bystander) == Exited(bystander.id, 0, swept=1)
    machine.turn()
    assert zombies(machine.process.pid) == []


def test_a_death_is_seen_though_somebody_holds_the_link(machine: Machine) -> None:
    office, _ = machine.office_of("app")
    child = office.fork(worker())
    child.ask("leave 1")
    begun = time.monotonic()
    child.tell("exit 1")
    assert select.select([child.pidfd], [], [], PATIENCE)[0]
    assert office.end(child).swept == 1
    assert time.monotonic() - begun < 2


def test_many_deaths_at_once_are_all_told(machine: Machine) -> None:
    """Signals are not counted: one SIGCHLD may stand for all of them."""
    office, _ = machine.office_of("app")
    crowd = [office.fork(worker(index=index)) for index in range(1, 31)]
    os.kill(machine.process.pid, signal.SIGSTOP)
    for child in crowd:
        os.kill(child.pid, signal.SIGKILL)
    os.kill(machine.process.pid, signal.SIGCONT)
    assert [office.end(child) for child in crowd] == [Exited(child.id, -1, 9) for child in crowd]
    assert children(machine.process.pid) == []


def test_a_child_may_be_gone_before_its_birth_is_told(machine: Machine) -> None:
    child = machine.emperor.ask_for(master())
    child.tell("exit 0")
    forked, (child.pidfd,) = machine.emperor.receive(Forked, child.id)
    assert machine.emperor.end(child) == Exited(child.id, 0)
    assert ended(forked.pid)


# ---- killing ------------------------------------------------------------------------------------------------


def test_a_worker_is_killed_by_its_own_master_only(machine: Machine) -> None:
    office, _ = machine.office_of("app")
    other, _ = machine.office_of("other")
    child = office.fork(worker())
    other.send(Kill(child.id))
    assert child.ask("ids")
    office.send(Kill(child.id))
    assert office.end(child) == Exited(child.id, -1, 9)


def test_the_family_is_killed_even_after_the_master_is_gone(machine: Machine) -> None:
    office, id = machine.office_of("app")
    stranger, _ = machine.office_of("app")
    workers = [office.fork(worker(index=index)) for index in (1, 2)]
    spared = stranger.fork(worker())
    office.sock.close()
    machine.emperor.send(Kill(id))
    assert workers[0].ask("ids"), "without its family nobody but the master is meant"
    machine.emperor.send(Kill(id, family=True))
    for child in workers:
        assert select.select([child.pidfd], [], [], PATIENCE)[0]
    assert spared.ask("ids")


def test_a_living_master_is_killed_with_its_family(machine: Machine) -> None:
    """The puppet has the office and forks nothing there; that it ends with the master is what counts."""
    child = machine.emperor.fork(master())
    machine.emperor.send(Kill(child.id, family=True))
    assert machine.emperor.end(child) == Exited(child.id, -1, 9)


def test_orphans_have_their_mercy_and_are_then_killed_once(machine: Machine) -> None:
    office, _ = machine.office_of("stubborn", worker_reload_mercy=0.3, supervision=mercy(60))
    child = office.fork(worker("stubborn", worker_reload_mercy=0.3, supervision=mercy(60)))
    begun = time.monotonic()
    office.sock.close()
    assert select.select([child.pidfd], [], [], PATIENCE)[0]
    assert 2.2 < time.monotonic() - begun < 4
    assert machine.over() == 0
    assert machine.said().count("outlived its mercy") == 1


def test_orphans_may_have_all_the_time_in_the_world(machine: Machine) -> None:
    terms: dict[str, Any] = {"worker_reload_mercy": 1e9, "supervision": mercy(1e9)}
    office, _ = machine.office_of("app", **terms)
    child = office.fork(worker("app", **terms))
    office.sock.close()
    machine.turn()
    assert child.ask("ids")
    child.tell("exit 0")
    assert machine.over() == 0


def test_everything_can_be_killed_at_once(machine: Machine) -> None:
    office, _ = machine.office_of("stubborn")
    crowd = [machine.emperor.fork(master("stubborn")), office.fork(worker("stubborn"))]
    hidden = int(crowd[1].ask("escape 1")[0])
    machine.emperor.sock.shutdown(socket.SHUT_WR)
    machine.process.send_signal(AT_ONCE)
    assert machine.process.wait(PATIENCE) == 0
    for child in crowd:
        assert select.select([child.pidfd], [], [], 0)[0]
    assert ended(hidden)


# ---- the fork server itself ---------------------------------------------------------------------------------


def test_only_the_emperor_ends_it_and_it_waits_for_its_last_child(machine: Machine) -> None:
    child = machine.emperor.fork(master())
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        machine.process.send_signal(number)
    assert child.ask("ids")
    machine.emperor.sock.shutdown(socket.SHUT_WR)
    assert child.ask("ids")
    assert machine.process.poll() is None
    child.tell("exit 0")
    assert machine.emperor.end(child) == Exited(child.id, 0)
    assert machine.process.wait(PATIENCE) == 0


def test_children_outlive_it(machine: Machine) -> None:
    child = machine.emperor.fork(master())
    machine.process.kill()
    machine.process.wait()
    pid, parent, *_ = map(int, child.ask("ids"))
    assert (pid, parent) == (child.pid, os.getpid())
    child.tell("exit 0")
    assert os.waitpid(child.pid, 0)[1] == 0


def test_a_master_that_does_not_read_holds_up_nobody(machine: Machine) -> None:
    deaf, _ = machine.office_of("app")
    sent = 0

    def ask_on() -> None:
        nonlocal sent
        while sent < 5000:
            deaf.send(Fork(sent, master("other")))  # each is refused, and the refusals lie there unread
            sent += 1
            if sent % 50 == 0:
                machine.turn()

    with pytest.raises(ConnectionError):  # in the end its office is closed
        ask_on()
    assert sent > 100
    machine.turn()
