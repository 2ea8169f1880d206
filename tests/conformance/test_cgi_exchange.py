"""RFC 3875 on the wire: what a script gets, and what becomes of everything that scripts do with it.

Bodies and bad output are those at which other CGI servers lose an answer, hang, or pass garbage on.
"""

import hashlib
import os
import re
from pathlib import Path

import pytest

from tests.support import (
    PYTHON,
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

MEGABYTE = os.urandom(1 << 20)
BOTH = pytest.mark.parametrize("wire", ["uwsgi", "http"])


# ---- §4.1 meta-variables --------------------------------------------------------------------------------

ENV = "printf 'Content-Type: text/plain\\n\\n'; exec env -0"


def test_meta_variables(site: Site) -> None:
    path = site.script("env.cgi", ENV)
    answer = site.uwsgi(
        f"{path}/a/b c?q=%20&r", b"abc", CONTENT_TYPE="text/x", REMOTE_USER="jo", HTTP_AUTHORIZATION="Basic Zg=="
    )
    found = variables(answer)
    file = str(site.folder / "env.cgi")
    assert {name: value for name, value in found.items() if not name.startswith(("PATH", "PWD"))} == {
        "AUTH_TYPE": "Basic",
        "CONTENT_LENGTH": "3",
        "CONTENT_TYPE": "text/x",
        "DOCUMENT_ROOT": str(site.folder),
        "GATEWAY_INTERFACE": "CGI/1.1",
        "HTTP_HOST": "www.example.org",
        "QUERY_STRING": "q=%20&r",
        "REDIRECT_STATUS": "200",
        "REMOTE_ADDR": "192.0.2.7",
        "REMOTE_HOST": "192.0.2.7",
        "REMOTE_USER": "jo",
        "REQUEST_ID": found["REQUEST_ID"],
        "REQUEST_METHOD": "POST",
        "REQUEST_URI": f"{path}/a/b c?q=%20&r",
        "SCRIPT_FILENAME": file,
        "SCRIPT_NAME": path,
        "SERVER_NAME": "www.example.org",
        "SERVER_PORT": "80",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "SERVER_SOFTWARE": found["SERVER_SOFTWARE"],
    }
    assert found["SERVER_SOFTWARE"].startswith("PyEmperor/")
    assert re.fullmatch("[0-9a-f]{32}", found["REQUEST_ID"])
    assert found["PATH_INFO"] == "/a/b c"
    assert found["PATH_TRANSLATED"] == f"{site.folder}/a/b c"


def test_nothing_of_the_servers_own_environment_reaches_a_script(site: Site) -> None:
    path = site.script("own.cgi", ENV)
    for hostile in ("LD_PRELOAD", "BASH_ENV", "UWSGI_SETENV", "HTTP_PROXY", "PYTHONPATH"):
        found = variables(site.uwsgi(path, b"", **{hostile: "x"}))
        assert hostile not in found
        assert "CANARY" not in found
        assert "HOME" not in found


@pytest.mark.parametrize("info", ["", "/", "/x", "//x//", "/x.cgi/"])
def test_path_info(site: Site, info: str) -> None:
    path = site.script("info.cgi", ENV)
    found = variables(site.uwsgi(path + info))
    assert found.get("PATH_INFO", "") == info
    assert ("PATH_TRANSLATED" in found) == bool(info)
    assert found["SCRIPT_NAME"] == path


# ---- §7.2 what a script starts with ---------------------------------------------------------------------

STATE = PYTHON + """
import os, signal
fds = sorted(int(fd) for fd in os.listdir("/proc/self/fd"))
alive = [fd for fd in fds if os.path.exists(f"/proc/self/fd/{fd}")]
status = dict(line.split(":\\t") for line in open("/proc/self/status") if ":\\t" in line)
print("Content-Type: text/plain\\n")
print(os.getcwd(), alive, os.readlink("/proc/self/fd/0"), status["SigBlk"].strip(), sep="\\n")
print(os.getsid(0) == os.getpid() == os.getpgrp())
"""
IGNORED = "printf 'Content-Type: text/plain\\n\\n'; exec grep -h '^SigIgn' /proc/self/status"


def test_a_script_starts_clean(site: Site) -> None:
    path = site.script("sub/state.cgi", STATE)
    directory, fds, stdin, blocked, leads = site.uwsgi(path).text.splitlines()
    assert directory == str(site.folder / "sub")
    assert fds == "[0, 1, 2]"
    assert stdin == "/dev/null"
    assert int(blocked, 16) == 0
    assert leads == "True"


def test_no_signal_is_ignored(site: Site) -> None:
    found = site.uwsgi(site.script("ignored.cgi", IGNORED)).text.split()[1]
    # 32 and 33 are the C library's own, which it sets so in posix_spawn; a program's C library sets them anew.
    assert int(found, 16) & ~(1 << 31 | 1 << 32) == 0


def test_runners_of_one_worker_have_directories_of_their_own(site: Site, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    script = f"printf 'Content-Type: text/plain\\n\\n'; read x <{tmp_path}/fifo; pwd"
    paths = [site.script(f"{name}/where.cgi", script) for name in ("one", "two")]
    socks = [connect(site.socket) for _ in paths]
    for sock, path in zip(socks, paths, strict=True):
        sock.sendall(packet(path))
        assert sock.recv(1 << 16).startswith(b"HTTP/1.1 200")  # the script runs, and waits
    with open(tmp_path / "fifo", "w") as fifo:
        fifo.write("go\ngo\n" * 4096)
        fifo.flush()
        bodies = [sock.makefile("rb").read().split() for sock in socks]
    assert [body[-1].decode() for body in bodies] == [str(site.folder / "one"), str(site.folder / "two")]
    for sock in socks:
        sock.close()


# ---- §4.2 the request body --------------------------------------------------------------------------------

ECHO = PYTHON + """
import os, sys, hashlib
body = sys.stdin.buffer.read()
print("Content-Type: text/plain\\n")
print(len(body), hashlib.sha256(body).hexdigest(), os.environ.get("CONTENT_LENGTH"))
"""
MIRROR = "printf 'Content-Type: application/octet-stream\\n\\n'; exec cat"


@BOTH
@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 3 << 20])
def test_a_body_arrives_whole(site: Site, wire: str, size: int) -> None:
    body = (MEGABYTE * 3)[:size]
    answer = site.request(wire, site.script("echo.cgi", ECHO), body, method="POST")
    length = str(size) if size else "None"
    assert answer.text.split() == [str(size), hashlib.sha256(body).hexdigest(), length]


@BOTH
def test_a_body_there_and_back_at_once(site: Site, wire: str) -> None:
    body = MEGABYTE * 3
    answer = site.request(wire, site.script("mirror.cgi", MIRROR), body)
    assert answer.status == 200
    assert answer.body == body


@BOTH
def test_writing_before_reading(site: Site, wire: str) -> None:
    script = """
head -c 300000 /dev/zero | { printf 'Content-Type: text/plain\\n\\n'; cat; }
wc -c
"""
    answer = site.request(wire, site.script("talker.cgi", script), MEGABYTE)
    assert answer.body == bytes(300000) + b"1048576\n"


@BOTH
def test_writing_before_reading_to_a_client_that_sends_before_it_reads(site: Site, wire: str) -> None:
    script = """
printf 'Content-Type: text/plain\n\n'; head -c 8000000 /dev/zero
exec sha256sum
"""
    path, body = site.script("half.cgi", script), MEGABYTE * 8
    head = {
        "uwsgi": packet(path, method="POST", length=len(body)),
        "http": http_request(path, method="POST", Content_Length=str(len(body))),
    }[wire]
    with connect(site.address(wire)) as sock:
        sock.sendall(head + body)  # every web server does it so: nginx stops sending once an answer begins
        answer = read_to_end(sock)
    assert answer.body == bytes(8_000_000) + f"{hashlib.sha256(body).hexdigest()}  -\n".encode()


@BOTH
@pytest.mark.parametrize("size", [1, 1000, 1 << 20])
def test_a_body_left_unread(site: Site, wire: str, size: int) -> None:
    path = site.script("deaf.cgi", "printf 'Content-Type: text/plain\\n\\nanswer'")
    answer = site.request(wire, path, MEGABYTE[:size])
    assert (answer.status, answer.text, answer.cut) == (200, "answer", False)


@BOTH
def test_a_body_half_read(site: Site, wire: str) -> None:
    path = site.script("half.cgi", "printf 'Content-Type: text/plain\\n\\n'; head -c 100000 | wc -c")
    answer = site.request(wire, path, MEGABYTE)
    assert (answer.status, answer.text.strip(), answer.cut) == (200, "100000", False)


def test_reading_to_the_end_without_a_body(site: Site) -> None:
    answer = site.uwsgi(site.script("eof.cgi", ECHO))
    assert answer.text.split()[0] == "0"


def test_not_a_byte_more_than_announced(site: Site) -> None:
    path = site.script("exact.cgi", ECHO)
    answer = converse(connect(site.socket), packet(path, method="POST", length=3) + b"abcdef")
    assert answer.text.split()[0] == "3"
    assert not answer.cut


def test_stdin_closed_at_once(site: Site) -> None:
    path = site.script("closer.cgi", "exec <&-; printf 'Content-Type: text/plain\\n\\nanswer'")
    assert site.uwsgi(path, MEGABYTE).text == "answer"


def test_a_flood_on_stderr_first(site: Site) -> None:
    script = "head -c 1000000 /dev/zero | tr '\\0' x >&2; printf 'Content-Type: text/plain\\n\\nanswer'"
    assert site.uwsgi(site.script("noisy.cgi", script), MEGABYTE).text == "answer"


def test_a_script_that_does_not_wait_on_stderr_does_not_make_others_so(tmp_path: Path) -> None:
    """All scripts of a runner have the same pipe there, and O_NONBLOCK is the pipe's (open(2))."""
    (tmp_path / "cgi").mkdir()
    text = '[[vassal]]\nname = "one"\nsocket = "one.sock"\ncgi = "/cgi-bin=cgi"'
    with serving(tmp_path, text) as server:
        site = Site(server, tmp_path / "cgi", tmp_path / "one.sock")
        hello = "print('Content-Type: text/plain\\n\\nhello')"
        hasty = site.script("hasty.cgi", f"{PYTHON}import os; os.set_blocking(2, False); {hello}")
        flood = site.script("flood.cgi", f"{PYTHON}import sys; sys.stderr.write('x' * 1000000); {hello}")
        assert site.uwsgi(hasty).text == "hello\n"
        assert site.uwsgi(flood).text == "hello\n"
        assert site.logged(flood)["exit"] == 0


# ---- §6 the response ------------------------------------------------------------------------------------


def test_head_has_no_body(site: Site) -> None:
    script = "printf 'Content-Type: text/plain\\nX-It: head\\n\\n'; exec head -c 1000000 /dev/zero"
    answer = site.uwsgi(site.script("head.cgi", script), method="HEAD")
    assert (answer.status, answer.headers["x-it"], answer.body) == (200, "head", b"")


@pytest.mark.parametrize("status", ["204 No Content", "304 Not Modified"])
def test_a_status_without_body(site: Site, status: str) -> None:
    path = site.script("bodiless.cgi", f"printf 'Status: {status}\\nX-It: yes\\n\\nsurplus'")
    answer = site.uwsgi(path)
    assert (answer.status, answer.headers["x-it"], answer.body) == (int(status[:3]), "yes", b"")


@pytest.mark.parametrize(
    ("output", "line", "body"),
    [
        ("Content-Type: text/plain\\n\\nlf", b"HTTP/1.1 200 OK", b"lf"),
        ("Content-Type: text/plain\\r\\n\\r\\ncrlf", b"HTTP/1.1 200 OK", b"crlf"),
        ("Status: 404 Nope\\nContent-Type: text/plain\\n\\n", b"HTTP/1.1 404 Nope", b""),
        ("Status:404\\nContent-Type: text/plain\\n\\n", b"HTTP/1.1 404 Not Found", b""),
        ("Location: http://a.example/\\n\\n", b"HTTP/1.1 302 Found", b""),
        ("Location: /local\\n\\n", b"HTTP/1.1 302 Found", b""),
        ("Location: /x\\nStatus: 303 See\\n\\n", b"HTTP/1.1 303 See", b""),
        ("HTTP/1.1 203 Mine\\r\\nX-A: b\\r\\n\\r\\nnph", b"HTTP/1.1 203 Mine", b"nph"),
        ("X-A: b\\n folded\\nContent-Type: text/plain\\n\\n", b"HTTP/1.1 200 OK", b""),
        ("HTTP/1.1 103 Early\\nLink: x\\n\\nStatus: 201 Made\\nX-A: b\\n\\n", b"HTTP/1.1 201 Made", b""),
        ("X-D: 1\\nX-D: 2\\nStatus: 200 OK\\nStatus: 500 No\\n\\n", b"HTTP/1.1 200 OK", b""),
    ],
)
def test_responses(site: Site, output: str, line: bytes, body: bytes) -> None:
    answer = site.uwsgi(site.script("response.cgi", f"printf '{output}'"))
    assert (answer.line, answer.body) == (line, body)
    assert "status" not in answer.headers


@BOTH
@pytest.mark.parametrize(
    ("script", "problem"),
    [
        ("exit 0", "ended without sending a response"),
        ("exit 1", "ended without sending a response"),
        ("printf 'Content-Type: text/plain\\n'", "before the blank line"),
        ("printf '\\nbody'", "begins with a blank line"),
        ("printf 'Hello world\\n\\n'", "no colon"),
        ("printf 'Status: abc\\n\\n'", "Status: abc"),
        ("printf 'X Y: z\\n\\n'", "in its name"),
        ("printf 'X: a\\001b\\n\\n'", "control character"),
        ("printf 'Transfer-Encoding: chunked\\n\\n0\\r\\n\\r\\n'", "Transfer-Encoding"),
        ("printf 'X: '; head -c 70000 /dev/zero | tr '\\0' x; printf '\\n\\n'", "larger than"),
        ("kill -9 $$", "SIGKILL"),
        ("printf 'X: y\\n'; kill -TERM $$", "SIGTERM"),
    ],
)
def test_no_response_is_a_502_that_says_why(site: Site, wire: str, script: str, problem: str) -> None:
    path = site.script("bad.cgi", script)
    seen = len(site.server.log)
    answer = site.request(wire, path)
    assert answer.status == 502
    assert problem in answer.text
    assert int(answer.headers["content-length"]) == len(answer.body)
    record = site.server.wait_for(since=seen, event="request", uri=path)
    assert problem in record["problem"]


def test_a_refused_head_request_gets_no_body(site: Site) -> None:
    answer = site.uwsgi(site.script("none.cgi", "exit 0"), method="HEAD")
    assert (answer.status, answer.body) == (502, b"")
    assert int(answer.headers["content-length"]) > 0


@BOTH
def test_a_script_killed_inside_its_body_cuts_the_response(site: Site, wire: str) -> None:
    path = site.script("killed.cgi", "printf 'X: y\\n\\n'; head -c 200000 /dev/zero; kill -9 $$")
    seen = len(site.server.log)
    answer = site.request(wire, path)
    assert answer.cut
    record = site.server.wait_for(since=seen, event="request", uri=path)
    assert "SIGKILL" in record["problem"]


@BOTH
def test_more_than_content_length_is_not_sent(site: Site, wire: str) -> None:
    path = site.script("more.cgi", "printf 'Content-Length: 2\\n\\nab'; printf 'cdef'")
    answer = site.request(wire, path)
    assert (answer.body, answer.cut) == (b"ab", False)


def test_less_than_content_length_is_cut(site: Site) -> None:
    path = site.script("less.cgi", "printf 'Content-Length: 200010\\n\\n'; head -c 200000 /dev/zero")
    answer = site.uwsgi(path)
    assert (answer.body, answer.cut) == (bytes(200000), True)
    assert "10 bytes before" in site.logged(path)["problem"]


@BOTH
@pytest.mark.parametrize("output", ["Content-Length: 10\\n\\nabcd", "X: y\\n\\nhalf"])
def test_a_short_response_that_breaks_off_is_an_error_or_cut(site: Site, wire: str, output: str) -> None:
    """Of a script that ends at once nothing is sent before its end is known: its failure can be a 502."""
    path = site.script("short.cgi", f"printf '{output}'; kill -9 $$")
    answers = [site.request(wire, path) for _ in range(10)]
    assert all(answer.cut or answer.status == 502 for answer in answers)


def test_http_1_0_is_answered_in_kind(site: Site) -> None:
    path = site.script("old.cgi", "printf 'Content-Type: text/plain\\n\\nok'")
    assert site.uwsgi(path, SERVER_PROTOCOL="HTTP/1.0").line == b"HTTP/1.0 200 OK"
    assert site.http(path, version="1.0").line == b"HTTP/1.0 200 OK"


# ---- the end of a script ----------------------------------------------------------------------------------


def test_a_script_that_lives_on_is_answered_at_once(site: Site, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    path = site.script(
        "lives.cgi",
        f"printf 'Content-Type: text/plain\\nX-Pid: %s\\n\\nanswer' $$; exec >&-; read x <{tmp_path}/fifo",
    )
    answer, seconds = timed(lambda: site.uwsgi(path))
    assert answer.text == "answer"
    assert seconds < 1.5
    pid = int(answer.headers["x-pid"])
    assert not gone(pid, 0)  # it was not ended for that
    (tmp_path / "fifo").write_text("go\n")
    assert gone(pid)


def test_a_descendant_that_holds_stdout_does_not_hold_the_answer(site: Site) -> None:
    path = site.script("holder.cgi", "printf 'Content-Type: text/plain\\n\\nanswer'; sleep 7 & exit")
    answer, seconds = timed(lambda: site.uwsgi(path))
    assert answer.text == "answer"
    assert seconds < 5


def test_output_of_a_descendant_belongs_to_the_answer(site: Site) -> None:
    script = "printf 'Content-Type: text/plain\\n\\nfirst '; (sleep 0.2; printf second) & exit"
    assert site.uwsgi(site.script("heir.cgi", script)).text == "first second"


def test_the_answer_streams(site: Site, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    script = f"printf 'Content-Type: text/event-stream\\n\\nfirst'; read x <{tmp_path}/fifo; printf second"
    with connect(site.socket) as sock:
        sock.sendall(packet(site.script("stream.cgi", script)))
        got = b""
        while b"first" not in got:
            got += sock.recv(1 << 16)
        (tmp_path / "fifo").write_text("go\n")
        while data := sock.recv(1 << 16):
            got += data
    assert got.endswith(b"firstsecond")


# ---- large bodies -----------------------------------------------------------------------------------------


@BOTH
@pytest.mark.parametrize("head", ["X: y", "Content-Length: 8000000"])
def test_a_large_body_comes_out_whole(site: Site, wire: str, head: str) -> None:
    """From the second chunk on it goes from pipe to socket inside the kernel, as far as the length allows."""
    path = site.script("large.cgi", f"printf '{head}\\n\\n'; exec seq -w 1000000")
    whole = b"".join(b"%07d\n" % number for number in range(1, 1000001))
    answer = site.request(wire, path)
    assert (answer.status, answer.cut) == (200, False)
    assert answer.body == whole


@BOTH
def test_of_a_large_body_no_more_comes_than_announced(site: Site, wire: str) -> None:
    path = site.script("surplus.cgi", "printf 'Content-Length: 1000000\\n\\n'; exec head -c 3000000 /dev/zero")
    answer = site.request(wire, path)
    assert (answer.status, answer.cut, len(answer.body)) == (200, False, 1_000_000)


@BOTH
def test_a_client_that_leaves_a_large_body_ends_its_script(site: Site, wire: str) -> None:
    path = site.script("endless.cgi", "echo endless $$ >&2; printf 'X: y\\n\\n'; exec cat /dev/zero")
    request = packet(path) if wire == "uwsgi" else http_request(path)
    with connect(site.address(wire)) as sock:
        sock.sendall(request)
        came = 0
        while came < 1 << 20:
            came += len(sock.recv(1 << 16))
        pid = pids(site, "endless")[-1]
    assert gone(pid)
