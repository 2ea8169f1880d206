"""What a run of the benchmark leaves behind."""

import json
import sys
from pathlib import Path

import pytest

from bench.report import write
from bench.result import OURS, UWSGI, Result, Row

RESULTS = {"speed": Result([Row("hello", "req/s", {OURS: [3000.0], UWSGI: [1500.0]})], ["a note"])}


def test_without_matplotlib_the_results_are_written_and_it_says_how_to_get_the_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as if it were not installed
    (tmp_path / "ratios.png").touch()
    said = write(tmp_path, RESULTS, {"cores": 2})
    assert said == "result.json; no picture, matplotlib is not installed: `make bench` installs it"
    written = json.loads((tmp_path / "result.json").read_text())
    assert written["results"]["speed"]["rows"][0]["ratios"] == {UWSGI: 2.0}
    assert not (tmp_path / "ratios.png").exists(), "it was of another run"


def test_results_without_a_peer_need_no_picture(tmp_path: Path) -> None:
    alone = {"speed": Result([Row("hello", "req/s", {OURS: [3000.0]})])}
    assert write(tmp_path / "out", alone, {}) == "result.json"
