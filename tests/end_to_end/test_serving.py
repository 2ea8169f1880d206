"""A running server and its clients: time limits, clients that leave or dawdle, bad packets, nothing left."""

import os
import re
import resource
import signal
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from pyemperor.actors.linux import living_descendants, zombies
from pyemperor.protocol.uwsgi import PONG
from tests.support import (
    PYTHON,
    Answer,
    Server,
    Site,
    connect,
    converse,
    gone,
    http_request,
    packet,
    pids,
    read_to_end,
    serving,
    timed,
    variables,
)

BOTH = pytest.mark.parametrize("wire", ["uwsgi", "http"])
HELLO = "printf 'Content-Type: text/plain\\n\\nhello'"

_HASTY = """
[[vassal]]
name = "hasty"
socket = "hasty.sock"
http-socket = "127.0.0.1:${port}"
cgi = "/cgi-bin=cgi"
cgi-timeout = 0.5
cgi-new-session = false
socket-timeout = 0.5
buffer-size = 4096
threads = 2
[[vassal]]
name = "options"
socket = "options.sock"
cgi = ["/cgi-bin=cgi", "/one=cgi/one.cgi", "/cgi-bin/deep=deep"]
cgi-index = ["index.cgi", "index.txt"]
cgi-allowed-ext = [".cgi", ".txt", ".up"]
cgi-helper = [".txt=env -u PATH cat", ".up=no-such-program"]
cgi-pass-auth = true
env = ["GREETING=hello = you", "PATH=/bin:/usr/bin"]
chdir = "deep"
"""


@pytest.fixture(scope="module")
def _hasty_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("hasty")
    (folder / "cgi").mkdir()
    (folder / "deep").mkdir()
    with serving(folder, _HASTY) as server:
        yield server


@pytest.fixture
def hasty(_hasty_server: Server) -> Site:
    """A vassal whose limits are short."""
    folder = _hasty_server.folder
    return Site(_hasty_server, folder / "cgi", folder / "hasty.sock")


@pytest.fixture
def options(_hasty_server: Server) -> Site:
    """A vassal that uses the options of the CGI plugin."""
    folder = _hasty_server.folder
    return Site(_hasty_server, folder / "cgi", folder / "options.sock")


# ---- time limits ----------------------------------------------------------------------------------------


@BOTH
def test_a_silent_script_is_a_504_and_its_group_is_ended(hasty: Site, wire: str) -> None:
    path = hasty.script("silent.cgi", f"sleep 60 & echo silent-{wire} $$ $! >&2; wait")
    answer, seconds = timed(lambda: hasty.request(wire, path))
    assert answer.status == 504
    assert "silent for 0.5 s" in answer.text
    assert 0.4 < seconds < 2
    assert all(gone(pid) for pid in pids(hasty, f"silent-{wire}"))
    record = hasty.logged(path)
    assert "cgi-timeout" in record["remedy"]
    assert record["status"] == 504


def test_who_ignores_sigterm_is_killed(hasty: Site) -> None:
    path = hasty.script("stubborn.cgi", "trap '' TERM; sleep 60 & echo stubborn $$ $! >&2; wait; sleep 60")
    answer, seconds = timed(lambda: hasty.uwsgi(path))
    assert answer.status == 504
    assert seconds < 2  # the client does not wait for the end of it
    assert all(gone(pid, 5) for pid in pids(hasty, "stubborn"))


def test_a_member_of_the_group_that_ignores_sigterm_is_killed(hasty: Site) -> None:
    script = "(trap '' TERM; exec sleep 60) & echo leader $$ $! >&2; wait"
    assert hasty.uwsgi(hasty.script("leader.cgi", script)).status == 504
    assert all(gone(pid, 5) for pid in pids(hasty, "leader"))


def test_a_script_that_leaves_its_group_is_ended_all_the_same(hasty: Site) -> None:
    leave = "import os, sys, time; os.setpgid(0, os.getpgid(os.getppid()))"
    tell = "sys.stderr.write(f'leaver {os.getpid()}\\n')"
    path = hasty.script("leaver.cgi", f"{PYTHON}{leave}; {tell}; time.sleep(60)")
    assert hasty.uwsgi(path).status == 504
    assert all(gone(pid, 5) for pid in pids(hasty, "leaver"))


def test_who_goes_on_talking_is_killed_all_the_same(site: Site) -> None:
    path = site.script("talks-on.cgi", f"trap '' TERM; echo talks-on $$ >&2; {HELLO}; while :; do echo x; done")
    with connect(site.socket) as sock:
        sock.sendall(packet(path))
        running = pids(site, "talks-on")
    assert all(gone(pid, 5) for pid in running)


def test_a_script_may_clean_up(hasty: Site, tmp_path: Path) -> None:
    script = f"trap 'sleep 0.3; echo clean >{tmp_path}/it; exit' TERM; echo tidy $$ >&2; sleep 60 & wait"
    assert hasty.uwsgi(hasty.script("tidy.cgi", script)).status == 504
    assert gone(pids(hasty, "tidy")[0])
    assert (tmp_path / "it").read_text() == "clean\n"


@BOTH
def test_silence_inside_the_body_cuts_the_response(hasty: Site, wire: str) -> None:
    path = hasty.script("stalls.cgi", f"{HELLO}; echo stalls-{wire} $$ >&2; sleep 60")
    answer = hasty.request(wire, path)
    assert answer.cut
    assert answer.text == "hello"
    assert gone(pids(hasty, f"stalls-{wire}")[0])


def test_slow_is_not_silent(hasty: Site) -> None:
    path = hasty.script("slow.cgi", f"{HELLO}; for i in 1 2 3 4 5; do sleep 0.2; printf $i; done")
    answer = hasty.uwsgi(path)
    assert (answer.text, answer.cut) == ("hello12345", False)


def test_a_body_that_does_not_arrive_is_not_the_scripts_fault(hasty: Site) -> None:
    path = hasty.script("waits.cgi", "echo waits $$ >&2; exec cat")
    with connect(hasty.socket) as sock:
        sock.sendall(packet(path, method="POST", length=10) + b"half")
        answer = read_to_end(sock)
    assert answer.status == 408
    assert gone(pids(hasty, "waits")[0])


@pytest.mark.parametrize("wire", ["uwsgi", "http"])
def test_a_request_that_does_not_arrive_is_a_408(hasty: Site, wire: str) -> None:
    whole = {"uwsgi": packet("/cgi-bin/x"), "http": b"GET /cgi-bin/x HTTP/1.1\r\n"}[wire]
    seen = len(hasty.server.log)
    with connect(hasty.address(wire)) as sock:
        sock.sendall(whole[:20])
        answer = read_to_end(sock)
    assert answer.status == 408
    record = hasty.server.wait_for(since=seen, event="request", problem="the request did not arrive in time")
    assert "socket-timeout" in record["remedy"]


@BOTH
def test_a_connection_that_is_not_used_is_closed_without_a_word(hasty: Site, wire: str) -> None:
    with connect(hasty.address(wire)) as sock:
        assert read_to_end(sock) == Answer(b"", cut=False)


# ---- clients that leave, clients that dawdle ---------------------------------------------------------------


@BOTH
def test_a_client_that_leaves_ends_a_silent_script(site: Site, wire: str) -> None:
    # On TCP, whoever ends its side right behind its request may still read.
    path = site.script("alone.cgi", f"sleep 60 & sleep 0.2; echo alone-{wire} $$ $! >&2; wait")
    request = {"uwsgi": packet(path), "http": http_request(path)}[wire]
    with connect(site.address(wire)) as sock:
        sock.sendall(request)
        running = pids(site, f"alone-{wire}")
    assert all(gone(pid, 1.5) for pid in running)
    record = site.server.wait_for(event="request", uri=path, script_pid=running[0])
    assert record["status"] == 499
    assert "client" in record["problem"]


@BOTH
def test_a_client_that_leaves_inside_the_answer_ends_the_script(site: Site, wire: str) -> None:
    path = site.script("endless.cgi", f"echo endless-{wire} $$ >&2; {HELLO}; exec cat /dev/zero")
    request = {"uwsgi": packet(path), "http": http_request(path)}[wire]
    with connect(site.address(wire)) as sock:
        sock.sendall(request)
        assert sock.recv(100)
    assert gone(pids(site, f"endless-{wire}")[0], 1.5)


@BOTH
def test_a_client_that_leaves_inside_its_body_does_not_pass_for_a_whole_one(site: Site, wire: str) -> None:
    script = PYTHON + """
import os, sys
print("half-body", os.getpid(), file=sys.stderr, flush=True)
sys.stdin.buffer.read()
print("Content-Type: text/plain\\n")
print("took it for whole", file=sys.stderr)
"""
    path = site.script(f"upload-{wire}.cgi", script.replace("half-body", f"half-body-{wire}"))
    head = {
        "uwsgi": packet(path, method="POST", length=1000),
        "http": http_request(path, method="POST", Content_Length="1000"),
    }[wire]
    with connect(site.address(wire)) as sock:
        sock.sendall(head + b"half")
        running = pids(site, f"half-body-{wire}")
    assert gone(running[0])
    assert "body" in site.logged(path)["problem"]
    assert not [r for r in site.server.log if "took it for whole" in r["message"]]


@BOTH
def test_a_client_that_dawdles_costs_no_memory(site: Site, wire: str) -> None:
    size = 20_000_000
    path = site.script("large.cgi", f"{HELLO}; head -c {size} /dev/zero; echo large-{wire} $$ >&2")
    other = site.script("other.cgi", HELLO)
    request = {"uwsgi": packet(path), "http": http_request(path)}[wire]
    before = _peak(site)
    with connect(site.address(wire)) as sock:
        sock.sendall(request)
        assert b"hello" in sock.recv(1 << 16)
        for _ in range(30):  # the other runner is not held up, and time goes by
            assert site.uwsgi(other).text == "hello"
        assert not [r for r in site.server.log if f"large-{wire}" in r["message"]]  # back-pressure holds it
        rest = read_to_end(sock)
    assert rest.raw.count(b"\0") >= size - (1 << 16)
    assert pids(site, f"large-{wire}")
    assert _peak(site) - before < 2 << 20


def test_a_client_that_pauses_loses_nothing_although_the_script_has_ended(site: Site) -> None:
    # What does not fit into the socket fits into the pipe, but for one chunk between them.
    path = site.script("ended.cgi", f"{HELLO}; echo ended $$ >&2; exec head -c 235000 /dev/zero")
    pause = site.script("pause.cgi", f"sleep 2.2; {HELLO}")  # longer than a descendant may hold the output
    with connect(site.socket) as sock:
        sock.sendall(packet(path))
        (script,) = pids(site, "ended")
        assert gone(script)
        assert site.uwsgi(pause).text == "hello"
        answer = read_to_end(sock)
    assert (len(answer.body), answer.cut) == (235_005, False)


def test_an_early_answer_waits_for_the_body_without_memory(site: Site) -> None:
    script = f"{HELLO}; head -c 300000 /dev/zero; exec wc -c"
    path, body = site.script("early.cgi", script), bytes(20_000_000)
    before = _peak(site)
    answer = site.uwsgi(path, body)
    assert answer.body.endswith(b"20000000\n")
    assert _peak(site) - before < 2 << 20


def test_no_room_for_the_body_behind_an_early_answer_is_a_507(site: Site) -> None:
    (worker,) = site.server.workers("site")
    path = site.script("roomless.cgi", f"{HELLO}; head -c 300000 /dev/zero; exec wc -c")
    limits = resource.prlimit(worker, resource.RLIMIT_FSIZE)
    resource.prlimit(worker, resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        answer = site.uwsgi(path, bytes(2_000_000))
    finally:
        resource.prlimit(worker, resource.RLIMIT_FSIZE, limits)
    assert answer.status == 507
    assert "TMPDIR" in site.logged(path)["remedy"]


def _peak(site: Site) -> int:
    """Peak memory of the worker in bytes."""
    status = Path(f"/proc/{site.server.workers('site')[0]}/status").read_text()
    found = re.search(r"VmHWM:\s*(\d+) kB", status)
    assert found
    return int(found[1]) * 1024


@BOTH
def test_a_client_that_takes_nothing_is_given_up(hasty: Site, wire: str) -> None:
    path = hasty.script(f"untaken-{wire}.cgi", f"echo untaken-{wire} $$ >&2; {HELLO}; exec cat /dev/zero")
    request = {"uwsgi": packet(path), "http": http_request(path)}[wire]
    with connect(hasty.address(wire)) as sock:
        sock.sendall(request)
        assert "took nothing for 0.5 s" in hasty.logged(path)["problem"]
    assert gone(pids(hasty, f"untaken-{wire}")[0])


def test_a_reset_before_any_request_is_no_request(site: Site) -> None:
    seen = len(site.server.log)
    for _ in range(5):
        with connect(site.address("http")) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    assert site.http(site.script("after.cgi", HELLO)).text == "hello"
    site.server.wait_for(since=seen, event="request", uri="/cgi-bin/after.cgi")
    assert [r for r in site.server.log[seen:] if r.get("event") == "request" and not r.get("method")] == []


def test_a_script_may_go_on_after_a_complete_answer(site: Site, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    script = f"printf 'Content-Length: 5\\n\\nhello'; echo goes-on $$ >&2; read x <{tmp_path}/fifo; echo $x >&2"
    assert site.uwsgi(site.script("goes-on.cgi", script)).text == "hello"
    (running,) = pids(site, "goes-on")
    (tmp_path / "fifo").write_text("the end\n")
    site.server.wait_for(event="stderr", message="site: /cgi-bin/goes-on.cgi: the end")
    assert gone(running)


def test_more_clients_than_runners_wait_their_turn(site: Site, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    held = site.script("held.cgi", f"echo held $$ >&2; read x <{tmp_path}/fifo; {HELLO}")
    socks = [connect(site.socket) for _ in range(5)]
    for sock in socks:
        sock.sendall(packet(held))
    pids(site, "held")
    with open(tmp_path / "fifo", "w") as fifo:
        fifo.write("go\n" * 10000)
        fifo.flush()
        answers = [read_to_end(sock) for sock in socks]
    assert [answer.text for answer in answers] == ["hello"] * 5
    for sock in socks:
        sock.close()


# ---- packets --------------------------------------------------------------------------------------------


def test_a_packet_byte_by_byte(site: Site) -> None:
    path = site.script("bytes.cgi", "printf 'Content-Type: text/plain\\n\\n'; exec cat")
    with connect(site.socket) as sock:
        for byte in packet(path, method="POST", length=3) + b"abc":
            sock.sendall(bytes((byte,)))
            assert _ping(site) == PONG  # a round trip of another client: what was sent is taken
        assert read_to_end(sock).text == "abc"


def _ping(site: Site) -> bytes:
    return converse(connect(site.socket), bytes((100, 0, 0, 0))).raw


@pytest.mark.parametrize(
    ("request_bytes", "status", "problem", "remedy"),
    [
        (packet("/" + "x" * 5000), 431, "too large", "buffer-size"),
        (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", 400, "the request is HTTP", "uwsgi_pass"),
        (b"\x16\x03\x01\x02\x00" + bytes(600), 400, "TLS", "suwsgi"),
        (b"\x09\x04\x00\x00\xff\xff\x00\x00", 400, "outside the var block", "web server"),
        (b"\x09\x00\x00\x00", 400, "REQUEST_METHOD", "include uwsgi_params"),
        (packet("/", modifier1=5), 501, "modifier1 5; for CGI scripts, nginx needs `uwsgi_modifier1 9;`", ""),
        (packet("/x/..", HTTP_HOST="a"), 400, "segment", ""),
        (packet("/", CONTENT_LENGTH="5abc"), 400, "not a number", ""),
        (packet("/", HTTP_TRANSFER_ENCODING="chunked") + b"no chunk\r\n", 400, "not in chunks", ""),
        (packet("/elsewhere"), 404, "no script here", "mounts /cgi-bin"),
    ],
)
def test_a_bad_request_is_answered_and_logged_once(
    hasty: Site, request_bytes: bytes, status: int, problem: str, remedy: str
) -> None:
    seen = len(hasty.server.log)
    answer = converse(connect(hasty.socket), request_bytes)
    assert (answer.status, answer.cut) == (status, False)
    assert problem in answer.text
    record = hasty.server.wait_for(since=seen, event="request", status=status)
    assert problem in record["problem"]
    assert remedy in record.get("remedy", "")
    assert _ping(hasty) == PONG
    assert len([r for r in hasty.server.log[seen:] if problem in str(r)]) == 1


def test_modifier_0_is_cgi_where_there_is_nothing_else(site: Site) -> None:
    assert site.uwsgi(site.script("zero.cgi", HELLO), modifier1=0).text == "hello"


def test_a_large_body_behind_a_bad_request_does_not_hide_the_answer(site: Site) -> None:
    answer = site.uwsgi("/cgi-bin/missing.cgi", bytes(3 << 20))
    assert (answer.status, answer.cut) == (404, False)


def test_a_probe_that_only_connects_is_no_request(site: Site) -> None:
    seen = len(site.server.log)
    for _ in range(5):
        connect(site.socket).close()
        connect(("127.0.0.1", site.server.port)).close()
    assert _ping(site) == PONG
    late = [r for r in site.server.log[seen:] if "inside" in r.get("problem", "") or r["level"] == "ERROR"]
    assert late == [], late


# ---- scripts that cannot be run ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "mode", "status", "problem", "remedy"),
    [
        ("plain.cgi", HELLO, 0o644, 403, "may not be executed", "chmod +x"),
        ("interpreter.cgi", "#!/no/such/interpreter\n", 0o755, 500, "cannot be started", "#! line"),
        ("shebang.cgi", "#!\n", 0o755, 500, "is not a program", "#!/bin/sh"),
        ("folder/it.cgi", HELLO, 0o755, 404, "no such script", "folder"),
    ],
)
def test_scripts_that_cannot_be_run(
    site: Site, name: str, text: str, mode: int, status: int, problem: str, remedy: str
) -> None:
    path = site.script(name, text, mode)
    path = path.removesuffix("/it.cgi")
    answer = site.uwsgi(path)
    assert answer.status == status
    assert problem in answer.text
    assert str(site.folder) not in answer.text
    record = site.logged(path)
    assert problem in record["problem"]
    assert remedy in record["remedy"]
    assert str(site.folder) in record["remedy"]


def test_a_text_without_interpreter_is_not_run_by_a_shell(site: Site) -> None:
    path = site.script("text.cgi", "#!")
    (site.folder / "text.cgi").write_text("echo run by a shell\n")
    assert site.uwsgi(path).status == 500


# ---- options --------------------------------------------------------------------------------------------


def test_env_and_pass_auth(options: Site) -> None:
    path = options.script("env.cgi", "printf 'Content-Type: text/plain\\n\\n'; exec env -0")
    found = variables(options.uwsgi(path, HTTP_AUTHORIZATION="Bearer x"))
    assert found["GREETING"] == "hello = you"
    assert found["PATH"] == "/bin:/usr/bin"
    assert found["HTTP_AUTHORIZATION"] == "Bearer x"


def test_a_file_mount(options: Site) -> None:
    options.script("one.cgi", "printf 'Content-Type: text/plain\\n\\n'; exec env -0")
    found = variables(options.uwsgi("/one/more/info"))
    assert (found["SCRIPT_NAME"], found["PATH_INFO"]) == ("/one", "/more/info")
    assert found["PWD"] == str(options.folder)
    assert options.uwsgi("/onemore").status == 404


def test_the_longest_mount_wins(options: Site) -> None:
    deep = options.folder.parent / "deep"
    script = deep / "down.cgi"
    script.write_text(f"#!/bin/sh\n{HELLO}; pwd")
    script.chmod(0o755)
    assert options.uwsgi("/cgi-bin/deep/down.cgi").text == f"hello{deep}\n"


def test_an_index(options: Site) -> None:
    options.script("shop/index.cgi", "printf 'Content-Type: text/plain\\n\\n'; exec env -0")
    assert variables(options.uwsgi("/cgi-bin/shop/?q"))["SCRIPT_NAME"] == "/cgi-bin/shop/index.cgi"
    assert options.uwsgi("/cgi-bin/").status == 404


def test_a_helper_runs_what_is_not_executable_with_its_arguments(options: Site) -> None:
    (options.folder / "page.txt").write_text("Content-Type: text/plain\n\nby cat")
    assert options.uwsgi("/cgi-bin/page.txt").text == "by cat"


def test_a_helper_that_is_not_installed(options: Site) -> None:
    (options.folder / "page.up").write_text("")
    answer = options.uwsgi("/cgi-bin/page.up")
    assert answer.status == 500
    assert "no-such-program" in options.logged("/cgi-bin/page.up")["remedy"]


def test_only_allowed_endings(options: Site) -> None:
    path = options.script("tool.sh", HELLO)
    assert options.uwsgi(path).status == 403
    assert "cgi-allowed-ext" in options.logged(path)["remedy"]


def test_chdir_is_the_workers(options: Site) -> None:
    deep = options.folder.parent / "deep"
    assert os.readlink(f"/proc/{options.server.workers('options')[0]}/cwd") == str(deep)


# ---- the log --------------------------------------------------------------------------------------------


def test_stderr_is_logged_with_vassal_and_script(site: Site) -> None:
    path = site.script("grumbles.cgi", f"echo one >&2; printf 'two \\033[31m\\nthree' >&2; {HELLO}")
    seen = len(site.server.log)
    assert site.uwsgi(path).text == "hello"
    for line in ("one", "two \x1b[31m", "three"):
        record = site.server.wait_for(since=seen, event="stderr", message=f"site: {path}: {line}")
        assert record["vassal"] == "site"
        assert record["level"] == "WARNING"


# ---- nothing left over ------------------------------------------------------------------------------------


def _descriptors(worker: int) -> int:
    return len(os.listdir(f"/proc/{worker}/fd"))


def _mixed(site: Site) -> list[Answer]:
    good = site.script("good.cgi", HELLO)
    deaf = site.script("deaf.cgi", HELLO)
    crash = site.script("crash.cgi", f"{HELLO}; head -c 200000 /dev/zero; kill -9 $$")
    plain = site.script("plain2.cgi", HELLO, 0o644)
    bad = site.script("bad.cgi", "echo no header")
    connect(site.socket).close()
    return [
        site.uwsgi(good),
        site.http(good),
        site.uwsgi(deaf, bytes(300000)),
        site.http(deaf, bytes(300000)),
        site.uwsgi(crash),
        site.http(crash),
        site.uwsgi(plain, b"x"),
        site.uwsgi(bad, b"x"),
        site.http("/cgi-bin/missing", b"x"),
        converse(connect(site.socket), b"GET / HTTP/1.0\r\n\r\n"),
    ]


def test_descriptors_and_children_do_not_pile_up(site: Site) -> None:
    (worker,) = site.server.workers("site")
    seen = len(site.server.log)
    answers = _mixed(site)
    assert [answer.status for answer in answers] == [200, 200, 200, 200, 200, 200, 403, 502, 404, 400]
    site.server.wait_for(since=seen, count=len(answers), event="request")  # logged when all is released
    before = _descriptors(worker)
    for _ in range(20):
        seen = len(site.server.log)
        site.server.wait_for(since=seen, count=len(_mixed(site)), event="request")
    assert _descriptors(worker) <= before + 2  # each runner may look at a connection just closed
    assert living_descendants([worker]) == []
    scripts = {record.get("script_pid") for record in site.server.log}
    assert scripts.isdisjoint(zombies(worker))


@pytest.fixture
def single(tmp_path: Path) -> Iterator[Site]:
    """A server of the test's own, with one runner."""
    (tmp_path / "cgi").mkdir()
    text = '[[vassal]]\nname = "single"\nsocket = "single.sock"\ncgi = "/cgi-bin=cgi"\n'
    with serving(tmp_path, text) as server:
        yield Site(server, tmp_path / "cgi", tmp_path / "single.sock")


def test_no_descriptor_to_spare_is_a_503(single: Site) -> None:
    (worker,) = single.server.workers("single")
    path = single.script("spare.cgi", HELLO)
    assert single.uwsgi(path + "?first").text == "hello"
    single.logged(path + "?first")  # now it has opened whatever it keeps open
    limit = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    used = {int(fd) for fd in os.listdir(f"/proc/{worker}/fd")}
    free = [fd for fd in range(len(used) + 2) if fd not in used]
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (free[1] + 1, limit[1]))  # connection and half a pipe
    try:
        assert single.uwsgi(path).status == 503
    finally:
        resource.prlimit(worker, resource.RLIMIT_NOFILE, limit)
    assert "raise the limit" in single.logged(path)["remedy"]
    assert single.uwsgi(path).text == "hello"


def test_a_request_in_hand_is_finished_before_the_end(single: Site, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    path = single.script("last.cgi", f"echo last $$ >&2; read x <{tmp_path}/fifo; {HELLO}")
    with connect(single.socket) as sock:
        sock.sendall(packet(path))
        pids(single, "last")
        single.server.emperor.send_signal(signal.SIGTERM)
        single.server.wait_for(actor="worker:single/1", state="STOPPING")
        (tmp_path / "fifo").write_text("go\n")
        assert read_to_end(sock).text == "hello"


def test_a_connection_waits_while_no_descriptor_is_free(single: Site) -> None:
    (worker,) = single.server.workers("single")
    path = single.script("wait.cgi", HELLO)
    assert single.uwsgi(path + "?first").text == "hello"
    single.logged(path + "?first")
    limit = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    seen = len(single.server.log)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (3, limit[1]))  # not one more
    with connect(single.socket) as sock:
        try:
            sock.sendall(packet(path))
            record = single.server.wait_for(since=seen, message=lambda text: text.startswith("connections wait"))
        finally:
            resource.prlimit(worker, resource.RLIMIT_NOFILE, limit)
        assert "LimitNOFILE" in record["message"]
        assert read_to_end(sock).text == "hello"
    assert single.server.workers("single") == [worker]
