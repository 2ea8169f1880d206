"""A real Emperor with uWSGI's files: ``pyemperor run emperor.ini``, a folder of vassals, and its log."""

import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pyemperor.actors.linux import become_subreaper, living_descendants
from pyemperor.protocol import control
from tests.support import PATIENCE, Answer, Server, connect, converse, gone, http_request

#: What a script does that waits until it is told to go on; it says so by its pid.
HOLD = """\
#!/bin/sh
echo $$ > started
read line < release
printf 'Content-Type: text/plain\\n\\nheld\\n'
"""
HELLO = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\nhello\\n'\n"
VASSAL = "[uwsgi]\nhttp-socket = %v/../{name}.http\ncgi = /cgi=%v/../cgi\n"


class Capital:
    """A running Emperor; :attr:`lines` are those of its log so far. Its vassals are served over HTTP."""

    def __init__(self, folder: Path, options: str = "") -> None:
        become_subreaper()  # whatever escapes the tree becomes a child of this process, where stop() looks
        self.folder = folder
        self.vassals = folder / "vassals"
        self.vassals.mkdir(exist_ok=True)
        (folder / "cgi").mkdir(exist_ok=True)
        for name, text in {"hello": HELLO, "hold": HOLD}.items():
            (folder / "cgi" / name).write_text(text)
            (folder / "cgi" / name).chmod(0o755)
        for name in ("started", "release"):
            (folder / "cgi" / name).unlink(missing_ok=True)
            os.mkfifo(folder / "cgi" / name)
        self._fifos = {
            name: os.open(folder / "cgi" / name, os.O_RDWR | os.O_NONBLOCK) for name in ("started", "release")
        }
        file = folder / "emperor.ini"
        file.write_text(f"[uwsgi]\nemperor = %d/vassals\ncontrol-socket = %d/control\n{options}")
        self.lines: list[str] = []
        self._news = threading.Condition()
        self._over = False
        self.emperor = subprocess.Popen(
            [Path(sys.executable).with_name("pyemperor"), "run", file],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
        )
        Server.running.add(self.emperor.pid)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    # ---- its log --------------------------------------------------------------------------------------------

    def _read(self) -> None:
        assert self.emperor.stderr is not None
        with self.emperor.stderr as lines:
            for line in lines:
                with self._news:
                    self.lines.append(line.decode(errors="replace").rstrip("\n"))
                    self._news.notify_all()
        with self._news:
            self._over = True
            self._news.notify_all()

    def said(self, pattern: str, since: int = 0) -> str:
        """Wait for a line that fits, from line number ``since`` on."""

        def found() -> str | None:
            return next((line for line in self.lines[since:] if re.search(pattern, line)), None)

        with self._news:
            self._news.wait_for(lambda: found() is not None or self._over, 2 * PATIENCE)
            line = found()
        assert line is not None, f"nobody said {pattern!r} in\n" + "\n".join(self.lines[since:])
        return line

    def count(self, pattern: str, since: int = 0) -> int:
        """How many lines fit so far."""
        with self._news:
            return sum(re.search(pattern, line) is not None for line in self.lines[since:])

    @property
    def now(self) -> int:
        """The number of the next line."""
        with self._news:
            return len(self.lines)

    # ---- its vassals ----------------------------------------------------------------------------------------

    def write(self, name: str, more: str = "", text: str = VASSAL, suffix: str = ".ini") -> Path:
        """Write the file of a vassal in one step, as careful editors do."""
        new = self.folder / "new"
        new.write_text(text.format(name=name) + more)
        return new.rename(self.vassals / f"{name}{suffix}")

    def start(self, name: str, more: str = "", text: str = VASSAL) -> Path:
        """Write a vassal's file, and wait until it serves."""
        since = self.now
        file = self.write(name, more, text)
        self.said(rf"vassal {re.escape(name)}.ini is ready to accept requests", since)
        return file

    def status(self, name: str) -> control.VassalReport:
        """What the Emperor says of a vassal at its control socket."""
        with connect(self.folder / "control") as sock:
            sock.sendall(control.encode(control.Status(name=name)))
            with sock.makefile("rb") as lines:
                answer = control.decode_answer(lines.readline())
        assert isinstance(answer, control.Statuses), answer
        return answer.vassals[0]

    def reload(self, name: str) -> control.Answer:
        """Reload a vassal, and wait for what comes of it."""
        with connect(self.folder / "control") as sock:
            sock.sendall(control.encode(control.Reload(name=name, wait=True)))
            with sock.makefile("rb") as lines:
                return control.decode_answer(lines.readline())

    def get(self, name: str, script: str = "hello", address: str | tuple[str, int] = "") -> Answer:
        """Ask a script of a vassal."""
        where: Any = address or self.folder / f"{name}.http"
        return converse(connect(where), http_request(f"/cgi/{script}", version="1.0"))

    def hold(self, name: str, address: str | tuple[str, int] = "") -> tuple[socket.socket, int]:
        """Send a request that a script holds until :meth:`release`; its connection, and the script's pid."""
        sock = connect(address or self.folder / f"{name}.http")
        sock.sendall(http_request("/cgi/hold", version="1.0"))
        started = select.select([self._fifos["started"]], [], [], PATIENCE)[0]
        assert started, "the script was not started in\n" + "\n".join(self.lines)
        return sock, int(os.read(self._fifos["started"], 100))

    def release(self) -> None:
        """Let the held script answer."""
        os.write(self._fifos["release"], b"\n")

    # ---- its end --------------------------------------------------------------------------------------------

    def stop(self, number: int = signal.SIGTERM) -> int:
        """End it, and look whether anything is left; the exit code."""
        self.emperor.send_signal(number)
        return self.over()

    def over(self) -> int:
        """Wait for its end, and look whether anything is left; the exit code."""
        code = self.emperor.wait(PATIENCE)
        self._reader.join(PATIENCE)
        left = [pid for pid in living_descendants([os.getpid()], besides=Server.running) if not gone(pid)]
        assert left == []
        return code

    def close(self) -> None:
        """End it by force, whatever is left of it."""
        self.emperor.kill()
        self.emperor.wait()
        Server.running.discard(self.emperor.pid)
        while left := living_descendants([os.getpid()], besides=Server.running):
            for pid in left:
                with suppress(ProcessLookupError):  # whoever supervises it may have been quicker
                    os.kill(pid, signal.SIGKILL)
                assert gone(pid)
        self._reader.join(PATIENCE)
        for fd in self._fifos.values():
            os.close(fd)


@contextmanager
def capital(folder: Path, options: str = "") -> Iterator[Capital]:
    """A running Emperor, ended at the end."""
    reign = Capital(folder, options)
    try:
        yield reign
    finally:
        reign.close()
