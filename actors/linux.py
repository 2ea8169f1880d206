"""The few system calls that Python 3.11 does not offer, and the process table."""

import array
import contextlib
import ctypes
import errno
import fcntl
import os
import select
import socket
import struct
import sys
import termios
from collections import defaultdict
from collections.abc import Iterable

_libc = ctypes.CDLL(None, use_errno=True)
_PR_SET_CHILD_SUBREAPER = 36
_CLONE_FS = 0x00000200
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")
# Plain numbers: an operation on a flag of an enum costs as much as the system call that it is for.
_CMSG_CLOEXEC = int(socket.MSG_CMSG_CLOEXEC)
_TRUNCATED = int(socket.MSG_CTRUNC | socket.MSG_TRUNC)
_INT = array.array("i").itemsize
#: How often the processes are looked at again because some ended meanwhile.
_LOOKS = 5


def _check(result: int) -> None:
    if result < 0:
        error = ctypes.get_errno()
        raise OSError(error, os.strerror(error))


def become_subreaper() -> None:
    """Make this process the parent of every descendant whose own parent dies (prctl(2))."""
    _check(_libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0))


def own_working_directory() -> None:
    """Give the calling thread a working directory of its own (unshare(2), CLONE_FS)."""
    _check(_libc.unshare(_CLONE_FS))


def waiting_bytes(pipe: int) -> int:
    """How many bytes wait in ``pipe`` (ioctl_pipe(2), FIONREAD)."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def has_terminal() -> bool:
    """Whether this process has a controlling terminal (tty(4))."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_CLOEXEC))
    except OSError as error:
        return error.errno != errno.ENXIO
    return True


def widen(pipe: int, size: int) -> None:
    """Let ``pipe`` hold ``size`` bytes, if the system lets it (pipe(7), F_SETPIPE_SZ)."""
    with contextlib.suppress(PermissionError, BlockingIOError):
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, size)


def send_fds(sock: socket.socket, data: bytes, fds: Iterable[int], flags: int = 0) -> int:
    """Send descriptors with ``data`` (unix(7)); socket.send_fds() does not pass ``flags`` on."""
    rights = array.array("i", fds)
    return sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if rights else [], flags)


def receive_fds(sock: socket.socket, size: int, most: int) -> tuple[bytes, list[int], bool]:
    """Receive data and descriptors, close-on-exec, and whether there were too many of either to take.

    socket.recv_fds() does not pass its flags on: what it receives is inherited by every script.
    """
    data, ancillary, flags, _ = sock.recvmsg(size, socket.CMSG_SPACE(most * _INT), _CMSG_CLOEXEC)
    fds = array.array("i")
    for level, kind, rights in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            fds.frombytes(rights[: len(rights) - len(rights) % fds.itemsize])
    return data, fds.tolist(), bool(flags & _TRUNCATED)


def _stat(pid: int) -> tuple[str, list[str]] | None:
    """State letter and the fields of /proc/PID/stat from the state on; None when the process is gone."""
    try:
        with open(f"/proc/{pid}/stat", "rb", buffering=0) as file:
            text = file.read(1024).decode("ascii", "replace")
    except (FileNotFoundError, ProcessLookupError):
        return None
    fields = text[text.rindex(")") + 2 :].split()
    return fields[0], fields


def _processes() -> dict[int, tuple[int, str]]:
    """Parent and state letter of every process; nobody is missed, or cut off from whoever it hangs below.

    /proc is read bit by bit. Who was forked meanwhile is looked for, until there is nobody new; and a process
    whose parent has ended meanwhile hangs below another one now, and is looked at again. (Where /proc hides the
    processes of others, that would never end.)
    """
    seen: dict[int, tuple[int, str]] = {}
    for _ in range(_LOOKS):
        new = {int(entry) for entry in os.listdir("/proc") if entry.isdigit()} - seen.keys()
        new.update(pid for pid, (parent, _) in seen.items() if parent and parent not in seen)
        for pid in new:
            if stat := _stat(pid):
                seen[pid] = int(stat[1][1]), stat[0]
            else:
                seen.pop(pid, None)
        if not new:
            break
    return seen


def living_descendants(roots: Iterable[int], *, besides: Iterable[int] = ()) -> list[int]:
    """Pids of all processes below ``roots``, parents first, without zombies.

    What hangs below a pid in ``besides`` is left out, and so is that pid.
    """
    children: dict[int, list[tuple[int, str]]] = defaultdict(list)
    for pid, (parent, state) in _processes().items():
        children[parent].append((pid, state))
    spared = set(besides)
    found: list[int] = []
    queue = list(roots)
    while queue:
        for pid, state in children[queue.pop()]:
            if pid not in spared:
                queue.append(pid)
                if state != "Z":
                    found.append(pid)
    return found


def group_lives(group: int) -> bool:
    """Whether a process of the process group ``group`` runs; zombies do not."""
    stats = (_stat(int(entry)) for entry in os.listdir("/proc") if entry.isdigit())
    return any(stat[0] != "Z" and int(stat[1][2]) == group for stat in stats if stat)


def group_doing(group: int) -> str:
    """What each process of the process group ``group`` does: its name, pid, state letter, and where it waits.

    That is a function of the kernel (proc(5), wchan), where the kernel tells it.
    """
    found = []
    for pid in sorted(int(entry) for entry in os.listdir("/proc") if entry.isdigit()):
        stat = _stat(pid)
        if stat and int(stat[1][2]) == group:
            name, waits = _words(pid, "comm"), _words(pid, "wchan")
            found.append(f"{name} ({pid}): {stat[0]}" + f" in {waits}" * (waits not in ("", "0")))
    return ", ".join(found)


def _words(pid: int, name: str) -> str:
    """A line of a process; "" where there is none, or it is not ours to read."""
    try:
        with open(f"/proc/{pid}/{name}", "rb", buffering=0) as file:
            return file.read(128).decode("ascii", "replace").strip()
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return ""


def children(parent: int) -> list[tuple[int, str]]:
    """Pid and state letter of the children of ``parent``; ``Z`` has died and was not waited for."""
    return [(pid, state) for pid, (its_parent, state) in _processes().items() if its_parent == parent]


def zombies(parent: int) -> list[int]:
    """Children of ``parent`` that have died and were not waited for."""
    return [pid for pid, state in children(parent) if state == "Z"]


def process_state(pid: int) -> tuple[str, float, float, int]:
    """State letter, CPU seconds, seconds spent waiting for a CPU, and the pid of a tracer (0: none)."""
    stat = _stat(pid)
    if stat is None:
        return "X", 0.0, 0.0, 0
    state, fields = stat
    cpu = (int(fields[11]) + int(fields[12])) / _TICKS
    try:
        with open(f"/proc/{pid}/schedstat", "rb", buffering=0) as file:
            delay = int(file.read(128).split()[1]) / 1e9
        with open(f"/proc/{pid}/status", "rb", buffering=0) as file:
            tracer = next(line for line in file.read(4096).splitlines() if line.startswith(b"TracerPid:"))
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return state, cpu, 0.0, 0
    return state, cpu, delay, int(tracer.split()[1])


def memory(pid: int) -> tuple[int, int]:
    """Resident memory and address space of a process, in bytes; zeros when it is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb", buffering=0) as file:
            space, rss = file.read(128).split()[:2]
    except (FileNotFoundError, ProcessLookupError):
        return 0, 0
    return int(rss) * _PAGE, int(space) * _PAGE


# ---- connections that wait ---------------------------------------------------------------------------------

_NETLINK_SOCK_DIAG, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST = 4, 20, 1
_UDIAG_SHOW_RQLEN, _UNIX_DIAG_RQLEN = 0x10, 4
_NO_COOKIE = 0xFFFFFFFF
#: nlmsghdr, then unix_diag_req (linux/unix_diag.h); of the answer, nlmsghdr and unix_diag_msg are 32 bytes.
_DIAG_REQUEST = struct.Struct("=IHHIIBBHIIIII")
_DIAG_ANSWER = 32


def waiting_connections(sock: socket.socket) -> int:
    """How many connections wait at a listening socket to be accepted; 1 for several where it cannot be known."""
    if sock.family == socket.AF_UNIX:
        waiting = _unix_queue(os.fstat(sock.fileno()).st_ino)
    else:
        # tcp_info.tcpi_unacked: of a listening socket, the length of the queue.
        waiting = int.from_bytes(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 28)[24:28], sys.byteorder)
    if waiting is not None:
        return waiting
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return len(poll.poll(0))


def _unix_queue(inode: int) -> int | None:
    """Ask the kernel (sock_diag(7)) for the queue of one unix socket; None when it does not tell."""
    size = _DIAG_REQUEST.size
    request = _DIAG_REQUEST.pack(
        size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 0, 0,
        socket.AF_UNIX, 0, 0, 0xFFFFFFFF, inode, _UDIAG_SHOW_RQLEN, _NO_COOKIE, _NO_COOKIE,
    )  # fmt: skip
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG) as asked:
            asked.sendto(request, (0, 0))
            answer = asked.recv(4096, socket.MSG_DONTWAIT)
    except OSError:
        return None  # no such protocol, no permission, no descriptor: poll(2) knows less, and always works
    at = _DIAG_ANSWER
    while at + 8 <= len(answer):
        length, kind = struct.unpack_from("=HH", answer, at)
        if kind == _UNIX_DIAG_RQLEN:
            return int.from_bytes(answer[at + 4 : at + 8], sys.byteorder)
        at += max(4, length + 3 & ~3)
    return None


def started_at(pid: int) -> float | None:
    """When a process was started, in seconds since 1970; None when it is gone."""
    if (stat := _stat(pid)) is None:
        return None
    with open("/proc/stat", encoding="utf-8") as file:
        booted = next(int(line.split()[1]) for line in file if line.startswith("btime "))
    return booted + int(stat[1][19]) / _TICKS


# ---- file events (inotify(7)) ------------------------------------------------------------------------------

IN_MODIFY, IN_ATTRIB, IN_CLOSE_WRITE = 0x2, 0x4, 0x8
IN_MOVED_FROM, IN_MOVED_TO, IN_CREATE, IN_DELETE = 0x40, 0x80, 0x100, 0x200
IN_DELETE_SELF, IN_MOVE_SELF, IN_Q_OVERFLOW, IN_IGNORED = 0x400, 0x800, 0x4000, 0x8000
_IN_ONLYDIR = 0x01000000
_IN_CHANGES = (
    IN_MODIFY | IN_ATTRIB | IN_CLOSE_WRITE | IN_MOVED_FROM | IN_MOVED_TO | IN_CREATE | IN_DELETE
    | IN_DELETE_SELF | IN_MOVE_SELF
)  # fmt: skip
_IN_EVENT = struct.Struct("iIII")


class FileEvents:
    """An inotify instance that watches folders; raises OSError when the system has none to give."""

    def __init__(self) -> None:
        self.fd = _libc.inotify_init1(os.O_CLOEXEC | os.O_NONBLOCK)
        _check(self.fd)

    def watch(self, folder: str) -> int:
        """Watch ``folder`` for whatever happens to its files; the number is in its events. Raises OSError."""
        number: int = _libc.inotify_add_watch(self.fd, os.fsencode(folder), _IN_CHANGES | _IN_ONLYDIR)
        _check(number)
        return number

    def unwatch(self, number: int) -> None:
        """Forget a folder; one that is gone was forgotten already."""
        _libc.inotify_rm_watch(self.fd, number)

    def read(self) -> list[tuple[int, int, str]]:
        """What has happened: number of the watch (-1: events were lost), mask, name of the file."""
        try:
            data = os.read(self.fd, 65536)
        except BlockingIOError:
            return []
        events, at = [], 0
        while at < len(data):
            number, mask, _, length = _IN_EVENT.unpack_from(data, at)
            at += _IN_EVENT.size
            name = os.fsdecode(data[at : at + length].rstrip(b"\0"))
            at += length
            events.append((number, mask, name))
        return events

    def close(self) -> None:
        """Close it."""
        os.close(self.fd)
