"""Those who ask: wrk for load, and clients that remember every single answer."""

import re
import subprocess
import threading
import time
from dataclasses import dataclass
from http.client import HTTPConnection, HTTPException
from types import TracebackType
from typing import Self

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 60e3}


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk saw. Latencies are milliseconds."""

    rate: float
    p50: float
    p99: float
    requests: int
    failed: int


def wrk(url: str, connections: int, seconds: float) -> Load:
    """Run wrk with one thread and wait for it."""
    return finish(start_wrk(url, connections, seconds))


def start_wrk(url: str, connections: int, seconds: float) -> "subprocess.Popen[str]":
    """Start wrk; :func:`finish` gives its result."""
    command = ["wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", url]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def finish(process: "subprocess.Popen[str]") -> Load:
    """Wait for a wrk and return what it saw."""
    text, _ = process.communicate()
    return parse(text)


def parse(text: str) -> Load:
    """Read the report of ``wrk --latency``."""
    rate = re.search(r"Requests/sec:\s*([\d.]+)", text)
    total = re.search(r"(\d+) requests in", text)
    if not rate or not total:
        raise RuntimeError(f"wrk failed:\n{text}")
    failed = sum(map(int, re.findall(r"(?:connect|read|write|timeout) (\d+)", text)))
    failed += sum(map(int, re.findall(r"Non-2xx or 3xx responses: (\d+)", text)))
    return Load(
        float(rate[1]), _percentile(text, "50"), _percentile(text, "99"), int(total[1]), failed
    )


def _percentile(text: str, which: str) -> float:
    found = re.search(rf"^\s*{which}%\s+([\d.]+)(us|ms|s|m)\s*$", text, re.MULTILINE)
    return float(found[1]) * _UNITS[found[2]] if found else float("nan")


@dataclass(frozen=True, slots=True)
class Answer:
    """One request as its client saw it; status 0 is a connection that failed.

    ``began`` and ``ended`` are readings of CLOCK_MONOTONIC.
    """

    began: float
    ended: float
    status: int
    body: bytes


class Clients:
    """One client that asks again after 1 ms and ``others`` after 10 ms, on connections kept alive.

    Paced, because a machine that its clients fill would show its scheduler instead of the server.
    """

    def __init__(self, port: int, path: str, others: int) -> None:
        self.answers: list[Answer] = []
        self._port, self._path = port, path
        self._over = threading.Event()
        pauses = [0.001] + [0.01] * others
        self._threads = [threading.Thread(target=self._run, args=(pause,)) for pause in pauses]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, pause: float) -> None:
        connection = HTTPConnection("127.0.0.1", self._port, timeout=30)
        while not self._over.wait(pause):
            self.answers.append(ask(connection, self._path))
        connection.close()


def ask(connection: HTTPConnection, path: str) -> Answer:
    """Send one GET and return the answer, whatever it is."""
    began = time.monotonic()
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        status, body = response.status, response.read()
    except (OSError, HTTPException):
        connection.close()  # the next request opens it anew
        status, body = 0, b""
    return Answer(began, time.monotonic(), status, body)
