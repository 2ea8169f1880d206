"""Figures of other processes, from /proc and the kernel's clocks."""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

_CPUCLOCK_SCHED = 2

T = TypeVar("T")


class Late(Exception):
    """What was awaited did not come in time."""


def wait_for(what: str, probe: Callable[[], T | None], seconds: float, pause: float = 0.001) -> T:
    """Call ``probe`` every ``pause`` seconds until it answers something true; raise :class:`Late`."""
    end = time.monotonic() + seconds
    while not (found := probe()):
        if time.monotonic() > end:
            raise Late(f"{what}: not within {seconds:g} s")
        time.sleep(pause)
    return found


def children(pid: int) -> list[int]:
    """Return the pids of the direct children, in the kernel's order; none when the process is gone.

    Reads one small file a thread, so that it can be polled every millisecond, unlike a walk through /proc.
    """
    found: list[int] = []
    try:
        for task in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (task / "children").read_text().split())
    except (FileNotFoundError, ProcessLookupError):
        return []
    return found


def tree(pid: int) -> list[int]:
    """Return ``pid`` and all its descendants."""
    return [pid, *(below for child in children(pid) for below in tree(child))]


def open_all(pids: Iterable[int]) -> list[int]:
    """Return a pidfd for each process that still exists: unlike a pid it is never another's later."""
    pidfds: list[int] = []
    for pid in pids:
        with suppress(ProcessLookupError):
            pidfds.append(os.pidfd_open(pid))
    return pidfds


def title(pid: int) -> str:
    """Return the command line (which setproctitle changes), empty when the process is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def pss(pid: int) -> float:
    """Return the proportional set size in MB (10^6 bytes): shared pages are divided among their users."""
    return _rolled_up(pid, "Pss:")


def private(pid: int) -> float:
    """Return what a process shares with nobody, in MB (10^6 bytes)."""
    return _rolled_up(pid, "Private_Dirty:")


def _rolled_up(pid: int, name: str) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024 / 1e6
    raise Late(f"process {pid} has no line {name}")


def cpu_time(pids: Iterable[int]) -> float:
    """Return the CPU seconds that the processes have used, in nanosecond steps.

    /proc/PID/stat counts ticks of 10 ms, too coarse for an idle process; the kernel's CPU clock of a
    process (clock_getcpuclockid(3)) does not.
    """
    return sum(time.clock_gettime((~pid << 3) | _CPUCLOCK_SCHED) for pid in pids)

