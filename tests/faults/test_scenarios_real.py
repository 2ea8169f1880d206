"""``pyemperor run`` of scenarios with a timeline, on this machine: real processes, signals, links, requests."""

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pyemperor.actors.linux import become_subreaper, living_descendants
from pyemperor.cli.rehearsal import Rehearsal
from pyemperor.cli.scenarios import read_scenario
from tests.support import free_port, gone

SCENARIOS = Path(__file__).parents[2] / "scenarios"
#: How each scenario is shortened; all proportions that matter stay.
PLAYED = {
    "emperor_paused": "scale=0.05",
    "fork_server_killed": "scale=0.15",
    "heartbeat_hang": "scale=0.06",
    "heartbeat_idle": "scale=0.05 busy=40s busy_at=200s end=330s",
    "link_lossy": "scale=0.05 lossy=3m lost=0.8 late=40s",
    "master_killed": "scale=0.15",
    "on_demand": "scale=0.2",
    "script_stuck": "scale=0.2",
    "worker_killed": "scale=0.15",
}
#: What happens in them depends on no chance: simulated, each process goes through the very same states.
SAME = ("fork_server_killed", "heartbeat_hang", "master_killed", "worker_killed")


class Run:
    """One ``pyemperor run --json``, read line by line."""

    def __init__(self, file: Path, *settings: str) -> None:
        become_subreaper()  # whatever escapes becomes ours, and is found
        options = [part for setting in settings for part in ("--set", setting)]
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "pyemperor.cli.main", "run", str(file), "--json", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.traces: list[dict[str, Any]] = []

    def until(self, actor: str, event: str, state: str = "") -> dict[str, Any]:
        """Read up to this entry."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.traces.append(json.loads(line))
            if [self.traces[-1].get(key) for key in ("actor", "event", "state")] == [actor, event, state]:
                return self.traces[-1]
        raise AssertionError(f"no {event}({actor})={state}:\n{self.story()}")

    def verdict(self) -> dict[str, Any]:
        """Read to the end: the verdict, once it is sure that nothing of the run lives."""
        output, errors = self.process.communicate(timeout=50)
        self.traces += map(json.loads, output.splitlines())
        assert errors == ""
        assert living_descendants([os.getpid()]) == []
        assert self.traces[-1]["type"] == "verdict", self.story()
        return self.traces[-1]

    def story(self) -> str:
        """For people who read a failure."""
        return "\n".join(map(str, self.traces))

    def close(self) -> None:
        """End it, whatever its state."""
        self.process.kill()
        self.process.communicate()
        for pid in living_descendants([os.getpid()]):
            os.kill(pid, signal.SIGKILL)
            assert gone(pid)


Play = Callable[..., Run]


@pytest.fixture
def play(tmp_path: Path) -> Iterator[Play]:
    """Plays a file, or a text with one vassal ``app`` before it."""
    runs: list[Run] = []

    def play(what: Path | str, *settings: str) -> Run:
        if isinstance(what, str):
            file = tmp_path / "some.toml"
            file.write_text(VASSAL.format(cgi=SCENARIOS / "cgi-bin") + what)
        else:
            file = what
        runs.append(Run(file, *settings))
        return runs[-1]

    yield play
    for run in runs:
        run.close()


VASSAL = """
[[vassal]]
name = "app"
socket = "app.sock"
cgi = "/cgi-bin={cgi}"
processes = 2
threads = 2
reload-mercy = 5
"""
BURST = """
[[load]]
id = "burst"
kind = "burst"
clients = 10
path = "/cgi-bin/hello.cgi"
"""


# ---- the scenarios --------------------------------------------------------------------------------------------


def test_every_scenario_is_played() -> None:
    files = {path.stem: read_scenario(str(path), {}) for path in SCENARIOS.glob("*.toml")}
    played = {name for name, it in files.items() if it.has_timeline and it.run.mode != "sim"}
    assert set(PLAYED) == played


@pytest.mark.parametrize("name", PLAYED)
def test_every_expectation_is_met(play: Play, tmp_path: Path, name: str) -> None:
    run = play(SCENARIOS / f"{name}.toml", f"run={tmp_path}", f"port={free_port()}", *PLAYED[name].split())
    verdict = run.verdict()
    assert verdict["problems"] == [], run.story()
    assert [row for row in verdict["expectations"] if not row["met"]] == [], run.story()
    assert verdict["met"]
    assert run.process.returncode == 0
    assert list(tmp_path.iterdir()) == []
    if name in SAME:
        settings = dict(setting.split("=") for setting in PLAYED[name].split())
        rehearsal = Rehearsal(read_scenario(str(SCENARIOS / f"{name}.toml"), settings), seed=1)
        course = rehearsal.run(lambda _: None)
        assert lives(run.traces) == lives([msgspec.to_builtins(trace) for trace in course.traces])


def lives(traces: list[dict[str, Any]]) -> dict[str, list[tuple[str, str]]]:
    """What each process went through, in order."""
    result: dict[str, list[tuple[str, str]]] = {}
    for trace in sorted(traces, key=lambda trace: float(trace.get("at", 0))):
        if trace.get("event") in ("start", "restart", "state", "kill", "exit"):
            result.setdefault(trace["actor"], []).append((trace["event"], trace["state"]))
    return result


# ---- loads ------------------------------------------------------------------------------------------------------


def test_loads_speak_uwsgi_where_there_is_no_http(play: Play) -> None:
    post = '[[load]]\nid = "post"\nkind = "burst"\nclients = 1\nmethod = "POST"\nbody = "name=a"\n'
    run = play(f'{BURST}{post}path = "/cgi-bin/form.cgi"\n')
    loads = {load["id"]: load["statuses"] for load in run.verdict()["loads"]}
    assert loads == {"burst": {"200": 10}, "post": {"200": 1}}, run.story()


@pytest.mark.skipif(shutil.which("nginx", path=f"{os.defpath}:/usr/sbin") is None, reason="nginx is not installed")
def test_loads_go_through_the_front(play: Play) -> None:
    front = f'[front]\nkind = "nginx"\nlisten = "127.0.0.1:{free_port()}"\n'
    missing = '[[load]]\nid = "missing"\nkind = "burst"\nclients = 1\npath = "/elsewhere"\n'
    run = play(f"{front}{BURST}{missing}")
    loads = {load["id"]: load["statuses"] for load in run.verdict()["loads"]}
    assert loads == {"burst": {"200": 10}, "missing": {"404": 1}}, run.story()


def test_a_killed_script_costs_its_request_alone(play: Play) -> None:
    text = """
    [[load]]
    id = "slow"
    kind = "burst"
    clients = 1
    path = "/cgi-bin/slow.cgi?sleep=30"
    [[fault]]
    kind = "kill"
    target = "cgi:app/*"
    at = 0
    [[expect]]
    what = "http"
    ratio = { "502" = 1.0 }
    [[expect]]
    what = "exits(worker:app/*)"
    max = 0
    [[expect]]
    what = "nothing-left-over"
    """
    run = play(text)
    assert run.verdict()["met"], run.story()


def test_what_a_killed_emperor_leaves_finishes_its_requests(play: Play) -> None:
    text = """
    [[load]]
    kind = "burst"
    clients = 1
    path = "/cgi-bin/slow.cgi?sleep=1"
    [[fault]]
    kind = "kill"
    target = "emperor"
    at = 0.2
    [[expect]]
    what = "http"
    ratio = { "200" = 1.0 }
    """
    run = play(text)
    assert run.verdict()["met"], run.story()


# ---- the run itself ---------------------------------------------------------------------------------------------


def test_not_met(play: Play) -> None:
    run = play('[[expect]]\nid = "busy"\nwhat = "starts(master:app)"\nmax = 0\n')
    assert run.verdict()["expectations"] == [{"id": "busy", "met": False, "found": "1", "expected": "at most 0"}]
    assert run.process.returncode == 1


def test_nothing_left_over_finds_what_is_left(play: Play, tmp_path: Path) -> None:
    fault = '[[fault]]\nkind = "kill"\ntarget = "emperor"\nat = 0\n'
    run = play(f'{fault}[[expect]]\nwhat = "nothing-left-over"\n')
    (row,) = run.verdict()["expectations"]
    # A killed Emperor cannot remove its socket.
    assert (row["met"], row["found"]) == (False, f"socket {tmp_path / 'app.sock'}")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_heals_and_stops(play: Play, number: int) -> None:
    run = play('[run]\nfor = 60\n[[fault]]\nid = "stop"\nkind = "stop"\ntarget = "worker:app/1"\nat = 0\n')
    run.until("fault:stop", "fault", "stop")
    run.process.send_signal(number)
    verdict = run.verdict()
    assert verdict["problems"] == [f"interrupted ({signal.Signals(number).name})"]
    assert run.process.returncode == 1
    assert any(trace["event"] == "heal" for trace in run.traces[:-1])
    assert any((trace["actor"], trace["reason"]) == ("emperor", "exit code 0") for trace in run.traces[:-1])


def test_a_killed_player_takes_the_tree_with_it(play: Play, tmp_path: Path) -> None:
    run = play("[run]\nfor = 60\n")
    run.until("master:app", "state", "READY")
    tree = living_descendants([run.process.pid])
    assert len(tree) >= 5  # the Emperor, the fork server, a master, two workers
    run.process.kill()
    assert all(gone(pid) for pid in tree)
    assert not (tmp_path / "app.sock").exists()


def test_a_socket_that_is_taken(play: Play, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "app.sock"))
        other.listen()
        run = play(BURST)
        assert run.verdict()["problems"] == ["the Emperor ended (exit code 2) before every vassal was ready"]
    reasons = [trace["reason"] for trace in run.traces if trace.get("event") == "log"]
    assert len(reasons) == 1
    assert "another server listens there" in reasons[0]
    assert run.process.returncode == 1


def test_for_people(tmp_path: Path) -> None:
    file = tmp_path / "some.toml"
    fault = '[[fault]]\nid = "k"\nkind = "kill"\ntarget = "worker:app/1"\nat = 0\n'
    expect = '[[expect]]\nid = "back"\nwhat = "restarts(worker:app/1)"\nmin = 1\n'
    file.write_text(VASSAL.format(cgi=SCENARIOS / "cgi-bin") + BURST + fault + expect)
    command = [sys.executable, "-P", "-m", "pyemperor.cli.main", "run", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert result.returncode == 0, result.stdout
    assert re.search(r"^ +0\.\d{3}  fault:k +fault kill +SIGKILL to worker:app/1$", result.stdout, re.M)
    assert "beat" not in result.stdout
    assert "met      back: 1\n" in result.stdout
    assert result.stdout.endswith("some: every expectation is met\n")


def test_a_scenario_for_simulated_time_alone(tmp_path: Path) -> None:
    file = tmp_path / "some.toml"
    file.write_text(VASSAL.format(cgi="cgi") + '[run]\nmode = "sim"\nfor = 1\n')
    command = [sys.executable, "-P", "-m", "pyemperor.cli.main", "run", str(file)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "pyemperor: some runs in simulated time only: add --simulate\n"
