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


def title(pid: int) -> str:
    return Path(f"/proc/{pid}/cmdline").read_text().rstrip("\0")


def test_processes_have_the_titles_that_they_are_given(serve: Serve) -> None:
    server = serve(
        {
            "app": 'procname-prefix-spaced = "shop"\nprocname-append = " (live)"\n',
            "named": 'procname = "worker of mine"\nprocname-master = "master of mine"\nprocname-prefix = "my-"\n',
        }
    )
    server.ready("master:app", "master:named")
    assert title(server.pid("master:app")) == "shop pyemperor master: app (live)"
    assert title(server.pid("worker:app/1")) == "shop pyemperor worker: app/1 (live)"
    assert title(server.pid("master:named")) == "my-master of mine"
    assert title(server.pid("worker:named/1")) == "my-worker of mine"
    assert server.stop() == 0


def test_workers_have_their_processors_and_their_priority(serve: Serve, folder: Path) -> None:
    script = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'; nice; taskset -cp $$\n"
    (folder / "cgi" / "sched.cgi").write_text(script)
    (folder / "cgi" / "sched.cgi").chmod(0o755)
    server = serve({"app": "processes = 3\ncpu-affinity = 1\nprio = 5\n"})
    server.ready("master:app")
    cpus = sorted(os.sched_getaffinity(0))
    for number in (1, 2, 3):
        pid = server.pid(f"worker:app/{number}")
        assert os.sched_getaffinity(pid) == {cpus[(number - 1) % len(cpus)]}
        assert os.getpriority(os.PRIO_PROCESS, pid) == 5
    master = server.pid("master:app")
    assert os.getpriority(os.PRIO_PROCESS, master) == 5
    assert os.sched_getaffinity(master) == set(cpus)
    assert os.getpriority(os.PRIO_PROCESS, server.pid("emperor")) == 0
    status, body = server.get("sched.cgi")
    nice, affinity = body.splitlines()
    assert (status, nice) == (200, "5")
    assert int(affinity.rsplit(" ", 1)[1]) in cpus
    assert server.stop() == 0


def test_env_of_the_emperor_reaches_every_vassal(serve: Serve, vassals: Path, folder: Path) -> None:
    """uWSGI's vassals inherit it. A vassal's own wins, and ``unenv`` is the last word; attendants see the same."""
    script = "#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n'; exec env\n"
    (folder / "cgi" / "env.cgi").write_text(script)
    (folder / "cgi" / "env.cgi").chmod(0o755)
    seen = folder / "seen"
    ini = f"env = MINE=own\nunenv = GONE\nunenv = EMPEROR_HAS\nexec-pre-app = sh -c 'env > {seen}'\n"
    (vassals / "ini.ini").write_text(TEXT.format(name="ini") + ini)
    options = 'env = ["ALL=one", "MINE=other", "GONE=1"]\nunenv = "EMPEROR_HAS_NOT"\n'
    given = {"EMPEROR_HAS": "1", "EMPEROR_HAS_NOT": "1", "EMPEROR_KEEPS": "1"}
    server = serve({"app": ""}, FOLDER + options, environment=given)
    server.ready("master:app", "master:ini")

    def variables(text: str) -> dict[str, str]:
        found = dict(line.split("=", 1) for line in text.splitlines())
        return {name: found[name] for name in ("ALL", "MINE", "GONE", *given) if name in found}

    assert variables(server.get("env.cgi")[1]) == {"ALL": "one", "MINE": "other", "GONE": "1"}
    assert variables(server.get("env.cgi", "ini")[1]) == {"ALL": "one", "MINE": "own"}
    assert variables(seen.read_text()) == {"ALL": "one", "MINE": "own", "EMPEROR_KEEPS": "1"}
    assert server.stop() == 0
