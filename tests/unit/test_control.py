"""The control socket: what is asked and answered, by a real actor over a real socket, and who cannot harm it."""

import contextlib
import json
import os
import pwd
import re
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pykka
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loguru import logger

from pyemperor.actors import reception
from pyemperor.actors.actor import Actor, Threads
from pyemperor.actors.administration import Absolve, Outcome, Reload, Status, Stop, VassalStatus
from pyemperor.actors.control import MOST, Control
from pyemperor.cli import control as client
from pyemperor.cli import control_socket as module
from pyemperor.cli.control import Unreachable, ask, command
from pyemperor.cli.control_socket import control_socket, default_paths, running
from pyemperor.cli.identity import identity_of
from pyemperor.protocol import control
from pyemperor.protocol.control import AttendantReport
from pyemperor.protocol.errors import ConfigError, LinkError
from pyemperor.protocol.options import EmperorOptions
from tests.support import PATIENCE

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
SHOP = VassalStatus("shop", "STABLE", 3, (4711, 4713), 1, ready=2, requests=9, loyal=True)
WIKI = VassalStatus("wiki", "CURSED", 1, (), 6, reason="next start in 57.0 s", refused="wiki.ini:3: no socket")


class Throne(Actor):
    """Whoever sits there answers as the Emperor does, and keeps what it was told; ``held`` wait for theirs."""

    def __init__(self, system: Threads) -> None:
        super().__init__(system)
        self.told: list[Any] = []
        self.statuses = [SHOP, WIKI]
        self.hold = False
        self.held = threading.Semaphore(0)

    def handle(self, message: Any, now: float) -> Any:
        self.told.append(message)
        match message:
            case Status():
                return self.statuses
            case Reload(name="wiki", answer=answer) if answer:
                answer([Outcome("wiki", False, "wiki.ini:3: no socket")])
            case (Reload() | Stop() | Absolve()) if self.hold:
                self.held.release()
            case (Reload(name=name, answer=answer) | Stop(name=name, answer=answer)) if answer:
                answer([Outcome(name, True)] if name else [Outcome("shop", True), Outcome("wiki", True)])
            case Absolve(name=name, answer=answer) if answer:
                answer([Outcome(name, True, "it starts")])
        return None


class Palace:
    """An Emperor's throne, its ear, and the socket of it."""

    def __init__(self, folder: Path) -> None:
        self.path = str(folder / "emperor.pyemperor.sock")
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.bind(self.path)
        self.sock.listen(256)
        throne = Throne.start(Threads())
        self.throne = throne
        self.emperor: Any = throne._actor_weakref()
        self.ear = Control.start(Threads(), throne, self.sock)

    def connect(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX)
        sock.settimeout(PATIENCE)
        sock.connect(self.path)
        return sock

    def says(self, data: bytes) -> control.Answer:
        with self.connect() as sock:
            sock.sendall(data)
            return control.decode_answer(to_end(sock))


def to_end(sock: socket.socket) -> bytes:
    data = b""
    try:
        while part := sock.recv(65536):
            data += part
    except ConnectionResetError:
        pass
    return data


@pytest.fixture
def palace() -> Iterator[Palace]:
    """In a folder that others may look into; those of pytest are its user's alone."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        palace = Palace(Path(folder))
        yield palace
        pykka.ActorRegistry.stop_all(timeout=PATIENCE)
        palace.sock.close()


# ---- what is asked and answered -----------------------------------------------------------------------------


def test_status_of_all_and_of_one(palace: Palace) -> None:
    answer = ask(control.Status(), palace.path)
    assert isinstance(answer, control.Statuses)
    assert answer.pid == os.getpid()
    assert [asdict(one) for one in (SHOP, WIKI)] == [
        {name: getattr(one, name) for name in one.__struct_fields__} for one in answer.vassals
    ]
    one = ask(control.Status(name="wiki"), palace.path)
    assert isinstance(one, control.Statuses)
    assert [vassal.name for vassal in one.vassals] == ["wiki"]


def test_an_unknown_vassal_is_named_and_the_one_that_was_meant(palace: Palace) -> None:
    for request in (control.Status(name="ship"), control.Reload(name="ship"), control.Stop(name="ship"),
                    control.Absolve(name="ship")):  # fmt: skip
        answer = ask(request, palace.path)
        assert isinstance(answer, control.Refusal)
        assert answer.problem == "there is no vassal ship"
        assert "shop" in answer.remedy
    assert all(isinstance(message, Status) for message in palace.emperor.told)


def test_reload_waits_only_if_asked_to(palace: Palace) -> None:
    assert ask(control.Reload(name="wiki"), palace.path) == control.Begun(("wiki",))
    assert ask(control.Reload(), palace.path) == control.Begun(("shop", "wiki"))
    assert ask(control.Reload(name="wiki", wait=True), palace.path) == control.Outcomes(
        (control.Done("wiki", False, "wiki.ini:3: no socket"),)
    )
    assert [message for message in palace.emperor.told if not isinstance(message, Status)] == [
        Reload("wiki"), Reload(None), Reload("wiki"),
    ]  # fmt: skip


def test_stop_and_absolve(palace: Palace) -> None:
    assert ask(control.Stop(name="shop"), palace.path) == control.Outcomes((control.Done("shop", True),))
    assert ask(control.Absolve(name="wiki"), palace.path) == control.Outcomes(
        (control.Done("wiki", True, "it starts"),)
    )


def test_whoever_stops_everything_hears_the_end(palace: Palace) -> None:
    with palace.connect() as sock:
        sock.sendall(control.encode(control.Stop()))
        line = sock.makefile("rb").readline()
        assert control.decode_answer(line) == control.Outcomes(
            (control.Done("shop", True), control.Done("wiki", True))
        )
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recv(1)
        sock.settimeout(PATIENCE)
        palace.ear.stop()
        assert sock.recv(1) == b""


def test_a_name_that_is_no_utf_8_is_said_as_in_the_log_and_understood(
    palace: Palace, capsys: pytest.CaptureFixture[str]
) -> None:
    cafe = os.fsdecode(b"caf\xe9")
    palace.emperor.statuses = [replace(SHOP, name=cafe, reason=f"{cafe}.ini: no socket")]
    answer = ask(control.Status(), palace.path)
    assert isinstance(answer, control.Statuses)
    assert (answer.vassals[0].name, answer.vassals[0].reason) == ("caf\\udce9", "caf\\udce9.ini: no socket")
    for name in (cafe, "caf\\udce9"):
        assert command(control.Status(name=name), palace.path, json=False) == 0
        assert ask(control.Reload(name=name), palace.path) == control.Begun(("caf\\udce9",))
        assert ask(control.Stop(name=name), palace.path) == control.Outcomes((control.Done("caf\\udce9", True),))
        assert isinstance(ask(control.Absolve(name=name), palace.path), control.Outcomes)
    asked_for = [message.name for message in palace.emperor.told if not isinstance(message, Status)]
    assert asked_for == [cafe] * 6
    assert "caf\\udce9" in capsys.readouterr().out


def test_an_ear_that_fails_keeps_nobody_waiting_and_tells_its_owner(palace: Palace) -> None:
    with palace.connect() as sock:
        sock.sendall(control.encode(control.Stop()))
        sock.makefile("rb").readline()
        palace.emperor.statuses = [None]
        with palace.connect() as another:
            another.sendall(control.encode(control.Status()))
            assert to_end(another) == b""
        assert to_end(sock) == b""
    with palace.connect() as waiting:
        waiting.sendall(control.encode(control.Status()))
        palace.emperor.statuses = [WIKI]
        Control.start(Threads(), palace.throne, palace.sock, owner=palace.throne)
        assert b"CURSED" in to_end(waiting)


def test_an_emperor_that_is_gone_is_said(palace: Palace) -> None:
    palace.throne.stop()
    answer = ask(control.Status(), palace.path)
    assert answer == control.Refusal("the Emperor is ending")


# ---- who cannot harm it -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        (b"garbage\n", "not a line of the control protocol"),
        (b"\xff\xfe\x00\n", "not a line of the control protocol"),
        (b'{"command":"format-disk"}\n', "format-disk"),
        (b'{"command":"status","nmae":"shop"}\n', "nmae"),
        (b'{"command":"absolve"}\n', "name"),
        (b'{"command":"status","version":2,"new":true}\n', "speaks version 1 of the control protocol, not 2"),
        (b"[" * 60000 + b"\n", "not a line of the control protocol"),
        (b"x" * (control.MAX_REQUEST + 100), f"at most {control.MAX_REQUEST} bytes"),
    ],
)
def test_garbage_is_refused_in_words(palace: Palace, line: bytes, problem: str) -> None:
    answer = palace.says(line)
    assert isinstance(answer, control.Refusal)
    assert problem in answer.problem
    assert palace.emperor.told == []
    assert isinstance(ask(control.Status(), palace.path), control.Statuses)


def test_who_says_nothing_or_half_of_it_loses_the_connection(
    palace: Palace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reception, "_DEADLINE", 0.1)
    with palace.connect() as silent, palace.connect() as slow:
        slow.sendall(b'{"command":')
        assert silent.recv(1) == b""
        assert slow.recv(1) == b""


def test_too_many_are_refused_and_the_places_come_back(palace: Palace) -> None:
    palace.emperor.hold = True
    waiting = [palace.connect() for _ in range(MOST)]
    for sock in waiting:
        sock.sendall(control.encode(control.Stop(name="shop")))
    for _ in waiting:
        assert palace.emperor.held.acquire(timeout=PATIENCE)
    answer = ask(control.Status(), palace.path)
    assert isinstance(answer, control.Refusal)
    assert "others are being served" in answer.problem
    for sock in waiting:
        sock.close()
    # The next ones wait behind the ends of those.
    assert isinstance(ask(control.Status(), palace.path), control.Statuses)


def test_a_client_that_goes_while_it_waits_is_forgotten_and_its_order_stands(palace: Palace) -> None:
    palace.emperor.hold = True
    with palace.connect() as sock:
        sock.sendall(control.encode(control.Reload(name="shop", wait=True)))
    assert palace.emperor.held.acquire(timeout=PATIENCE)
    assert Reload("shop") in palace.emperor.told
    assert isinstance(ask(control.Status(), palace.path), control.Statuses)


def test_a_client_that_only_ends_its_sending_gets_its_answer(palace: Palace) -> None:
    with palace.connect() as sock:
        sock.sendall(control.encode(control.Status()))
        sock.shutdown(socket.SHUT_WR)
        assert isinstance(control.decode_answer(to_end(sock)), control.Statuses)


@as_root
def test_only_root_and_the_emperors_own_user_may_ask(palace: Palace) -> None:
    os.chmod(palace.path, 0o666)
    program = (
        "import os, socket, sys\n"
        "sock = socket.socket(socket.AF_UNIX); sock.connect(sys.argv[1])\n"  # the credentials of this moment count
        "print(sock.recv(1000).decode())\n"
    )
    told = subprocess.run(
        ["/usr/bin/python3", "-c", program, palace.path],
        capture_output=True, text=True, user="nobody", timeout=PATIENCE,
    )  # fmt: skip
    assert "only root and the Emperor's own user may ask" in told.stdout, told.stderr
    assert palace.emperor.told == []


# ---- what is said -------------------------------------------------------------------------------------------

NAMES = st.text(min_size=1)
REQUESTS = st.one_of(
    st.builds(control.Status, name=st.none() | NAMES),
    st.builds(control.Reload, name=st.none() | NAMES, wait=st.booleans()),
    st.builds(control.Stop, name=st.none() | NAMES),
    st.builds(control.Absolve, name=NAMES),
)


@settings(deadline=None, max_examples=200)
@given(REQUESTS)
def test_a_request_is_one_line_and_means_the_same_at_the_other_end(request: control.Request) -> None:
    line = control.encode(request)
    assert line.count(b"\n") == 1
    assert control.decode_request(line) == request


_KEYS = st.sampled_from(["command", "name", "version", "wait"]) | st.text()
_PLAIN = st.none() | st.integers() | st.text()


@settings(deadline=None, max_examples=200)
@given(st.binary() | st.dictionaries(_KEYS, _PLAIN | st.lists(_PLAIN) | st.dictionaries(_KEYS, _PLAIN)).map(
       lambda value: json.dumps(value).encode()))  # fmt: skip
def test_whatever_comes_is_a_request_or_an_error_of_ours(data: bytes) -> None:
    for decode in (control.decode_request, control.decode_answer):
        with contextlib.suppress(LinkError):
            decode(data)


# ---- the command --------------------------------------------------------------------------------------------


def test_a_table_for_people(palace: Palace, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(control.Status(), palace.path, json=False) == 0
    assert capsys.readouterr().out == (
        f"Emperor {os.getpid()}\n"
        "VASSAL  STATE   GEN  PID        WORKERS  REQUESTS  RESTARTS\n"
        "shop    STABLE  3    4711 4713  2        9         1\n"
        "wiki    CURSED  1    -          0        0         6         next start in 57.0 s "
        "[newest configuration refused: wiki.ini:3: no socket]\n"
    )


DAEMON = AttendantReport("daemon/1", "STABLE", 4720)
CRON = AttendantReport("cron/2", "BACKOFF", 0, "next start in 0.1 s", restarts=3)


def test_attendants_stand_below_their_vassal(palace: Palace, capsys: pytest.CaptureFixture[str]) -> None:
    palace.emperor.statuses = [replace(SHOP, attendants=(DAEMON, CRON)), WIKI]
    assert command(control.Status(name="shop"), palace.path, json=False) == 0
    assert capsys.readouterr().out == (
        f"Emperor {os.getpid()}\n"
        "VASSAL         STATE    GEN  PID        WORKERS  REQUESTS  RESTARTS\n"
        "shop           STABLE   3    4711 4713  2        9         1\n"
        "shop/daemon/1  STABLE   -    4720       -        -         0\n"
        "shop/cron/2    BACKOFF  -    -          -        -         3         next start in 0.1 s\n"
    )


def test_attendants_in_json(palace: Palace, capsys: pytest.CaptureFixture[str]) -> None:
    palace.emperor.statuses = [replace(SHOP, attendants=(DAEMON, CRON)), WIKI]
    assert command(control.Status(), palace.path, json=True) == 0
    shop, wiki = json.loads(capsys.readouterr().out)["vassals"]
    assert shop["attendants"] == [
        {"name": "daemon/1", "state": "STABLE", "pid": 4720, "reason": "", "restarts": 0},
        {"name": "cron/2", "state": "BACKOFF", "pid": 0, "reason": "next start in 0.1 s", "restarts": 3},
    ]
    assert wiki["attendants"] == []


def test_outcomes_for_people_and_the_exit_code(palace: Palace, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(control.Reload(name="wiki", wait=True), palace.path, json=False) == 1
    assert command(control.Reload(name="shop", wait=True), palace.path, json=False) == 0
    assert command(control.Reload(name="shop"), palace.path, json=False) == 0
    assert command(control.Absolve(name="wiki"), palace.path, json=False) == 0
    assert capsys.readouterr().out == (
        "wiki: not reloaded: wiki.ini:3: no socket\n"
        "shop: reloaded\n"
        "shop: reloading; its log says how it went\n"
        "wiki: absolved: it starts\n"
    )
    assert command(control.Absolve(name="ship"), palace.path, json=False) == 1
    assert re.match(r"pyemperor: there is no vassal ship \(.*shop", capsys.readouterr().err)


def test_json(palace: Palace, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(control.Status(name="shop"), palace.path, json=True) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["answer"], told["pid"], told["vassals"][0]["state"]) == ("status", os.getpid(), "STABLE")
    assert command(control.Status(), "/nowhere/sock", json=True) == 2
    assert json.loads(capsys.readouterr().out)["answer"] == "error"


def test_the_socket_is_found_and_named_when_it_is_not(tmp_path: Path, palace: Palace) -> None:
    assert palace.path in running()
    with pytest.raises(Unreachable, match=r"no such socket, so no Emperor; if .* another, name it with --socket"):
        ask(control.Status(), str(tmp_path / "other.sock"))
    palace.sock.close()
    pykka.ActorRegistry.stop_all(timeout=PATIENCE)
    with pytest.raises(Unreachable, match="nobody listens there: the Emperor is gone"):
        ask(control.Status(), palace.path)
    assert palace.path not in running()


def test_an_emperor_that_is_stopped_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_PATIENCE", 0.1)
    with socket.socket(socket.AF_UNIX) as stopped:
        stopped.bind(str(tmp_path / "sock"))
        stopped.listen(1)
        with pytest.raises(Unreachable, match="does not answer: is it stopped"):
            ask(control.Status(), str(tmp_path / "sock"))


def test_the_command_line(palace: Palace) -> None:
    def pyemperor(*words: str) -> "subprocess.CompletedProcess[str]":
        script = Path(sys.executable).with_name("pyemperor")
        return subprocess.run([script, *words], capture_output=True, text=True, timeout=PATIENCE)

    good = pyemperor("status", "wiki", "--socket", palace.path)
    assert (good.returncode, good.stderr) == (0, "")
    assert "CURSED" in good.stdout
    refused = pyemperor("reload", "--wait", "wiki", "--json", "--socket", palace.path)
    assert refused.returncode == 1
    assert json.loads(refused.stdout)["outcomes"][0]["reason"] == "wiki.ini:3: no socket"
    missing = pyemperor("stop", "--socket", "/nowhere/control.sock")
    assert missing.returncode == 2
    assert missing.stderr.startswith("pyemperor: /nowhere/control.sock: there is no such socket")


# ---- where the socket is ------------------------------------------------------------------------------------


def test_it_is_made_for_its_owner_alone_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "run" / "mine.sock"
    with control_socket(EmperorOptions(control_socket=str(path)), None) as sock:
        assert sock is not None
        assert path.stat().st_mode & 0o7777 == 0o600
        with (
            pytest.raises(ConfigError, match="another server listens there"),
            control_socket(EmperorOptions(control_socket=str(path)), None),
        ):
            pytest.fail("two Emperors had the same socket")
    assert not path.exists()


@as_root
def test_it_belongs_to_whom_the_emperor_becomes() -> None:
    nobody = pwd.getpwnam("nobody")
    with tempfile.TemporaryDirectory() as folder:
        pidfile = f"{folder}/run/emperor.pid"
        with control_socket(EmperorOptions(emperor_pidfile=pidfile), identity_of("nobody", "")) as sock:
            assert sock is not None
            found = os.stat(f"{folder}/run/emperor.pyemperor.sock")
            assert (found.st_uid, found.st_gid) == (nobody.pw_uid, nobody.pw_gid)
            assert os.stat(f"{folder}/run").st_uid == nobody.pw_uid


def test_a_usual_place_that_is_taken_is_a_warning_and_no_end(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(module, "default_paths", lambda _: [str(tmp_path / "control.sock")])
    said: list[str] = []
    sink = logger.add(lambda line: said.append(str(line)), level="WARNING", format="{message}")
    with control_socket(EmperorOptions(), None) as first, control_socket(EmperorOptions(), None) as second:
        assert first is not None
        assert second is None
    logger.remove(sink)
    assert said == [
        f"nobody can ask this Emperor: cannot listen at {tmp_path}/control.sock: another server listens there "
        "(give it a place of its own: control-socket = PATH, or none)\n"
    ]


def test_there_may_be_none_and_the_usual_places(monkeypatch: pytest.MonkeyPatch) -> None:
    with control_socket(EmperorOptions(control_socket="/etc/none"), None) as sock:
        assert sock is None
    beside = default_paths(EmperorOptions(pidfile="/run/x/emperor.pid"))
    assert beside[0] == "/run/x/emperor.pyemperor.sock"
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert default_paths(EmperorOptions()) == ["/run/user/1000/pyemperor/control.sock"]
