"""The imperial monitor at the edges where uWSGI's Emperor is known for what it does: each test names one.

``uWSGI`` is what uWSGI 2.0 does; ``better`` marks what is better here, and is what is tested then.
"""

import os
import queue
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from loguru import logger

from pyemperor.actors.actor import Actor, Down, Inbox, Threads
from pyemperor.actors.administration import Dismiss, Govern, Origin, Refuse, Reload
from pyemperor.actors.monitor import Monitor, Rescan
from pyemperor.actors.monitor_files import FileVersion, VassalFiles
from pyemperor.actors.opened import Opened
from pyemperor.actors.register import Register, Ward
from pyemperor.actors.small_file import read_small
from pyemperor.protocol.errors import ConfigError, Problem
from pyemperor.protocol.options import Vassal

#: Seconds until what must come has come; and in which what must not come would have.
PATIENCE, CALM = 10.0, 0.3
#: Longer than any test: whatever is seen is seen by file events.
NEVER = 1000.0


def read(path: str, *, reloading: bool) -> Vassal:
    """A vassal whose directory is the text of its file, and which knows whether it has run before."""
    text = Path(path).read_text()
    if "broken" in text:
        raise ConfigError(Problem(path, 1, "broken", "it is"))
    return Vassal(os.path.basename(path), chdir=text, disable_logging=reloading)


class Blind(VassalFiles):
    """A source on a system without file events."""

    def watch(self, inbox: Inbox, message: object) -> None: ...


class Emperor:
    """Hears what monitors say."""

    def __init__(self) -> None:
        self.heard: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def next(self) -> Any:
        return self.heard.get(timeout=PATIENCE)

    def govern(self) -> tuple[str, str]:
        """Name and text of the vassal that is to run now."""
        message = self.next()
        assert isinstance(message, Govern), message
        return message.vassal.name, message.vassal.chdir

    def hears_nothing(self) -> bool:
        try:
            message = self.heard.get(timeout=CALM)
        except queue.Empty:
            return True
        pytest.fail(f"it heard {message}")


Watch = Callable[..., Emperor]


@pytest.fixture
def watch() -> Iterator[Watch]:
    """Watch ``sources``: URIs, read by :func:`read`."""
    with ExitStack() as stack:

        def start(
            *uris: object, freq: float = NEVER, kind: type[VassalFiles] = VassalFiles, **more: Any
        ) -> Emperor:
            emperor = Emperor()
            sources = [kind(str(uri), read) for uri in uris]
            stack.callback(Monitor.start(Threads(), sources, emperor.heard.put, freq, **more).stop)
            return emperor

        yield start


def put(file: Path, text: str) -> None:
    """Write a file in one step, as careful editors do."""
    new = file.with_name(f".{file.name}.new")
    new.write_text(text)
    new.rename(file)


# ---- coming and going ---------------------------------------------------------------------------------------


def test_1_a_new_file_is_seen_at_once(watch: Watch, tmp_path: Path) -> None:
    """1. uWSGI: a new file is spawned within freq (3 s). Better: at once."""
    emperor = watch(tmp_path)
    assert emperor.hears_nothing()
    began = time.monotonic()
    (tmp_path / "a.ini").write_text("one")
    assert emperor.govern() == ("a", "one")
    assert time.monotonic() - began < 1
    assert emperor.hears_nothing()


@pytest.mark.parametrize("kind", [VassalFiles, Blind])
def test_without_file_events_it_is_seen_at_the_next_look(
    watch: Watch, tmp_path: Path, kind: type[VassalFiles]
) -> None:
    """1. A new file is spawned, a touched one reloaded, a removed one stopped, within freq."""
    emperor = watch(tmp_path, freq=0.1, kind=kind)
    file = tmp_path / "a.ini"
    file.write_text("one")
    assert emperor.govern() == ("a", "one")
    file.write_text("two")
    assert emperor.govern() == ("a", "two")
    file.unlink()
    assert emperor.next() == Dismiss("a")


def test_2_a_touched_file_is_reloaded(watch: Watch, tmp_path: Path) -> None:
    """2. A touched file is reloaded, though nothing in it has changed."""
    file = tmp_path / "a.ini"
    file.write_text("one")
    emperor = watch(tmp_path)
    assert emperor.govern() == ("a", "one")
    os.utime(file)
    assert emperor.govern() == ("a", "one")
    file.chmod(0o600)
    assert emperor.hears_nothing(), "its mode is no change of it"


def test_5_a_removed_file_is_stopped(watch: Watch, tmp_path: Path) -> None:
    """5. A removed file's vassal is stopped."""
    file = tmp_path / "a.ini"
    file.write_text("one")
    emperor = watch(tmp_path)
    emperor.govern()
    file.unlink()
    assert emperor.next() == Dismiss("a")


def test_7_a_renamed_file_is_handed_over(watch: Watch, tmp_path: Path) -> None:
    """7. uWSGI: the old one is stopped, the new one cannot bind until it has ended. Better: handed over."""
    (tmp_path / "a.ini").write_text("one")
    emperor = watch(tmp_path)
    emperor.govern()
    (tmp_path / "a.ini").rename(tmp_path / "b.ini")
    message = emperor.next()
    assert (message.vassal.name, message.formerly) == ("b", "a")
    (tmp_path / "b.ini").unlink()
    assert emperor.next() == Dismiss("b")


def test_a_renamed_file_that_cannot_be_used_is_refused_under_the_name_that_serves(
    watch: Watch, tmp_path: Path
) -> None:
    """7. and 17. What serves goes on under its old name, until the new one can be used."""
    file = tmp_path / "a.ini"
    file.write_text("one")
    emperor = watch(tmp_path)
    emperor.govern()
    file.write_text("broken")
    assert emperor.next().name == "a"
    file.rename(tmp_path / "b.ini")
    refused = emperor.next()
    assert isinstance(refused, Refuse)
    assert refused.name == "a"
    (tmp_path / "b.ini").write_text("mended")
    message = emperor.next()
    assert (message.vassal.name, message.vassal.chdir, message.formerly) == ("b", "mended", "a")


def test_a_file_that_an_editor_replaces_is_one_change(watch: Watch, tmp_path: Path) -> None:
    """6. Removed and made again: no stop. Editors do so when they keep a backup."""
    file = tmp_path / "a.ini"
    file.write_text("one")
    emperor = watch(tmp_path)
    emperor.govern()
    file.rename(tmp_path / "a.ini~")
    file.write_text("two")
    assert emperor.govern() == ("a", "two")
    assert emperor.hears_nothing()


# ---- what is a change ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [VassalFiles, Blind])
def test_3_two_edits_within_a_second_are_two(watch: Watch, tmp_path: Path, kind: type[VassalFiles]) -> None:
    """3. uWSGI: an edit within the second of the one before is missed. Better: it is seen."""
    file = tmp_path / "a.ini"
    file.write_text("one")
    emperor = watch(tmp_path, freq=0.1, kind=kind)
    for text in ("two", "six", "ten"):
        emperor.govern()
        file.write_text(text)
        os.utime(file, (10**9, 10**9))
    assert emperor.govern() == ("a", "ten")


def test_4_an_older_file_moved_in_is_a_change(watch: Watch, tmp_path: Path) -> None:
    """4. uWSGI: a file that is replaced by one with an older time is not reloaded. Better: it is."""
    file = tmp_path / "a.ini"
    file.write_text("new")
    emperor = watch(tmp_path)
    emperor.govern()
    older = tmp_path / "older"
    older.write_text("old")
    os.utime(older, (10**9, 10**9))
    older.rename(file)
    assert emperor.govern() == ("a", "old")


def test_14_a_link_that_leads_elsewhere_is_a_change(watch: Watch, tmp_path: Path) -> None:
    """4. and 14. A link is as new as what it leads to. Better: one that is switched to an older file is seen."""
    releases, vassals = tmp_path / "releases", tmp_path / "vassals"
    releases.mkdir()
    vassals.mkdir()
    for age, name in enumerate(["2", "1"]):
        (releases / f"{name}.ini").write_text(f"release {name}")
        os.utime(releases / f"{name}.ini", (10**9 - age, 10**9 - age))
    (vassals / "a.ini").symlink_to(releases / "2.ini")
    emperor = watch(vassals)
    assert emperor.govern() == ("a", "release 2")
    (vassals / "a.new").symlink_to(releases / "1.ini")
    (vassals / "a.new").rename(vassals / "a.ini")
    assert emperor.govern() == ("a", "release 1")


def test_14_what_links_lead_to_is_watched(watch: Watch, tmp_path: Path) -> None:
    """14. A target that is touched reloads every link to it."""
    (tmp_path / "vassals").mkdir()
    target = tmp_path / "target.ini"
    target.write_text("one")
    for name in ("a", "b"):
        (tmp_path / "vassals" / f"{name}.ini").symlink_to(target)
    emperor = watch(tmp_path / "vassals", freq=0.5)
    assert {emperor.govern(), emperor.govern()} == {("a", "one"), ("b", "one")}
    target.write_text("two")
    assert {emperor.govern(), emperor.govern()} == {("a", "two"), ("b", "two")}


def test_15_a_dangling_link_is_not_there(watch: Watch, tmp_path: Path) -> None:
    """15. A link that leads nowhere is skipped; it stops one that runs."""
    target = tmp_path / "target"
    (tmp_path / "a.ini").symlink_to(target)
    emperor = watch(tmp_path)
    assert emperor.hears_nothing()
    target.write_text("one")
    assert emperor.govern() == ("a", "one")
    target.unlink()
    assert emperor.next() == Dismiss("a")


def test_58_a_file_that_is_being_written_is_not_taken_half(watch: Watch, tmp_path: Path) -> None:
    """58. uWSGI: a half file may be spawned. Better: it waits until the writer has closed it."""
    emperor = watch(tmp_path)
    (tmp_path / "first.ini").write_text("so that it is known to watch")
    emperor.govern()
    with (tmp_path / "a.ini").open("w") as file:
        file.write("broken: ")
        file.flush()
        assert emperor.hears_nothing()
        file.seek(0)
        file.truncate()
        file.write("whole")
    assert emperor.govern() == ("a", "whole")


def test_58_nor_is_one_that_grows_where_there_are_no_file_events(watch: Watch, tmp_path: Path) -> None:
    """58. Without file events: not as long as it changes."""
    emperor = watch(tmp_path, freq=0.02, kind=Blind)
    with (tmp_path / "a.ini").open("w") as file:
        for _ in range(20):
            file.write("broken\n")
            file.flush()
            with pytest.raises(queue.Empty):
                emperor.heard.get(timeout=0.01)
        file.seek(0)
        file.truncate()
        file.write("whole")
    assert emperor.govern() == ("a", "whole")


# ---- what is a vassal ---------------------------------------------------------------------------------------


def test_10_what_is_no_vassal_file_is_ignored(watch: Watch, tmp_path: Path) -> None:
    """10. Other suffixes, folders and pipes are ignored."""
    for name in ("a.ini.bak", "b.ini~", "c.skel", ".d.ini", "e", ".ini"):
        (tmp_path / name).write_text("no")
    (tmp_path / "f.ini").mkdir()
    os.mkfifo(tmp_path / "g.ini")
    for name in ("i.ini", "t.toml", "x.xml", "y.yml", "z.yaml", "j.json"):
        (tmp_path / name).write_text(name)
    emperor = watch(tmp_path)
    assert [emperor.govern()[0] for _ in range(6)] == ["i", "j", "t", "x", "y", "z"]
    assert emperor.hears_nothing()


def test_12_a_name_with_a_colon_is_a_name(watch: Watch, tmp_path: Path) -> None:
    """12. uWSGI: the part behind the colon is taken for a zerg's, and the vassal is stopped at every scan."""
    (tmp_path / "a:1.ini").write_text("one")
    emperor = watch(tmp_path, freq=0.1)
    assert emperor.govern() == ("a:1", "one")
    assert emperor.hears_nothing()


def test_13_two_of_one_name_are_two(watch: Watch, tmp_path: Path) -> None:
    """13. uWSGI: files of the same name in two folders are taken for one. Better: they are two."""
    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.ini").write_text(folder)
    (tmp_path / "y" / "a.toml").write_text("y, toml")
    emperor = watch(tmp_path / "x", tmp_path / "y", freq=0.5)
    assert [emperor.govern() for _ in range(3)] == [("a", "x"), ("y.a", "y"), ("y.a.toml", "y, toml")]
    (tmp_path / "x" / "a.ini").unlink()
    assert emperor.next() == Dismiss("a")
    assert emperor.hears_nothing()
    (tmp_path / "y" / "a.ini").write_text("y, still")
    assert emperor.govern() == ("y.a", "y, still")


def test_13_two_that_differ_in_their_ending_are_called_by_it(watch: Watch, tmp_path: Path) -> None:
    files = ("a.ini", "a.json", "a.json.ini", "a.toml")
    for name in files:
        (tmp_path / name).write_text(name)
    emperor = watch(tmp_path)
    names = ("a", "a.json", "a.json.ini", "a.toml")
    assert [emperor.govern() for _ in range(4)] == list(zip(names, files, strict=True))
    (tmp_path / "a.ini").rename(tmp_path / "a.yml")
    assert emperor.govern() == ("a", "a.ini")


def test_where_a_vassal_comes_from_is_told_in_uwsgis_terms(
    watch: Watch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / f"{name}.ini").write_text("one")
        os.utime(tmp_path / name / f"{name}.ini", (7, 7))
    (tmp_path / "x" / "z.ini").write_text("broken")
    os.utime(tmp_path / "x" / "z.ini", (8, 8))
    emperor = watch("dir://x", tmp_path / "y" / "*.ini")
    told = [emperor.next().origin for _ in range(3)]
    path = str(tmp_path / "y" / "y.ini")
    assert told == [Origin("x.ini", "x", 7.0), Origin("z.ini", "x", 8.0), Origin(path, f"{tmp_path}/y/*.ini", 7.0)]


def test_one_file_in_two_monitors_is_one_vassal(watch: Watch, tmp_path: Path) -> None:
    """13. Several monitors at once, and a file that two of them find."""
    (tmp_path / "a.ini").write_text("one")
    emperor = watch(f"dir://{tmp_path}", f"glob://{tmp_path}/*.ini", freq=0.1)
    assert emperor.govern() == ("a", "one")
    assert emperor.hears_nothing()


def test_a_pattern_may_match_folders(watch: Watch, tmp_path: Path) -> None:
    """Section 1: a value without a scheme is globbed; what it matches is a vassal, whatever it is called."""
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vassal.conf").write_text(name)
    emperor = watch(f"{tmp_path}/*/vassal.conf", freq=0.2)
    assert [emperor.govern() for _ in range(2)] == [("vassal", "x"), ("y.vassal", "y")]
    (tmp_path / "z").mkdir()
    put(tmp_path / "z" / "vassal.conf", "z")
    assert emperor.govern() == ("z.vassal", "z")


def test_a_single_file_is_watched_like_a_pattern(watch: Watch, tmp_path: Path) -> None:
    """Section 1: what is no folder is a pattern."""
    file = tmp_path / "vassal.conf"
    file.write_text("one")
    emperor = watch(file)
    assert emperor.govern() == ("vassal", "one")
    put(file, "two")
    assert emperor.govern() == ("vassal", "two")


# ---- trouble ------------------------------------------------------------------------------------------------


def test_8_a_folder_that_cannot_be_read_changes_nothing(watch: Watch, tmp_path: Path) -> None:
    """8. and 9. uWSGI: crashes, or complains at each scan. Better: what runs goes on, until it is back."""
    folder = tmp_path / "vassals"
    folder.mkdir()
    (folder / "a.ini").write_text("one")
    emperor = watch(folder, freq=0.05)
    emperor.govern()
    folder.rename(tmp_path / "away")
    assert emperor.hears_nothing()
    folder.write_text("not a folder")
    assert emperor.hears_nothing()
    folder.unlink()
    folder.mkdir()
    (folder / "b.ini").write_text("two")
    assert {type(emperor.next()), type(emperor.next())} == {Dismiss, Govern}


@pytest.mark.parametrize(("kind", "said"), [("missing", "make it, and its vassals start"), ("file", "name one")])
def test_what_is_no_folder_is_said_with_what_to_do(watch: Watch, tmp_path: Path, kind: str, said: str) -> None:
    """Better: uWSGI ends, or says nothing."""
    folder = tmp_path / "later"
    if kind == "file":
        folder.touch()
    lines: list[str] = []
    sink = logger.add(lambda line: lines.append(str(line)), level="ERROR", format="{message}")
    watch(f"dir://{folder}", freq=0.05).hears_nothing()
    logger.remove(sink)
    (line,) = lines
    assert line.startswith(f"dir://{folder} cannot be read: ")
    assert said in line
    assert "as they are" not in line, "it has no vassals"


def test_what_becomes_of_vassals_whose_folder_goes_is_said(watch: Watch, tmp_path: Path) -> None:
    folder = tmp_path / "there"
    folder.mkdir()
    (folder / "a.ini").write_text("one")
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    sink = logger.add(lambda line: lines.put(str(line)), level="ERROR", format="{message}")
    emperor = watch(folder, freq=0.05)
    assert emperor.govern() == ("a", "one")
    folder.rename(tmp_path / "elsewhere")
    assert lines.get(timeout=PATIENCE).endswith("; its vassals go on as they are\n")
    assert emperor.hears_nothing()
    logger.remove(sink)


def test_16_a_broken_file_is_refused_and_says_where(watch: Watch, tmp_path: Path) -> None:
    """16. and 17. A broken configuration is known to be so before anything that runs is touched."""
    file = tmp_path / "a.ini"
    file.write_text("broken")
    emperor = watch(tmp_path)
    refused = emperor.next()
    assert isinstance(refused, Refuse)
    assert (refused.name, refused.problems[0].file, refused.problems[0].line) == ("a", str(file), 1)
    file.write_text("mended")
    assert emperor.govern() == ("a", "mended")


def test_what_the_emperor_wants_to_know_again_is_read_again(watch: Watch, tmp_path: Path) -> None:
    """Section 4, SIGHUP: a reload reads the file again, though it has not changed."""
    file = tmp_path / "a.ini"
    file.write_text("one")
    emperor = watch(tmp_path)
    message = emperor.next()
    assert not message.vassal.disable_logging, "if-reload is no"
    message.reread()
    again = emperor.next()
    assert (again.vassal.name, again.vassal.chdir) == ("a", "one")
    assert again.vassal.disable_logging, "if-reload is yes"


def test_a_touched_file_reloads_its_vassals(watch: Watch, tmp_path: Path) -> None:
    """Section 2, touch-reload: the vassal is reloaded when the file is touched, or made."""
    touch = tmp_path / "touch"
    static = Vassal("static")
    emperor = watch(tmp_path, freq=0.05, touch_files=lambda _: {str(touch): Reload}, static=[static])
    (tmp_path / "a.ini").write_text("one")
    emperor.govern()
    assert emperor.hears_nothing()
    touch.touch()
    assert {emperor.next(), emperor.next()} == {Reload("a"), Reload("static")}
    assert emperor.hears_nothing()
    os.utime(touch, (10**9, 10**9))
    assert {emperor.next(), emperor.next()} == {Reload("a"), Reload("static")}
    touch.unlink()
    assert emperor.hears_nothing()


def test_a_static_vassals_name_is_not_taken_away(watch: Watch, tmp_path: Path) -> None:
    """13. Nor does a file take the name of a vassal that is written down elsewhere."""
    (tmp_path / "a.ini").write_text("one")
    emperor = watch(tmp_path, static=[Vassal("a")])
    assert emperor.govern() == (f"{tmp_path.name}.a", "one")


def test_a_look_may_be_asked_for(tmp_path: Path) -> None:
    """Section 4, SIGWINCH: the folder is looked at at once."""
    emperor = Emperor()
    monitor = Monitor.start(Threads(), [Blind(str(tmp_path), read)], emperor.heard.put, NEVER)
    assert emperor.hears_nothing()
    (tmp_path / "a.ini").write_text("one")
    assert emperor.hears_nothing()
    monitor.tell(Rescan())
    assert emperor.govern() == ("a", "one")
    monitor.stop()


# ---- what is no vassal file, whatever its name says -----------------------------------------------------------


def test_a_file_too_large_is_refused_unread_and_the_others_are_served(watch: Watch, tmp_path: Path) -> None:
    """Better: uWSGI's vassal would read all of it."""
    (tmp_path / "b.ini").write_text("one")
    with (tmp_path / "a.ini").open("wb") as file:
        file.truncate(1 << 40)
    emperor = Emperor()
    sources = [VassalFiles(str(tmp_path), lambda path, reloading: Vassal("b", chdir=read_small(path).decode()))]
    monitor = Monitor.start(Threads(), sources, emperor.heard.put, NEVER)
    refused = emperor.next()
    assert isinstance(refused, Refuse)
    assert "larger than 256 KiB" in str(refused.problems[0])
    assert emperor.govern() == ("b", "one")
    monitor.stop()


@pytest.mark.parametrize("kind", ["/dev/zero", "/dev/tty", "/proc/self/mem", "fifo", "socket", "folder"])
def test_what_is_no_file_is_neither_opened_nor_waited_for(watch: Watch, tmp_path: Path, kind: str) -> None:
    """Better: uWSGI takes no folder, but opens whatever else there is."""
    odd = tmp_path / "a.ini"
    match kind:
        case "fifo":
            os.mkfifo(odd)
        case "socket":
            with socket.socket(socket.AF_UNIX) as sock:
                sock.bind(str(odd))
        case "folder":
            odd.mkdir()
        case _:
            odd.symlink_to(kind)
    (tmp_path / "b.ini").write_text("one")
    emperor = watch(tmp_path)
    heard = emperor.next()
    if isinstance(heard, Refuse):  # some of /proc say that they are regular files
        heard = emperor.next()
    assert isinstance(heard, Govern)
    assert heard.vassal.name == "b"
    with pytest.raises(OSError, match=r"no regular file|larger than|Is a directory|Input/output|denied"):
        read_small(str(odd))


class Unlucky(VassalFiles):
    """A source that fails at the files called ``a`` as nobody has foreseen."""

    def _version(self, path: str) -> FileVersion | None:
        if path.endswith("a.ini"):
            raise ZeroDivisionError
        return super()._version(path)


def test_what_is_wrong_with_one_file_hides_no_other(watch: Watch, tmp_path: Path) -> None:
    for name in ("a.ini", "b.ini"):
        (tmp_path / name).write_text("one")
    emperor = watch(tmp_path, kind=Unlucky)
    assert emperor.govern() == ("b", "one")
    assert emperor.hears_nothing()


# ---- a monitor that has failed, and the one after it ----------------------------------------------------------


class Mortal(VassalFiles):
    """A source that ends its monitor when there is a file ``die``."""

    def scan(self) -> dict[str, FileVersion]:
        if os.path.exists(os.path.join(self._path, "die")):
            raise MemoryError
        return super().scan()


class Owner(Actor):
    """Passes on what it is told."""

    def __init__(self, system: Threads, emperor: Emperor) -> None:
        super().__init__(system)
        self._emperor = emperor

    def handle(self, message: Any, now: float) -> None:
        self._emperor.heard.put(message)


class Throne:
    """Has one monitor after the other watch a folder; each goes on from what the one before has left."""

    def __init__(self, folder: Path, **more: Any) -> None:
        self.emperor = Emperor()
        self.folder = folder
        self.source = Mortal(str(folder), read)
        self._owner = Owner.start(Threads(), self.emperor)
        self._more = {"register": Register(), "touch_files": touch_files, **more}
        self.engage()

    def engage(self) -> None:
        """Start another monitor."""
        (self.folder / "die").unlink(missing_ok=True)
        self._monitor = Monitor.start(
            Threads(), [self.source], self.emperor.heard.put, NEVER, owner=self._owner, **self._more
        )

    def look(self) -> None:
        """Have the monitor look."""
        self._monitor.tell(Rescan())

    def fail(self) -> None:
        """Have the monitor fail."""
        (self.folder / "die").touch()
        down = self.emperor.next()
        assert isinstance(down, Down), down
        assert isinstance(down.error, MemoryError)

    def close(self) -> None:
        self._monitor.stop()
        self._owner.stop()


def touch_files(vassal: Vassal) -> dict[str, Any]:
    """A vassal whose text is a path is reloaded when that is touched."""
    return {vassal.chdir: Reload} if vassal.chdir.startswith("/") else {}


@pytest.fixture
def throne(tmp_path: Path) -> Iterator[Throne]:
    """A folder with a, b and c, of which the Emperor has been told."""
    folder = tmp_path / "vassals"
    folder.mkdir()
    for name in "abc":
        (folder / f"{name}.ini").write_text("one")
    throne = Throne(folder)
    assert [throne.emperor.govern() for _ in "abc"] == [("a", "one"), ("b", "one"), ("c", "one")]
    yield throne
    throne.close()


def test_the_next_monitor_tells_what_has_changed_meanwhile_and_nothing_else(throne: Throne) -> None:
    throne.fail()
    (throne.folder / "b.ini").unlink()
    put(throne.folder / "c.ini", "two")
    (throne.folder / "d.ini").write_text("one")
    throne.engage()
    heard = [throne.emperor.next() for _ in range(3)]
    assert heard[0] == Dismiss("b")
    assert [(one.vassal.name, one.vassal.chdir) for one in heard[1:]] == [("c", "two"), ("d", "one")]
    assert throne.emperor.hears_nothing(), "of a, which is as it was"
    put(throne.folder / "a.ini", "two")
    assert throne.emperor.govern() == ("a", "two"), "it watches the folder itself"


def test_the_next_monitor_sees_that_a_file_was_touched_meanwhile(throne: Throne) -> None:
    throne.fail()
    os.utime(throne.folder / "a.ini")
    throne.engage()
    assert throne.emperor.govern() == ("a", "one")
    assert throne.emperor.hears_nothing()


def test_the_next_monitor_sees_that_a_vassal_was_renamed_meanwhile(throne: Throne) -> None:
    throne.fail()
    (throne.folder / "a.ini").rename(throne.folder / "z.ini")
    throne.engage()
    told = throne.emperor.next()
    assert isinstance(told, Govern)
    assert (told.vassal.name, told.formerly) == ("z", "a")
    assert throne.emperor.hears_nothing()


def test_the_next_monitor_sees_that_a_file_to_touch_was_touched_meanwhile(tmp_path: Path, throne: Throne) -> None:
    touch = tmp_path / "touch"
    touch.touch()
    put(throne.folder / "a.ini", str(touch))
    assert throne.emperor.govern() == ("a", str(touch))
    throne.fail()
    os.utime(touch, (1, 1))
    throne.engage()
    assert throne.emperor.next() == Reload("a")
    assert throne.emperor.hears_nothing()


def test_a_vassal_that_is_broken_is_not_told_of_again_until_it_is_mended(throne: Throne) -> None:
    put(throne.folder / "a.ini", "broken")
    assert isinstance(throne.emperor.next(), Refuse)
    throne.fail()
    throne.engage()
    assert throne.emperor.hears_nothing()
    put(throne.folder / "a.ini", "two")
    told = throne.emperor.next()
    assert told.vassal == Vassal("a", chdir="two", disable_logging=True), "which has run before"


def test_who_wants_a_dead_monitor_to_read_again_is_served_by_the_next(throne: Throne) -> None:
    put(throne.folder / "a.ini", "two")
    told = throne.emperor.next()
    throne.fail()
    told.reread()
    throne.engage()
    assert throne.emperor.govern() == ("a", "two")
    assert throne.emperor.hears_nothing(), "of the others"
    told.reread()
    assert throne.emperor.govern() == ("a", "two"), "who was told of the first monitor is heard by its heir"


def test_what_a_monitor_fails_at_is_left_to_the_next(tmp_path: Path) -> None:
    """It fails after the first of three: the other two are not lost."""
    for name in "abc":
        (tmp_path / f"{name}.ini").write_text("one")
    emperor, register = Emperor(), Register()
    owner = Owner.start(Threads(), emperor)

    def tell(message: Any) -> None:
        if message.vassal.name == "b":
            raise MemoryError
        emperor.heard.put(message)

    sources = [VassalFiles(str(tmp_path), read)]
    Monitor.start(Threads(), sources, tell, NEVER, register=register, owner=owner)
    assert emperor.govern() == ("a", "one")
    assert isinstance(emperor.next(), Down)
    another = Monitor.start(Threads(), sources, emperor.heard.put, NEVER, register=register)
    assert [emperor.govern(), emperor.govern()] == [("b", "one"), ("c", "one")]
    assert emperor.hears_nothing()
    another.stop()
    owner.stop()


def test_while_a_folder_cannot_be_read_the_next_monitor_dismisses_nobody(throne: Throne) -> None:
    throne.fail()
    hidden = throne.folder.rename(throne.folder.with_name("hidden"))
    throne.engage()
    assert throne.emperor.hears_nothing()
    (hidden / "b.ini").unlink()
    (hidden / "die").unlink()
    hidden.rename(throne.folder)
    throne.look()
    assert throne.emperor.next() == Dismiss("b")
    assert throne.emperor.hears_nothing()


# ---- names --------------------------------------------------------------------------------------------------


class Crowd:
    """A source of many vassals that have one name, in folders that have one name."""

    uri = "crowd://"

    def __init__(self, many: int) -> None:
        self._keys = [f"{number}/conf/b" for number in range(many)]
        self._opened = Opened()

    def scan(self) -> dict[str, int]:
        return dict.fromkeys(self._keys, 1)

    def writing(self) -> tuple[()]:
        return ()

    def read(self, key: str, *, reloading: bool) -> Vassal:
        return Vassal("b")

    def opened(self, key: str) -> Opened:
        return self._opened

    def name(self, key: str) -> str:
        return "b"

    def place(self, key: str) -> str:
        return "conf"

    def origin(self, key: str) -> Origin:
        return Origin(key)

    def watch(self, inbox: Inbox, message: object) -> None: ...

    def close(self, inbox: Inbox) -> None: ...


def test_one_of_many_takes_no_longer_than_one_of_few() -> None:
    """20 000 of them take half a second; where each is compared with all others they take half a minute."""
    many, emperor = 20_000, Emperor()
    began = time.monotonic()
    monitor = Monitor.start(Threads(), [Crowd(many)], emperor.heard.put, NEVER)
    names = {emperor.govern()[0] for _ in range(many)}
    assert time.monotonic() - began < 8
    assert len(names) == many
    assert {"b", "conf.b", "conf.b-2", f"conf.b-{many - 1}"} <= names
    monitor.stop()


def test_a_name_is_free_again_when_nobody_has_it() -> None:
    register = Register()
    for number in range(4):
        register.note(f"{number}", Ward(register.name_for(f"{number}", "b", "conf")))
    assert [ward.name for ward in register.wards.values()] == ["b", "conf.b", "conf.b-2", "conf.b-3"]
    register.strike("2")
    assert register.name_for("new", "b", "conf") == "conf.b-2"
    register.note("moved", Ward(register.name_for("moved", "b", "conf", instead_of="3")), instead_of="3")
    assert register.wards["moved"].name == "conf.b-2"
    register.note("moved", Ward("other", formerly="conf.b-2"))
    assert register.name_for("new", "b", "conf") == "conf.b-3", "it runs under the other still"
