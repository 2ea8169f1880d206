"""What signals and deaths do to an Emperor with uWSGI's files: numbered cases of docs/edge-cases.md."""

import os
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.capital import Capital, capital
from tests.support import connect, free_port, gone, read_to_end, until


@pytest.fixture(scope="module")
def emperor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Capital]:
    """An Emperor that survives its test."""
    with capital(tmp_path_factory.mktemp("capital")) as reign:
        yield reign
        assert reign.stop() == 0


@pytest.mark.parametrize("name", ["TERM", "INT", "QUIT"])
def test_30_the_end_is_graceful_and_said(tmp_path: Path, name: str) -> None:
    """30. As in uWSGI: every vassal is stopped, then "The Emperor is buried.", exit code 0. Better: it waits for
    no clock, a request in hand is finished, and no socket is left."""
    with capital(tmp_path) as reign:
        reign.start("one")
        reign.start("two")
        held, _ = reign.hold("one")
        reign.emperor.send_signal(signal.Signals[f"SIG{name}"])
        reign.said(r"- \[emperor\] stop the uwsgi instance one.ini$")
        reign.said(r"- \[emperor\] removed uwsgi instance two.ini$")
        reign.release()
        assert read_to_end(held).text == "held\n"
        held.close()
        assert reign.over() == 0
        assert reign.lines[-1].endswith(" - The Emperor is buried.")
        assert list(tmp_path.glob("*.http")) == []


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_33_it_says_how_its_vassals_are(emperor: Capital, number: int) -> None:
    """33. uWSGI: a line for each vassal; of SIGUSR2 it dies. Better: of SIGUSR2 it says the same."""
    emperor.start(f"asked-{number}")
    begun = emperor.now
    emperor.emperor.send_signal(number)
    emperor.said(rf"^vassal instance asked-{number}.ini status READY", begun)
    assert emperor.get(f"asked-{number}").status == 200


def test_33_what_has_no_meaning_does_no_harm(emperor: Capital) -> None:
    """33. SIGWINCH makes uWSGI look at once, which here file events do; SIGPIPE is nobody's end."""
    emperor.start("windy")
    for number in (signal.SIGWINCH, signal.SIGPIPE):
        emperor.emperor.send_signal(number)
    assert emperor.status("windy").state == "READY"


def test_19_sigurg_ends_every_wait(emperor: Capital) -> None:
    """19. As in uWSGI: SIGURG clears the back-off of every vassal."""
    begun = emperor.now
    exiled = emperor.write("exiled", "prio = 5\ngid = no-such-group\n")
    waiting = emperor.write("waiting", "chdir = /nowhere\n")
    emperor.said(f"vassal exiled.ini stays down: {exiled}:5: gid: there is no group no-such-group", begun)
    emperor.said("unloyal bad behaving vassal found: waiting.ini", begun)
    again = emperor.now
    emperor.emperor.send_signal(signal.SIGURG)
    emperor.said("vassal exiled.ini stays down: .*no-such-group", again)
    emperor.said("vassal waiting.ini ended: .*/nowhere", again)
    for file in (exiled, waiting):
        file.unlink()


def test_32_a_reload_of_all_is_rolling(emperor: Capital) -> None:
    """32. uWSGI: SIGHUP reloads all vassals at once. Better: two at a time; nobody is refused meanwhile."""
    names = [f"many{number}" for number in range(5)]
    for name in names:
        emperor.start(name)
    begun = emperor.now
    emperor.emperor.send_signal(signal.SIGHUP)
    for name in names:
        emperor.said(f"vassal {name} generation 2 serves now", begun)
        assert emperor.get(name).status == 200
    rising = most = 0
    for line in emperor.lines[begun:]:
        rising += ("starts beside" in line) - ("serves now" in line)
        most = max(most, rising)
    assert most == 2


def test_20_28_a_killed_master_is_replaced_and_the_dead_are_silent(emperor: Capital) -> None:
    """20. 28. uWSGI: cursed, removed, spawned, and "unrecognized vassal event" fifty times. Better: not once."""
    emperor.start("killed")
    begun = emperor.now
    (pid,) = emperor.status("killed").pids
    os.kill(pid, signal.SIGKILL)
    emperor.said(rf"- \[emperor\] curse the uwsgi instance killed.ini \(pid: {pid}\)$", begun)
    emperor.said(r"- \[emperor\] removed uwsgi instance killed.ini$", begun)
    emperor.said(r"- \[emperor\] vassal killed.ini is ready to accept requests$", begun)
    assert emperor.get("killed").status == 200
    assert emperor.count("unrecognized|Traceback", begun) == 0
    assert emperor.count("killed", begun) < 12


def test_27_a_stuck_worker_does_not_keep_the_port(emperor: Capital) -> None:
    """27. uWSGI: the worker of a killed master keeps the TCP port, and every new vassal dies of "Address already
    in use" until its request ends. Better: the Emperor has the socket; the stuck one may finish."""
    port = free_port()
    emperor.start("stuck", f"http-socket = 127.0.0.1:{port}\n")
    held, _ = emperor.hold("stuck", ("127.0.0.1", port))
    begun = emperor.now
    os.kill(emperor.status("stuck").pids[0], signal.SIGKILL)
    emperor.said("vassal stuck.ini is ready to accept requests", begun)
    assert emperor.get("stuck", address=("127.0.0.1", port)).status == 200
    emperor.release()
    assert read_to_end(held).text == "held\n"
    held.close()
    assert emperor.count("in use", begun) == 0


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user may enter."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.mark.parametrize("user", ["", "nobody"])
def test_34_35_36_a_killed_emperor_leaves_nothing_and_the_next_one_takes_over(public: Path, user: str) -> None:
    """34. 35. uWSGI: the masters die with it, or, of another user, when they notice; a busy worker lives on, and
    the socket's file is left. 36. It may hold the port when the next Emperor comes. Better: what was accepted is
    finished, within its mercy; the next Emperor takes over what is left."""
    if user and os.geteuid() != 0:
        pytest.skip("only root gives vassals another user")
    with capital(public) as reign:
        reign.start("left", f"uid = {user}\n" if user else "")
        for name in ("started", "release"):
            (public / "cgi" / name).chmod(0o666)
        held, script = reign.hold("left")
        master = reign.status("left").pids[0]
        reign.emperor.kill()
        reign.emperor.wait()
        reign.release()
        assert read_to_end(held).text == "held\n"
        held.close()
        assert gone(script)
        assert gone(master)
        assert reign.over() == -signal.SIGKILL
    with capital(public) as next_one:
        next_one.said("vassal left.ini is ready")
        assert next_one.get("left").status == 200
        assert next_one.stop() == 0


def test_49_a_vassal_that_ends_while_it_is_spoken_to(emperor: Capital) -> None:
    """49. uWSGI: "emperor_respawn/write(): Broken pipe", and it is cursed. Better: its end is seen, and nothing
    else; what was asked of it is done by the next."""
    file = emperor.start("gone")
    begun = emperor.now
    (pid,) = emperor.status("gone").pids
    os.kill(pid, signal.SIGKILL)
    os.utime(file)
    emperor.said("vassal gone( generation 2 serves now|.ini is ready to accept requests)", begun)
    until(emperor.folder, lambda: emperor.status("gone").state == "READY")
    assert emperor.get("gone").status == 200
    assert emperor.count("Broken pipe|Traceback", begun) == 0


def test_50_who_asks_and_does_not_read_delays_nobody(emperor: Capital) -> None:
    """50. uWSGI: a client of the stats socket that does not read blocks the Emperor for 4 s. Better: never."""
    emperor.start("prompt")
    silent = [connect(emperor.folder / "control") for _ in range(5)]
    for sock in silent[1:]:
        sock.sendall(b'{"command":"status","version":1}')  # no end of the line, and nobody who reads
    begun = emperor.now
    emperor.start("prompt-too")
    assert emperor.get("prompt").status == 200
    assert emperor.status("prompt").state == "READY"
    assert emperor.count("Traceback", begun) == 0
    for sock in silent:
        sock.close()
