"""What no CGI server before had: a time for the first byte and for the whole, redirects, scripts that may finish.

Also what each request leaves behind in the log: RFC 3875 is silent there, and whoever reads it at night is not.
"""

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import Site, connect, gone, packet, pids, read_to_end, serving, timed, variables

HELLO = "printf 'Content-Type: text/plain\\n\\nhello'"
VASSAL = """
[[vassal]]
name = "limits"
socket = "limits.sock"
processes = 2
cgi = "/cgi-bin=cgi"
"""


def site_with(folder: Path, options: str) -> Iterator[Site]:
    (folder / "cgi").mkdir()
    with serving(folder, VASSAL + options) as server:
        yield Site(server, folder / "cgi", folder / "limits.sock")


@pytest.fixture(scope="module")
def limits(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """First byte within 0.3 s, all within 0.8 s."""
    yield from site_with(
        tmp_path_factory.mktemp("limits"), "cgi-first-byte-timeout = 0.3\ncgi-total-timeout = 0.8"
    )


@pytest.fixture(scope="module")
def patient(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Scripts may finish what nobody waits for."""
    yield from site_with(tmp_path_factory.mktemp("patient"), "cgi-do-not-kill-on-error = true\ncgi-timeout = 20")


# ---- time -----------------------------------------------------------------------------------------------


def test_a_response_that_begins_too_late_is_a_504(limits: Site) -> None:
    """cgi-first-byte-timeout: the script may well print, but no header."""
    path = limits.script("late.cgi", "while :; do printf x; sleep 0.05; done")
    answer, seconds = timed(lambda: limits.uwsgi(path))
    assert (answer.status, answer.cut) == (504, False)
    assert "did not begin its response within 0.3 s" in answer.text
    assert 0.3 <= seconds < 0.8
    assert limits.logged(path)["remedy"] == "raise `cgi-first-byte-timeout`"


def test_a_script_that_talks_for_ever_is_cut(limits: Site) -> None:
    """cgi-total-timeout: it is never silent, and its response never ends."""
    path = limits.script("chatter.cgi", f"echo pid $$ >&2; {HELLO}; while :; do printf x; sleep 0.05; done")
    answer, seconds = timed(lambda: limits.uwsgi(path))
    assert (answer.status, answer.cut) == (200, True)
    assert 0.8 <= seconds < 3
    assert limits.logged(path)["remedy"] == "raise `cgi-total-timeout` or `harakiri`"
    assert all(gone(pid) for pid in pids(limits, "pid"))


def test_harakiri_ends_the_script_and_not_its_neighbour(tmp_path: Path) -> None:
    """uWSGI's harakiri kills the worker with every request in it; here the slow one ends alone."""
    for site in site_with(tmp_path, "harakiri = 1\nthreads = 2"):
        (worker, other) = site.server.workers("limits")
        slow = site.script("slow.cgi", f"echo slow $$ >&2; {HELLO}; while :; do sleep 0.1; done")
        with connect(site.socket) as sock:
            sock.sendall(packet(slow))
            assert site.uwsgi(site.script("quick.cgi", f"sleep 0.5; {HELLO}")).text == "hello"
            assert read_to_end(sock).cut
        assert all(gone(pid) for pid in pids(site, "slow"))
        assert site.server.workers("limits") == [worker, other]


def test_harakiri_ends_a_script_in_the_manner_that_was_asked_for(tmp_path: Path) -> None:
    """uWSGI's harakiri-graceful-signal and -timeout (2.0.22): the script has that long for its own last words."""
    options = """
harakiri = 0.5
harakiri-graceful-signal = 10
harakiri-graceful-timeout = 60
cgi-timeout = 300
"""
    for site in site_with(tmp_path, options):
        script = "trap 'sleep 2.5; echo last $$ >&2; exit 0' USR1; trap 'echo term $$ >&2' TERM"
        path = site.script("graceful.cgi", f"{script}\n{HELLO}; while :; do sleep 0.05; done")
        answer = site.uwsgi(path)
        assert (answer.status, answer.cut) == (200, True)
        assert site.logged(path)["exit"] == 0, "it was killed before the time it was given was over"
        assert pids(site, "last")
        assert not any("term" in record["message"] for record in site.server.log)


def test_harakiri_without_grace_is_sigkill(tmp_path: Path) -> None:
    """harakiri-graceful-timeout = 0, which is uWSGI's own way."""
    for site in site_with(tmp_path, "harakiri = 0.5\nharakiri-graceful-timeout = 0"):
        path = site.script("stubborn.cgi", "trap '' TERM; while :; do sleep 0.05; done")
        assert site.uwsgi(path).status == 504
        record = site.logged(path)
        assert record["signal"] == "SIGKILL"
        assert 500 <= record["msecs"] < 2400, "GRACE was given"


def test_harakiri_verbose_says_what_the_script_and_its_children_did(tmp_path: Path) -> None:
    for site in site_with(tmp_path, "harakiri = 0.5\nharakiri-verbose = true"):
        path = site.script("hangs.cgi", "sleep 1000")
        answer = site.uwsgi(path)
        assert answer.status == 504
        record = site.logged(path)
        pid = record["script_pid"]
        assert re.search(rf"what it did: .*\({pid}\): S.*, sleep \(\d+\): S", record["remedy"])
        assert "sleep (" not in answer.text, "what runs here is none of the client's business"


def test_a_script_within_its_limits_is_left_alone(limits: Site) -> None:
    path = limits.script("within.cgi", f"sleep 0.1; {HELLO}; sleep 0.4; printf world")
    assert limits.uwsgi(path).text == "helloworld"


# ---- RFC 3875 §6.2.2, local redirects -------------------------------------------------------------------


def test_a_local_redirect_is_served_in_its_place(limits: Site) -> None:
    """The client sees nothing of it; the second script learns where the request came from."""
    target = limits.script("target.cgi", "printf 'Content-Type: text/plain\\n\\n'; exec env -0")
    path = limits.script("here.cgi", f"printf 'Location: {target}/info?x=1\\n\\n'")
    answer = limits.uwsgi(f"{path}?old=1", b"body")
    found = variables(answer)
    assert (answer.status, answer.cut) == (200, False)
    assert (found["SCRIPT_NAME"], found["PATH_INFO"], found["QUERY_STRING"]) == (target, "/info", "x=1")
    assert (found["REQUEST_METHOD"], found.get("CONTENT_LENGTH")) == ("GET", None)
    assert found["REDIRECT_URL"] == path
    record = limits.logged(f"{path}?old=1")
    assert (record["status"], record["redirects"], record["script"]) == (200, 1, target)


@pytest.mark.parametrize("size", [0, 1, 300_000])
def test_the_body_goes_to_the_first_script_alone(limits: Site, size: int) -> None:
    target = limits.script("none.cgi", "printf 'Content-Type: text/plain\\n\\n'; cat; echo end")
    path = limits.script("eats.cgi", f"head -c 10 >/dev/null; printf 'Location: {target}\\n\\n'")
    answer = limits.uwsgi(path, bytes(size))
    assert (answer.status, answer.cut, answer.text) == (200, False, "end\n")


def test_redirects_in_a_circle_end(limits: Site) -> None:
    path = limits.script("circle.cgi", "printf 'Location: /cgi-bin/circle.cgi\\n\\n'")
    answer = limits.uwsgi(path)
    assert answer.status == 500
    assert "in circles" in limits.logged(path)["problem"]


def test_scripts_that_redirect_share_the_time_of_the_request(limits: Site) -> None:
    """cgi-total-timeout and harakiri are limits of a request, whoever works at it."""
    path = limits.script("stages.cgi", "sleep 0.15; printf 'Location: /cgi-bin/stages.cgi\\n\\n'")
    answer, seconds = timed(lambda: limits.uwsgi(path))
    assert (answer.status, answer.cut) == (504, False)
    assert re.search("did not end within 0.8 s, [2-5] local redirects included, and was ended", answer.text)
    assert 0.8 <= seconds < 1.4


def test_a_local_redirect_to_what_we_do_not_have_is_the_web_servers(limits: Site) -> None:
    path = limits.script("static.cgi", "printf 'Location: /pictures/a.png\\n\\n'")
    answer = limits.uwsgi(path)
    assert (answer.status, answer.headers["location"]) == (302, "/pictures/a.png")


def test_nginx_may_follow_instead(tmp_path: Path) -> None:
    """cgi-local-redirect = accel: X-Accel-Redirect sends nginx to the path, whoever serves it."""
    for site in site_with(tmp_path, 'cgi-local-redirect = "accel"'):
        path = site.script("static.cgi", "printf 'Location: /pictures/a.png\\n\\n'")
        assert site.uwsgi(path).headers["x-accel-redirect"] == "/pictures/a.png"


# ---- scripts that may finish ----------------------------------------------------------------------------


def test_a_script_may_finish_without_its_client(patient: Site, tmp_path: Path) -> None:
    """cgi-do-not-kill-on-error: payment callbacks and the like must come to their end."""
    os.mkfifo(tmp_path / "go")
    path = patient.script("pay.cgi", f"echo started $$ >&2; read x <{tmp_path}/go; {HELLO}; echo paid >&2")
    with connect(patient.socket) as sock:
        sock.sendall(packet(path))
        (pid,) = pids(patient, "started")
    (tmp_path / "go").write_text("go\n")
    assert gone(pid)
    patient.server.wait_for(event="stderr", message=lambda text: text.endswith("paid"))
    assert "the client left" in patient.logged(path)["problem"]


def test_half_a_body_ends_it_all_the_same(patient: Site) -> None:
    """What broke off must not pass for a whole request."""
    path = patient.script("half.cgi", "echo reading $$ >&2; cat >/dev/null; echo done >&2; sleep 30")
    with connect(patient.socket) as sock:
        sock.sendall(packet(path, method="POST", length=10) + b"12345")
        (pid,) = pids(patient, "reading")
    assert gone(pid)
    assert "inside the body" in patient.logged(path)["problem"]


# ---- bodies that are kept first -------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 100_000, 3_000_000])
def test_a_script_starts_when_the_body_is_here(tmp_path: Path, size: int) -> None:
    """post-buffering: no script waits for a slow client."""
    for site in site_with(tmp_path, "post-buffering = 4096"):
        path = site.script("sum.cgi", "echo started >&2; printf 'Content-Type: text/plain\\n\\n'; exec sha256sum")
        body = os.urandom(size)
        with connect(site.socket) as sock:
            sock.sendall(packet(path, method="POST", length=size) + body[:-1])
            assert site.uwsgi(site.script("other.cgi", HELLO)).text == "hello"
            assert not [record for record in site.server.log if record.get("event") == "stderr"]
            sock.sendall(body[-1:])
            assert read_to_end(sock).text.split()[0] == hashlib.sha256(body).hexdigest()


def test_half_a_body_starts_nothing(tmp_path: Path) -> None:
    for site in site_with(tmp_path, "post-buffering = 4096"):
        path = site.script("never.cgi", "echo started >&2")
        with connect(site.socket) as sock:
            sock.sendall(packet(path, method="POST", length=10) + b"12345")
        assert "inside the body of" in site.logged(path)["problem"]
        assert not [record for record in site.server.log if record.get("event") == "stderr"]


# ---- what a request leaves behind -----------------------------------------------------------------------


def test_the_request_line_tells_how_the_script_ended(patient: Site) -> None:
    """wait4(2): exit code, CPU seconds, peak memory in bytes."""
    path = patient.script("ends.cgi", f"{HELLO}; exit 3")
    assert patient.uwsgi(path).text == "hello"
    record = patient.logged(path)
    assert record["exit"] == 3
    assert "signal" not in record
    assert 0 <= record["cpu"] < 10
    assert 100_000 < record["maxrss"] < 1 << 30


def test_the_request_line_names_the_signal(patient: Site) -> None:
    path = patient.script("dies.cgi", f"{HELLO}; kill -TERM $$")
    patient.uwsgi(path)
    record = patient.logged(path)
    assert record["signal"] == "SIGTERM"
    assert "exit" not in record


@pytest.mark.parametrize("known", ["", "4a6f3c", "from-nginx"])
def test_one_id_for_the_script_its_stderr_and_the_request_line(patient: Site, known: str) -> None:
    """nginx's ``$request_id`` if it was sent, else one of ours."""
    name = f"id{len(known)}.cgi"
    path = patient.script(name, "printf 'Content-Type: text/plain\\n\\n'; echo here >&2; exec env -0")
    answer = patient.uwsgi(path, REQUEST_ID=known) if known else patient.uwsgi(path)
    found = variables(answer)["REQUEST_ID"]
    assert found == (known or found)
    assert patient.logged(path)["request_id"] == found
    stderr = patient.server.wait_for(event="stderr", message=lambda text: path in text)
    assert stderr["request_id"] == found


def test_no_two_requests_have_the_same_id(patient: Site) -> None:
    path = patient.script("many.cgi", "printf 'Content-Type: text/plain\\n\\n'; exec env -0")
    ids = [variables(patient.uwsgi(path))["REQUEST_ID"] for _ in range(20)]
    assert len(set(ids)) == 20
