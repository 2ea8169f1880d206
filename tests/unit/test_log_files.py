"""Log files: appended to by many processes, cut, moved and renamed below them, and no line lost."""

import contextlib
import os
import pwd
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pyemperor.cli.log_file import LogFile, LogFileOptions, open_to_append
from pyemperor.cli.stderr import Stderr

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files away")
NOBODY = pwd.getpwnam("nobody")


class Hand:
    """The hand of a clock."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


Log = Callable[..., Stderr]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "vassal.log"


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others may look into; those of pytest are its user's alone."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@pytest.fixture
def clock() -> Hand:
    return Hand()


@pytest.fixture
def log(path: Path, clock: Hand) -> Iterator[Log]:
    """Make a process's log, more than one if asked; each has an opening of its own."""
    with contextlib.ExitStack() as stack:

        def new(**options: object) -> Stderr:
            fd = os.open(os.devnull, os.O_WRONLY)
            stack.callback(os.close, fd)
            file = LogFile(LogFileOptions(str(path), **options), fd, clock)  # type: ignore[arg-type]
            return Stderr(lambda count: f"({count} missing)\n", fd, file)

        yield new


def test_a_file_is_appended_to_and_made_for_those_who_may_read_it(path: Path, log: Log) -> None:
    log().write("one\n")
    log().write("two\n")
    assert path.read_text() == "one\ntwo\n"
    assert path.stat().st_mode & 0o7777 == 0o640


def test_copytruncate_leaves_no_hole(path: Path, log: Log) -> None:
    stderr = log()
    stderr.write("x" * 1000 + "\n")
    os.truncate(path, 0)
    stderr.write("after\n")
    assert path.read_bytes() == b"after\n"


def test_a_new_file_with_the_name_is_followed_at_the_next_line(path: Path, log: Log) -> None:
    stderr = log()
    stderr.write("one\n")
    old = path.rename(path.with_suffix(".1"))
    path.touch()
    stderr.write("two\n")
    assert (old.read_text(), path.read_text()) == ("one\n", "two\n")


def test_a_file_that_was_moved_away_takes_lines_until_somebody_is_told_to_reopen(path: Path, log: Log) -> None:
    one, other = log(), log()
    old = path.rename(path.with_suffix(".1"))
    one.write("one\n")
    assert not path.exists()
    assert one._file
    assert one._file.reopen()
    one.write("two\n")
    other.write("three\n")
    assert (old.read_text(), path.read_text()) == ("one\n", "two\nthree\n")


@as_root
def test_a_reopened_file_is_like_the_old_one(path: Path, log: Log) -> None:
    stderr = log(mode=0o604, uid=NOBODY.pw_uid, gid=NOBODY.pw_gid)
    path.rename(path.with_suffix(".1"))
    assert stderr._file
    assert stderr._file.reopen()
    found = path.stat()
    assert (found.st_uid, found.st_gid, found.st_mode & 0o7777) == (NOBODY.pw_uid, NOBODY.pw_gid, 0o604)


def test_a_full_file_is_renamed_once_and_every_process_goes_on_in_the_new_one(path: Path, log: Log) -> None:
    backup = path.with_suffix(".full")
    one, other = log(maxsize=100, backupname=str(backup)), log(maxsize=100, backupname=str(backup))
    one.write("a" * 120 + "\n")
    other.write("b\n")
    one.write("c\n")
    assert backup.read_text() == "a" * 120 + "\n"
    assert path.read_text() == "b\nc\n"


def test_a_fixed_backup_name_is_overwritten_and_others_are_not(path: Path, log: Log) -> None:
    fixed, free = log(maxsize=1, backupname=f"{path}.old"), log(maxsize=1)
    for letter in "abc":
        fixed.write(f"{letter}\n")
    assert Path(f"{path}.old").read_text() == "b\n"
    for letter in "def":
        free.write(f"{letter}\n")
    dated = sorted(found for found in path.parent.iterdir() if re.search(r"\.log\.\d{10}(\.\d+)?$", found.name))
    assert sorted(found.read_text() for found in dated) == ["c\nd\n", "e\n"]
    assert path.read_text() == "f\n"


def test_a_file_that_cannot_be_renamed_is_not_tried_again_at_once(path: Path, log: Log, clock: Hand) -> None:
    stderr = log(maxsize=1, backupname=f"{path}/impossible")
    stderr.write("a\n")
    stderr.write("b\n")
    assert stderr._file
    stderr._file.options = LogFileOptions(str(path), 1, f"{path}.old")
    stderr.write("c\n")
    assert path.read_text() == "a\nb\nc\n"
    clock.at += 61
    stderr.write("d\n")
    assert path.read_text() == "d\n"


def test_touching_reopens_and_rotates(path: Path, log: Log, clock: Hand, tmp_path: Path) -> None:
    again, full = tmp_path / "reopen", tmp_path / "rotate"
    backup = f"{path}.old"
    wishes = {"touch_logreopen": (str(again),), "touch_logrotate": (str(full),), "backupname": backup}
    one, other = log(**wishes), log(**wishes)
    for stderr in (one, other):
        stderr.write("before\n")
    path.rename(tmp_path / "moved")
    again.touch()
    one.write("too soon\n")
    clock.at += 2
    one.write("reopened\n")
    assert path.read_text() == "reopened\n"
    other.write("followed\n")
    full.touch()
    clock.at += 2
    one.write("rotated\n")
    other.write("once\n")
    clock.at += 2
    other.write("more\n")
    assert Path(backup).read_text() == "reopened\nfollowed\n"
    assert path.read_text() == "rotated\nonce\nmore\n"


def test_a_full_disk_costs_lines_and_says_so() -> None:
    fd = os.open(os.devnull, os.O_WRONLY)
    try:
        stderr = Stderr(lambda count: f"({count} missing)\n", fd, LogFile(LogFileOptions("/dev/full"), fd))
        stderr.write("one\n")
        stderr.write("two\n")
        assert stderr._dropped == 2
    finally:
        os.close(fd)


def test_lines_of_many_processes_with_many_rotations_are_all_there(tmp_path: Path) -> None:
    program = (
        "import sys\n"
        "from pyemperor.cli.log_file import LogFile, LogFileOptions\n"
        "from pyemperor.cli.stderr import Stderr\n"
        "log = Stderr(lambda count: f'{count} missing\\n', 2, LogFile(LogFileOptions(sys.argv[1], 20_000)))\n"
        "for index in range(400): log.write(f'{sys.argv[2]} {index} ' + sys.argv[2] * 200 + '\\n')\n"
    )
    path = tmp_path / "busy.log"
    writers = [subprocess.Popen([sys.executable, "-P", "-c", program, str(path), letter]) for letter in "abc"]
    assert [writer.wait(20) for writer in writers] == [0, 0, 0]
    files = list(tmp_path.iterdir())
    assert len(files) > 2  # how many: whoever is interrupted at it makes the others go on in the full one
    lines = [line for file in files for line in file.read_text().splitlines()]
    assert all(re.fullmatch(r"([abc]) \d+ \1{200}", line) for line in lines)
    assert {tuple(line.split()[:2]) for line in lines} == {(c, str(i)) for c in "abc" for i in range(400)}
    assert len(lines) == 1200


@as_root
def test_a_link_is_refused_where_it_might_lead_anywhere(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "target")
    (tmp_path / "target").touch()
    with pytest.raises(OSError, match="symbolic"):
        open_to_append(LogFileOptions(str(tmp_path / "link"), uid=NOBODY.pw_uid), 0o640)
    os.close(open_to_append(LogFileOptions(str(tmp_path / "link")), 0o640))
    os.close(open_to_append(LogFileOptions(str(tmp_path / "link"), uid=0), 0o640))


@as_root
def test_a_link_that_takes_the_place_of_another_users_file_is_not_followed_by_root(path: Path, log: Log) -> None:
    secret = path.with_name("shadow")
    secret.write_text("secret\n")
    stderr = log(uid=NOBODY.pw_uid, gid=NOBODY.pw_gid, maxsize=5)
    os.chown(path, 0, 0)
    stderr.write("one\n")
    old = path.rename(path.with_suffix(".1"))
    path.symlink_to(secret)
    stderr.write("two\n")
    assert stderr._file
    assert not stderr._file.reopen()
    stderr._file.rotate()
    stderr.write("three\n")
    assert secret.read_text() == "secret\n"
    assert old.read_text() == "one\ntwo\nthree\n"


def test_our_own_output_may_be_named_by_a_link() -> None:
    program = (
        "import os\n"
        "from pyemperor.cli.log_file import LogFile, LogFileOptions\n"
        "LogFile(LogFileOptions('/dev/stdout', uid=65534))\n"
        "os.write(2, b'logged\\n')\n"
    )
    ended = subprocess.run([sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=10)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "logged\n", "")


def test_a_fifo_that_nobody_reads_is_an_error_and_no_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    with pytest.raises(OSError, match="No such device"):
        open_to_append(LogFileOptions(str(tmp_path / "fifo")), 0o640)


@as_root
def test_who_may_not_make_a_file_keeps_the_old_one(open_folder: Path) -> None:
    """A vassal's worker after it has dropped its privileges, in a folder of root's."""
    program = (
        "import os, sys\n"
        "from pyemperor.cli.log_file import LogFile, LogFileOptions\n"
        "from pyemperor.cli.stderr import Stderr\n"
        "path = sys.argv[1]\n"
        "log = Stderr(lambda count: f'{count} missing\\n', 2, LogFile(LogFileOptions(path, uid=65534)))\n"
        "os.rename(path, path + '.1')\n"
        "os.setuid(65534)\n"
        "assert not log._file.reopen()\n"
        "log.write('old\\n')\n"
        "print(flush=True); sys.stdin.readline()\n"
        "log.write('new\\n')\n"
    )
    path = open_folder / "root.log"
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", program, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdout
    process.stdout.readline()
    path.touch()
    os.chown(path, 65534, -1)
    process.communicate(b"\n", timeout=10)
    assert process.returncode == 0
    assert (Path(f"{path}.1").read_text(), path.read_text()) == ("old\n", "new\n")
