"""An end that tells the truth: what broke off is seen to have broken off, and what is whole is not given up.

On both sides: no client takes half a response for a whole one, no script half a body, and nobody who has gone
holds a core.
"""

import contextlib
import os
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import (
    PYTHON,
    Server,
    Site,
    connect,
    gone,
    http_request,
    packet,
    pids,
    read_to_end,
    serving,
    timed,
)

HELLO = "printf 'Content-Type: text/plain\\n\\nhello'"
BOTH = pytest.mark.parametrize("wire", ["uwsgi", "http"])

_VASSALS = """
[[vassal]]
name = "hasty"
socket = "hasty.sock"
http-socket = "127.0.0.1:${port}"
cgi = "/cgi-bin=cgi"
cgi-timeout = 0.6
threads = 2
[[vassal]]
name = "patient"
socket = "patient.sock"
cgi = "/cgi-bin=cgi"
threads = 2
cgi-timeout = 60
cgi-do-not-kill-on-error = true
[[vassal]]
name = "bounded"
socket = "bounded.sock"
cgi = "/cgi-bin=cgi"
cgi-timeout = 60
cgi-total-timeout = 0.8
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("truth")
    (folder / "cgi").mkdir()
    with serving(folder, _VASSALS) as server:
        yield server


def _site(server: Server, name: str) -> Site:
    return Site(server, server.folder / "cgi", server.folder / f"{name}.sock")


@pytest.fixture
def hasty(server: Server) -> Site:
    """Nobody may be silent for more than 0.6 s."""
    return _site(server, "hasty")


@pytest.fixture
def patient(server: Server) -> Site:
    """Scripts may finish without their client."""
    return _site(server, "patient")


@pytest.fixture
def bounded(server: Server) -> Site:
    """All must be over after 0.8 s."""
    return _site(server, "bounded")


# ---- the response ---------------------------------------------------------------------------------------


@BOTH
def test_a_response_beside_an_unfinished_body_that_breaks_off_is_cut(hasty: Site, wire: str) -> None:
    """A unix socket breaks only over unread bytes: there, nothing may be sent before the last ones are here."""
    script = f"exec <&-; sleep 0.1; {HELLO}; head -c 300000 /dev/zero; sleep 0.1; kill -9 $$"
    path = hasty.script("closes.cgi", script)
    head = {
        "uwsgi": packet(path, method="POST", length=1000),
        "http": http_request(path, method="POST", Content_Length="1000"),
    }[wire]
    with connect(hasty.address(wire)) as sock:
        sock.sendall(head + b"half")
        answer = read_to_end(sock)
    assert answer.cut or answer.status >= 400


def test_a_script_that_does_not_listen_is_heard_when_the_body_is_here(hasty: Site) -> None:
    path = hasty.script("deaf.cgi", f"exec <&-; {HELLO}; head -c 300000 /dev/zero; sleep 0.2; echo end")
    answer = hasty.uwsgi(path, bytes(3_000_000))
    assert (len(answer.body), answer.cut) == (300_009, False)


@BOTH
def test_who_pauses_too_long_sees_the_response_break(hasty: Site, wire: str) -> None:
    path = hasty.script(f"pauses-{wire}.cgi", f"{HELLO}; exec head -c 30000000 /dev/zero")
    request = packet(path) if wire == "uwsgi" else http_request(path)
    with connect(hasty.address(wire)) as sock:
        sock.sendall(request)
        assert "took nothing for 0.6 s" in hasty.logged(path)["problem"]
        assert read_to_end(sock).cut


@BOTH
def test_a_worker_that_is_killed_cuts_what_it_sends(server: Server, hasty: Site, wire: str) -> None:
    seen = len(server.log)
    path = hasty.script(f"dies-{wire}.cgi", f"echo victim-{wire} $$ >&2; sleep 0.1; {HELLO}; sleep 0.3; {HELLO}")
    request = packet(path) if wire == "uwsgi" else http_request(path)
    with connect(hasty.address(wire)) as sock:
        sock.sendall(request)
        assert b"hello" in sock.recv(1 << 16)
        os.kill(server.workers("hasty")[-1], signal.SIGKILL)
        assert read_to_end(sock).cut
    server.wait_for(since=seen, vassal="hasty", state="READY", actor=lambda name: name.startswith("worker:"))


def test_a_signal_without_a_name_is_an_end_like_any(hasty: Site) -> None:
    path = hasty.script("realtime.cgi", f"{HELLO}; kill -40 $$")
    answer = hasty.uwsgi(path)
    assert answer.cut or answer.status == 502  # more than 2 ms after its start it is heard at once
    assert "SIGRTMIN+6" in hasty.logged(path)["problem"]


# ---- the body -------------------------------------------------------------------------------------------


def test_a_body_that_stays_away_does_not_end_like_a_whole_one(hasty: Site) -> None:
    """Not even for a script that cleans up: to it, an end of its input would be that of the body."""
    path = hasty.script("cleans.cgi", "trap 'echo asked $? >&2' TERM; cat >/dev/null; echo status $? >&2")
    seen = len(hasty.server.log)
    with connect(hasty.socket) as sock:
        sock.sendall(packet(path, method="POST", length=1000) + b"half")
        assert read_to_end(sock).status == 408
    record = hasty.server.wait_for(since=seen, event="stderr", message=lambda text: "status " in text)
    assert record["message"].endswith(f"status {128 + signal.SIGTERM}")


READS_ON = PYTHON + """
import os, sys
print("Content-Type: text/plain\\n\\nhello", flush=True)
os.close(1)
print("took", sum(map(len, iter(lambda: os.read(0, 4096), b""))), file=sys.stderr)
"""


def test_a_script_that_has_said_all_still_gets_the_whole_body(patient: Site) -> None:
    path = patient.script("reads-on.cgi", READS_ON)
    with connect(patient.socket) as sock:
        sock.sendall(packet(path, method="POST", length=300_000) + bytes(100_000))
        # Another request, so that time goes by: more than a script has that only has to exit.
        assert patient.uwsgi(patient.script("nap.cgi", f"sleep 0.3; {HELLO}")).text == "hello"
        sock.sendall(bytes(200_000))
        answer, seconds = timed(lambda: read_to_end(sock))
    assert (answer.status, answer.text.strip(), answer.cut) == (200, "hello", False)
    assert seconds < 3
    assert pids(patient, "took") == [300_000]


# ---- redirects ------------------------------------------------------------------------------------------


def test_a_redirect_waits_for_its_script(patient: Site) -> None:
    target = patient.script("target.cgi", HELLO)
    script = f"printf 'Location: {target}\\n\\n'; exec >&-; sleep 0.4; echo ended $$ >&2"
    path = patient.script("lingers.cgi", script)
    answer = patient.uwsgi(path)
    assert (answer.status, answer.text) == (200, "hello")
    assert pids(patient, "ended")


def test_a_client_that_leaves_the_second_script_is_a_499(hasty: Site) -> None:
    target = hasty.script("slow-target.cgi", "echo second $$ >&2; sleep 9")
    path = hasty.script("to-slow.cgi", f"printf 'Location: {target}\\n\\n'")
    with connect(hasty.socket) as sock:
        sock.sendall(packet(path))
        pids(hasty, "second")
    assert hasty.logged(path)["status"] == 499


def test_a_client_that_was_sent_nothing_is_a_499(hasty: Site) -> None:
    """Also where the script had said how its response begins: a redirect that was to be followed."""
    path = hasty.script("stays.cgi", "echo stays $$ >&2; printf 'Location: /cgi-bin/x\\n\\n'; sleep 0.5")
    with connect(hasty.socket) as sock:
        sock.sendall(packet(path))
        pids(hasty, "stays")
        hasty.uwsgi(hasty.script("pause.cgi", f"sleep 0.1; {HELLO}"))
    assert hasty.logged(path)["status"] == 499


def test_a_descendant_that_holds_stdout_does_not_hold_a_redirect(patient: Site) -> None:
    """Whatever it may say, nothing of it would be sent."""
    target = patient.script("target.cgi", HELLO)
    path = patient.script("parent.cgi", f"sleep 30 & echo heir $! >&2; printf 'Location: {target}\\n\\n'")
    answer, seconds = timed(lambda: patient.uwsgi(path))
    assert (answer.status, answer.text) == (200, "hello")
    assert seconds < 1
    os.kill(pids(patient, "heir")[0], signal.SIGKILL)


def test_a_client_that_left_behind_a_whole_body_has_sent_it(server: Server, patient: Site) -> None:
    """cgi-do-not-kill-on-error: its end comes together with the rest of the body, which is not lost."""
    path = patient.script("takes.cgi", "echo takes $$ >&2; wc -c >&2; echo took it >&2")
    (worker,) = server.workers("patient")
    with connect(patient.socket) as sock:
        sock.sendall(packet(path, method="POST", length=1000) + bytes(500))
        (script,) = pids(patient, "takes")
        os.kill(worker, signal.SIGSTOP)
        sock.sendall(bytes(500))
    os.kill(worker, signal.SIGCONT)
    assert gone(script)
    server.wait_for(event="stderr", message=lambda text: text.endswith("took it"))
    record = patient.logged(path)
    assert (record["status"], record["exit"]) == (499, 0)


def test_a_body_in_chunks_that_breaks_off_has_a_name_in_the_log(hasty: Site) -> None:
    path = hasty.script("chunks.cgi", HELLO)
    with connect(hasty.address("http")) as sock:
        sock.sendall(http_request(path, method="POST", Transfer_Encoding="chunked") + b"5\r\nhal")
        sock.shutdown(socket.SHUT_WR)
        assert read_to_end(sock).status == 400
    assert hasty.logged(path)["problem"] == "the connection ended inside the request"


# ---- a client that has said all -------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("sends", ["nothing", "a body", "a slow body", "chunks"])
def test_a_client_that_ends_its_side_behind_its_request_is_answered(hasty: Site, wire: str, sends: str) -> None:
    """It may well read on: `printf ... | nc -N` does. Nobody can know before the answer is there."""
    path = hasty.script("count.cgi", "sleep 0.2; printf 'Content-Type: text/plain\\n\\n'; exec wc -c")
    size = 0 if sends == "nothing" else 100_000
    body = bytes(size)
    uwsgi: dict[str, Any]
    http: dict[str, Any]
    if sends == "chunks":
        body = b"%x\r\n%b\r\n0\r\n\r\n" % (size, body)
        uwsgi, http = {"HTTP_TRANSFER_ENCODING": "chunked"}, {"Transfer_Encoding": "chunked"}
    else:
        uwsgi, http = {"CONTENT_LENGTH": str(size)}, {"Content_Length": str(size)}
    head = {
        "uwsgi": packet(path, method="POST", **uwsgi),
        "http": http_request(path, method="POST", **http),
    }[wire]
    with connect(hasty.address(wire)) as sock:
        sock.sendall(head + body[:20])
        if sends == "a slow body":  # the script runs, and has been seen to run
            hasty.uwsgi(hasty.script("pause.cgi", f"sleep 0.1; {HELLO}"))
        sock.sendall(body[20:])
        sock.shutdown(socket.SHUT_WR)
        answer = read_to_end(sock)
    assert (answer.status, answer.cut) == (200, False)
    assert int(answer.text) == size


# ---- who holds a core -----------------------------------------------------------------------------------


def test_a_script_finishes_a_large_response_that_nobody_takes(patient: Site) -> None:
    path = patient.script("pays.cgi", f"{HELLO}; head -c 30000000 /dev/zero; echo paid $$ >&2")
    with connect(patient.socket) as sock:
        sock.sendall(packet(path))
        came = 0
        while came < 1 << 20:
            came += len(sock.recv(1 << 16))
        # It takes nothing more now: the script stands still.
        assert patient.uwsgi(patient.script("pause.cgi", f"sleep 0.3; {HELLO}")).text == "hello"
    assert gone(pids(patient, "paid")[0])
    assert "the client left" in patient.logged(path)["problem"]


CHATTER = "(trap '' PIPE; while sleep 0.1; do echo more || exit; done) & exit"


def test_a_descendant_that_talks_for_ever_has_no_more_time_than_its_script(bounded: Site) -> None:
    path = bounded.script("heir.cgi", f"{HELLO}; {CHATTER}")
    answer, seconds = timed(lambda: bounded.uwsgi(path))
    assert answer.cut
    assert 0.8 <= seconds < 3
    assert "did not end within 0.8 s" in bounded.logged(path)["problem"]


def test_a_descendant_that_nobody_hears_holds_no_core(patient: Site) -> None:
    path = patient.script("whole.cgi", f"printf 'Content-Length: 5\\n\\nhello'; {CHATTER}")
    assert patient.uwsgi(path).text == "hello"
    assert patient.logged(path)["status"] == 200


@pytest.mark.parametrize(
    ("method", "problem"),
    [("HEAD", "still ran 0.6 s after its answer"), ("GET", "more than its Content-Length")],
)
def test_a_script_that_talks_to_nobody_for_ever_holds_no_core(hasty: Site, method: str, problem: str) -> None:
    """Its client has all that there is for it: what comes now is no sign of progress."""
    head = "Content-Type: text/plain\\n" + ("Content-Length: 5\\n" if method == "GET" else "")
    path = hasty.script(
        f"on-{method}.cgi", f"echo {method} $$ >&2; printf '{head}\\nhello'; while echo more; do sleep 0.05; done"
    )
    assert hasty.uwsgi(path, method=method).status == 200
    assert gone(pids(hasty, method)[0])
    assert problem in hasty.logged(path)["problem"]


# ---- without descriptors --------------------------------------------------------------------------------


def test_a_script_whose_end_cannot_be_watched_is_served(server: Server, patient: Site, tmp_path: Path) -> None:
    """No descriptor is left for its pidfd: then it is looked after by the clock."""
    worker = server.workers("patient")[-1]
    for name in ("started", "end"):
        os.mkfifo(tmp_path / name)
    path = patient.script(
        "unwatched.cgi", f"{HELLO}; echo $$ >{tmp_path}/started; exec >&-; read x <{tmp_path}/end; exit 3"
    )
    limit = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    in_time = False
    for number in range(20):  # the limit has to be there before the script has run for 50 ms
        with connect(patient.socket) as sock:
            sock.sendall(packet(f"{path}?{number}"))
            script = int((tmp_path / "started").read_text())
            resource.prlimit(worker, resource.RLIMIT_NOFILE, (3, limit[1]))
            try:
                in_time = not _has_pidfd(worker)
                assert read_to_end(sock).text == "hello"
                (tmp_path / "end").write_text("go\n")
                assert gone(script)
                assert patient.logged(f"{path}?{number}")["exit"] == 3
            finally:
                resource.prlimit(worker, resource.RLIMIT_NOFILE, limit)
        if in_time:
            break
    assert in_time
    assert server.workers("patient")[-1] == worker


def _has_pidfd(pid: int) -> bool:
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # it was closed just now
            found.append(os.readlink(entry))
    return "anon_inode:[pidfd]" in found
