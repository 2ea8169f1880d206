"""The Emperor's process: to the background and back with an error, its identity, its files. All real processes."""

import grp
import json
import os
import pwd
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyemperor.cli.identity import Identity, identity_of
from pyemperor.cli.pid_file import PidFile
from pyemperor.protocol.errors import ConfigError
from tests.support import PATIENCE, gone

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
MISSING = "make the folder, or name another one"
USER = pwd.getpwnam("nobody")

#: An Emperor of a few lines, its options as they would come from a file: it says who it is, and waits.
EMPEROR = """
import json, os, signal, sys
from loguru import logger
from pyemperor.cli.daemon import settled
from pyemperor.protocol.errors import ConfigError
from pyemperor.protocol.options import EmperorOptions

if sys.argv[3:]:
    os.setuid(int(sys.argv[3]))
given = json.loads(sys.argv[1])
try:
    with settled(EmperorOptions(**given)) as emperor:
        print("out of it", flush=True)
        logger.info("umask {:o}", os.umask(0o077))
        logger.info("in {} as {}:{} {}", os.getcwd(), os.geteuid(), os.getegid(), sorted(os.getgroups()))
        logger.info("session {} of {}, stdin {}", os.getsid(0), os.getpid(), os.readlink("/proc/self/fd/0"))
        if sys.argv[2] == "fails":
            raise RuntimeError("it does not work")
        if sys.argv[2] == "dies":
            os._exit(3)
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
        emperor.up()
        logger.info("up")
        signal.sigwait({signal.SIGTERM}) if sys.argv[2] == "waits" else None
except ConfigError as error:
    print(error, file=sys.stderr)
    sys.exit(1)
"""


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that others may look into; those of pytest are its user's alone."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def run(what: str, **options: object) -> "subprocess.CompletedProcess[str]":
    options.setdefault("control_socket", "none")  # that of the system is another Emperor's
    command = [sys.executable, "-P", "-c", EMPEROR, encoded(options), what]
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, stdin=subprocess.PIPE)


def encoded(options: dict[str, object]) -> str:
    return json.dumps({name: str(v) if isinstance(v, Path) else v for name, v in options.items()})


# ---- the background -----------------------------------------------------------------------------------------


def test_the_terminal_gets_its_prompt_back_when_the_emperor_is_up(folder: Path) -> None:
    log, pid = folder / "emperor.log", folder / "emperor.pid"
    started = run("waits", daemonize=log, emperor_pidfile=pid)
    assert (started.returncode, started.stdout, started.stderr) == (0, "", "")
    daemon = int(pid.read_text())
    try:
        text = log.read_text()
        assert "out of it\n" in text
        (session,) = [line for line in text.splitlines() if " session " in line]
        assert f" of {daemon}, stdin /dev/null" in session
        assert f"session {daemon} of" not in session  # it could get a terminal again
        assert os.getsid(daemon) != os.getsid(0)
    finally:
        os.kill(daemon, 15)
    assert gone(daemon)
    assert not pid.exists()


def test_what_goes_wrong_in_the_background_is_said_at_the_terminal(folder: Path) -> None:
    log, pid = folder / "emperor.log", folder / "emperor.pid"
    failed = run("fails", daemonize=log, pidfile=pid)
    assert failed.returncode == 1
    assert failed.stderr == "it does not work\n"
    assert "RuntimeError: it does not work" in log.read_text()
    assert not pid.exists()


def test_a_death_before_it_is_up_is_said_as_well(folder: Path) -> None:
    died = run("dies", daemonize=folder / "log")
    assert died.returncode == 1
    assert "died before it was up" in died.stderr
    ended = run("ends", daemonize=folder / "log")
    assert ended.returncode == 0  # it had been up


def test_a_log_file_that_cannot_be_made_is_an_error_at_the_terminal(folder: Path) -> None:
    failed = run("waits", daemonize=folder / "nowhere" / "log")
    assert failed.returncode == 1
    assert failed.stderr == f"emperor: daemonize: {folder}/nowhere/log: No such file or directory ({MISSING})\n"


def test_errors_before_the_fork_are_the_commands_own(folder: Path) -> None:
    failed = run("waits", daemonize=folder / "log", uid="nobody-at-all")
    assert (failed.returncode, failed.stderr) == (
        1,
        "emperor: uid: there is no user nobody-at-all (create it, or name another one)\n",
    )
    assert not (folder / "log").exists()


def test_without_daemonize_it_stays(folder: Path) -> None:
    ended = run("ends", umask=0o027, chdir=folder)
    assert (ended.returncode, ended.stdout) == (0, "out of it\n")
    assert "umask 27" in ended.stderr
    assert f"in {folder} as {os.geteuid()}:" in ended.stderr
    missing = run("ends", chdir=folder / "nowhere")
    assert missing.stderr == f"emperor: chdir: {folder}/nowhere: No such file or directory ({MISSING})\n"


def test_logto_stays_at_the_terminal_and_logs_to_the_file(folder: Path) -> None:
    ended = run("ends", logto=folder / "log", log_style="uwsgi", log_date="%Y")
    assert (ended.returncode, ended.stderr) == (0, "")
    assert all(line[4:7] == " - " for line in (folder / "log").read_text().splitlines() if line != "out of it")


@as_root
def test_root_follows_no_link_for_the_user_it_is_about_to_become(folder: Path) -> None:
    (folder / "shadow").write_text("secret\n")
    (folder / "log").symlink_to(folder / "shadow")
    failed = run("ends", logto=folder / "log", uid="nobody")
    assert failed.returncode == 1
    assert failed.stderr.startswith(f"emperor: logto: {folder}/log: ")
    assert "a symbolic link, which root does not follow for another user" in failed.stderr
    assert (folder / "shadow").read_text() == "secret\n"
    assert run("ends", logto=folder / "log").returncode == 0, "a link is followed where root stays root"


# ---- identity -----------------------------------------------------------------------------------------------


@as_root
def test_the_emperor_becomes_somebody_else_after_its_files_are_made(folder: Path) -> None:
    (folder / "root").mkdir(0o755)
    log, pid, own = folder / "root" / "log", folder / "root" / "emperor.pid", folder / "own" / "emperor.pid"
    adm = grp.getgrnam("adm").gr_gid
    options = {"uid": "nobody", "add_gid": ["adm"], "daemonize": log, "pidfile": pid, "emperor_pidfile": own}
    started = run("waits", **options)
    assert (started.returncode, started.stderr) == (0, "")
    daemon = int(pid.read_text())
    assert own.read_text() == pid.read_text()
    assert (log.stat().st_uid, own.parent.stat().st_uid) == (USER.pw_uid, USER.pw_uid)
    groups = sorted({USER.pw_gid, adm, *os.getgrouplist("nobody", USER.pw_gid)})
    assert f" as {USER.pw_uid}:{USER.pw_gid} {groups}" in log.read_text()
    os.kill(daemon, 15)
    assert gone(daemon)
    assert not own.exists()
    assert pid.read_text() == ""  # it may not remove it: nobody is there


@as_root
def test_nobody_but_root_becomes_somebody_else(folder: Path) -> None:
    command = [sys.executable, "-P", "-c", EMPEROR, encoded({"uid": "daemon"}), "ends", str(USER.pw_uid)]
    failed = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE)
    assert failed.returncode == 1
    assert failed.stderr == "emperor: uid: only root can run as daemon (start it as root)\n"


def test_whom_options_mean() -> None:
    assert identity_of("", "") is None
    assert identity_of("nobody", "") == Identity(
        "nobody", USER.pw_uid, USER.pw_gid, tuple(os.getgrouplist("nobody", USER.pw_gid))
    )
    assert identity_of("nobody", "4") == Identity("nobody", USER.pw_uid, 4, tuple(os.getgrouplist("nobody", 4)))
    assert identity_of("nobody", "4", ["daemon"], initgroups=False) == Identity("nobody", USER.pw_uid, 4, (4, 1))
    assert identity_of("4000000", "") == Identity("4000000", 4000000, 4000000, (4000000,))
    with pytest.raises(ConfigError, match="gid: there is no group nobodies"):
        identity_of("", "nobodies")
    with pytest.raises(ConfigError, match="add-gid: there is no group nobodies"):
        identity_of("", "", ["nobodies"])


# ---- process id ---------------------------------------------------------------------------------------------


def test_two_emperors_cannot_have_the_same_pid_file(folder: Path) -> None:
    path = folder / "emperor.pid"
    first = PidFile("pidfile", str(path))
    first.open()
    first.write()
    with pytest.raises(ConfigError, match=f"pidfile: {path}: the process {os.getpid()} has it"):
        PidFile("pidfile", str(path)).open()
    assert path.read_text() == f"{os.getpid()}\n"
    first.remove()
    assert not path.exists()


def test_a_file_that_a_dead_one_left_is_taken_over(folder: Path) -> None:
    path = folder / "emperor.pid"
    path.write_text("99999999 and more\n")
    file = PidFile("pidfile", str(path))
    file.open()
    file.write()
    assert path.read_text() == f"{os.getpid()}\n"
    path.unlink()
    path.write_text("a successor's")
    file.remove()
    assert path.read_text() == "a successor's"


def test_one_file_may_be_meant_by_two_options(folder: Path) -> None:
    path = folder / "emperor.pid"
    ended = run("ends", pidfile=path, safe_pidfile=path)
    assert (ended.returncode, path.exists()) == (0, False)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("uid = nobody-at-all", "uid: there is no user nobody-at-all (create it, or name another one)"),
        ("add-gid = no-group", "add-gid: there is no group no-group (create it, or name another one)"),
        ("pidfile = /no/such/x/y", "pidfile: /no/such/x/y: there is no such folder (make the folder"),
        ("logto = /no/such/x.log", "logto: /no/such/x.log: No such file or directory (make the folder"),
        ("chdir = /nowhere", "chdir: /nowhere: No such file or directory (make the folder"),
        ("control-socket = /proc/x", "control-socket: cannot listen at /proc/x: No such file or directory"),
        ("emperor-stats = web:80", "emperor-stats: cannot listen at web:80: web is a name"),
        ("emperor = pg://vassals", "emperor: there is no imperial monitor pg://; expected dir://FOLDER"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("background", [False, True], ids=["foreground", "background"])
def test_what_cannot_be_done_is_said_where_it_stands(
    folder: Path, line: str, expected: str, background: bool
) -> None:
    """Also what only the system can say to be wrong in a file for uWSGI; and at the terminal of a daemon."""
    file = folder / "emperor.ini"
    log = f"daemonize = {folder}/log\n" if background and "logto" not in line else "# in the foreground\n"
    more = "" if "control" in line else f"control-socket = {folder}/control\n"
    file.write_text(f"[uwsgi]\nemperor = {folder}\n{log}{line}\n{more}")
    command = [str(Path(sys.executable).with_name("pyemperor")), "run", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith(f"{file}:4: {expected}")
    assert len(done.stderr.splitlines()) == 1
