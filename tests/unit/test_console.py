"""What the command prints for people: plain in a pipe, to be copied as it is, in colours on a terminal."""

import fcntl
import io
import os
import pty
import re
import shutil
import struct
import subprocess
import sys
import termios
import tty
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

import pytest

from pyemperor import __version__
from pyemperor.cli.console import banner, show_problems, show_warnings
from pyemperor.cli.terminal import Terminal
from pyemperor.cli.transcript import Verdict
from pyemperor.cli.verdict import Finding
from pyemperor.protocol.errors import ConfigError, Problem
from pyemperor.protocol.messages import State, Trace
from pyemperor.protocol.scenario import Scenario, load_scenario

FILE = """
description = "Two vassals"

[[vassal]]
name = "app"
socket = "/run/{long}/app.sock"
http-socket = "127.0.0.1:8080"
cgi = ["/cgi-bin=cgi-bin", "/git=git-backend"]
processes = 4

[[vassal]]
name = "other"
socket = "127.0.0.1:3031"
http-socket = "/run/other.http"
cgi = "cgi-bin"
processes = 1
threads = 2
"""
_END = "\0"
SGR = re.compile(r"\x1b\[[\d;]*m")


@pytest.fixture
def base(tmp_path: Path) -> Path:
    (tmp_path / "cgi-bin").mkdir()
    for name, mode in (("aaa.cgi", 0o755), ("hello.cgi", 0o755), ("hello.txt", 0o644)):
        script = tmp_path / "cgi-bin" / name
        script.write_text("#!/bin/sh\n")
        script.chmod(mode)
    (tmp_path / "git-backend").write_text("#!/bin/sh\n")
    return tmp_path


def scenario(base: Path, text: str = FILE, long: str = "pyemperor") -> Scenario:
    return load_scenario(text.replace("{long}", long), file="demo.toml", base=str(base))


class Screen:
    """A terminal of 60 columns, and what was written to it."""

    def __init__(self) -> None:
        self._reading, writing = pty.openpty()
        tty.setraw(writing)
        fcntl.ioctl(writing, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 60, 0, 0))
        self.out: TextIO = os.fdopen(writing, "w", encoding="utf-8")

    def text(self) -> str:
        """What was written; the kernel passes it on in parts, and not at once."""
        self.out.write(_END)
        self.out.flush()
        shown = b""
        while not shown.endswith(_END.encode()):
            shown += os.read(self._reading, 65536)
        return shown.decode().removesuffix(_END)

    def close(self) -> None:
        self.out.close()
        os.close(self._reading)


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Screen]:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("NO_COLOR", "COLUMNS", "LINES"):
        monkeypatch.delenv(name, raising=False)
    made = Screen()
    yield made
    made.close()


# ---- what was started -------------------------------------------------------------------------------------


def test_banner_in_a_pipe(base: Path) -> None:
    out = io.StringIO()
    banner(scenario(base), out=out)
    assert out.getvalue() == f"""\
PyEmperor {__version__}: demo
Two vassals

app: 4 processes x 1 thread
  listens on /run/pyemperor/app.sock (uwsgi)
  listens on 127.0.0.1:8080 (http)
  serves /cgi-bin = {base}/cgi-bin
  serves /git = {base}/git-backend
other: 1 process x 2 threads
  listens on 127.0.0.1:3031 (uwsgi)
  listens on /run/other.http (http)
  serves / = {base}/cgi-bin

Try it:
  curl http://127.0.0.1:8080/cgi-bin/hello.cgi
  curl http://127.0.0.1:8080/git
  curl --unix-socket /run/other.http http://localhost/hello.cgi

For nginx, in a server block:

location /cgi-bin/ {{
    include uwsgi_params;
    uwsgi_modifier1 9;
    uwsgi_pass unix:/run/pyemperor/app.sock;
}}

location /git {{
    include uwsgi_params;
    uwsgi_modifier1 9;
    uwsgi_pass unix:/run/pyemperor/app.sock;
}}

location / {{
    include uwsgi_params;
    uwsgi_modifier1 9;
    uwsgi_pass 127.0.0.1:3031;
}}

"""


def test_banner_on_a_terminal_is_coloured_but_what_is_to_be_copied_is_whole(base: Path, screen: Screen) -> None:
    long = "a-path-that-is-wider-than-this-terminal/" * 2
    banner(scenario(base, long=long[:-1]), out=screen.out)
    shown = screen.text()
    assert SGR.search(shown)
    lines = SGR.sub("", shown).splitlines()
    at = lines.index("location /cgi-bin/ {")
    assert lines[at + 1 : at + 5] == [
        "    include uwsgi_params;",
        "    uwsgi_modifier1 9;",
        f"    uwsgi_pass unix:/run/{long[:-1]}/app.sock;",
        "}",
    ]
    assert "  curl http://127.0.0.1:8080/cgi-bin/hello.cgi" in lines


def test_banner_has_the_port_that_was_really_bound(base: Path) -> None:
    text = """
[[vassal]]
name = "app"
http-socket = "0.0.0.0:0"
cgi = "/cgi-bin=cgi-bin"
"""
    out = io.StringIO()
    banner(scenario(base, text), lambda vassal: [("0.0.0.0", 4711)] if vassal == "app" else [], out=out)
    assert "  listens on 0.0.0.0:4711 (http)\n" in out.getvalue()
    assert "  curl http://127.0.0.1:4711/cgi-bin/hello.cgi\n" in out.getvalue()
    assert "nginx" not in out.getvalue()


def test_banner_sends_people_to_the_front_if_there_is_one(base: Path) -> None:
    out = io.StringIO()
    banner(scenario(base, FILE + '[front]\nkind = "nginx"\nlisten = "127.0.0.1:8088"\n'), out=out)
    assert "nginx: in front\n  listens on 127.0.0.1:8088 (http)\n" in out.getvalue()
    assert "  curl http://127.0.0.1:8088/cgi-bin/hello.cgi\n" in out.getvalue()
    assert "location" not in out.getvalue()


@pytest.mark.skipif(shutil.which("nginx", path="/usr/sbin:/usr/bin") is None, reason="nginx is not installed")
def test_nginx_takes_the_blocks(base: Path) -> None:
    out = io.StringIO()
    banner(scenario(base, long='a "quoted" {name}; with all'.replace('"', "'")), out=out)
    blocks = out.getvalue().partition("in a server block:")[2]
    (base / "uwsgi_params").write_text("uwsgi_param QUERY_STRING $query_string;\n")
    (base / "nginx.conf").write_text(
        f"pid nginx.pid; error_log stderr; events {{}} http {{ access_log off; server {{ {blocks} }} }}"
    )
    nginx = shutil.which("nginx", path="/usr/sbin:/usr/bin")
    assert nginx is not None
    tested = subprocess.run(
        [nginx, "-t", "-p", str(base), "-c", "nginx.conf", "-e", "stderr"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "syntax is ok" in tested.stderr


def test_nothing_of_rich_is_imported_for_a_pipe(base: Path) -> None:
    (base / "demo.toml").write_text(FILE)
    program = (
        "import sys\n"
        "from pyemperor.cli.console import banner, show_problems\n"
        "from pyemperor.cli.scenarios import read_scenario\n"
        "from pyemperor.cli.terminal import form\n"
        "from pyemperor.protocol.errors import ConfigError, Problem\n"
        "banner(read_scenario(sys.argv[1], {}))\n"
        "show_problems(ConfigError(Problem('x.toml', 1, '', 'odd')))\n"
        "print(type(form()).__name__)\n"
        "sys.exit(any(name.partition('.')[0] == 'rich' for name in sys.modules))\n"
    )
    ran = subprocess.run(
        [sys.executable, "-P", "-c", program, str(base / "demo.toml")], capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.endswith("Plain\n")
    assert ran.stderr == "x.toml:1: odd\n"


# ---- what is wrong ----------------------------------------------------------------------------------------

PROBLEMS = (
    Problem("demo.toml", 12, "vassal.proceses", "unknown key", remedy="did you mean processes?"),
    Problem("demo.toml", 0, "", "no vassal", "[[vassal]]"),
)


def test_problems_in_a_pipe_are_a_line_each() -> None:
    out = io.StringIO()
    show_problems(ConfigError(*PROBLEMS), out=out)
    assert out.getvalue() == (
        "demo.toml:12: vassal.proceses: unknown key (did you mean processes?)\n"
        "demo.toml: no vassal; expected [[vassal]]\n"
    )


def test_problems_on_a_terminal_come_with_the_line_of_the_file(tmp_path: Path, screen: Screen) -> None:
    file = tmp_path / "demo.toml"
    file.write_text('[[vassal]]\nname = "[bold]x[/bold]"\nproceses = 2\n')
    problem = Problem(str(file), 3, "vassal.proceses", "unknown key", remedy="did you mean processes?")
    show_problems(ConfigError(problem), out=screen.out)
    shown = screen.text()
    assert SGR.search(shown)
    assert SGR.sub("", shown).splitlines() == [
        f"{file}:3  vassal.proceses",
        "    proceses = 2",
        "    unknown key",
        "    did you mean processes?",
    ]


def test_no_warnings_no_output() -> None:
    out = io.StringIO()
    show_warnings((), out=out)
    assert out.getvalue() == ""
    show_warnings(PROBLEMS[:1], out=out)
    assert out.getvalue().startswith("demo.toml:12: ")


# ---- what came of a test ----------------------------------------------------------------------------------


def test_timeline_on_a_terminal() -> None:
    sentence = "no heartbeat for 3.5 s"
    told = Terminal(colour=False)
    entries = [
        (Trace(99.0, "master:app", "state", State.READY, 7), -1.0),
        (Trace(100.5, "master:app", "beat"), 0.5),
        (Trace(103.0, "master:app", "state", State.CONVICTED, 7, sentence), 3.0),
        (Trace(103.2, "master:app", "state", State.ABSENT, 7, sentence), 3.2),
        (Trace(104.0, "load:traffic", "request", "502", 0, "/a\x1b[2J"), 4.0),
    ]
    assert [told.entry(trace, at) for trace, at in entries] == [
        "    -1.000  master:app         READY",
        "",
        "    +3.000  master:app         CONVICTED     no heartbeat for 3.5 s",
        "    +3.200  master:app         ABSENT",
        r"    +4.000  load:traffic       request 502   /a\x1b[2J",
    ]
    plain, coloured = Terminal(colour=False), Terminal()
    for trace, at in entries:
        line = coloured.entry(trace, at)
        assert SGR.sub("", line) == plain.entry(trace, at)
        assert not line or SGR.search(line)


def test_verdict_on_a_terminal_says_what_was_found_and_expected() -> None:
    findings = [
        Finding("kills(master:app)", True, "1", "1"),
        Finding("back at once", False, "3.250 s", "at most 0.1 s (slack 2 s)"),
    ]
    loads = {"traffic": [("200", 0.004), ("0", 1.5)]}
    verdict = Verdict("demo", ["fault hang was never injected"], findings, loads)
    shown = Terminal(width=80).verdict(verdict)
    lines = [line.rstrip() for line in SGR.sub("", shown).splitlines()]
    assert "  ! fault hang was never injected" in lines
    assert re.search(r"(?m)^ +✓ +kills\(master:app\) +1 +1$", "\n".join(lines))
    assert re.search(r"(?m)^ +✗ +back at once +3\.250 s +at most 0\.1 s \(slack 2 s\)$", "\n".join(lines))
    assert "     traffic: 1 x 200, 1 x no answer; median 752 ms, slowest 1.5 s" in lines
    assert lines[-1] == "demo: FAILED"
    assert "\x1b[1;31mdemo: FAILED" in shown
    met = Terminal(width=80).verdict(Verdict("demo", [], findings[:1], seed=3))
    assert SGR.sub("", met).splitlines()[-1] == "demo: every expectation is met (seed 3)"
