"""The fork server's warm-up: it lives through a request, and leaves nothing that would be forked along."""

import subprocess
import sys
from pathlib import Path

from pyemperor.cli import warm_up

_REPORT = """
import gc, os, signal, sys, threading
import pykka
from pyemperor.cli import warm_up
from pyemperor.cli.logs import log_to_stderr

def state():
    gc.collect()
    yield os.getcwd(), os.stat("/proc/self/fd/2").st_ino
    yield threading.active_count(), pykka.ActorRegistry.get_all()
    yield [signal.getsignal(number) for number in range(1, 32)], signal.pthread_sigmask(signal.SIG_BLOCK, ())
    # What is left of a script that is cut off is reaped, and closed in whatever is forked.
    yield late or (os.listdir("/proc/self/fd"), open(f"/proc/self/task/{os.getpid()}/children").read())

late = False
PREPARE
log_to_stderr("json", level="DEBUG", actor="fork-server")
before = [*state()]
warm_up.warm_up("json", "DEBUG")
after = [*state()]
assert before == after, (before, after)
"""


def _warm_up(prepare: str = "") -> list[str]:
    """Run it in a process of its own; the value is what it said."""
    done = subprocess.run(
        [sys.executable, "-c", _REPORT.replace("PREPARE", prepare)],
        capture_output=True, text=True, timeout=30, check=False, cwd="/",
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return done.stderr.splitlines()


def test_it_leaves_nothing_behind_and_says_nothing_but_that() -> None:
    [line] = _warm_up()
    assert "fork server: warm after" in line


def test_requests_are_answered_by_a_program() -> None:
    """Both wires get its answer: a warm-up that only sees errors would warm the wrong pages."""
    served = """
import atexit
from pyemperor.cli import processes

statuses = []
processes.log_request = lambda _birth, _core, outcome, *_, **__: statuses.append(outcome.status)
atexit.register(lambda: print(statuses, file=sys.stderr))
"""
    *_, statuses = _warm_up(served)
    assert statuses == str([200] * (2 * warm_up._LIVES))


def test_without_it_the_fork_server_is_cold_and_no_worse() -> None:
    [line] = _warm_up("late, warm_up._LATEST = True, 0.0")
    assert "it stays cold" in line
    assert "TimeoutError" in line


def test_the_log_of_a_daemon_does_not_hear_of_it(tmp_path: Path) -> None:
    """The fork server inherits the file of ``daemonize`` by name, and would open it in its warm-up."""
    log = tmp_path / "emperor.log"
    prepare = f"""
os.environ["PYEMPEROR_LOG_FILE"] = '{{"path": "{log}"}}'
os.close(2)
os.open("{log}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
"""
    _warm_up(prepare)
    [line] = log.read_text().splitlines()
    assert "fork server: warm after" in line
