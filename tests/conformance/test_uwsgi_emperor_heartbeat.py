"""uWSGI's heartbeat and its victims, with real processes and short times: cases of docs/edge-cases.md.

The same in long times, with hangs, pauses and lost beats: test_failure_detector.py, in simulated time.
"""

import os
import re
import select
import signal
import socket
from collections.abc import Iterator

import pytest

from tests.conformance.capital import Capital, capital
from tests.support import connect, http_request, read_to_end

#: Seconds of silence that uWSGI would kill for.
TOLERANCE = 0.5


@pytest.fixture(scope="module")
def emperor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Capital]:
    """An Emperor with little patience."""
    options = f"emperor-required-heartbeat = {TOLERANCE}\n".replace("0.5", "500ms")
    with capital(tmp_path_factory.mktemp("capital"), options) as reign:
        yield reign
        assert reign.stop() == 0


def wait(seconds: float) -> None:
    """Let time pass in which something must not happen: nothing else can show it."""
    signal.sigtimedwait([], seconds)


def test_23_24_25_busy_or_idle_nobody_is_killed(emperor: Capital) -> None:
    """23. Idle: never killed. 24. uWSGI kills a vassal whose only worker is busy for longer than the tolerance.
    25. And an idle one that has just been busy. Better: the master beats, whatever its workers do."""
    begun = emperor.now
    emperor.start("busy", "processes = 1\nheartbeat = 1\n")
    pids = emperor.status("busy").pids
    held, _ = emperor.hold("busy")
    wait(3 * TOLERANCE)
    emperor.release()
    assert read_to_end(held).text == "held\n"
    held.close()
    wait(3 * TOLERANCE)
    status = emperor.status("busy")
    assert (status.pids, status.restarts, status.state) == (pids, 0, "READY")
    assert emperor.count("no heartbeat|silent", begun) == 0


def test_29_a_paused_vassal_is_not_killed(emperor: Capital) -> None:
    """29. uWSGI kills a vassal that is stopped for longer than the tolerance. Better: it is continued."""
    begun = emperor.now
    emperor.start("paused", "heartbeat = 1\n")
    (pid,) = emperor.status("paused").pids
    os.kill(pid, signal.SIGSTOP)
    emperor.said("vassal paused.ini is silent: asking it whether it lives", begun)
    emperor.said(r"\[emperor\] vassal paused.ini answered", begun)
    assert emperor.status("paused").pids == (pid,)
    assert emperor.get("paused").status == 200


def test_29_sigtstp_pauses_a_vassal_which_beats_on(emperor: Capital) -> None:
    """29. As in uWSGI: SIGTSTP to a master has the workers finish what they have and take no more, also one that
    comes meanwhile; the next SIGTSTP ends that. Better: uWSGI's do not beat then, and the Emperor kills it."""
    begun = emperor.now
    emperor.start("tstp", "heartbeat = 1\nprocesses = 2\nthreads = 2\n")
    (pid,) = emperor.status("tstp").pids
    held, _ = emperor.hold("tstp")
    os.kill(pid, signal.SIGTSTP)
    emperor.said(r" - \*\*\* PAUSE \(press start to resume, if you do not have a joypad send SIGTSTP\)", begun)
    emperor.release()
    assert read_to_end(held).text == "held\n"
    held.close()
    waiting = [first_that_waits(emperor, "tstp"), ask(emperor, "tstp"), ask(emperor, "tstp")]
    worker = int(emperor.said(r"spawned uWSGI worker 1 \(pid: \d+", begun).split("pid: ")[1].split(",")[0])
    os.kill(worker, signal.SIGKILL)
    emperor.said(r"Respawned uWSGI worker 1", begun)
    assert not select.select(waiting, [], [], 2 * TOLERANCE)[0], "somebody was answered"
    assert emperor.status("tstp").state == "PAUSED"
    assert emperor.status("tstp").pids == (pid,)
    assert emperor.count("silent|no heartbeat", begun) == 0
    os.kill(pid, signal.SIGTSTP)
    emperor.said(r" - \*\*\* \(SIGTSTP received\) resuming workers \*\*\*", begun)
    for sock in waiting:
        assert read_to_end(sock).status == 200
        sock.close()
    assert emperor.get("tstp").status == 200
    assert emperor.status("tstp").state in ("READY", "STABLE")


def test_29_a_reload_ends_a_pause(emperor: Capital) -> None:
    """29. As in uWSGI, which forgets it when it executes itself anew."""
    emperor.start("again")
    (pid,) = emperor.status("again").pids
    begun = emperor.now
    os.kill(pid, signal.SIGTSTP)
    emperor.said("PAUSE", begun)
    waiting = ask(emperor, "again")
    emperor.reload("again")
    assert read_to_end(waiting).status == 200
    waiting.close()


def first_that_waits(emperor: Capital, name: str) -> socket.socket:
    """Ask until nobody answers: a worker hears of the pause a moment after the log."""
    for _ in range(100):
        sock = ask(emperor, name)
        if not select.select([sock], [], [], TOLERANCE)[0]:
            return sock
        assert read_to_end(sock).status == 200
        sock.close()
    pytest.fail("everybody is answered")


def ask(emperor: Capital, name: str) -> socket.socket:
    sock = connect(emperor.folder / f"{name}.http")
    sock.sendall(http_request("/cgi/hello", version="1.0"))
    return sock


def test_46_an_emperor_that_was_stopped_blames_nobody(emperor: Capital) -> None:
    """46. uWSGI: after a stop longer than the tolerance beats that wait unread are silence. Better: they are read
    before anybody is judged, and everybody has the time again that the judge was away."""
    names = [f"crowd{number}" for number in range(6)]
    for name in names:
        emperor.start(name, "heartbeat = 1\n")
    pids = [emperor.status(name).pids for name in names]
    begun = emperor.now
    emperor.emperor.send_signal(signal.SIGSTOP)
    wait(4 * TOLERANCE)
    emperor.emperor.send_signal(signal.SIGCONT)
    wait(2 * TOLERANCE)
    assert [emperor.status(name).pids for name in names] == pids
    assert emperor.count("no heartbeat|curse", begun) == 0


def test_a_beat_that_is_too_rare_for_the_tolerance_is_told(emperor: Capital) -> None:
    """Complaint 1: with ``heartbeat = 25`` and a tolerance of 30 uWSGI 2.0 killed every two minutes, and said not
    why. Better: what does not fit is said, and the beats come often enough."""
    begun = emperor.now
    emperor.start("rare", "heartbeat = 25\n")
    line = emperor.said("vassal rare: heartbeat = 25 with a tolerance of 0.5 s leaves too little room", begun)
    assert re.search(r"it will beat every 0\.\d+ s", line)
