"""Plays a scenario to its end and gives the verdict, on this machine or in simulated time."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence

from loguru import logger

from pyemperor.actors.actor import Threads
from pyemperor.actors.linux import become_subreaper, living_descendants
from pyemperor.cli.player import Player, kill_all, scripts, send_signal
from pyemperor.cli.terminal import form
from pyemperor.cli.timeline import Timeline
from pyemperor.cli.transcript import Form, Json, Transcript, Verdict
from pyemperor.cli.verdict import judge
from pyemperor.protocol.scenario import Scenario

#: Seconds in which an Emperor without a player must have stopped.
_STOPPED = 10.0
#: Seconds in which a process that was killed must be gone.
_KILLED = 5.0


def play(scenario: Scenario, file: str, parameters: Mapping[str, str], *, json: bool) -> int:
    """Play ``scenario``, read from ``file`` with ``parameters``, on this machine.

    The value is the exit code: 0 every expectation is met, 1 not, 2 it cannot be played so. When it returns,
    nothing that it started is left, whatever happened.
    """
    if scenario.run.mode == "sim":
        return _refuse(scenario, "simulated time only: add --simulate")
    # What outlives the Emperor becomes a child of this process: nothing can escape the last look.
    become_subreaper()
    timeline = Timeline(scenario, scripts)
    transcript = Transcript(timeline.course, _form(json=json))
    link, theirs = socket.socketpair()
    with theirs:
        emperor = _start_emperor(file, parameters, theirs.fileno(), quiet=json)
    try:
        player = Player(Threads(), scenario, timeline, emperor, link, transcript.show)
        player.run_here()
        if player.error is not None:
            raise player.error
        timeline.course.left_over = tuple(_left_over(scenario, orderly=emperor.returncode == 0))
    finally:
        _clean_up(emperor)
    return _conclude(scenario, timeline, transcript)


def simulate(scenario: Scenario, seed: int, *, json: bool) -> int:
    """Play ``scenario`` in simulated time, all randomness from ``seed``: the output is the same every time.

    The value is the exit code, as :func:`play` has it.
    """
    if scenario.run.mode == "real":
        return _refuse(scenario, "real time only: leave --simulate away")
    from pyemperor.cli.rehearsal import Rehearsal

    logger.disable("pyemperor")  # the timeline says it all, and the log has the time of the machine
    # KeyboardInterrupt would be taken for a failure of the actor at work.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    rehearsal = Rehearsal(scenario, seed)
    transcript = Transcript(rehearsal.timeline.course, _form(json=json))
    rehearsal.run(transcript.show)
    return _conclude(scenario, rehearsal.timeline, transcript, seed)


def _conclude(scenario: Scenario, timeline: Timeline, transcript: Transcript, seed: int | None = None) -> int:
    findings = judge(scenario.expects, timeline.course)
    verdict = Verdict(scenario.name, timeline.problems, findings, timeline.traffic.answers, seed)
    transcript.close(verdict)
    return 0 if verdict.met else 1


def _form(*, json: bool) -> Form:
    return Json() if json else form()


def _refuse(scenario: Scenario, why: str) -> int:
    print(f"pyemperor: {scenario.name} runs in {why}", file=sys.stderr)
    return 2


def _start_emperor(
    file: str, parameters: Mapping[str, str], link: int, *, quiet: bool
) -> "subprocess.Popen[bytes]":
    command = [sys.executable, "-P", "-m", "pyemperor.cli.reign", file, "--link", str(link)]
    command += [part for name, value in parameters.items() for part in ("--set", f"{name}={value}")]
    return subprocess.Popen(
        command,
        pass_fds=[link],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL if quiet else None,
        process_group=0,  # Ctrl-C is for the player: it ends the run in order
    )


def _left_over(scenario: Scenario, *, orderly: bool) -> Iterator[str]:
    """Name what is left of the tree: processes, zombies, sockets.

    After an ``orderly`` end of the Emperor nothing may be. Without an Emperor the others have their mercy to
    finish in, and their zombies are ours.
    """
    if not orderly:
        mercy = max(vassal.reload_mercy for vassal in scenario.vassals)
        _await_end(living_descendants([os.getpid()]), time.monotonic() + mercy)
    for pid in living_descendants([os.getpid()]):
        yield f"process {pid} ({_name(pid)})"
    if orderly:
        for pid in _reap():
            yield f"zombie {pid}"
    for vassal in scenario.vassals:
        for address in vassal.addresses:
            if address.kind == "unix" and os.path.exists(address.path):
                yield f"socket {address.path}"


def _await_end(pids: Sequence[int], deadline: float) -> None:
    """Return when all ``pids`` have ended, or at ``deadline`` (seconds, monotonic)."""
    for pid in pids:
        try:
            pidfd = os.pidfd_open(pid)
        except ProcessLookupError:
            continue
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.poll(max(0.0, deadline - time.monotonic()) * 1000)
        os.close(pidfd)


def _clean_up(emperor: "subprocess.Popen[bytes]") -> None:
    """End and reap whatever is left."""
    if emperor.poll() is None:  # the player failed; its link is closed, so the Emperor is stopping
        _await_end([emperor.pid], time.monotonic() + _STOPPED)
        send_signal(emperor.pid, signal.SIGKILL)
        emperor.wait(_KILLED)
    deadline = time.monotonic() + _KILLED
    while (pids := living_descendants([os.getpid()])) and time.monotonic() < deadline:
        kill_all(pids)
        _await_end(pids, deadline)
        _reap()
    _reap()


def _reap() -> list[int]:
    """Reap every child that has ended; their pids."""
    reaped: list[int] = []
    while True:
        try:
            pid, _ = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return reaped
        if pid == 0:
            return reaped
        reaped.append(pid)


def _name(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except (FileNotFoundError, ProcessLookupError):
        return "gone by now"
