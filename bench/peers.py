"""The programs that are compared: how each is configured, started, looked into and stopped."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import Any, ClassVar

from bench.load import ask
from bench.process import Late, children, open_all, title, tree, wait_for
from bench.result import FCGIWRAP, OURS, UWSGI

SLOTS = 4
HEARTBEAT = 10
#: Workers of each vassal that is only there for company.
CROWD_WORKERS = 2
START_TIMEOUT = 15.0


class PeerError(Exception):
    """A program did not do what the measurement needs; the text says which and what it printed."""


@dataclass(frozen=True, slots=True)
class Born:
    """A worker that replaced another: its pid and when it came, on CLOCK_MONOTONIC."""

    pid: int
    at: float


class Peer:
    """A program that runs CGI scripts behind nginx, in a directory of its own."""

    #: Its column in the results.
    name: ClassVar[str]
    #: Which signal means "stop" to it.
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    #: Seconds to leave a tree alone after a replacement, before it is hurt again.
    settle: ClassVar[float] = 0.3

    def __init__(self, home: Path, cgi_bin: Path, port: int) -> None:
        home.mkdir()
        self.home, self.cgi_bin, self.port = home, cgi_bin, port
        self.socket, self.log = home / "peer.sock", home / "log"
        self._process: subprocess.Popen[bytes] | None = None
        self.configure()

    def configure(self) -> None:
        """Write the configuration files, if it has any."""

    def command(self) -> list[str]:
        """Return the command line."""
        raise NotImplementedError

    def reload(self) -> None:
        """Have the Emperor reload its vassal, and do not wait for it."""
        raise NotImplementedError

    def crowd(self, neighbours: int) -> None:
        """Give the Emperor so many more vassals, of CROWD_WORKERS workers each."""
        raise NotImplementedError

    def location(self) -> str:
        """Return the body of nginx's location block."""
        raise NotImplementedError

    # -- life ----------------------------------------------------------------------------------------

    def launch(self) -> None:
        """Start the process and return at once."""
        self.socket.unlink(missing_ok=True)
        with self.log.open("wb") as log:
            self._process = subprocess.Popen(
                self.command(), cwd=self.home, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )

    def start(self) -> float:
        """Start, wait for the first answer through nginx, and return the seconds it took."""
        began = time.monotonic()
        self.launch()
        try:
            answered = wait_for("first answer", self._answer, START_TIMEOUT)
        except Late as late:
            self.stop()
            raise PeerError(f"{self.name} does not start: {late}\n{self.last_words()}") from late
        return answered - began

    def _answer(self) -> float | None:
        if self._process is None or self._process.poll() is not None:
            code = None if self._process is None else self._process.returncode
            raise PeerError(f"{self.name} exited with {code} while starting\n{self.last_words()}")
        if not self.socket.exists():
            return None
        connection = HTTPConnection("127.0.0.1", self.port, timeout=START_TIMEOUT)
        answer = ask(connection, "/cgi-bin/hello-c")
        connection.close()
        return answer.ended if answer.status == 200 else None

    def stop(self) -> int:
        """Stop it and whatever is left of its tree, and return its exit status."""
        if self._process is None:
            return 0
        family = open_all(self.pids())
        if self._process.poll() is None:
            self._process.send_signal(self.stop_signal)
        try:
            code = self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            code = self._process.wait()
        for pidfd in family:
            with suppress(ProcessLookupError):  # gone by itself, as it should
                signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
        self._process = None
        return code

    def last_words(self) -> str:
        """Return the end of its log."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        return "\n".join(f"    {line}" for line in lines[-12:]) or "    (it printed nothing)"

    # -- the tree ------------------------------------------------------------------------------------

    @property
    def root(self) -> int:
        """The pid of the process that was started."""
        if self._process is None:
            raise PeerError(f"{self.name} is not running")
        return self._process.pid

    def pids(self) -> list[int]:
        """Return the pids of the whole tree."""
        return tree(self.root)

    def master(self) -> int:
        """Return the pid of the process that supervises the workers."""
        return self.root

    def workers(self) -> list[int]:
        """Return the pids of the processes that run scripts."""
        return children(self.master())

    def replacement(self, known: set[int], since: float) -> Born | None:
        """Return the worker that came after ``since`` and is not in ``known``; by the process table."""
        new = [pid for pid in self.workers() if pid not in known]
        return Born(new[0], time.monotonic()) if new else None


class Fcgiwrap(Peer):
    """fcgiwrap: a FastCGI server that forks and runs one script at a time in each process."""

    name = FCGIWRAP

    def command(self) -> list[str]:
        return ["fcgiwrap", "-c", str(SLOTS), "-s", f"unix:{self.socket}"]

    def location(self) -> str:
        return f"""
            include /etc/nginx/fastcgi_params;
            fastcgi_request_buffering off;
            fastcgi_param SCRIPT_FILENAME {self.cgi_bin.parent}$fastcgi_script_name;
            fastcgi_pass unix:{self.socket};"""


class _SpeaksUwsgi(Peer):
    def location(self) -> str:
        return f"""
            include /etc/nginx/uwsgi_params;
            uwsgi_modifier1 9;
            uwsgi_request_buffering off;
            uwsgi_pass unix:{self.socket};"""


class Uwsgi(_SpeaksUwsgi):
    """uWSGI with its CGI plugin: a master and its workers."""

    name = UWSGI

    def configure(self) -> None:
        (self.home / "vassals").mkdir()
        self.ini = self.home / "vassals" / "bench.ini"
        self.ini.write_text(
            f"""[uwsgi]
plugins = cgi
socket = {self.socket}
cgi = /cgi-bin={self.cgi_bin}
master = true
processes = {SLOTS}
threads = 1
heartbeat = {HEARTBEAT}
disable-logging = true
die-on-term = true
vacuum = true
"""
        )

    def command(self) -> list[str]:
        return ["uwsgi", "--ini", str(self.ini)]


class UwsgiEmperor(Uwsgi):
    """The same uWSGI as a vassal of its Emperor: the tree that PyEmperor has."""

    stop_signal = signal.SIGINT
    settle = 0.5

    def command(self) -> list[str]:
        return ["uwsgi", "--emperor", str(self.ini.parent)]

    def reload(self) -> None:
        os.utime(self.ini)

    def crowd(self, neighbours: int) -> None:
        for number in range(1, neighbours + 1):
            text = self.ini.read_text().replace(str(self.socket), str(self.home / f"{number}.sock"))
            slots = text.replace(f"processes = {SLOTS}", f"processes = {CROWD_WORKERS}")
            self.ini.with_name(f"neighbour-{number}.ini").write_text(slots)

    def master(self) -> int:
        return next(iter(children(self.root)), 0)

    def workers(self) -> list[int]:
        master = self.master()
        return children(master) if master else []


class PyEmperor(_SpeaksUwsgi):
    """PyEmperor with one vassal, its log as JSON lines on stderr."""

    name = OURS
    #: Longer than stable-after below: each kill hits a vassal of good standing, whose restart is immediate.
    settle = 1.3

    def configure(self) -> None:
        self.toml = self.home / "bench.toml"
        self.toml.write_text(
            f"""[emperor]
log-style = "json"

[supervision]
stable-after = "1s"

[[vassal]]
name = "bench"
socket = "{self.socket}"
cgi = ["/cgi-bin={self.cgi_bin}", "/cgi-bin/warm={self.cgi_bin}/warm"]
cgi-warm = "/cgi-bin/warm=python"
processes = {SLOTS}
threads = 1
heartbeat = {HEARTBEAT}
disable-logging = true
"""
        )

    def command(self) -> list[str]:
        beside = Path(sys.executable).with_name("pyemperor")
        program = str(beside) if beside.exists() else shutil.which("pyemperor")
        if program is None:
            raise PeerError("no pyemperor command: install it with pip install -e .")
        return [program, "run", str(self.toml)]

    def reload(self) -> None:
        os.kill(self.root, signal.SIGHUP)

    def crowd(self, neighbours: int) -> None:
        with self.toml.open("a") as file:
            file.write(
                f"""
[[vassal]]
name = "neighbour"
copies = {neighbours}
socket = "{self.home}/%n.sock"
cgi = "/cgi-bin={self.cgi_bin}"
processes = {CROWD_WORKERS}
heartbeat = {HEARTBEAT}
"""
            )

    def _titled(self, start: str) -> list[int]:
        return [pid for pid in self.pids() if title(pid).startswith(start)]

    def master(self) -> int:
        return next(iter(self._titled("pyemperor master: bench")), 0)

    def workers(self) -> list[int]:
        return self._titled("pyemperor worker: bench/")

    def launch(self) -> None:
        super().launch()
        self._tail = JsonTail(self.log, b'"READY"')
        self._born: list[Born] = []

    def replacement(self, known: set[int], since: float) -> Born | None:
        """As of the peers, but stricter: the worker must have said that it is READY, and bear its title."""
        self._born += worker_ready_times(self._tail.entries())
        for born in self._born:
            if born.at > since and born.pid not in known and title(born.pid).startswith("pyemperor worker: "):
                return born
        return None


class JsonTail:
    """Follows a log of JSON lines and parses those that hold ``word``: all would cost too much."""

    def __init__(self, path: Path, word: bytes) -> None:
        self._file, self._word = path.open("rb"), word
        self._rest = b""

    def entries(self) -> Iterator[dict[str, Any]]:
        """Yield what was logged since the last call."""
        *lines, self._rest = (self._rest + self._file.read()).split(b"\n")
        return (json.loads(line) for line in lines if self._word in line)


def worker_ready_times(entries: Iterable[dict[str, Any]]) -> Iterator[Born]:
    """Yield the workers that became READY, from entries of PyEmperor's JSON log."""
    for entry in entries:
        is_state = entry.get("event") == "state" and entry.get("state") == "READY"
        if is_state and str(entry.get("actor", "")).startswith("worker:"):
            yield Born(int(entry["pid"]), float(entry["at"]))


def kill(pid: int) -> float:
    """Send SIGKILL and return when, on CLOCK_MONOTONIC."""
    at = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    return at
