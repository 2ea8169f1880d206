"""The place of a run: a temporary directory with scripts, the peers, and one nginx in front of them."""

import os
import pwd
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Self

from bench.peers import Fcgiwrap, Peer, PyEmperor, Uwsgi, UwsgiEmperor
from bench.process import wait_for

HERE = Path(__file__).parent
OUT = HERE / "out"


class Site:
    """A context manager: everything is made on entry, and gone on exit."""

    def __enter__(self) -> Self:
        self._home = Path(tempfile.mkdtemp(prefix="bench-"))
        self.cgi_bin = self._home / "cgi-bin"
        build_scripts(self.cgi_bin)
        names = ("pyemperor", "uwsgi", "fcgiwrap", "uwsgi-emperor")
        ports = free_ports(len(names))
        places = [(self._home / name, self.cgi_bin, port) for name, port in zip(names, ports, strict=True)]
        self.pyemperor = PyEmperor(*places[0])
        self.uwsgi = Uwsgi(*places[1])
        self.fcgiwrap = Fcgiwrap(*places[2])
        self.uwsgi_emperor = UwsgiEmperor(*places[3])
        self._everyone: list[Peer] = [self.pyemperor, self.uwsgi, self.fcgiwrap, self.uwsgi_emperor]
        self._absent: set[Peer] = set()
        self._nginx = start_nginx(self._home / "nginx", self._everyone)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, where: TracebackType | None
    ) -> None:
        for peer in self._everyone:
            peer.stop()
        self._nginx.terminate()
        self._nginx.wait()
        shutil.rmtree(self._home)

    def leave_out(self, peer: Peer) -> None:
        """Measure without this peer from now on."""
        self._absent.add(peer)

    @property
    def servers(self) -> list[Peer]:
        """The three, each as its users run it for a single site."""
        return self._present(self.pyemperor, self.uwsgi, self.fcgiwrap)

    @property
    def emperors(self) -> list[Peer]:
        """Those two that watch over vassals."""
        return self._present(self.pyemperor, self.uwsgi_emperor)

    def _present(self, *peers: Peer) -> list[Peer]:
        return [peer for peer in peers if peer not in self._absent]

    @contextmanager
    def running(self, peers: Sequence[Peer]) -> Iterator[None]:
        """Run the peers inside the block."""
        try:
            for peer in peers:
                peer.start()
            yield
        finally:
            for peer in peers:
                peer.stop()

    def url(self, peer: Peer, script: str) -> str:
        """Return the address of a script behind a peer."""
        return f"http://127.0.0.1:{peer.port}/cgi-bin/{script}"


def build_scripts(cgi_bin: Path) -> None:
    """Compile the C scripts (``hello.c`` becomes ``hello-c``) and copy the others.

    Python scripts get the system's interpreter in their first line: what ``env`` finds may be a slow shim.
    """
    cgi_bin.mkdir(parents=True)
    OUT.mkdir(exist_ok=True)
    for source in sorted((HERE / "scripts").iterdir()):
        if source.suffix == ".c":
            binary = OUT / f"{source.stem}-c"
            if not binary.exists() or binary.stat().st_mtime < source.stat().st_mtime:
                subprocess.run(["gcc", "-O2", "-static", "-o", str(binary), str(source)], check=True)
            shutil.copy2(binary, cgi_bin)
        elif source.suffix in {".sh", ".pl", ".py"}:
            interpreter = "/usr/bin/python3" if os.path.exists("/usr/bin/python3") else sys.executable
            text = source.read_text().replace("/usr/bin/env python3", interpreter)
            folders = [cgi_bin, cgi_bin / "warm"] if source.suffix == ".py" else [cgi_bin]
            for folder in folders:
                folder.mkdir(exist_ok=True)
                (folder / source.name).write_text(text)
                (folder / source.name).chmod(0o755)


def free_ports(count: int) -> list[int]:
    """Return ports of 127.0.0.1 that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [int(each.getsockname()[1]) for each in sockets]
    for each in sockets:
        each.close()
    return ports


def start_nginx(home: Path, peers: Sequence[Peer]) -> "subprocess.Popen[bytes]":
    """Start one nginx with a server for each peer, and wait until it listens."""
    home.mkdir()
    # As root nginx would drop to an account that may not enter our temporary directory.
    user = f"user {pwd.getpwuid(0).pw_name};" if os.geteuid() == 0 else ""
    spools = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    kept = "\n".join(f"    {name}_temp_path {home}/{name};" for name in spools)
    servers = "\n".join(
        f"    server {{\n        listen 127.0.0.1:{peer.port};\n"
        f"        location /cgi-bin/ {{{peer.location()}\n        }}\n    }}"
        for peer in peers
    )
    conf = home / "nginx.conf"
    conf.write_text(
        f"""{user}
daemon off;
worker_processes 1;
pid {home}/pid;
error_log {home}/error.log crit;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    keepalive_requests 1000000;
    client_max_body_size 0;
{kept}
{servers}
}}
"""
    )
    command = ["nginx", "-p", str(home), "-e", f"{home}/error.log", "-c", str(conf)]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    wait_for("nginx", lambda: process.poll() is not None or _listens(peers[-1].port), 5)
    if process.poll() is not None:
        raise RuntimeError(f"nginx does not start: {' '.join(command)}")
    return process


def _listens(port: int) -> bool:
    with suppress(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port)).close()
        return True
    return False
