"""uWSGI's Emperor at its edges, one numbered case a test, with a real Emperor and files for uWSGI.

The numbers are those of docs/edge-cases.md. Each docstring says what uWSGI 2.0 does, and what is better here.
"""

import os
import re
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyemperor.actors.monitor_files import VassalFiles
from pyemperor.protocol import control
from tests.conformance.capital import VASSAL, Capital, capital
from tests.support import until


@pytest.fixture(scope="module")
def emperor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Capital]:
    """One Emperor for all cases; each has vassals of its own."""
    folder = tmp_path_factory.mktemp("capital")
    (folder / "defaults.ini").write_text("[uwsgi]\nenv = FROM=before\nprocesses = 2\n")
    (folder / "last.ini").write_text("[uwsgi]\nenv = LAST=wins\n")
    options = "vassals-include-before = %d/defaults.ini\nvassals-include = %d/last.ini\nemperor-freq = 1\n"
    with capital(folder, options) as reign:
        yield reign
        assert reign.stop() == 0


# ---- a life -------------------------------------------------------------------------------------------------


def test_1_2_5_the_life_of_a_vassal_in_uwsgis_words(emperor: Capital) -> None:
    """1. 2. 5. Spawned, reloaded, stopped: the lines that tools look for. uWSGI: within 3 s. Better: at once."""
    begun = emperor.now
    file = emperor.start("life")
    for what in ("has been spawned", "is ready to accept requests"):
        assert emperor.count(rf"^\w{{3}} \w{{3}} .{{16}} - \[emperor\] vassal life.ini {what}$", begun) == 1
    first = emperor.status("life").pids
    os.utime(file)
    emperor.said(r"- \[emperor\] reload the uwsgi instance life.ini$", begun)
    emperor.said(r"generation 2 serves now", begun)
    assert emperor.get("life").status == 200
    emperor.said(r"- \[emperor\] removed uwsgi instance life.ini$", begun)  # the first generation
    assert not set(first) & set(emperor.status("life").pids), "2. uWSGI executes itself anew; here another rises"
    last = emperor.now
    file.unlink()
    emperor.said(r"- \[emperor\] stop the uwsgi instance life.ini$", last)
    emperor.said(r"- \[emperor\] removed uwsgi instance life.ini$", last)
    until(emperor.folder, lambda: not (emperor.folder / "life.http").exists())


def test_11_a_long_name_is_a_name(emperor: Capital) -> None:
    """11. uWSGI: a name of 255 characters and more is an "invalid vassal name". Better: what the disk takes is."""
    name = "n" * 251
    emperor.write(name, text="[uwsgi]\nhttp-socket = %v/../long.http\ncgi = /cgi=%v/../cgi\n")
    emperor.said(f"vassal {name}.ini is ready")
    assert emperor.get("long").status == 200
    (emperor.vassals / f"{name}.ini").unlink()


@pytest.mark.parametrize("name", ["with space", "colon:2", "br{0}<red>", "ünï", "-dash", "per%%cent"])
def test_12_any_name_is_a_name(emperor: Capital, name: str) -> None:
    """12. uWSGI: what is behind a colon is a zerg's number, and the vassal is stopped at every scan."""
    begun = emperor.now
    emperor.start(name.replace("%%", "%"), text="[uwsgi]\nhttp-socket = %v/../any.http\ncgi = /cgi=%v/../cgi\n")
    assert emperor.get("any").status == 200
    (emperor.vassals / f"{name.replace('%%', '%')}.ini").unlink()
    emperor.said(f"removed uwsgi instance {re.escape(name.replace('%%', '%'))}.ini$", begun)


def test_a_name_that_cannot_be_said_is_escaped(emperor: Capital) -> None:
    """12. A line's end, a terminal's command, bytes that are no UTF-8: neither a log nor an answer breaks."""
    begun = emperor.now
    path = os.path.join(os.fsencode(emperor.vassals), b"n\nl\x1b[31m\xff.ini")
    with open(path, "w") as file:
        file.write("[uwsgi]\nhttp-socket = %v/../said.http\ncgi = /cgi=%v/../cgi\n")
    emperor.said(r"vassal n\\nl\\x1b\[31m\\udcff.ini is ready", begun)
    assert emperor.status(r"n\nl\x1b[31m\udcff").state == "READY"
    assert emperor.get("said").status == 200
    os.unlink(path)
    emperor.said("removed uwsgi instance", begun)


def test_48_a_thousand_files_are_looked_at_in_a_moment(tmp_path: Path) -> None:
    """48. uWSGI compares every name with every other at each look. Better: a stat(2) for each file."""
    for number in range(1000):
        (tmp_path / f"{number}.ini").write_text("[uwsgi]\n")
    files = VassalFiles(str(tmp_path), lambda path, reloading: pytest.fail("nobody asked to read it"))
    files.scan()
    files.scan()
    began = time.process_time()
    assert len(files.scan()) == 1000
    assert time.process_time() - began < 0.5


# ---- broken files -------------------------------------------------------------------------------------------


def test_16_a_broken_file_starts_nothing_and_is_said_once(emperor: Capital) -> None:
    """16. uWSGI: it starts, exits with 1 and is cursed, again and again. Better: said once, with its line."""
    begun = emperor.now
    file = emperor.write("broken", "processes = many\n")
    line = emperor.said("vassal broken is refused", begun)
    assert f'{file}:4: processes: "many"; expected a whole number' in line
    emperor.start("beside")
    assert emperor.count("broken", begun) == 1
    status = emperor.status("broken")
    assert (status.state, status.pids) == ("REFUSED", ())
    assert "processes" in status.refused
    file.unlink()


def test_17_a_broken_reload_costs_nothing(emperor: Capital) -> None:
    """17. uWSGI (#1104): the old workers are gone already, an outage. Better: the old one serves on."""
    begun = emperor.now
    emperor.start("sound")
    before = emperor.status("sound").pids
    emperor.write("sound", "harakiri = soon\n")
    emperor.said(
        "vassal sound keeps its old configuration, the new one is refused: .*sound.ini:4: harakiri", begun
    )
    assert emperor.get("sound").status == 200
    assert emperor.status("sound").pids == before
    emperor.write("sound", "harakiri = 9\n")
    emperor.said("vassal sound generation 2 serves now", begun)


def test_18_mending_the_file_ends_the_wait(emperor: Capital) -> None:
    """18. uWSGI (#1148): a fixed file still waits for its throttle. Better: a change starts at once."""
    begun = emperor.now
    file = emperor.write("mended", "chdir = /nowhere\n")
    emperor.said("unloyal bad behaving vassal found: mended.ini", begun)
    why = f"{file}:4: chdir: /nowhere: No such file or directory (make the folder, or name another one)"
    assert emperor.status("mended").reason.startswith(f"{why}; next start ")
    emperor.write("mended")
    emperor.said("vassal mended.ini is ready", begun)
    assert emperor.get("mended").status == 200
    assert emperor.status("mended").restarts == 0, "its record is clean"


def test_39_a_slip_of_the_pen_is_told_with_what_was_meant(emperor: Capital) -> None:
    """39. uWSGI: a misspelt option is a placeholder, and silently has no effect. Better: a warning says which."""
    begun = emperor.now
    file = emperor.start("slip", "vaccum = true\nmaster = true\n")
    assert f"{file}:4: vaccum: unknown option, has no effect (did you mean vacuum?)" in emperor.said(
        "vaccum", begun
    )
    assert emperor.count("slip.*master: ", begun) == 0, "which is always so, and nobody's mistake"


def test_a_folder_that_comes_late_is_waited_for(emperor: Capital) -> None:
    """A disk that is mounted after the Emperor has started: as in uWSGI, nobody has to be told."""
    begun = emperor.now
    late = emperor.folder / "late"
    emperor.write("late", f"chdir = {late}\n")
    emperor.said(f"vassal late.ini ended: .*late.ini:4: chdir: {late}: No such file", begun)
    late.mkdir()
    emperor.said("vassal late.ini is ready to accept requests", begun)
    assert emperor.get("late").status == 200
    (emperor.vassals / "late.ini").unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_a_user_may_be_a_number_that_nobody_has(emperor: Capital) -> None:
    """As in uWSGI, and as containers have it; its group is the one of the same number unless ``gid`` says so."""
    begun = emperor.now
    emperor.start("number", "uid = 43210\n")
    status = Path(f"/proc/{emperor.status('number').pids[0]}/status").read_text()
    ids = [line.split()[1:] for line in status.splitlines() if line.startswith(("Uid:", "Gid:", "Groups:"))]
    assert ids == [["43210"] * 4, ["43210"] * 4, ["43210"]]
    (emperor.vassals / "number.ini").unlink()
    emperor.said("removed uwsgi instance number.ini", begun)


def test_an_address_that_cannot_be_had_is_named_with_its_line(emperor: Capital) -> None:
    """The second of two sockets, and who it is to belong to: each is found where it stands."""
    begun = emperor.now
    file = emperor.write("far", "http-socket = 192.0.2.1:8080\n")
    line = emperor.said("vassal far is refused", begun)
    assert f"{file}:4: http-socket: cannot listen at 192.0.2.1:8080: Cannot assign requested address" in line
    assert "(write an address of this machine, or 0.0.0.0 for all of them)" in line
    file = emperor.write("given", "chown-socket = no-such-user\n")
    line = emperor.said("vassal given is refused", begun)
    assert f"{file}:4: chown-socket: there is no user or group no-such-user (create it" in line


# ---- options of uWSGI's that do something else there --------------------------------------------------------


def test_37_loyalty_is_said_once_a_generation(emperor: Capital) -> None:
    """37. uWSGI: for each worker, and each that replaces it. Better: once for each generation of the vassal."""
    begun = emperor.now
    emperor.start("loyal", "processes = 3\n")
    assert not emperor.status("loyal").loyal
    for _ in range(20):
        assert emperor.get("loyal").status == 200
    emperor.said(r"- \[emperor\] vassal loyal.ini is now loyal$", begun)
    assert emperor.count("is now loyal", begun) == 1
    again = emperor.now
    assert isinstance(emperor.reload("loyal"), control.Outcomes)
    assert emperor.status("loyal").loyal, "its vassal has not lost its good name"
    for _ in range(5):
        emperor.get("loyal")
    emperor.said("is now loyal", again)
    assert emperor.count("is now loyal", again) == 1


def test_38_what_was_reloaded_is_ready(emperor: Capital) -> None:
    """38. uWSGI: ``ready`` stays 0 after a reload. Better: it is what it is."""
    emperor.start("ready", "processes = 2\nheartbeat = 0.1\n")
    answer = emperor.reload("ready")
    assert isinstance(answer, control.Outcomes)
    assert [outcome.ok for outcome in answer.outcomes] == [True]
    status = emperor.status("ready")
    assert (status.state, status.generation, status.reloading) == ("READY", 2, False)


def test_43_daemonize_in_a_vassal_only_names_its_log(emperor: Capital) -> None:
    """43. As in uWSGI: it redirects the log, and the vassal stays where it is supervised."""
    log = emperor.folder / "own.log"
    begun = emperor.now
    emperor.start("own", f"daemonize = {log}\n")
    assert emperor.get("own").status == 200
    until(emperor.folder, lambda: "GET /cgi/hello" in log.read_text())
    assert emperor.count("GET /cgi/hello", begun) == 0
    assert emperor.status("own").state == "READY"


def test_44_what_a_reload_changes_it_changes(emperor: Capital) -> None:
    """44. uWSGI (#299, #1145): log file and socket keep their old place, mode and owner. Better: they follow."""
    logs = [emperor.folder / "before.log", emperor.folder / "after.log"]
    begun = emperor.now
    emperor.start("moved", f"logto = {logs[0]}\nchmod-socket = 600\n")
    path = emperor.folder / "moved.http"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    emperor.get("moved")
    until(emperor.folder, lambda: "GET /cgi/hello" in logs[0].read_text())
    owner = "chown-socket = nobody\n" if os.geteuid() == 0 else ""
    emperor.write("moved", f"logto = {logs[1]}\nchmod-socket = 666\n{owner}")
    emperor.said("vassal moved generation 2 serves now", begun)
    emperor.said("removed uwsgi instance moved.ini", begun)
    emperor.get("moved")
    until(emperor.folder, lambda: "GET /cgi/hello" in logs[1].read_text())
    assert stat.S_IMODE(path.stat().st_mode) == 0o666
    assert (path.owner() == "nobody") == bool(owner)
    assert logs[0].read_text().count("GET") == 1


def test_45_what_is_said_before_there_is_a_log_is_the_emperors(emperor: Capital) -> None:
    """45. As in uWSGI: what a vassal says before its log is open is in the Emperor's."""
    begun = emperor.now
    emperor.start("homeless", "logto = /nowhere/at/all.log\n")
    emperor.said("/nowhere/at/all.log: No such file or directory; logging goes on here", begun)
    assert emperor.get("homeless").status == 200
    emperor.said("GET /cgi/hello", begun)


@pytest.mark.parametrize("own", ["", "log-format = %(uri) %(status)\n"], ids=["uwsgi's", "own"])
def test_harakiri_is_said_in_the_words_that_are_looked_for(emperor: Capital, own: str) -> None:
    """uWSGI core/master_checks.c; also where log-format says how requests are logged. The worker lives on."""
    begun = emperor.now
    script = emperor.folder / "cgi" / "sleep"
    script.write_text("#!/bin/sh\nexec sleep 1000\n")
    script.chmod(0o755)
    emperor.start("slow", f"harakiri = 0.2\n{own}")
    assert emperor.get("slow", "sleep").status == 504
    stamp = r"^\w{3} \w{3} .{16} - "
    line = emperor.said(stamp + r"\*\*\* HARAKIRI ON WORKER [12] \(pid: \d+, try: 1\) \*\*\*$", begun)
    pid = int(line.partition("pid: ")[2].partition(",")[0])
    emperor.said("^slow: GET /cgi/sleep: .* did not end within 0.2 s and was ended .raise .*harakiri", begun)
    os.kill(pid, 0)
    assert emperor.get("slow").status == 200
    (emperor.vassals / "slow.ini").unlink()
    emperor.said("removed uwsgi instance slow.ini", begun)


def test_52_an_emperor_in_a_vassal_says_what_to_write(emperor: Capital) -> None:
    """52. uWSGI: a vassal with ``emperor`` is an Emperor below the Emperor. Here: one Emperor, several folders."""
    begun = emperor.now
    emperor.write("nested", text="[uwsgi]\nemperor = /srv/vassals\n")
    line = emperor.said("vassal nested is refused", begun)
    assert "nested.ini:2: emperor: an option of the Emperor, without effect on a vassal" in line
    assert "nothing to serve" in line


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("mercy-r", "reload-mercy = 10", "workers is 10 seconds"),
        ("mercy-w", "worker-reload-mercy = 10", "workers is 10 seconds"),
        ("mercy-0", "", "workers is 60 seconds"),
    ],
)
def test_56_the_mercy_that_is_said_is_the_one_that_holds(
    emperor: Capital, name: str, options: str, said: str
) -> None:
    """56. uWSGI: with ``reload-mercy = 10`` workers have 60 s all the same. Better: both hold."""
    begun = emperor.now
    emperor.start(name, f"{options}\n")
    emperor.said(f"your mercy for graceful operations on {said}$", begun)
    line = emperor.said("^worker-reload-mercy = ", begun)
    assert ("reload-mercy clips it" in line) == (name == "mercy-r")


def test_57_defaults_stand_before_a_vassal_and_what_is_included_behind_it(emperor: Capital) -> None:
    """57. As in uWSGI (#517): ``vassals-include`` wins over the vassal's file, ``-before`` gives defaults."""
    script = emperor.folder / "cgi" / "env"
    script.write_text("#!/bin/sh\nprintf 'Content-Type: text/plain\\n\\n%s %s' $FROM $LAST\n")
    script.chmod(0o755)
    emperor.start("heir", "env = LAST=loses\n")
    assert emperor.get("heir", "env").text == "before wins"
    emperor.write("heir", "env = FROM=file\n")
    emperor.said("vassal heir generation 2 serves now")
    emperor.said("removed uwsgi instance heir.ini")
    assert emperor.get("heir", "env").text == "file wins"


@pytest.mark.parametrize(
    ("number", "option", "remedy"),
    [
        (22, "emperor-wrapper = /usr/bin/uwsgi", "no program is run"),
        (60, "emperor-broodlord = 4", "more processes"),
    ],
)
def test_22_60_what_cannot_be_here_is_refused_before_anything_starts(
    tmp_path: Path, number: int, option: str, remedy: str
) -> None:
    """22. 60. uWSGI: a missing wrapper is an exit code 26; a zerg cannot find its configuration (#2166)."""
    with capital(tmp_path, option + "\n") as reign:
        line = reign.said(option.split()[0])
        assert f"{tmp_path}/emperor.ini:4: " in line
        assert remedy in line
        assert reign.over() == 2


def test_hostile_files_harm_nobody(emperor: Capital) -> None:
    """None of uWSGI's numbers: files of nobody's friend. Each is refused in a line; the others are served."""
    begun = emperor.now
    hostile = {
        "bombed.ini": VASSAL.format(name="bombed") + "env = A=@(/dev/zero)\n",
        "doubled.ini": VASSAL.format(name="d")
        + "a = xxxxxxxx\n"
        + "".join(f"a{i} = {'%(a)' * 9}\n" for i in range(9)),
        "endless.ini": VASSAL.format(name="endless") + "include = endless.ini\n",
        "crowded.ini": "[uwsgi]\ncgi = /cgi=cgi\n" + "".join(f"socket = %v/../{i}.s\n" for i in range(300)),
        "heavy.ini": VASSAL.format(name="heavy") + "".join(f"env = A{i}={'y' * 1000}\n" for i in range(200)),
        "laughing.xml": '<!DOCTYPE l [<!ENTITY l "lol">]><uwsgi><env>&l;</env></uwsgi>',
        "towering.json": '{"uwsgi": ' + "[" * 20_000,
        "towering2.yml": "uwsgi: " + "[" * 2000,
        "dotted.toml": "a" + ".a" * 50_000 + " = 1",
        "empty.yaml": "",
    }
    for name, text in hostile.items():
        (emperor.vassals / name).write_text(text)
    (emperor.vassals / "binary.ini").write_bytes(bytes(range(256)))
    (emperor.vassals / "loop.ini").symlink_to("loop.ini")
    (emperor.vassals / "device.ini").symlink_to("/dev/zero")
    names = [re.escape(name) for name in hostile if name != "doubled.ini"] + ["binary.ini"]
    for name in names:
        line = emperor.said(f"is refused: .*{name}", begun)
        assert len(line) < 600
    emperor.start("unharmed")
    assert emperor.get("unharmed").status == 200
    assert emperor.count("Traceback|defect", begun) == 0
    for name in [*hostile, "binary.ini", "loop.ini", "device.ini"]:
        (emperor.vassals / name).unlink()
