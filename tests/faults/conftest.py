"""A folder with scripts, and servers in it."""

import os
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pyemperor.actors.linux import become_subreaper, zombies
from tests.faults.rig import Serve, Server

SCRIPTS = {
    "hello.cgi": """\
        #!/bin/sh
        printf 'Content-Type: text/plain\\n\\nhello %s\\n' "$QUERY_STRING"
        """,
    # Says that it runs, and answers when it is told to.
    "hold.cgi": """\
        #!/bin/sh
        echo $$ > started
        read line < release
        printf 'Content-Type: text/plain\\n\\nheld\\n'
        """,
    # Leaves a descendant behind that has hidden in sessions of its own, with nothing of ours open.
    "escape.cgi": """\
        #!/usr/bin/env python3
        import os, signal, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.setsid()
                signal.signal(signal.SIGTERM, signal.SIG_IGN)
                signal.signal(signal.SIGHUP, signal.SIG_IGN)
                null = os.open(os.devnull, os.O_RDWR)
                for fd in (0, 1, 2):
                    os.dup2(null, fd)
                with open("started", "w") as started:
                    print(os.getpid(), file=started)
                signal.pause()
                while True:
                    signal.pause()
            os._exit(0)
        os.wait()
        with open("release") as release:
            release.readline()
        print("Content-Type: text/plain\\n\\nescaped")
        """,
    "fds.cgi": """\
        #!/bin/sh
        printf 'Content-Type: text/plain\\n\\n'
        exec ls /proc/self/fd
        """,
}

VASSAL = """\
[[vassal]]
name = "{name}"
socket = "{name}.sock"
http-socket = "{name}.http"
cgi = "/cgi=cgi"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with scripts in ``cgi/``."""
    cgi = tmp_path / "cgi"
    cgi.mkdir()
    for name, text in SCRIPTS.items():
        (cgi / name).write_text(textwrap.dedent(text))
        (cgi / name).chmod(0o755)
    os.mkfifo(cgi / "started")
    os.mkfifo(cgi / "release")
    return tmp_path


@pytest.fixture
def serve(folder: Path) -> Iterator[Serve]:
    """Start a server: ``serve({vassal: its options in TOML}, the Emperor's options)``.

    At the end nothing may be left of it, not even a zombie.
    """
    become_subreaper()  # whatever escapes from a dead Emperor becomes ours, and is found
    servers: list[Server] = []

    def start(vassals: dict[str, str] | None = None, emperor: str = "", **how: Any) -> Server:
        tables = [
            VASSAL.format(name=name) + textwrap.dedent(options)
            for name, options in (vassals or {"app": ""}).items()
        ]
        table = '[emperor]\nlog-style = "json"\ncontrol-socket = "none"'
        text = "\n".join([table, textwrap.dedent(emperor), *tables])
        (folder / "s.toml").write_text(text)
        servers.append(Server(folder, **how))
        return servers[-1]

    yield start
    for server in servers:
        server.close()
    for pid in zombies(os.getpid()):
        os.waitpid(pid, 0)
