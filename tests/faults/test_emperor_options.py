"""Options of uWSGI's Emperor that do here what they do there."""

import os
import signal
from pathlib import Path

import pytest

from tests.faults.rig import Serve

FOLDER = 'emperor = ["vassals"]\nemperor-freq = "1s"\n'
TEXT = "[uwsgi]\nhttp-socket = ../{name}.http\ncgi = /cgi=../cgi\ndisable-logging = true\n"
TOML = 'http-socket = "../{name}.http"\ncgi = "/cgi=../cgi"\n'


@pytest.fixture
def vassals(folder: Path) -> Path:
    (folder / "vassals").mkdir()
    return folder / "vassals"


def test_throttles_are_the_delays_of_who_has_none_of_his_own(serve: Serve, vassals: Path) -> None:
    (vassals / "ini.ini").write_text(TEXT.format(name="ini"))
    (vassals / "own.toml").write_text(TOML.format(name="own") + "[supervision.backoff]\ninitial = 0.7\n")
    server = serve({"inline": ""}, FOLDER + "emperor-throttle = 300\nemperor-max-throttle = 500\n")
    server.ready("master:ini", "master:own", "master:inline")
    for name, first, second in (("ini", 0.3, 0.5), ("inline", 0.3, 0.5), ("own", 0.5, 0.5)):
        for delay in (first, second):
            server.signal(f"master:{name}", signal.SIGKILL)
            entry = server.until(actor=f"master:{name}", state="BACKOFF")
            waits = float(entry["reason"].split()[-2])
            assert waits == pytest.approx(delay, abs=0.06), name
            server.ready(f"master:{name}")
    assert server.stop() == 0


def test_nofollow_sees_the_link_and_not_its_target(serve: Serve, vassals: Path) -> None:
    target = vassals.parent / "target.ini"
    target.write_text(TEXT.format(name="app"))
    (vassals / "app.ini").symlink_to("../target.ini")
    server = serve({"still": ""}, FOLDER + "emperor-nofollow = true\n")
    server.ready("master:app")
    server.mark()
    os.utime(target)
    server.watch(2.5)
    assert not server.since(event="reload")
    os.utime(vassals / "app.ini", follow_symlinks=False)
    server.until(actor="master:app", event="reloaded")
    server.mark()
    (vassals / "lost.ini").symlink_to("nowhere")
    assert "nowhere" in os.readlink(vassals / "lost.ini")
    server.until(lambda entry: "cannot be read: No such file" in entry["message"], event="refused")
    (vassals / "app.ini").unlink()
    server.until(actor="master:app", event="exit")
    assert server.stop() == 0


def test_a_further_ending_is_that_of_vassal_files(serve: Serve, vassals: Path) -> None:
    (vassals / "app.vassal").write_text(TEXT.format(name="app"))
    (vassals / "no.other").write_text(TEXT.format(name="no"))
    server = serve({"still": ""}, FOLDER + 'emperor-extra-extension = ".vassal"\n')
    server.ready("master:app")
    assert server.get()[0] == 200
    assert not [entry for entry in server.log if entry.get("actor") == "master:no"]
    assert server.stop() == 0


def test_the_emperor_has_the_title_that_it_is_given(serve: Serve) -> None:
    server = serve(None, 'emperor-procname = "The Emperor of the tests"\n')
    server.ready("master:app")
    title = Path(f"/proc/{server.pid('emperor')}/cmdline").read_bytes()
    assert title.rstrip(b"\0") == b"The Emperor of the tests"
    assert server.stop() == 0


@pytest.mark.parametrize("delays", ["initial = 120", "jitter = 1"])
def test_no_delay_that_a_vassal_asks_for_harms_the_emperor(serve: Serve, vassals: Path, delays: str) -> None:
    (vassals / "own.toml").write_text(TOML.format(name="own") + f"[supervision.backoff]\n{delays}\n")
    server = serve({"still": ""}, FOLDER)
    if delays.startswith("jitter"):
        server.until(lambda entry: "at most 0.99" in entry["message"], actor="master:own", event="refused")
    else:
        server.ready("master:own")
    server.ready("master:still")
    assert server.get(vassal="still")[0] == 200
    assert server.stop() == 0
