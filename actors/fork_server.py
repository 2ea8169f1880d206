"""The fork server: a single-threaded, preloaded process that forks every other process of the tree.

A fork of it costs 2 ms and shares its memory; a fork of a process that runs threads would be unsafe. It
keeps no state that matters: when it dies, what it forked lives on, and the Emperor starts another.

Who asks sits at an *office*, a SOCK_SEQPACKET socket. The first belongs to the Emperor, on which masters
are forked. With every master a new office is born, on which the fork server forks nothing but workers and
attendants of that vassal, under the identity fixed at birth; but once, at its start, the hooks that the vassal
has as the Emperor's user. When an office closes (its master is gone), what was forked on it has its own mercy to
finish what it accepted; then it is killed.

The fork server is a child subreaper: what a dead worker leaves behind, whatever sessions and double forks it
hid in, becomes its child. A child that it did not fork is such a remnant, and is killed. A death is reported
when nothing is left of it.
"""

import contextlib
import errno
import faulthandler
import gc
import os
import resource
import select
import signal
import socket
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NoReturn

import msgspec
from loguru import logger
from setproctitle import setproctitle

from pyemperor.actors.credentials import identity_of
from pyemperor.actors.linux import become_subreaper, living_descendants, receive_fds, send_fds
from pyemperor.protocol.errors import LinkError
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
    NotReady,
    OfficeMessage,
)
from pyemperor.protocol.options import Owner, Vassal

#: What a forked process does with its life: its birth, its link, its office (masters) and listening sockets.
Life = Callable[[Birth, socket.socket, socket.socket | None, list[socket.socket]], int]

_PACKET = 300 * 1024
_MAX_FDS = 64
#: Seconds to wait for remnants to die before they are reported as left.
_SWEEP = 5.0
#: Seconds that a wait may last at most: poll(2) counts milliseconds in 31 bits.
_LONGEST = 86400.0
#: Seconds beyond their own mercy that workers without a master get.
_SLACK = 2.0
_EX_CONFIG, _EX_UNAVAILABLE = 78, 69
#: The Emperor's signal to kill everything at once. It is ignored by default: one that comes early does no harm.
AT_ONCE = signal.SIGURG


@dataclass(eq=False, slots=True)
class _Office:
    sock: socket.socket
    #: What a worker forked here must be like; None for the Emperor's office.
    vassal: Birth | None = None
    #: The id of the master that sits here.
    id: int = 0
    #: When whoever sat here went; what was forked here then has its own mercy left.
    closed_at: float | None = None
    #: Whether what is to be done as the Emperor's user may be asked for: once, as a master starts.
    privileged: bool = False


@dataclass(eq=False, slots=True)
class _Child:
    office: _Office
    id: int
    pid: int
    mercy: float
    killed: bool = False

    def deadline(self) -> float | None:
        """When this child is killed, because nobody supervises it any more."""
        closed_at = self.office.closed_at
        return None if closed_at is None or self.killed else closed_at + self.mercy + _SLACK

    def kill(self) -> None:
        """SIGKILL it; as long as it is in the list of children, its pid cannot be another's."""
        os.kill(self.pid, signal.SIGKILL)
        self.killed = True


@dataclass(slots=True)
class _Death:
    child: _Child
    status: int
    since: float
    swept: set[int] = field(default_factory=set)


class ForkServer:
    """Forks, reaps and sweeps, until the Emperor's office is closed and no child is left.

    A child calls ``privileged`` before it becomes the vassal's user. ``files`` is its limit of open files, soft
    and hard: ours may be a higher one, since each master has an office here.
    """

    def __init__(
        self,
        sock: socket.socket,
        lives: Mapping[str, Life],
        privileged: Callable[[Birth], None] = lambda _: None,
        files: tuple[int, int] | None = None,
    ) -> None:
        self._lives = lives
        self._files = files
        self._privileged = privileged
        self._emperor = _Office(sock)
        self._offices: dict[int, _Office] = {sock.fileno(): self._emperor}
        self._children: dict[int, _Child] = {}
        self._deaths: list[_Death] = []
        self._poll = select.poll()
        self._poll.register(sock, select.POLLIN)

    def serve(self) -> int:
        """Run; the value is the exit code."""
        become_subreaper()
        bell = self._listen_for_deaths()
        # The judge asks for a stack dump before a kill. Every child inherits the handler.
        faulthandler.register(signal.SIGUSR2, all_threads=True)
        gc.collect()
        gc.freeze()
        while self._emperor.closed_at is None or self._children or self._deaths:
            for fd, _ in self._poll.poll(self._patience()):
                if fd == bell:
                    if AT_ONCE in os.read(bell, 4096):
                        self._kill_all()
                elif office := self._offices.get(fd):
                    self._receive(office)
            self._reap()
            self._kill_orphans()
            self._sweep()
        self._reap()
        return 0

    def _listen_for_deaths(self) -> int:
        bell, ring = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for noted in (signal.SIGCHLD, AT_ONCE):
            signal.signal(noted, lambda *_: None)
        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # Only the Emperor ends the fork server, by closing its office.
            signal.signal(ignored, signal.SIG_IGN)
        signal.set_wakeup_fd(ring, warn_on_full_buffer=False)
        self._poll.register(bell, select.POLLIN)
        return bell

    def _patience(self) -> float | None:
        """Milliseconds until something must be done without being asked."""
        if self._deaths:
            return 2
        due = [at for child in self._children.values() if (at := child.deadline()) is not None]
        return min(max(0.0, min(due) - time.monotonic()), _LONGEST) * 1000 + 1 if due else None

    # ---- requests -----------------------------------------------------------------------------------

    def _receive(self, office: _Office) -> None:
        try:
            data, fds, cut = receive_fds(office.sock, _PACKET, _MAX_FDS)
        except OSError:
            data, fds, cut = b"", [], False
        if not data:
            self._orphan(office)
            return
        try:
            request = decode(data, OfficeMessage)
            if isinstance(request, Fork) and cut:
                failed = ForkFailed(request.id, errno.EMFILE, "the fork server has no descriptor left")
                self._answer(office, failed)
            elif isinstance(request, Fork):
                self._fork(office, request, fds)
            elif isinstance(request, Kill):
                self._kill(office, request)
            elif isinstance(request, Adopt) and office is self._emperor and fds:
                self._open_office(socket.socket(fileno=fds.pop()), request.birth, request.id)
        except LinkError as error:
            logger.error("fork server: a bad request was dropped: {}", error)
        finally:
            for fd in fds:
                os.close(fd)

    def _open_office(self, sock: socket.socket, vassal: Birth, id: int) -> _Office:
        office = self._offices[sock.fileno()] = _Office(sock, vassal, id)
        self._poll.register(sock, select.POLLIN)
        return office

    def _orphan(self, office: _Office) -> None:
        """Nobody sits at ``office`` any more: its workers have their mercy from now."""
        self._poll.unregister(office.sock)
        del self._offices[office.sock.fileno()]
        if office is not self._emperor:  # which may still read: its end is the last thing to close
            office.sock.close()
        office.closed_at = time.monotonic()

    def _kill_orphans(self) -> None:
        now = time.monotonic()
        for child in self._children.values():
            deadline = child.deadline()
            if deadline is not None and deadline <= now:
                logger.warning("fork server: process {} outlived its mercy as an orphan: killed", child.pid)
                child.kill()

    def _kill(self, office: _Office, request: Kill) -> None:
        # The master may be dead and reaped already: its workers are known by the office.
        family = request.id if request.family and office is self._emperor else -1
        for child in self._children.values():
            if (child.office is office and child.id == request.id) or child.office.id == family:
                child.kill()

    def _kill_all(self) -> None:
        for child in self._children.values():
            child.kill()

    def _answer(self, office: _Office, message: Message, fds: tuple[int, ...] = ()) -> None:
        """Answer; only the Emperor is waited for. Whoever asked may be gone: then nobody waits for this."""
        flags = 0 if office is self._emperor else socket.MSG_DONTWAIT
        try:
            send_fds(office.sock, encode(message), fds, flags)
        except BlockingIOError:
            logger.error("fork server: a master does not read its answers: it is left alone")
            self._orphan(office)
        except OSError as error:
            logger.debug("fork server: nobody to answer: {}", error)

    # ---- forking ------------------------------------------------------------------------------------

    def _fork(self, office: _Office, request: Fork, fds: list[int]) -> None:
        birth = request.birth
        allowed = office.vassal
        if birth.privileged and allowed is not None:
            if not office.privileged:
                self._answer(office, ForkFailed(request.id, errno.EPERM, "hooks run as root once, at the start"))
                return
            # Whatever the master asks for: what is done is what the Emperor has read in the vassal's file.
            birth = msgspec.structs.replace(allowed, kind="hook", phase="root")
            office.privileged = False
        if (birth.kind == "master" if allowed else birth.kind != "master" and not birth.privileged) or (
            allowed is not None and birth.vassal != allowed.vassal
        ):
            # Also whatever is done before its privileges are dropped follows what the Emperor said, not a master.
            reason = f"this office does not fork {birth.actor} under that identity"
            self._answer(office, ForkFailed(request.id, errno.EPERM, reason))
            return
        ours = theirs = None
        try:
            if birth.kind == "master":
                ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            with theirs or contextlib.nullcontext():
                pid = os.fork()
                if pid == 0:
                    self._live(birth, fds, theirs)
        except OSError as error:
            if ours:
                ours.close()
            self._answer(office, ForkFailed(request.id, error.errno or 0, error.strerror or ""))
            return
        self._children[pid] = _Child(office, request.id, pid, birth.mercy)
        if ours:
            self._open_office(ours, birth, request.id).privileged = True
        self._report_birth(office, request.id, pid)

    def _report_birth(self, office: _Office, id: int, pid: int) -> None:
        try:
            pidfd = os.pidfd_open(pid)
        except OSError as error:
            logger.warning("fork server: no pidfd for process {}: {}", pid, error.strerror)
            self._answer(office, Forked(id, pid))
            return
        self._answer(office, Forked(id, pid), (pidfd,))
        os.close(pidfd)

    def _live(self, birth: Birth, fds: list[int], office: socket.socket | None) -> NoReturn:
        """Be the child: never returns."""
        code = 70  # EX_SOFTWARE
        try:
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGCHLD, AT_ONCE, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_DFL)
            vassal = birth.vassal
            if not vassal.cgi_new_session and (vassal.uid or vassal.gid or vassal.owner):
                os.setsid()  # its scripts share it: within a session anybody may join anybody's process group
            else:
                os.setpgid(0, 0)
            _close_all_but(0, 1, 2, *fds, *([office.fileno()] if office else []))
            if self._files is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, self._files)
            setproctitle(birth.title)
            link, *listeners = (socket.socket(fileno=fd) for fd in fds)
            if birth.kind != "master":
                become_subreaper()
            self._privileged(birth)
            try:
                if not birth.privileged:
                    _settle_in(birth)
                    _go_home(birth.vassal)
            except _Missing as error:
                link.send(encode(NotReady(str(error))))  # it may come yet: a disk that is mounted late
                os._exit(_EX_UNAVAILABLE)
            except (OSError, LookupError) as error:
                link.send(encode(NotReady(str(error), config=True)))
                os._exit(_EX_CONFIG)
            code = self._lives[birth.kind](birth, link, office, listeners)
        except BaseException:
            logger.exception("{} died of an error of ours", birth.actor)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    # ---- the dead -----------------------------------------------------------------------------------

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if child := self._children.pop(pid, None):
                self._deaths.append(_Death(child, status, time.monotonic()))

    def _sweep(self) -> None:
        """Kill what the dead left behind; report a death when nothing is left, or cannot be killed."""
        if not self._deaths:
            return
        deaths, self._deaths = self._deaths, []
        remnants = living_descendants([os.getpid()], besides=self._children)
        for pid in remnants:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if not remnants:
            self._reap()  # whoever died of an earlier blow is buried before it is said to be gone
        now = time.monotonic()
        for death in deaths:
            death.swept.update(remnants)
            if remnants and now < death.since + _SWEEP:
                self._deaths.append(death)
            else:
                code = os.waitstatus_to_exitcode(death.status)
                exited = Exited(
                    death.child.id, max(code, -1), max(-code, 0), len(death.swept), tuple(remnants)
                )
                self._answer(death.child.office, exited)


def _close_all_but(*spared: int) -> None:
    low = 0
    for fd in sorted(spared):
        if low < fd:  # an empty range would be taken for everything
            os.closerange(low, fd)
        low = fd + 1
    os.closerange(low, os.sysconf("SC_OPEN_MAX"))


def _settle_in(birth: Birth) -> None:
    """Drop to the vassal's user and group, with the user's supplementary groups (initgroups(3)); umask.

    Raises OSError or LookupError that names the option.
    """
    vassal = birth.vassal
    identity = identity_of(vassal)
    if vassal.owner:
        _become(vassal.owner)
    _schedule(birth)
    if identity and not vassal.owner:
        if os.geteuid() == 0:
            os.setgroups(identity.groups)
            os.setgid(identity.gid)
            os.setuid(identity.uid)
        elif (identity.uid, identity.gid) != (os.geteuid(), os.getegid()) or vassal.add_gid:
            option = "uid" if vassal.uid else "gid" if vassal.gid else "add-gid"
            found, remedy = "only root can run a vassal as another user", "remove uid, gid and add-gid"
            raise LookupError(vassal.problem(option, found, f"{remedy}, or start PyEmperor as root"))
    if vassal.umask is not None:
        os.umask(vassal.umask)


class _Missing(Exception):
    """A folder that cannot be entered now."""


def _go_home(vassal: Vassal) -> None:
    """Change to the folder of ``chdir``; raises _Missing."""
    if vassal.chdir:
        try:
            os.chdir(vassal.chdir)
        except OSError as error:
            found = f"{vassal.chdir}: {error.strerror}"
            remedy = "make the folder, or name another one"
            raise _Missing(vassal.problem("chdir", found, remedy)) from None


def _schedule(birth: Birth) -> None:
    """Take the priority and the processors; a worker's are those of its number, around the end."""
    vassal = birth.vassal
    if vassal.prio:
        try:
            os.setpriority(os.PRIO_PROCESS, 0, vassal.prio)
        except OSError as error:
            raise LookupError(vassal.problem("prio", f"{vassal.prio}: {error.strerror}")) from None
    if vassal.cpu_affinity and birth.kind == "worker":
        cpus = sorted(os.sched_getaffinity(0))
        number = min(vassal.cpu_affinity, len(cpus))
        first = (birth.index - 1) * vassal.cpu_affinity
        os.sched_setaffinity(0, {cpus[(first + n) % len(cpus)] for n in range(number)})


def _become(owner: Owner) -> None:
    """Be the owner of the vassal's file for good (emperor-tyrant): nobody is root there, whatever was asked."""
    if not (owner.uid and owner.gid):
        raise PermissionError(errno.EPERM, "emperor-tyrant runs no vassal as root")
    os.setgroups(owner.groups)
    os.setresgid(owner.gid, owner.gid, owner.gid)
    os.setresuid(owner.uid, owner.uid, owner.uid)
