"""A vassal's pidfile and its kin: they name the master that serves, for as long as there is one."""

import os
import pwd
import signal
import stat
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from shutil import rmtree

import pytest

from pyemperor.actors.pid_files import PidFiles
from pyemperor.actors.socket_file import replace_file
from pyemperor.protocol.options import Vassal
from tests.faults.rig import Serve, Server, ended
from tests.support import until

ALL = ("pidfile", "pidfile2", "safe-pidfile", "safe-pidfile2")
FOLDER = 'emperor = ["vassals"]\nemperor-freq = "1s"\n'
TEXT = "[uwsgi]\nhttp-socket = {folder}/{name}.http\ncgi = /cgi={folder}/cgi\n"
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs vassals as others")


@pytest.fixture
def run(folder: Path) -> Path:
    """A folder for the files; nobody but root and its owner writes there."""
    (folder / "vassals").mkdir()
    (folder / "run").mkdir()
    return folder / "run"


def options(run: Path, *names: str, prefix: str = "") -> str:
    return "".join(f"{name} = {run}/{prefix}{name}\n" for name in names)


def write(folder: Path, more: str, name: str = "app") -> None:
    new = folder / f"{name}.new"
    new.write_text(TEXT.format(folder=folder, name=name) + more)
    new.rename(folder / "vassals" / f"{name}.ini")


def say(run: Path, pid: int, *names: str) -> None:
    """Wait until there are these files and no other, and all say ``pid``."""

    def found() -> bool:
        with suppress(FileNotFoundError):  # one was removed between the two looks
            return {file.name: file.read_text() for file in run.iterdir()} == dict.fromkeys(names, f"{pid}\n")
        return False

    until(run, found)


def test_they_name_the_master_that_serves_and_go_with_it(serve: Serve, folder: Path, run: Path) -> None:
    write(folder, options(run, *ALL))
    server = serve({"still": ""}, FOLDER)
    server.ready("master:app", "master:still")
    first = server.pid("master:app")
    say(run, first, *ALL)
    assert {stat.S_IMODE(file.stat().st_mode) for file in run.iterdir()} == {0o644}
    # A reload: the old generation lives on with a request when the new one has the files, and leaves them alone.
    client, _ = server.hold()
    server.mark()
    write(folder, options(run, *ALL) + "processes = 2\n")
    second = server.until(actor="master:app", state="READY")["pid"]
    assert second != first
    say(run, second, *ALL)
    assert not ended(first)
    server.release()
    assert client.answer()[0] == 200
    server.until(actor="master:app", event="exit", pid=first)
    say(run, second, *ALL)
    # A crash.
    server.mark()
    os.kill(second, signal.SIGKILL)
    third = server.until(actor="master:app", state="READY")["pid"]
    assert third != second
    say(run, third, *ALL)
    # What is asked for no more is removed, and what is new is there.
    server.mark()
    write(folder, options(run, "pidfile", prefix="my-"))
    last = server.until(actor="master:app", state="READY")["pid"]
    say(run, last, "my-pidfile")
    # The end.
    (folder / "vassals" / "app.ini").unlink()
    server.until(actor="master:app", event="exit", pid=last)
    until(run, lambda: not list(run.iterdir()))
    assert server.stop() == 0


def test_a_generation_that_fails_has_no_file(serve: Serve, folder: Path, run: Path) -> None:
    """uWSGI executes itself anew, and so has nothing to go back to."""
    write(folder, options(run, *ALL))
    server = serve({"still": ""}, FOLDER)
    server.ready("master:app")
    first = server.pid("master:app")
    server.mark()
    write(folder, options(run, *ALL) + "hook-asap = exec:false\n")
    server.until(lambda entry: "failed" in entry["message"], actor="master:app", event="refused")
    say(run, first, *ALL)
    assert server.stop() == 0
    assert not list(run.iterdir())


def test_the_safe_ones_are_for_a_vassal_that_is_ready(serve: Serve, folder: Path, run: Path) -> None:
    write(folder, options(run, *ALL) + f"hook-asap = exec:sh -c 'read line < {folder}/cgi/release'\n")
    server = serve({"still": ""}, FOLDER)
    server.until(actor="master:app", state="STARTING")
    say(run, server.pid("master:app"), "pidfile", "pidfile2")
    server.release()
    server.ready("master:app")
    say(run, server.pid("master:app"), *ALL)
    assert server.stop() == 0


def test_what_cannot_be_written_is_said_and_harms_nobody(serve: Serve, folder: Path, run: Path) -> None:
    (run / "link").symlink_to("target")
    (run / "folder").mkdir()
    lines = {"pidfile": run / "link", "pidfile2": run / "folder", "safe-pidfile": run / "not" / "there"}
    write(folder, "".join(f"{name} = {path}\n" for name, path in lines.items()))
    write(folder, options(run, "pidfile"), "first")
    server = serve({"still": ""}, FOLDER)
    server.ready("master:app", "master:first")
    for words in ("it is a symbolic link, and none is followed", "no plain file is in the way", "No such file"):
        said = server.until(event="pidfile", level="ERROR")
        server.log.remove(said)
        assert words in said["message"]
    assert server.get()[0] == 200
    first = server.pid("master:first")
    server.mark()
    write(folder, options(run, "pidfile"), "second")
    server.ready("master:second")
    entry = server.until(actor="master:second", event="pidfile")
    assert f"pidfile = {run}/pidfile: it is the file of vassal first; %n in the path" in entry["message"]
    assert (run / "pidfile").read_text() == f"{first}\n"
    assert server.stop() == 0
    assert {file.name for file in run.iterdir()} == {"link", "folder"}


def test_of_a_vassal_that_runs_alone_it_is_the_process_that_can_be_stopped(folder: Path, run: Path) -> None:
    """``pyemperor run app.ini``: an init script sends SIGINT or SIGHUP there, as to uWSGI's master."""
    write(folder, options(run, *ALL))
    server = Server(folder, file="vassals/app.ini")
    try:
        # Beside pidfile is the control socket.
        until(run, lambda: all((run / name).exists() and (run / name).read_text() for name in ALL))
        assert {(run / name).read_text() for name in ALL} == {f"{server.process.pid}\n"}
        assert server.stop() == 0
    finally:
        server.close()
    assert not list(run.iterdir())


# ---- whose they are -----------------------------------------------------------------------------------------


@pytest.fixture
def shared() -> Iterator[Path]:
    """A folder that everybody may enter, with one of root's and one of nobody's."""
    path = Path(tempfile.mkdtemp(prefix="pyemperor-pids-"))
    path.chmod(0o755)
    for name in ("roots", "theirs", "vassals", "cgi"):
        (path / name).mkdir(mode=0o755)
    nobody = pwd.getpwnam("nobody")
    os.chown(path / "theirs", nobody.pw_uid, nobody.pw_gid)
    yield path
    rmtree(path)


@as_root
def test_pidfile_is_the_emperors_and_the_others_are_the_vassals(serve: Serve, shared: Path) -> None:
    precious = shared / "roots" / "precious"
    precious.write_text("root's\n")
    (shared / "theirs" / "pidfile2").symlink_to(precious)
    roots = options(shared / "roots", "pidfile", "safe-pidfile")
    theirs = options(shared / "theirs", "pidfile2", "safe-pidfile2")
    write(shared, f"uid = nobody\ngid = nogroup\n{roots}{theirs}")
    server = serve({"still": ""}, f'emperor = ["{shared}/vassals"]\n')
    server.ready("master:app")
    pid = server.pid("master:app")
    server.until(lambda entry: "safe-pidfile = " in entry["message"], event="pidfile", level="ERROR")
    for path, owner in ((shared / "roots" / "pidfile", 0), (shared / "theirs" / "safe-pidfile2", 65534)):
        assert (path.read_text(), path.stat().st_uid) == (f"{pid}\n", owner)
    assert not (shared / "roots" / "safe-pidfile").exists(), "nobody may not write there"
    assert precious.read_text() == "root's\n"
    assert server.stop() == 0
    assert {file.name for file in (shared / "roots").iterdir()} == {"precious"}
    assert {file.name for file in (shared / "theirs").iterdir()} == {"pidfile2"}


@as_root
def test_of_a_tyrant_all_are_the_owners(serve: Serve, shared: Path) -> None:
    more = options(shared / "roots", "pidfile") + options(shared / "theirs", "pidfile2", "safe-pidfile")
    write(shared, more)
    nobody = pwd.getpwnam("nobody")
    file = shared / "vassals" / "app.ini"
    file.write_text(file.read_text().replace(f"{shared}/app.http", f"{shared}/theirs/app.http"))
    os.chown(file, nobody.pw_uid, nobody.pw_gid)
    server = serve({"still": ""}, f'emperor = ["{shared}/vassals"]\nemperor-tyrant = true\n')
    server.ready("master:app")
    entry = server.until(actor="master:app", event="pidfile")
    assert f"pidfile = {shared}/roots/pidfile: Permission denied" in entry["message"]
    until(shared / "theirs", (shared / "theirs" / "safe-pidfile").exists)
    for name in ("pidfile2", "safe-pidfile"):
        path = shared / "theirs" / name
        assert (path.read_text(), path.stat().st_uid) == (f"{server.pid('master:app')}\n", nobody.pw_uid)
    assert server.stop() == 0
    assert not list((shared / "theirs").iterdir())


# ---- the file itself ----------------------------------------------------------------------------------------


def test_a_file_is_replaced_at_once(tmp_path: Path) -> None:
    """Whoever reads it meanwhile has the old one or the new one, never half of it or none."""
    path = tmp_path / "pid"
    replace_file(str(path), "1\n")
    with path.open() as old:
        file = replace_file(str(path), "22\n")
        assert old.read() == "1\n"
    assert path.read_text() == "22\n"
    assert [one.name for one in tmp_path.iterdir()] == ["pid"]
    path.unlink()
    path.write_text("somebody else's\n")
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))  # not in the same tick; it may be the same inode
    file.remove()
    assert path.read_text() == "somebody else's\n"


def test_what_failed_is_said_once_for_each_master(tmp_path: Path) -> None:
    files, vassal = PidFiles(), Vassal("app", pidfile=str(tmp_path / "no" / "pid"))
    assert len(files.write("app", vassal, 7, ready=False)) == 1
    assert files.write("app", vassal, 7, ready=True) == []
    assert len(files.write("app", vassal, 8, ready=False)) == 1
