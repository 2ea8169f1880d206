"""What tests of a running server share: a real ``pyemperor run``, real clients, waiting with a deadline."""

import json
import os
import re
import select
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar

from pyemperor.actors.linux import FileEvents, become_subreaper, living_descendants
from pyemperor.protocol.uwsgi import encode_packet

#: Seconds in which anything that a test waits for must have happened; no test waits for it on purpose.
PATIENCE = 15.0
PYTHON = f"#!{sys.executable} -IS\n"

Record = dict[str, Any]

#: Several Emperors run at a time, and the default path can be only one's.
_ALONE = 'control-socket = "none"\n'
_USUAL = ("INFO", "WARNING", "NGINX")
_NGINX = re.compile(rb"\d{4}/\d\d/\d\d [0-9:]{8} \[")


# ---- the server ---------------------------------------------------------------------------------------------


class Server:
    """``pyemperor run`` on a scenario in ``folder``; ``${port}`` in its text is a free TCP port.

    Once constructed, every vassal is ready. :meth:`stop` checks that nothing is left over.
    """

    running: ClassVar[set[int]] = set()

    def __init__(self, folder: Path, text: str, **environment: str) -> None:
        become_subreaper()  # whatever escapes the tree becomes a child of this process, where stop() looks
        self.port = free_port()
        scenario = folder / "scenario.toml"
        scenario.write_text(f'[parameters]\nport = "{self.port}"\n[emperor]\nlog-style = "json"\n{_ALONE}{text}')
        self.folder = folder
        self._lines: list[Record] = []
        self._news = threading.Condition()
        self.emperor = subprocess.Popen(
            [Path(sys.executable).with_name("pyemperor"), "run", scenario],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env={**os.environ, **environment},
        )
        self.running.add(self.emperor.pid)
        self._over = False  # nothing more will be logged
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        try:
            for name in (line.split('"')[1] for line in text.splitlines() if line.startswith("name = ")):
                self.wait_for(actor=f"master:{name}", state="READY")
        except BaseException:
            self.emperor.kill()
            raise

    def _read(self) -> None:
        assert self.emperor.stderr is not None
        with self.emperor.stderr as lines:
            for line in lines:
                try:
                    record = json.loads(line)
                except ValueError:
                    level = "NGINX" if _NGINX.match(line) else "NOT JSON"
                    record = {"level": level, "message": line.decode(errors="replace")}
                with self._news:
                    self._lines.append(record)
                    self._news.notify_all()
        with self._news:
            self._over = True
            self._news.notify_all()

    @property
    def log(self) -> list[Record]:
        """Everything that was logged so far."""
        with self._news:
            return list(self._lines)

    def wait_for(self, *, since: int = 0, count: int = 1, **fields: Any) -> Record:
        """Wait for ``count`` log records with these ``fields``, from number ``since`` on, and give the last.

        A callable judges the value of its field.
        """

        def fits(record: Record) -> bool:
            return all(
                wanted(record.get(name, "")) if callable(wanted) else record.get(name) == wanted
                for name, wanted in fields.items()
            )

        def found() -> Record | None:
            return next(islice(filter(fits, self._lines[since:]), count - 1, None), None)

        with self._news:
            self._news.wait_for(lambda: found() or self._over, PATIENCE)
            record = found()
            assert record is not None, f"no log record {fields} in {self._lines[since:]}"
            return record

    def workers(self, vassal: str) -> list[int]:
        """The pids of the workers of ``vassal``, those of dead ones included."""
        found = [r for r in self.log if r.get("vassal") == vassal and r.get("state") == "READY"]
        return [record["pid"] for record in found if record["actor"].startswith("worker:")]

    def stop(self) -> None:
        """End it by SIGTERM: exit code 0, no process, no socket, and no error in the log, which is all JSON."""
        self.emperor.terminate()
        try:
            code = self.emperor.wait(PATIENCE)
        finally:
            self.emperor.kill()
            self.running.remove(self.emperor.pid)
            left = living_descendants([os.getpid()], besides=self.running)
            for pid in left:
                os.kill(pid, signal.SIGKILL)
            self._reader.join(PATIENCE)
        assert code == 0, self._lines
        assert left == []
        assert [path for path in self.folder.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)] == []
        assert [record for record in self._lines if record["level"] not in _USUAL] == []


@contextmanager
def serving(folder: Path, text: str, **environment: str) -> Iterator[Server]:
    """A running :class:`Server`, stopped at the end."""
    server = Server(folder, text, **environment)
    try:
        yield server
    except BaseException:
        server.emperor.terminate()
        server.emperor.wait(PATIENCE)
        raise
    server.stop()


def free_port() -> int:
    """A TCP port of the loopback address that nobody uses."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# ---- clients ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Answer:
    """A response as it came; ``cut``: the connection broke instead of ending. Names in ``headers`` are lower."""

    raw: bytes
    cut: bool

    @property
    def status(self) -> int:
        return int(self.raw.split(b" ", 2)[1]) if self.raw else 0

    @property
    def line(self) -> bytes:
        return self.raw.split(b"\r\n", 1)[0]

    @property
    def headers(self) -> dict[str, str]:
        lines = self.raw.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")[1:]
        return {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}

    @property
    def body(self) -> bytes:
        return self.raw.partition(b"\r\n\r\n")[2]

    @property
    def text(self) -> str:
        return self.body.decode()


def connect(address: str | Path | tuple[str, int]) -> socket.socket:
    """Connect to a unix socket or a TCP address."""
    sock = socket.socket(socket.AF_INET if isinstance(address, tuple) else socket.AF_UNIX)
    sock.settimeout(PATIENCE)
    try:
        sock.connect(address if isinstance(address, tuple) else str(address))
    except OSError:
        sock.close()
        raise
    return sock


def converse(sock: socket.socket, data: bytes) -> Answer:
    """Send ``data`` and read to the end at the same time, as a web server does; closes ``sock``."""

    def send() -> None:
        try:
            sock.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return  # the server may end early; what it said decides

    sender = threading.Thread(target=send)
    sender.start()
    try:
        return read_to_end(sock)
    finally:
        sender.join()
        sock.close()


def read_to_end(sock: socket.socket) -> Answer:
    """Read the whole answer."""
    parts = []
    try:
        while data := sock.recv(1 << 16):
            parts.append(data)
    except ConnectionResetError:
        return Answer(b"".join(parts), cut=True)
    return Answer(b"".join(parts), cut=False)


def packet(path: str, *, method: str = "GET", modifier1: int = 9, length: int = 0, **more: str) -> bytes:
    """A uwsgi packet as nginx sends it."""
    path_info, _, query = path.partition("?")
    variables = {
        "QUERY_STRING": query,
        "REQUEST_METHOD": method,
        "CONTENT_TYPE": "",
        "CONTENT_LENGTH": str(length) if length else "",
        "REQUEST_URI": path,
        "PATH_INFO": path_info,
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "192.0.2.7",
        "SERVER_PORT": "80",
        "SERVER_NAME": "www.example.org",
        "HTTP_HOST": "www.example.org",
        **more,
    }
    return encode_packet([(k.encode(), v.encode()) for k, v in variables.items()], modifier1=modifier1)


def http_request(path: str, *, method: str = "GET", body: bytes = b"", version: str = "1.1", **more: str) -> bytes:
    """An HTTP request; ``HTTP_``-less names with ``_`` for ``-`` are header fields."""
    fields = {"Host": "www.example.org", **({"Content-Length": str(len(body))} if body else {}), **more}
    head = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"{method} {path} HTTP/{version}\r\n{head}\r\n".encode() + body


@dataclass(frozen=True)
class Site:
    """One vassal of a server and the folder of its scripts, at ``/cgi-bin``."""

    server: Server
    folder: Path
    socket: Path

    def script(self, name: str, text: str, mode: int = 0o755) -> str:
        """Write a script, sh unless it begins with ``#!``; its URL path."""
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text if text.startswith("#!") else f"#!/bin/sh\n{text}")
        file.chmod(mode)
        return f"/cgi-bin/{name}"

    def address(self, wire: str) -> Path | tuple[str, int]:
        """Where the ``wire``, "uwsgi" or "http", is served."""
        return self.socket if wire == "uwsgi" else ("127.0.0.1", self.server.port)

    def uwsgi(self, path: str, body: bytes = b"", **more: Any) -> Answer:
        """A request over the uwsgi socket."""
        method = more.pop("method", "POST" if body else "GET")
        head = packet(path, method=method, length=len(body), **more)
        return converse(connect(self.socket), head + body)

    def http(self, path: str, body: bytes = b"", **more: Any) -> Answer:
        """A request over the HTTP listener."""
        method = more.pop("method", "POST" if body else "GET")
        return self.http_bytes(http_request(path, method=method, body=body, **more))

    def http_bytes(self, request: bytes) -> Answer:
        """Whatever bytes over the HTTP listener."""
        return converse(connect(self.address("http")), request)

    def request(self, wire: str, path: str, body: bytes = b"", **more: Any) -> Answer:
        """A request over the ``wire``, "uwsgi" or "http"."""
        return self.uwsgi(path, body, **more) if wire == "uwsgi" else self.http(path, body, **more)

    def logged(self, path: str) -> Record:
        """The log record of the request for ``path``."""
        return self.server.wait_for(event="request", uri=path)


# ---- waiting ------------------------------------------------------------------------------------------------


def gone(pid: int, seconds: float = PATIENCE) -> bool:
    """Whether the process ends within ``seconds``."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        return bool(poll.poll(seconds * 1000))
    finally:
        os.close(fd)


def pids(site: Site, marker: str) -> list[int]:
    """The process ids that a script wrote to stderr as ``MARKER PID ...``: it runs."""
    record = site.server.wait_for(event="stderr", message=lambda message: f": {marker} " in message)
    return [int(word) for word in record["message"].split(f"{marker} ")[1].split()]


def variables(answer: Answer) -> Mapping[str, str]:
    """What ``env -0`` printed."""
    assert answer.status == 200, answer
    return dict(pair.split("=", 1) for pair in answer.text.split("\0") if pair)


def until(folder: Path, true: Callable[[], bool]) -> None:
    """Wait for something that the files in ``folder`` show."""
    with closing(FileEvents()) as events:
        events.watch(str(folder))
        end = time.monotonic() + PATIENCE
        while not true() and (left := end - time.monotonic()) > 0:
            select.select([events.fd], [], [], left)
            events.read()
    assert true()


def timed(call: Callable[[], Answer]) -> tuple[Answer, float]:
    """An answer and the seconds that it took."""
    begun = time.monotonic()
    return call(), time.monotonic() - begun
