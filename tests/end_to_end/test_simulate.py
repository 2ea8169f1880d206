"""``pyemperor run --simulate``: every scenario that can, with several seeds; the same bytes every time."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pyemperor.cli.rehearsal import Rehearsal
from pyemperor.cli.scenarios import read_scenario
from pyemperor.cli.verdict import judge
from pyemperor.protocol.messages import EVENTS

SCENARIOS = Path(__file__).parents[2] / "scenarios"
PLAYED = [path for path in sorted(SCENARIOS.glob("*.toml")) if read_scenario(str(path), {}).has_timeline]
SIMULATED = [path for path in PLAYED if read_scenario(str(path), {}).run.mode != "real"]


def simulate(file: Path, *options: str, hashes: str = "0") -> "subprocess.CompletedProcess[str]":
    """Run the command."""
    return subprocess.run(
        [sys.executable, "-P", "-m", "pyemperor.cli.main", "run", "--simulate", str(file), *options],
        env=os.environ | {"PYTHONHASHSEED": hashes},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


def rows(output: str) -> list[dict[str, Any]]:
    """The JSON objects of all lines."""
    return [json.loads(line) for line in output.splitlines()]


def test_there_are_scenarios() -> None:
    assert len(SIMULATED) >= 6


@pytest.mark.parametrize("file", SIMULATED, ids=lambda path: str(path.stem))
def test_every_expectation_is_met_with_any_seed(file: Path) -> None:
    scenario = read_scenario(str(file), {})
    for seed in (scenario.run.seed, 2, 3):
        rehearsal = Rehearsal(scenario, seed)
        course = rehearsal.run(lambda _: None)
        assert rehearsal.timeline.problems == []
        unmet = [finding for finding in judge(scenario.expects, course) if not finding.met]
        assert unmet == [], f"seed {seed}"


@pytest.mark.parametrize("form", [(), ("--json",)], ids=["plain", "json"])
def test_one_seed_is_one_output_byte_for_byte(form: tuple[str, ...]) -> None:
    file = SCENARIOS / "worker_killed.toml"
    first = simulate(file, "--seed", "7", *form, hashes="1")
    second = simulate(file, "--seed", "7", *form, hashes="2")
    other = simulate(file, "--seed", "8", *form, hashes="1")
    assert (first.returncode, first.stderr) == (0, "")
    assert first.stdout == second.stdout
    assert first.stdout != other.stdout


def test_json_is_a_trace_a_line_and_a_verdict() -> None:
    result = simulate(SCENARIOS / "worker_killed.toml", "--json")
    *traces, verdict = rows(result.stdout)
    assert all(set(trace) == {"type", "at", "actor", "event", "state", "pid", "reason"} for trace in traces)
    assert {trace["type"] for trace in traces} == {"trace"}
    assert {trace["event"] for trace in traces} <= set(EVENTS)
    assert {"beat", "request", "fault", "state"} <= {trace["event"] for trace in traces}
    fault = next(trace for trace in traces if trace["event"] == "fault")
    assert (fault["actor"], fault["at"]) == ("fault:kill", 15.0)  # relative to the steady state
    assert (verdict["type"], verdict["met"], verdict["problems"]) == ("verdict", True, [])
    assert verdict["seed"] == 1
    assert all(set(row) == {"id", "met", "found", "expected"} for row in verdict["expectations"])
    (load,) = verdict["loads"]
    assert load["id"] == "traffic"
    assert load["requests"] == sum(load["statuses"].values()) > 1000
    assert 0 < load["p50"] <= load["p99"] < 1


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str], Path]:
    """Writes a scenario with one vassal."""

    def write(text: str) -> Path:
        vassal = '[[vassal]]\nname = "app"\nsocket = "app.sock"\ncgi = "cgi-bin"\n'
        file = tmp_path / "some.toml"
        file.write_text(vassal + text)
        return file

    return write


KILL = '[[fault]]\nkind = "kill"\nat = 1\ntarget = "worker:app/1"\n'


def test_not_met(write: Callable[[str], Path]) -> None:
    file = write(f'{KILL}[[expect]]\nid = "quiet"\nwhat = "restarts(worker:app/1)"\nmax = 0\n')
    result = simulate(file, "--json")
    verdict = rows(result.stdout)[-1]
    assert (result.returncode, verdict["met"]) == (1, False)
    assert verdict["expectations"] == [{"id": "quiet", "met": False, "found": "1", "expected": "at most 0"}]
    plain = simulate(file)
    assert plain.returncode == 1
    assert "NOT MET  quiet: 1\n         expected: at most 0\n" in plain.stdout


def test_a_scenario_for_the_real_machine_alone(write: Callable[[str], Path]) -> None:
    result = simulate(write(f'[run]\nmode = "real"\n{KILL}'))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "pyemperor: some runs in real time only: leave --simulate away\n"


def test_a_script_that_outlives_its_client(write: Callable[[str], Path]) -> None:
    load = '[[load]]\nid = "slow"\nkind = "burst"\nclients = 1\ntakes = 30\ntimeout = 2\n'
    *traces, verdict = rows(simulate(write(load), "--json").stdout)
    (gave_up,) = [trace for trace in traces if trace["actor"] == "load:slow"]
    assert (gave_up["event"], gave_up["state"], gave_up["at"]) == ("request", "0", 2.0)
    assert verdict["loads"][0]["statuses"] == {"error": 1}


def test_killed_scripts_cost_their_requests_alone(write: Callable[[str], Path]) -> None:
    text = """
    [[load]]
    kind = "burst"
    clients = 1
    takes = 10
    [[fault]]
    kind = "kill"
    at = 3
    target = "cgi:app/*"
    [[expect]]
    what = "http"
    ratio = { "502" = 1.0 }
    [[expect]]
    what = "exits(worker:app/*)"
    max = 0
    [[expect]]
    what = "nothing-left-over"
    """
    result = simulate(write(text))
    assert result.returncode == 0, result.stdout


def test_what_a_killed_emperor_leaves_finishes_its_requests(write: Callable[[str], Path]) -> None:
    text = """
    [[load]]
    kind = "burst"
    clients = 1
    takes = 10
    [[fault]]
    kind = "kill"
    at = 3
    target = "emperor"
    [[expect]]
    what = "http"
    ratio = { "200" = 1.0 }
    """
    result = simulate(write(text))
    assert result.returncode == 0, result.stdout
