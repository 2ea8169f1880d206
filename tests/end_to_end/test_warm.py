"""`cgi-warm = "python"` in a vassal: the same answers as by exec, from a fork of an interpreter that is up."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyemperor.actors.linux import children
from tests.support import PATIENCE, Site, connect, gone, packet, pids, serving, variables

VASSAL = """
[[vassal]]
name = "warm"
socket = "warm.sock"
cgi = "/cgi-bin=cgi"
cgi-warm = "python"
cgi-warm-preload = ["json", "colorsys"]
cgi-timeout = 3
"""
#: Says whether it was imported before the script began.
STATE = f"""#!{sys.executable}
import sys
warm = "colorsys" in sys.modules
print("Content-Type: text/plain\\n")
print("warm" if warm else "cold", end="")
"""


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    folder = tmp_path_factory.mktemp("warm")
    (folder / "cgi").mkdir()
    with serving(folder, VASSAL) as server:
        site = Site(server, folder / "cgi", folder / "warm.sock")
        warmed(site)
        yield site


def warmed(site: Site) -> None:
    """Ask until the template is up; until then every answer comes from a cold start."""
    path = site.script("state.cgi", STATE)
    deadline = time.monotonic() + PATIENCE
    while (state := site.uwsgi(path).text) != "warm":
        assert state == "cold"
        assert time.monotonic() < deadline


def template(site: Site) -> int:
    (worker,) = site.server.workers("warm")[-1:]
    (pid,) = [pid for pid, _ in children(worker)]
    return pid


def test_what_a_script_gets_is_what_it_would_get(warm: Site) -> None:
    """RFC 3875 §4.1, §4.2: the environment, the body, the directory."""
    text = "\n".join(
        [
            f"#!{sys.executable}",
            "import os, sys",
            "sys.stdout.write('Content-Type: text/plain\\n\\n')",
            "body = sys.stdin.buffer.read().decode()",
            "extra = {'BODY': body, 'CWD': os.getcwd(), 'ARGV': ' '.join(sys.argv)}",
            "print('\\0'.join(f'{k}={v}' for k, v in {**os.environ, **extra}.items()), end='')",
        ]
    )
    path = warm.script("env.cgi", text)
    hot = variables(warm.uwsgi(f"{path}/info?a=1", b"hello", CONTENT_TYPE="text/x"))
    (cold_folder := warm.folder / "cold").mkdir()
    cold = variables(warm.uwsgi(warm.script("cold/env.cgi", text.replace("#!", "#!/usr/bin/env ")) + "/info?a=1"))
    assert hot["BODY"] == "hello"
    assert hot["CWD"] == str(warm.folder)
    assert hot["ARGV"] == hot["SCRIPT_FILENAME"] == str(warm.folder / "env.cgi")
    assert (hot["PATH_INFO"], hot["QUERY_STRING"], hot["CONTENT_LENGTH"]) == ("/info", "a=1", "5")
    assert cold["CWD"] == str(cold_folder)
    assert not {"PYTHONPATH", "HOME", "VIRTUAL_ENV"} & hot.keys()


def test_an_exception_is_a_502_and_its_traceback_is_in_the_log(warm: Site) -> None:
    path = warm.script("raises.cgi", f"#!{sys.executable}\nraise ValueError('a reason')\n")
    assert warm.uwsgi(path).status == 502
    warm.server.wait_for(event="stderr", message=lambda text: "ValueError: a reason" in text)
    assert warm.logged(path)["exit"] == 1


def test_how_it_ended_is_in_the_log(warm: Site) -> None:
    path = warm.script("exit3.cgi", f"#!{sys.executable}\nprint('X: y\\n')\nraise SystemExit(3)\n")
    assert warm.uwsgi(path).status == 200
    record = warm.logged(path)
    assert record["exit"] == 3
    assert record["maxrss"] > 1_000_000


def test_a_silent_script_is_ended(warm: Site) -> None:
    """cgi-timeout reaches a fork like any other script."""
    path = warm.script(
        "silent.cgi", f"#!{sys.executable}\nimport os, sys, time\nprint('pid', os.getpid(), file=sys.stderr)\n"
        "sys.stderr.flush()\ntime.sleep(60)\n"
    )
    assert warm.uwsgi(path).status == 504
    assert all(gone(pid) for pid in pids(warm, "pid"))


def test_a_client_that_leaves_ends_it(warm: Site) -> None:
    path = warm.script(
        "left.cgi", f"#!{sys.executable}\nimport os, sys, time\nprint('left', os.getpid(), file=sys.stderr)\n"
        "sys.stderr.flush()\ntime.sleep(60)\n"
    )
    with connect(warm.socket) as sock:
        sock.sendall(packet(path))
        (pid,) = pids(warm, "left")
    assert gone(pid)


def test_what_is_no_python_runs_as_ever(warm: Site) -> None:
    path = warm.script("sh.cgi", "printf 'Content-Type: text/plain\\n\\nsh'")
    assert warm.uwsgi(path).text == "sh"


def test_a_killed_template_costs_no_request(warm: Site) -> None:
    path = warm.script("state.cgi", STATE)
    pid = template(warm)
    os.kill(pid, signal.SIGKILL)
    assert warm.uwsgi(path).status == 200
    assert gone(pid)
    warmed(warm)


def test_a_stopped_template_costs_no_request(warm: Site) -> None:
    path = warm.script("state.cgi", STATE)
    os.kill(template(warm), signal.SIGSTOP)
    assert warm.uwsgi(path).text == "cold"
    warmed(warm)


def test_a_killed_worker_leaves_no_template(tmp_path: Path) -> None:
    (tmp_path / "cgi").mkdir()
    with serving(tmp_path, VASSAL) as server:
        site = Site(server, tmp_path / "cgi", tmp_path / "warm.sock")
        warmed(site)
        (worker,) = server.workers("warm")
        pid = template(site)
        os.kill(worker, signal.SIGKILL)
        assert gone(pid)
        warmed(site)
