"""A vassal's own log file under real requests: its words, its exceptions, and logrotate in both its ways."""

import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conformance.capital import capital
from tests.support import PATIENCE, Server, Site, connect, packet, read_to_end, serving, until

_SITE = """
[[vassal]]
name = "site"
socket = "site.sock"
http-socket = "127.0.0.1:${port}"
cgi = "/cgi-bin=cgi"
processes = 2
threads = 2
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "cgi").mkdir()
    hello = tmp_path / "cgi" / "hello"
    hello.write_text('#!/bin/sh\nprintf "Status: ${QUERY_STRING:-200}\\n\\n$BODY"\n')
    hello.chmod(0o755)
    return tmp_path


def site(folder: Path, server: Server) -> Site:
    return Site(server, folder / "cgi", folder / "site.sock")


@pytest.fixture
def log(folder: Path) -> Path:
    return folder / "site.log"


@pytest.fixture
def logged(folder: Path) -> Iterator[Site]:
    """A vassal that logs its requests to ``site.log``, each by its number."""
    text = 'logto = "site.log"\nlog-format = "request %(var.QUERY_STRING) by %(wid) took %(msecs)"\n'
    with serving(folder, _SITE + text) as server:
        yield site(folder, server)


def requests(*files: Path) -> list[str]:
    return [line.split()[1] for file in files for line in file.read_text().splitlines() if "request " in line]


def lines(file: Path, number: int) -> list[str]:
    """Wait for ``number`` lines of requests: they are written when the client has its answer already."""
    until(file.parent, lambda: len(requests(file)) >= number)
    return requests(file)


def test_requests_and_the_masters_words_are_in_the_vassals_file_alone(logged: Site, log: Path) -> None:
    for number in range(200, 205):
        assert logged.uwsgi(f"/cgi-bin/hello?{number}").status == number
    assert sorted(lines(log, 5)) == [str(number) for number in range(200, 205)]
    assert re.search(r"request 204 by [12] took \d+\n", log.read_text())
    assert '"actor":"worker:site/1"' in log.read_text()  # its master says so
    assert not [record for record in logged.server.log if record["actor"].startswith("worker:")]


def test_copytruncate_leaves_no_hole(logged: Site, log: Path) -> None:
    logged.uwsgi("/cgi-bin/hello?201")
    assert lines(log, 1) == ["201"]
    copy = log.read_bytes()
    os.truncate(log, 0)
    logged.uwsgi("/cgi-bin/hello?202")
    assert lines(log, 1) == ["202"]
    assert b"\0" not in log.read_bytes() + copy


def test_rename_and_sigusr1_lose_no_line(logged: Site, log: Path) -> None:
    master = logged.server.wait_for(actor="master:site", state="READY")["pid"]
    logged.uwsgi("/cgi-bin/hello?201")
    assert lines(log, 1) == ["201"]
    old = log.rename(log.with_suffix(".1"))
    for _ in range(6):
        logged.uwsgi("/cgi-bin/hello?202")
    assert len(lines(old, 7)) == 7
    assert not log.exists()
    os.kill(master, signal.SIGUSR1)
    until(log.parent, log.exists)
    for _ in range(6):
        logged.uwsgi("/cgi-bin/hello?203")
    assert lines(log, 6) == ["203"] * 6
    assert len(requests(old)) == 7


def test_a_full_file_is_rotated_under_load_and_no_line_is_lost(folder: Path, log: Path) -> None:
    text = 'logto = "site.log"\nlog-maxsize = 400\nlog-format = "request %(var.QUERY_STRING) %(request_id)"\n'
    with serving(folder, _SITE + text) as server:
        vassal = site(folder, server)
        numbers = [str(200 + index) for index in range(60)]

        def client(mine: list[str]) -> None:
            for number in mine:
                vassal.uwsgi(f"/cgi-bin/hello?{number}")

        threads = [threading.Thread(target=client, args=(numbers[start::3],)) for start in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    files = list(folder.glob("site.log*"))
    assert len(files) > 3
    assert sorted(requests(*files)) == numbers


def test_disabled_logging_and_its_exceptions(folder: Path, log: Path) -> None:
    text = 'logto = "site.log"\ndisable-logging = true\nlog-4xx = true\nlog-5xx = true\nlog-big = 1000\n'
    text += 'log-format = "request %(var.QUERY_STRING)"\nenv = "BODY=x"\n'
    with serving(folder, _SITE + text) as server:
        vassal = site(folder, server)
        big = vassal.script("big", "echo; head -c 2000 /dev/zero")
        for status in (200, 404, 302, 503):
            vassal.uwsgi(f"/cgi-bin/hello?{status}")
        vassal.uwsgi(f"{big}?201")
        assert lines(log, 3) == ["404", "503", "201"]
        vassal.uwsgi("/cgi-bin/nowhere?202")  # it has a problem, which is always said
        assert lines(log, 4)[3:] == ["202"]
    assert '"message":"GET /cgi-bin/nowhere?202: ' in log.read_text()


def test_slow_and_empty_answers_are_logged_although_logging_is_disabled(folder: Path, log: Path) -> None:
    text = 'logto = "site.log"\ndisable-logging = true\nlog-zero = true\nlog-slow = 300\n'
    text += 'log-format = "request %(var.QUERY_STRING) %(msecs) %(rsize)"\n'
    with serving(folder, _SITE + text) as server:
        vassal = site(folder, server)
        head = "printf 'Content-Type: text/plain\\n\\n'"
        body = f"{head}; echo body"
        quick, slow, empty = (
            vassal.script(name, words)
            for name, words in (("quick", body), ("slow", f"read none; {body}"), ("empty", head))
        )
        vassal.uwsgi(f"{quick}?201")
        with connect(vassal.socket) as sock:
            sock.sendall(packet(f"{slow}?202", method="POST", length=1))
            sock.settimeout(0.4)
            with pytest.raises(TimeoutError):
                sock.recv(1)
            sock.settimeout(PATIENCE)
            sock.sendall(b"\n")
            assert read_to_end(sock).body == b"body\n"
        vassal.uwsgi(f"{empty}?203")
        assert lines(log, 2) == ["202", "203"]
    msecs, rsize = next(line for line in log.read_text().splitlines() if "request 202" in line).split()[2:]
    assert int(msecs) >= 300
    assert rsize == "5"


def test_a_reload_opens_the_log_file_again(folder: Path, log: Path) -> None:
    """uWSGI's log-reopen, which is always so here."""
    with serving(folder, _SITE + 'logto = "site.log"\nlog-format = "request %(var.QUERY_STRING)"\n') as server:
        vassal = site(folder, server)
        vassal.uwsgi("/cgi-bin/hello?201")
        assert lines(log, 1) == ["201"]
        log.rename(log.with_suffix(".1"))
        os.kill(server.wait_for(actor="master:site", state="READY")["pid"], signal.SIGHUP)
        server.wait_for(actor="master:site", event="reloaded")
        until(log.parent, log.exists)
        server.wait_for(actor="master:site", event="exit")
        vassal.uwsgi("/cgi-bin/hello?202")
        assert lines(log, 1) == ["202"]


def test_a_log_file_that_cannot_be_opened_costs_no_request_and_no_line(folder: Path) -> None:
    server = Server(folder, _SITE + 'logto = "nowhere/site.log"\n')
    warning = server.wait_for(actor="master:site", level="WARNING", message=lambda text: "logto" in text)
    assert warning["message"].endswith("nowhere/site.log: No such file or directory; logging goes on here")
    vassal = site(folder, server)
    assert vassal.uwsgi("/cgi-bin/hello?201").status == 201
    assert vassal.logged("/cgi-bin/hello?201")["status"] == 201
    server.stop()


def test_sigusr1_kills_nobody_who_has_no_log_file(folder: Path) -> None:
    with serving(folder, _SITE) as server:
        pids = [server.wait_for(actor="master:site", state="READY")["pid"], *server.workers("site")]
        for pid in pids:
            os.kill(pid, signal.SIGUSR1)
        assert site(folder, server).uwsgi("/cgi-bin/hello?201").status == 201
        assert [record for record in server.log if record.get("state") == "ABSENT"] == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be root")
def test_a_vassal_that_runs_as_root_is_warned_of(folder: Path) -> None:
    other = _SITE.replace("site", "other").replace("http-socket", "# http-socket") + 'uid = "nobody"\n'
    os.chmod(folder, 0o755)
    with serving(folder, _SITE + other) as server:
        warning = server.wait_for(actor="master:site", level="WARNING")
        assert warning["message"] == "runs as root, and so do its scripts: write uid = USER, or cgi-run-as-owner"
        warned = [record["actor"] for record in server.log if record["level"] == "WARNING"]
        assert warned == ["master:site"], "once, and nobody else"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be root")
def test_a_vassal_is_warned_of_again_only_when_it_runs_as_root_again(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    warning = "site.*runs as root, and so do its scripts"
    with capital(tmp_path) as emperor:

        def renew(more: str) -> None:
            since = emperor.now
            emperor.write("site", f"# {since}\n{more}")
            emperor.said("site.*generation .* serves now", since)

        emperor.start("site")
        emperor.said(warning)
        renew("processes = 2\n")
        renew("uid = root\n")
        emperor.reload("site")
        since = emperor.now
        os.kill(emperor.status("site").pids[0], signal.SIGKILL)
        curse = emperor.said("curse the uwsgi instance site.ini", since)
        emperor.said("vassal site.ini is ready to accept requests", emperor.lines.index(curse, since))
        renew("uid = nobody\n")
        assert emperor.count(warning) == 1, "it always ran as root, until it did not"
        renew("")
        assert emperor.count(warning) == 2
        renew("cgi-run-as-owner = 1\n")
        renew("")
        assert emperor.count(warning) == 3
        since = emperor.now
        (emperor.vassals / "site.ini").rename(emperor.vassals / "other.ini")
        emperor.said("other.*generation .* serves now", since)
        assert emperor.count("runs as root") == 3, "whatever it is called"
