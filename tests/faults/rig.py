"""A real server in processes of its own. What it says tells what happens, so that nothing is polled for."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pyemperor.actors.linux import living_descendants, process_state
from pyemperor.protocol.frames import FrameDecoder, encode
from pyemperor.protocol.messages import Inject, Trace

#: Seconds until an event that must come has come, on a machine that is busy.
PATIENCE = 15.0


class Client:
    """One HTTP request over a unix socket, sent at once; who serves it may come later."""

    def __init__(self, address: Path, path: str) -> None:
        self._sock = socket.socket(socket.AF_UNIX)
        self._sock.settimeout(PATIENCE)
        self._sock.connect(str(address))
        self._cut = False
        try:
            self._sock.sendall(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        except BrokenPipeError:
            self._cut = True  # who had taken it is dead already
        self.close = self._sock.close

    def answer(self) -> tuple[int, str]:
        """Status (0: cut off before one came) and body."""
        data = b""
        try:
            while not self._cut and (part := self._sock.recv(65536)):
                data += part
        except ConnectionResetError:
            data = b""
        finally:
            self.close()
        head, _, body = data.partition(b"\r\n\r\n")
        return (int(head.split()[1]) if head else 0), body.decode()


class Server:
    """``pyemperor run`` in ``folder``; :attr:`log` has the entries of its log so far.

    With ``files`` it may have so many open, and may raise that limit. The descriptor ``terminal`` becomes the one
    that controls it. ``environment`` is added to ours.
    """

    def __init__(
        self,
        folder: Path,
        *,
        linked: bool = False,
        file: str = "s.toml",
        files: int = 0,
        terminal: int | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.folder = folder
        self.log: list[dict[str, Any]] = []
        self._mark = 0
        self._partial = b""
        self._fifos: dict[str, int] = {}
        self._clients: list[Client] = []
        self._link: socket.socket | None = None
        self._decoder = FrameDecoder(Trace)
        command = [sys.executable, "-P", "-m", "pyemperor.cli.main", "run", file]
        passed = []
        if linked:
            self._link, theirs = socket.socketpair()
            self._link.setblocking(False)
            command[3:] = ["pyemperor.cli.reign", file, "--link", str(theirs.fileno())]
            passed = [theirs.fileno()]
        if files:
            command = ["prlimit", f"--nofile={files}:", *command]
        if terminal is not None:
            command = ["setsid", "--ctty", *command]
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            stdin=subprocess.DEVNULL if terminal is None else terminal,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            pass_fds=passed,
            env={**os.environ, **(environment or {})},
            process_group=0 if terminal is None else None,
        )
        if linked:
            theirs.close()
        assert self.process.stderr is not None
        self._stderr = self.process.stderr.fileno()
        os.set_blocking(self._stderr, False)
        self.ended = False

    # ---- what it says -----------------------------------------------------------------------------------

    def _listen(self, seconds: float) -> None:
        """Take in what it says within ``seconds``, as soon as it says anything."""
        poll = select.poll()
        poll.register(self._stderr, select.POLLIN)
        if self._link is not None:
            poll.register(self._link, select.POLLIN)
        for fd, _ in poll.poll(max(0.0, seconds) * 1000):
            if fd == self._stderr:
                self._hear(os.read(fd, 1 << 20))
            elif self._link is not None:
                self._traces(self._link.recv(1 << 20))

    def _hear(self, data: bytes) -> None:
        self.ended = self.ended or not data
        *lines, self._partial = (self._partial + data).split(b"\n")
        for line in lines:
            try:
                self.log.append(json.loads(line))
            except json.JSONDecodeError:
                self.log.append({"event": "text", "message": line.decode()})

    def _traces(self, data: bytes) -> None:
        for trace in self._decoder.feed(data):
            assert isinstance(trace, Trace)
            words = f"{trace.actor} {trace.event} {trace.state} {trace.reason}"
            self.log.append({"message": words} | {k: v for k, v in msgspec.structs.asdict(trace).items() if v})
        if not data and self._link is not None:
            self._link.close()
            self._link = None

    def since(self, **fields: object) -> list[dict[str, Any]]:
        """Return the entries since :meth:`mark` with these fields."""
        fresh = self.log[self._mark :]
        return [entry for entry in fresh if all(entry.get(key) == value for key, value in fields.items())]

    def until(
        self, when: Callable[[dict[str, Any]], bool] | None = None, *, seconds: float = PATIENCE, **fields: Any
    ) -> dict[str, Any]:
        """Return the first entry since :meth:`mark` with these fields, which comes within ``seconds``."""
        deadline = time.monotonic() + seconds
        while True:
            for entry in self.since(**fields):
                if when is None or when(entry):
                    return entry
            left = deadline - time.monotonic()
            if left <= 0 or self.ended:
                pytest.fail(f"no {fields} within {seconds} s in:\n{self.story()}")
            self._listen(left)

    def mark(self) -> None:
        """Forget what was said until now."""
        while not self.ended:
            before = len(self.log), self._partial
            self._listen(0)
            if before == (len(self.log), self._partial):
                break
        self._mark = len(self.log)

    def watch(self, seconds: float) -> None:
        """Listen for so long: for what must not happen."""
        deadline = time.monotonic() + seconds
        while (left := deadline - time.monotonic()) > 0 and not self.ended:
            self._listen(left)

    def story(self) -> str:
        """Give the log since the mark, for a person who reads a failure."""
        return "\n".join(f"{e.get('at', 0):.3f} {e.get('message', e)}" for e in self.log[self._mark :])

    # ---- who is who -------------------------------------------------------------------------------------

    def ready(self, *actors: str) -> None:
        """Wait until these actors are ready."""
        for actor in actors:
            self.until(actor=actor, state="READY")

    def pid(self, actor: str) -> int:
        """Return the pid of the present incarnation of ``actor``."""
        if actor == "emperor":
            return self.process.pid
        pids = (entry["pid"] for entry in reversed(self.log) if entry.get("actor") == actor and entry.get("pid"))
        return int(next(pids))

    def signal(self, actor: str, number: int) -> int:
        """Signal ``actor``, forget what was said before, and return its pid."""
        self.mark()
        pid = self.pid(actor)
        os.kill(pid, number)
        return pid

    def inject(self, **fault: Any) -> None:
        """Send a fault down the link."""
        assert self._link is not None
        self.mark()
        self._link.sendall(encode(Inject(**fault)))

    # ---- requests ---------------------------------------------------------------------------------------

    def ask(self, path: str = "hello.cgi", vassal: str = "app") -> Client:
        """Send a request."""
        self._clients.append(Client(self.folder / f"{vassal}.http", f"/cgi/{path}"))
        return self._clients[-1]

    def get(self, path: str = "hello.cgi", vassal: str = "app") -> tuple[int, str]:
        """Send a request and return its answer."""
        return self.ask(path, vassal).answer()

    def hold(self, path: str = "hold.cgi") -> tuple[Client, int]:
        """Send a request that a script holds; return it, and the pid that the script gave."""
        client = self.ask(path)
        poll = select.poll()
        poll.register(self._fifo("started"), select.POLLIN)
        if not poll.poll(PATIENCE * 1000):
            self._listen(0)
            pytest.fail(f"{path} was not started:\n{self.story()}")
        # One line a script, and one script at a time.
        return client, int(os.read(self._fifo("started"), 100))

    def release(self, count: int = 1) -> None:
        """Let ``count`` held scripts answer."""
        os.write(self._fifo("release"), b"\n" * count)

    def _fifo(self, name: str) -> int:
        fd = self._fifos.get(name)
        if fd is None:
            fd = self._fifos[name] = os.open(self.folder / "cgi" / name, os.O_RDWR | os.O_NONBLOCK)
        return fd

    # ---- the end ----------------------------------------------------------------------------------------

    def stop(self, seconds: float = PATIENCE) -> int:
        """SIGTERM; then as :meth:`over`."""
        self.signal("emperor", signal.SIGTERM)
        return self.over(seconds)

    def over(self, seconds: float = PATIENCE) -> int:
        """Wait until it has ended with all its processes, prove it, and return the Emperor's exit code."""
        deadline = time.monotonic() + seconds
        while not self.ended and (left := deadline - time.monotonic()) > 0:
            self._listen(left)
        assert self.ended, f"somebody lives and holds stderr: {living_descendants([os.getpid()])}\n{self.story()}"
        code = self.process.wait(max(1.0, deadline - time.monotonic()))
        for pid in living_descendants([os.getpid()]):
            await_end(pid, max(1.0, deadline - time.monotonic()))
        return code

    def close(self) -> None:
        """End it by force, whatever is left of it."""
        for client in self._clients:
            client.close()
        self.process.kill()
        self.process.wait()
        for pid in living_descendants([os.getpid()]):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            await_end(pid)
        for fd in self._fifos.values():
            os.close(fd)
        if self._link is not None:
            self._link.close()
        assert self.process.stderr is not None
        self.process.stderr.close()


def ended(pid: int) -> bool:
    """Whether nothing of ``pid`` runs any more; who has died may still wait to be reaped."""
    return process_state(pid)[0] in "XZ"


def await_end(pid: int, seconds: float = PATIENCE) -> None:
    """Wait for the end of ``pid``, and reap it where that falls to us."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        if not select.select([pidfd], [], [], seconds)[0]:
            found = {name: Path(f"/proc/{pid}/{name}").read_bytes() for name in ("cmdline", "status", "stack")}
            pytest.fail(f"process {pid} lives: {found}")
    finally:
        os.close(pidfd)


class Traffic:
    """Clients that ask one after the other until :meth:`stop`."""

    def __init__(self, server: Server, clients: int = 3) -> None:
        self._server = server
        self._over = threading.Event()
        self.statuses: list[int] = []
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        while not self._over.is_set():
            self.statuses.append(self._server.get()[0])

    def stop(self) -> list[int]:
        """Return the statuses of all answers; 0 is a connection that was cut."""
        self._over.set()
        for thread in self._threads:
            thread.join()
        return self.statuses


#: ``serve({vassal: its options}, the Emperor's options, linked=...)``
Serve = Callable[..., Server]
