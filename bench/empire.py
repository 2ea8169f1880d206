"""An Emperor over a folder of uWSGI's vassal files, asked at the vassals' own sockets: ours or uWSGI's."""

import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.process import Late, cpu_time, open_all, pss, title, tree, wait_for
from bench.result import OURS, UWSGI

_PATIENCE = 90.0
COMMANDS = {
    OURS: [str(Path(sys.executable).with_name("pyemperor")), "run", "emperor.ini"],
    UWSGI: ["uwsgi", "--ini", "emperor.ini"],
}
_STOP = {OURS: signal.SIGTERM, UWSGI: signal.SIGINT}


class Empire:
    """An Emperor in a folder of its own, gone at the end. All paths are short: those of sockets have to be."""

    def __init__(self, peer: str, cgi_bin: Path, *, on_demand: bool = False) -> None:
        self.peer = peer
        self.home = Path(tempfile.mkdtemp(prefix="crowd-"))
        self._cgi_bin = cgi_bin
        for name in ("vassals", "sockets"):
            (self.home / name).mkdir()
        text = f"[uwsgi]\nemperor = {self.home}/vassals\n"
        if on_demand:
            text += f"emperor-on-demand-directory = {self.home}/sockets\n"
        (self.home / "emperor.ini").write_text(text)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        if self._process is not None:
            family = open_all(tree(self._process.pid))
            self._process.send_signal(_STOP[self.peer])
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(20)
            for pidfd in family:
                with suppress(ProcessLookupError):
                    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
                os.close(pidfd)
            self._process.wait()
        shutil.rmtree(self.home)

    # ---- vassals --------------------------------------------------------------------------------------------

    def socket(self, name: str) -> Path:
        """Where the vassal listens."""
        return self.home / "sockets" / f"{name}.socket"

    def add(self, name: str, options: str) -> None:
        """Write the file of a vassal, under another name first: nobody reads half of it."""
        text = f"[uwsgi]\nplugins = cgi\nmaster = true\ncgi = /cgi-bin={self._cgi_bin}\n{options}"
        partial = self.home / "vassals" / f"{name}.partial"
        partial.write_text(text + "disable-logging = true\nvacuum = true\n")
        partial.rename(partial.with_suffix(".ini"))

    # ---- life -----------------------------------------------------------------------------------------------

    def launch(self) -> float:
        """Start the command, and return when, on CLOCK_MONOTONIC."""
        began = time.monotonic()
        with (self.home / "log").open("wb") as log:
            self._process = subprocess.Popen(
                COMMANDS[self.peer], cwd=self.home, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        return began

    @property
    def pids(self) -> list[int]:
        """The pids of the whole tree."""
        assert self._process is not None
        return tree(self._process.pid)

    def await_sockets(self, count: int) -> float:
        """Wait until so many sockets are there, and return when."""
        folder = self.home / "sockets"
        wait_for(f"{count} sockets of {self.peer}", lambda: len(os.listdir(folder)) >= count, _PATIENCE, 0.005)
        return time.monotonic()

    def sizes(self) -> dict[str, float]:
        """PSS in MB by what the processes are: emperor, fork server, masters, workers."""
        assert self._process is not None
        sums = dict.fromkeys(("emperor", "fork server", "masters", "workers"), 0.0)
        masters: set[int] = set()
        for pid in self.pids:
            sums[self._kind(pid, masters)] += pss(pid)
        return sums

    def _kind(self, pid: int, masters: set[int]) -> str:
        if pid == self.pids[0]:
            return "emperor"
        words = title(pid)
        if "fork-server" in words:
            return "fork server"
        if "pyemperor" in words:
            return "masters" if "master" in words else "workers"
        parent = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        if parent == self.pids[0]:
            masters.add(pid)
        return "masters" if pid in masters else "workers"

    def idle_cpu(self, seconds: float) -> float:
        """CPU of the whole tree while nobody asks, in percent of a core."""
        pids = self.pids
        began, used = time.monotonic(), cpu_time(pids)
        time.sleep(seconds)
        return 100 * (cpu_time(pids) - used) / (time.monotonic() - began)

    # ---- asking ---------------------------------------------------------------------------------------------

    def ask(self, name: str) -> float:
        """Have a vassal run the smallest script, and return the milliseconds to the end of the answer."""
        began = time.monotonic()
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(_PATIENCE)
            client.connect(str(self.socket(name)))
            client.sendall(_request("/cgi-bin/hello-c"))
            answer = b""
            while part := client.recv(65536):
                answer += part
        if b" 200 " not in answer[:20]:
            raise Late(f"{self.peer}: vassal {name} answers {answer[:80]!r}")
        return 1000 * (time.monotonic() - began)

    def await_answers(self, names: Collection[str]) -> float:
        """Ask vassals as soon as their sockets are there, until each has answered; return when."""
        end = time.monotonic() + _PATIENCE
        waiting = set(names)
        with ExitStack() as stack:
            selector = stack.enter_context(selectors.DefaultSelector())
            silent = set(names)
            while silent:
                for name in list(waiting):
                    if asked := _asked(self.socket(name)):
                        selector.register(asked, selectors.EVENT_READ, name)
                        stack.callback(asked.close)
                        waiting.discard(name)
                for key, _ in selector.select(0.002):
                    client = key.fileobj
                    assert isinstance(client, socket.socket)
                    selector.unregister(client)
                    with client, suppress(ConnectionError):
                        if client.recv(100):
                            silent.discard(key.data)
                            continue
                    waiting.add(key.data)
                if time.monotonic() > end:
                    raise Late(f"{self.peer}: {len(silent)} vassals do not answer")
        return time.monotonic()


def _asked(path: Path) -> socket.socket | None:
    """A client that has sent a request; None when nobody listens yet."""
    client = socket.socket(socket.AF_UNIX)
    client.setblocking(False)
    try:
        client.connect(str(path))
        client.sendall(_request("/cgi-bin/hello-c"))
    except (FileNotFoundError, ConnectionError, BlockingIOError):
        client.close()
        return None
    return client


def _request(path: str) -> bytes:
    variables = {"REQUEST_METHOD": "GET", "REQUEST_URI": path, "PATH_INFO": path, "QUERY_STRING": ""}
    variables |= {"SERVER_PROTOCOL": "HTTP/1.1", "SCRIPT_NAME": ""}
    block = b"".join(
        len(word).to_bytes(2, "little") + word.encode() for pair in variables.items() for word in pair
    )
    return bytes([9]) + len(block).to_bytes(2, "little") + b"\0" + block
